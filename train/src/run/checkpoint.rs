//! The published checkpoint of a run.

use anyhow::Result;
use protoseg_models::arch::Arch;
use protoseg_models::checkpoint::{Checkpoint, CheckpointHeader};
use protoseg_models::classes::ClassTable;
use protoseg_models::metrics::Metrics;
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
    let config = learner.config;
    let (_, net) = learner.evaluated_net();
    let net = net.with_precision(Precision::Float32);
    let weights = net.state_dict()?;
    ensure_finite(&weights)?;
    let prototypes = match &learner.prototypes {
        Some(prototypes) => Some((feature_node(net.graph(), config.features)?, prototypes)),
        None => None,
    };
    let published = match prototypes {
        Some((node, prototypes)) => Some(prototypes.published(&net.graph().node(node).name)?),
        None => None,
    };
    let header = CheckpointHeader::new(&config.name, arch, classes.clone(), config.window);
    Ok(Checkpoint {
        header: CheckpointHeader { reading: config.reading(), ..header },
        weights,
        probe: probe::record(&net, LogitGrid::from_arch(arch), prototypes)?,
        calibration: None,
        prototypes: published,
        metrics,
        config: toml::to_string(config)?,
    })
}
