//! Formats in which the declared input may take images. What the file leaves open, trials settle.

use protoseg_models::adapter::Layout;
use protoseg_models::bundle::{Dimension, TensorInfo, signature};
use protoseg_models::interface::InputElement;

use super::ImportError;

/// Format in which an input takes images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InputFormat {
    pub(super) layout: Layout,
    /// One channel; otherwise three.
    pub(super) gray: bool,
    pub(super) element: InputElement,
    /// Number of images at once, if fixed.
    pub(super) batch: Option<usize>,
    /// Height and width in pixels, as far as they are fixed.
    pub(super) sides: [Option<usize>; 2],
    /// True where the file declares the number of channels.
    pub(super) declared: bool,
}

impl InputFormat {
    /// Height and width, if both are fixed.
    pub(super) fn size(&self) -> Option<[usize; 2]> {
        match self.sides {
            [Some(height), Some(width)] => Some([height, width]),
            _ => None,
        }
    }
}

/// Least height and width: a fixed dimension below it is none of the two.
const LEAST_SIDE: usize = 8;

/// Numbers of images to try where one alone does not run, though the file leaves the number open.
const BATCHES: [usize; 4] = [2, 4, 8, 16];

/// Returns every format that fits the declaration of the only input, the likeliest first.
pub(super) fn input_formats(inputs: &[TensorInfo]) -> Result<Vec<InputFormat>, ImportError> {
    let [input] = inputs else {
        return Err(ImportError::Signature(format!(
            "the file has {} inputs ({}), and only files with one, the image, can be imported: export it again from a module whose \
             forward takes the image alone and holds the others as constants",
            inputs.len(),
            signature(inputs)
        )));
    };
    let refused = |reason: &str| {
        Err(ImportError::Signature(format!(
            "the input {input} does not take images [N, C, H, W] or [N, H, W, C] of 3 channels or 1: {reason}"
        )))
    };
    let Ok(element) = input.element.parse::<InputElement>() else {
        let known: Vec<&str> = InputElement::ALL.into_iter().map(|(name, _)| name).collect();
        let way = match input.element.as_str() {
            "int8" => {
                "; a quantized file does not say how bytes become its integers: leave its input in floats or uint8, with the \
                 QuantizeLinear in the file"
            }
            "string" => "; a file that decodes images by itself must be cut behind its decoder",
            _ => "",
        };
        return refused(&format!("elements of the types {} are supported{way}", known.join(", ")));
    };
    if input.shape.contains(&Dimension::Fixed(0)) {
        return refused("a dimension is 0");
    }
    let shape: Vec<Option<usize>> = input
        .shape
        .iter()
        .map(|dimension| match dimension {
            Dimension::Fixed(size) => Some(*size),
            Dimension::Named(_) => None,
        })
        .collect();
    let mut formats = Vec::new();
    for channels in [3, 1] {
        let all = [Layout::Nchw, Layout::Nhwc, Layout::Chw, Layout::Hwc, Layout::Nhw, Layout::Hw];
        formats.extend(all.into_iter().filter_map(|layout| fit(&shape, layout, channels, element)));
    }
    // Where the file fixes channels, nothing else can be them.
    if formats.iter().any(|format| format.declared) {
        formats.retain(|format| format.declared);
    }
    match formats.as_slice() {
        [] if !matches!(shape.len(), 0 | 2..=4) => refused("2 to 4 dimensions are needed"),
        [] => refused(&other_channels(&shape)),
        _ => Ok(formats),
    }
}

/// Says which dimension seems to be channels of another number, and the way out.
fn other_channels(shape: &[Option<usize>]) -> String {
    let [_, first, .., last] = shape else { return "no dimension can be the channels".to_owned() };
    let few = |side: &Option<usize>| side.filter(|side| (2..=16).contains(side));
    match few(first).or_else(|| few(last)) {
        Some(count) => format!(
            "it takes {count}, and images are read as red, green and blue: export it from a module that takes three channels and adds the \
             others as constants, or train a network of three; --channels picks which three bands of image files they are"
        ),
        None => "no dimension can be the channels, as none is 3 or 1".to_owned(),
    }
}

/// Returns the same formats for several images at once, where the file leaves the number open.
pub(super) fn with_batches(formats: &[InputFormat]) -> impl Iterator<Item = InputFormat> + '_ {
    let open = formats.iter().filter(|format| format.batch.is_none());
    open.flat_map(|format| {
        BATCHES.into_iter().map(|batch| InputFormat { batch: Some(batch), ..*format })
    })
}

/// Returns the format of a layout; None where the shape has no room for it. A file without a shape
/// has room for all with four dimensions.
fn fit(
    shape: &[Option<usize>],
    layout: Layout,
    channels: usize,
    element: InputElement,
) -> Option<InputFormat> {
    let usual = [None; 4];
    let shape = if shape.is_empty() { &usual } else { shape };
    // `[1, H, W]` is one gray image, not an image of one channel.
    let (batch, found, sides) = match (layout, shape) {
        (Layout::Nchw, &[n, c, h, w]) | (Layout::Nhwc, &[n, h, w, c]) => (n, c, [h, w]),
        (Layout::Chw, &[c, h, w]) if channels != 1 => (Some(1), c, [h, w]),
        (Layout::Hwc, &[h, w, c]) if channels != 1 || c == Some(1) => (Some(1), c, [h, w]),
        (Layout::Nhw, &[n, h, w]) if channels == 1 => (n, None, [h, w]),
        (Layout::Hw, &[h, w]) if channels == 1 => (Some(1), None, [h, w]),
        _ => return None,
    };
    let fits = found.is_none_or(|found| found == channels)
        && sides.iter().flatten().all(|side| *side >= LEAST_SIDE);
    let (gray, declared) = (channels == 1, found.is_some());
    fits.then_some(InputFormat { layout, gray, element, batch, sides, declared })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `x float32 N 3 512 W`: a name, a type, dimensions.
    fn tensor(text: &str) -> TensorInfo {
        let mut words = text.split(' ');
        let mut word = || words.next().unwrap().to_owned();
        let (name, element) = (word(), word());
        let dimension = |word: &str| {
            word.parse().map_or_else(|_| Dimension::Named(word.to_owned()), Dimension::Fixed)
        };
        TensorInfo { name, element, shape: words.map(dimension).collect() }
    }

    #[test]
    fn declarations_leave_some_formats() {
        let read = |text: &str| {
            let formats = input_formats(&[tensor(text)]).unwrap();
            let short = |format: &InputFormat| (format.layout, if format.gray { 1 } else { 3 });
            formats.iter().map(short).collect::<Vec<_>>()
        };
        assert_eq!(read("x float32 N 3 H W"), [(Layout::Nchw, 3)]);
        assert_eq!(read("x uint8 1 512 1024 3"), [(Layout::Nhwc, 3)]);
        assert_eq!(read("x float16 N 1 H W"), [(Layout::Nchw, 1)]);
        let open = [(Layout::Nchw, 3), (Layout::Nhwc, 3), (Layout::Nchw, 1), (Layout::Nhwc, 1)];
        assert_eq!(read("x float32 N C H W"), open);
        assert_eq!(read("x float32"), open);
        assert_eq!(read("x float32 3 H W")[0], (Layout::Chw, 3));
        assert_eq!(read("x float32 H W 1"), [(Layout::Hwc, 1)]);
        assert_eq!(read("x int32 H W"), [(Layout::Hw, 1)]);
        assert_eq!(read("x float32 1 512 512"), [(Layout::Nhw, 1)]);
        let sides = |text: &str| input_formats(&[tensor(text)]).unwrap()[0].sides;
        assert_eq!(sides("x float32 1 3 height 64"), [None, Some(64)]);
        assert_eq!(input_formats(&[tensor("x float32 2 3 16 8")]).unwrap()[0].batch, Some(2));
    }

    #[test]
    fn inputs_that_take_no_images_are_refused() {
        for (text, reason) in [
            ("x string N 3 H W", "float16"),
            ("x float32 N", "2 to 4 dimensions"),
            ("x int8 1 3 64 64", "QuantizeLinear"),
            ("x float32 N 4 512 512", "it takes 4"),
            ("x float32 N 512 512 6", "it takes 6"),
            ("x float32 N 40 512 512", "none is 3 or 1"),
            ("x float32 0 3 H W", "is 0"),
        ] {
            let message = input_formats(&[tensor(text)]).unwrap_err().to_string();
            assert!(message.contains(reason), "{text}: {message}");
        }
        assert!(input_formats(&[]).unwrap_err().to_string().contains("0 inputs"));
    }
}
