//! Sizes of images that a network takes, and how others get one of them.

use protoseg_models::bundle::ModelFile;
use protoseg_models::interface::Fit;
use protoseg_models::scaling::Scaling;
use protoseg_models::variant::ModelKind;
use protoseg_models::window::{LogitGrid, MIN_SIDE, ShortSides};

use super::{SegmentError, fit};
use crate::upsample::Placement;

/// Most pixels of a scaled image that is larger than the image itself: thin images with a longer
/// shorter side grow without end.
const MOST_SCALED: usize = 1 << 28;

/// Sizes of images that a network takes whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InputSizes {
    /// All from [`MIN_SIDE`] on: networks of protoseg.
    Any,
    /// Multiples of the grid's stride.
    Grid(LogitGrid),
    /// The same, with a fixed height or width.
    Sides(LogitGrid, [Option<usize>; 2], OtherWay),
    /// `[height, width]`.
    One([usize; 2]),
    /// `[height, width]`, which images are fitted to.
    Fitted(Fit, [usize; 2], OtherWay),
    /// Images are scaled, and filled up to multiples of the grid's stride.
    Scaled(Scaling, LogitGrid),
}

/// Ways of images that a file does not take as it was imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OtherWay {
    /// Windows, or images that are scaled.
    Windows,
    /// Images that are scaled: outputs of windows could not be joined.
    Scaling,
}

impl InputSizes {
    pub(super) fn from_file(file: &ModelFile, grid: LogitGrid) -> Self {
        let Some(adapter) = &file.adapter else { return Self::Any };
        let interface = &adapter.interface;
        let other = if file.variant.kind == ModelKind::Labels || interface.covers {
            OtherWay::Scaling
        } else {
            OtherWay::Windows
        };
        match (adapter.size, interface.fit) {
            (Some(size), Fit::Window) => Self::One(size),
            (Some(size), fit) => Self::Fitted(fit, size, other),
            (None, Fit::Scale(scaling)) => Self::Scaled(scaling, grid),
            (None, _) if interface.sides != [None; 2] => Self::Sides(grid, interface.sides, other),
            (None, _) => Self::Grid(grid),
        }
    }

    /// Returns how a side that is shorter than a window is padded, for sessions of one size or of
    /// any.
    pub(super) fn short_sides(self, one_size: bool) -> ShortSides {
        match self {
            Self::Any if !one_size => ShortSides::Logits,
            Self::Grid(_) | Self::Scaled(..) if !one_size => ShortSides::Network,
            _ => ShortSides::Window,
        }
    }

    /// Says in which size images are run, height first; `whole` for those that keep theirs.
    pub(super) fn describe(self) -> String {
        match self {
            Self::Any | Self::Grid(_) | Self::Sides(..) | Self::One(_) => "whole".to_owned(),
            Self::Fitted(fit, [height, width], _) => {
                let way = match fit {
                    Fit::Resize => "resized to",
                    Fit::Letterbox => "scaled between bars to",
                    Fit::Pad => "padded to",
                    // Neither has one size.
                    Fit::Window | Fit::Scale(_) => "in",
                };
                format!("{way} {height}x{width} (height x width)")
            }
            Self::Scaled(scaling, _) => format!("scaled {scaling}"),
        }
    }

    /// Returns the size to which an image is padded or scaled.
    pub(super) fn padded(self, size: [usize; 2]) -> Result<[usize; 2], SegmentError> {
        let refused = |expected: String, way: String| {
            let [height, width] = size;
            Err(SegmentError::OneSize { found: format!("{height}x{width}"), expected, way })
        };
        let round_up =
            |size: [usize; 2], grid: LogitGrid| size.map(|side| grid.round_up(side.max(MIN_SIDE)));
        let rounded = |grid: LogitGrid| round_up(size, grid);
        match self {
            Self::Any => Ok(size.map(|side| side.max(MIN_SIDE))),
            Self::Grid(grid) => Ok(rounded(grid)),
            Self::Scaled(scaling, grid) => {
                let scaled @ [height, width] = scaling.scaled(size);
                let own = size[0].saturating_mul(size[1]);
                if height.checked_mul(width).is_none_or(|all| all > own.max(MOST_SCALED)) {
                    return Err(SegmentError::Scaled { size, scaled });
                }
                Ok(round_up(scaled, grid))
            }
            Self::Sides(grid, sides, other) => {
                let fits = |(side, fixed): (&usize, &Option<usize>)| {
                    fixed.is_none_or(|fixed| fixed == *side)
                };
                if !size.iter().zip(&sides).all(fits) {
                    let side = |side: Option<usize>| {
                        side.map_or("any".to_owned(), |side| side.to_string())
                    };
                    let to_name = |index: usize, name: &str| {
                        sides[index].map_or(name.to_owned(), |side| side.to_string())
                    };
                    let windows = match other {
                        OtherWay::Windows => "--fit window, or with ",
                        OtherWay::Scaling => "",
                    };
                    let (height, width) = (to_name(0, "HEIGHT"), to_name(1, "WIDTH"));
                    return refused(
                        sides.map(side).join(" x "),
                        format!(
                            "; import it again with {windows}--fit resize --size {height}x{width}, for others"
                        ),
                    );
                }
                let [height, width] = rounded(grid);
                Ok([sides[0].unwrap_or(height), sides[1].unwrap_or(width)])
            }
            Self::One(one) if one == size => Ok(size),
            Self::Fitted(Fit::Pad, [height, width], other)
                if size[0] > height || size[1] > width =>
            {
                let ways = match other {
                    OtherWay::Windows => "resize, letterbox or window",
                    OtherWay::Scaling => "resize or letterbox",
                };
                refused(
                    format!("at most {height}x{width}"),
                    format!("; import it again with --fit {ways} for larger images"),
                )
            }
            Self::Fitted(_, size, _) => Ok(size),
            Self::One([height, width]) => refused(
                format!("{height}x{width}"),
                "; import it again with --fit resize or letterbox for others".to_owned(),
            ),
        }
    }

    /// Checks that the network takes tiles `[height, width]`.
    pub(super) fn check_tile(self, tile: [usize; 2]) -> Result<(), SegmentError> {
        let sizes = match self {
            Self::Fitted(_, size, _) => Self::One(size),
            Self::Scaled(_, grid) => Self::Grid(grid),
            other => other,
        };
        sizes.padded(tile).map(drop).map_err(|error| match error {
            SegmentError::OneSize { found, expected, .. } => {
                SegmentError::OneSize { found, expected, way: String::new() }
            }
            other => other,
        })
    }

    /// Returns the place of a scaled image on what the network sees; None for images at their own
    /// scale in the top left corner. With `corner`, letterboxes have the image there too.
    pub(super) fn placement(
        self,
        size: [usize; 2],
        corner: bool,
    ) -> Result<Option<Placement>, SegmentError> {
        let padded = self.padded(size)?;
        Ok(match self {
            Self::Fitted(how, canvas, _) => fit::placement(how, size, canvas, corner),
            Self::Scaled(scaling, _) => fit::placement(Fit::Scale(scaling), size, padded, corner),
            _ => None,
        })
    }

    /// Returns a size that the network takes: its only one, or the given.
    pub(super) fn usual(self, size: [usize; 2]) -> [usize; 2] {
        match self {
            Self::One(size) | Self::Fitted(_, size, _) => size,
            Self::Sides(_, sides, _) => [sides[0].unwrap_or(size[0]), sides[1].unwrap_or(size[1])],
            Self::Any | Self::Grid(_) | Self::Scaled(..) => size,
        }
    }
}
