//! A run from its configuration to its checkpoint.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use protoseg_models::arch::Arch;
use protoseg_models::calibration::Calibration;
use protoseg_models::checkpoint::{self, Checkpoint, Header};
use protoseg_models::graph::{Graph, Op};
use protoseg_models::metrics::Metrics;
use protoseg_models::window::LogitGrid;
use protoseg_models::{atomic, weights::StateDict};
use protoseg_pictures::labelled::LabelledSet;
use protoseg_pictures::picture::MAX_PIXELS;
use rayon::prelude::*;
use tch::Device;

use crate::config::{ClassWeights, Config};
use crate::evaluate::{self, Protocol};
use crate::lists::Lists;
use crate::loader::{self, Recipe};
use crate::log::Log;
use crate::loss;
use crate::net::Net;
use crate::optimizer::Sgd;

use crate::state::{self, State};
use crate::step::{self, Student};
use crate::{calibrate, pretrained, probe, teacher};

/// Where and how a run goes, beside its configuration.
#[derive(Debug, Clone)]
pub struct Run {
    /// Folder for everything that it leaves.
    pub out: PathBuf,
    /// Whether to go on from what `out/state` holds.
    pub resume: bool,
    /// Step after which to stop, with everything saved that going on needs; the schedule stays that of the whole run.
    pub stop_after: Option<u64>,
    /// Threads that make batches.
    pub loader_threads: usize,
}

/// What is needed over and over.
struct Trainer<'a> {
    config: &'a Config,
    run: &'a Run,
    arch: Arch,
    lists: &'a Lists,
    protocol: Protocol,
    student: Net,
    teacher: Net,
    sgd: Sgd,
    log: Log,
    best: Option<f64>,
}

/// Trains as configured and leaves `checkpoint/`, `best/`, `state/`, `config.toml` and `log.jsonl`.
///
/// Returns the score of the last step, where there is a list to score on.
pub fn fit(config: &Config, run: &Run) -> Result<Option<Metrics>> {
    let lists = Lists::open(config)?;
    let arch = Arch::new(config.network, lists.classes.count())?.with_auxiliary(config.auxiliary)?;
    let graph = arch.graph();
    graph.shapes(config.batch, config.crop, config.crop)?;
    let state_folder = run.out.join("state");
    let resumed = if run.resume { Some(State::read(&state_folder, config)?) } else { None };
    std::fs::create_dir_all(&run.out).with_context(|| format!("cannot make {}", run.out.display()))?;
    ensure!(
        run.resume || !state_folder.exists(),
        "{} holds a run already: go on with it by --resume, or choose another --out",
        run.out.display()
    );
    for (name, files) in
        [("checkpoint", &checkpoint::FILES[..]), ("best", &checkpoint::FILES), ("state", &state::FILES)]
    {
        let folder = run.out.join(name);
        atomic::check_replaceable(&folder, files).with_context(|| folder.display().to_string())?;
    }
    let first = resumed.as_ref().map_or(0, |state| state.step);
    let log = Log::open(&run.out, first, config.steps)?;

    let mut start = pretrained::initial(&graph, config.seed);
    if let (Some(path), None) = (&config.pretrained, &resumed) {
        log.say(&format!("starting from {}", pretrained::load(&mut start, path)?));
    }
    let mut sgd = Sgd::new(config.momentum, config.weight_decay);
    let (student, teacher) = match &resumed {
        None => (Net::new(graph.clone(), &start, Device::Cpu)?, Net::new(graph, &start, Device::Cpu)?),
        Some(state) => {
            let student = Net::new(graph.clone(), &state.student, Device::Cpu)?;
            sgd.load(&state.velocity, &student)?;
            let teacher = Net::new(graph, state.teacher.as_ref().unwrap_or(&state.student), Device::Cpu)?;
            (student, teacher)
        }
    };
    atomic::write(&run.out.join("config.toml"), toml::to_string(config)?.as_bytes())?;
    let protocol = Protocol { grid: LogitGrid::of(arch), window: config.window };
    let best = resumed.and_then(|state| state.best);
    let mut trainer = Trainer { config, run, arch, lists: &lists, protocol, student, teacher, sgd, log, best };
    let metrics = trainer.train(first)?;
    trainer.log.finish();
    Ok(metrics)
}

impl Trainer<'_> {
    fn train(&mut self, first: u64) -> Result<Option<Metrics>> {
        let config = self.config;
        let recipe = Recipe {
            seed: config.seed,
            batch: config.batch,
            side: config.crop,
            padding: mean_color(self.student.graph()),
        };
        let class_weights = match config.class_weights {
            ClassWeights::None => None,
            kind => loss::class_weights(kind, &self.count_pixels()?, self.student.device())?,
        };
        self.look_through()?;
        let batches = loader::start(Arc::clone(&self.lists.labeled), recipe, first, self.run.loader_threads)?;
        let last = self.run.stop_after.map_or(config.steps, |stop| stop.min(config.steps));
        for step in first..last {
            let asked = Instant::now();
            let batch = batches.recv().context("the loader has stopped")??;
            let waited = asked.elapsed();
            let student = Student {
                net: &self.student,
                class_weights: class_weights.as_ref().map(tch::Tensor::shallow_clone),
                align_corners: self.protocol.grid.align_corners,
            };
            let named = || {
                let names: Vec<String> = batch.indices.iter().map(|&index| self.lists.labeled.name(index)).collect();
                format!("step {step} failed on {}", names.join(", "))
            };
            let losses = step::supervised(&student, &mut self.sgd, &batch, config, step).with_context(named)?;
            let done = step + 1;
            // The first update, at the end of the warm-up, copies the student.
            if let Some(update) = done.checked_sub(config.warmup_steps.max(1)) {
                let decay = teacher::decay_at(update, config.teacher_decay);
                teacher::follow(&self.teacher, &self.student, decay)?;
            }
            self.log.step(done, &losses, waited, config.log_every)?;
            if config.eval_every > 0 && done.is_multiple_of(config.eval_every) && done < config.steps {
                self.score(done)?;
            }
            if done.is_multiple_of(config.save_every) && done < config.steps {
                self.save(done)?;
            }
        }
        if last < config.steps {
            self.save(last.max(first))?;
            self.log.say(&format!("stopped after step {}; go on by --resume", last.max(first)));
            return Ok(None);
        }
        self.save(config.steps)?;
        let metrics = self.score(config.steps)?;
        self.log.say("recording probe and calibration");
        let checkpoint = self.checkpoint(config.steps, metrics.clone(), self.calibration()?)?;
        checkpoint.write(&self.run.out.join("checkpoint"))?;
        Ok(metrics)
    }

    /// The network that counts after some steps: the teacher, once there is one.
    fn scored(&self, done: u64) -> (&'static str, &Net) {
        if done >= self.config.warmup_steps.max(1) { ("teacher", &self.teacher) } else { ("student", &self.student) }
    }

    /// Scores the network that counts, the student beside its teacher, and keeps the best so far.
    fn score(&mut self, done: u64) -> Result<Option<Metrics>> {
        let Some(validation) = &self.lists.validation else { return Ok(None) };
        let data = format!("{} validation", self.config.name);
        let measure = |net: &Net| evaluate::metrics(net, validation, &self.lists.classes, self.protocol, &data, done);
        let (which, net) = self.scored(done);
        let metrics = measure(net)?;
        if which == "teacher" {
            let student = measure(&self.student)?;
            self.log.score("student", &student)?;
        }
        self.log.score(which, &metrics)?;
        if metrics.scores.mean_iou > self.best {
            self.best = metrics.scores.mean_iou;
            self.checkpoint(done, Some(metrics.clone()), None)?.write(&self.run.out.join("best"))?;
            self.log.saved(done, "best")?;
        }
        Ok(Some(metrics))
    }

    fn calibration(&self) -> Result<Option<Calibration>> {
        let pictures = self.config.calibration_pictures;
        let record = || calibrate::record(&self.teacher, &self.lists.labeled, pictures, &self.config.name);
        (pictures > 0).then(record).transpose()
    }

    fn checkpoint(&self, done: u64, metrics: Option<Metrics>, calibration: Option<Calibration>) -> Result<Checkpoint> {
        let (_, net) = self.scored(done);
        Ok(Checkpoint {
            header: Header::new(&self.config.name, self.arch, self.lists.classes.clone(), self.config.window),
            weights: finite(net.state_dict()?, done)?,
            probe: probe::record(net, self.protocol.grid)?,
            calibration,
            metrics,
            config: toml::to_string(self.config)?,
        })
    }

    fn save(&mut self, step: u64) -> Result<()> {
        let state = State {
            step,
            best: self.best,
            student: finite(self.student.state_dict()?, step)?,
            teacher: (step >= self.config.warmup_steps.max(1)).then(|| self.teacher.state_dict()).transpose()?,
            velocity: self.sgd.state_dict()?,
        };
        state.write(&self.run.out.join("state"), self.config)?;
        self.log.saved(step, "state")
    }

    /// Reads every picture once, so that a broken one is found before the first step and not after the last.
    fn look_through(&self) -> Result<()> {
        for set in [Some(self.lists.labeled.as_ref()), self.lists.validation.as_ref()].into_iter().flatten() {
            // Drawn scenes cannot be broken.
            if let LabelledSet::Files { .. } = set {
                let read = |index| -> Result<()> { Ok(set.read(index, MAX_PIXELS).map(drop)?) };
                (0..set.count()).into_par_iter().try_for_each(read)?;
            }
        }
        Ok(())
    }

    /// Labelled pixels of each class.
    fn count_pixels(&self) -> Result<Vec<u64>> {
        let labeled = &self.lists.labeled;
        let classes = self.lists.classes.count();
        let count = |index| -> Result<Vec<u64>> {
            let mut counts = vec![0; 256];
            for label in labeled.read(index, MAX_PIXELS)?.truth {
                counts[usize::from(label)] += 1;
            }
            counts.truncate(classes);
            Ok(counts)
        };
        let sum =
            |left: Vec<u64>, right: Vec<u64>| Ok(left.iter().zip(&right).map(|(left, right)| left + right).collect());
        (0..labeled.count()).into_par_iter().map(count).try_reduce(|| vec![0; classes], sum)
    }
}

/// The weights, if they are numbers.
fn finite(weights: StateDict, step: u64) -> Result<StateDict> {
    let broken = weights.iter().find(|(_, tensor)| !tensor.data.iter().all(|value| value.is_finite()));
    if let Some((name, _)) = broken {
        bail!("after step {step} `{name}` is not finite: lower `learning_rate` or `head_multiplier`");
    }
    Ok(weights)
}

/// The colour that normalisation maps to zero.
fn mean_color(graph: &Graph) -> [u8; 3] {
    let means = graph.nodes().iter().find_map(|node| match node.op {
        Op::Normalize { mean, .. } => Some(mean),
        _ => None,
    });
    means.unwrap_or_default().map(|mean| mean.round() as u8)
}
