//! The probe: images with libtorch's logits and labels, so that any machine can compare its runtime
//! with libtorch without having it. For imported files, the file's own outputs at import.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::atomic;
use crate::errors::FileError;
use crate::prototypes::PROTOTYPE_CONFIDENCE;
use crate::weights::{Tensor, WeightsError, broken, bytes, floats, serialize};

/// One image with its expected outputs.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbeCase {
    /// Unique name, such as `193x257`.
    pub name: String,
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// RGB, `[height, width, 3]`.
    pub image: Vec<u8>,
    /// Logits before upsampling, `[1, classes, h, w]`; [`ProbeCase::no_logits`] if unknown.
    pub logits: Tensor,
    /// Train ids after upsampling, `[height, width]`.
    pub labels: Vec<u8>,
    /// Probability of each label by the prototypes in steps of 1/255, `[height, width]`.
    pub prototype_confidence: Option<Vec<u8>>,
}

impl ProbeCase {
    /// Returns the empty logits `[1, 0, 0, 0]` of a case with labels only.
    pub fn no_logits() -> Tensor {
        Tensor { shape: vec![1, 0, 0, 0], data: Vec::new() }
    }
}

/// Reads the cases of a probe file in order of their names.
pub fn read(path: &Path) -> Result<Vec<ProbeCase>, WeightsError> {
    let data = std::fs::read(path).map_err(FileError::at(path))?;
    let file = SafeTensors::deserialize(&data).map_err(broken(path))?;
    let mut names: Vec<&str> =
        file.names().into_iter().filter_map(|name| name.strip_suffix(".image")).collect();
    names.sort_unstable();
    names.into_iter().map(|name| read_case(path, &file, name)).collect()
}

fn read_case(path: &Path, file: &SafeTensors<'_>, name: &str) -> Result<ProbeCase, WeightsError> {
    let wrong = |reason: String| WeightsError::Tensor { path: path.into(), reason };
    let tensor = |part: &str, dtype: Dtype, rank: usize| {
        let name = format!("{name}.{part}");
        let view = file.tensor(&name).map_err(broken(path))?;
        if view.dtype() != dtype || view.shape().len() != rank {
            let found = view.dtype();
            let shape = view.shape();
            return Err(wrong(format!(
                "tensor `{name}` is {found:?} {shape:?}, not {dtype:?} of {rank} dimensions; make \
                 the probe again"
            )));
        }
        Ok(view)
    };
    let image = tensor("image", Dtype::U8, 4)?;
    let logits = tensor("logits", Dtype::F32, 4)?;
    let labels = tensor("labels", Dtype::U8, 3)?;
    let has_confidence = file.tensor(&format!("{name}.{PROTOTYPE_CONFIDENCE}")).is_ok();
    let confidence =
        has_confidence.then(|| tensor(PROTOTYPE_CONFIDENCE, Dtype::U8, 3)).transpose()?;
    let (height, width) = (image.shape()[1], image.shape()[2]);
    let logits = Tensor { shape: logits.shape().to_vec(), data: floats(logits.data()) };
    let fits = image.shape() == [1, height, width, 3]
        && labels.shape() == [1, height, width]
        && confidence.as_ref().is_none_or(|confidence| confidence.shape() == [1, height, width])
        && logits.shape[0] == 1
        && logits.data.iter().all(|logit| logit.is_finite());
    if !fits || height * width == 0 {
        return Err(wrong(format!(
            "image, logits and labels of case {name} do not fit each other, or are not finite; \
             make the probe again"
        )));
    }
    Ok(ProbeCase {
        name: name.to_owned(),
        height,
        width,
        image: image.data().to_vec(),
        logits,
        labels: labels.data().to_vec(),
        prototype_confidence: confidence.map(|confidence| confidence.data().to_vec()),
    })
}

/// Writes a probe file atomically: `{name}.image` u8 `[1, H, W, 3]`, `{name}.logits` f32,
/// `{name}.labels` u8 `[1, H, W]` and, if known, `{name}.prototype_confidence` u8 `[1, H, W]`.
pub fn write(path: &Path, cases: &[ProbeCase]) -> Result<(), WeightsError> {
    let logits: Vec<Vec<u8>> = cases.iter().map(|case| bytes(&case.logits.data)).collect();
    let mut views = Vec::new();
    for (case, logits) in cases.iter().zip(&logits) {
        let name = &case.name;
        let map = vec![1, case.height, case.width];
        let image = vec![1, case.height, case.width, 3];
        let mut parts: Vec<(&str, Dtype, Vec<usize>, &[u8])> = vec![
            ("image", Dtype::U8, image, &case.image),
            ("logits", Dtype::F32, case.logits.shape.clone(), logits),
            ("labels", Dtype::U8, map.clone(), &case.labels),
        ];
        if let Some(confidence) = &case.prototype_confidence {
            parts.push((PROTOTYPE_CONFIDENCE, Dtype::U8, map, confidence));
        }
        for (part, dtype, shape, data) in parts {
            let view = TensorView::new(dtype, shape, data).map_err(broken(path))?;
            views.push((format!("{name}.{part}"), view));
        }
    }
    let views = views.iter().map(|(name, view)| (name.as_str(), view.clone())).collect();
    let file = serialize(views, &BTreeMap::new()).map_err(broken(path))?;
    Ok(atomic::write(path, &file).map_err(FileError::at(path))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_survives_a_round_trip_and_a_truncated_one_is_refused() {
        let case = |name: &str, height: usize, width: usize| ProbeCase {
            name: name.to_owned(),
            height,
            width,
            image: (0..height * width * 3).map(|index| index as u8).collect(),
            logits: Tensor::from_fn(&[1, 2, 1, 3], |index| index as f32 - 2.5),
            labels: vec![1; height * width],
            prototype_confidence: (height == 3).then(|| vec![7; height * width]),
        };
        let labels_only = ProbeCase { logits: ProbeCase::no_logits(), ..case("5x5", 5, 5) };
        let cases = [case("3x5", 3, 5), case("4x2", 4, 2), labels_only];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("probe.safetensors");
        write(&path, &cases).unwrap();
        assert_eq!(read(&path).unwrap(), cases);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let message = read(&path).unwrap_err().to_string();
        assert!(message.contains("probe.safetensors") && message.contains("again"), "{message}");
    }
}
