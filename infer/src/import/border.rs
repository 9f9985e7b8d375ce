//! Outputs that leave out the border of an image, as those of convolutions without padding: told from
//! outputs that cover the image at no whole stride by the sizes, or by where a change shows.

use super::ImportError;
use super::trial::{Candidate, Trial};

/// Largest number of pixels from one value of the output to the next that is tried.
const MOST_STEP: usize = 64;

/// Places along the height at which the image is changed, as shares of it: near the middle, so that
/// no change lies where the border is cut off, and on both sides of it.
const PLACES: [f64; 2] = [0.4, 0.6];

/// Least number of values along a side by which places can be measured.
const LEAST_VALUES: usize = 16;

/// Least distance, in values, between the places of a cut and those of a whole image.
const APART: f64 = 0.5;

/// Pixels of a side that the output leaves out, on both ends together, and pixels from one value to
/// the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cut {
    pixels: usize,
    step: usize,
}

/// Refuses outputs without the border of the image.
pub(super) fn check(candidate: &mut Candidate<'_>, trials: &[Trial]) -> Result<(), ImportError> {
    let Some(first) = trials.first() else { return Ok(()) };
    let counts: Vec<(usize, usize)> =
        trials.iter().flat_map(|trial| trial.size.into_iter().zip(trial.reading.size)).collect();
    let cut = match cuts(&counts).as_slice() {
        [] => None,
        [cut] if counts.iter().any(|(pixels, _)| *pixels != counts[0].0) => Some(*cut),
        possible => measured(candidate, first, possible)?,
    };
    let Some(Cut { pixels, step }) = cut else { return Ok(()) };
    let ([height, width], [rows, columns]) = (first.size, first.reading.size);
    let each = pixels.div_ceil(2);
    let steps = if step == 1 { String::new() } else { format!(" at {step} pixels a value") };
    Err(ImportError::Signature(format!(
        "the file gives outputs of {rows}x{columns} for images of {height}x{width} (height x width){steps} and leaves out a border of \
         {each} pixels on each side, as convolutions without padding do: nothing tells the labels there; export the network with \
         padding, or from a module that pads the image first, `torch.nn.functional.pad(x, [{each}] * 4, mode=\"reflect\")`"
    )))
}

/// Returns every cut that explains all counts of pixels and values. What is less than a step was
/// rounded away.
fn cuts(counts: &[(usize, usize)]) -> Vec<Cut> {
    let cut = |step: usize| {
        let mut rest = counts.iter().map(|(pixels, values)| pixels.checked_sub(values * step));
        let first = rest.next()??;
        let same = rest.all(|other| other == Some(first));
        (same && first >= step.max(2)).then_some(Cut { pixels: first, step })
    };
    (1..=MOST_STEP).filter_map(cut).collect()
}

/// The cut by which changes of the image show where they do; None if that is where they would show
/// in an output of the whole image.
fn measured(
    candidate: &mut Candidate<'_>,
    trial: &Trial,
    possible: &[Cut],
) -> Result<Option<Cut>, ImportError> {
    let (pixels, values) = (trial.size[0] as f64, trial.reading.size[0] as f64);
    if trial.reading.size[0] < LEAST_VALUES {
        return Ok(None);
    }
    let mut found = Vec::new();
    for place in PLACES {
        match candidate.shown_at(trial, place)? {
            Some(shown) => found.push((place, shown)),
            None => return Ok(None),
        }
    }
    // In values of the output.
    let distance = |expected: &dyn Fn(f64) -> f64| -> f64 {
        found.iter().map(|(place, shown)| (shown - expected(*place)).abs() * values).sum()
    };
    let whole = distance(&|place| place);
    let of_cut = |cut: &Cut| {
        let border = cut.pixels as f64 / 2.0;
        distance(&|place| (place * pixels - border) / cut.step as f64 / values)
    };
    let nearest = possible.iter().map(|cut| (of_cut(cut), *cut));
    let nearest = nearest.min_by(|(one, _), (other, _)| one.total_cmp(other));
    let is_cut = |distance: f64| whole > APART && distance * 2.0 < whole;
    Ok(nearest.filter(|(distance, _)| is_cut(*distance)).map(|(_, cut)| cut))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders_show_in_the_sizes() {
        let cut = |pixels, step| Cut { pixels, step };
        assert_eq!(cuts(&[(128, 108), (192, 172), (97, 77)]), [cut(20, 1)]);
        assert_eq!(cuts(&[(128, 60), (192, 92)]), [cut(8, 2)]);
        // One resolution, a stride that was rounded, and corners on corner pixels.
        assert_eq!(cuts(&[(128, 64), (192, 64)]), []);
        assert_eq!(cuts(&[(100, 33), (160, 53)]), []);
        assert_eq!(cuts(&[(65, 17), (97, 25)]), []);
        assert_eq!(cuts(&[(64, 44), (64, 44)]), [cut(20, 1)]);
    }
}
