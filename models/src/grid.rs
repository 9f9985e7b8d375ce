//! How a network's logits lie over its pixels, and which windows fit that.

use serde::{Deserialize, Serialize};

use crate::arch::Arch;
use crate::window::Window;

/// Pixels along the side of the largest window that makes sense.
const MAX_WINDOW: usize = 8192;

/// How a network's logits lie over its pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "GridFields")]
pub struct LogitGrid {
    /// Pixels per logit step.
    pub stride: usize,
    /// Coarsest step inside the network; windows of half-pixel networks are multiples of it.
    pub encoder_stride: usize,
    /// Whether corner positions coincide with corner pixels; otherwise edges do.
    pub align_corners: bool,
}

/// What stands in a file, before it is checked.
#[derive(Deserialize)]
struct GridFields {
    stride: usize,
    encoder_stride: usize,
    align_corners: bool,
}

impl TryFrom<GridFields> for LogitGrid {
    type Error = String;

    fn try_from(
        GridFields { stride, encoder_stride, align_corners }: GridFields,
    ) -> Result<Self, String> {
        let sensible = (1..=64).contains(&stride)
            && encoder_stride.is_multiple_of(stride)
            && encoder_stride <= 1024;
        if !sensible || encoder_stride == 0 {
            return Err(format!(
                "logits of stride {stride} on an encoder of stride {encoder_stride} cannot be"
            ));
        }
        Ok(Self { stride, encoder_stride, align_corners })
    }
}

/// Windows that do not fit their network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// The size leaves the logits off the grid.
    #[error("windows of {size} pixels do not fit this network: {} or {} do", grid.round_down(*size), grid.round_down(*size) + grid.step())]
    Size {
        /// The size asked for.
        size: usize,
        /// The network's grid.
        grid: LogitGrid,
    },
    /// More pixels than a window can sensibly have.
    #[error("windows of {size} pixels are too large: at most {MAX_WINDOW} are possible")]
    TooLarge {
        /// The size asked for.
        size: usize,
    },
    /// A step off the grid, none at all, or one that leaves gaps.
    #[error(
        "a stride of {stride} pixels does not fit windows of {size}: it must be a multiple of {step}, at least {step} and at most the size"
    )]
    Stride {
        /// The stride asked for.
        stride: usize,
        /// Size of the windows.
        size: usize,
        /// The network's logit stride.
        step: usize,
    },
}

impl LogitGrid {
    /// The grid of a network.
    pub fn from_arch(arch: Arch) -> Self {
        Self {
            stride: arch.logit_stride(),
            encoder_stride: arch.preset().encoder_stride(),
            align_corners: arch.preset().align_corners(),
        }
    }

    /// The grid on which logits lie, each of whose counts stands beside the pixels that gave it. Networks that take only
    /// multiples of `multiple` pixels (with aligned corners, one more) get such; none where no stride fits all counts.
    pub fn from_measurements(
        counts: &[(usize, usize)],
        align_corners: bool,
        multiple: usize,
    ) -> Option<Self> {
        let strides = (1..=64).map(|stride| (stride, least_common_multiple(stride, multiple)));
        let grids =
            strides.map(|(stride, encoder_stride)| Self { stride, encoder_stride, align_corners });
        let mut grids = grids.filter(|grid| grid.encoder_stride <= 1024);
        grids.find(|grid| {
            let on_grid =
                |pixels: usize| pixels > 0 && (pixels - grid.offset()).is_multiple_of(grid.stride);
            counts.iter().all(|&(pixels, logits)| on_grid(pixels) && grid.logits(pixels) == logits)
        })
    }

    /// The least length of pixels that is no less than `pixels` and that the whole network is on the grid with: a multiple
    /// of the encoder's stride, with aligned corners one more.
    pub fn round_up(self, pixels: usize) -> usize {
        pixels.saturating_sub(self.offset()).next_multiple_of(self.encoder_stride) + self.offset()
    }

    /// Windows are `offset` modulo `step`.
    fn step(self) -> usize {
        if self.align_corners { self.stride } else { self.encoder_stride }
    }

    fn offset(self) -> usize {
        usize::from(self.align_corners)
    }

    /// The largest window size that fits and is no larger than `size`, but for sizes below the least one.
    pub fn round_down(self, size: usize) -> usize {
        (size.saturating_sub(self.offset()) / self.step()).max(1) * self.step() + self.offset()
    }

    /// Logits along a length of pixels that fits.
    pub fn logits(self, pixels: usize) -> usize {
        if self.align_corners { (pixels - 1) / self.stride + 1 } else { pixels / self.stride }
    }

    /// The windows that suit a network best, where nobody asked for others: about 768 pixels, two thirds apart.
    pub fn default_window(self) -> Window {
        Window { size: self.round_down(769), stride: 512 }
    }

    /// Whether windows fit.
    pub fn check(self, window: Window) -> Result<(), WindowError> {
        let Window { size, stride } = window;
        if size > MAX_WINDOW {
            return Err(WindowError::TooLarge { size });
        }
        if size == 0 || self.round_down(size) != size {
            return Err(WindowError::Size { size, grid: self });
        }
        if stride == 0 || stride % self.stride != 0 || stride > size {
            return Err(WindowError::Stride { stride, size, step: self.stride });
        }
        Ok(())
    }
}

fn least_common_multiple(a: usize, b: usize) -> usize {
    (1..=b).map(|factor| a * factor).find(|multiple| multiple % b == 0).unwrap_or(a * b)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALIGNED: LogitGrid = LogitGrid { stride: 4, encoder_stride: 8, align_corners: true };
    const HALF_PIXEL: LogitGrid = LogitGrid { stride: 4, encoder_stride: 16, align_corners: false };

    #[test]
    fn windows_off_the_grid_are_refused_with_those_that_fit() {
        let error = ALIGNED.check(Window { size: 768, stride: 512 }).unwrap_err();
        assert_eq!(
            error.to_string(),
            "windows of 768 pixels do not fit this network: 765 or 769 do"
        );
        assert!(HALF_PIXEL.check(Window { size: 769, stride: 512 }).is_err());
        for stride in [0, 513, 772] {
            assert!(matches!(
                ALIGNED.check(Window { size: 769, stride }),
                Err(WindowError::Stride { .. })
            ));
        }
        let huge = Window { size: 1 << 40, stride: 4 };
        assert_eq!(HALF_PIXEL.check(huge).unwrap_err(), WindowError::TooLarge { size: 1 << 40 });
        for grid in [
            r#"{"stride":0,"encoder_stride":8,"align_corners":true}"#,
            r#"{"stride":4,"encoder_stride":0,"align_corners":false}"#,
        ] {
            assert!(serde_json::from_str::<LogitGrid>(grid).is_err(), "{grid}");
        }
    }
    #[test]
    fn a_grid_follows_from_what_a_network_gave() {
        let derived = |counts: &[(usize, usize)], align_corners, multiple| {
            let grid = LogitGrid::from_measurements(counts, align_corners, multiple)?;
            Some((grid.stride, grid.encoder_stride))
        };
        assert_eq!(derived(&[(128, 32), (192, 48)], false, 32), Some((4, 32)));
        assert_eq!(derived(&[(128, 128), (192, 192)], false, 24), Some((1, 24)));
        assert_eq!(derived(&[(128, 16), (192, 24)], false, 12), Some((8, 24)));
        assert_eq!(derived(&[(129, 17), (193, 25)], true, 32), Some((8, 32)));
        assert_eq!(derived(&[(129, 129)], true, 1), Some((1, 1)));
        for counts in [
            [(128, 32), (192, 49)],
            [(128, 256), (192, 384)],
            [(128, 0), (192, 0)],
            [(0, 0), (0, 0)],
        ] {
            assert_eq!(derived(&counts, false, 32), None, "{counts:?}");
        }
        assert_eq!(derived(&[(100, 33)], false, 1), None);
        assert_eq!([1, 128, 129].map(|pixels| HALF_PIXEL.round_up(pixels)), [16, 128, 144]);
        assert_eq!([1, 128, 129, 130].map(|pixels| ALIGNED.round_up(pixels)), [1, 129, 129, 137]);
    }
}
