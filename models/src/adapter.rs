//! Input conversion of external ONNX models: layout, channel order and normalization.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::interface::Interface;

/// How an imported ONNX file takes images, and which of its outputs is the segmentation.
///
/// [`Variant::kind`](crate::variant::Variant::kind) tells whether that output holds logits or
/// labels. The `Debug` text is part of a model's fingerprint and must not change.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Adapter {
    /// Order of the input's dimensions.
    pub layout: Layout,
    /// Order of the color channels.
    pub order: ChannelOrder,
    /// Conversion of bytes to 32-bit floats; none where the input takes bytes.
    pub normalization: Option<Normalization>,
    /// Number of images in a batch, if fixed.
    pub batch: Option<usize>,
    /// Input height and width in pixels, if fixed.
    pub size: Option<[usize; 2]>,
    /// Name of the output with scores or labels.
    pub output: String,
    /// Element types, geometry and meaning, where they are not the usual ones.
    #[serde(default, skip_serializing_if = "Interface::is_default")]
    pub interface: Interface,
}

/// As derived, but without a default interface, which older manifests do not have.
impl fmt::Debug for Adapter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { layout, order, normalization, batch, size, output, interface } = self;
        let mut fields = formatter.debug_struct("Adapter");
        fields.field("layout", layout).field("order", order);
        fields.field("normalization", normalization).field("batch", batch);
        fields.field("size", size).field("output", output);
        if !interface.is_default() {
            fields.field("interface", interface);
        }
        fields.finish()
    }
}

/// Order of an input's dimensions: N images, C channels, height and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// `[N, C, H, W]`.
    Nchw,
    /// `[N, H, W, C]`.
    Nhwc,
    /// `[C, H, W]`, one image.
    Chw,
    /// `[H, W, C]`, one image.
    Hwc,
    /// `[N, H, W]`, of one channel.
    Nhw,
    /// `[H, W]`, one image of one channel.
    Hw,
}

impl Layout {
    /// Returns the shape of a tensor of `count` images.
    pub fn shape(self, count: usize, channels: usize, [height, width]: [usize; 2]) -> Vec<usize> {
        match self {
            Self::Nchw => vec![count, channels, height, width],
            Self::Nhwc => vec![count, height, width, channels],
            Self::Chw => vec![channels, height, width],
            Self::Hwc => vec![height, width, channels],
            Self::Nhw => vec![count, height, width],
            Self::Hw => vec![height, width],
        }
    }

    /// True where the dimensions name a number of images.
    pub fn has_batch(self) -> bool {
        matches!(self, Self::Nchw | Self::Nhwc | Self::Nhw)
    }

    /// True where the channels of a pixel lie beside each other.
    pub fn channels_last(self) -> bool {
        matches!(self, Self::Nhwc | Self::Hwc)
    }

    /// Returns the dimensions as text, such as `[N, C, H, W]`.
    pub fn text(self) -> &'static str {
        match self {
            Self::Nchw => "[N, C, H, W]",
            Self::Nhwc => "[N, H, W, C]",
            Self::Chw => "[C, H, W]",
            Self::Hwc => "[H, W, C]",
            Self::Nhw => "[N, H, W]",
            Self::Hw => "[H, W]",
        }
    }
}

/// Order of the color channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelOrder {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red, as in OpenCV.
    Bgr,
}

/// Normalization of bytes: `(byte / scale - mean) / std`.
///
/// Mean and standard deviation are those of red, green and blue in this order, whatever the
/// [`ChannelOrder`], and of bytes that were divided by `scale`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "NormalizationFields")]
pub struct Normalization {
    scale: f32,
    mean: [f32; 3],
    std: [f32; 3],
}

/// Unchecked fields of a file.
#[derive(Deserialize)]
struct NormalizationFields {
    scale: f32,
    mean: [f32; 3],
    std: [f32; 3],
}

/// Invalid normalization constants.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum NormalizationError {
    /// A divisor that is not a positive number.
    #[error("cannot divide bytes by {0}: scale and standard deviations must be above 0")]
    Divisor(f32),
    /// A mean above every scaled byte, with the scale: most often the mean of another scale.
    #[error(
        "mean {0} is out of range for bytes divided by {1}; give the means of such bytes, or \
         another scale (1 for unscaled bytes)"
    )]
    Mean(f32, f32),
}

impl TryFrom<NormalizationFields> for Normalization {
    type Error = NormalizationError;

    fn try_from(fields: NormalizationFields) -> Result<Self, NormalizationError> {
        Self::new(fields.scale, fields.mean, fields.std)
    }
}

impl Normalization {
    /// Bytes as they are, 0 to 255.
    pub const NONE: Self = Self { scale: 1.0, mean: [0.0; 3], std: [1.0; 3] };
    /// 0 to 1.
    pub const UNIT: Self = Self { scale: 255.0, mean: [0.0; 3], std: [1.0; 3] };
    /// Mean and standard deviation of ImageNet, as in torchvision.
    pub const IMAGENET: Self =
        Self { scale: 255.0, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };

    /// Checks and returns a normalization; mean and standard deviation of red, green and blue.
    pub fn new(scale: f32, mean: [f32; 3], std: [f32; 3]) -> Result<Self, NormalizationError> {
        let mut divisors = [scale].into_iter().chain(std);
        if let Some(divisor) = divisors.find(|divisor| !divisor.is_finite() || *divisor <= 0.0) {
            return Err(NormalizationError::Divisor(divisor));
        }
        // Means near 123 for pixels of 0 to 1 are a common mistake, and labels look almost right.
        if let Some(mean) = mean.into_iter().find(|mean| !(0.0..=255.0 / scale).contains(mean)) {
            return Err(NormalizationError::Mean(mean, scale));
        }
        Ok(Self { scale, mean, std })
    }

    /// Returns the same for the one channel of gray images: the means of the three constants.
    pub fn gray(self) -> Self {
        let mean = |[red, green, blue]: [f32; 3]| [(red + green + blue) / 3.0; 3];
        if self.mean == [self.mean[0]; 3] && self.std == [self.std[0]; 3] {
            return self;
        }
        Self { scale: self.scale, mean: mean(self.mean), std: mean(self.std) }
    }

    /// Returns the same for values `factor` times as far from the middle of the bytes: beyond
    /// anything that an image holds.
    pub fn exaggerated(self, factor: f32) -> Self {
        let middle = 127.5 / self.scale;
        Self { scale: self.scale, mean: [middle; 3], std: self.std.map(|std| std / factor) }
    }

    /// Returns the normalized value of every byte, for red, green and blue.
    pub fn tables(self) -> [[f32; 256]; 3] {
        let value = |channel: usize, byte: usize| {
            let mean = f64::from(self.mean[channel]);
            let std = f64::from(self.std[channel]);
            ((byte as f64 / f64::from(self.scale) - mean) / std) as f32
        };
        std::array::from_fn(|channel| std::array::from_fn(|byte| value(channel, byte)))
    }
}

/// The formula, such as `(byte / 255 - 0.5) / 0.25`, with the constants of red, green and blue where
/// they differ.
impl fmt::Display for Normalization {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |value: f32| ((f64::from(value) * 1e5).round() / 1e5).to_string();
        let text = |[red, green, blue]: [f32; 3]| match red == green && green == blue {
            true => number(red),
            false => format!("[{}, {}, {}]", number(red), number(green), number(blue)),
        };
        let Self { scale, mean, std } = *self;
        let scaled =
            if scale == 1.0 { "byte".to_owned() } else { format!("byte / {}", number(scale)) };
        match (mean == [0.0; 3], std == [1.0; 3]) {
            (true, true) => formatter.write_str(&scaled),
            (true, false) => write!(formatter, "{scaled} / {}", text(std)),
            (false, true) => write!(formatter, "{scaled} - {}", text(mean)),
            (false, false) => write!(formatter, "({scaled} - {}) / {}", text(mean), text(std)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_scaled_first_and_constants_of_another_scale_are_refused() {
        let tables = Normalization::IMAGENET.tables();
        assert!((tables[0][0] + 2.117_904).abs() < 1e-6 && (tables[2][255] - 2.64).abs() < 1e-6);
        let bytes =
            Normalization::new(1.0, [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]).unwrap();
        let same = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-5;
        assert!(tables.as_flattened().iter().zip(bytes.tables().as_flattened()).all(same));
        assert_eq!(Normalization::NONE.tables()[1][77], 77.0);
        let text = "(byte / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]";
        assert_eq!(Normalization::IMAGENET.to_string(), text);
        assert_eq!(Normalization::IMAGENET.gray().to_string(), "(byte / 255 - 0.449) / 0.226");
        let [none, unit] = [Normalization::NONE, Normalization::UNIT].map(|one| one.to_string());
        assert_eq!((none.as_str(), unit.as_str()), ("byte", "byte / 255"));
        let message =
            Normalization::new(255.0, [123.675, 116.28, 103.53], [1.0; 3]).unwrap_err().to_string();
        assert!(message.starts_with("mean 123.675 is out of range"), "{message}");
        for (scale, std) in [(0.0, 1.0), (255.0, 0.0), (f32::NAN, 1.0), (255.0, -1.0)] {
            assert!(Normalization::new(scale, [0.0; 3], [1.0, std, 1.0]).is_err(), "{scale} {std}");
        }
        assert!(Normalization::new(255.0, [0.0, f32::NAN, 0.0], [1.0; 3]).is_err());
        let json = serde_json::to_string(&Normalization::IMAGENET).unwrap();
        assert_eq!(json, r#"{"scale":255.0,"mean":[0.485,0.456,0.406],"std":[0.229,0.224,0.225]}"#);
        assert_eq!(serde_json::from_str::<Normalization>(&json).unwrap(), Normalization::IMAGENET);
        assert!(serde_json::from_str::<Normalization>(&json.replace("0.229", "0")).is_err());
    }
}
