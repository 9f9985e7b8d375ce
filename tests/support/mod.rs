//! Helpers of tests across packages: optional real data, programs, and reference outputs.

#![allow(dead_code, clippy::allow_attributes, reason = "each test program uses a part")]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use protoseg_models::arch::{Arch, Preset};
use protoseg_models::calibration::{Calibration, HISTOGRAM_BINS, NodeRange};
use protoseg_models::checkpoint::{Checkpoint, CheckpointHeader};
use protoseg_models::classes::ClassTable;
use protoseg_models::formula;
use safetensors::SafeTensors;

/// Returns the root of the repository.
pub(crate) fn repository() -> &'static Path {
    let mut folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    folders.find(|folder| folder.join("xtask").is_dir()).expect("packages lie in the repository")
}

/// Returns a file or folder of real data below `PROTOSEG_DATA`, by default `../shared/data`. If it
/// is absent, the check is recorded as skipped, or fails if `PROTOSEG_REQUIRE_DATA` is set.
pub(crate) fn real_data(check: &str, path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("PROTOSEG_DATA")
        .map_or_else(|| repository().join("../shared/data"), PathBuf::from);
    let place = root.join(path);
    if place.exists() {
        return Some(place);
    }
    assert!(
        std::env::var_os("PROTOSEG_REQUIRE_DATA").is_none(),
        "{check} needs {}",
        place.display()
    );
    skip(check, &format!("no {path} in the data folder"));
    None
}

/// Records a skipped check in the file `PROTOSEG_SKIPPED`.
pub(crate) fn skip(check: &str, reason: &str) {
    if let Some(list) = std::env::var_os("PROTOSEG_SKIPPED") {
        let mut list = std::fs::OpenOptions::new()
            .append(true)
            .open(list)
            .expect("the list of skipped checks");
        writeln!(list, "{check}: {reason}").expect("the list of skipped checks");
    }
    eprintln!("skipped {check}: {reason}");
}

/// Reads the tensors of reference outputs: shape and bytes by name.
pub(crate) fn tensors(path: &Path) -> BTreeMap<String, (Vec<usize>, Vec<u8>)> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = SafeTensors::deserialize(&bytes)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    file.iter()
        .map(|(name, view)| (name.to_owned(), (view.shape().to_vec(), view.data().to_vec())))
        .collect()
}

/// Decodes little-endian floats.
pub(crate) fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect()
}

/// Returns the largest difference over the largest expected value.
pub(crate) fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let difference = found.iter().zip(expected).map(|(found, expected)| (found - expected).abs());
    // A NaN exceeds every tolerance.
    let error = difference
        .map(|value| if value.is_nan() { f32::INFINITY } else { value })
        .fold(0.0, f32::max);
    f64::from(error) / f64::from(largest)
}

/// An image with its size and the maps of four blocks, of which some hold the first channels alone.
pub(crate) type TransformerCase = (Vec<u8>, [usize; 2], [Vec<f32>; 4]);

/// Images of the DINOv2 fixture.
pub(crate) fn dinov2_cases(path: &Path) -> Vec<TransformerCase> {
    let expected = tensors(path);
    let case = |name: &str, height: usize, width: usize| {
        let image = expected[&format!("{name}.image")].1.clone();
        assert_eq!(image, formula::image(height, width));
        let block = |index| floats(&expected[&format!("{name}.block{index}")].1);
        (image, [height, width], [2, 5, 8, 11].map(block))
    };
    vec![case("98x126", 98, 126), case("154x196", 154, 196)]
}

/// Returns a program of the workspace from beside the tests; `cargo xtask test` builds all first.
pub(crate) fn program(name: &str) -> Command {
    let test = std::env::current_exe().expect("the path of the test");
    let program = test.ancestors().nth(2).expect("tests lie in target/release/deps").join(name);
    assert!(program.is_file(), "{} has not been built; run `cargo xtask test`", program.display());
    let mut command = Command::new(program);
    command.env_remove("LD_LIBRARY_PATH");
    command
}

/// Runs a program, which must succeed, and returns its standard output.
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {message}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Tolerance for another order of summation in 32-bit floats, over a hundred layers.
pub(crate) const UNFOLDED: f64 = 1e-4;
/// The same with batch normalization folded into convolutions.
pub(crate) const FOLDED: f64 = 1e-3;

/// Writes a checkpoint with formula weights for the classes of Cityscapes, and with calibration
/// ranges like those of a trained network, the same for all nodes.
pub(crate) fn write_checkpoint(folder: &Path, preset: Preset) {
    let arch = Arch::new(preset, 19).expect("19 classes");
    let graph = arch.graph();
    let range =
        NodeRange { min: -4.0, max: 6.0, histogram: vec![1; HISTOGRAM_BINS], sensitivity: 0.0 };
    let nodes =
        graph.nodes().iter().skip(1).map(|node| (node.name.clone(), range.clone())).collect();
    let calibration = Calibration {
        version: Calibration::VERSION.to_owned(),
        source: "none".to_owned(),
        count: 1,
        nodes,
    };
    let checkpoint = Checkpoint {
        header: CheckpointHeader::new("street scenes", arch, ClassTable::cityscapes(), None),
        weights: formula::weights(&graph, None),
        probe: Vec::new(),
        calibration: Some(calibration),
        prototypes: None,
        metrics: None,
        config: String::new(),
    };
    checkpoint.write(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
}
