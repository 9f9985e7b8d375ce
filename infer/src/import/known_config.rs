//! Preprocessing of images by a `preprocessor_config.json` of Hugging Face beside a file.

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
    /// True where they are resized by one edge, or padded, which is not followed.
    pub(super) other_geometry: bool,
    /// Height and width that `config.json` states for the network.
    pub(super) native: Option<[usize; 2]>,
}

/// Name of a network's configuration.
const NETWORK: &str = "config.json";

/// The size in a network's configuration; other fields do not matter.
#[derive(Default, Deserialize)]
struct NetworkFields {
    image_size: Option<NetworkSize>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NetworkSize {
    Side(usize),
    Both([usize; 2]),
    Other(serde::de::IgnoredAny),
}

/// The fields of `transformers.image_processing_utils` that matter; null is the same as absent.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    do_resize: Option<bool>,
    size: Option<Size>,
    do_rescale: Option<bool>,
    rescale_factor: Option<f64>,
    /// Names of "subtract 1 after scaling".
    offset: Option<bool>,
    rescale_offset: Option<bool>,
    do_normalize: Option<bool>,
    image_mean: Option<Channels>,
    image_std: Option<Channels>,
    do_flip_channel_order: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Channels {
    One(f32),
    Each(Vec<f32>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Size {
    Side(usize),
    Both { height: usize, width: usize },
    Other {},
}

impl KnownConfig {
    /// Reads the file beside a model; the default where there is none.
    pub(super) fn beside(model: &Path) -> Result<Self, ImportError> {
        let native = native_size(&model.with_file_name(NETWORK));
        let path = model.with_file_name(NAME);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self { native, ..Self::default() });
            }
            Err(source) => return Err(ImportError::Io { path, source }),
        };
        let failed = |reason: String| ImportError::Options(format!("{}: {reason}", path.display()));
        let fields: Fields =
            serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?;
        let known = Self::from_fields(&fields).map_err(failed)?;
        Ok(Self { native, ..known })
    }

    fn from_fields(fields: &Fields) -> Result<Self, String> {
        let channels = |values: &Option<Channels>, usual: f32| match values {
            None => Ok([usual; 3]),
            Some(Channels::One(value)) => Ok([*value; 3]),
            Some(Channels::Each(values)) => match values[..] {
                [value] => Ok([value; 3]),
                [red, green, blue] => Ok([red, green, blue]),
                _ => Err(format!("{} values where channels are 3 or 1", values.len())),
            },
        };
        let scale = match (fields.do_rescale, fields.rescale_factor) {
            (Some(false), _) => 1.0,
            (_, None) => 255.0,
            (_, Some(factor)) => 1.0 / factor,
        };
        // 0.00392156862745098 is 1/255.
        let scale = if (scale - scale.round()).abs() < 1e-3 { scale.round() } else { scale };
        let shift = f32::from(fields.offset == Some(true) || fields.rescale_offset == Some(true));
        let [mean, std] = match (fields.do_normalize, &fields.image_mean) {
            (Some(false), _) => [[0.0; 3], [1.0; 3]],
            (_, mean) => [channels(mean, 0.0)?, channels(&fields.image_std, 1.0)?],
        };
        // Without a mean, that of the processor's class counts, which the file does not hold.
        let is_stated = fields.do_normalize == Some(false) || fields.image_mean.is_some();
        let normalization = Normalization::new(scale as f32, mean.map(|mean| mean + shift), std);
        let normalization = normalization.map_err(|error| error.to_string())?;
        let size = match fields.size {
            Some(Size::Side(side)) => Some([side; 2]),
            Some(Size::Both { height, width }) => Some([height, width]),
            Some(Size::Other {}) | None => None,
        };
        let resizes = fields.do_resize == Some(true);
        Ok(Self {
            normalization: is_stated.then_some(normalization),
            order: (fields.do_flip_channel_order == Some(true)).then_some(ChannelOrder::Bgr),
            resizes: resizes && size.is_some(),
            size,
            other_geometry: resizes && size.is_none() && fields.size.is_some(),
            native: None,
        })
    }
}

/// The size of a network's configuration. It is only tried, so that faults of the file do not
/// matter.
fn native_size(path: &Path) -> Option<[usize; 2]> {
    let text = std::fs::read_to_string(path).ok()?;
    let fields: NetworkFields = serde_json::from_str(&text).ok()?;
    match fields.image_size? {
        NetworkSize::Side(side) => Some([side; 2]),
        NetworkSize::Both(size) => Some(size),
        NetworkSize::Other(_) => None,
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
            other_geometry: false,
            native: None,
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
        let unstated = read(r#"{"image_processor_type": "SegformerImageProcessor"}"#).unwrap();
        assert_eq!(unstated.normalization, None);
        let edge = r#"{"do_resize": true, "size": {"shortest_edge": 96}, "do_rescale": null}"#;
        assert!(read(edge).unwrap().other_geometry);
        let scaled = |text: &str| read(text).unwrap().normalization;
        let signed = Normalization::new(127.5, [1.0; 3], [1.0; 3]).ok();
        let factor = r#""rescale_factor": 0.00784313725490196, "do_normalize": false"#;
        assert_eq!(scaled(&format!("{{\"offset\": true, {factor}}}")), signed);
        assert_eq!(scaled(&format!("{{\"rescale_offset\": true, {factor}}}")), signed);
        let halves = Normalization::new(255.0, [0.5; 3], [0.5; 3]).ok();
        assert_eq!(scaled(r#"{"image_mean": 0.5, "image_std": [0.5]}"#), halves);
        let faulty = read(r#"{"image_mean": [1, 2]}"#).unwrap_err();
        assert!(faulty.contains(NAME) && faulty.contains("2 values"), "{faulty}");
        assert!(read("[").unwrap_err().contains(NAME));
        for (text, native) in [
            (r#"{"image_size": 96, "id2label": {}}"#, Some([96; 2])),
            (r#"{"image_size": [64, 96]}"#, Some([64, 96])),
            (r#"{"image_size": {"height": 5}}"#, None),
            ("[", None),
        ] {
            std::fs::write(folder.path().join(NETWORK), text).unwrap();
            assert_eq!(read("{}").unwrap().native, native, "{text}");
        }
    }
}
