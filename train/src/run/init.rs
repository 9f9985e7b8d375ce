//! Checkpoints of random networks, for tests of everything after training.

use std::path::Path;

use anyhow::Result;
use protoseg_models::arch::{Arch, Preset};
use protoseg_models::checkpoint::{Checkpoint, CheckpointHeader};
use protoseg_models::classes::ClassTable;
use protoseg_models::formula;
use protoseg_models::window::LogitGrid;
use tch::Device;

use crate::net::Net;
use crate::probe;

/// Writes a checkpoint of a preset for the Cityscapes classes, with random weights, running statistics other than 0 and 1,
/// and a probe.
pub fn init(preset: Preset, seed: u64, out: &Path) -> Result<()> {
    let classes = ClassTable::cityscapes();
    let arch = Arch::new(preset, classes.count())?;
    let graph = arch.graph();
    let weights = formula::weights(&graph, Some(seed));
    let net = Net::new(graph, &weights, Device::Cpu)?;
    let grid = LogitGrid::from_arch(arch);
    let checkpoint = Checkpoint {
        header: CheckpointHeader::new(
            format!("{preset}-random-{seed}"),
            arch,
            classes,
            Some(grid.default_window()),
        ),
        weights,
        probe: probe::record(&net, grid, None)?,
        calibration: None,
        prototypes: None,
        metrics: None,
        config: String::new(),
    };
    Ok(checkpoint.write(out)?)
}
