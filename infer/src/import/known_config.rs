//! Preprocessing of images by a configuration of Hugging Face that lies with a file.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use protoseg_models::adapter::{ChannelOrder, Normalization};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::ImportError;
use super::known_geometry::{KnownGeometry, SizeFields};

/// Names of the file, the usual one first.
const NAMES: [&str; 2] = ["preprocessor_config.json", "processor_config.json"];

/// Folder into which exporters put ONNX files, below that of the configuration.
const BELOW: &str = "onnx";

/// Name of a network's configuration.
const NETWORK: &str = "config.json";

/// Preprocessing that a model was trained with.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct KnownConfig {
    /// The file that says so; empty where there is none.
    pub(super) file: String,
    pub(super) normalization: Option<Normalization>,
    pub(super) order: Option<ChannelOrder>,
    pub(super) geometry: KnownGeometry,
    /// Height and width that `config.json` states for the network.
    pub(super) native: Option<[usize; 2]>,
}

/// A configuration that cannot be read: its path and the fault.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct ConfigFault(String);

impl ConfigFault {
    /// The error where no option says what the configuration would.
    pub(super) fn with_way(self) -> ImportError {
        ImportError::Options(format!(
            "{self}; mend the file, or say --normalization, which goes before it"
        ))
    }
}

/// The size in a network's configuration; other fields do not matter.
#[derive(Default, Deserialize)]
struct NetworkFields {
    image_size: Option<NetworkSize>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a size is a number of pixels, or [height, width]")]
enum NetworkSize {
    Side(usize),
    Both([usize; 2]),
    Other(IgnoredAny),
}

/// The fields of `transformers.image_processing_utils` that matter; null is the same as absent.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    /// The fields themselves, where those of several processors are in one file.
    image_processor: Option<Box<Fields>>,
    image_processor_type: Option<String>,
    feature_extractor_type: Option<String>,
    do_rescale: Option<bool>,
    rescale_factor: Option<f64>,
    /// Names of "subtract 1 after scaling".
    offset: Option<bool>,
    rescale_offset: Option<bool>,
    do_normalize: Option<bool>,
    image_mean: Option<Channels>,
    image_std: Option<Channels>,
    do_flip_channel_order: Option<bool>,
    #[serde(flatten)]
    sizes: SizeFields,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "image_mean and image_std are numbers, or lists of one for each channel"
)]
enum Channels {
    One(f32),
    Each(Vec<f32>),
}

impl Fields {
    /// Name of the processor.
    fn kind(&self) -> &str {
        let named = self.image_processor_type.as_ref().or(self.feature_extractor_type.as_ref());
        named.map_or("", String::as_str)
    }
}

impl KnownConfig {
    /// Reads the file beside a model, or above its folder `onnx`; the default where there is none.
    pub(super) fn with_model(model: &Path) -> Result<Self, ConfigFault> {
        let folders = folders(model);
        let native = folders.iter().find_map(|folder| native_size(&folder.join(NETWORK)));
        for (index, folder) in folders.iter().enumerate() {
            for name in NAMES {
                let path = folder.join(name);
                let text = match std::fs::read_to_string(&path) {
                    Ok(text) => text,
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    Err(source) => {
                        return Err(ConfigFault(format!("{}: {source}", path.display())));
                    }
                };
                let failed = |reason: String| ConfigFault(format!("{}: {reason}", path.display()));
                let fields: Fields = serde_json::from_str(text.trim_start_matches('\u{feff}'))
                    .map_err(|error| failed(error.to_string()))?;
                let fields = match fields.image_processor {
                    Some(nested) => *nested,
                    // One of texts alone.
                    None if name != NAMES[0] => continue,
                    None => fields,
                };
                let known = Self::from_fields(&fields).map_err(failed)?;
                let file = if index == 0 { name.to_owned() } else { path.display().to_string() };
                return Ok(Self { file, native, ..known });
            }
        }
        Ok(Self { native, ..Self::default() })
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
        // Without a mean, that of the processor's class counts, which the file does not hold; those
        // that flip channels have none, and flip them unless the file says otherwise.
        let flips =
            fields.do_flip_channel_order.or(fields.kind().starts_with("MobileViT").then_some(true));
        let has_none = flips.is_some() && fields.do_normalize.is_none();
        let is_stated =
            fields.do_normalize == Some(false) || fields.image_mean.is_some() || has_none;
        let normalization = Normalization::new(scale as f32, mean.map(|mean| mean + shift), std);
        let normalization = normalization.map_err(|error| error.to_string())?;
        let order = |flips| if flips { ChannelOrder::Bgr } else { ChannelOrder::Rgb };
        Ok(Self {
            file: String::new(),
            normalization: is_stated.then_some(normalization),
            order: flips.map(order),
            geometry: fields.sizes.geometry(fields.kind()),
            native: None,
        })
    }
}

/// Folders that may hold the configuration of a model.
fn folders(model: &Path) -> Vec<PathBuf> {
    let folder = model.parent().map(Path::to_path_buf).unwrap_or_default();
    let mut folders = vec![folder.clone()];
    let whole = std::path::absolute(&folder).unwrap_or_else(|_| folder.clone());
    if whole.file_name().is_some_and(|name| name.eq_ignore_ascii_case(BELOW)) {
        folders.push(match folder.parent() {
            Some(above) if !folder.ends_with("..") => above.to_path_buf(),
            _ => folder.join(".."),
        });
    }
    folders
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
    use protoseg_models::scaling::Resample;

    use super::super::known_geometry::KnownResize;
    use super::*;

    #[test]
    fn the_fields_of_image_processors_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model.onnx");
        assert_eq!(KnownConfig::with_model(&model).unwrap(), KnownConfig::default());
        let read = |text: &str| {
            std::fs::write(folder.path().join(NAMES[0]), text).unwrap();
            KnownConfig::with_model(&model).map_err(|error| error.to_string())
        };
        let segformer = r#"{"do_normalize": true, "do_reduce_labels": true, "do_rescale": true, "do_resize": true,
            "image_mean": [0.485, 0.456, 0.406], "image_processor_type": "SegformerImageProcessor",
            "image_std": [0.229, 0.224, 0.225], "resample": 2, "rescale_factor": 0.00392156862745098,
            "size": {"height": 512, "width": 512}}"#;
        let expected = KnownConfig {
            file: NAMES[0].to_owned(),
            normalization: Some(Normalization::IMAGENET),
            order: None,
            geometry: KnownGeometry {
                words: Some("resizes images to 512x512".to_owned()),
                resize: Some(KnownResize::Exact([512; 2])),
                filter: Some(Resample::Bilinear),
                size: Some([512; 2]),
                ..KnownGeometry::default()
            },
            native: None,
        };
        assert_eq!(read(segformer), Ok(expected));
        let plain = read(
            r#"{"do_normalize": false, "do_flip_channel_order": true, "size": {"shortest_edge": 256}}"#,
        );
        let expected = KnownConfig {
            file: NAMES[0].to_owned(),
            normalization: Some(Normalization::UNIT),
            order: Some(ChannelOrder::Bgr),
            ..KnownConfig::default()
        };
        assert_eq!(plain, Ok(expected));
        let unstated = read(r#"{"image_processor_type": "SegformerImageProcessor"}"#).unwrap();
        assert_eq!(unstated.normalization, None);
        let edge = r#"{"do_resize": true, "size": {"shortest_edge": 96}, "do_rescale": null}"#;
        let edge = read(edge).unwrap();
        let words = edge.geometry.words.unwrap();
        assert_eq!(words, "resizes images so that their shorter side is 96");
        let scaled = |text: &str| read(text).unwrap().normalization;
        let signed = Normalization::new(127.5, [1.0; 3], [1.0; 3]).ok();
        let factor = r#""rescale_factor": 0.00784313725490196, "do_normalize": false"#;
        assert_eq!(scaled(&format!("{{\"offset\": true, {factor}}}")), signed);
        assert_eq!(scaled(&format!("{{\"rescale_offset\": true, {factor}}}")), signed);
        let halves = Normalization::new(255.0, [0.5; 3], [0.5; 3]).ok();
        assert_eq!(scaled(r#"{"image_mean": 0.5, "image_std": [0.5]}"#), halves);
        let faulty = read(r#"{"image_mean": [1, 2]}"#).unwrap_err();
        assert!(faulty.contains(NAMES[0]) && faulty.contains("2 values"), "{faulty}");
        assert!(read("[").unwrap_err().contains(NAMES[0]));
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

    #[test]
    fn processors_without_a_mean_scale_alone() {
        let read = |text: &str| {
            let fields: Fields = serde_json::from_str(text).unwrap();
            let known = KnownConfig::from_fields(&fields).unwrap();
            (known.normalization, known.order)
        };
        let (unit, bgr) = (Some(Normalization::UNIT), Some(ChannelOrder::Bgr));
        assert_eq!(read(r#"{"do_flip_channel_order": true, "do_rescale": true}"#), (unit, bgr));
        assert_eq!(read(r#"{"feature_extractor_type": "MobileViTFeatureExtractor"}"#), (unit, bgr));
        let plain = r#"{"do_flip_channel_order": false, "image_processor_type": "MobileViTImageProcessor"}"#;
        assert_eq!(read(plain), (unit, Some(ChannelOrder::Rgb)));
        assert_eq!(read(r#"{"do_rescale": true}"#), (None, None));
    }

    #[test]
    fn configurations_lie_beside_or_above_a_folder_of_exports() {
        let folder = tempfile::tempdir().unwrap();
        let (onnx, other) = (folder.path().join("onnx"), folder.path().join("other"));
        std::fs::create_dir(&onnx).unwrap();
        std::fs::create_dir(&other).unwrap();
        let nested = r#"{"image_processor": {"do_normalize": false}, "processor_class": "X"}"#;
        let above = folder.path().join(NAMES[1]);
        std::fs::write(&above, nested).unwrap();
        std::fs::write(folder.path().join(NETWORK), r#"{"image_size": 96}"#).unwrap();
        let known = KnownConfig::with_model(&onnx.join("model.onnx")).unwrap();
        assert_eq!(known.normalization, Some(Normalization::UNIT));
        assert_eq!((known.file, known.native), (above.display().to_string(), Some([96; 2])));
        let known = KnownConfig::with_model(&other.join("model.onnx")).unwrap();
        assert_eq!(known, KnownConfig::default());
        std::fs::write(onnx.join(NAMES[1]), r#"{"processor_class": "X"}"#).unwrap();
        std::fs::write(onnx.join(NAMES[0]), r#"{"image_mean": 0.5, "image_std": 0.5}"#).unwrap();
        let known = KnownConfig::with_model(&onnx.join("model.onnx")).unwrap();
        assert_eq!(known.file, NAMES[0]);
    }
}
