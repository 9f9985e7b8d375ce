//! Images scaled to the size that a network takes.

use image::imageops::{FilterType, resize};
use image::{ImageBuffer, Rgb};
use protoseg_models::interface::{Fit, Interface};
use protoseg_models::scaling::{Bars, Resample};

use super::{ImageView, resample};
use crate::upsample::Placement;

/// Places an image `[height, width]` on a canvas; None where it keeps its scale.
pub(super) fn placement(
    fit: Fit,
    size: [usize; 2],
    canvas: [usize; 2],
    corner: bool,
) -> Option<Placement> {
    if size == canvas || size.contains(&0) {
        return None;
    }
    match fit {
        Fit::Window | Fit::Pad => None,
        Fit::Resize => Some(Placement { canvas, start: [0, 0], size: canvas, has_bars: false }),
        Fit::Scale(scaling) => {
            let size = scaling.scaled(size);
            Some(Placement { canvas, start: [0, 0], size, has_bars: false })
        }
        Fit::Letterbox => {
            let scale = |axis: usize| canvas[axis] as f64 / size[axis] as f64;
            let scale = scale(0).min(scale(1));
            let scaled = [0, 1].map(|axis| {
                let side = (size[axis] as f64 * scale).round() as usize;
                side.clamp(1, canvas[axis])
            });
            let start = [0, 1].map(|axis| match corner {
                true => 0,
                false => (canvas[axis] - scaled[axis]) / 2,
            });
            Some(Placement { canvas, start, size: scaled, has_bars: true })
        }
    }
}

/// Painting of scaled images onto the canvas that a network sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Painter {
    filter: Resample,
    pub(super) bars: Bars,
    /// True where the edge of the image is repeated instead of bars.
    repeats_edge: bool,
}

impl Painter {
    pub(super) fn new(interface: &Interface) -> Self {
        Self {
            filter: interface.resample,
            bars: interface.bars.unwrap_or_default(),
            repeats_edge: matches!(interface.fit, Fit::Scale(_)),
        }
    }

    /// Appends the canvas `[height, width, 3]` with the scaled image to a buffer. Where images
    /// shrink, all pixels count that shrink into one, as in Pillow.
    pub(super) fn append(self, image: &ImageView<'_>, placement: Placement, pixels: &mut Vec<u8>) {
        let Placement {
            canvas: [canvas_height, canvas_width], start, size: [height, width], ..
        } = placement;
        let scaled = self.scaled(image, [height, width]);
        let bars = |count: usize| self.bars.color.repeat(count);
        let below = canvas_height - start[0] - height;
        let right = canvas_width - start[1] - width;
        pixels.extend(bars(start[0] * canvas_width));
        for row in scaled.chunks_exact(width.max(1) * 3) {
            pixels.extend(bars(start[1]));
            pixels.extend_from_slice(row);
            match row.last_chunk::<3>().filter(|_| self.repeats_edge) {
                Some(edge) => pixels.extend(edge.repeat(right)),
                None => pixels.extend(bars(right)),
            }
        }
        let last = pixels.len().saturating_sub(canvas_width * 3);
        if self.repeats_edge {
            (0..below).for_each(|_| pixels.extend_from_within(last..last + canvas_width * 3));
        } else {
            pixels.extend(bars(below * canvas_width));
        }
    }

    /// The image at another size.
    fn scaled(self, image: &ImageView<'_>, size @ [height, width]: [usize; 2]) -> Vec<u8> {
        if size == image.size() {
            return image.pixels().to_vec();
        }
        if self.filter != Resample::Bilinear {
            return resample::scale(image.pixels(), image.size(), size, self.filter);
        }
        let [from_height, from_width] = image.size().map(|side| side as u32);
        let view: Option<ImageBuffer<Rgb<u8>, &[u8]>> =
            ImageBuffer::from_raw(from_width, from_height, image.pixels());
        let scaled =
            view.map(|view| resize(&view, width as u32, height as u32, FilterType::Triangle));
        scaled.map(ImageBuffer::into_raw).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use image::RgbImage;
    use protoseg_models::scaling::Scaling;

    use super::*;

    const GRAY: u8 = 114;

    fn painted(interface: &Interface, image: &RgbImage, placement: Placement) -> Vec<u8> {
        let mut pixels = Vec::new();
        Painter::new(interface).append(&image.into(), placement, &mut pixels);
        pixels.iter().step_by(3).copied().collect()
    }

    #[test]
    fn every_way_fills_the_canvas() {
        let image = RgbImage::from_fn(20, 10, |x, _| Rgb([if x < 10 { 0 } else { 200 }, 9, 9]));
        let (canvas, usual) = ([16, 16], Interface::default());
        let letterbox = placement(Fit::Letterbox, [10, 20], canvas, false).unwrap();
        assert_eq!((letterbox.start, letterbox.size), ([4, 0], [8, 16]));
        let red = painted(&usual, &image, letterbox);
        assert_eq!(red.len(), 16 * 16);
        let at = |row: usize, column: usize| red[row * 16 + column];
        assert_eq!([at(3, 0), at(4, 0), at(11, 15), at(12, 15)], [GRAY, 0, 200, GRAY]);
        let stretched = placement(Fit::Resize, [10, 20], canvas, false).unwrap();
        for filter in [Resample::Bilinear, Resample::Nearest] {
            let red = painted(&Interface { resample: filter, ..usual.clone() }, &image, stretched);
            assert!(red.chunks(16).all(|row| row[..7] == [0; 7] && row[9..] == [200; 7]));
        }
        assert_eq!(placement(Fit::Resize, canvas, canvas, false), None);
        assert_eq!(placement(Fit::Pad, [10, 20], [32, 32], false), None);
        // Thin images keep a pixel.
        assert_eq!(placement(Fit::Letterbox, [1, 900], canvas, false).unwrap().size, [1, 16]);
    }

    #[test]
    fn bars_lie_where_they_are_told_and_edges_are_repeated() {
        let image = RgbImage::from_fn(20, 10, |x, _| Rgb([if x < 10 { 0 } else { 200 }, 9, 9]));
        let bars = Some(Bars { color: [7, 8, 9], corner: true });
        let corner = placement(Fit::Letterbox, [10, 20], [16, 16], true).unwrap();
        assert_eq!((corner.start, corner.size), ([0, 0], [8, 16]));
        let red = painted(&Interface { bars, ..Interface::default() }, &image, corner);
        assert_eq!([red[0], red[7 * 16 + 15], red[8 * 16]], [0, 200, 7]);
        let fit = Fit::Scale(Scaling::Edge { shortest: 5, longest: None });
        let scale = placement(fit, [10, 20], [8, 16], false).unwrap();
        assert_eq!((scale.start, scale.size), ([0, 0], [5, 10]));
        let red = painted(&Interface { fit, ..Interface::default() }, &image, scale);
        assert_eq!(red.len(), 8 * 16);
        assert!(red.chunks(16).all(|row| row[..4] == [0; 4] && row[6..] == [200; 10]));
    }
}
