//! Cuts rectangles out of pictures, where what lies beyond the bottom or right edge repeats the edge.

use image::RgbImage;

/// Appends the pixels of a rectangle, `[height, width, 3]`, to a buffer. `top` and `left` lie inside the picture, which is
/// not empty.
pub(crate) fn append_tile(
    picture: &RgbImage,
    [top, left]: [usize; 2],
    [height, width]: [usize; 2],
    pixels: &mut Vec<u8>,
) {
    let (columns, rows) = (picture.width() as usize, picture.height() as usize);
    let inside = width.min(columns - left);
    for row in top..top + height {
        let row = &picture.as_raw()[row.min(rows - 1) * columns * 3..][..columns * 3];
        pixels.extend_from_slice(&row[left * 3..(left + inside) * 3]);
        for _ in inside..width {
            pixels.extend_from_slice(&row[(columns - 1) * 3..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    #[test]
    fn pixels_beyond_the_edges_repeat_them() {
        let picture = RgbImage::from_fn(5, 4, |x, y| Rgb([x as u8, y as u8, 9]));
        for (start, size) in
            [([0, 0], [4, 5]), ([1, 2], [2, 2]), ([2, 3], [6, 4]), ([3, 4], [1, 9])]
        {
            let mut pixels = vec![77];
            append_tile(&picture, start, size, &mut pixels);
            assert_eq!(pixels[0], 77);
            let expected: Vec<u8> = (0..size[0] * size[1])
                .flat_map(|index| {
                    let (row, column) = (start[0] + index / size[1], start[1] + index % size[1]);
                    picture.get_pixel(column.min(4) as u32, row.min(3) as u32).0
                })
                .collect();
            assert_eq!(pixels[1..], expected);
        }
    }
}
