//! Trials that tell whether a file gives the same output for the same image, and another for another
//! image.

use super::ImportError;
use super::trial::{Candidate, Trial};
use super::unsteady_nodes::UnsteadyNodes;
use crate::session::{RawOutput, RawValues};

/// How far rounding may move a value between two runs, as a share of the largest.
const ROUNDING: f32 = 1e-3;

/// Runs the images of trials again and refuses files that give other values, or that are in training
/// mode. Returns remarks.
pub(super) fn check(
    candidate: &mut Candidate<'_>,
    trials: [&Trial; 2],
) -> Result<Vec<String>, ImportError> {
    let nodes = candidate.unsteady_nodes();
    let UnsteadyNodes { training, random } = &nodes;
    if !training.is_empty() {
        return Err(ImportError::Signature(format!(
            "the file was exported in training mode: {} {} other values at every run, or by the images beside one: call `model.eval()` \
             before torch.onnx.export, and leave out `training=`",
            shown(training),
            if training.len() == 1 { "gives" } else { "give" }
        )));
    }
    let mut differing: f64 = 0.0;
    for trial in trials {
        differing = differing.max(
            candidate
                .again(trial)?
                .map_or(1.0, |found| share_of_differences(&found, &trial.output)),
        );
    }
    if differing > 0.0 {
        let origin = if random.is_empty() {
            "a node of it draws random numbers".to_owned()
        } else {
            format!("{} draws random numbers", shown(random))
        };
        return Err(ImportError::Signature(format!(
            "the file gives other values in two runs of the same image ({:.1} % of them): {origin}; call `model.eval()` before \
             torch.onnx.export, or export the network without it",
            100.0 * differing
        )));
    }
    let mut remarks = Vec::new();
    if !random.is_empty() {
        remarks.push(format!(
            "{} draws random numbers, and two runs of the same image gave the same values all the same",
            shown(random)
        ));
    }
    Ok(remarks)
}

/// Says that images as different as a scene and a chart of colors give the same output.
pub(super) fn blind(scene: &Trial, chart: &Trial) -> Option<String> {
    let same =
        scene.size == chart.size && share_of_differences(&scene.output, &chart.output) <= 0.0;
    same.then(|| {
        "two different images get the same values: the output does not depend on the image, so that the file lost its weights, or needs \
         another --normalization"
            .to_owned()
    })
}

/// Some names of nodes.
fn shown(nodes: &[String]) -> String {
    const MOST: usize = 3;
    let first = nodes.iter().take(MOST).cloned().collect::<Vec<_>>().join(", ");
    match nodes.len().saturating_sub(MOST) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// Share of the values in which two outputs differ by more than rounding.
fn share_of_differences(found: &RawOutput, expected: &RawOutput) -> f64 {
    if found.shape != expected.shape {
        return 1.0;
    }
    let share = |differing: usize, all: usize| differing as f64 / all.max(1) as f64;
    match (&found.values, &expected.values) {
        (RawValues::Integers(found), RawValues::Integers(expected)) => {
            let pairs = found.iter().zip(expected);
            share(pairs.filter(|(found, expected)| found != expected).count(), found.len())
        }
        (RawValues::Floats(found), RawValues::Floats(expected)) => {
            let largest = expected.iter().fold(1e-6_f32, |largest, value| largest.max(value.abs()));
            let pairs = found.iter().zip(expected);
            let far =
                pairs.filter(|(found, expected)| (*found - *expected).abs() > ROUNDING * largest);
            share(far.count(), found.len())
        }
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_no_difference() {
        let floats = |values: &[f32]| RawOutput {
            shape: vec![values.len()],
            values: RawValues::Floats(values.to_vec()),
        };
        let whole = |values: &[i64]| RawOutput {
            shape: vec![values.len()],
            values: RawValues::Integers(values.to_vec()),
        };
        let share = |found, expected| share_of_differences(&found, &expected);
        assert_eq!(share(floats(&[1.0, -90.0]), floats(&[1.01, -90.0])), 0.0);
        assert_eq!(share(floats(&[1.0, -90.0]), floats(&[1.0, -80.0])), 0.5);
        assert_eq!(share(whole(&[1, 2, 3, 4]), whole(&[1, 2, 3, 5])), 0.25);
        assert_eq!(share(whole(&[1]), whole(&[1, 2])), 1.0);
        assert_eq!(shown(&["a", "b", "c", "d"].map(str::to_owned)), "a, b, c and 1 more");
    }
}
