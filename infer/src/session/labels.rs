//! Labels of files that give them, as train ids.

use std::path::Path;

use protoseg_models::interface::{LabelValues, OutputLayout};

use super::{RawOutput, SessionError};

/// Labels of images at the resolution at which a file gave them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelTensor {
    /// `[n, h, w]`.
    pub shape: Vec<usize>,
    /// Train ids, 255 for pixels without a class; as many as the product of `shape`.
    pub data: Vec<u8>,
}

/// Turns labels of any layout into train ids `[n, h, w]`.
pub(super) fn train_ids(
    path: &Path,
    output: RawOutput,
    layout: Option<OutputLayout>,
    values: &LabelValues,
) -> Result<LabelTensor, SessionError> {
    let found = output.shape.clone();
    let layout = layout.unwrap_or(match found.len() {
        3 => OutputLayout::Nhw,
        _ => OutputLayout::Nchw,
    });
    let Some([count, 1, height, width]) = layout.sizes(&found) else {
        let path = path.display();
        let message = format!("{path} gives labels of shape {found:?}, not one for each place");
        return Err(SessionError::Invalid(message));
    };
    let Some(labels) = output.into_integers() else {
        let message = format!("{} gives labels that are not whole numbers", path.display());
        return Err(SessionError::Invalid(message));
    };
    let train_id = |label: i64| {
        values.train_id(label).ok_or_else(|| {
            SessionError::Invalid(format!(
                "{} gives the label {label}, and its {} classes have the labels {}: its classes are not those of its description; \
                 import it again with --label-values",
                path.display(),
                values.classes.len(),
                listed(&values.classes)
            ))
        })
    };
    let data = labels.into_iter().map(train_id).collect::<Result<_, _>>()?;
    Ok(LabelTensor { shape: vec![count, height, width], data })
}

/// Values as text: `0 to 18` where they are in a row, else a list.
pub(crate) fn listed(values: &[i64]) -> String {
    let in_a_row = values.windows(2).all(|pair| pair[1] == pair[0] + 1);
    match values {
        [first, .., last] if in_a_row => format!("{first} to {last}"),
        _ => values.iter().map(i64::to_string).collect::<Vec<_>>().join(", "),
    }
}
