//! CutMix over the images of a micro-batch (Yun et al., 2019), with the boxes of U2PL's `augmentation.py`.

use anyhow::{Result, ensure};
use protoseg_models::random::Stream;
use tch::Tensor;

/// A rectangle of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutBox {
    pub top: usize,
    pub left: usize,
    pub height: usize,
    pub width: usize,
}

/// For each image of a micro-batch, the box that it takes from the next one, cyclically; empty where nothing is mixed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutMixBoxes(Vec<CutBox>);

impl CutMixBoxes {
    /// Decides with probability `chance` to mix the micro-batch, and draws a box of half the area for each of `count` images
    /// of height and width `size`.
    pub fn sample(stream: Stream, chance: f64, count: usize, size: [usize; 2]) -> Result<Self> {
        if stream.unit(0) >= chance {
            return Ok(Self(Vec::new()));
        }
        ensure!(
            count >= 2,
            "CutMix needs at least 2 images per micro-batch: raise `batch`, or set `cutmix = 0`"
        );
        let draw = |index: usize| {
            let stream = stream.child(index as u64 + 1);
            let least = size[1] / 2 + 1;
            let width = least + stream.below(0, size[1] - least);
            let height = ((size[0] * size[1]) as f64 / 2.0 / width as f64).round() as usize;
            let left = stream.below(1, size[1] - width + 1);
            let top = stream.below(2, size[0] - height + 1);
            CutBox { top, left, height, width }
        };
        Ok(Self((0..count).map(draw).collect()))
    }

    pub fn boxes(&self) -> &[CutBox] {
        &self.0
    }

    /// Moves every edge to the nearest multiple of `cell` pixels.
    #[must_use]
    pub fn on_grid(self, cell: usize) -> Self {
        let nearest = |place: usize| (place + cell / 2) / cell * cell;
        let moved = |CutBox { top, left, height, width }: CutBox| {
            let [start, end] =
                [[top, left], [top + height, left + width]].map(|edges| edges.map(nearest));
            CutBox {
                top: start[0],
                left: start[1],
                height: end[0] - start[0],
                width: end[1] - start[1],
            }
        };
        Self(self.0.into_iter().map(moved).collect())
    }

    /// Mixes maps `[images, channels, height, width]` that cover images of height and width `size`
    /// in whole cells of the boxes' grid.
    pub fn mix_maps(&self, maps: &Tensor, size: [usize; 2]) -> Result<Tensor> {
        let shape = maps.size();
        let scale = |pixels: usize, direction: usize| {
            pixels * shape[2 + direction] as usize / size[direction]
        };
        let scaled = |place: &CutBox| CutBox {
            top: scale(place.top, 0),
            left: scale(place.left, 1),
            height: scale(place.height, 0),
            width: scale(place.width, 1),
        };
        let scaled = Self(self.0.iter().map(scaled).collect());
        Ok(scaled.mix(&maps.f_permute([0, 2, 3, 1])?)?.f_permute([0, 3, 1, 2])?)
    }

    /// Mixes maps `[images, height, width, …]`.
    pub fn mix(&self, maps: &Tensor) -> Result<Tensor> {
        if self.0.is_empty() {
            return Ok(maps.shallow_clone());
        }
        let mixed = maps.f_detach_copy()?;
        let cut = |maps: &Tensor, index: usize, cut: &CutBox| -> Result<Tensor> {
            let rows =
                maps.f_select(0, index as i64)?.f_narrow(0, cut.top as i64, cut.height as i64)?;
            Ok(rows.f_narrow(1, cut.left as i64, cut.width as i64)?)
        };
        for (index, place) in self.0.iter().enumerate() {
            cut(&mixed, index, place)?.f_copy_(&cut(maps, (index + 1) % self.0.len(), place)?)?;
        }
        Ok(mixed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    #[test]
    fn mixed_pixels_come_from_the_box_of_the_next_image() {
        let (count, [height, width]) = (3, [8, 10]);
        let maps =
            Tensor::arange((count * height * width * 2) as i64, (Kind::Int64, tch::Device::Cpu));
        let maps = maps.reshape([count as i64, height as i64, width as i64, 2]);
        let boxes = CutMixBoxes::sample(Stream::keyed(&[4]), 1.0, count, [height, width]).unwrap();
        let mixed = boxes.mix(&maps).unwrap();
        for (index, place) in boxes.boxes().iter().enumerate() {
            for (row, column, channel) in
                (0..height).flat_map(|row| (0..width).map(move |column| (row, column, column % 2)))
            {
                let inside = (place.top..place.top + place.height).contains(&row)
                    && (place.left..place.left + place.width).contains(&column);
                let source = if inside { (index + 1) % count } else { index };
                let expected = ((source * height + row) * width + column) * 2 + channel;
                let found =
                    mixed.int64_value(&[index as i64, row as i64, column as i64, channel as i64]);
                assert_eq!(found, expected as i64);
            }
        }
        assert_eq!(maps.int64_value(&[0, 0, 1, 0]), 2, "the unmixed maps have changed");
    }

    #[test]
    fn maps_of_a_grid_are_mixed_as_the_pixels_that_they_cover() {
        let (size, cell) = ([32, 48], 8);
        for seed in 0..40 {
            let boxes = CutMixBoxes::sample(Stream::keyed(&[seed]), 1.0, 2, size).unwrap();
            let boxes = boxes.on_grid(cell);
            let coarse = Tensor::arange(2 * 3 * 4 * 6, (Kind::Float, tch::Device::Cpu));
            let coarse = coarse.reshape([2, 3, 4, 6]);
            let fine = coarse.upsample_nearest2d([32, 48], None, None).permute([0, 2, 3, 1]);
            let expected = boxes.mix(&fine).unwrap().permute([0, 3, 1, 2]);
            let mixed = boxes.mix_maps(&coarse, size).unwrap();
            assert_ne!(mixed, coarse);
            assert_eq!(mixed.upsample_nearest2d([32, 48], None, None), expected);
        }
    }

    #[test]
    fn boxes_have_half_the_area_and_any_position() {
        let [rows, columns] = [80, 64];
        let mut lefts = Vec::new();
        for seed in 0..300 {
            let drawn =
                CutMixBoxes::sample(Stream::keyed(&[seed]), 1.0, 2, [rows, columns]).unwrap();
            for place in drawn.boxes() {
                assert!((33..64).contains(&place.width) && place.left + place.width <= columns);
                assert!(place.top + place.height <= rows);
                let area = place.height * place.width;
                assert!(area.abs_diff(rows * columns / 2) <= place.width / 2);
                lefts.push(place.left);
            }
        }
        assert!(lefts.contains(&0) && lefts.iter().any(|&left| left > 25));
    }

    #[test]
    fn micro_batches_are_mixed_with_the_given_probability_and_one_image_is_refused() {
        let mixed = |chance, seed| {
            !CutMixBoxes::sample(Stream::keyed(&[seed]), chance, 2, [32; 2])
                .unwrap()
                .boxes()
                .is_empty()
        };
        let heads = (0..1000).filter(|&seed| mixed(0.5, seed)).count();
        assert!((430..570).contains(&heads), "{heads}");
        assert!((0..100).all(|seed| mixed(1.0, seed) && !mixed(0.0, seed)));
        let error = CutMixBoxes::sample(Stream::keyed(&[1]), 1.0, 1, [32; 2]).unwrap_err();
        assert!(error.to_string().contains("`cutmix = 0`"));
    }
}
