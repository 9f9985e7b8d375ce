//! What the steps of an acceptance work on: drawn scenes, and a network as it is at the end of a warm-up.

use anyhow::{Context, Result};
use protoseg_models::arch::{Arch, Preset};
use protoseg_models::graph::{Graph, Op, Rewrite};
use protoseg_models::weights::StateDict;
use protoseg_models::window::LogitGrid;
use tch::{Device, Tensor};

use crate::config::Config;
use crate::data::lists::Lists;
use crate::data::loader::{BatchBuilder, ImageCaches, MicroBatch};
use crate::method::precise_bn;
use crate::method::prototype_init::{self, feature_node};
use crate::method::prototypes::{PrototypeCounters, PrototypeSettings, Prototypes};
use crate::method::schedule::Schedule;
use crate::net::{Net, mean_color};
use crate::pretrained;

/// Every crop is mixed, and the learning rate is so low that what rounding does to one step hardly grows in the next: each
/// step's loss and gradient are compared, not what chaos makes of them.
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
"#;

/// The last layer's weights over those that training starts from: of even scores, rounding decides which are dropped.
const SURE: f32 = 10.0;
/// Scales of what blocks add to their input over those that training starts from (Goyal et al., ImageNet in 1 Hour, 2017,
/// begin with 0): without, an untrained network makes of rounding errors gradients of any direction.
const DAMPED: f32 = 0.1;
/// Batches over which running statistics are measured.
const SETTLED: u64 = 2;

/// Crops of a step and how many steps there are.
#[derive(Debug, Clone, Copy)]
pub(super) struct StepSize {
    /// Side of a crop in steps of the encoder's stride; networks with aligned corners get one pixel more.
    pub(super) cells: usize,
    /// Labelled crops, and as many unlabelled ones.
    pub(super) batch: usize,
    /// Steps before those that count.
    pub(super) warmup: u64,
    /// Steps that count.
    pub(super) steps: u64,
}

/// A network's steps of a size.
pub(super) struct AcceptSetup {
    pub(super) config: Config,
    pub(super) schedule: Schedule,
    pub(super) graph: Graph,
    pub(super) arch: Arch,
    pub(super) lists: Lists,
    recipe: BatchBuilder,
    shelves: ImageCaches,
}

/// Weights and prototypes that every trial of a network begins with.
pub(super) struct InitialState {
    pub(super) weights: StateDict,
    values: Tensor,
    mean: Tensor,
    counters: PrototypeCounters,
}

impl AcceptSetup {
    pub(super) fn new(network: Preset, size: StepSize) -> Result<Self> {
        let side = size.cells * network.encoder_stride();
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
        let recipe =
            BatchBuilder::new(&config, schedule.unlabeled_from(config.mode), mean_color(&graph));
        let shelves = ImageCaches::new(lists.labeled.clone(), lists.unlabeled.clone());
        Ok(Self { config, schedule, graph, arch, lists, recipe, shelves })
    }

    /// Without dropout, whose draws differ from device to device.
    pub(super) fn without_dropout(mut self) -> Self {
        self.graph = self.graph.filter_map(|_, node| match node.op {
            Op::Dropout2d { .. } => Rewrite::Bypass(node.inputs[0]),
            _ => Rewrite::Keep(node.clone()),
        });
        self
    }

    /// The batches of the first steps.
    pub(super) fn batches(&self, steps: u64) -> Result<Vec<Vec<MicroBatch>>> {
        (0..steps).map(|step| self.recipe.make(&self.shelves, step)).collect()
    }

    pub(super) fn grid(&self) -> LogitGrid {
        LogitGrid::from_arch(self.arch)
    }

    fn prototype_settings(&self) -> PrototypeSettings {
        PrototypeSettings::from_config(&self.config, self.lists.classes.count())
    }
}

impl InitialState {
    /// Random weights whose running statistics have been measured, and the prototypes that a run would begin with.
    pub(super) fn new(setting: &AcceptSetup) -> Result<Self> {
        let mut weights = pretrained::initial(&setting.graph, setting.config.seed);
        pretrained::sharpen(&mut weights, &setting.graph, SURE)?;
        damp(&mut weights, &setting.graph)?;
        let net = Net::new(setting.graph.clone(), &weights, Device::Cpu)?;
        precise_bn::update_statistics(&net, &setting.recipe, &setting.shelves.labeled, SETTLED)?;
        let node = feature_node(&setting.graph, setting.config.features)?;
        let labeled = setting.lists.labeled.as_ref();
        let found = prototype_init::initialize(
            &net,
            node,
            labeled,
            setting.prototype_settings(),
            setting.grid(),
        )
        .context("the first prototypes")?;
        let (values, mean) = (found.values().shallow_clone(), found.mean().shallow_clone());
        Ok(Self { weights: net.state_dict()?, values, mean, counters: found.counters() })
    }

    /// The prototypes on a device.
    pub(super) fn prototypes(&self, setting: &AcceptSetup, device: Device) -> Result<Prototypes> {
        let [values, mean] = [&self.values, &self.mean].map(|tensor| tensor.f_to_device(device));
        Ok(Prototypes::from_saved(
            setting.prototype_settings(),
            values?,
            mean?,
            self.counters.clone(),
        ))
    }
}

/// Makes less of what blocks add to their input.
fn damp(weights: &mut StateDict, graph: &Graph) -> Result<()> {
    // A sum's first input is the block, its second what the block was given.
    let added = graph
        .nodes()
        .iter()
        .filter(|node| node.op == Op::Add)
        .filter_map(|node| node.inputs.first());
    for node in
        added.map(|&input| graph.node(input)).filter(|node| matches!(node.op, Op::BatchNorm { .. }))
    {
        let scales = weights
            .get_mut(&format!("{}.weight", node.name))
            .context("a normalisation without scales")?;
        scales.data.fill(DAMPED);
    }
    Ok(())
}
