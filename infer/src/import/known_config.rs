//! Preprocessing of images by a configuration of Hugging Face that lies with a file.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use protoseg_models::adapter::{ChannelOrder, Normalization};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::ImportError;

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
    /// True where images are resized without regard to their proportions, and nothing more.
    pub(super) resizes: bool,
    /// Height and width that the network gets.
    pub(super) size: Option<[usize; 2]>,
    /// How images get their size, after the name of the file; None where they keep it.
    pub(super) geometry: Option<String>,
    /// Filter of the resizing, where it is not the bilinear one.
    pub(super) filter: Option<&'static str>,
    /// Height and width that `config.json` states for the network.
    pub(super) native: Option<[usize; 2]>,
}

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
    do_resize: Option<bool>,
    size: Option<Size>,
    resample: Option<Resample>,
    keep_aspect_ratio: Option<bool>,
    do_center_crop: Option<bool>,
    crop_size: Option<Size>,
    do_pad: Option<bool>,
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
    Edge { shortest_edge: usize },
    Other(IgnoredAny),
}

/// Number of a filter of Pillow.
#[derive(Deserialize)]
#[serde(untagged)]
enum Resample {
    Filter(u8),
    Other(IgnoredAny),
}

impl Size {
    fn both(&self) -> Option<[usize; 2]> {
        match *self {
            Self::Side(side) => Some([side; 2]),
            Self::Both { height, width } => Some([height, width]),
            Self::Edge { .. } | Self::Other(_) => None,
        }
    }
}

impl Fields {
    /// True for processors that scale bytes and flip channels, and know no mean.
    fn is_mobile_vit(&self) -> bool {
        let named = [&self.image_processor_type, &self.feature_extractor_type];
        named.into_iter().flatten().any(|name| name.starts_with("MobileViT"))
    }

    /// The filter of the resizing, if it is not the bilinear one.
    fn filter(&self) -> Option<&'static str> {
        match self.resample {
            Some(Resample::Filter(0)) => Some("nearest-neighbor"),
            Some(Resample::Filter(1)) => Some("Lanczos"),
            Some(Resample::Filter(3)) => Some("bicubic"),
            Some(Resample::Filter(4)) => Some("box"),
            Some(Resample::Filter(5)) => Some("Hamming"),
            Some(Resample::Filter(_) | Resample::Other(_)) | None => None,
        }
    }

    /// How images get their size, in words; and true where they are resized to a size and nothing
    /// more.
    fn geometry(&self) -> (Option<String>, bool) {
        let mut steps = Vec::new();
        let size = self.size.as_ref().and_then(Size::both);
        let is = |flag: Option<bool>| flag == Some(true);
        let (keeps, crops) = (is(self.keep_aspect_ratio), is(self.do_center_crop));
        if is(self.do_resize) {
            steps.push(match (&self.size, size) {
                (_, Some([height, width])) if keeps => format!(
                    "resizes images to {height}x{width} with their proportions kept (keep_aspect_ratio)"
                ),
                // One number is that of the shorter side where the rest is cut off.
                (Some(Size::Side(edge) | Size::Edge { shortest_edge: edge }), _)
                    if crops || size.is_none() =>
                {
                    format!("resizes images so that their shorter side is {edge}")
                }
                (_, Some([height, width])) => format!("resizes images to {height}x{width}"),
                _ => "resizes images".to_owned(),
            });
        }
        if crops {
            let cut = self.crop_size.as_ref().and_then(Size::both);
            let cut = cut.map_or(String::new(), |[height, width]| format!(" of {height}x{width}"));
            steps.push(format!("cuts out their middle{cut} (do_center_crop)"));
        }
        if is(self.do_pad) {
            steps.push("pads them (do_pad)".to_owned());
        }
        let plain = is(self.do_resize) && size.is_some() && steps.len() == 1 && !keeps;
        ((!steps.is_empty()).then(|| steps.join(" and ")), plain)
    }
}

impl KnownConfig {
    /// Reads the file beside a model, or above its folder `onnx`; the default where there is none.
    pub(super) fn with_model(model: &Path) -> Result<Self, ImportError> {
        let folders = folders(model);
        let native = folders.iter().find_map(|folder| native_size(&folder.join(NETWORK)));
        for (index, folder) in folders.iter().enumerate() {
            for name in NAMES {
                let path = folder.join(name);
                let text = match std::fs::read_to_string(&path) {
                    Ok(text) => text,
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    Err(source) => return Err(ImportError::Io { path, source }),
                };
                let failed =
                    |reason: String| ImportError::Options(format!("{}: {reason}", path.display()));
                let fields: Fields =
                    serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?;
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
        // that flip channels have none.
        let flips = fields.do_flip_channel_order.or(fields.is_mobile_vit().then_some(true));
        let has_none = flips.is_some() && fields.do_normalize.is_none();
        let is_stated =
            fields.do_normalize == Some(false) || fields.image_mean.is_some() || has_none;
        let normalization = Normalization::new(scale as f32, mean.map(|mean| mean + shift), std);
        let normalization = normalization.map_err(|error| error.to_string())?;
        let (geometry, resizes) = fields.geometry();
        let cut = fields.crop_size.as_ref().filter(|_| fields.do_center_crop == Some(true));
        let order = |flips| if flips { ChannelOrder::Bgr } else { ChannelOrder::Rgb };
        Ok(Self {
            file: String::new(),
            normalization: is_stated.then_some(normalization),
            order: flips.map(order),
            resizes,
            size: cut.or(fields.size.as_ref()).and_then(Size::both),
            geometry,
            filter: fields.filter().filter(|_| fields.do_resize == Some(true)),
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
            resizes: true,
            size: Some([512, 512]),
            geometry: Some("resizes images to 512x512".to_owned()),
            filter: None,
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
        assert_eq!(edge.geometry.unwrap(), "resizes images so that their shorter side is 96");
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
    fn steps_of_the_geometry_are_put_into_words() {
        let read = |text: &str| {
            let fields: Fields = serde_json::from_str(text).unwrap();
            KnownConfig::from_fields(&fields).unwrap()
        };
        let both = r#""do_resize": true, "size": {"height": 64, "width": 96}"#;
        for (text, resizes, said) in [
            (both.to_owned(), true, Some("to 64x96")),
            (format!("{both}, \"keep_aspect_ratio\": true"), false, Some("proportions kept")),
            (format!("{both}, \"do_pad\": true"), false, Some("to 64x96 and pads them")),
            (
                r#""do_resize": true, "size": 72, "do_center_crop": true, "crop_size": 64"#
                    .to_owned(),
                false,
                Some("shorter side is 72 and cuts out their middle of 64x64 (do_center_crop)"),
            ),
            (r#""do_resize": true, "size": [64, 64]"#.to_owned(), false, Some("resizes images")),
            (r#""do_resize": false, "size": 72"#.to_owned(), false, None),
        ] {
            let known = read(&format!("{{{text}}}"));
            assert_eq!(known.resizes, resizes, "{text}");
            let found = known.geometry.as_deref();
            assert_eq!(found.is_some(), said.is_some(), "{text}: {found:?}");
            assert!(
                said.is_none_or(|said| found.unwrap_or("").ends_with(said)
                    || found.unwrap_or("").contains(said))
            );
        }
        let filter = |number: u8| read(&format!("{{{both}, \"resample\": {number}}}")).filter;
        assert_eq!(
            [filter(0), filter(2), filter(3)],
            [Some("nearest-neighbor"), None, Some("bicubic")]
        );
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
