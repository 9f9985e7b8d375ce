//! Errors of intermediate outputs: every node's value in a lower precision, compared with the fp32
//! file.

use std::path::Path;

use crate::config::EngineConfig;
use crate::session::Runner;
use protoseg_models::bundle::taps_file_name;
use protoseg_models::probe::ProbeCase;
use protoseg_models::weights::Tensor;
use serde::Serialize;

use super::{CheckError, WithContext};

/// Nodes in a report.
const LISTED: usize = 10;

/// Node errors of one file on one image.
#[derive(Debug, Serialize)]
pub struct TapsReport {
    file: String,
    #[serde(rename = "picture")]
    image: String,
    /// Nodes that both files have.
    compared: usize,
    /// The node with the largest error.
    worst: String,
    /// The nodes with the largest errors, in order of computation.
    nodes: Vec<NodeError>,
}

/// Error of one node.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct NodeError {
    node: String,
    /// Root mean square difference over root mean square value; `f64::MAX` where it is not finite.
    error: f64,
}

impl TapsReport {
    /// Formats a line per node.
    pub fn lines(&self) -> Vec<String> {
        let Self { file, image, compared, worst, nodes } = self;
        let first = format!(
            "taps  {file} on {image}: worst of {compared} nodes is {worst}; the {} worst, in order of computation:",
            nodes.len()
        );
        let line = |tap: &NodeError| format!("taps  {file}  {:.2e}  {}", tap.error, tap.node);
        std::iter::once(first).chain(nodes.iter().map(line)).collect()
    }
}

/// Compares the taps files of every precision in the folder with that of fp32.
pub fn compare(folder: &Path, case: &ProbeCase) -> Result<Vec<TapsReport>, CheckError> {
    let shown = folder.display();
    let reference = taps_file_name("model.onnx");
    let mut others = Vec::new();
    for entry in folder.read_dir().context(|| shown.to_string())? {
        let name = entry.context(|| shown.to_string())?.file_name().to_string_lossy().into_owned();
        if name.starts_with("taps.") && name.ends_with(".onnx") && name != reference {
            others.push(name);
        }
    }
    others.sort();
    if !folder.join(&reference).is_file() || others.is_empty() {
        return Err(CheckError::Invalid(format!(
            "{shown} needs {reference} and that of another precision, such as {}, to compare nodes; export again with --taps",
            taps_file_name("model.fp16.onnx")
        )));
    }
    let truth = values(&folder.join(reference), case)?;
    let taps = |file: String| {
        let found = values(&folder.join(&file), case)?;
        let tap = |(node, truth): &(String, Tensor)| {
            let (_, found) =
                found.iter().find(|(name, found)| name == node && found.shape == truth.shape)?;
            Some(NodeError { node: node.clone(), error: error(&truth.data, &found.data) })
        };
        let all: Vec<NodeError> = truth.iter().filter_map(tap).collect();
        let nodes = worst(&all);
        // Of equal ones the first, which may cause the later ones.
        let worst = nodes.iter().rev().max_by(|one, other| one.error.total_cmp(&other.error));
        let worst = worst.ok_or_else(|| {
            let message = format!("{shown}: the taps of two precisions have no node in common");
            CheckError::Invalid(message)
        })?;
        let (worst, compared) = (worst.node.clone(), all.len());
        Ok(TapsReport { file, image: case.name.clone(), compared, worst, nodes })
    };
    others.into_iter().map(taps).collect()
}

/// Returns every output in the file's order, which is that of computation.
fn values(path: &Path, case: &ProbeCase) -> Result<Vec<(String, Tensor)>, CheckError> {
    let mut runner = Runner::open(path, &EngineConfig::default())?;
    let names: Vec<String> = runner.outputs().map(str::to_owned).collect();
    let asked: Vec<&str> = names.iter().map(String::as_str).collect();
    let outputs = runner.run_outputs(&case.image, [1, case.height, case.width], &asked)?;
    Ok(names.into_iter().zip(outputs).collect())
}

fn error(truth: &[f32], found: &[f32]) -> f64 {
    let squares =
        |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let differences =
        squares(&mut truth.iter().zip(found).map(|(truth, found)| f64::from(truth - found)));
    let values = squares(&mut truth.iter().map(|&value| f64::from(value)));
    let error = if values > 0.0 { (differences / values).sqrt() } else { differences.sqrt() };
    if error.is_finite() { error } else { f64::MAX }
}

/// Returns the nodes with the largest errors, in their own order.
fn worst(taps: &[NodeError]) -> Vec<NodeError> {
    let mut order: Vec<usize> = (0..taps.len()).collect();
    order.sort_by(|&one, &other| taps[other].error.total_cmp(&taps[one].error));
    order.truncate(LISTED);
    order.sort_unstable();
    order.into_iter().map(|index| taps[index].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_are_listed_in_order_of_computation() {
        let tap = |index: usize| NodeError {
            node: format!("n{index}"),
            error: ((index * 7) % 12) as f64,
        };
        let taps: Vec<NodeError> = (0..12).map(tap).collect();
        let listed = worst(&taps);
        assert_eq!(listed.len(), LISTED);
        let names: Vec<&str> = listed.iter().map(|tap| tap.node.as_str()).collect();
        // Of 0, 7, 2, 9, 4, 11, 6, 1, 8, 3, 10, 5 the least two are the first and the eighth.
        assert_eq!(names, ["n1", "n2", "n3", "n4", "n5", "n6", "n8", "n9", "n10", "n11"]);
    }

    #[test]
    fn errors_are_relative_and_never_lost() {
        assert_eq!(error(&[3.0, 4.0], &[3.0, 4.5]), 0.1);
        assert_eq!(error(&[0.0], &[2.0]), 2.0);
        assert_eq!(error(&[1.0], &[f32::NAN]), f64::MAX);
    }
}
