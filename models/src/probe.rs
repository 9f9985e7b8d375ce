//! The probe: pictures with the logits and labels that libtorch gave, so that any machine can hold its runtime against
//! libtorch without having it. Of a file that somebody else made, they are what it gave when it was adopted.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::atomic;
use crate::prototypes::PROTOTYPE_CONFIDENCE;
use crate::weights::{Tensor, WeightsError, bytes, floats, serialize};

/// One picture with what was made of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbeCase {
    /// What tells it from the others, such as `193x257`.
    pub name: String,
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// RGB, `[height, width, 3]`.
    pub image: Vec<u8>,
    /// Class scores before upsampling, `[1, classes, h, w]`; [`ProbeCase::no_logits`] where only labels are known.
    pub logits: Tensor,
    /// Train ids after upsampling, `[height, width]`.
    pub labels: Vec<u8>,
    /// Probability of each label by the prototypes, in steps of 1/255, `[height, width]`; none without prototypes.
    pub prototype_confidence: Option<Vec<u8>>,
}

impl ProbeCase {
    /// The logits of a case that holds labels only: those of no class at no place, `[1, 0, 0, 0]`.
    pub fn no_logits() -> Tensor {
        Tensor { shape: vec![1, 0, 0, 0], data: Vec::new() }
    }
}

/// Reads the cases of a probe file, in order of their names.
pub fn read(path: &Path) -> Result<Vec<ProbeCase>, WeightsError> {
    let data =
        std::fs::read(path).map_err(|source| WeightsError::Io { path: path.into(), source })?;
    let broken = |source| WeightsError::Broken { path: path.into(), source };
    let file = SafeTensors::deserialize(&data).map_err(broken)?;
    let mut names: Vec<&str> =
        file.names().into_iter().filter_map(|name| name.strip_suffix(".image")).collect();
    names.sort_unstable();
    let case = |name: &str| {
        let tensor = |part: &str, dtype: Dtype, rank: usize| {
            let name = format!("{name}.{part}");
            let view = file.tensor(&name).map_err(broken)?;
            if view.dtype() != dtype || view.shape().len() != rank {
                return Err(WeightsError::Type { path: path.into(), name, dtype: view.dtype() });
            }
            Ok(view)
        };
        let image = tensor("image", Dtype::U8, 4)?;
        let logits = tensor("logits", Dtype::F32, 4)?;
        let labels = tensor("labels", Dtype::U8, 3)?;
        let part = PROTOTYPE_CONFIDENCE;
        let has_confidence = file.tensor(&format!("{name}.{part}")).is_ok();
        let confidence = has_confidence.then(|| tensor(part, Dtype::U8, 3)).transpose()?;
        let (height, width) = (image.shape()[1], image.shape()[2]);
        let logits = Tensor { shape: logits.shape().to_vec(), data: floats(logits.data()) };
        let fits = image.shape() == [1, height, width, 3]
            && labels.shape() == [1, height, width]
            && confidence
                .as_ref()
                .is_none_or(|confidence| confidence.shape() == [1, height, width])
            && logits.shape[0] == 1
            && logits.data.iter().all(|score| score.is_finite());
        if !fits || height * width == 0 {
            return Err(WeightsError::Case { path: path.into(), name: name.to_owned() });
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
    };
    names.into_iter().map(case).collect()
}

/// Writes a probe file: `{name}.image` u8 `[1, H, W, 3]`, `{name}.logits` f32, `{name}.labels` u8 `[1, H, W]`, and
/// `{name}.prototype_confidence` u8 `[1, H, W]` where there is one.
pub fn write(path: &Path, cases: &[ProbeCase]) -> Result<(), WeightsError> {
    let broken = |source| WeightsError::Broken { path: path.into(), source };
    let logits: Vec<Vec<u8>> = cases.iter().map(|case| bytes(&case.logits.data)).collect();
    let mut views = Vec::new();
    for (case, logits) in cases.iter().zip(&logits) {
        let ProbeCase { name, height, width, .. } = case;
        let confidence = case.prototype_confidence.as_deref();
        let confidence = confidence
            .map(|bytes| (PROTOTYPE_CONFIDENCE, Dtype::U8, vec![1, *height, *width], bytes));
        let parts: [(&str, Dtype, Vec<usize>, &[u8]); 3] = [
            ("image", Dtype::U8, vec![1, *height, *width, 3], &case.image),
            ("logits", Dtype::F32, case.logits.shape.clone(), logits),
            ("labels", Dtype::U8, vec![1, *height, *width], &case.labels),
        ];
        for (part, dtype, shape, data) in parts.into_iter().chain(confidence) {
            views.push((
                format!("{name}.{part}"),
                TensorView::new(dtype, shape, data).map_err(broken)?,
            ));
        }
    }
    let views = views.iter().map(|(name, view)| (name.as_str(), view.clone())).collect();
    let file = serialize(views, &BTreeMap::new()).map_err(broken)?;
    atomic::write(path, &file).map_err(|source| WeightsError::Io { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_read_as_it_was_written_and_a_cut_one_is_refused() {
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
