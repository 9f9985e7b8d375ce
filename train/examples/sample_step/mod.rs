//! A semi-supervised step on synthetic scenes, shared by the `record_step` example and the benches.

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
use protoseg_train::data::augment::Geometry;
use protoseg_train::data::lists::Lists;
use protoseg_train::data::loader::{BatchBuilder, ImageCaches, MicroBatch};
use protoseg_train::interrupt::Interrupt;
use protoseg_train::method::prototype_init::feature_node;
use protoseg_train::method::prototypes::{PrototypeSettings, Prototypes};
use protoseg_train::method::schedule::Schedule;
use protoseg_train::method::step::Learner;
use protoseg_train::method::{precise_bn, teacher};
use protoseg_train::net::{Net, to_torch};
use protoseg_train::pretrained;
use protoseg_train::progress::Progress;
use tch::{Device, Kind};

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
/// Number of the step: a quarter of those after the warm-up precede it.
pub(crate) const STEP: u64 = 23;
const ENCODER: &str = "../.runtime/weights/efficientnet-lite0.pth";
const PADDING_COLOR: [u8; 3] = [127; 3];
/// Factor of the classifier's initial weights, so that the teacher is confident about some pixels.
const CLASSIFIER_SCALE: f32 = 50.0;
/// Deviation of biases and scales from their initial values.
const PARAMETER_NOISE: f64 = 0.1;
/// Relative deviation of the teacher from the student.
const TEACHER_NOISE: f64 = 0.02;
/// Deviation of the optimizer's momentum buffers.
const VELOCITY: f64 = 0.01;
const PRECISE_BN_BATCHES: u64 = 4;

/// Configuration, data and initial weights of the step.
pub(crate) struct SampleStep {
    pub(crate) config: Config,
    pub(crate) schedule: Schedule,
    graph: Graph,
    student: StateDict,
    teacher: StateDict,
    pub(crate) builder: BatchBuilder,
    pub(crate) caches: ImageCaches,
}

impl SampleStep {
    /// A step with changed `key=value` settings; the encoder has ImageNet weights where setup has fetched them, and
    /// random ones otherwise.
    pub(crate) fn new(settings: &[String]) -> Result<Self> {
        let config = Config::parse(CONFIG, settings)?;
        let lists = Lists::open(&config)?;
        let graph = Arch::new(config.network, lists.classes.count())?.graph();
        let unlabeled = lists.unlabeled.context("the sample needs unlabeled scenes")?;
        let schedule = Schedule::new(&config, lists.labeled.count(), Some(unlabeled.count()))?;
        let geometry = Geometry::new(&config, &lists.classes)?;
        let unlabeled_from = schedule.unlabeled_from(config.mode);
        let builder = BatchBuilder::new(&config, geometry, unlabeled_from, PADDING_COLOR);
        let caches = ImageCaches::new(lists.labeled, Some(unlabeled));

        let net = Net::new(graph.clone(), &initial_weights(&graph, &config)?, Device::Cpu)?;
        // A batch of one image cannot be normalized.
        let pairs = BatchBuilder { batch: builder.batch.max(2), ..builder.clone() };
        precise_bn::update_statistics(
            &net,
            &pairs,
            &caches.labeled,
            PRECISE_BN_BATCHES,
            &Interrupt::never(),
            &Progress::hidden(),
        )?;
        let student = net.state_dict()?;
        let mut teacher = student.clone();
        for (name, tensor) in &mut teacher {
            let stream = Stream::named(name).child(1);
            for (index, value) in tensor.data.iter_mut().enumerate() {
                *value *= (1.0 + TEACHER_NOISE * stream.normal(index as u64)) as f32;
            }
        }
        Ok(Self { config, schedule, graph, student, teacher, builder, caches })
    }

    /// Returns the learner before the step, with momentum and prototypes in random directions.
    pub(crate) fn learner(&self) -> Result<Learner<'_>> {
        let mut learner =
            Learner::new(&self.config, self.schedule, &self.graph, &self.student, Device::Cpu)?;
        learner.teacher = Net::new(self.graph.clone(), &self.teacher, Device::Cpu)?;
        learner.teacher_ready = true;
        let velocity = |(name, tensor): (&str, &tch::Tensor)| {
            let stream = Stream::named(name).child(2);
            let shape: Vec<usize> = tensor.size().into_iter().map(|size| size as usize).collect();
            let value = |index| (VELOCITY * stream.normal(index as u64)) as f32;
            (name.to_owned(), Tensor::from_fn(&shape, value))
        };
        let velocity: StateDict = learner.student.trainable().map(velocity).collect();
        learner.optimizer.load(&velocity, &learner.student)?;
        learner.prototypes = Some(self.prototypes(learner.classes())?);
        Ok(learner)
    }

    fn prototypes(&self, classes: usize) -> Result<Prototypes> {
        let settings = PrototypeSettings::from_config(&self.config, classes);
        let channels = self.graph.node(feature_node(&self.graph, self.config.features)?).channels;
        let stream = Stream::keyed(&[3]);
        // Like the features, which follow a ReLU, these are not negative.
        let rows = Tensor::from_fn(&[classes * settings.per_class, channels], |index| {
            stream.normal(index as u64).abs() as f32
        });
        let rows = to_torch(&rows, Device::Cpu)?;
        let rows = rows.f_div(&rows.f_norm_scalaropt_dim(2.0, [1_i64].as_slice(), true)?)?;
        let mean = tch::Tensor::f_zeros([channels as i64], (Kind::Float, Device::Cpu))?;
        Ok(Prototypes::new(settings, rows, mean, vec![true; classes]))
    }

    /// Makes the micro-batches of the step.
    pub(crate) fn batches(&self) -> Result<Vec<MicroBatch>> {
        self.builder.make(&self.caches, STEP)
    }

    /// Numbers of the step's micro-batches, counted from the first of step 0.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u64> {
        let count = self.config.accumulate as u64;
        STEP * count..(STEP + 1) * count
    }

    /// Decay of the teacher in the step.
    pub(crate) fn decay(&self) -> f64 {
        teacher::decay_at(STEP - self.schedule.warmup, self.config.teacher_decay)
    }
}

/// Returns weights as of a network that has been trained for a while: no parameter is exactly 0 or 1, where gradients
/// would vanish by symmetry.
fn initial_weights(graph: &Graph, config: &Config) -> Result<StateDict> {
    let mut weights = pretrained::initial(graph, config.seed);
    for parameter in graph.parameters() {
        let stream = Stream::named(&parameter.name).child(4);
        let tensor = weights.get_mut(&parameter.name).context("a parameter without a start")?;
        if matches!(parameter.role, Role::Bias | Role::NormBias | Role::NormWeight) {
            for (index, value) in tensor.data.iter_mut().enumerate() {
                *value += (PARAMETER_NOISE * stream.normal(index as u64)) as f32;
            }
        }
    }
    let encoder = Path::new(env!("CARGO_MANIFEST_DIR")).join(ENCODER);
    if config.network == Preset::DeepLabV3PlusEfficientNetLite0 && encoder.exists() {
        pretrained::load(&mut weights, &encoder)?;
    }
    pretrained::sharpen(&mut weights, graph, CLASSIFIER_SCALE)?;
    Ok(weights)
}
