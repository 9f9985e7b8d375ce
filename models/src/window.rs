//! Where sliding windows lie. Evaluation in training, the frame graph of export and inference all ask here.
//!
//! Window starts are multiples of the logit stride, so the logit grids of all windows of a frame coincide: overlaps are
//! averaged at logit resolution and upsampled once. A frame is padded at the bottom and right by edge replication until
//! the last window, shifted inside, starts on the grid too.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use crate::grid::{LogitGrid, WindowError};

/// Least height and width, in pixels, of a picture that is run whole; smaller ones are padded to it.
pub const MIN_SIDE: usize = 32;

/// Side and step of square windows, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Height and width of a window.
    pub size: usize,
    /// Distance of neighbouring windows; the last of a row or column may be nearer.
    pub stride: usize,
}

/// In which pieces pictures are run: `whole`, or `SIZE:STRIDE` in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Tiling {
    /// Whole, whatever the size.
    Whole,
    /// In sliding windows.
    Windows(Window),
}

/// Neither `whole` nor `SIZE:STRIDE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write `whole`, or SIZE:STRIDE in pixels such as 768:512")]
pub struct ParseTilingError;

impl FromStr for Tiling {
    type Err = ParseTilingError;

    fn from_str(text: &str) -> Result<Self, ParseTilingError> {
        if text == "whole" {
            return Ok(Self::Whole);
        }
        let (size, stride) = text.split_once(':').ok_or(ParseTilingError)?;
        let number = |text: &str| text.parse().map_err(|_| ParseTilingError);
        Ok(Self::Windows(Window { size: number(size)?, stride: number(stride)? }))
    }
}

impl fmt::Display for Tiling {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => formatter.write_str("whole"),
            Self::Windows(Window { size, stride }) => write!(formatter, "{size}:{stride}"),
        }
    }
}

impl TryFrom<String> for Tiling {
    type Error = ParseTilingError;

    fn try_from(text: String) -> Result<Self, ParseTilingError> {
        text.parse()
    }
}

impl From<Tiling> for String {
    fn from(pieces: Tiling) -> Self {
        pieces.to_string()
    }
}

impl From<Option<Window>> for Tiling {
    fn from(window: Option<Window>) -> Self {
        window.map_or(Self::Whole, Self::Windows)
    }
}

impl Tiling {
    /// The windows; none where pictures are run whole.
    pub fn window(self) -> Option<Window> {
        match self {
            Self::Whole => None,
            Self::Windows(window) => Some(window),
        }
    }
}

/// Windows along one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowAxis {
    /// Pixels after padding.
    pub padded: usize,
    /// First pixel of each window, ascending.
    pub starts: Vec<usize>,
}

impl WindowAxis {
    /// The windows over a length of pixels, for windows that [`LogitGrid::check`] accepted.
    pub fn new(length: usize, window: Window, grid: LogitGrid) -> Self {
        let beyond = length.saturating_sub(window.size).next_multiple_of(grid.stride);
        let count = beyond.div_ceil(window.stride) + 1;
        let starts = (0..count).map(|index| (index * window.stride).min(beyond)).collect();
        Self { padded: window.size + beyond, starts }
    }
}

/// All windows over a frame, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowPlan {
    /// Down the frame.
    pub rows: WindowAxis,
    /// Across the frame.
    pub columns: WindowAxis,
    /// Side and step.
    pub window: Window,
    /// The network's grid.
    pub grid: LogitGrid,
}

impl WindowPlan {
    /// The windows over a frame.
    pub fn new(
        height: usize,
        width: usize,
        window: Window,
        grid: LogitGrid,
    ) -> Result<Self, WindowError> {
        grid.check(window)?;
        let (rows, columns) =
            (WindowAxis::new(height, window, grid), WindowAxis::new(width, window, grid));
        Ok(Self { rows, columns, window, grid })
    }

    /// How many windows.
    pub fn count(&self) -> usize {
        self.rows.starts.len() * self.columns.starts.len()
    }

    /// First row and first column of each window in pixels, row by row.
    pub fn starts(&self) -> impl Iterator<Item = [usize; 2]> + '_ {
        self.rows
            .starts
            .iter()
            .flat_map(|&top| self.columns.starts.iter().map(move |&left| [top, left]))
    }

    /// Height and width of the frame's logit map, `[H, W]` in logit steps.
    pub fn logit_size(&self) -> [usize; 2] {
        [self.grid.logits(self.rows.padded), self.grid.logits(self.columns.padded)]
    }

    /// Side of a window's logit map.
    pub fn window_logits(&self) -> usize {
        self.grid.logits(self.window.size)
    }

    /// First row and first column of each window in the frame's logit map, row by row.
    pub fn logit_starts(&self) -> impl Iterator<Item = [usize; 2]> + '_ {
        self.starts().map(|start| start.map(|pixel| pixel / self.grid.stride))
    }

    /// Windows that cover each logit row and column; a position is covered by the product of its two.
    pub fn coverage(&self) -> [Vec<usize>; 2] {
        let [height, width] = self.logit_size();
        let count = |axis: &WindowAxis, length: usize| {
            let mut cover = vec![0; length];
            for start in &axis.starts {
                for covered in &mut cover[start / self.grid.stride..][..self.window_logits()] {
                    *covered += 1;
                }
            }
            cover
        };
        [count(&self.rows, height), count(&self.columns, width)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALIGNED: LogitGrid = LogitGrid { stride: 4, encoder_stride: 8, align_corners: true };
    const HALF_PIXEL: LogitGrid = LogitGrid { stride: 4, encoder_stride: 16, align_corners: false };

    #[test]
    fn cityscapes_frames_get_eight_windows() {
        let plan = WindowPlan::new(1024, 2048, ALIGNED.default_window(), ALIGNED).unwrap();
        assert_eq!((plan.rows.padded, plan.rows.starts.as_slice()), (1025, [0, 256].as_slice()));
        assert_eq!(
            (plan.columns.padded, plan.columns.starts.as_slice()),
            (2049, [0, 512, 1024, 1280].as_slice())
        );
        assert_eq!(plan.logit_size(), [257, 513]);
        let plan = WindowPlan::new(1024, 2048, HALF_PIXEL.default_window(), HALF_PIXEL).unwrap();
        assert_eq!((plan.rows.padded, plan.columns.padded, plan.count()), (1024, 2048, 8));
        assert_eq!(plan.logit_size(), [256, 512]);
    }

    #[test]
    fn every_length_is_covered_on_the_grid_as_a_brute_force_stitch_sees_it() {
        for (grid, window) in [
            (ALIGNED, Window { size: 33, stride: 20 }),
            (ALIGNED, Window { size: 65, stride: 64 }),
            (HALF_PIXEL, Window { size: 48, stride: 32 }),
            (HALF_PIXEL, Window { size: 64, stride: 64 }),
        ] {
            grid.check(window).unwrap();
            for length in 1..=2 * window.size + grid.stride {
                let plan = WindowPlan::new(length, 1, window, grid).unwrap();
                let WindowAxis { padded, starts } = &plan.rows;
                assert!(
                    *padded >= length && *padded < length.max(window.size) + grid.stride,
                    "{length}: {padded}"
                );
                // A window sees logit step g of itself at pixel start + 4 g: mark them all one by one.
                let mut seen = vec![0; plan.logit_size()[0]];
                for start in starts {
                    assert_eq!(start % grid.stride, 0);
                    assert!(start + window.size <= *padded);
                    for step in 0..grid.logits(window.size) {
                        seen[(start + step * grid.stride) / grid.stride] += 1;
                    }
                }
                assert_eq!(plan.coverage()[0], seen, "length {length}");
                assert!(seen.iter().all(|&count| count > 0), "length {length} leaves gaps");
                assert!(
                    starts
                        .windows(2)
                        .all(|pair| pair[0] < pair[1] && pair[1] - pair[0] <= window.stride)
                );
            }
        }
    }

    #[test]
    fn pieces_are_read_as_they_are_typed() {
        assert_eq!("whole".parse(), Ok(Tiling::Whole));
        assert_eq!("768:512".parse(), Ok(Tiling::Windows(Window { size: 768, stride: 512 })));
        assert_eq!(Tiling::from(Some(Window { size: 9, stride: 4 })).to_string(), "9:4");
        for text in ["", "768", "768:", "a:b", "-1:2", "Whole"] {
            assert_eq!(text.parse::<Tiling>(), Err(ParseTilingError), "{text}");
        }
    }
}
