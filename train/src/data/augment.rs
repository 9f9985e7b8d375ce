//! Geometric augmentation (U2PL's `augmentation.py`): random scale, flip and crop of an image with its labels.
//!
//! Only the pixels of the crop are computed, with the values of resizing the whole image first.

use protoseg_models::classes::IGNORE_INDEX;
use protoseg_models::random::Stream;

use protoseg_images::labeled::LabeledImage;

/// A crop of a resized image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Crop {
    /// Height and width of the resized image.
    resized: [usize; 2],
    /// First row and column of the crop in it; negative where the crop is larger.
    start: [isize; 2],
    flip: bool,
    side: usize,
}

impl Crop {
    /// Draws a crop of `side` pixels: scale in [0.5, 1) or [1, 2) and flip with even chances, uniform position; an image
    /// smaller than the crop is padded evenly at both ends.
    pub fn sample(stream: Stream, [height, width]: [usize; 2], side: usize) -> Self {
        let scale = if stream.unit(0) < 0.5 {
            stream.range(1, 0.5, 1.0)
        } else {
            stream.range(1, 1.0, 2.0)
        };
        let resized = [height, width].map(|length| ((length as f64 * scale) as usize).max(1));
        let start = [(resized[0], 2), (resized[1], 3)].map(|(length, draw)| {
            match length.checked_sub(side) {
                Some(room) => stream.below(draw, room + 1) as isize,
                None => -(((side - length) / 2) as isize),
            }
        });
        Self { resized, start, flip: stream.unit(4) < 0.5, side }
    }

    /// Computes the crop; padding has the color `padding` and the label [`IGNORE_INDEX`].
    ///
    /// Colors are interpolated bilinearly with half-pixel centers and labels by nearest neighbor, as PyTorch's `interpolate`
    /// does.
    pub fn apply(&self, sample: &LabeledImage, padding: [u8; 3]) -> CroppedImage {
        let [height, width] = sample.size();
        let rows = self.taps(0, height);
        let mut columns = self.taps(1, width);
        if self.flip {
            columns.reverse();
        }
        let mut pixels = Vec::with_capacity(self.side * self.side * 3);
        let mut labels = Vec::with_capacity(self.side * self.side);
        let mut inside = Vec::with_capacity(self.side * self.side);
        for row in &rows {
            for column in &columns {
                let (Some(row), Some(column)) = (row, column) else {
                    pixels.extend(padding);
                    labels.push(IGNORE_INDEX);
                    inside.push(0);
                    continue;
                };
                inside.push(1);
                labels.push(sample.truth[row.nearest * width + column.nearest]);
                let pixel = |y: usize, x: usize, channel: usize| {
                    f32::from(sample.image.as_raw()[(y * width + x) * 3 + channel])
                };
                for channel in 0..3 {
                    let across = |y: usize| {
                        let left = pixel(y, column.low, channel);
                        let right = pixel(y, column.high, channel);
                        left + (right - left) * column.share
                    };
                    let (top, bottom) = (across(row.low), across(row.high));
                    pixels.push((top + (bottom - top) * row.share).round() as u8);
                }
            }
        }
        CroppedImage { pixels, labels, inside }
    }

    /// Returns, for each row (direction 0) or column (1) of the crop, where it reads the image; None in the padding.
    fn taps(&self, direction: usize, source: usize) -> Vec<Option<Tap>> {
        let length = self.resized[direction];
        let ratio = source as f64 / length as f64;
        let tap = |offset: usize| {
            let place = usize::try_from(self.start[direction] + offset as isize)
                .ok()
                .filter(|place| *place < length)?;
            let center = ((place as f64 + 0.5) * ratio - 0.5).clamp(0.0, (source - 1) as f64);
            let low = center as usize;
            let nearest = ((place as f64 * ratio) as usize).min(source - 1);
            Some(Tap {
                low,
                high: (low + 1).min(source - 1),
                share: (center - low as f64) as f32,
                nearest,
            })
        };
        (0..self.side).map(tap).collect()
    }
}

/// Pixels of a crop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CroppedImage {
    /// RGB `[side, side, 3]`.
    pub pixels: Vec<u8>,
    /// Train ids `[side, side]`.
    pub labels: Vec<u8>,
    /// 0 in the padding, else 1, `[side, side]`.
    pub inside: Vec<u8>,
}

/// Source pixels of one row or column of a crop.
struct Tap {
    low: usize,
    high: usize,
    /// Weight of `high`.
    share: f32,
    nearest: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::upsample;
    use tch::{Kind, Tensor};

    fn sample(height: usize, width: usize) -> LabeledImage {
        let stream = Stream::keyed(&[9]);
        let pixels =
            (0..height * width * 3).map(|index| stream.below(index as u64, 256) as u8).collect();
        LabeledImage {
            image: image::RgbImage::from_raw(width as u32, height as u32, pixels).unwrap(),
            truth: (0..height * width).map(|index| (index % 7) as u8).collect(),
        }
    }

    #[test]
    fn a_crop_equals_libtorchs_resize_then_flip_then_crop() {
        let sample = sample(37, 53);
        let shape = [1, 37, 53, 3];
        let whole = Tensor::f_from_data_size(sample.image.as_raw(), &shape, Kind::Uint8).unwrap();
        let whole = whole.permute([0, 3, 1, 2]).to_kind(Kind::Float);
        let labels = Tensor::f_from_data_size(&sample.truth, &[1, 1, 37, 53], Kind::Uint8).unwrap();
        for (resized, start, flip) in
            [([74, 106], [11, 30], false), ([22, 31], [-5, 2], true), ([37, 53], [0, 0], true)]
        {
            let side = 24;
            let crop = Crop { resized, start, flip, side };
            let CroppedImage { pixels, labels: crop_labels, inside: crop_inside } =
                crop.apply(&sample, [1, 2, 3]);
            let size = resized.map(|length| length as i64);
            let expected = upsample(&whole, size, false).unwrap().round().to_kind(Kind::Uint8);
            let expected_labels = labels
                .to_kind(Kind::Float)
                .upsample_nearest2d(size, None, None)
                .to_kind(Kind::Uint8);
            for y in 0..side {
                for x in 0..side {
                    let across = if flip { side - 1 - x } else { x };
                    let (row, column) = (start[0] + y as isize, start[1] + across as isize);
                    let inside = row >= 0
                        && column >= 0
                        && row < resized[0] as isize
                        && column < resized[1] as isize;
                    let found = &pixels[(y * side + x) * 3..][..3];
                    assert_eq!(inside, crop_inside[y * side + x] == 1, "{y} {x}");
                    if !inside {
                        assert_eq!(
                            (found, crop_labels[y * side + x]),
                            ([1, 2, 3].as_slice(), IGNORE_INDEX)
                        );
                        continue;
                    }
                    let at = |map: &Tensor, channel: i64| {
                        map.int64_value(&[0, channel, row as i64, column as i64])
                    };
                    for (channel, &found) in (0..).zip(found) {
                        // A half may round either way, as sums are in another order.
                        assert!(
                            (at(&expected, channel) - i64::from(found)).abs() <= 1,
                            "{y} {x} {channel}"
                        );
                    }
                    assert_eq!(
                        at(&expected_labels, 0),
                        i64::from(crop_labels[y * side + x]),
                        "{y} {x}"
                    );
                }
            }
        }
    }

    #[test]
    fn sampled_crops_stay_inside_and_cover_the_range_of_scales() {
        let mut scales = Vec::new();
        for index in 0..500 {
            let crop = Crop::sample(Stream::keyed(&[1, index]), [100, 200], 64);
            for direction in 0..2 {
                let (start, length) = (crop.start[direction], crop.resized[direction] as isize);
                assert!(start <= (length - 64).max(0) && (start >= 0 || length < 64));
                assert!(crop.taps(direction, [100, 200][direction]).iter().flatten().count() >= 50);
            }
            scales.push(crop.resized[1]);
        }
        assert!(scales.iter().min() < Some(&110) && scales.iter().max() > Some(&380));
        let small = scales.iter().filter(|&&width| width < 200).count();
        assert!((200..300).contains(&small), "{small}");
    }
}
