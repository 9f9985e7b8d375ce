//! How the samples of an image file become the 8-bit red, green and blue that a network sees.
//!
//! A file says how many channels it has and how many bits, but often not which of them are colors,
//! or which part of the range is used. Both belong to the model: it was trained on one reading.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Choices of channels and range; without one, files are read by what they say.
///
/// ```
/// use protoseg_models::reading::ImageReading;
///
/// let reading = ImageReading { channels: Some("3,2,1".parse()?), range: Some("0:4095".parse()?) };
/// let text = serde_json::to_string(&reading)?;
/// assert_eq!(text, r#"{"channels":"3,2,1","range":"0:4095"}"#);
/// assert_eq!(serde_json::from_str::<ImageReading>(&text)?, reading);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageReading {
    /// Which channels are red, green and blue; by default [`Channels::Color`], with a warning where
    /// another channel is not opaque everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<Channels>,
    /// Range of samples of more than 8 bits; by default that of their type, with a warning where
    /// much of it is unused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<SampleRange>,
}

impl ImageReading {
    /// True where nothing is chosen.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Returns these choices with everything that `other` chooses in its place.
    pub fn overlaid(self, other: Self) -> Self {
        Self { channels: other.channels.or(self.channels), range: other.range.or(self.range) }
    }
}

/// The choices in the words of the command line, such as `--channels 3,2,1 --range 0:4095`.
impl fmt::Display for ImageReading {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.channels, self.range) {
            (None, None) => formatter.write_str("as the files say"),
            (Some(channels), None) => write!(formatter, "--channels {channels}"),
            (None, Some(range)) => write!(formatter, "--range {range}"),
            (Some(channels), Some(range)) => {
                write!(formatter, "--channels {channels} --range {range}")
            }
        }
    }
}

/// The channels of a file that become red, green and blue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Channels {
    /// The colors as they are stored; opacity and further bands are left out.
    Color,
    /// The colors over black, by their opacity.
    AlphaBlack,
    /// The colors over white, by their opacity.
    AlphaWhite,
    /// Three channels in the file's order, from 1; one may stand for several.
    Picked([u16; 3]),
}

/// A text that names no channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write color, alpha-black, alpha-white, or the numbers of three channels such as 3,2,1")]
pub struct ParseChannelsError;

impl FromStr for Channels {
    type Err = ParseChannelsError;

    fn from_str(text: &str) -> Result<Self, ParseChannelsError> {
        match text {
            "color" => Ok(Self::Color),
            "alpha-black" => Ok(Self::AlphaBlack),
            "alpha-white" => Ok(Self::AlphaWhite),
            _ => {
                let numbers: Option<Vec<u16>> =
                    text.split(',').map(|number| number.trim().parse().ok()).collect();
                let picked: Option<[u16; 3]> = numbers.and_then(|numbers| numbers.try_into().ok());
                let picked = picked.filter(|picked| !picked.contains(&0));
                picked.map(Self::Picked).ok_or(ParseChannelsError)
            }
        }
    }
}

impl fmt::Display for Channels {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Color => formatter.write_str("color"),
            Self::AlphaBlack => formatter.write_str("alpha-black"),
            Self::AlphaWhite => formatter.write_str("alpha-white"),
            Self::Picked([red, green, blue]) => write!(formatter, "{red},{green},{blue}"),
        }
    }
}

impl TryFrom<String> for Channels {
    type Error = ParseChannelsError;

    fn try_from(text: String) -> Result<Self, ParseChannelsError> {
        text.parse()
    }
}

impl From<Channels> for String {
    fn from(channels: Channels) -> Self {
        channels.to_string()
    }
}

/// The values of samples that become 0 and 255; what lies outside is clamped.
///
/// It applies to samples of more than 8 bits, integers and floats. Samples of 8 bits stay as they
/// are, so that one model reads files of both kinds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SampleRange {
    low: f64,
    high: f64,
}

/// Both ends are finite.
impl Eq for SampleRange {}

/// A text that is not a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write LOW:HIGH such as 0:4095, LOW below HIGH")]
pub struct ParseRangeError;

impl SampleRange {
    /// Checks and returns a range.
    pub fn new(low: f64, high: f64) -> Result<Self, ParseRangeError> {
        let fits = low.is_finite() && high.is_finite() && low < high && (high - low).is_finite();
        if fits { Ok(Self { low, high }) } else { Err(ParseRangeError) }
    }

    /// Returns the range of unsigned integers of so many bits, of which at most 32 count.
    pub fn from_bits(bits: u8) -> Self {
        Self { low: 0.0, high: ((1_u64 << bits.clamp(1, 32)) - 1) as f64 }
    }

    /// Returns the value that becomes 0.
    pub fn low(self) -> f64 {
        self.low
    }

    /// Returns the value that becomes 255.
    pub fn high(self) -> f64 {
        self.high
    }

    /// Scales a sample to 8 bits, rounded to the nearest; 0 for no number.
    pub fn to_byte(self, sample: f64) -> u8 {
        // A cast from a float saturates, and gives 0 for NaN.
        ((sample - self.low) / (self.high - self.low) * 255.0).round() as u8
    }
}

impl FromStr for SampleRange {
    type Err = ParseRangeError;

    fn from_str(text: &str) -> Result<Self, ParseRangeError> {
        let (low, high) = text.split_once(':').ok_or(ParseRangeError)?;
        let number = |text: &str| text.trim().parse().map_err(|_| ParseRangeError);
        Self::new(number(low)?, number(high)?)
    }
}

impl fmt::Display for SampleRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.low, self.high)
    }
}

impl TryFrom<String> for SampleRange {
    type Error = ParseRangeError;

    fn try_from(text: String) -> Result<Self, ParseRangeError> {
        text.parse()
    }
}

impl From<SampleRange> for String {
    fn from(range: SampleRange) -> Self {
        range.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_and_ranges_are_read_as_they_are_written() {
        for text in ["color", "alpha-black", "alpha-white", "3,2,1", "8,8,8"] {
            assert_eq!(text.parse::<Channels>().unwrap().to_string(), text);
        }
        for text in ["", "rgb", "1,2", "1,2,3,4", "0,1,2", "-1,2,3", "a,b,c"] {
            assert_eq!(text.parse::<Channels>(), Err(ParseChannelsError), "{text}");
        }
        for text in ["0:4080", "-1:1", "0:0.3", "100:10000"] {
            assert_eq!(text.parse::<SampleRange>().unwrap().to_string(), text);
        }
        assert_eq!("0:4095".parse(), Ok(SampleRange::from_bits(12)));
        for text in ["", "4080", "5:5", "9:1", "nan:1", "0:inf", "-1e308:1e308"] {
            assert_eq!(text.parse::<SampleRange>(), Err(ParseRangeError), "{text}");
        }
    }

    #[test]
    fn samples_are_scaled_rounded_and_clamped() {
        let range = SampleRange::new(0.0, 4080.0).unwrap();
        let bytes = [-5.0, 0.0, 7.9, 8.1, 2040.0, 4080.0, 65535.0, f64::NAN];
        assert_eq!(bytes.map(|sample| range.to_byte(sample)), [0, 0, 0, 1, 128, 255, 255, 0]);
        let signed = SampleRange::new(-1.0, 1.0).unwrap();
        assert_eq!([-1.0, 0.0, 1.0].map(|sample| signed.to_byte(sample)), [0, 128, 255]);
    }

    #[test]
    fn given_choices_come_before_stored_ones() {
        let stored = ImageReading { channels: Some(Channels::Color), range: "0:9".parse().ok() };
        let given = ImageReading { channels: None, range: "0:255".parse().ok() };
        let both = stored.overlaid(given);
        assert_eq!(both.to_string(), "--channels color --range 0:255");
        assert!(ImageReading::default().is_default() && !both.is_default());
    }
}
