//! Sliding-window geometry, shared by evaluation in training, the frame graphs of export, and
//! inference.
//!
//! Window starts are multiples of the logit stride, so the logit grids of all windows of a frame
//! coincide: overlaps are blended at logit resolution and upsampled once. A frame is padded at the
//! bottom and right by edge replication until the last window, shifted inside, starts on the grid
//! too. A side that is shorter than a window gets windows of its own length, padded to the stride of
//! the logits alone: replicated edges that fill the rest of a window cost accuracy and time.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::arch::Arch;

/// Smallest height and width in pixels of an image that is run whole; smaller ones are padded.
pub const MIN_SIDE: usize = 32;

/// Largest window size in pixels.
const MAX_WINDOW: usize = 8192;

/// Size and stride of square windows in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Height and width.
    pub size: usize,
    /// Distance between neighbors; the last of a row or column may be nearer.
    pub stride: usize,
}

/// Division of images into windows: `whole`, or `SIZE:STRIDE` in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Tiling {
    /// Whole images of any size.
    Whole,
    /// Sliding windows.
    Windows(Window),
}

/// A text that is neither `whole` nor `SIZE:STRIDE`.
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
    fn from(tiling: Tiling) -> Self {
        tiling.to_string()
    }
}

impl From<Option<Window>> for Tiling {
    fn from(window: Option<Window>) -> Self {
        window.map_or(Self::Whole, Self::Windows)
    }
}

impl Tiling {
    /// Returns the windows; none for whole images.
    pub fn window(self) -> Option<Window> {
        match self {
            Self::Whole => None,
            Self::Windows(window) => Some(window),
        }
    }
}

/// Weighting of windows where they overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Blend {
    /// All windows count alike. Labels change at the windows' edges, where a network sees least.
    #[default]
    Mean,
    /// A window counts by the distance from its edge, along each side: 1 at the edge, one more for
    /// each logit towards the middle.
    Ramp,
}

impl Blend {
    /// True where all windows count alike.
    pub fn is_mean(&self) -> bool {
        *self == Self::Mean
    }

    /// Returns the weights of a window's logits along one side.
    fn weights(self, logits: usize) -> Vec<f32> {
        let weight = |index: usize| match self {
            Self::Mean => 1.0,
            Self::Ramp => (index + 1).min(logits - index) as f32,
        };
        (0..logits).map(weight).collect()
    }
}

/// Position of a network's logits over its pixels.
///
/// The `Debug` text is part of a model's fingerprint and must not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "GridFields")]
pub struct LogitGrid {
    /// Stride of the logits in pixels.
    pub stride: usize,
    /// Coarsest stride inside the network; windows of half-pixel networks are multiples of it.
    pub encoder_stride: usize,
    /// Aligns the centers of corner logits and corner pixels, otherwise their outer edges.
    pub align_corners: bool,
}

/// Unchecked fields of a file.
#[derive(Deserialize)]
struct GridFields {
    stride: usize,
    encoder_stride: usize,
    align_corners: bool,
}

impl TryFrom<GridFields> for LogitGrid {
    type Error = String;

    fn try_from(fields: GridFields) -> Result<Self, String> {
        let GridFields { stride, encoder_stride, align_corners } = fields;
        let valid = (1..=64).contains(&stride)
            && (1..=1024).contains(&encoder_stride)
            && encoder_stride.is_multiple_of(stride);
        if !valid {
            return Err(format!(
                "invalid grid: logits of stride {stride} on an encoder of stride {encoder_stride}"
            ));
        }
        Ok(Self { stride, encoder_stride, align_corners })
    }
}

/// A window that does not fit a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// A size off the grid.
    #[error("windows of {size} pixels do not fit this network: {smaller} or {larger} do")]
    Size {
        /// The size.
        size: usize,
        /// The largest size below that fits.
        smaller: usize,
        /// The smallest size above that fits.
        larger: usize,
    },
    /// A size above the maximum.
    #[error("windows of {0} pixels are too large: the maximum is {MAX_WINDOW}")]
    TooLarge(usize),
    /// A stride off the grid, of 0, or one that leaves gaps.
    #[error(
        "a stride of {stride} pixels does not fit windows of {size}: it must be a multiple of \
         {step}, at least {step} and at most the size"
    )]
    Stride {
        /// The stride.
        stride: usize,
        /// Size of the window.
        size: usize,
        /// Stride of the logits.
        step: usize,
    },
}

impl LogitGrid {
    /// Returns the grid of a network.
    pub fn from_arch(arch: Arch) -> Self {
        Self {
            stride: arch.logit_stride(),
            encoder_stride: arch.encoder_stride(),
            align_corners: arch.preset().align_corners(),
        }
    }

    /// Returns the grid that explains measured pairs (pixels, logits) along a side.
    ///
    /// Lengths are rounded to multiples of `multiple` pixels (with aligned corners, one more). None
    /// if no stride fits all pairs.
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

    /// Returns the smallest length of at least `pixels` on the grid of the whole network: a
    /// multiple of the encoder stride, with aligned corners one more.
    pub fn round_up(self, pixels: usize) -> usize {
        pixels.saturating_sub(self.offset()).next_multiple_of(self.encoder_stride) + self.offset()
    }

    /// Step between window sizes that fit; they are `offset` modulo `step`.
    fn step(self) -> usize {
        if self.align_corners { self.stride } else { self.encoder_stride }
    }

    fn offset(self) -> usize {
        usize::from(self.align_corners)
    }

    /// Returns the largest window size of at most `size` that fits, or the smallest that fits.
    pub fn round_down(self, size: usize) -> usize {
        (size.saturating_sub(self.offset()) / self.step()).max(1) * self.step() + self.offset()
    }

    /// Returns the number of logits along a length of pixels that fits.
    pub fn logits(self, pixels: usize) -> usize {
        if self.align_corners { (pixels - 1) / self.stride + 1 } else { pixels / self.stride }
    }

    /// Returns the default windows: about 768 pixels, two thirds apart.
    pub fn default_window(self) -> Window {
        Window { size: self.round_down(769), stride: 512 }
    }

    /// Checks that windows fit the network.
    pub fn check(self, window: Window) -> Result<(), WindowError> {
        let Window { size, stride } = window;
        if size > MAX_WINDOW {
            return Err(WindowError::TooLarge(size));
        }
        let smaller = self.round_down(size);
        if size == 0 || smaller != size {
            return Err(WindowError::Size { size, smaller, larger: smaller + self.step() });
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

/// Windows along one side of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowAxis {
    /// Length after padding, in pixels.
    pub padded: usize,
    /// Length of each window in pixels.
    pub size: usize,
    /// First pixel of each window, ascending.
    pub starts: Vec<usize>,
}

impl WindowAxis {
    /// Places windows that [`LogitGrid::check`] accepted over a length of pixels.
    fn new(length: usize, window: Window, grid: LogitGrid) -> Self {
        let beyond = length.saturating_sub(window.size).next_multiple_of(grid.stride);
        let count = beyond.div_ceil(window.stride) + 1;
        let starts = (0..count).map(|index| (index * window.stride).min(beyond)).collect();
        Self { padded: window.size + beyond, size: window.size, starts }
    }

    fn overlaps(&self) -> bool {
        self.starts.windows(2).any(|pair| pair[1] - pair[0] < self.size)
    }

    /// Shortens the window of a side that is shorter than it.
    fn shortened(length: usize, window: Window, grid: LogitGrid, sides: ShortSides) -> Self {
        let length_run = length.max(MIN_SIDE);
        let size = match sides {
            ShortSides::Window => window.size,
            ShortSides::Network => window.size.min(grid.round_up(length_run)),
            ShortSides::Logits => {
                let grid = LogitGrid { encoder_stride: grid.stride, ..grid };
                window.size.min(grid.round_up(length_run))
            }
        };
        Self::new(length, Window { size, ..window }, grid)
    }
}

/// Length to which a side is padded that is shorter than a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShortSides {
    /// The window's: the network takes no other size.
    Window,
    /// The next on the grid of the whole network.
    Network,
    /// The next on the grid of the logits: networks of protoseg.
    Logits,
}

/// All windows over a frame, row by row.
///
/// ```
/// use protoseg_models::arch::{Arch, Preset};
/// use protoseg_models::window::{Blend, LogitGrid, WindowPlan};
///
/// let grid = LogitGrid::from_arch(Arch::new(Preset::DeepLabV3PlusResNet101, 19)?);
/// let plan = WindowPlan::new([1024, 2048], grid.default_window(), grid, Blend::Ramp)?;
/// assert_eq!(plan.count(), 8);
/// assert_eq!(plan.starts().last(), Some([256, 1280])); // shifted inside the frame
/// assert_eq!(plan.logit_size(), [257, 513]); // of 1025 x 2049 pixels after padding
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowPlan {
    /// Windows along the height.
    pub rows: WindowAxis,
    /// Windows along the width.
    pub columns: WindowAxis,
    /// Grid of the network.
    pub grid: LogitGrid,
    /// Weighting of overlaps.
    pub blend: Blend,
}

impl WindowPlan {
    /// Places windows over a frame `[height, width]`; a side that is shorter than a window gets
    /// shorter windows.
    pub fn new(
        size: [usize; 2],
        window: Window,
        grid: LogitGrid,
        blend: Blend,
    ) -> Result<Self, WindowError> {
        Self::oblong(size, [window; 2], grid, blend, ShortSides::Logits)
    }

    /// The same with windows of one size and stride along the height and another along the width,
    /// and with a choice of short sides.
    pub fn oblong(
        [height, width]: [usize; 2],
        [down, across]: [Window; 2],
        grid: LogitGrid,
        blend: Blend,
        sides: ShortSides,
    ) -> Result<Self, WindowError> {
        grid.check(down)?;
        grid.check(across)?;
        let rows = WindowAxis::shortened(height, down, grid, sides);
        let columns = WindowAxis::shortened(width, across, grid, sides);
        Ok(Self { rows, columns, grid, blend })
    }

    /// Returns the number of windows.
    pub fn count(&self) -> usize {
        self.rows.starts.len() * self.columns.starts.len()
    }

    /// Returns the height and width of the frame after padding, in pixels.
    pub fn padded(&self) -> [usize; 2] {
        [self.rows.padded, self.columns.padded]
    }

    /// Returns the height and width of each window in pixels.
    pub fn tile_size(&self) -> [usize; 2] {
        [self.rows.size, self.columns.size]
    }

    /// Returns the height and width of each window's logits.
    pub fn tile_logits(&self) -> [usize; 2] {
        self.tile_size().map(|side| self.grid.logits(side))
    }

    /// Iterates over the first row and column of each window in pixels, row by row.
    pub fn starts(&self) -> impl Iterator<Item = [usize; 2]> + '_ {
        let rows = self.rows.starts.iter();
        rows.flat_map(|&top| self.columns.starts.iter().map(move |&left| [top, left]))
    }

    /// Returns the height and width of the frame's logit map.
    pub fn logit_size(&self) -> [usize; 2] {
        self.padded().map(|side| self.grid.logits(side))
    }

    /// Iterates over the first row and column of each window in the frame's logit map.
    pub fn logit_starts(&self) -> impl Iterator<Item = [usize; 2]> + '_ {
        self.starts().map(|start| start.map(|pixel| pixel / self.grid.stride))
    }

    /// Returns the weights of a window's logits, of its rows and of its columns; the product of the
    /// two is the weight of a logit. All are 1 where nothing overlaps.
    pub fn weights(&self) -> [Vec<f32>; 2] {
        [&self.rows, &self.columns].map(|axis| {
            let blend = if axis.overlaps() { self.blend } else { Blend::Mean };
            blend.weights(self.grid.logits(axis.size))
        })
    }

    /// Returns the sum of weights over each logit row and column of the frame; the product of the
    /// two is the sum over a position.
    pub fn weight_sums(&self) -> [Vec<f32>; 2] {
        let [down, across] = self.weights();
        let sums = |axis: &WindowAxis, weights: &[f32]| {
            let mut sums = vec![0.0; self.grid.logits(axis.padded)];
            for start in &axis.starts {
                for (sum, weight) in sums[start / self.grid.stride..].iter_mut().zip(weights) {
                    *sum += weight;
                }
            }
            sums
        };
        [sums(&self.rows, &down), sums(&self.columns, &across)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALIGNED: LogitGrid = LogitGrid { stride: 4, encoder_stride: 8, align_corners: true };
    const HALF_PIXEL: LogitGrid = LogitGrid { stride: 4, encoder_stride: 16, align_corners: false };

    #[test]
    fn cityscapes_frames_get_eight_windows() {
        let plan =
            WindowPlan::new([1024, 2048], ALIGNED.default_window(), ALIGNED, Blend::Mean).unwrap();
        assert_eq!((plan.rows.padded, plan.rows.starts.as_slice()), (1025, [0, 256].as_slice()));
        assert_eq!(
            (plan.columns.padded, plan.columns.starts.as_slice()),
            (2049, [0, 512, 1024, 1280].as_slice())
        );
        assert_eq!(plan.logit_size(), [257, 513]);
        let plan =
            WindowPlan::new([1024, 2048], HALF_PIXEL.default_window(), HALF_PIXEL, Blend::Mean)
                .unwrap();
        assert_eq!((plan.rows.padded, plan.columns.padded, plan.count()), (1024, 2048, 8));
        assert_eq!(plan.logit_size(), [256, 512]);
    }

    #[test]
    fn weights_of_every_length_equal_a_brute_force_sum() {
        for (grid, window) in [
            (ALIGNED, Window { size: 33, stride: 20 }),
            (ALIGNED, Window { size: 65, stride: 64 }),
            (HALF_PIXEL, Window { size: 48, stride: 32 }),
            (HALF_PIXEL, Window { size: 64, stride: 64 }),
        ] {
            grid.check(window).unwrap();
            for length in 1..=2 * window.size + grid.stride {
                for blend in [Blend::Mean, Blend::Ramp] {
                    for sides in [ShortSides::Window, ShortSides::Network] {
                        let plan = WindowPlan::oblong([length, 1], [window; 2], grid, blend, sides);
                        check_weights(&plan.unwrap(), length, window);
                    }
                    let plan = WindowPlan::new([length, 100], window, grid, blend).unwrap();
                    check_weights(&plan, length, window);
                }
            }
        }
    }

    fn check_weights(plan: &WindowPlan, length: usize, window: Window) {
        let (grid, WindowAxis { padded, size, starts }) = (plan.grid, &plan.rows);
        assert!(
            *padded >= length && *padded < length.max(*size) + grid.stride,
            "{length}: {padded}"
        );
        assert!(*size == window.size || (*size < window.size && starts == &[0]));
        assert_eq!(size % grid.stride, usize::from(grid.align_corners));
        // Logit g of a window lies at pixel start + 4 g of the frame.
        let logits = grid.logits(*size);
        let ramp = plan.blend == Blend::Ramp
            && starts.iter().zip(&starts[1..]).any(|(one, next)| next - one < *size);
        let mut sums = vec![0.0; plan.logit_size()[0]];
        for start in starts {
            assert_eq!(start % grid.stride, 0);
            assert!(start + size <= *padded);
            for step in 0..logits {
                let from_edge = if step < logits / 2 { step } else { logits - 1 - step };
                let weight = if ramp { 1.0 + from_edge as f32 } else { 1.0 };
                sums[(start + step * grid.stride) / grid.stride] += weight;
            }
        }
        assert_eq!(plan.weight_sums()[0], sums, "length {length}");
        assert!(sums.iter().all(|&sum| sum > 0.0), "length {length} leaves gaps");
        let steps = starts.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(steps.into_iter().all(|step| step > 0 && step <= window.stride));
    }

    #[test]
    fn a_side_shorter_than_a_window_is_padded_to_the_stride_alone() {
        let window = Window { size: 512, stride: 384 };
        let plan = |size, sides| {
            WindowPlan::oblong(size, [window; 2], HALF_PIXEL, Blend::Ramp, sides).unwrap()
        };
        let tile_size = |size| plan(size, ShortSides::Logits).tile_size();
        assert_eq!(tile_size([180, 239]), [180, 240]);
        assert_eq!(tile_size([5, 1000]), [32, 512]);
        assert_eq!(tile_size([510, 512]), [512, 512]);
        let wide = plan([201, 768], ShortSides::Logits);
        assert_eq!((wide.padded(), wide.tile_size(), wide.count()), ([204, 768], [204, 512], 2));
        assert_eq!(plan([180, 240], ShortSides::Network).tile_size(), [192, 240]);
        let fixed = plan([180, 240], ShortSides::Window);
        assert_eq!((fixed.tile_size(), fixed.count()), ([512, 512], 1));
        let aligned = WindowPlan::new([180, 800], ALIGNED.default_window(), ALIGNED, Blend::Mean);
        assert_eq!(aligned.unwrap().tile_size(), [181, 769]);
    }

    #[test]
    fn tilings_are_parsed_and_printed() {
        assert_eq!("whole".parse(), Ok(Tiling::Whole));
        assert_eq!("768:512".parse(), Ok(Tiling::Windows(Window { size: 768, stride: 512 })));
        assert_eq!(Tiling::from(Some(Window { size: 9, stride: 4 })).to_string(), "9:4");
        for text in ["", "768", "768:", "a:b", "-1:2", "Whole"] {
            assert_eq!(text.parse::<Tiling>(), Err(ParseTilingError), "{text}");
        }
    }

    #[test]
    fn windows_off_the_grid_are_refused_and_fitting_ones_named() {
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
        assert_eq!(HALF_PIXEL.check(huge).unwrap_err(), WindowError::TooLarge(1 << 40));
        for grid in [
            r#"{"stride":0,"encoder_stride":8,"align_corners":true}"#,
            r#"{"stride":4,"encoder_stride":0,"align_corners":false}"#,
        ] {
            assert!(serde_json::from_str::<LogitGrid>(grid).is_err(), "{grid}");
        }
    }

    #[test]
    fn a_grid_follows_from_measurements() {
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
