//! A run from its configuration to its checkpoint.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use protoseg_models::arch::Arch;
use protoseg_models::graph::{Graph, Op};
use protoseg_models::window::LogitGrid;
use protoseg_models::{atomic, weights::StateDict};
use tch::{Device, Tensor};

use crate::config::Config;
use crate::config::options::TrainingMode;
use crate::data::dataset_check;
use crate::data::lists::Lists;
use crate::data::loader::{self, BatchBuilder, ImageCaches, MicroBatch};
use crate::evaluate::{Interrupted, Protocol};
use crate::method::class_counters::ClassCounters;
use crate::method::optimizer::Sgd;
use crate::method::prototypes::{PrototypeSettings, Prototypes};
use crate::method::schedule::Schedule;
use crate::method::step::{Learner, StepState};
use crate::method::{loss, precise_bn, prototype_init, teacher};
use crate::net::Net;
use crate::run::folder::{STATE, check_output_dir, lock};
use crate::run::log::RunLog;
use crate::run::scoring::Score;
use crate::run::state::{RunState, SavedPrototypes};
use crate::run::stop::{StopMonitor, StopReason};
use crate::run::{memory, provenance};
use crate::{net, pretrained};

/// Where and how a run goes, beside its configuration.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Folder for everything that it leaves.
    pub out: PathBuf,
    /// Whether to go on from what `out/state` holds.
    pub resume: bool,
    /// Step after which to stop, with everything saved that going on needs; the schedule stays that of the whole run.
    pub stop_after: Option<u64>,
    /// Checkpoint folder whose weights to start from.
    pub init_from: Option<PathBuf>,
    /// Whether to end once the plan is made and every listed file has been read.
    pub dry_run: bool,
    /// Where to train.
    pub device: Device,
    /// Threads that make batches.
    pub loader_threads: usize,
    /// What may end the run early.
    pub watch: StopMonitor,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum RunOutcome {
    /// After its last step, with its scores on the lists that there are: the teacher's first.
    Finished(Vec<Score>),
    /// Before its first step, as was asked.
    Planned,
    /// In between; everything that going on needs is saved.
    Stopped(StopReason),
}

/// A run under way.
pub(crate) struct Trainer<'a> {
    pub(crate) config: &'a Config,
    pub(crate) run: &'a RunOptions,
    pub(crate) arch: Arch,
    pub(crate) lists: &'a Lists,
    pub(crate) schedule: Schedule,
    pub(crate) protocol: Protocol,
    pub(crate) student: Net,
    pub(crate) teacher: Net,
    /// Whether the teacher has been made.
    pub(crate) teacher_ready: bool,
    pub(crate) prototypes: Option<Prototypes>,
    pub(crate) sgd: Sgd,
    pub(crate) log: RunLog,
    pub(crate) best: Option<f64>,
}

/// Trains as configured and leaves `checkpoint/`, `best/`, `state/`, `config.toml`, `run.json`, `log.jsonl`, `tensorboard/`
/// and `report.html`.
pub fn fit(config: &Config, run: &RunOptions) -> Result<RunOutcome> {
    let lists = Lists::open(config)?;
    let arch =
        Arch::new(config.network, lists.classes.count())?.with_auxiliary(config.auxiliary)?;
    let graph = arch.graph();
    graph.shapes(config.batch, config.crop, config.crop)?;
    let unlabeled = lists.unlabeled.as_ref().map(|unlabeled| unlabeled.count());
    let schedule = Schedule::new(config, lists.labeled.count(), unlabeled)?;
    let resumed =
        if run.resume { Some(RunState::read(&run.out.join(STATE), config)?) } else { None };
    check_output_dir(run)?;
    let first = resumed.as_ref().map_or(0, |state| state.step);
    ensure!(
        first <= schedule.steps,
        "{} is of step {first} of a run of {} steps: it is not what was saved",
        run.out.join(STATE).display(),
        schedule.steps
    );
    if let Some(state) = &resumed {
        ensure!(
            state.data.as_ref().is_none_or(|data| Some(data) == lists.digest().as_ref()),
            "classes or listed pictures have changed since {} was saved: bring them back, or start another run with \
             --init-from",
            run.out.join(STATE).display()
        );
    }
    let log = RunLog::new(first, schedule.steps)?;

    let mut start = pretrained::initial(&graph, config.seed);
    if let (Some(path), None) = (&config.pretrained, &resumed) {
        log.say(&format!("starting from {}", pretrained::load(&mut start, path)?));
    }
    if let (Some(folder), None) = (&run.init_from, &resumed) {
        log.say(&format!(
            "starting from {}",
            pretrained::load_checkpoint(&mut start, &graph, folder)?
        ));
    }
    let network = |weights: &StateDict| -> Result<Net> {
        Ok(Net::new(graph.clone(), weights, run.device)?.with_precision(config.precision))
    };
    let mut trainer = Trainer {
        config,
        run,
        arch,
        lists: &lists,
        schedule,
        protocol: Protocol { grid: LogitGrid::from_arch(arch), window: config.window },
        student: network(resumed.as_ref().map_or(&start, |state| &state.student))?,
        teacher: network(
            resumed.as_ref().and_then(|state| state.teacher.as_ref()).unwrap_or(&start),
        )?,
        teacher_ready: resumed.as_ref().is_some_and(|state| state.teacher.is_some()),
        prototypes: None,
        sgd: Sgd::new(config.momentum, config.weight_decay),
        log,
        best: resumed.as_ref().and_then(|state| state.best),
    };
    if let Some(state) = resumed {
        if first > 0 {
            let path = || run.out.join(STATE).display().to_string();
            trainer.sgd.load(&state.velocity, &trainer.student).with_context(path)?;
        }
        trainer.prototypes =
            state.prototypes.map(|saved| trainer.restore_prototypes(saved)).transpose()?;
    }
    let outcome = memory::explain_out_of_memory(trainer.train(first));
    trainer.log.finish();
    outcome
}

impl Trainer<'_> {
    fn train(&mut self, first: u64) -> Result<RunOutcome> {
        let config = self.config;
        let classes = self.lists.classes.count();
        let pixels = dataset_check::count_labeled_pixels(self.lists)?;
        ensure!(
            pixels.iter().any(|&count| count > 0),
            "no pixel of the labelled pictures has a class: all are ignored"
        );
        let class_weights =
            loss::class_weights(config.class_weights, &pixels, self.student.device())?;
        let recipe = self.recipe();
        let shelves =
            ImageCaches::new(Arc::clone(&self.lists.labeled), self.lists.unlabeled.clone());
        if first == 0 {
            dataset_check::check_readable(self.lists)?;
            let cost = self.measure_step_cost(&recipe, &shelves)?;
            self.log.say(&self.describe_plan(&pixels, cost));
        }
        if self.run.dry_run {
            return Ok(RunOutcome::Planned);
        }
        let _held = lock(self.run)?;
        self.open_folder(first)?;
        let batches = loader::start(shelves.clone(), recipe, first, self.run.loader_threads)?;
        let mut tally = ClassCounters::new(classes, self.student.device())?;
        let mut hits = self.hits();
        let last =
            self.run.stop_after.map_or(self.schedule.steps, |stop| stop.min(self.schedule.steps));
        for step in first..last {
            if step == self.schedule.warmup {
                self.make_teacher(&recipe, &shelves)?;
                hits = self.hits();
            }
            let asked = Instant::now();
            let batches = batches.recv().context("the loader has stopped")??;
            let waited = asked.elapsed();
            let learner = Learner {
                config,
                schedule: self.schedule,
                student: &self.student,
                teacher: &self.teacher,
                class_weights: class_weights.as_ref().map(Tensor::shallow_clone),
                align_corners: self.protocol.grid.align_corners,
            };
            let moving = StepState {
                sgd: &mut self.sgd,
                prototypes: self.prototypes.as_mut(),
                tally: &mut tally,
            };
            let report = learner.step(moving, &batches, step);
            let report = report
                .with_context(|| format!("step {} failed on {}", step + 1, self.names(&batches)))?;
            let done = step + 1;
            teacher::update_after_step(&self.teacher, &self.student, config, self.schedule, step)?;
            let due = done.is_multiple_of(config.log_every) || done == self.schedule.steps;
            if self.log.step(done, &report, waited, due)? && self.learns_unlabeled() {
                let now = self.hits();
                let since: Vec<u64> =
                    now.iter().zip(&hits).map(|(now, before)| now - before).collect();
                self.log.classes(done, tally.finish(&self.lists.classes, &since)?)?;
                (tally, hits) = (ClassCounters::new(classes, self.student.device())?, now);
            }
            if config.eval_every > 0
                && done.is_multiple_of(config.eval_every)
                && done < self.schedule.steps
            {
                self.unless_interrupted(|trainer| trainer.score(done))?;
            }
            let stop = self.run.watch.due().or_else(|| (done == last).then_some(StopReason::Step));
            if let Some(stop) = stop.filter(|_| done < self.schedule.steps) {
                return self.stop(done, stop);
            }
            if done.is_multiple_of(config.save_every) && done < self.schedule.steps {
                self.save(done)?;
            }
        }
        if last < self.schedule.steps {
            return self.stop(last.max(first), StopReason::Step);
        }
        if !self.teacher_ready {
            self.make_teacher(&recipe, &shelves)?;
        }
        self.save(self.schedule.steps)?;
        match (self.unless_interrupted(Self::finish)?, self.run.watch.due()) {
            (None, Some(stop)) => {
                self.log.say("stopped while the last step was scored; --resume scores it again");
                Ok(RunOutcome::Stopped(stop))
            }
            (scores, _) => Ok(RunOutcome::Finished(scores.unwrap_or_default())),
        }
    }

    /// What scoring gives; none where it was broken off, as the run is told to stop, and nothing is to be lost by that.
    fn unless_interrupted(
        &mut self,
        score: impl FnOnce(&mut Self) -> Result<Vec<Score>>,
    ) -> Result<Option<Vec<Score>>> {
        match score(self) {
            Err(error) if error.is::<Interrupted>() => Ok(None),
            scored => scored.map(Some),
        }
    }

    /// Makes the run's folder and opens its log.
    fn open_folder(&mut self, first: u64) -> Result<()> {
        let out = &self.run.out;
        std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
        self.log.open(out, first)?;
        atomic::write(&out.join("config.toml"), toml::to_string(self.config)?.as_bytes())?;
        provenance::write(out, self.run.device)
    }

    /// Saves what going on needs and ends the run.
    fn stop(&mut self, done: u64, stop: StopReason) -> Result<RunOutcome> {
        self.save(done)?;
        self.log.say(&format!("stopped after step {done}; go on by --resume"));
        Ok(RunOutcome::Stopped(stop))
    }

    fn learns_unlabeled(&self) -> bool {
        self.teacher_ready && self.config.mode != TrainingMode::Supervised
    }

    /// How batches are made.
    fn recipe(&self) -> BatchBuilder {
        BatchBuilder::new(self.config, self.schedule, mean_color(self.student.graph()))
    }

    /// At the end of the warm-up: running statistics are measured anew, the teacher is copied from the student, and the
    /// first prototypes are found.
    fn make_teacher(&mut self, recipe: &BatchBuilder, shelves: &ImageCaches) -> Result<()> {
        precise_bn::update_statistics(
            &self.student,
            recipe,
            &shelves.labeled,
            self.config.precise_bn_batches,
        )?;
        teacher::update_ema(&self.teacher, &self.student, 0.0, true)?;
        self.teacher_ready = true;
        if self.config.mode == TrainingMode::Prototype {
            let node = prototype_init::feature_node(self.student.graph(), self.config.features)?;
            let settings = PrototypeSettings::from_config(self.config, self.lists.classes.count());
            let labeled = self.lists.labeled.as_ref();
            let found = prototype_init::initialize(
                &self.teacher,
                node,
                labeled,
                settings,
                self.protocol.grid,
            )?;
            self.prototypes = Some(found);
        }
        self.log.pause();
        Ok(())
    }

    /// Prototypes from what was saved.
    fn restore_prototypes(&self, saved: SavedPrototypes) -> Result<Prototypes> {
        let settings = PrototypeSettings::from_config(self.config, self.lists.classes.count());
        let tensor = |tensor| net::to_torch(tensor, self.student.device());
        Ok(Prototypes::from_saved(
            settings,
            tensor(&saved.values)?,
            tensor(&saved.mean)?,
            saved.counters,
        ))
    }

    fn hits(&self) -> Vec<u64> {
        self.prototypes
            .as_ref()
            .map(|prototypes| prototypes.counters().assignments)
            .unwrap_or_default()
    }

    /// The pictures of a step.
    fn names(&self, batches: &[MicroBatch]) -> String {
        let labeled = batches.iter().flat_map(|batch| &batch.labeled.indices);
        let labeled = labeled.map(|&index| self.lists.labeled.name(index));
        let unlabeled = batches
            .iter()
            .filter_map(|batch| batch.unlabeled.as_ref())
            .flat_map(|batch| &batch.indices);
        let unlabeled =
            unlabeled.filter_map(|&index| Some(self.lists.unlabeled.as_ref()?.name(index)));
        labeled.chain(unlabeled).collect::<Vec<_>>().join(", ")
    }
}

/// The colour that normalisation maps to zero.
pub(crate) fn mean_color(graph: &Graph) -> [u8; 3] {
    let means = graph.nodes().iter().find_map(|node| match node.op {
        Op::Normalize { mean, .. } => Some(mean),
        _ => None,
    });
    means.unwrap_or_default().map(|mean| mean.round() as u8)
}
