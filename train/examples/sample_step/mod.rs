//! A semi-supervised step on drawn scenes, made of what a run makes its steps of: for the example that writes one down and
//! for the bench that times one.

// Each program uses its own part.
#![allow(dead_code, clippy::allow_attributes, reason = "each program uses its own part")]

pub(crate) mod files;

use std::path::Path;

use anyhow::{Context, Result};
use protoseg_models::analysis::Role;
use protoseg_models::arch::{Arch, Preset};
use protoseg_models::graph::Graph;
use protoseg_models::random::Stream;
use protoseg_models::weights::{StateDict, Tensor};
use protoseg_train::config::Config;
use protoseg_train::data::lists::Lists;
use protoseg_train::data::loader::{BatchBuilder, ImageCaches, MicroBatch};
use protoseg_train::method::class_counters::ClassCounters;
use protoseg_train::method::optimizer::Sgd;
use protoseg_train::method::prototype_init::feature_node;
use protoseg_train::method::prototypes::{PrototypeSettings, Prototypes};
use protoseg_train::method::schedule::Schedule;
use protoseg_train::method::step::{Learner, StepState};
use protoseg_train::method::{precise_bn, teacher};
use protoseg_train::net::{Net, to_torch};
use protoseg_train::pretrained;
use tch::{Device, Kind};

/// A quarter of the steps after the warm-up lie before the sample's.
const CONFIG: &str = r#"
name = "sample"
data = "synthetic"
synthetic_labeled = 8
synthetic_unlabeled = 8
synthetic_validation = 0
synthetic_size = [96, 192]
network = "deeplabv3plus-efficientnet-lite0"
mode = "prototype"
warmup_steps = 20
steps = 32
batch = 2
accumulate = 2
crop = 96
learning_rate = 0.02
head_multiplier = 5
weight_decay = 1e-4
"#;
/// The step that is made.
pub(crate) const STEP: u64 = 23;
const ENCODER: &str = "../.runtime/weights/efficientnet-lite0.pth";
/// Colour of padding.
const PADDING: [u8; 3] = [127; 3];
/// The last layer's weights over those that training starts from, so that the teacher is sure of some pixels.
const SURE: f32 = 50.0;
/// How far normalisations lie from what they start with.
const TRAINED: f64 = 0.1;
/// How far the teacher's numbers lie from the student's.
const APART: f64 = 0.02;
/// Size of the velocity that the optimiser comes with.
const VELOCITY: f64 = 0.01;
/// Batches over which running statistics are measured.
const SETTLED: u64 = 4;

/// What a step works with.
pub(crate) struct SampleStep {
    pub(crate) config: Config,
    pub(crate) schedule: Schedule,
    pub(crate) classes: usize,
    pub(crate) student: Net,
    pub(crate) teacher: Net,
    pub(crate) recipe: BatchBuilder,
    pub(crate) shelves: ImageCaches,
}

/// What a step changes, beside the weights.
pub(crate) struct SampleState {
    pub(crate) sgd: Sgd,
    pub(crate) prototypes: Prototypes,
    pub(crate) tally: ClassCounters,
}

impl SampleStep {
    /// A setting of other `key=value` settings than the usual ones: an encoder trained on ImageNet, where setup has fetched
    /// one, and random weights otherwise.
    pub(crate) fn new(settings: &[String]) -> Result<Self> {
        let config = Config::parse(CONFIG, settings)?;
        let lists = Lists::open(&config)?;
        let classes = lists.classes.count();
        let graph = Arch::new(config.network, classes)?.graph();
        let unlabeled = lists.unlabeled.context("the sample needs unlabelled scenes")?;
        let schedule = Schedule::new(&config, lists.labeled.count(), Some(unlabeled.count()))?;
        let recipe = BatchBuilder::new(&config, schedule, PADDING);
        let shelves = ImageCaches::new(lists.labeled, Some(unlabeled));

        let weights = weights(&graph, &config)?;
        let student = Net::new(graph.clone(), &weights, Device::Cpu)?;
        // One picture cannot be normalised.
        let pairs = BatchBuilder { batch: recipe.batch.max(2), ..recipe };
        precise_bn::update_statistics(&student, &pairs, &shelves.labeled, SETTLED)?;
        let mut weights = student.state_dict()?;
        for (name, tensor) in &mut weights {
            let stream = Stream::named(name).child(1);
            for (index, value) in tensor.data.iter_mut().enumerate() {
                *value *= (1.0 + APART * stream.normal(index as u64)) as f32;
            }
        }
        let teacher = Net::new(graph, &weights, Device::Cpu)?;
        Ok(Self { config, schedule, classes, student, teacher, recipe, shelves })
    }

    pub(crate) fn align_corners(&self) -> bool {
        self.config.network.align_corners()
    }

    pub(crate) fn learner(&self) -> Learner<'_> {
        Learner {
            config: &self.config,
            schedule: self.schedule,
            student: &self.student,
            teacher: &self.teacher,
            class_weights: None,
            align_corners: self.align_corners(),
        }
    }

    /// Velocities that are not zero, and prototypes of random directions.
    pub(crate) fn state(&self) -> Result<SampleState> {
        let velocity: StateDict = self
            .student
            .trainable()
            .map(|(name, tensor)| {
                let stream = Stream::named(name).child(2);
                let shape: Vec<usize> =
                    tensor.size().into_iter().map(|size| size as usize).collect();
                (
                    name.to_owned(),
                    Tensor::from_fn(&shape, |index| {
                        (VELOCITY * stream.normal(index as u64)) as f32
                    }),
                )
            })
            .collect();
        let mut sgd = Sgd::new(self.config.momentum, self.config.weight_decay);
        sgd.load(&velocity, &self.student)?;

        let settings = PrototypeSettings::from_config(&self.config, self.classes);
        let graph = self.student.graph();
        let channels = graph.node(feature_node(graph, self.config.features)?).channels;
        let stream = Stream::keyed(&[3]);
        // Features are not negative, so neither are these.
        let rows = Tensor::from_fn(&[self.classes * settings.per_class, channels], |index| {
            stream.normal(index as u64).abs() as f32
        });
        let rows = to_torch(&rows, Device::Cpu)?;
        let rows = rows.f_div(&rows.f_norm_scalaropt_dim(2.0, [1_i64].as_slice(), true)?)?;
        let mean = tch::Tensor::f_zeros([channels as i64], (Kind::Float, Device::Cpu))?;
        let prototypes = Prototypes::new(settings, rows, mean, vec![true; self.classes]);
        Ok(SampleState { sgd, prototypes, tally: ClassCounters::new(self.classes, Device::Cpu)? })
    }

    /// The micro-batches of the step.
    pub(crate) fn batches(&self) -> Result<Vec<MicroBatch>> {
        self.recipe.make(&self.shelves, STEP)
    }

    /// Numbers of the step's micro-batches, counted through from those of step 0.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u64> {
        let count = self.config.accumulate as u64;
        STEP * count..(STEP + 1) * count
    }

    /// Share of the teacher that the step leaves.
    pub(crate) fn decay(&self) -> f64 {
        teacher::decay_at(STEP - self.schedule.warmup, self.config.teacher_decay)
    }

    /// The whole step, the teacher's move included.
    pub(crate) fn step(&self, state: &mut SampleState, batches: &[MicroBatch]) -> Result<()> {
        let SampleState { sgd, prototypes, tally } = state;
        self.learner().step(
            StepState { sgd, prototypes: Some(prototypes), tally },
            batches,
            STEP,
        )?;
        teacher::update_ema(&self.teacher, &self.student, self.decay(), true)
    }
}

/// Weights such as those of a network that has been trained for a while: nothing in them is exactly 0 or 1, where gradients
/// would vanish by symmetry.
fn weights(graph: &Graph, config: &Config) -> Result<StateDict> {
    let mut weights = pretrained::initial(graph, config.seed);
    for parameter in graph.parameters() {
        let stream = Stream::named(&parameter.name).child(4);
        let tensor = weights.get_mut(&parameter.name).context("a parameter without a start")?;
        if matches!(parameter.role, Role::Bias | Role::NormBias | Role::NormWeight) {
            for (index, value) in tensor.data.iter_mut().enumerate() {
                *value += (TRAINED * stream.normal(index as u64)) as f32;
            }
        }
    }
    let encoder = Path::new(env!("CARGO_MANIFEST_DIR")).join(ENCODER);
    if config.network == Preset::DeepLabV3PlusEfficientNetLite0 && encoder.exists() {
        pretrained::load(&mut weights, &encoder)?;
    }
    pretrained::sharpen(&mut weights, graph, SURE)?;
    Ok(weights)
}
