//! Sampled pixels of the prototype losses, and the features at them.

use anyhow::Result;
use protoseg_models::classes::IGNORE_INDEX;
use protoseg_models::random::Stream;
use tch::{Kind, Tensor};

/// Sampled pixels of the images of a micro-batch.
pub struct SampledPoints {
    /// Row and column, i64 `[images, points, 2]`.
    places: Tensor,
    /// `[images, points]`, false for fillers of images with fewer points; None without fillers.
    counted: Option<Tensor>,
    /// Height and width of the images.
    size: [usize; 2],
}

impl SampledPoints {
    /// Points at places i64 `[images, points, 2]` of images of height and width `size`.
    pub fn new(places: Tensor, size: [usize; 2]) -> Self {
        Self { places, counted: None, size }
    }

    /// Samples one uniform pixel in each of `cells` x `cells` cells of every image. Cell i begins at floor(i length / cells),
    /// so that every pixel can be drawn.
    pub fn per_image(
        stream: Stream,
        images: usize,
        size: [usize; 2],
        cells: usize,
    ) -> Result<Self> {
        let edge = |direction: usize, cell: usize| cell * size[direction] / cells;
        let places = (0..images).flat_map(|image| {
            let stream = stream.child(image as u64);
            (0..cells * cells).flat_map(move |cell| {
                let place = |direction: usize, cell: usize, draw: usize| {
                    let start = edge(direction, cell);
                    (start + stream.below(draw as u64, edge(direction, cell + 1) - start)) as i64
                };
                [place(0, cell / cells, 2 * cell), place(1, cell % cells, 2 * cell + 1)]
            })
        });
        Self::from_places(&places.collect::<Vec<_>>(), images, size)
    }

    /// Samples one uniform pixel in each of `cells` x `cells` cells of floor(length / cells) pixels, the same for every image
    /// (`mask_generation` of the paper's code): the last length mod cells rows and columns are never drawn.
    pub fn shared(stream: Stream, images: usize, size: [usize; 2], cells: usize) -> Result<Self> {
        let place = |direction: usize, cell: usize, draw: usize| {
            let length = size[direction] / cells;
            (cell * length + stream.below(draw as u64, length)) as i64
        };
        let cell =
            |cell: usize| [place(0, cell / cells, 2 * cell), place(1, cell % cells, 2 * cell + 1)];
        let places: Vec<i64> = (0..cells * cells).flat_map(cell).collect();
        Self::from_places(&places.repeat(images), images, size)
    }

    /// Samples up to `most` uniform pixels of each class in each image's labels i64 `[images, height, width]`.
    pub fn balanced(stream: Stream, labels: &Tensor, classes: usize, most: usize) -> Result<Self> {
        let [images, height, width] = [0, 1, 2].map(|direction| labels.size()[direction] as usize);
        let mut ids = vec![0_u8; labels.numel()];
        let count = ids.len();
        labels
            .f_to_kind(Kind::Uint8)?
            .f_to_device(tch::Device::Cpu)?
            .f_contiguous()?
            .f_copy_data(&mut ids, count)?;
        let points = classes * most;
        let mut places = vec![0_i64; images * points * 2];
        let mut counted = vec![false; images * points];
        for (image, labels) in ids.chunks(height * width).enumerate() {
            let mut pixels: Vec<Vec<usize>> = vec![Vec::new(); classes];
            for (pixel, &label) in labels.iter().enumerate() {
                if let Some(pixels) = pixels.get_mut(usize::from(label)) {
                    pixels.push(pixel);
                }
            }
            for (class, pixels) in pixels.iter_mut().enumerate() {
                let stream = stream.child(image as u64).child(class as u64);
                for point in 0..most.min(pixels.len()) {
                    let drawn = point + stream.below(point as u64, pixels.len() - point);
                    pixels.swap(point, drawn);
                    let place = image * points + class * most + point;
                    (places[2 * place], places[2 * place + 1]) =
                        ((pixels[point] / width) as i64, (pixels[point] % width) as i64);
                    counted[place] = true;
                }
            }
        }
        let pixels = Self::from_places(&places, images, [height, width])?;
        Ok(Self {
            counted: Some(Tensor::f_from_slice(&counted)?.f_view([images as i64, -1])?),
            ..pixels
        })
    }

    /// Appends the points of other images, with as many points per image.
    pub fn concat(&self, others: &Self) -> Result<Self> {
        let places = Tensor::f_cat(&[&self.places, &others.places], 0)?;
        let counted = match (&self.counted, &others.counted) {
            (Some(first), Some(second)) => Some(Tensor::f_cat(&[first, second], 0)?),
            _ => None,
        };
        Ok(Self { places, counted, size: self.size })
    }

    fn from_places(places: &[i64], images: usize, size: [usize; 2]) -> Result<Self> {
        Ok(Self::new(Tensor::f_from_slice(places)?.f_view([images as i64, -1, 2])?, size))
    }

    /// Returns row and column of every point, i64 `[images, points, 2]`.
    pub fn places(&self) -> &Tensor {
        &self.places
    }

    /// Reads a map `[images, height, width]` at the points, `[images * points]`.
    pub fn read(&self, map: &Tensor) -> Result<Tensor> {
        let places = self.places.f_to_device(map.device())?;
        let flat = places
            .f_select(2, 0)?
            .f_mul_scalar(self.size[1] as i64)?
            .f_add(&places.f_select(2, 1)?)?;
        Ok(map.f_flatten(1, -1)?.f_gather(1, &flat, false)?.f_flatten(0, -1)?)
    }

    /// Reads labels at the points, `[images * points]`; [`IGNORE_INDEX`] at fillers.
    pub fn labels(&self, labels: &Tensor) -> Result<Tensor> {
        let read = self.read(labels)?;
        match &self.counted {
            Some(counted) => {
                let filling =
                    counted.f_to_device(labels.device())?.f_flatten(0, -1)?.f_logical_not()?;
                Ok(read.f_masked_fill(&filling, i64::from(IGNORE_INDEX))?)
            }
            None => Ok(read),
        }
    }

    /// Samples features `[images * points, channels]` from a map `[images, channels, h, w]` of lower resolution: the values
    /// of the upsampled map at the points, without computing that map.
    pub fn features(&self, map: &Tensor, align_corners: bool) -> Result<Tensor> {
        let places = self.places.f_to_kind(Kind::Float)?;
        let share = |direction: usize| -> Result<Tensor> {
            let places = places.f_select(2, direction as i64)?;
            let length = self.size[direction] as i64;
            Ok(if align_corners {
                places.f_div_scalar((length - 1).max(1))?
            } else {
                places.f_add_scalar(0.5)?.f_div_scalar(length)?
            })
        };
        // The sampler takes (x, y).
        let grid = Tensor::f_stack(&[share(1)?, share(0)?], 2)?
            .f_mul_scalar(2.0)?
            .f_sub_scalar(1.0)?
            .f_unsqueeze(1)?
            .f_to_device(map.device())?;
        let bilinear = 0;
        let border = 1;
        let sampled = map.f_grid_sampler_2d(&grid, bilinear, border, align_corners)?;
        Ok(sampled.f_squeeze_dim(2)?.f_permute([0, 2, 1])?.f_flatten(0, 1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::upsample;
    use tch::Device;

    fn places(pixels: &SampledPoints) -> Vec<i64> {
        Vec::try_from(pixels.places().flatten(0, -1)).unwrap()
    }

    #[test]
    fn every_cell_gives_one_pixel_and_every_pixel_can_be_drawn() {
        let mut seen = std::collections::HashSet::new();
        for seed in 0..400 {
            let drawn =
                places(&SampledPoints::per_image(Stream::keyed(&[seed]), 2, [11, 17], 4).unwrap());
            for (point, place) in drawn.chunks(2).enumerate() {
                let (row, column) = ((point % 16) / 4, point % 4);
                let edge = |length: usize, cell: usize| (cell * length / 4) as i64;
                assert!(
                    (edge(11, row)..edge(11, row + 1)).contains(&place[0])
                        && (edge(17, column)..edge(17, column + 1)).contains(&place[1])
                );
                seen.insert((place[0], place[1]));
            }
            assert_ne!(drawn[..32], drawn[32..], "both images have the same points");
        }
        assert_eq!(seen.len(), 11 * 17);
    }

    #[test]
    fn shared_points_are_the_same_for_all_images_and_omit_the_remainder() {
        let mut last = [0, 0];
        for seed in 0..200 {
            let size = [11, 17];
            let drawn = places(&SampledPoints::shared(Stream::keyed(&[seed]), 3, size, 4).unwrap());
            assert!(drawn[..32] == drawn[32..64] && drawn[..32] == drawn[64..]);
            for place in drawn.chunks(2) {
                last = [last[0].max(place[0]), last[1].max(place[1])];
            }
        }
        assert_eq!(last, [7, 15]);
    }

    #[test]
    fn balanced_points_are_distinct_and_of_their_class() {
        let labels: Vec<i64> =
            (0..2 * 64).map(|index| [0, 0, 0, 1, 255, 0, 3, 0][index % 8]).collect();
        let labels = Tensor::from_slice(&labels).view([2, 4, 16]);
        let pixels = SampledPoints::balanced(Stream::keyed(&[1]), &labels, 4, 10).unwrap();
        let found: Vec<i64> = Vec::try_from(pixels.labels(&labels).unwrap()).unwrap();
        for image in found.chunks(40) {
            let count = |class| image.iter().filter(|&&label| label == class).count();
            assert_eq!([0, 1, 2, 3, 255].map(count), [10, 8, 0, 8, 14]);
        }
        let drawn = places(&pixels);
        let first: std::collections::HashSet<&[i64]> = drawn.chunks(2).take(10).collect();
        assert_eq!(first.len(), 10);
    }

    #[test]
    fn features_are_those_of_the_upsampled_map() {
        let map: Vec<f32> =
            (0..2 * 3 * 9 * 9).map(|index| Stream::keyed(&[5]).signed_unit(index) as f32).collect();
        let map = Tensor::from_slice(&map).view([2, 3, 9, 9]);
        for (size, align_corners) in [([33_usize, 41], true), ([36, 27], false)] {
            let whole = upsample(&map, size.map(|side| side as i64), align_corners).unwrap();
            let pixels = SampledPoints::per_image(Stream::keyed(&[6]), 2, size, 5).unwrap();
            let found = pixels.features(&map, align_corners).unwrap();
            for channel in 0..3 {
                let expected = pixels.read(&whole.select(1, channel)).unwrap();
                let difference =
                    (found.select(1, channel) - expected).abs().max().double_value(&[]);
                assert!(difference < 1e-5, "{size:?} {difference}");
            }
        }
        let labels = Tensor::arange(2 * 36 * 30, (Kind::Int64, Device::Cpu)).view([2, 36, 30]);
        let pixels = SampledPoints::new(
            Tensor::from_slice(&[0_i64, 0, 3, 5, 35, 29, 1, 0]).view([2, 2, 2]),
            [36, 30],
        );
        let read: Vec<i64> = Vec::try_from(pixels.labels(&labels).unwrap()).unwrap();
        assert_eq!(read, [0, 3 * 30 + 5, 2 * 36 * 30 - 1, 36 * 30 + 30]);
    }
}
