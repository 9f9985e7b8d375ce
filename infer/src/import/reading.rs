//! How an output is read: the order of its dimensions, told by the shape that came for an image.

use protoseg_models::interface::OutputLayout;

use crate::session::{RawOutput, RawValues};

/// Largest number of output pixels along a side for each pixel of the image.
const FINEST: usize = 4;

/// Least height and width of an output of other proportions than the image's.
const LEAST: usize = 16;

/// Order of an output's dimensions, and its sizes for one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OutputReading {
    pub(super) layout: OutputLayout,
    pub(super) channels: usize,
    /// Height and width of the output.
    pub(super) size: [usize; 2],
}

/// Reason why an output is no segmentation of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// Another number of channels.
    Channels(usize),
    /// A shape that does not belong to one image.
    Shape,
}

/// Reads an output of `batch` images `[height, width]`: scores of `classes` classes, or one channel
/// of scores or labels.
pub(super) fn read(
    output: &RawOutput,
    batch: usize,
    [height, width]: [usize; 2],
    classes: usize,
    channels_last: bool,
) -> Result<OutputReading, Unreadable> {
    let mut layouts = match output.shape.len() {
        4 => vec![OutputLayout::Nchw, OutputLayout::Nhwc],
        3 => vec![OutputLayout::Nhw, OutputLayout::Chw, OutputLayout::Hwc],
        2 => vec![OutputLayout::Hw],
        _ => Vec::new(),
    };
    if channels_last {
        layouts.reverse();
    }
    let mut reason = Unreadable::Shape;
    let mut distorted = None;
    for layout in layouts {
        let Some([count, channels, rows, columns]) = layout.sizes(&output.shape) else { continue };
        let one = !matches!(layout, OutputLayout::Nchw | OutputLayout::Nhwc | OutputLayout::Nhw);
        if count != batch || (one && batch != 1) || rows.min(columns) < 2 {
            continue;
        }
        // The same proportions, but for a row or column that was rounded.
        let scaled = columns as f64 * height as f64 / width as f64;
        let step = 1.0 + (height as f64 / width as f64).max(1.0);
        let alike = (rows as f64 - scaled).abs() <= step;
        if rows > FINEST * height || columns > FINEST * width {
            continue;
        }
        let reading = OutputReading { layout, channels, size: [rows, columns] };
        if !alike {
            // Some networks answer at one resolution, whatever the image's proportions.
            if output.shape.len() == 4 && channels == classes && rows.min(columns) >= LEAST {
                distorted.get_or_insert(reading);
            }
            continue;
        }
        if channels == 1 || channels == classes {
            return Ok(reading);
        }
        if reason == Unreadable::Shape {
            reason = Unreadable::Channels(channels);
        }
    }
    distorted.ok_or(reason)
}

/// Returns the output of the first image of a batch.
pub(super) fn first_image(output: &RawOutput, layout: OutputLayout) -> RawOutput {
    image(output, layout, 0)
}

/// Returns the output of one image of a batch, with a batch of 1 where the layout has one.
pub(super) fn image(output: &RawOutput, layout: OutputLayout, index: usize) -> RawOutput {
    let [count, ..] = layout.sizes(&output.shape).unwrap_or([1, 0, 0, 0]);
    let mut shape = output.shape.clone();
    if count > 1 {
        shape[0] = 1;
    }
    let total: usize = output.shape.iter().product();
    let part = total / count.max(1);
    let range = index * part..(index + 1) * part;
    let values = match &output.values {
        RawValues::Floats(values) => {
            RawValues::Floats(values.get(range).unwrap_or_default().to_vec())
        }
        RawValues::Integers(values) => {
            RawValues::Integers(values.get(range).unwrap_or_default().to_vec())
        }
    };
    RawOutput { shape, values }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(shape: &[usize]) -> RawOutput {
        let count = shape.iter().product();
        RawOutput { shape: shape.to_vec(), values: RawValues::Floats(vec![0.0; count]) }
    }

    #[test]
    fn the_order_of_dimensions_shows_in_the_shape() {
        let size = [128, 192];
        let layout = |shape: &[usize], batch, last| {
            read(&output(shape), batch, size, 3, last).map(|reading| reading.layout)
        };
        assert_eq!(layout(&[1, 3, 32, 48], 1, false), Ok(OutputLayout::Nchw));
        assert_eq!(layout(&[1, 128, 192, 3], 1, false), Ok(OutputLayout::Nhwc));
        assert_eq!(layout(&[2, 128, 192], 2, false), Ok(OutputLayout::Nhw));
        assert_eq!(layout(&[3, 128, 192], 1, false), Ok(OutputLayout::Chw));
        assert_eq!(layout(&[128, 192, 3], 1, true), Ok(OutputLayout::Hwc));
        assert_eq!(layout(&[43, 64], 1, false), Ok(OutputLayout::Hw));
        assert_eq!(layout(&[1, 19, 32, 48], 1, false), Err(Unreadable::Channels(19)));
        assert_eq!(layout(&[1, 3, 64, 64], 1, false), Ok(OutputLayout::Nchw));
        for wrong in [&[2, 3, 32, 48][..], &[1, 3], &[1, 3, 8, 8], &[1, 3, 0, 0], &[3; 5]] {
            assert_eq!(layout(wrong, 1, false), Err(Unreadable::Shape), "{wrong:?}");
        }
    }

    #[test]
    fn images_of_a_batch_are_taken_apart() {
        let all = RawOutput { shape: vec![2, 1, 2], values: RawValues::Integers(vec![1, 2, 3, 4]) };
        let second = image(&all, OutputLayout::Nhw, 1);
        assert_eq!(
            (second.shape.as_slice(), second.values),
            (&[1, 1, 2][..], RawValues::Integers(vec![3, 4]))
        );
        assert_eq!(first_image(&all, OutputLayout::Chw), all);
    }
}
