//! What a `preprocessor_config.json` of Hugging Face beside a file says of its images.

use std::path::Path;

use protoseg_models::adapter::{ChannelOrder, Normalization};
use serde::Deserialize;

use super::ImportError;

/// Name of the file.
pub(super) const NAME: &str = "preprocessor_config.json";

/// Preprocessing that a model was trained with.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct KnownConfig {
    pub(super) normalization: Option<Normalization>,
    pub(super) order: Option<ChannelOrder>,
    /// True where images are resized without regard to their proportions.
    pub(super) resizes: bool,
    /// Height and width that they are resized to.
    pub(super) size: Option<[usize; 2]>,
}

/// The fields of `transformers.image_processing_utils` that matter, with its defaults.
#[derive(Deserialize)]
#[serde(default)]
struct Fields {
    do_resize: bool,
    size: Option<Size>,
    do_rescale: bool,
    rescale_factor: f64,
    do_normalize: bool,
    image_mean: Option<Vec<f32>>,
    image_std: Option<Vec<f32>>,
    do_flip_channel_order: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Size {
    Side(usize),
    Both { height: usize, width: usize },
    Other {},
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            do_resize: false,
            size: None,
            do_rescale: true,
            rescale_factor: 1.0 / 255.0,
            do_normalize: true,
            image_mean: None,
            image_std: None,
            do_flip_channel_order: false,
        }
    }
}

impl KnownConfig {
    /// Reads the file beside a model; the default where there is none.
    pub(super) fn beside(model: &Path) -> Result<Self, ImportError> {
        let path = model.with_file_name(NAME);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(source) => return Err(ImportError::Io { path, source }),
        };
        let failed = |reason: String| ImportError::Options(format!("{}: {reason}", path.display()));
        let fields: Fields =
            serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?;
        Self::from_fields(&fields).map_err(failed)
    }

    fn from_fields(fields: &Fields) -> Result<Self, String> {
        let channels = |values: &Option<Vec<f32>>, usual: f32| match values.as_deref() {
            None => Ok([usual; 3]),
            Some(&[value]) => Ok([value; 3]),
            Some(&[red, green, blue]) => Ok([red, green, blue]),
            Some(values) => Err(format!("{} values where channels are 3 or 1", values.len())),
        };
        let scale = if fields.do_rescale { (1.0 / fields.rescale_factor) as f32 } else { 1.0 };
        let [mean, std] = match fields.do_normalize && fields.image_mean.is_some() {
            true => [channels(&fields.image_mean, 0.0)?, channels(&fields.image_std, 1.0)?],
            false => [[0.0; 3], [1.0; 3]],
        };
        let normalization =
            Normalization::new(scale.round(), mean, std).map_err(|error| error.to_string())?;
        let size = match fields.size {
            Some(Size::Side(side)) => Some([side; 2]),
            Some(Size::Both { height, width }) => Some([height, width]),
            Some(Size::Other {}) | None => None,
        };
        Ok(Self {
            normalization: Some(normalization),
            order: fields.do_flip_channel_order.then_some(ChannelOrder::Bgr),
            resizes: fields.do_resize && size.is_some(),
            size,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_image_processors_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model.onnx");
        assert_eq!(KnownConfig::beside(&model).unwrap(), KnownConfig::default());
        let read = |text: &str| {
            std::fs::write(folder.path().join(NAME), text).unwrap();
            KnownConfig::beside(&model).map_err(|error| error.to_string())
        };
        let segformer = r#"{"do_normalize": true, "do_reduce_labels": true, "do_rescale": true, "do_resize": true,
            "image_mean": [0.485, 0.456, 0.406], "image_processor_type": "SegformerImageProcessor",
            "image_std": [0.229, 0.224, 0.225], "resample": 2, "rescale_factor": 0.00392156862745098,
            "size": {"height": 512, "width": 512}}"#;
        let expected = KnownConfig {
            normalization: Some(Normalization::IMAGENET),
            order: None,
            resizes: true,
            size: Some([512, 512]),
        };
        assert_eq!(read(segformer), Ok(expected));
        let plain = read(
            r#"{"do_normalize": false, "do_flip_channel_order": true, "size": {"shortest_edge": 256}}"#,
        );
        let expected = KnownConfig {
            normalization: Some(Normalization::UNIT),
            order: Some(ChannelOrder::Bgr),
            ..KnownConfig::default()
        };
        assert_eq!(plain, Ok(expected));
        let faulty = read(r#"{"image_mean": [1, 2]}"#).unwrap_err();
        assert!(faulty.contains(NAME) && faulty.contains("2 values"), "{faulty}");
        assert!(read("[").unwrap_err().contains(NAME));
    }
}
