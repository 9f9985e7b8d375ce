//! Images scaled to the size that a network takes.

use image::imageops::{FilterType, resize};
use image::{ImageBuffer, Rgb};
use protoseg_models::interface::Fit;

use super::ImageView;
use crate::upsample::Placement;

/// Gray of the bars of a letterbox, as in YOLO.
const BARS: u8 = 114;

/// Places an image `[height, width]` on a canvas; None where it keeps its scale.
pub(super) fn placement(fit: Fit, size: [usize; 2], canvas: [usize; 2]) -> Option<Placement> {
    if size == canvas || size.contains(&0) {
        return None;
    }
    match fit {
        Fit::Window | Fit::Pad => None,
        Fit::Resize => Some(Placement { canvas, start: [0, 0], size: canvas }),
        Fit::Letterbox => {
            let scale = |axis: usize| canvas[axis] as f64 / size[axis] as f64;
            let scale = scale(0).min(scale(1));
            let scaled = [0, 1].map(|axis| {
                let side = (size[axis] as f64 * scale).round() as usize;
                side.clamp(1, canvas[axis])
            });
            let start = [0, 1].map(|axis| (canvas[axis] - scaled[axis]) / 2);
            Some(Placement { canvas, start, size: scaled })
        }
    }
}

/// Appends the canvas `[height, width, 3]` with the scaled image to a buffer. Scaling is bilinear,
/// over all pixels that shrink into one, as in Pillow.
pub(super) fn append(image: &ImageView<'_>, placement: Placement, pixels: &mut Vec<u8>) {
    let Placement { canvas: [canvas_height, canvas_width], start, size: [height, width] } =
        placement;
    let [from_height, from_width] = image.size().map(|side| side as u32);
    let view: Option<ImageBuffer<Rgb<u8>, &[u8]>> =
        ImageBuffer::from_raw(from_width, from_height, image.pixels());
    let scaled = view.map(|view| resize(&view, width as u32, height as u32, FilterType::Triangle));
    let bars = |count: usize| std::iter::repeat_n(BARS, count * 3);
    let below = canvas_height - start[0] - height;
    pixels.extend(bars(start[0] * canvas_width));
    for row in scaled.iter().flat_map(|scaled| scaled.as_raw().chunks_exact(width.max(1) * 3)) {
        pixels.extend(bars(start[1]));
        pixels.extend_from_slice(row);
        pixels.extend(bars(canvas_width - start[1] - width));
    }
    pixels.extend(bars(below * canvas_width));
}

#[cfg(test)]
mod tests {
    use image::RgbImage;

    use super::*;

    #[test]
    fn every_way_fills_the_canvas() {
        let image = RgbImage::from_fn(20, 10, |x, _| Rgb([if x < 10 { 0 } else { 200 }, 9, 9]));
        let canvas = [16, 16];
        let letterbox = placement(Fit::Letterbox, [10, 20], canvas).unwrap();
        assert_eq!((letterbox.start, letterbox.size), ([4, 0], [8, 16]));
        let mut pixels = Vec::new();
        append(&(&image).into(), letterbox, &mut pixels);
        assert_eq!(pixels.len(), 16 * 16 * 3);
        let at = |row: usize, column: usize| pixels[(row * 16 + column) * 3];
        assert_eq!([at(3, 0), at(4, 0), at(11, 15), at(12, 15)], [BARS, 0, 200, BARS]);
        let stretched = placement(Fit::Resize, [10, 20], canvas).unwrap();
        let mut pixels = Vec::new();
        append(&(&image).into(), stretched, &mut pixels);
        let red: Vec<u8> = pixels.iter().step_by(3).copied().collect();
        assert!(red.chunks(16).all(|row| row[..7] == [0; 7] && row[9..] == [200; 7]));
        assert_eq!(placement(Fit::Resize, canvas, canvas), None);
        assert_eq!(placement(Fit::Pad, [10, 20], [32, 32]), None);
        // Thin images keep a pixel.
        assert_eq!(placement(Fit::Letterbox, [1, 900], canvas).unwrap().size, [1, 16]);
    }
}
