//! Inputs of the tested steps: synthetic scenes, and a network in the state that it has at the end
//! of a warm-up.

use anyhow::{Context, Result};
use protoseg_models::arch::{Arch, Preset};
use protoseg_models::graph::{Graph, Op, Rewrite};
use protoseg_models::weights::StateDict;
use protoseg_models::window::LogitGrid;
use tch::Device;

use crate::config::Config;
use crate::config::options::Precision;
use crate::data::augment::Geometry;
use crate::data::lists::Lists;
use crate::data::loader::{BatchBuilder, ImageCaches, MicroBatch};
use crate::interrupt::Interrupt;
use crate::method::prototypes::{PrototypeSettings, Prototypes};
use crate::method::schedule::Schedule;
use crate::method::step::Learner;
use crate::net::mean_color;
use crate::pretrained;
use crate::progress::Progress;
use crate::run::warmup_end::WarmupEnd;

/// Every crop is mixed. The learning rate is so low that rounding in one step hardly grows in the
/// next, so that each step's loss and gradient can be compared.
const CONFIG: &str = r#"
name = "accept"
data = "synthetic"
synthetic_labeled = 4
synthetic_unlabeled = 4
synthetic_validation = 0
mode = "prototype"
steps = 1000
learning_rate = 1e-6
head_multiplier = 5
weight_decay = 1e-4
cutmix = 1
precise_bn_batches = 2
"#;

/// Factor on the initial weights of the last layer: with nearly even logits, rounding would decide
/// which pixels the entropy drop keeps.
const SHARPNESS: f32 = 10.0;
/// Scale of the residual branches (Goyal et al., ImageNet in 1 Hour, 2017, start from 0): without
/// it, an untrained network turns rounding errors into gradients of any direction.
const RESIDUAL_SCALE: f32 = 0.1;

#[derive(Debug, Clone, Copy)]
pub(super) struct StepSize {
    /// Side of a crop in encoder strides; networks with aligned corners get one pixel more.
    pub(super) cells: usize,
    /// Labeled crops, and as many unlabeled ones.
    pub(super) batch: usize,
    /// Steps that are not timed.
    pub(super) warmup: u64,
    pub(super) steps: u64,
}

/// A network and its batches.
pub(super) struct AcceptSetup {
    pub(super) config: Config,
    pub(super) graph: Graph,
    pub(super) arch: Arch,
    pub(super) lists: Lists,
    schedule: Schedule,
    batches: BatchBuilder,
    caches: ImageCaches,
}

/// Weights and prototypes that every trial of a network starts from.
pub(super) struct InitialState {
    pub(super) weights: StateDict,
    prototypes: Prototypes,
}

impl AcceptSetup {
    pub(super) fn new(network: Preset, size: StepSize) -> Result<Self> {
        let side = size.cells * Arch::new(network, 2)?.encoder_stride();
        let crop = side + usize::from(network.align_corners());
        let settings = [
            format!("network={network}"),
            format!("batch={}", size.batch),
            format!("crop={crop}"),
            format!("synthetic_size=[{side}, {}]", 2 * side),
        ];
        let config = Config::parse(CONFIG, &settings)?;
        let lists = Lists::open(&config)?;
        let arch = Arch::new(network, lists.classes.count())?;
        let graph = arch.graph();
        let unlabeled = lists.unlabeled.as_ref().map(|unlabeled| unlabeled.count());
        let schedule = Schedule::new(&config, lists.labeled.count(), unlabeled)?;
        let unlabeled_from = schedule.unlabeled_from(config.mode);
        let batches = BatchBuilder::new(
            &config,
            Geometry::new(&config, &lists.classes)?,
            unlabeled_from,
            mean_color(&graph),
        );
        let caches = ImageCaches::new(lists.labeled.clone(), lists.unlabeled.clone());
        Ok(Self { config, graph, arch, lists, schedule, batches, caches })
    }

    /// Removes dropout, whose random numbers differ from device to device.
    pub(super) fn without_dropout(mut self) -> Self {
        self.graph = self.graph.filter_map(|_, node| match node.op {
            Op::Dropout2d { .. } => Rewrite::Bypass(node.inputs[0]),
            _ => Rewrite::Keep(node.clone()),
        });
        self
    }

    /// Micro-batches of the first steps.
    pub(super) fn batches(&self, steps: u64) -> Result<Vec<Vec<MicroBatch>>> {
        (0..steps).map(|step| self.batches.make(&self.caches, step)).collect()
    }

    /// Random weights after the end of a warm-up, and the prototypes initialized there.
    pub(super) fn initial_state(&self) -> Result<InitialState> {
        let mut weights = pretrained::initial(&self.graph, self.config.seed);
        pretrained::sharpen(&mut weights, &self.graph, SHARPNESS)?;
        scale_residual_branches(&mut weights, &self.graph)?;
        let mut learner =
            Learner::new(&self.config, self.schedule, &self.graph, &weights, Device::Cpu)?;
        let grid = LogitGrid::from_arch(self.arch);
        let ending = WarmupEnd {
            builder: &self.batches,
            caches: &self.caches,
            lists: &self.lists,
            grid,
            interrupt: Interrupt::never(),
        };
        ending.run(&mut learner, |_, _, _| Progress::hidden())?;
        let prototypes = learner.prototypes.context("the warm-up initialized no prototypes")?;
        Ok(InitialState { weights: learner.teacher.state_dict()?, prototypes })
    }

    /// A learner in the initial state, on a device.
    pub(super) fn learner(
        &self,
        initial: &InitialState,
        device: Device,
        precision: Precision,
    ) -> Result<Learner<'_>> {
        let mut learner =
            Learner::new(&self.config, self.schedule, &self.graph, &initial.weights, device)?;
        learner.student = learner.student.with_precision(precision);
        learner.teacher = learner.teacher.with_precision(precision);
        learner.teacher_ready = true;
        learner.prototypes = Some(Prototypes::from_saved(
            PrototypeSettings::from_config(&self.config, learner.classes()),
            initial.prototypes.values().f_to_device(device)?,
            initial.prototypes.mean().f_to_device(device)?,
            initial.prototypes.counters().clone(),
        ));
        Ok(learner)
    }
}

fn scale_residual_branches(weights: &mut StateDict, graph: &Graph) -> Result<()> {
    for add in graph.nodes().iter().filter(|node| node.op == Op::Add) {
        // The first input of an addition is the residual branch, the second its input.
        let Some(&branch) = add.inputs.first() else { continue };
        let branch = graph.node(branch);
        if matches!(branch.op, Op::BatchNorm { .. }) {
            let scales = weights
                .get_mut(&format!("{}.weight", branch.name))
                .context("a batch normalization without scales")?;
            scales.data.fill(RESIDUAL_SCALE);
        }
    }
    Ok(())
}
