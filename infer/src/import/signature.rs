//! What can be read from the inputs and outputs that a file declares: how it takes pictures, and which output counts.

use protoseg_models::adapter::Layout;
use protoseg_models::bundle::{Dimension, TensorInfo, signature};
use protoseg_models::variant::ModelKind;

use super::ImportError;

/// How an input takes pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InputFormat {
    pub(super) layout: Layout,
    /// Whether bytes go in; else 32-bit floats.
    pub(super) bytes: bool,
    pub(super) batch: Option<usize>,
    pub(super) size: Option<[usize; 2]>,
}

const COLORS: Dimension = Dimension::Fixed(3);

/// How the only input takes pictures.
pub(super) fn input_format(inputs: &[TensorInfo]) -> Result<InputFormat, ImportError> {
    let [input] = inputs else {
        return Err(ImportError::Inputs { found: signature(inputs), count: inputs.len() });
    };
    let refused = |reason| Err(ImportError::Input { found: input.to_string(), reason });
    let bytes = match input.element.as_str() {
        "uint8" => true,
        "float32" => false,
        "float16" => {
            return refused(
                "convert the file so that its inputs and outputs stay float32 (keep_io_types=True)",
            );
        }
        _ => return refused("float32 and uint8 are understood"),
    };
    let [batch, rest @ ..] = input.shape.as_slice() else {
        return refused("4 dimensions are needed");
    };
    let (layout, sides) = match rest {
        [colors, height, width] if *colors == COLORS => (Layout::Nchw, [height, width]),
        [height, width, colors] if *colors == COLORS => (Layout::Nhwc, [height, width]),
        [_, _, _] => {
            return refused("the second or the last dimension must be fixed to the 3 colours");
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

/// The output that counts and what it is: the one that was named, else the only one that may be logits or labels.
pub(super) fn choose<'a>(
    outputs: &'a [TensorInfo],
    name: Option<&str>,
    classes: usize,
) -> Result<(&'a TensorInfo, ModelKind), ImportError> {
    let output = match (name, outputs) {
        (Some(name), _) => outputs.iter().find(|output| output.name == name).ok_or_else(|| {
            ImportError::NoOutput { name: name.to_owned(), known: signature(outputs) }
        })?,
        (None, [output]) => output,
        (None, _) => {
            let mut likely =
                outputs.iter().filter(|output| classify_output(output, classes).is_ok());
            match (likely.next(), likely.next()) {
                (Some(output), None) => output,
                _ => return Err(ImportError::Ambiguous { known: signature(outputs), classes }),
            }
        }
    };
    Ok((output, classify_output(output, classes)?))
}

/// What an output is.
fn classify_output(output: &TensorInfo, classes: usize) -> Result<ModelKind, ImportError> {
    let found = || output.to_string();
    let free = |dimension: &Dimension, size: usize| {
        matches!(dimension, Dimension::Named(_)) || *dimension == Dimension::Fixed(size)
    };
    match (output.element.as_str(), output.shape.as_slice()) {
        ("float32", [_, channels, _, last])
            if *channels != Dimension::Fixed(classes) && *last == Dimension::Fixed(classes) =>
        {
            Err(ImportError::ClassesLast { found: found() })
        }
        ("float32", [_, channels, _, _]) if free(channels, classes) => Ok(ModelKind::Logits),
        ("float32", [_, Dimension::Fixed(channels), _, _]) => {
            Err(ImportError::Classes { found: *channels, expected: classes })
        }
        ("int64" | "int32" | "uint8", [_, _, _]) => Ok(ModelKind::Labels),
        ("int64" | "int32" | "uint8", [_, one, _, _]) if free(one, 1) => Ok(ModelKind::Labels),
        _ => Err(ImportError::Output { found: found() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `x float32 N 3 512 W`: a name, a type, dimensions.
    fn port(text: &str) -> TensorInfo {
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
        let read = |text: &str| input_format(&[port(text)]);
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
            ("x float32 N C H W", "3 colours"),
            ("x float32 N 1 H W", "3 colours"),
            ("x float32 N 3 512 W", "both be"),
            ("x float32 0 3 H W", "is 0"),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains(reason), "{text}: {message}");
        }
        assert!(input_format(&[]).unwrap_err().to_string().contains("0 inputs"));
    }

    #[test]
    fn the_output_that_counts_is_found_or_asked_for() {
        let outputs = |texts: &[&str]| texts.iter().map(|text| port(text)).collect::<Vec<_>>();
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
