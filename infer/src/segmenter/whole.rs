//! Pictures in one piece: which sizes a network takes, and what it gives for them.

use image::RgbImage;
use protoseg_images::label_map::LabelMap;
use protoseg_models::bundle::ModelFile;
use protoseg_models::window::{LogitGrid, MIN_SIDE};

use super::{SegmentError, Segmenter, size};
use crate::session::timed;
use crate::stitch::LogitMap;

/// Sizes of pictures that a network takes whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InputSizes {
    /// All but the smallest: networks of protoseg.
    Any,
    /// Those on a grid.
    Grid(LogitGrid),
    /// One, height and width.
    One([usize; 2]),
}

impl InputSizes {
    /// What a file of a bundle takes.
    pub(super) fn from_file(file: &ModelFile, grid: LogitGrid) -> Self {
        match &file.adapter {
            None => Self::Any,
            Some(adapter) => adapter.size.map_or(Self::Grid(grid), Self::One),
        }
    }

    /// The size to which a picture is padded.
    pub(super) fn padded(self, size: [usize; 2]) -> Result<[usize; 2], SegmentError> {
        match self {
            Self::Any => Ok(size.map(|side| side.max(MIN_SIDE))),
            Self::Grid(grid) => Ok(size.map(|side| grid.round_up(side.max(MIN_SIDE)))),
            Self::One(one) if one == size => Ok(size),
            Self::One(one) => {
                let [found, expected] =
                    [size, one].map(|[height, width]| format!("{height}x{width}"));
                Err(SegmentError::OneSize { found, expected })
            }
        }
    }
}

impl Segmenter {
    /// Class scores of a picture, and the size that they span.
    pub(super) fn whole(
        &mut self,
        picture: &RgbImage,
        size: [usize; 2],
    ) -> Result<(LogitMap, [usize; 2]), SegmentError> {
        let padded = self.sizes.padded(size)?;
        self.pad(picture, size, padded)?;
        let pixels = if padded == size { picture.as_raw() } else { &self.pixels };
        let scores = self
            .times
            .run(&mut self.runner, |runner| runner.run(pixels, [1, padded[0], padded[1]]))?;
        let classes = self.model.classes.count();
        match scores.shape[..] {
            [1, found, height, width] if found == classes && height * width > 0 => {
                Ok((LogitMap { classes, height, width, data: scores.data }, padded))
            }
            _ => Err(SegmentError::Shape { found: scores.shape, expected: [1, classes, 0, 0] }),
        }
    }

    /// Labels of a picture, of a model that gives no scores.
    pub(super) fn whole_labels(&mut self, picture: &RgbImage) -> Result<LabelMap, SegmentError> {
        let size = size(picture)?;
        let padded = self.sizes.padded(size)?;
        self.pad(picture, size, padded)?;
        let pixels = if padded == size { picture.as_raw() } else { &self.pixels };
        let (shape, classes) = ([1, padded[0], padded[1]], self.model.classes.count());
        let found =
            self.times.run(&mut self.runner, |runner| runner.run_labels(pixels, shape, classes))?;
        if !found.covers(padded) {
            return Err(SegmentError::Shape {
                found: found.shape,
                expected: [1, 1, padded[0], padded[1]],
            });
        }
        let [height, width] = size;
        let labels = timed(&mut self.times.stitch, || {
            let rows = found.data.chunks_exact(padded[1]).take(height);
            rows.flat_map(|row| &row[..width]).copied().collect()
        });
        Ok(LabelMap { height, width, labels })
    }

    /// Puts a padded picture into the buffer, if it needs padding.
    fn pad(
        &mut self,
        picture: &RgbImage,
        size: [usize; 2],
        padded: [usize; 2],
    ) -> Result<(), SegmentError> {
        if padded != size {
            self.copy_tiles(picture, &[[0, 0]], padded)?;
        }
        Ok(())
    }
}
