//! Samples of any type to 8 bits, with a survey of the values that were seen.

use protoseg_models::reading::SampleRange;
use tiff::decoder::DecodingResult;

use crate::image_file::DecodeError;
use crate::notes::{Clamped, UnusedRange};

/// Number of values of 16 bits.
const WORDS: usize = 1 << 16;

/// Share of the samples that may lie above the used part of a range: hot pixels and specks.
const OUTLIERS: u64 = 1000;

/// Type of a file's samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SampleKind {
    /// 8 bits, taken as they are.
    Byte,
    /// 16 bits, of which the whole range is meant unless another is given.
    Word,
    /// 16 bits whose range the file tells, so that none can be given.
    ScaledWord,
    /// A type without a customary range, by its name in messages.
    Unbounded(&'static str),
}

/// A number in an image file.
pub(crate) trait SampleValue: Copy {
    /// Returns the value.
    fn value(self) -> f64;
    /// Returns the value of an opacity, of which 255 is opaque.
    fn opacity(self) -> u8;
    /// Scales it to 8 bits.
    fn scaled(self, scale: &Scale) -> u8 {
        scale.range.map_or(0, |range| range.to_byte(self.value()))
    }
    /// Adds it to a survey.
    fn count(self, survey: &mut Survey) {
        survey.add(self.value());
    }
}

impl SampleValue for u8 {
    fn value(self) -> f64 {
        f64::from(self)
    }

    fn opacity(self) -> u8 {
        self
    }

    fn scaled(self, _: &Scale) -> u8 {
        self
    }

    fn count(self, _: &mut Survey) {}
}

impl SampleValue for u16 {
    fn value(self) -> f64 {
        f64::from(self)
    }

    fn opacity(self) -> u8 {
        high_byte(self)
    }

    fn scaled(self, scale: &Scale) -> u8 {
        scale.table.get(usize::from(self)).copied().unwrap_or_else(|| high_byte(self))
    }

    fn count(self, survey: &mut Survey) {
        if let Some(count) = survey.words.get_mut(usize::from(self)) {
            *count += 1;
        }
    }
}

macro_rules! sample {
    ($($kind:ty, $full:expr);*) => {$(
        impl SampleValue for $kind {
            fn value(self) -> f64 {
                self as f64
            }

            fn opacity(self) -> u8 {
                (self as f64 / $full * 255.0).round() as u8
            }
        }
    )*};
}

sample!(
    i8, 127.0; i16, 32_767.0; u32, u32::MAX as f64; i32, i32::MAX as f64; u64, u64::MAX as f64;
    i64, i64::MAX as f64; f32, 1.0; f64, 1.0
);

/// Scales 16 bits to 8, rounded to the nearest.
pub(crate) fn high_byte(word: u16) -> u8 {
    ((u32::from(word) + 128) / 257) as u8
}

/// Scaling of samples to 8 bits.
pub(crate) struct Scale {
    range: Option<SampleRange>,
    /// Bytes of all words where a range is given for them, else empty.
    table: Vec<u8>,
}

impl Scale {
    pub(crate) fn new(kind: SampleKind, range: Option<SampleRange>) -> Self {
        let table = match (kind, range) {
            (SampleKind::Word, Some(range)) => {
                (0..=u16::MAX).map(|word| range.to_byte(f64::from(word))).collect()
            }
            _ => Vec::new(),
        };
        Self { range, table }
    }
}

/// Values of the color samples of an image.
pub(crate) struct Survey {
    kind: SampleKind,
    range: Option<SampleRange>,
    /// The value of samples without data, which do not count.
    nodata: Option<f64>,
    /// Number of samples of each value of 16 bits, else empty.
    words: Vec<u64>,
    low: f64,
    high: f64,
    outside: u64,
    samples: u64,
}

impl Survey {
    pub(crate) fn new(kind: SampleKind, range: Option<SampleRange>, nodata: Option<f64>) -> Self {
        let words = if kind == SampleKind::Word { vec![0; WORDS] } else { Vec::new() };
        let (low, high) = (f64::INFINITY, f64::NEG_INFINITY);
        Self { kind, range, nodata, words, low, high, outside: 0, samples: 0 }
    }

    fn add(&mut self, value: f64) {
        self.add_many(value, 1);
    }

    fn add_many(&mut self, value: f64, count: u64) {
        if !value.is_finite() || self.nodata == Some(value) {
            return;
        }
        self.samples += count;
        self.low = self.low.min(value);
        self.high = self.high.max(value);
        if self.range.is_some_and(|range| value < range.low() || value > range.high()) {
            self.outside += count;
        }
    }

    /// Returns the remarks on an image whose samples were all added; an error where only a range
    /// that was not given would tell what they mean.
    pub(crate) fn finish(mut self) -> Result<(Option<UnusedRange>, Option<Clamped>), DecodeError> {
        let words = std::mem::take(&mut self.words);
        for (word, &count) in words.iter().enumerate().filter(|(_, count)| **count > 0) {
            self.add_many(word as f64, count);
        }
        let Self { low, high, outside, samples, .. } = self;
        match (self.kind, self.range) {
            (SampleKind::Unbounded(kind), None) => {
                let (low, high) = if samples == 0 { (0.0, 0.0) } else { (low, high) };
                Err(DecodeError::UnknownRange { kind, low, high })
            }
            (SampleKind::Word | SampleKind::Unbounded(_), Some(range)) => {
                // A few outliers are what clamping is for.
                let clamped = outside > samples / 100;
                Ok((None, clamped.then_some(Clamped { low, high, outside, samples, range })))
            }
            (SampleKind::Word, None) => Ok((self.unused(&words), None)),
            (SampleKind::Byte | SampleKind::ScaledWord, _) => Ok((None, None)),
        }
    }

    /// The used part of 16 bits, where it leaves the highest bit unused, or, but for outliers, the
    /// three highest.
    fn unused(&self, words: &[u64]) -> Option<UnusedRange> {
        let mut above = self.samples / OUTLIERS;
        let is_counted = |word: usize| self.nodata != Some(word as f64);
        let mut counts = words.iter().enumerate().rev().filter(|(word, _)| is_counted(*word));
        let common = counts.find_map(|(word, &count)| match above.checked_sub(count) {
            Some(rest) => {
                above = rest;
                None
            }
            None => Some(word as u16),
        })?;
        let largest = self.high as u16;
        let used = if largest < 1 << 15 {
            largest
        } else if common < 1 << 13 {
            common
        } else {
            return None;
        };
        (used > 0).then_some(UnusedRange { largest, used })
    }
}

/// Samples of part of an image: interleaved in one slice, or a slice for each needed band.
#[derive(Debug)]
pub(crate) enum Samples<'a, T> {
    /// Bands of a pixel side by side.
    Interleaved(&'a [T]),
    /// Needed bands in their order.
    Planar(Vec<&'a [T]>),
}

impl<T: SampleValue> Samples<'_, T> {
    /// Returns the samples of a band; `index` counts the needed bands, `band` all, of which a pixel
    /// has `bands`.
    pub(crate) fn band(
        &self,
        index: usize,
        band: usize,
        bands: usize,
    ) -> impl Iterator<Item = T> + '_ {
        let (slice, step) = match self {
            Self::Interleaved(slice) => (slice.get(band..).unwrap_or_default(), bands.max(1)),
            Self::Planar(planes) => (planes.get(index).copied().unwrap_or_default(), 1),
        };
        slice.iter().step_by(step).copied()
    }
}

/// Calls a function on the samples of decoded chunks of one type.
macro_rules! with_samples {
    ($chunks:expr, $planar:expr, $bind:ident => $body:expr) => {{
        use tiff::decoder::DecodingResult as Chunk;
        macro_rules! collect {
            ($variant:ident) => {{
                let slices: Vec<_> = $chunks
                    .iter()
                    .map(|chunk| match chunk {
                        Chunk::$variant(values) => values.as_slice(),
                        _ => &[],
                    })
                    .collect();
                let $bind = match slices.as_slice() {
                    [slice] if !$planar => $crate::samples::Samples::Interleaved(slice),
                    _ => $crate::samples::Samples::Planar(slices),
                };
                $body
            }};
        }
        match $chunks.first() {
            Some(Chunk::U8(_)) | None => collect!(U8),
            Some(Chunk::U16(_)) => collect!(U16),
            Some(Chunk::U32(_)) => collect!(U32),
            Some(Chunk::U64(_)) => collect!(U64),
            Some(Chunk::I8(_)) => collect!(I8),
            Some(Chunk::I16(_)) => collect!(I16),
            Some(Chunk::I32(_)) => collect!(I32),
            Some(Chunk::I64(_)) => collect!(I64),
            // Widened before.
            Some(Chunk::F16(_) | Chunk::F32(_)) => collect!(F32),
            Some(Chunk::F64(_)) => collect!(F64),
        }
    }};
}
pub(crate) use with_samples;

/// Widens 16-bit floats, which no other type here needs.
pub(crate) fn widen(chunk: DecodingResult) -> DecodingResult {
    match chunk {
        DecodingResult::F16(values) => {
            DecodingResult::F32(values.into_iter().map(f32::from).collect())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(range: Option<SampleRange>, nodata: Option<f64>, samples: &[u16]) -> Survey {
        let mut survey = Survey::new(SampleKind::Word, range, nodata);
        samples.iter().for_each(|sample| sample.count(&mut survey));
        survey
    }

    #[test]
    fn a_corner_of_16_bits_is_noticed_past_outliers_and_missing_data() {
        let unused = |nodata, samples: &[u16]| survey(None, nodata, samples).finish().unwrap().0;
        let seen = |largest, used| Some(UnusedRange { largest, used });
        assert_eq!(unused(None, &[0, 4080, 7]), seen(4080, 4080));
        assert_eq!(unused(None, &[0, 32_767]), seen(32_767, 32_767));
        assert_eq!(unused(None, &[0, 32_768]), None);
        assert_eq!(unused(None, &[0, 0, 0]), None, "black");
        assert_eq!(unused(None, &[65_535, 4000]), None);
        assert_eq!(unused(Some(65_535.0), &[65_535, 4000]), seen(4000, 4000));
        let mut hot = vec![4000; 5000];
        hot.push(65_535);
        assert_eq!(unused(None, &hot), seen(65_535, 4000));
    }

    #[test]
    fn samples_outside_the_given_range_are_noticed() {
        let range = SampleRange::new(10.0, 100.0).unwrap();
        let mut samples = vec![50; 1000];
        samples.extend([5; 10]);
        assert!(survey(Some(range), None, &samples).finish().unwrap().1.is_none(), "1 %");
        samples.extend([900; 10]);
        let clamped = survey(Some(range), None, &samples).finish().unwrap().1.unwrap();
        assert_eq!((clamped.low, clamped.high, clamped.outside), (5.0, 900.0, 20));
    }

    #[test]
    fn floats_need_a_range() {
        let mut survey = Survey::new(SampleKind::Unbounded("floating-point"), None, None);
        [0.25_f32, f32::NAN, -1.0].into_iter().for_each(|sample| sample.count(&mut survey));
        let message = survey.finish().err().unwrap().to_string();
        assert!(message.contains("floating-point samples from -1 to 0.25"), "{message}");
        let range = SampleRange::new(-1.0, 1.0).ok();
        let scale = Scale::new(SampleKind::Unbounded(""), range);
        assert_eq!([-2.0_f32, 0.0, 1.0].map(|sample| sample.scaled(&scale)), [0, 128, 255]);
        assert_eq!([1.0_f32.opacity(), 0.5_f32.opacity(), i16::MAX.opacity()], [255, 128, 255]);
    }
}
