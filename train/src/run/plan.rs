//! What a run will be, said before its first step.

use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::Result;
use protoseg_models::graph::Tag;
use protoseg_models::random::Stream;
use tch::{Kind, Tensor};

use crate::config::options::TrainingMode;
use crate::data::loader::{BatchBuilder, ImageCaches};
use crate::method::class_counters::ClassCounters;
use crate::method::optimizer::Sgd;
use crate::method::prototype_init::feature_node;
use crate::method::prototypes::{PrototypeSettings, Prototypes};
use crate::method::step::{Learner, StepState};
use crate::net::Net;
use crate::run::fit::Trainer;
use crate::run::memory;
use crate::streams::PROTOTYPE_INIT;

/// Steps of each kind that are tried; the last of them counts, as the first ones warm up libtorch's caches.
const TRIED: u64 = 2;

/// Time of a step of each kind, and the memory that steps need.
#[derive(Debug, Clone, Copy)]
pub struct StepCost {
    warmup: Duration,
    after: Duration,
    memory: Option<u64>,
}

impl Trainer<'_> {
    /// Tries steps of the run on copies of the networks that are thrown away, to know what a step costs.
    pub(crate) fn measure_step_cost(
        &self,
        recipe: &BatchBuilder,
        shelves: &ImageCaches,
    ) -> Result<StepCost> {
        let classes = self.lists.classes.count();
        let graph = self.student.graph();
        let copy = |net: &Net| -> Result<Net> {
            let copy = Net::new(graph.clone(), &net.state_dict()?, net.device())?;
            Ok(copy.with_precision(self.config.precision))
        };
        let (student, teacher) = (copy(&self.student)?, copy(&self.student)?);
        let mut prototypes = (self.config.mode == TrainingMode::Prototype)
            .then(|| self.random_prototypes())
            .transpose()?;
        let mut sgd = Sgd::new(self.config.momentum, self.config.weight_decay);
        let mut tally = ClassCounters::new(classes, student.device())?;
        let learner = Learner {
            config: self.config,
            schedule: self.schedule,
            student: &student,
            teacher: &teacher,
            class_weights: None,
            align_corners: self.protocol.grid.align_corners,
        };
        let mut time = |from: u64| -> Result<Duration> {
            let mut last = Duration::ZERO;
            for step in from..from + TRIED {
                let batches = recipe.make(shelves, step)?;
                let semi = batches.iter().any(|batch| batch.unlabeled.is_some());
                let prototypes = prototypes.as_mut().filter(|_| semi);
                let start = Instant::now();
                learner.step(
                    StepState { sgd: &mut sgd, prototypes, tally: &mut tally },
                    &batches,
                    step,
                )?;
                last = start.elapsed();
            }
            Ok(last)
        };
        let supervised = self.config.mode == TrainingMode::Supervised;
        let warmup = if self.schedule.warmup > 0 || supervised { time(0)? } else { Duration::ZERO };
        let after = if supervised { warmup } else { time(self.schedule.warmup)? };
        Ok(StepCost { warmup, after, memory: memory::peak() })
    }

    /// Prototypes of random directions, which cost as much as real ones.
    fn random_prototypes(&self) -> Result<Prototypes> {
        let settings = PrototypeSettings::from_config(self.config, self.lists.classes.count());
        let graph = self.student.graph();
        let channels = graph.node(feature_node(graph, self.config.features)?).channels as i64;
        let rows = (settings.classes * settings.per_class) as i64;
        let stream = Stream::keyed(&[self.config.seed, PROTOTYPE_INIT, 2]);
        let values: Vec<f32> =
            (0..(rows * channels) as u64).map(|index| stream.normal(index) as f32).collect();
        let values = Tensor::f_from_slice(&values)?
            .f_view([rows, channels])?
            .f_to_device(self.student.device())?;
        let mean = Tensor::f_zeros([channels], (Kind::Float, self.student.device()))?;
        Ok(Prototypes::new(settings, values, mean, vec![true; settings.classes]))
    }

    /// The plan in words: what is learnt from, how long, and the labelled pixels of each class.
    pub(crate) fn describe_plan(&self, pixels: &[u64], cost: StepCost) -> String {
        let (config, schedule) = (self.config, self.schedule);
        let count =
            |set: Option<usize>| set.map_or_else(|| "none".to_owned(), |count| count.to_string());
        let weights: usize = self.student.trainable().map(|(_, tensor)| tensor.numel()).sum();
        let crops = config.batch * config.accumulate;
        let channels = self
            .student
            .graph()
            .tagged(Tag::Features)
            .map(|id| self.student.graph().node(id).channels);
        let mut text = format!(
            "{} ({:.1} million weights, features of {} channels), {:?}, on {:?}\n\
             pictures: {} labelled, {} unlabelled, {} to score on\n\
             {} steps of {} micro-batches of {} crops of {}x{} ({} labelled crops a step), {} of them supervised warm-up; \
             an epoch is {} steps, the run {:.1} epochs\n\
             learning rate {:.3e}, decoder {:.3e}\n",
            config.network,
            weights as f64 / 1e6,
            channels.unwrap_or_default(),
            config.mode,
            self.student.device(),
            self.lists.labeled.count(),
            count(self.lists.unlabeled.as_ref().map(|set| set.count())),
            count(
                self.lists.validation.as_ref().map(protoseg_images::labeled::LabeledDataset::count)
            ),
            schedule.steps,
            config.accumulate,
            config.batch,
            config.crop,
            config.crop,
            crops,
            schedule.warmup,
            schedule.steps_per_epoch,
            schedule.steps as f64 / schedule.steps_per_epoch as f64,
            schedule.base_learning_rate,
            schedule.base_learning_rate * config.head_multiplier,
        );
        if config.accumulate > 1 {
            text.push_str("batch statistics, CutMix and thresholds are of each micro-batch, not of the whole step\n");
        }
        text.push_str("labelled pixels:\n");
        let all = pixels.iter().sum::<u64>().max(1) as f64;
        let width =
            self.lists.classes.classes().iter().map(|class| class.name.len()).max().unwrap_or(0);
        for (class, &pixels) in self.lists.classes.classes().iter().zip(pixels) {
            let share = pixels as f64 / all;
            let bar = "#".repeat((share * 40.0).ceil() as usize);
            // A text never refuses.
            let _ = writeln!(text, "  {:width$} {:5.1} % {bar}", class.name, 100.0 * share);
        }
        let seconds = cost.warmup.as_secs_f64() * schedule.warmup as f64
            + cost.after.as_secs_f64() * (schedule.steps - schedule.warmup) as f64;
        let _ = write!(
            text,
            "expected: {} without scoring ({:.2} s a step in the warm-up, {:.2} s after it)",
            clock(seconds),
            cost.warmup.as_secs_f64(),
            cost.after.as_secs_f64()
        );
        if let Some(memory) = cost.memory {
            let _ = write!(text, ", {:.1} GB of main memory", memory as f64 / 1e9);
        }
        text
    }
}

fn clock(seconds: f64) -> String {
    let minutes = (seconds / 60.0).round() as u64;
    if minutes < 1 {
        format!("{seconds:.0} s")
    } else {
        format!("{} h {:02} min", minutes / 60, minutes % 60)
    }
}
