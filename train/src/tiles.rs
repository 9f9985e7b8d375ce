//! Parts of images of bounded size, for everything but the training steps.
//!
//! The values of a network take hundreds of bytes a pixel, so an image of a camera would need gigabytes at once.

use protoseg_models::window::{Blend, LogitGrid, MIN_SIDE, Window, WindowError, WindowPlan};

/// Largest image in pixels that calibration and the first prototypes process whole.
pub const WHOLE_PIXELS: usize = 1 << 20;

/// Returns the tiles of an image of more than [`WHOLE_PIXELS`] pixels: the windows given, or the network's default ones; also
/// of an image with a side below [`MIN_SIDE`], which its tile pads. None for images that are processed whole.
pub fn plan(
    [height, width]: [usize; 2],
    window: Option<Window>,
    grid: LogitGrid,
) -> Result<Option<WindowPlan>, WindowError> {
    if height * width <= WHOLE_PIXELS && height.min(width) >= MIN_SIDE {
        return Ok(None);
    }
    let window = window.unwrap_or_else(|| grid.default_window());
    // Nothing is averaged here, so the weights of overlaps do not matter.
    WindowPlan::new([height, width], window, grid, Blend::Mean).map(Some)
}

/// Copies the tile `[rows, columns]` at a row and column out of RGB `[height, width, 3]`; beyond the image, its last row and
/// column are repeated.
pub fn cut(
    pixels: &[u8],
    [height, width]: [usize; 2],
    [top, left]: [usize; 2],
    [rows, columns]: [usize; 2],
) -> Vec<u8> {
    let inside = width.saturating_sub(left).min(columns);
    let mut tile = Vec::with_capacity(rows * columns * 3);
    for row in top..top + rows {
        let row = row.min(height - 1) * width;
        tile.extend_from_slice(&pixels[(row + left) * 3..][..inside * 3]);
        for _ in inside..columns {
            tile.extend_from_slice(&pixels[(row + width - 1) * 3..][..3]);
        }
    }
    tile
}

/// Returns `most` of `count` tiles at even distances, or all.
pub fn spread(count: usize, most: usize) -> Vec<usize> {
    let chosen = count.min(most);
    (0..chosen).map(|index| (2 * index + 1) * count / (2 * chosen)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_parts_of_the_image_with_a_repeated_border() {
        let (height, width) = (5, 7);
        let pixels: Vec<u8> = (0..height * width * 3).map(|value| value as u8).collect();
        for (top, left) in [(0, 0), (3, 2), (4, 6)] {
            let tile = cut(&pixels, [height, width], [top, left], [3, 4]);
            for (index, color) in tile.chunks(3).enumerate() {
                let row = (top + index / 4).min(height - 1);
                let column = (left + index % 4).min(width - 1);
                assert_eq!(color, &pixels[(row * width + column) * 3..][..3], "{index}");
            }
        }
    }

    #[test]
    fn chosen_tiles_are_spread_and_no_more_than_there_are() {
        assert_eq!(spread(3, 4), [0, 1, 2]);
        assert_eq!(spread(16, 4), [2, 6, 10, 14]);
        assert!(spread(0, 4).is_empty());
    }
}
