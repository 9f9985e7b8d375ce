//! Inputs and outputs that a file declares: how it takes images, and which output to use.

use protoseg_models::adapter::Layout;
use protoseg_models::bundle::{Dimension, TensorInfo, signature};
use protoseg_models::variant::ModelKind;

use super::ImportError;

/// Format in which an input takes images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InputFormat {
    pub(super) layout: Layout,
    /// Bytes; otherwise 32-bit floats.
    pub(super) bytes: bool,
    pub(super) batch: Option<usize>,
    pub(super) size: Option<[usize; 2]>,
}

const COLORS: Dimension = Dimension::Fixed(3);

/// Reads the format of the only input.
pub(super) fn input_format(inputs: &[TensorInfo]) -> Result<InputFormat, ImportError> {
    let [input] = inputs else {
        return Err(ImportError::Signature(format!(
            "the file has {} inputs ({}), and only files with one, the image, can be imported",
            inputs.len(),
            signature(inputs)
        )));
    };
    let refused = |reason| {
        Err(ImportError::Signature(format!(
            "the input {input} does not take images [N, 3, H, W] or [N, H, W, 3]: {reason}"
        )))
    };
    let bytes = match input.element.as_str() {
        "uint8" => true,
        "float32" => false,
        "float16" => {
            return refused(
                "convert the file so that its inputs and outputs stay float32 (keep_io_types=True)",
            );
        }
        _ => return refused("float32 and uint8 are supported"),
    };
    let [batch, rest @ ..] = input.shape.as_slice() else {
        return refused("4 dimensions are needed");
    };
    let (layout, sides) = match rest {
        [colors, height, width] if *colors == COLORS => (Layout::Nchw, [height, width]),
        [height, width, colors] if *colors == COLORS => (Layout::Nhwc, [height, width]),
        [_, _, _] => {
            return refused("the second or the last dimension must be fixed to the 3 colors");
        }
        _ => return refused("4 dimensions are needed"),
    };
    let size = match sides {
        [Dimension::Fixed(height), Dimension::Fixed(width)] => Some([*height, *width]),
        [Dimension::Named(_), Dimension::Named(_)] => None,
        _ => return refused("height and width must both be fixed or both be free"),
    };
    let batch = match batch {
        Dimension::Fixed(count) => Some(*count),
        Dimension::Named(_) => None,
    };
    if batch == Some(0) || size.is_some_and(|size| size.contains(&0)) {
        return refused("a dimension is 0");
    }
    Ok(InputFormat { layout, bytes, batch, size })
}

/// Chooses an output and tells its kind: the named one, else the only one that may be logits or
/// labels.
pub(super) fn choose<'a>(
    outputs: &'a [TensorInfo],
    name: Option<&str>,
    classes: usize,
) -> Result<(&'a TensorInfo, ModelKind), ImportError> {
    let output = match (name, outputs) {
        (Some(name), _) => outputs.iter().find(|output| output.name == name).ok_or_else(|| {
            let known = signature(outputs);
            ImportError::Signature(format!("the file has no output `{name}`; it has {known}"))
        })?,
        (None, [output]) => output,
        (None, _) => {
            let mut likely =
                outputs.iter().filter(|output| classify_output(output, classes).is_ok());
            match (likely.next(), likely.next()) {
                (Some(output), None) => output,
                _ => {
                    return Err(ImportError::Signature(format!(
                        "the file has the outputs {}; name the one with the logits of {classes} classes or the labels with --output",
                        signature(outputs)
                    )));
                }
            }
        }
    };
    Ok((output, classify_output(output, classes)?))
}

fn classify_output(output: &TensorInfo, classes: usize) -> Result<ModelKind, ImportError> {
    let fits = |dimension: &Dimension, size: usize| {
        matches!(dimension, Dimension::Named(_)) || *dimension == Dimension::Fixed(size)
    };
    match (output.element.as_str(), output.shape.as_slice()) {
        ("float32", [_, channels, _, last])
            if *channels != Dimension::Fixed(classes) && *last == Dimension::Fixed(classes) =>
        {
            Err(ImportError::Signature(format!(
                "the output {output} has its classes last, and logits are taken as [N, classes, h, w]: end the file with a Transpose \
                 of [0, 3, 1, 2]"
            )))
        }
        ("float32", [_, channels, _, _]) if fits(channels, classes) => Ok(ModelKind::Logits),
        ("float32", [_, Dimension::Fixed(channels), _, _]) => {
            Err(ImportError::Classes { found: *channels, expected: classes })
        }
        ("int64" | "int32" | "uint8", [_, _, _]) => Ok(ModelKind::Labels),
        ("int64" | "int32" | "uint8", [_, one, _, _]) if fits(one, 1) => Ok(ModelKind::Labels),
        _ => Err(ImportError::Signature(format!(
            "the output {output} is neither logits (float32 [N, classes, h, w]) nor labels (int64, int32 or uint8, [N, H, W] or \
             [N, 1, H, W]); name another with --output, or cut the file so that one comes out"
        ))),
    }
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
    fn inputs_are_understood_or_refused() {
        let read = |text: &str| input_format(&[tensor(text)]);
        let free = InputFormat { layout: Layout::Nchw, bytes: false, batch: None, size: None };
        assert_eq!(read("x float32 N 3 H W").unwrap(), free);
        assert_eq!(
            read("x uint8 1 512 1024 3").unwrap(),
            InputFormat {
                layout: Layout::Nhwc,
                bytes: true,
                batch: Some(1),
                size: Some([512, 1024])
            }
        );
        for (text, reason) in [
            ("x float16 N 3 H W", "keep_io_types"),
            ("x double N 3 H W", "float32 and uint8"),
            ("x float32 3 H W", "4 dimensions"),
            ("x float32", "4 dimensions"),
            ("x float32 N C H W", "3 colors"),
            ("x float32 N 1 H W", "3 colors"),
            ("x float32 N 3 512 W", "both be"),
            ("x float32 0 3 H W", "is 0"),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains(reason), "{text}: {message}");
        }
        assert!(input_format(&[]).unwrap_err().to_string().contains("0 inputs"));
    }

    #[test]
    fn the_output_is_found_or_asked_for() {
        let outputs = |texts: &[&str]| texts.iter().map(|text| tensor(text)).collect::<Vec<_>>();
        let chosen = |texts: &[&str], name: Option<&str>| {
            choose(&outputs(texts), name, 19)
                .map(|(output, kind)| (output.name.clone(), kind))
                .map_err(|error| error.to_string())
        };
        let found = |name: &str, kind| Ok((name.to_owned(), kind));
        assert_eq!(chosen(&["a float32 N 19 h w"], None), found("a", ModelKind::Logits));
        assert_eq!(chosen(&["a int64 N H W"], None), found("a", ModelKind::Labels));
        assert_eq!(chosen(&["a uint8 N 1 H W"], None), found("a", ModelKind::Labels));
        assert_eq!(
            chosen(&["a float32 N 256 h w", "b float32 N ? h w"], None),
            found("b", ModelKind::Logits)
        );
        let two = ["a float32 N 19 h w", "b float32 N 19 h w"];
        assert_eq!(chosen(&two, Some("b")), found("b", ModelKind::Logits));
        for (texts, name, part) in [
            (&two[..], None, "--output"),
            (&two[..], Some("c"), "no output `c`"),
            (&["a float32 N 21 h w"][..], None, "21 classes"),
            (&["a float32 N h w 19"][..], None, "[N, classes, h, w]"),
            (&["a float32 N 512 512 19"][..], None, "[N, classes, h, w]"),
            (&["a float32 N 1000"][..], None, "neither"),
            (&["a int64 N 2 H W"][..], None, "neither"),
            (&["a double N 19 H W"][..], None, "neither"),
            (&[][..], None, "--output"),
        ] {
            let message = chosen(texts, name).unwrap_err();
            assert!(message.contains(part), "{texts:?}: {message}");
        }
    }
}
