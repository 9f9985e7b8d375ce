//! How an imported file's input and output differ from the usual ones: images of three channels and
//! any size in, logits `[N, classes, h, w]` or one label a pixel out. Found by trial at import.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::scaling::{Bars, Resample, Scaling};
use crate::window::Window;

/// Element types, geometry and meaning of an imported file's input and output.
///
/// The default is a file that needs none of this, and is not written.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Interface {
    /// Element type of the input; by default 32-bit floats with a normalization, else bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub element: Option<InputElement>,
    /// True where the input has one channel, the luma of the image (ITU-R BT.601).
    #[serde(skip_serializing_if = "is_false")]
    pub gray: bool,
    /// Height or width in pixels where the file fixes one of the two.
    #[serde(skip_serializing_if = "is_default")]
    pub sides: [Option<usize>; 2],
    /// How images get the size that the network takes.
    #[serde(skip_serializing_if = "is_default")]
    pub fit: Fit,
    /// Filter by which images are scaled, where the fit scales them.
    #[serde(skip_serializing_if = "is_default")]
    pub resample: Resample,
    /// Bars beside images in a letterbox; by default gray ones around the middle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bars: Option<Bars>,
    /// Windows along height and width of files of one oblong size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows: Option<[Window; 2]>,
    /// Dimensions of the output; by default `[N, C, h, w]`, of labels also `[N, h, w]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputLayout>,
    /// True where the output covers the whole input, but at no whole stride: images are run whole.
    #[serde(skip_serializing_if = "is_false")]
    pub covers: bool,
    /// Meaning of the scores.
    #[serde(skip_serializing_if = "is_default")]
    pub scores: ScoreKind,
    /// Of files with one channel of scores: the score above which a pixel is of class 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f32>,
    /// Values of the labels; by default the positions of the classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<LabelValues>,
}

/// Type of the elements of an input tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InputElement {
    /// 16-bit floats.
    Float16,
    /// Brain floats.
    BFloat16,
    /// 32-bit floats.
    Float32,
    /// 64-bit floats.
    Float64,
    /// Bytes.
    Uint8,
    /// 16-bit integers without sign.
    Uint16,
    /// 16-bit integers.
    Int16,
    /// 32-bit integers.
    Int32,
    /// 64-bit integers.
    Int64,
}

/// How an image gets the size that a network takes. Labels always have the size of the image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// Windows of that size at the image's own scale; where the network takes any size, whole
    /// images.
    #[default]
    Window,
    /// Stretched or shrunk to that size.
    Resize,
    /// Scaled with its proportions kept, in the middle of gray bars.
    Letterbox,
    /// At its own scale in the top left corner, its edge repeated.
    Pad,
    /// Scaled to a size that follows from its own, for networks that take any.
    Scale(Scaling),
}

/// Order of an output's dimensions: N images, C channels, height and width. Without N, for one
/// image; without C, for labels or one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum OutputLayout {
    Nchw,
    Nhwc,
    Nhw,
    Chw,
    Hwc,
    Hw,
}

/// Meaning of a network's scores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScoreKind {
    /// Their softmax, or the logistic function of a single channel, gives probabilities.
    #[default]
    Logits,
    /// Logarithms of probabilities that add up to 1, or one of a single channel; used as logits are.
    LogProbabilities,
    /// Logarithms of probabilities of several classes that do not exclude each other.
    LogSigmoid,
    /// Probabilities themselves, whether those of a pixel add up to 1 or not.
    Probabilities,
    /// Scores of another scale, such as shares of 255: the highest wins, and nothing tells how sure
    /// it is.
    Unscaled,
}

/// Values that a file gives as labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelValues {
    /// Value of each class, by train id.
    pub classes: Vec<i64>,
    /// Values of pixels without a class.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub void: Vec<i64>,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Interface {
    /// True for files that need none of this.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the number of channels of the input.
    pub fn channels(&self) -> usize {
        if self.gray { 1 } else { 3 }
    }

    /// Added to the score of class 0 of files with one channel, so that the higher of two scores
    /// decides as the threshold does; 0 for all others.
    pub fn bias(&self) -> f32 {
        match (self.threshold, self.scores) {
            (None, _) => 0.0,
            (Some(threshold), ScoreKind::Probabilities) => 2.0 * threshold - 1.0,
            (Some(threshold), _) => threshold,
        }
    }
}

/// Leaves out what has its default: the text is part of a model's fingerprint, which must stay when
/// fields are added.
impl fmt::Debug for Interface {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = serde_json::to_string(self).map_err(|_| fmt::Error)?;
        formatter.write_str(&text)
    }
}

impl InputElement {
    /// All types, with the names of the ONNX standard as manifests have them.
    pub const ALL: [(&str, Self); 9] = [
        ("float16", Self::Float16),
        ("bfloat16", Self::BFloat16),
        ("float32", Self::Float32),
        ("float64", Self::Float64),
        ("uint8", Self::Uint8),
        ("uint16", Self::Uint16),
        ("int16", Self::Int16),
        ("int32", Self::Int32),
        ("int64", Self::Int64),
    ];

    /// True for floats, whose scale a normalization must tell.
    pub fn is_float(self) -> bool {
        matches!(self, Self::Float16 | Self::BFloat16 | Self::Float32 | Self::Float64)
    }
}

/// A text that names none of the values of an option.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write {0}")]
pub struct ParseInterfaceError(pub(crate) &'static str);

impl FromStr for InputElement {
    type Err = ParseInterfaceError;

    fn from_str(text: &str) -> Result<Self, ParseInterfaceError> {
        let found = Self::ALL.into_iter().find(|(name, _)| *name == text);
        found.map(|(_, element)| element).ok_or(ParseInterfaceError("the name of an element type"))
    }
}

impl Fit {
    /// Returns the name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Window => "window",
            Self::Resize => "resize",
            Self::Letterbox => "letterbox",
            Self::Pad => "pad",
            Self::Scale(_) => "scale",
        }
    }

    /// True where images are scaled to what the network takes.
    pub fn scales(self) -> bool {
        matches!(self, Self::Resize | Self::Letterbox | Self::Scale(_))
    }
}

impl FromStr for Fit {
    type Err = ParseInterfaceError;

    fn from_str(text: &str) -> Result<Self, ParseInterfaceError> {
        let all = [Self::Window, Self::Resize, Self::Letterbox, Self::Pad];
        let found = all.into_iter().find(|fit| fit.name() == text);
        found.ok_or(ParseInterfaceError("window, resize, letterbox or pad"))
    }
}

impl OutputLayout {
    /// Returns the numbers of images, channels, rows and columns of a shape; None for another
    /// number of dimensions.
    pub fn sizes(self, shape: &[usize]) -> Option<[usize; 4]> {
        match (self, shape) {
            (Self::Nchw, &[n, c, h, w]) | (Self::Nhwc, &[n, h, w, c]) => Some([n, c, h, w]),
            (Self::Nhw, &[n, h, w]) => Some([n, 1, h, w]),
            (Self::Chw, &[c, h, w]) | (Self::Hwc, &[h, w, c]) => Some([1, c, h, w]),
            (Self::Hw, &[h, w]) => Some([1, 1, h, w]),
            _ => None,
        }
    }

    /// All orders, with their names on the command line.
    pub const ALL: [(&str, Self); 6] = [
        ("nchw", Self::Nchw),
        ("nhwc", Self::Nhwc),
        ("nhw", Self::Nhw),
        ("chw", Self::Chw),
        ("hwc", Self::Hwc),
        ("hw", Self::Hw),
    ];

    /// Returns the name on the command line.
    pub fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, layout)| *layout == self).map_or("", |(name, _)| name)
    }

    /// True where the channels of a pixel lie beside each other.
    pub fn channels_last(self) -> bool {
        matches!(self, Self::Nhwc | Self::Hwc)
    }

    /// Returns the dimensions as text, such as `[N, C, h, w]`.
    pub fn text(self) -> &'static str {
        match self {
            Self::Nchw => "[N, C, h, w]",
            Self::Nhwc => "[N, h, w, C]",
            Self::Nhw => "[N, h, w]",
            Self::Chw => "[C, h, w]",
            Self::Hwc => "[h, w, C]",
            Self::Hw => "[h, w]",
        }
    }
}

impl FromStr for OutputLayout {
    type Err = ParseInterfaceError;

    fn from_str(text: &str) -> Result<Self, ParseInterfaceError> {
        let found = Self::ALL.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        found
            .map(|(_, layout)| layout)
            .ok_or(ParseInterfaceError("nchw, nhwc, nhw, chw, hwc or hw"))
    }
}

impl ScoreKind {
    /// Returns the name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Logits => "logits",
            Self::LogProbabilities => "log-probabilities",
            Self::LogSigmoid => "log-sigmoid",
            Self::Probabilities => "probabilities",
            Self::Unscaled => "unscaled",
        }
    }
}

impl FromStr for ScoreKind {
    type Err = ParseInterfaceError;

    fn from_str(text: &str) -> Result<Self, ParseInterfaceError> {
        let all = [
            Self::Logits,
            Self::LogProbabilities,
            Self::LogSigmoid,
            Self::Probabilities,
            Self::Unscaled,
        ];
        let found = all.into_iter().find(|kind| kind.name() == text);
        found.ok_or(ParseInterfaceError(
            "logits, log-probabilities, log-sigmoid, probabilities or unscaled",
        ))
    }
}

impl LabelValues {
    /// The positions of `count` classes, with 255 for pixels without a class.
    pub fn positions(count: usize) -> Self {
        Self { classes: (0..count as i64).collect(), void: vec![255] }
    }

    /// Returns the train id of a value; 255 for those without a class, None for unknown values.
    pub fn train_id(&self, value: i64) -> Option<u8> {
        match self.classes.iter().position(|class| *class == value) {
            Some(index) => u8::try_from(index).ok(),
            None => self.void.contains(&value).then_some(u8::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usual_file_writes_nothing_and_others_what_they_need() {
        let text = |interface: &Interface| serde_json::to_string(interface).unwrap();
        assert_eq!(text(&Interface::default()), "{}");
        let interface = Interface {
            element: Some(InputElement::Float16),
            gray: true,
            sides: [None, Some(64)],
            fit: Fit::Letterbox,
            output: Some(OutputLayout::Hwc),
            scores: ScoreKind::LogProbabilities,
            threshold: Some(0.25),
            labels: Some(LabelValues { classes: vec![0, 255], void: vec![9] }),
            ..Interface::default()
        };
        let written = text(&interface);
        assert_eq!(
            written,
            r#"{"element":"float16","gray":true,"sides":[null,64],"fit":"letterbox","output":"hwc","scores":"log-probabilities","threshold":0.25,"labels":{"classes":[0,255],"void":[9]}}"#
        );
        assert_eq!(serde_json::from_str::<Interface>(&written).unwrap(), interface);
        let labels = interface.labels.unwrap();
        assert_eq!(
            [0, 255, 9, 1].map(|value| labels.train_id(value)),
            [Some(0), Some(1), Some(255), None]
        );
    }

    #[test]
    fn names_are_read_back() {
        for fit in [Fit::Window, Fit::Resize, Fit::Letterbox, Fit::Pad] {
            assert_eq!(fit.name().parse(), Ok(fit));
        }
        use ScoreKind::{LogProbabilities, LogSigmoid, Logits, Probabilities, Unscaled};
        let kinds = [Logits, LogProbabilities, LogSigmoid, Probabilities, Unscaled];
        assert!(kinds.into_iter().all(|kind| kind.name().parse() == Ok(kind)));
        assert!(OutputLayout::ALL.iter().all(|(name, layout)| layout.name() == *name));
        assert_eq!("NHWC".parse(), Ok(OutputLayout::Nhwc));
        assert!("softmax".parse::<ScoreKind>().is_err() && "crop".parse::<Fit>().is_err());
        let biased = |threshold, scores| {
            Interface { threshold: Some(threshold), scores, ..Interface::default() }.bias()
        };
        assert_eq!(
            [biased(0.5, ScoreKind::Probabilities), biased(1.5, ScoreKind::Logits)],
            [0.0, 1.5]
        );
    }
}
