//! Scaling of images by the filters of Pillow, with its fixed-point arithmetic (`Resample.c`), so
//! that networks see the bytes that they were trained on, on every machine the same. The width is
//! scaled first, as in Pillow before version 13, which begins with the height where it shrinks by
//! more than twice as many pixels as the width.

use std::f64::consts::PI;

use protoseg_models::scaling::Resample;
use rayon::prelude::*;

/// Bits behind the point: 32 less 8 of a byte, and two for weights that add up to more than 1.
const PRECISION_BITS: u32 = 32 - 8 - 2;

const CHANNELS: usize = 3;

/// Weight of a pixel at a distance from the middle, in pixels of the smaller image.
type Weight = fn(f64) -> f64;

/// Weights of the pixels in a row or column that a scaled pixel is made of.
struct Taps {
    /// First pixel.
    first: usize,
    weights: Vec<i32>,
}

/// Scales an image `[height, width, 3]` to another size; neither has a side of 0.
pub(super) fn scale(
    pixels: &[u8],
    [height, width]: [usize; 2],
    [to_height, to_width]: [usize; 2],
    filter: Resample,
) -> Vec<u8> {
    let Some((support, weight)) = kernel(filter) else {
        return nearest(pixels, [height, width], [to_height, to_width]);
    };
    let across = (to_width != width).then(|| taps(width, to_width, support, weight));
    let down = (to_height != height).then(|| taps(height, to_height, support, weight));
    let wide = match across {
        None => pixels.to_vec(),
        Some(across) => scale_rows(pixels, width, &across),
    };
    match down {
        None => wide,
        Some(down) => scale_columns(&wide, to_width, &down),
    }
}

/// Each row `[width, 3]` by taps along it.
fn scale_rows(pixels: &[u8], width: usize, across: &[Taps]) -> Vec<u8> {
    let row = |row: &[u8]| -> Vec<u8> {
        let pixel = |Taps { first, weights }: &Taps| {
            let mut sums = [1 << (PRECISION_BITS - 1); CHANNELS];
            for (pixel, weight) in row[first * CHANNELS..].chunks_exact(CHANNELS).zip(weights) {
                for (sum, &byte) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(byte) * weight;
                }
            }
            sums.map(clip)
        };
        across.iter().flat_map(pixel).collect()
    };
    let rows: Vec<Vec<u8>> = pixels.par_chunks_exact(width * CHANNELS).map(row).collect();
    rows.concat()
}

/// Rows `[width, 3]` by taps down the columns.
fn scale_columns(pixels: &[u8], width: usize, down: &[Taps]) -> Vec<u8> {
    let bytes = width * CHANNELS;
    let row = |Taps { first, weights }: &Taps| -> Vec<u8> {
        let mut sums = vec![1 << (PRECISION_BITS - 1); bytes];
        for (row, weight) in pixels[first * bytes..].chunks_exact(bytes).zip(weights) {
            for (sum, &byte) in sums.iter_mut().zip(row) {
                *sum += i32::from(byte) * weight;
            }
        }
        sums.into_iter().map(clip).collect()
    };
    let rows: Vec<Vec<u8>> = down.par_iter().map(row).collect();
    rows.concat()
}

fn clip(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// The pixel under the middle of each scaled one.
fn nearest(
    pixels: &[u8],
    [height, width]: [usize; 2],
    [to_height, to_width]: [usize; 2],
) -> Vec<u8> {
    // Added up, as Pillow does, so that the same middles fall on borders.
    let places = |from: usize, to: usize| -> Vec<usize> {
        let step = from as f64 / to as f64;
        let mut middle = step * 0.5;
        let mut place = || {
            let place = (middle as usize).min(from - 1);
            middle += step;
            place
        };
        (0..to).map(|_| place()).collect()
    };
    let columns = places(width, to_width);
    let row = |row: usize| {
        let row = &pixels[row * width * CHANNELS..][..width * CHANNELS];
        columns.iter().flat_map(move |column| &row[column * CHANNELS..][..CHANNELS]).copied()
    };
    places(height, to_height).into_iter().flat_map(row).collect()
}

/// Radius and weights of a filter; None for the nearest pixel.
fn kernel(filter: Resample) -> Option<(f64, Weight)> {
    Some(match filter {
        Resample::Nearest => return None,
        Resample::Box => (0.5, |x| if x > -0.5 && x <= 0.5 { 1.0 } else { 0.0 }),
        Resample::Bilinear => (1.0, |x| (1.0 - x.abs()).max(0.0)),
        Resample::Hamming => (1.0, |x| {
            if x.abs() < 1.0 { sinc(x.abs()) * (0.54 + 0.46 * (x.abs() * PI).cos()) } else { 0.0 }
        }),
        Resample::Bicubic => (2.0, |x| {
            const A: f64 = -0.5;
            match x.abs() {
                x if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
                x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
                _ => 0.0,
            }
        }),
        Resample::Lanczos => {
            (3.0, |x| if (-3.0..3.0).contains(&x) { sinc(x) * sinc(x / 3.0) } else { 0.0 })
        }
    })
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) }
}

/// Taps of each of `to` pixels among `from`. Where images shrink, all pixels count that shrink into
/// one.
fn taps(from: usize, to: usize, support: f64, weight: Weight) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let reach = support * stretch;
    let tap = |pixel: usize| {
        let center = (pixel as f64 + 0.5) * scale;
        let first = (center - reach + 0.5).max(0.0) as usize;
        let end = ((center + reach + 0.5) as usize).min(from);
        let weights: Vec<f64> = (first..end)
            .map(|place| weight((place as f64 - center + 0.5) * (1.0 / stretch)))
            .collect();
        let sum: f64 = weights.iter().sum();
        let fixed = |weight: f64| {
            let share = if sum == 0.0 { weight } else { weight / sum };
            (share * f64::from(1 << PRECISION_BITS) + 0.5_f64.copysign(share)) as i32
        };
        Taps { first, weights: weights.into_iter().map(fixed).collect() }
    };
    (0..to).map(tap).collect()
}

#[cfg(test)]
mod tests {
    use image::imageops::{FilterType, resize};
    use image::{ImageBuffer, Rgb};
    use protoseg_models::digest::sha256_bytes;

    use super::*;

    const FROM: [usize; 2] = [23, 31];

    /// Bytes with all contrasts, so that filters with negative weights leave the range of a byte.
    fn pixels() -> Vec<u8> {
        let byte = |index: u64| match index {
            index if index.is_multiple_of(5) => 255,
            index if index.is_multiple_of(7) => 0,
            index => ((index * index * 7 + index * 13) / 11 % 256) as u8,
        };
        (0..(FROM[0] * FROM[1] * CHANNELS) as u64).map(byte).collect()
    }

    /// Digests of what Pillow gives: `Image.resize((width, height), filter)`. For these sizes version
    /// 13.0.0 scales the width first, as older ones do for all.
    #[test]
    fn every_filter_gives_the_bytes_of_pillow() {
        const SIZES: [[usize; 2]; 6] = [[9, 12], [40, 50], [23, 17], [7, 31], [1, 1], [64, 8]];
        use Resample::{Bicubic, Bilinear, Box, Hamming, Lanczos, Nearest};
        #[rustfmt::skip]
        let rows = [
            (Nearest, ["c88e46491339f304", "9f0b15b6fed536d5", "14c0a4a35685fceb", "dda957a7ed5a605f", "0a9bf8519d8920f9", "4077b742b79a9c96"]),
            (Box, ["dd939b4611df001c", "9f0b15b6fed536d5", "b1a935501a668b5e", "eda846a07c657360", "0c76fa2af92f568e", "6c1044e9447179bc"]),
            (Bilinear, ["f8127059929a381f", "7ba4cfa9ca80b0c0", "d1c9c9c27a77b6ab", "4cd4ee3762dd6946", "ab9c47b6ecfd48ba", "54dc4b7a602ccec3"]),
            (Hamming, ["6f36c1732adfd386", "d1c875cd76e0454f", "19e35f45ef32caae", "a03823089764ac4c", "ab9c47b6ecfd48ba", "21a6eb532d725bd7"]),
            (Bicubic, ["aa11926a28b56e1d", "57b87fb2cb3505f9", "5dbab1f3db212c1c", "25ca7b9b8548f8e4", "ab9c47b6ecfd48ba", "7ff449e7d3dc7982"]),
            (Lanczos, ["3c225fd5a8135081", "184b25613cb5ad7b", "80dd9a44cdece06e", "cfecd90299a90bea", "ab9c47b6ecfd48ba", "ce22681d6c8d31a6"]),
        ];
        for (filter, digests) in rows {
            for (size, expected) in SIZES.into_iter().zip(digests) {
                let scaled = scale(&pixels(), FROM, size, filter);
                assert_eq!(scaled.len(), size[0] * size[1] * CHANNELS);
                assert_eq!(sha256_bytes(&scaled)[..16], *expected, "{filter:?} {size:?}");
            }
        }
    }

    /// Pillow rounds between its two passes by half a step at most, which the second keeps or makes
    /// less; that, and the rounding at the end, move a byte by one at most.
    #[test]
    fn the_usual_bilinear_scaling_is_pillows_but_for_a_step() {
        let pixels = pixels();
        let view: ImageBuffer<Rgb<u8>, &[u8]> =
            ImageBuffer::from_raw(FROM[1] as u32, FROM[0] as u32, pixels.as_slice()).unwrap();
        for size in [[9, 12], [40, 50], [23, 17], [7, 31], [1, 1], [64, 8]] {
            let usual = resize(&view, size[1] as u32, size[0] as u32, FilterType::Triangle);
            let pillows = scale(&pixels, FROM, size, Resample::Bilinear);
            let far = usual.as_raw().iter().zip(&pillows).map(|(one, other)| one.abs_diff(*other));
            assert!(far.max() <= Some(1), "{size:?}");
        }
    }
}
