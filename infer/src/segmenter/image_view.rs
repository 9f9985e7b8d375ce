//! Borrowed RGB images, and tiles copied out of them.

use std::borrow::Cow;

use image::RgbImage;
use ndarray::ArrayView3;

use super::SegmentError;

/// An RGB image `u8 [height, width, 3]`, borrowed from an [`RgbImage`] or an [`ArrayView3`]. Arrays
/// that are not contiguous are copied once.
#[derive(Debug, Clone)]
pub struct ImageView<'a> {
    height: usize,
    width: usize,
    channels: usize,
    pixels: Cow<'a, [u8]>,
}

impl<'a> From<&'a RgbImage> for ImageView<'a> {
    fn from(image: &'a RgbImage) -> Self {
        let (height, width) = (image.height() as usize, image.width() as usize);
        Self { height, width, channels: 3, pixels: image.as_raw().into() }
    }
}

impl<'a> From<ArrayView3<'a, u8>> for ImageView<'a> {
    fn from(array: ArrayView3<'a, u8>) -> Self {
        let (height, width, channels) = array.dim();
        let pixels = match array.to_slice() {
            Some(pixels) => pixels.into(),
            None => array.iter().copied().collect(),
        };
        Self { height, width, channels, pixels }
    }
}

impl<'a> ImageView<'a> {
    /// Rows of pixels `[rows, width, 3]`.
    pub(super) fn from_rows(pixels: &'a [u8], width: usize) -> Self {
        let height = pixels.len() / (width * 3).max(1);
        Self { height, width, channels: 3, pixels: pixels.into() }
    }

    /// Returns `[height, width]`, or an error where the image is empty or not RGB.
    pub(crate) fn checked_size(&self) -> Result<[usize; 2], SegmentError> {
        if self.channels != 3 {
            return Err(SegmentError::Channels(self.channels));
        }
        let size = self.size();
        if size.contains(&0) { Err(SegmentError::Empty) } else { Ok(size) }
    }

    /// Returns `[height, width]`.
    pub(crate) fn size(&self) -> [usize; 2] {
        [self.height, self.width]
    }

    /// Returns the pixels `[height, width, 3]`.
    pub(crate) fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Appends the pixels `[height, width, 3]` of a tile to a buffer. Beyond the bottom and right
    /// edges the edge is repeated. `top` and `left` lie inside the image, which is not empty.
    pub(crate) fn append_tile(
        &self,
        [top, left]: [usize; 2],
        [height, width]: [usize; 2],
        pixels: &mut Vec<u8>,
    ) {
        let inside = width.min(self.width - left);
        for row in top..top + height {
            let row = &self.pixels[row.min(self.height - 1) * self.width * 3..][..self.width * 3];
            pixels.extend_from_slice(&row[left * 3..(left + inside) * 3]);
            for _ in inside..width {
                pixels.extend_from_slice(&row[(self.width - 1) * 3..]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;
    use ndarray::Array3;

    use super::*;

    #[test]
    fn pixels_beyond_the_edges_repeat_them() {
        let image = RgbImage::from_fn(5, 4, |x, y| Rgb([x as u8, y as u8, 9]));
        for (start, size) in
            [([0, 0], [4, 5]), ([1, 2], [2, 2]), ([2, 3], [6, 4]), ([3, 4], [1, 9])]
        {
            let mut pixels = vec![77];
            ImageView::from(&image).append_tile(start, size, &mut pixels);
            assert_eq!(pixels[0], 77);
            let expected: Vec<u8> = (0..size[0] * size[1])
                .flat_map(|index| {
                    let (row, column) = (start[0] + index / size[1], start[1] + index % size[1]);
                    image.get_pixel(column.min(4) as u32, row.min(3) as u32).0
                })
                .collect();
            assert_eq!(pixels[1..], expected);
        }
    }

    #[test]
    fn arrays_of_any_layout_are_the_same_image() {
        let array = Array3::from_shape_fn((4, 5, 3), |(row, column, channel)| {
            (row * 100 + column * 10 + channel) as u8
        });
        let contiguous = ImageView::from(array.view());
        assert!(matches!(contiguous.pixels, Cow::Borrowed(_)));
        let planes = array.view().permuted_axes([2, 0, 1]).as_standard_layout().into_owned();
        let permuted = ImageView::from(planes.view().permuted_axes([1, 2, 0]));
        assert!(matches!(permuted.pixels, Cow::Owned(_)));
        assert_eq!(permuted.pixels, contiguous.pixels);
        assert_eq!(permuted.checked_size().unwrap(), [4, 5]);
        let gray = Array3::zeros((4, 5, 1));
        let error = ImageView::from(gray.view()).checked_size().unwrap_err();
        assert!(matches!(error, SegmentError::Channels(1)));
        let empty = Array3::zeros((0, 5, 3));
        let error = ImageView::from(empty.view()).checked_size().unwrap_err();
        assert!(matches!(error, SegmentError::Empty));
    }
}
