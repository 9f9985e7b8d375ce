//! How a file that somebody else made takes pictures: what the program must do to them first, as the file does not say.

use serde::{Deserialize, Serialize};

/// How an adopted ONNX file takes pictures, and which of its outputs counts. Its form says what that output is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Adapter {
    /// Order of the input's four dimensions.
    pub layout: Layout,
    /// Order of the colours.
    pub order: ChannelOrder,
    /// What becomes of a byte before it goes in as a 32-bit float; none where bytes go in.
    pub normalization: Option<Normalization>,
    /// How many pictures it takes at once, where that is fixed.
    pub batch: Option<usize>,
    /// Height and width that it takes in pixels, where these are fixed.
    pub size: Option<[usize; 2]>,
    /// The output that counts: logits `[N, classes, h, w]`, or labels `[N, H, W]` or `[N, 1, H, W]`.
    pub output: String,
}

/// Order of an input's four dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// `[N, 3, H, W]`.
    Nchw,
    /// `[N, H, W, 3]`.
    Nhwc,
}

/// Order of a picture's colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelOrder {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red, as OpenCV reads pictures.
    Bgr,
}

/// What becomes of a byte: `(byte / scale - mean) / std`. Mean and deviation are those of red, green and blue, whatever the
/// order in which colours go in, and of bytes that were divided by `scale`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub struct Normalization {
    scale: f32,
    mean: [f32; 3],
    std: [f32; 3],
}

/// What stands in a file, before it is checked.
#[derive(Serialize, Deserialize)]
struct Fields {
    scale: f32,
    mean: [f32; 3],
    std: [f32; 3],
}

/// Numbers that normalise no picture.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum NormalizationError {
    /// A divisor that is not above zero.
    #[error("bytes cannot be divided by {0}: scale and standard deviations are numbers above 0")]
    Divisor(f32),
    /// A mean beyond all bytes, in the units of another scale.
    #[error(
        "no picture has the mean {mean} once its bytes are divided by {scale}; give means of such bytes, or another scale (1 for bytes as they are)"
    )]
    Mean {
        /// The mean.
        mean: f32,
        /// The scale.
        scale: f32,
    },
}

impl TryFrom<Fields> for Normalization {
    type Error = NormalizationError;

    fn try_from(Fields { scale, mean, std }: Fields) -> Result<Self, NormalizationError> {
        Self::new(scale, mean, std)
    }
}

impl From<Normalization> for Fields {
    fn from(Normalization { scale, mean, std }: Normalization) -> Self {
        Self { scale, mean, std }
    }
}

impl Normalization {
    /// Bytes as they are, 0 to 255.
    pub const NONE: Self = Self { scale: 1.0, mean: [0.0; 3], std: [1.0; 3] };
    /// 0 to 1.
    pub const UNIT: Self = Self { scale: 255.0, mean: [0.0; 3], std: [1.0; 3] };
    /// Mean and deviation of ImageNet, as torchvision has them.
    pub const IMAGENET: Self =
        Self { scale: 255.0, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };

    /// Of these numbers; mean and deviation of red, green and blue.
    pub fn new(scale: f32, mean: [f32; 3], std: [f32; 3]) -> Result<Self, NormalizationError> {
        if let Some(divisor) =
            [scale].into_iter().chain(std).find(|&divisor| !divisor.is_finite() || divisor <= 0.0)
        {
            return Err(NormalizationError::Divisor(divisor));
        }
        // Means of 123 among pixels of 0 to 1 are the usual mistake, and labels look almost right with it.
        if let Some(mean) = mean.into_iter().find(|mean| !(0.0..=255.0 / scale).contains(mean)) {
            return Err(NormalizationError::Mean { mean, scale });
        }
        Ok(Self { scale, mean, std })
    }

    /// What becomes of every byte of red, green and blue.
    pub fn tables(self) -> [[f32; 256]; 3] {
        let value = |channel: usize, byte: usize| {
            let (mean, std) = (f64::from(self.mean[channel]), f64::from(self.std[channel]));
            ((byte as f64 / f64::from(self.scale) - mean) / std) as f32
        };
        std::array::from_fn(|channel| std::array::from_fn(|byte| value(channel, byte)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_scaled_first_and_numbers_of_another_scale_are_refused() {
        let tables = Normalization::IMAGENET.tables();
        assert!((tables[0][0] + 2.117_904).abs() < 1e-6 && (tables[2][255] - 2.64).abs() < 1e-6);
        let bytes =
            Normalization::new(1.0, [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]).unwrap();
        let same = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-5;
        assert!(tables.as_flattened().iter().zip(bytes.tables().as_flattened()).all(same));
        assert_eq!(Normalization::NONE.tables()[1][77], 77.0);
        let message =
            Normalization::new(255.0, [123.675, 116.28, 103.53], [1.0; 3]).unwrap_err().to_string();
        assert!(message.starts_with("no picture has the mean 123.675"), "{message}");
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
