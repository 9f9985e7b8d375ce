//! The published checkpoint of a run.

use std::path::Path;

use anyhow::Result;
use protoseg_models::arch::Arch;
use protoseg_models::checkpoint::{Checkpoint, CheckpointHeader};
use protoseg_models::classes::ClassTable;
use protoseg_models::metrics::Metrics;
use protoseg_models::probe::ProbeCase;
use protoseg_models::window::LogitGrid;

use crate::config::options::Precision;
use crate::method::prototype_init::feature_node;
use crate::method::step::Learner;
use crate::probe;
use crate::run::state::ensure_finite;

/// Returns the evaluated network as a checkpoint, with its probe and the prototypes, without calibration.
pub fn from_learner(
    learner: &Learner,
    arch: Arch,
    classes: &ClassTable,
    metrics: Option<Metrics>,
) -> Result<Checkpoint> {
    let probe = record_probe(learner, arch)?;
    Ok(Checkpoint { probe, metrics, ..weights_only(learner, arch, classes)? })
}

/// Returns the evaluated network and the prototypes, without anything that takes a forward pass.
pub fn weights_only(learner: &Learner, arch: Arch, classes: &ClassTable) -> Result<Checkpoint> {
    let config = learner.config;
    let (_, net) = learner.evaluated_net();
    let weights = net.state_dict()?;
    ensure_finite(&weights)?;
    let published = match &learner.prototypes {
        Some(prototypes) => {
            let node = feature_node(net.graph(), config.features)?;
            Some(prototypes.published(&net.graph().node(node).name)?)
        }
        None => None,
    };
    let header = CheckpointHeader::new(&config.name, arch, classes.clone(), config.window);
    Ok(Checkpoint {
        header: CheckpointHeader { reading: config.reading(), ..header },
        weights,
        probe: Vec::new(),
        calibration: None,
        prototypes: published,
        metrics: None,
        config: toml::to_string(config)?,
    })
}

/// Records the probe of the evaluated network in 32-bit floats.
pub fn record_probe(learner: &Learner, arch: Arch) -> Result<Vec<ProbeCase>> {
    let (_, net) = learner.evaluated_net();
    let net = net.with_precision(Precision::Float32);
    let prototypes = match &learner.prototypes {
        Some(prototypes) => Some((feature_node(net.graph(), learner.config.features)?, prototypes)),
        None => None,
    };
    probe::record(&net, LogitGrid::from_arch(arch), prototypes)
}

/// Takes over probe, scores and calibration from the checkpoint that an interrupted end of the same run left in a folder, if
/// its weights are the same.
pub fn continue_from(fresh: Checkpoint, folder: &Path) -> Checkpoint {
    match Checkpoint::read(folder) {
        Ok(left) if left.weights == fresh.weights && left.prototypes == fresh.prototypes => {
            // Large images are calibrated by their windows.
            let same = left.header.window == fresh.header.window;
            let calibration = left.calibration.filter(|_| same);
            Checkpoint { probe: left.probe, metrics: left.metrics, calibration, ..fresh }
        }
        _ => fresh,
    }
}
