//! The way of images to the size that a network gets, as a configuration of Hugging Face tells it.

use protoseg_models::scaling::{Resample, Scaling};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// Largest side that is taken for one.
const MOST: usize = 1 << 14;

/// Processors whose single number is both sides, even where the middle is cut out.
const SQUARE: [&str; 4] = ["Beit", "DPT", "Data2Vec", "Segformer"];

/// Processors whose single number is always that of the shorter side.
const SHORTER: [&str; 2] = ["MobileViT", "MobileNet"];

/// The same, where the longer side is limited by `max_size`.
const SHORTER_LIMITED: [&str; 10] = [
    "MaskFormer",
    "Mask2Former",
    "OneFormer",
    "Detr",
    "ConditionalDetr",
    "DeformableDetr",
    "RTDetr",
    "Deta",
    "GroundingDino",
    "Yolos",
];

/// Processors that stretch both sides to multiples of `size_divisor` as they resize.
const STRETCHING: [&str; 3] = ["MaskFormer", "Mask2Former", "OneFormer"];

/// `max_size` where a configuration leaves it out.
const MAX_SIZE: usize = 1333;

/// Geometry that a network was made for.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct KnownGeometry {
    /// The steps in words, after the name of the file; None where images keep their size.
    pub(super) words: Option<String>,
    pub(super) resize: Option<KnownResize>,
    /// True where images are resized to a size that is not stated.
    pub(super) resizes_otherwise: bool,
    /// Filter of the resizing, where it is stated.
    pub(super) filter: Option<Resample>,
    /// A filter of another kind.
    pub(super) unknown_filter: Option<String>,
    /// True where the middle is cut out.
    pub(super) crops: bool,
    pub(super) pads: bool,
    /// Height and width to which images are padded.
    pub(super) pad_to: Option<[usize; 2]>,
    /// Number of pixels to whose multiples images are padded.
    pub(super) divisor: Option<usize>,
    /// Number of pixels to whose multiples images are stretched as they are resized.
    pub(super) stretched: Option<usize>,
    /// Height and width that the network gets.
    pub(super) size: Option<[usize; 2]>,
}

/// Resizing of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KnownResize {
    /// To a height and width, whatever the proportions.
    Exact([usize; 2]),
    Scaled(Scaling),
}

/// The fields of `transformers.image_processing_utils` about sizes; null is the same as absent.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct SizeFields {
    do_resize: Option<bool>,
    size: Option<Size>,
    /// Most pixels of the longer side, beside a single number.
    max_size: Option<usize>,
    resample: Option<Filter>,
    keep_aspect_ratio: Option<bool>,
    ensure_multiple_of: Option<usize>,
    do_center_crop: Option<bool>,
    crop_size: Option<Size>,
    do_pad: Option<bool>,
    pad_size: Option<Size>,
    #[serde(alias = "pad_size_divisor")]
    size_divisor: Option<usize>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a size is a number, [height, width], or an object")]
enum Size {
    Side(usize),
    Both([usize; 2]),
    Named(NamedSize),
    Other(IgnoredAny),
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NamedSize {
    height: Option<usize>,
    width: Option<usize>,
    shortest_edge: Option<usize>,
    longest_edge: Option<usize>,
    max_height: Option<usize>,
    max_width: Option<usize>,
}

/// Number of a filter of Pillow, or its name.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a filter is a number or a name")]
enum Filter {
    Number(usize),
    Name(String),
    Other(IgnoredAny),
}

impl Filter {
    fn resample(&self) -> Result<Resample, String> {
        match self {
            Self::Number(number) => {
                let found = Resample::ALL.get(*number).map(|(_, filter)| *filter);
                found.ok_or_else(|| number.to_string())
            }
            Self::Name(name) => name.to_lowercase().parse().map_err(|_| format!("`{name}`")),
            Self::Other(_) => Err("of no known form".to_owned()),
        }
    }
}

impl Size {
    /// Height and width, of which none is 0 or beyond any network.
    fn both(&self) -> Option<[usize; 2]> {
        let size = match *self {
            Self::Side(side) => [side; 2],
            Self::Both(size) => size,
            Self::Named(NamedSize { height: Some(height), width: Some(width), .. }) => {
                [height, width]
            }
            Self::Named(_) | Self::Other(_) => return None,
        };
        size.iter().all(|side| (1..=MOST).contains(side)).then_some(size)
    }

    /// Rule of sizes that keep the proportions.
    fn scaling(&self, number_is_shorter: bool) -> Option<Scaling> {
        let side = |side: &usize| (1..=MOST).contains(side);
        match *self {
            Self::Side(shortest) if number_is_shorter && side(&shortest) => {
                Some(Scaling::Edge { shortest, longest: None })
            }
            Self::Named(NamedSize {
                height: None,
                width: None,
                shortest_edge,
                longest_edge,
                max_height,
                max_width,
            }) => {
                let [shortest, longest] =
                    [shortest_edge, longest_edge].map(|edge| edge.filter(side));
                match (shortest, longest, max_height.filter(side), max_width.filter(side)) {
                    (Some(shortest), longest, ..) => Some(Scaling::Edge { shortest, longest }),
                    (None, Some(longest), ..) => Some(Scaling::Within([longest; 2])),
                    (None, None, Some(height), Some(width)) => {
                        Some(Scaling::Within([height, width]))
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

impl SizeFields {
    fn resize(&self, kind: &str) -> Option<KnownResize> {
        let begins = |names: &[&str]| names.iter().any(|name| kind.starts_with(name));
        let crops = self.do_center_crop == Some(true);
        let number_is_shorter = begins(&SHORTER) || (crops && !begins(&SQUARE));
        let size = self.size.as_ref().filter(|_| self.do_resize == Some(true))?;
        let multiple = self.ensure_multiple_of.unwrap_or(1).clamp(1, MOST);
        if begins(&SHORTER_LIMITED)
            && let Size::Side(shortest) = *size
        {
            let longest = self.max_size.unwrap_or(MAX_SIZE);
            let usual = (1..=MOST).contains(&shortest) && (1..=MOST).contains(&longest);
            let longest = Some(longest);
            return usual.then_some(KnownResize::Scaled(Scaling::Edge { shortest, longest }));
        }
        if let Some(scaling) = size.scaling(number_is_shorter) {
            return Some(KnownResize::Scaled(scaling));
        }
        let size = size.both()?;
        if self.keep_aspect_ratio == Some(true) {
            return Some(KnownResize::Scaled(Scaling::Near { size, multiple }));
        }
        let rounded = |side: usize| {
            ((side as f64 / multiple as f64).round_ties_even() as usize).max(1) * multiple
        };
        Some(KnownResize::Exact(size.map(rounded)))
    }

    /// Reads what the fields of a processor of some kind mean.
    pub(super) fn geometry(&self, kind: &str) -> KnownGeometry {
        let is = |flag: Option<bool>| flag == Some(true);
        let resize = self.resize(kind);
        let crop = self.crop_size.as_ref().filter(|_| is(self.do_center_crop)).and_then(Size::both);
        let pads = is(self.do_pad);
        let pad_to = self.pad_size.as_ref().filter(|_| pads).and_then(Size::both);
        let divisor = self.size_divisor.filter(|divisor| pads && (1..=1024).contains(divisor));
        let stretched = self.size_divisor.filter(|divisor| {
            let stretches = STRETCHING.iter().any(|name| kind.starts_with(name));
            stretches && resize.is_some() && (2..=1024).contains(divisor)
        });
        let text = |[height, width]: [usize; 2]| format!("{height}x{width}");
        let mut steps = Vec::new();
        match resize {
            Some(KnownResize::Exact(size)) => {
                steps.push(format!("resizes images to {}", text(size)));
            }
            Some(KnownResize::Scaled(Scaling::Edge { shortest, longest })) => {
                let longest = longest.map_or(String::new(), |longest| {
                    format!(" and their longer at most {longest}")
                });
                steps.push(format!(
                    "resizes images so that their shorter side is {shortest}{longest}"
                ));
            }
            Some(KnownResize::Scaled(Scaling::Within(size))) => steps
                .push(format!("resizes images into {} with their proportions kept", text(size))),
            Some(KnownResize::Scaled(Scaling::Near { size, multiple })) => {
                let multiples = match multiple {
                    1 => String::new(),
                    _ => format!(" in multiples of {multiple} (ensure_multiple_of)"),
                };
                steps.push(format!(
                    "resizes images to {} with their proportions kept (keep_aspect_ratio){multiples}",
                    text(size)
                ));
            }
            None if is(self.do_resize) => steps.push("resizes images".to_owned()),
            None => {}
        }
        if let Some(divisor) = stretched {
            steps.push(format!("stretches them to multiples of {divisor} (size_divisor)"));
        }
        if is(self.do_center_crop) {
            let cut = crop.map_or(String::new(), |size| format!(" of {}", text(size)));
            steps.push(format!("cuts out their middle{cut} (do_center_crop)"));
        }
        if pads {
            let to = match (pad_to, divisor) {
                (Some(size), _) => format!(" to {}", text(size)),
                (None, Some(divisor)) => format!(" to multiples of {divisor}"),
                (None, None) => String::new(),
            };
            steps.push(format!("pads them{to} (do_pad)"));
        }
        let aimed = match resize {
            Some(KnownResize::Exact(size) | KnownResize::Scaled(Scaling::Near { size, .. })) => {
                Some(size)
            }
            Some(KnownResize::Scaled(Scaling::Within(size))) => Some(size),
            Some(KnownResize::Scaled(Scaling::Edge { .. })) | None => None,
        };
        let own = self.size.as_ref().and_then(Size::both).filter(|_| resize.is_none());
        let filter = self.resample.as_ref().filter(|_| is(self.do_resize)).map(Filter::resample);
        KnownGeometry {
            words: (!steps.is_empty()).then(|| steps.join(" and ")),
            resize,
            resizes_otherwise: is(self.do_resize) && resize.is_none(),
            filter: filter.as_ref().and_then(|filter| filter.as_ref().ok()).copied(),
            unknown_filter: filter.and_then(Result::err),
            crops: is(self.do_center_crop) && (crop.is_none() || crop != aimed),
            pads,
            pad_to,
            divisor,
            stretched,
            size: pad_to.or(crop).or(aimed).or(own),
        }
    }
}

impl KnownGeometry {
    /// Height and width to which images are resized whatever their proportions, where nothing else
    /// happens to them.
    pub(super) fn plain(&self) -> Option<[usize; 2]> {
        let Some(KnownResize::Exact(size)) = self.resize else { return None };
        let pads_nothing = self.pad_to.is_none_or(|to| to == size)
            && self.divisor.is_none_or(|step| size.iter().all(|side| side.is_multiple_of(step)));
        (!self.crops && pads_nothing).then_some(size)
    }

    /// Rule by which images are scaled with their proportions kept.
    pub(super) fn scaling(&self) -> Option<Scaling> {
        match self.resize? {
            KnownResize::Exact(_) => None,
            KnownResize::Scaled(scaling) => Some(scaling),
        }
    }

    /// Height and width within which images are scaled with their proportions kept.
    pub(super) fn letterbox(&self) -> Option<[usize; 2]> {
        match (self.scaling()?, self.crops) {
            (Scaling::Within(size), false) => Some(self.pad_to.unwrap_or(size)),
            (Scaling::Near { size, .. }, false) => Some(size),
            (Scaling::Edge { longest: Some(_), .. }, false) => self.pad_to,
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: &str, text: &str) -> KnownGeometry {
        serde_json::from_str::<SizeFields>(&format!("{{{text}}}")).unwrap().geometry(kind)
    }

    #[test]
    fn every_form_of_a_size_is_read() {
        use KnownResize::{Exact, Scaled};
        let edge = |shortest, longest| Some(Scaled(Scaling::Edge { shortest, longest }));
        for (kind, size, expected) in [
            ("", "72", Some(Exact([72; 2]))),
            ("", "[64, 96]", Some(Exact([64, 96]))),
            ("", r#"{"height": 64, "width": 96}"#, Some(Exact([64, 96]))),
            ("", r#"{"shortest_edge": 96}"#, edge(96, None)),
            ("", r#"{"shortest_edge": 8, "longest_edge": 20}"#, edge(8, Some(20))),
            ("", r#"{"longest_edge": 20}"#, Some(Scaled(Scaling::Within([20; 2])))),
            ("", r#"{"max_height": 6, "max_width": 9}"#, Some(Scaled(Scaling::Within([6, 9])))),
            ("MobileViTImageProcessor", "72", edge(72, None)),
            ("", "0", None),
            ("", r#"{"shortest_edge": "large"}"#, None),
            ("", "1e9", None),
        ] {
            let found = read(kind, &format!(r#""do_resize": true, "size": {size}"#));
            assert_eq!(found.resize, expected, "{kind} {size}");
            assert!(found.words.unwrap().starts_with("resizes images"));
            assert_eq!(read(kind, &format!(r#""do_resize": false, "size": {size}"#)).words, None);
        }
        let limited = r#""do_resize": true, "size": 50, "max_size": 90, "size_divisor": 32"#;
        for (kind, stretched) in [
            ("Mask2FormerImageProcessor", Some(32)),
            ("MaskFormerFeatureExtractor", Some(32)),
            ("DetrImageProcessor", None),
        ] {
            let found = read(kind, limited);
            assert_eq!((found.resize, found.stretched), (edge(50, Some(90)), stretched), "{kind}");
        }
        let unlimited = r#""do_resize": true, "size": 50"#;
        assert_eq!(read("YolosImageProcessor", unlimited).resize, edge(50, Some(1333)));
        let cut = r#""do_resize": true, "size": 72, "do_center_crop": true, "crop_size": 64"#;
        assert_eq!(read("CLIPImageProcessor", cut).resize, edge(72, None));
        let square = read("BeitImageProcessor", cut);
        assert_eq!((square.resize, square.crops), (Some(Exact([72; 2])), true));
        let near = r#""do_resize": true, "size": 70, "keep_aspect_ratio": true"#;
        let size = [70; 2];
        assert_eq!(read("", near).scaling(), Some(Scaling::Near { size, multiple: 1 }));
        let rounded = r#""do_resize": true, "size": 70, "ensure_multiple_of": 32"#;
        assert_eq!(read("DPTImageProcessor", rounded).plain(), Some([64; 2]));
    }

    #[test]
    fn steps_are_put_into_words_and_those_that_do_nothing_are_none() {
        let both = r#""do_resize": true, "size": {"height": 64, "width": 96}"#;
        for (more, plain, said) in [
            ("", true, "to 64x96"),
            (r#", "keep_aspect_ratio": true"#, false, "proportions kept (keep_aspect_ratio)"),
            (r#", "do_pad": true"#, true, "to 64x96 and pads them (do_pad)"),
            (r#", "do_pad": true, "size_divisor": 32"#, true, "to multiples of 32 (do_pad)"),
            (r#", "do_pad": true, "size_divisor": 33"#, false, "to multiples of 33 (do_pad)"),
            (r#", "do_pad": true, "pad_size": 99"#, false, "to 99x99 (do_pad)"),
            (
                r#", "do_center_crop": true, "crop_size": {"height": 64, "width": 96}"#,
                true,
                "cuts out their middle of 64x96 (do_center_crop)",
            ),
            (
                r#", "do_center_crop": true, "crop_size": 64"#,
                false,
                "cuts out their middle of 64x64 (do_center_crop)",
            ),
        ] {
            let found = read("", &format!("{both}{more}"));
            let words = found.words.as_deref().unwrap();
            assert!(words.ends_with(said), "{words}");
            assert_eq!(found.plain().is_some(), plain, "{more}");
        }
        let filter = |filter: &str| read("", &format!("{both}, \"resample\": {filter}"));
        for (text, expected) in [
            ("0", Resample::Nearest),
            ("1", Resample::Lanczos),
            ("2", Resample::Bilinear),
            ("3", Resample::Bicubic),
            ("4", Resample::Box),
            ("5", Resample::Hamming),
            ("\"BICUBIC\"", Resample::Bicubic),
        ] {
            assert_eq!(filter(text).filter, Some(expected));
        }
        assert_eq!(filter("6").unknown_filter.as_deref(), Some("6"));
        assert_eq!(filter("\"area\"").unknown_filter.as_deref(), Some("`area`"));
        assert_eq!(filter("null"), read("", both));
    }
}
