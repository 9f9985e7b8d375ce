//! Geometric augmentation (U2PL's `augmentation.py`): random scale, flip and crop of an image with its labels.
//!
//! Only the pixels of the crop are computed, with the values of resizing the whole image first.

use std::sync::Arc;

use anyhow::{Context, Result};
use protoseg_images::labeled::LabeledImage;
use protoseg_models::classes::{ClassTable, IGNORE_INDEX};
use protoseg_models::random::Stream;

use crate::config::Config;

/// Choices of the geometric augmentation.
#[derive(Debug, Clone, PartialEq)]
pub struct Geometry {
    /// Mirrors half of the crops.
    pub flip: bool,
    /// Label of each label in a mirrored crop.
    pub flipped_labels: Arc<[u8; 256]>,
    /// Smallest and largest scale of the image.
    pub scale: [f64; 2],
}

impl Default for Geometry {
    /// Flips that change no label, and scales from 0.5 to 2.
    fn default() -> Self {
        Self {
            flip: true,
            flipped_labels: Arc::new(std::array::from_fn(|label| label as u8)),
            scale: [0.5, 2.0],
        }
    }
}

impl Geometry {
    /// Geometry of a run whose classes have these names by train id.
    pub fn new(config: &Config, classes: &ClassTable) -> Result<Self> {
        let mut labels: [u8; 256] = std::array::from_fn(|label| label as u8);
        let find = |name: &String| {
            let found = classes.classes().iter().position(|class| class.name == *name);
            found.with_context(|| {
                let known: Vec<&str> =
                    classes.classes().iter().map(|class| class.name.as_str()).collect();
                format!("`flip_pairs` names `{name}`, which is not a class: {}", known.join(", "))
            })
        };
        for [left, right] in &config.flip_pairs {
            let (left, right) = (find(left)?, find(right)?);
            labels[left] = right as u8;
            labels[right] = left as u8;
        }
        Ok(Self { flip: config.flip, flipped_labels: Arc::new(labels), scale: config.scale })
    }

    /// Draws a scale: below and above 1 with even chances, if both are allowed, and uniformly there.
    fn draw_scale(&self, stream: Stream) -> f64 {
        let [low, high] = self.scale;
        let (low, high) = match (low < 1.0, high > 1.0) {
            (true, true) if stream.unit(0) < 0.5 => (low, 1.0),
            (true, true) => (1.0, high),
            _ => (low, high),
        };
        stream.range(1, low, high)
    }
}

/// A crop of a resized image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Crop {
    /// Height and width of the resized image.
    resized: [usize; 2],
    /// First row and column of the crop in it; negative where the crop is larger.
    start: [isize; 2],
    flip: bool,
    /// Height and width.
    size: [usize; 2],
}

impl Crop {
    /// Draws a crop of height and width `size`: scale and flip as the geometry has it, uniform position; an image smaller than the crop
    /// is padded evenly at both ends.
    pub fn sample(
        stream: Stream,
        [height, width]: [usize; 2],
        size: [usize; 2],
        geometry: &Geometry,
    ) -> Self {
        let scale = geometry.draw_scale(stream);
        let resized = [height, width].map(|length| ((length as f64 * scale) as usize).max(1));
        let start = [0, 1].map(|direction| {
            let (length, side) = (resized[direction], size[direction]);
            match length.checked_sub(side) {
                Some(room) => stream.below(2 + direction as u64, room + 1) as isize,
                None => -(((side - length) / 2) as isize),
            }
        });
        Self { resized, start, flip: geometry.flip && stream.unit(4) < 0.5, size }
    }

    /// Computes the crop; labels of a mirrored one are looked up in `flipped_labels`. Padding has the color `padding` and the label [`IGNORE_INDEX`].
    ///
    /// Colors are interpolated bilinearly with half-pixel centers and labels by nearest neighbor, as PyTorch's `interpolate`
    /// does.
    pub fn apply(
        &self,
        sample: &LabeledImage,
        padding: [u8; 3],
        flipped_labels: &[u8; 256],
    ) -> CroppedImage {
        let [height, width] = sample.size();
        let rows = self.taps(0, height);
        let mut columns = self.taps(1, width);
        if self.flip {
            columns.reverse();
        }
        let mut pixels = Vec::with_capacity(self.size[0] * self.size[1] * 3);
        let mut labels = Vec::with_capacity(self.size[0] * self.size[1]);
        let mut inside = Vec::with_capacity(self.size[0] * self.size[1]);
        for row in &rows {
            for column in &columns {
                let (Some(row), Some(column)) = (row, column) else {
                    pixels.extend(padding);
                    labels.push(IGNORE_INDEX);
                    inside.push(0);
                    continue;
                };
                inside.push(1);
                let label = sample.truth[row.nearest * width + column.nearest];
                labels.push(if self.flip { flipped_labels[usize::from(label)] } else { label });
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

    /// Cuts a map of bytes of an image of height and width `source` by nearest neighbor, as labels
    /// are; padding is `outside`.
    pub fn apply_to_map(&self, map: &[u8], source: [usize; 2], outside: u8) -> Vec<u8> {
        let rows = self.taps(0, source[0]);
        let mut columns = self.taps(1, source[1]);
        if self.flip {
            columns.reverse();
        }
        let value = |row: &Option<Tap>, column: &Option<Tap>| match (row, column) {
            (Some(row), Some(column)) => map[row.nearest * source[1] + column.nearest],
            _ => outside,
        };
        rows.iter().flat_map(|row| columns.iter().map(move |column| value(row, column))).collect()
    }

    /// Says whether the crop is mirrored.
    pub fn is_mirrored(&self) -> bool {
        self.flip
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
        (0..self.size[direction]).map(tap).collect()
    }
}

/// Pixels of a crop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CroppedImage {
    /// RGB `[height, width, 3]`.
    pub pixels: Vec<u8>,
    /// Train ids `[height, width]`.
    pub labels: Vec<u8>,
    /// 0 in the padding, else 1, `[height, width]`.
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
            ids: None,
            palette: Vec::new(),
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
            let [height, width] = [24, 28];
            let crop = Crop { resized, start, flip, size: [height, width] };
            let CroppedImage { pixels, labels: crop_labels, inside: crop_inside } =
                crop.apply(&sample, [1, 2, 3], &Geometry::default().flipped_labels);
            let size = resized.map(|length| length as i64);
            let expected = upsample(&whole, size, false).unwrap().round().to_kind(Kind::Uint8);
            let expected_labels = labels
                .to_kind(Kind::Float)
                .upsample_nearest2d(size, None, None)
                .to_kind(Kind::Uint8);
            for y in 0..height {
                for x in 0..width {
                    let across = if flip { width - 1 - x } else { x };
                    let (row, column) = (start[0] + y as isize, start[1] + across as isize);
                    let inside = row >= 0
                        && column >= 0
                        && row < resized[0] as isize
                        && column < resized[1] as isize;
                    let found = &pixels[(y * width + x) * 3..][..3];
                    assert_eq!(inside, crop_inside[y * width + x] == 1, "{y} {x}");
                    if !inside {
                        assert_eq!(
                            (found, crop_labels[y * width + x]),
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
                        i64::from(crop_labels[y * width + x]),
                        "{y} {x}"
                    );
                }
            }
        }
    }

    #[test]
    fn maps_are_cut_as_labels_are() {
        let sample = sample(37, 53);
        let unchanged = Geometry::default().flipped_labels;
        for index in 0..20 {
            let crop =
                Crop::sample(Stream::keyed(&[2, index]), [37, 53], [40, 28], &Geometry::default());
            let labels = crop.apply(&sample, [0; 3], &unchanged).labels;
            assert_eq!(crop.apply_to_map(&sample.truth, [37, 53], IGNORE_INDEX), labels);
        }
    }

    #[test]
    fn sampled_crops_stay_inside_and_cover_the_range_of_scales() {
        let mut scales = Vec::new();
        for index in 0..500 {
            let crop =
                Crop::sample(Stream::keyed(&[1, index]), [100, 200], [64; 2], &Geometry::default());
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

    #[test]
    fn without_flips_and_with_other_scales_the_same_crops_are_drawn_otherwise() {
        let draw = |index, geometry: &Geometry| {
            Crop::sample(Stream::keyed(&[1, index]), [100, 200], [64; 2], geometry)
        };
        let (mut flips, mut widths) = (0, Vec::new());
        for index in 0..300 {
            let usual = draw(index, &Geometry::default());
            let still = draw(index, &Geometry { flip: false, ..Geometry::default() });
            assert_eq!(still, Crop { flip: false, ..usual });
            flips += usize::from(usual.flip);
            let fixed = draw(index, &Geometry { scale: [1.0, 1.0], ..Geometry::default() });
            assert_eq!(fixed.resized, [100, 200]);
            let small = draw(index, &Geometry { scale: [0.5, 0.75], ..Geometry::default() });
            widths.push(small.resized[1]);
        }
        assert!((120..180).contains(&flips), "{flips}");
        assert!(widths.iter().all(|width| (100..=150).contains(width)));
        assert!(widths.iter().min() < Some(&105) && widths.iter().max() > Some(&145));
    }

    #[test]
    fn labels_of_a_pair_are_swapped_in_mirrored_crops_alone() {
        let classes = ClassTable::parse("0 ground\n7 left\n9 right\n").unwrap();
        let settings = ["flip_pairs=[[\"left\", \"right\"]]".to_owned()];
        let text = include_str!("../../configs/synthetic.toml");
        let config = Config::parse(text, &settings).unwrap();
        let geometry = Geometry::new(&config, &classes).unwrap();
        let error = Geometry::new(&config, &ClassTable::camvid()).unwrap_err().to_string();
        assert!(error.contains("`left`") && error.contains("Building"), "{error}");
        let mut sample = sample(64, 64);
        for (index, label) in sample.truth.iter_mut().enumerate() {
            *label = [0, 1, 2, IGNORE_INDEX][index % 64 / 16];
        }
        let labels = |flip| {
            let crop = Crop { resized: [64, 64], start: [0, 0], flip, size: [64; 2] };
            let cropped = crop.apply(&sample, [0; 3], &geometry.flipped_labels).labels;
            [0, 1, 2, 3].map(|part| cropped[part * 16])
        };
        assert_eq!(labels(false), [0, 1, 2, IGNORE_INDEX]);
        assert_eq!(labels(true), [IGNORE_INDEX, 1, 2, 0]);
    }
}
