//! Tensors of ONNX Runtime from and to plain values, whatever their element type and layout.

use ort::session::SessionInputValue;
use ort::value::{DynValue, Tensor as OrtTensor, TensorElementType, TensorRef};
use protoseg_models::interface::{Interface, OutputLayout, ScoreKind};
use protoseg_models::weights::Tensor;

use crate::preprocess::InputTensor;

/// Values of an output as they came.
#[derive(Debug, Clone, PartialEq)]
pub enum RawValues {
    /// Floats of any width.
    Floats(Vec<f32>),
    /// Integers of any width and truth values.
    Integers(Vec<i64>),
}

/// An output as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct RawOutput {
    /// Size of each dimension.
    pub shape: Vec<usize>,
    /// As many values as the product of `shape`.
    pub values: RawValues,
}

impl RawOutput {
    /// Returns the values as 32-bit floats.
    pub fn into_floats(self) -> Vec<f32> {
        match self.values {
            RawValues::Floats(values) => values,
            RawValues::Integers(values) => values.into_iter().map(|value| value as f32).collect(),
        }
    }

    /// Returns the values as integers; None where one is not whole.
    pub fn into_integers(self) -> Option<Vec<i64>> {
        match self.values {
            RawValues::Integers(values) => Some(values),
            RawValues::Floats(values) => {
                let whole = |value: f32| (value.trunc() == value).then_some(value as i64);
                values.into_iter().map(whole).collect()
            }
        }
    }
}

/// Makes the value that a session runs on; borrows it where the buffer has its type already.
pub(super) fn input_value(
    values: InputTensor<'_>,
    shape: Vec<usize>,
) -> ort::Result<SessionInputValue<'_>> {
    Ok(match values {
        InputTensor::Floats(values) => TensorRef::from_array_view((shape, values))?.into(),
        InputTensor::Bytes(values) => TensorRef::from_array_view((shape, values))?.into(),
        InputTensor::Float16(values) => OrtTensor::from_array((shape, values))?.into(),
        InputTensor::BFloat16(values) => OrtTensor::from_array((shape, values))?.into(),
        InputTensor::Float64(values) => OrtTensor::from_array((shape, values))?.into(),
        InputTensor::Uint16(values) => OrtTensor::from_array((shape, values))?.into(),
        InputTensor::Int16(values) => OrtTensor::from_array((shape, values))?.into(),
        InputTensor::Int32(values) => OrtTensor::from_array((shape, values))?.into(),
        InputTensor::Int64(values) => OrtTensor::from_array((shape, values))?.into(),
    })
}

/// Copies outputs of 32-bit floats.
pub(super) fn tensors(outputs: &[&DynValue]) -> ort::Result<Vec<Tensor>> {
    let tensor = |output: &&DynValue| {
        let (shape, data) = floats(output)?;
        Ok(Tensor { shape, data: data.to_vec() })
    };
    outputs.iter().map(tensor).collect()
}

/// Borrows the values of a tensor of 32-bit floats.
pub(super) fn floats(output: &DynValue) -> ort::Result<(Vec<usize>, &[f32])> {
    let (shape, data) = output.try_extract_tensor::<f32>()?;
    Ok((sizes(shape), data))
}

/// Copies outputs of any type.
pub(super) fn raw_outputs(outputs: &[&DynValue]) -> ort::Result<Vec<RawOutput>> {
    outputs.iter().map(|output| raw(output)).collect()
}

/// Copies an output of any type.
pub(super) fn raw(output: &DynValue) -> ort::Result<RawOutput> {
    use TensorElementType as Element;

    macro_rules! copied {
        ($kind:ident, $element:ty, $convert:expr) => {{
            let (shape, data) = output.try_extract_tensor::<$element>()?;
            let values = RawValues::$kind(data.iter().map($convert).collect());
            Ok(RawOutput { shape: sizes(shape), values })
        }};
    }
    match output.dtype().tensor_type() {
        Some(Element::Float32) => copied!(Floats, f32, |&value| value),
        Some(Element::Float16) => copied!(Floats, half::f16, |&value| value.to_f32()),
        Some(Element::Bfloat16) => copied!(Floats, half::bf16, |&value| value.to_f32()),
        Some(Element::Float64) => copied!(Floats, f64, |&value| value as f32),
        Some(Element::Uint8) => copied!(Integers, u8, |&value| value.into()),
        Some(Element::Int8) => copied!(Integers, i8, |&value| value.into()),
        Some(Element::Uint16) => copied!(Integers, u16, |&value| value.into()),
        Some(Element::Int16) => copied!(Integers, i16, |&value| value.into()),
        Some(Element::Uint32) => copied!(Integers, u32, |&value| value.into()),
        Some(Element::Int32) => copied!(Integers, i32, |&value| value.into()),
        Some(Element::Uint64) => {
            copied!(Integers, u64, |&value| i64::try_from(value).unwrap_or(i64::MAX))
        }
        Some(Element::Int64) => copied!(Integers, i64, |&value| value),
        Some(Element::Bool) => copied!(Integers, bool, |&value| value.into()),
        _ => Err(ort::Error::new(format!("an output of {} is not supported", output.dtype()))),
    }
}

fn sizes(shape: &[i64]) -> Vec<usize> {
    shape.iter().map(|&size| usize::try_from(size).unwrap_or(0)).collect()
}

/// Turns scores of any layout into `[n, classes, h, w]`; one channel becomes two classes. Scores of
/// another number of dimensions stay as they are.
pub(crate) fn class_planes(output: RawOutput, interface: &Interface) -> Tensor {
    let layout = interface.output.unwrap_or(OutputLayout::Nchw);
    let Some([count, channels, height, width]) = layout.sizes(&output.shape) else {
        return Tensor { shape: output.shape.clone(), data: output.into_floats() };
    };
    let plane = height * width;
    let mut data = output.into_floats();
    if layout.channels_last() && channels > 1 {
        let mut planes = vec![0.0; data.len()];
        for (image, planes) in data
            .chunks_exact((plane * channels).max(1))
            .zip(planes.chunks_exact_mut((plane * channels).max(1)))
        {
            for (pixel, scores) in image.chunks_exact(channels).enumerate() {
                for (channel, score) in scores.iter().enumerate() {
                    planes[channel * plane + pixel] = *score;
                }
            }
        }
        data = planes;
    }
    match interface.threshold.filter(|_| channels == 1) {
        None => Tensor { shape: vec![count, channels, height, width], data },
        Some(threshold) => {
            let other = |score: f32| match interface.scores {
                ScoreKind::Probabilities => 2.0 * threshold - score,
                ScoreKind::Logits
                | ScoreKind::LogProbabilities
                | ScoreKind::LogSigmoid
                | ScoreKind::Unscaled => threshold,
            };
            let mut two = Vec::with_capacity(data.len() * 2);
            for scores in data.chunks_exact(plane.max(1)) {
                two.extend(scores.iter().map(|&score| other(score)));
                two.extend_from_slice(scores);
            }
            Tensor { shape: vec![count, 2, height, width], data: two }
        }
    }
}

/// Number of values of an output that belong to the first `count` images.
fn image_values(shape: &[usize], count: usize) -> usize {
    shape.split_first().map_or(0, |(&all, rest)| all.min(count) * rest.iter().product::<usize>())
}

/// Appends the output of `count` more images.
pub(super) fn append<T>(
    shape: &mut Vec<usize>,
    data: &mut Vec<T>,
    mut part: Vec<usize>,
    mut more: Vec<T>,
    count: usize,
) {
    more.truncate(image_values(&part, count));
    if let Some(first) = part.first_mut() {
        *first = (*first).min(count) + shape.first().copied().unwrap_or(0);
    }
    *shape = part;
    if data.is_empty() { *data = more } else { data.append(&mut more) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_last_and_one_channel_become_planes() {
        let output =
            RawOutput { shape: vec![2, 1, 2, 3], values: RawValues::Integers((0..12).collect()) };
        let last = Interface { output: Some(OutputLayout::Nhwc), ..Interface::default() };
        let planes = class_planes(output.clone(), &last);
        assert_eq!(planes.shape, [2, 3, 1, 2]);
        assert_eq!(planes.data, [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11].map(|value| value as f32));
        let one = RawOutput { shape: vec![1, 2], values: RawValues::Floats(vec![0.25, 0.75]) };
        let binary = |scores, threshold| {
            let interface = Interface {
                output: Some(OutputLayout::Hw),
                scores,
                threshold: Some(threshold),
                ..Interface::default()
            };
            class_planes(one.clone(), &interface).data
        };
        assert_eq!(binary(ScoreKind::Probabilities, 0.5), [0.75, 0.25, 0.25, 0.75]);
        assert_eq!(binary(ScoreKind::Logits, 0.5), [0.5, 0.5, 0.25, 0.75]);
        // Another number of dimensions is left to the caller, who names it.
        assert_eq!(class_planes(output, &Interface::default()).shape, [2, 1, 2, 3]);
        let strange = RawOutput { shape: vec![4], values: RawValues::Floats(vec![0.0; 4]) };
        assert_eq!(class_planes(strange, &Interface::default()).shape, [4]);
    }

    #[test]
    fn floats_are_integers_where_they_are_whole() {
        let values = |values: &[f32]| RawOutput {
            shape: vec![values.len()],
            values: RawValues::Floats(values.to_vec()),
        };
        assert_eq!(values(&[0.0, -1.0, 255.0]).into_integers(), Some(vec![0, -1, 255]));
        assert_eq!(values(&[0.5]).into_integers(), None);
        assert_eq!(values(&[f32::NAN]).into_integers(), None);
    }
}
