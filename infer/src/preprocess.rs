//! Preprocessing of imported files: layout, channels, scale, mean and deviation, element type.

use half::{bf16, f16};
use protoseg_models::adapter::{Adapter, ChannelOrder, Normalization};
use protoseg_models::interface::InputElement;
use rayon::prelude::*;

/// Turns images into the input tensor of a file, in a reused buffer.
#[derive(Debug)]
pub(crate) struct Preprocess {
    adapter: Adapter,
    /// The value of every byte of red, green and blue; None where the file takes them as they are.
    tables: Option<[[f32; 256]; 3]>,
    floats: Vec<f32>,
    bytes: Vec<u8>,
}

/// Values of the input tensor.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum InputTensor<'a> {
    Floats(&'a [f32]),
    Bytes(&'a [u8]),
    Float16(Vec<f16>),
    BFloat16(Vec<bf16>),
    Float64(Vec<f64>),
    Uint16(Vec<u16>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
}

impl Preprocess {
    pub(crate) fn new(adapter: Adapter) -> Self {
        let gray = adapter.interface.gray;
        let normalization = adapter.normalization;
        let tables = normalization.map(|constants| if gray { constants.gray() } else { constants });
        let tables = tables.map(Normalization::tables);
        Self { adapter, tables, floats: Vec::new(), bytes: Vec::new() }
    }

    pub(crate) fn adapter(&self) -> &Adapter {
        &self.adapter
    }

    /// Returns the input tensor of images RGB `[n, height, width, 3]`, and its shape. If the file
    /// takes more images at once, the last ones are blank. None where it does not fit into memory.
    pub(crate) fn fill(
        &mut self,
        images: &[u8],
        size @ [height, width]: [usize; 2],
    ) -> Option<(InputTensor<'_>, Vec<usize>)> {
        let Self { adapter, tables, floats, bytes } = self;
        let plane = height * width;
        let count = adapter.batch.unwrap_or(images.len() / (plane * 3).max(1));
        let channels = adapter.interface.channels();
        let shape = adapter.layout.shape(count, channels, size);
        let total = count.checked_mul(plane)?.checked_mul(channels)?;
        let values = match tables {
            Some(tables) => {
                let value = |channel: usize, byte: u8| tables[channel][usize::from(byte)];
                InputTensor::Floats(arrange(images, floats, total, plane, adapter, &value)?)
            }
            None => {
                InputTensor::Bytes(arrange(images, bytes, total, plane, adapter, &|_, byte| byte)?)
            }
        };
        let element = adapter.interface.element;
        Some((element.map_or_else(|| values.clone(), |element| values.converted(element)), shape))
    }
}

impl<'a> InputTensor<'a> {
    /// Returns the values in another element type. Floats are rounded to the nearest, and never
    /// become integers.
    fn converted(&self, element: InputElement) -> InputTensor<'a> {
        match (self, element) {
            (Self::Floats(values), InputElement::Float16) => {
                Self::Float16(values.iter().map(|&value| f16::from_f32(value)).collect())
            }
            (Self::Floats(values), InputElement::BFloat16) => {
                Self::BFloat16(values.iter().map(|&value| bf16::from_f32(value)).collect())
            }
            (Self::Floats(values), InputElement::Float64) => {
                Self::Float64(values.iter().map(|&value| value.into()).collect())
            }
            (Self::Bytes(bytes), InputElement::Uint16) => {
                Self::Uint16(bytes.iter().map(|&byte| byte.into()).collect())
            }
            (Self::Bytes(bytes), InputElement::Int16) => {
                Self::Int16(bytes.iter().map(|&byte| byte.into()).collect())
            }
            (Self::Bytes(bytes), InputElement::Int32) => {
                Self::Int32(bytes.iter().map(|&byte| byte.into()).collect())
            }
            (Self::Bytes(bytes), InputElement::Int64) => {
                Self::Int64(bytes.iter().map(|&byte| byte.into()).collect())
            }
            (values, _) => values.clone(),
        }
    }
}

/// Luma of a pixel by ITU-R BT.601, rounded; gray pixels keep their value.
fn luma(pixel: &[u8]) -> u8 {
    let [red, green, blue] = [0, 1, 2].map(|channel| u32::from(pixel[channel]));
    ((red * 19_595 + green * 38_470 + blue * 7_471 + 0x8000) >> 16) as u8
}

/// Fills a buffer with `total` values of images of `plane` pixels each.
fn arrange<'a, T: Copy + Default + Send + Sync>(
    images: &[u8],
    buffer: &'a mut Vec<T>,
    total: usize,
    plane: usize,
    adapter: &Adapter,
    value: &(impl Fn(usize, u8) -> T + Sync),
) -> Option<&'a [T]> {
    buffer.clear();
    buffer.try_reserve_exact(total).ok()?;
    buffer.resize(total, T::default());
    if adapter.interface.gray {
        let pixels = buffer.par_iter_mut().zip(images.par_chunks_exact(3));
        pixels.for_each(|(slot, pixel)| *slot = value(0, luma(pixel)));
        return Some(buffer);
    }
    // The channel of the image at each position of the input.
    let source = match adapter.order {
        ChannelOrder::Rgb => [0, 1, 2],
        ChannelOrder::Bgr => [2, 1, 0],
    };
    if adapter.layout.channels_last() {
        buffer.par_chunks_exact_mut(3).zip(images.par_chunks_exact(3)).for_each(
            |(values, pixel)| {
                for (slot, channel) in values.iter_mut().zip(source) {
                    *slot = value(channel, pixel[channel]);
                }
            },
        );
    } else {
        buffer.par_chunks_exact_mut(plane.max(1)).enumerate().for_each(|(index, values)| {
            let channel = source[index % 3];
            let image = images.get(index / 3 * plane * 3..).unwrap_or_default();
            for (slot, pixel) in values.iter_mut().zip(image.chunks_exact(3)) {
                *slot = value(channel, pixel[channel]);
            }
        });
    }
    Some(buffer)
}

#[cfg(test)]
mod tests {
    use protoseg_models::adapter::Layout;
    use protoseg_models::interface::Interface;

    use super::*;

    #[test]
    fn every_value_lies_where_the_file_reads_it() {
        let images: Vec<u8> = (0..2 * 2 * 3 * 3).collect();
        let normalization = Normalization::new(2.0, [1.0, 2.0, 3.0], [1.0, 2.0, 4.0]).unwrap();
        for (layout, order, normalization) in [
            (Layout::Nchw, ChannelOrder::Rgb, Some(normalization)),
            (Layout::Nchw, ChannelOrder::Bgr, None),
            (Layout::Nhwc, ChannelOrder::Rgb, None),
            (Layout::Nhwc, ChannelOrder::Bgr, Some(normalization)),
        ] {
            let adapter = Adapter {
                layout,
                order,
                normalization,
                batch: Some(3),
                size: None,
                output: "x".to_owned(),
                interface: Interface::default(),
            };
            let mut preprocess = Preprocess::new(adapter);
            for _ in 0..2 {
                let (pixels, shape) = preprocess.fill(&images, [2, 3]).unwrap();
                let found: Vec<f32> = match pixels {
                    InputTensor::Floats(values) => values.to_vec(),
                    InputTensor::Bytes(values) => {
                        values.iter().map(|&value| f32::from(value)).collect()
                    }
                    other => panic!("{other:?}"),
                };
                assert_eq!((found.len(), shape[0]), (3 * 2 * 3 * 3, 3));
                for (index, &found) in found.iter().enumerate() {
                    let (image, rest) = (index / 18, index % 18);
                    let (pixel, place) = if layout == Layout::Nchw {
                        (rest % 6, rest / 6)
                    } else {
                        (rest / 3, rest % 3)
                    };
                    let channel = if order == ChannelOrder::Bgr { 2 - place } else { place };
                    let byte = (image * 18 + pixel * 3 + channel) as f32;
                    let expected = match normalization {
                        _ if image == 2 => 0.0,
                        None => byte,
                        Some(_) => (byte / 2.0 - (channel + 1) as f32) / [1.0, 2.0, 4.0][channel],
                    };
                    assert_eq!(found, expected, "{layout:?} {order:?} {index}");
                }
            }
        }
    }
    #[test]
    fn one_channel_is_luma_and_every_element_type_holds_it() {
        let images = [255, 0, 0, 0, 255, 0, 0, 0, 255, 7, 7, 7];
        let luma = [76, 150, 29, 7];
        for (name, element) in InputElement::ALL {
            let adapter = Adapter {
                layout: Layout::Hw,
                order: ChannelOrder::Rgb,
                normalization: element.is_float().then_some(Normalization::NONE),
                batch: Some(1),
                size: None,
                output: "x".to_owned(),
                interface: Interface { gray: true, element: Some(element), ..Interface::default() },
            };
            let mut preprocess = Preprocess::new(adapter);
            let (values, shape) = preprocess.fill(&images, [2, 2]).unwrap();
            assert_eq!(shape, [2, 2], "{name}");
            let found: Vec<f64> = match values {
                InputTensor::Floats(values) => values.iter().map(|&v| f64::from(v)).collect(),
                InputTensor::Bytes(values) => values.iter().map(|&v| f64::from(v)).collect(),
                InputTensor::Float16(values) => values.into_iter().map(f64::from).collect(),
                InputTensor::BFloat16(values) => values.into_iter().map(f64::from).collect(),
                InputTensor::Float64(values) => values,
                InputTensor::Uint16(values) => values.into_iter().map(f64::from).collect(),
                InputTensor::Int16(values) => values.into_iter().map(f64::from).collect(),
                InputTensor::Int32(values) => values.into_iter().map(f64::from).collect(),
                InputTensor::Int64(values) => values.into_iter().map(|v| v as f64).collect(),
            };
            assert_eq!(found, luma.map(f64::from), "{name}");
        }
        assert_eq!(Normalization::UNIT.gray(), Normalization::UNIT);
        let tables = Normalization::IMAGENET.gray().tables();
        assert!((tables[0][0] + 0.449 / 0.226).abs() < 1e-5 && tables[0] == tables[2]);
    }
}
