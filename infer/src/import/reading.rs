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
    /// Another order with as many classes that fits the shape as well.
    pub(super) other: Option<OutputLayout>,
}

/// Reason why an output is no segmentation of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// Another number of channels.
    Channels(usize),
    /// A shape that does not belong to one image.
    Shape,
}

/// Images, and the output that is expected of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    /// Number of images.
    pub(super) batch: usize,
    /// Height and width of the images.
    pub(super) size: [usize; 2],
    pub(super) classes: usize,
    /// True where the channels of a pixel lie beside each other in the input.
    pub(super) channels_last: bool,
    /// The only order that is read.
    pub(super) layout: Option<OutputLayout>,
}

/// Reads an output: scores of the expected classes, or one channel of scores or labels.
pub(super) fn read(output: &RawOutput, expected: Expected) -> Result<OutputReading, Unreadable> {
    let Expected { batch, size: [height, width], classes, channels_last, layout } = expected;
    let mut layouts = match output.shape.len() {
        4 => vec![OutputLayout::Nchw, OutputLayout::Nhwc],
        3 => vec![OutputLayout::Nhw, OutputLayout::Chw, OutputLayout::Hwc],
        2 => vec![OutputLayout::Hw],
        _ => Vec::new(),
    };
    if channels_last {
        layouts.reverse();
    }
    if let Some(layout) = layout {
        layouts.retain(|one| *one == layout);
    }
    let mut reason = Unreadable::Shape;
    let mut distorted = None;
    let mut found: Option<OutputReading> = None;
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
        let reading = OutputReading { layout, channels, size: [rows, columns], other: None };
        if !alike {
            // Some networks answer at one resolution, whatever the image's proportions.
            if output.shape.len() == 4 && channels == classes && rows.min(columns) >= LEAST {
                distorted.get_or_insert(reading);
            }
            continue;
        }
        if channels == 1 || channels == classes {
            match &mut found {
                None => found = Some(reading),
                Some(first) if channels == classes && first.channels == classes => {
                    first.other.get_or_insert(layout);
                }
                Some(_) => {}
            }
            continue;
        }
        if reason == Unreadable::Shape {
            reason = Unreadable::Channels(channels);
        }
    }
    found.or(distorted).ok_or(reason)
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
            let expected = Expected { batch, size, classes: 3, channels_last: last, layout: None };
            read(&output(shape), expected).map(|reading| reading.layout)
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
    fn a_second_order_that_fits_is_told() {
        let square =
            Expected { batch: 1, size: [64, 64], classes: 4, channels_last: false, layout: None };
        let read = |shape: &[usize], expected| {
            let reading = read(&output(shape), expected).unwrap();
            (reading.layout, reading.other)
        };
        use OutputLayout::{Chw, Hwc, Nchw, Nhw, Nhwc};
        assert_eq!(read(&[1, 4, 4, 4], square), (Nchw, Some(Nhwc)));
        assert_eq!(
            read(&[1, 4, 4, 4], Expected { channels_last: true, ..square }),
            (Nhwc, Some(Nchw))
        );
        assert_eq!(read(&[4, 4, 4], square), (Chw, Some(Hwc)));
        assert_eq!(read(&[1, 4, 4, 4], Expected { layout: Some(Nhwc), ..square }), (Nhwc, None));
        // One channel is the same in either order.
        assert_eq!(read(&[1, 64, 64], square), (Nhw, None));
        assert_eq!(read(&[1, 4, 64, 64], square), (Nchw, None));
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
