//! A run from its configuration to its checkpoint.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use protoseg_images::labeled::LabeledDataset;
use protoseg_models::arch::Arch;
use protoseg_models::atomic;
use protoseg_models::graph::Graph;
use protoseg_models::weights::StateDict;
use protoseg_models::window::LogitGrid;

use crate::config::Config;
use crate::config::options::{Precision, TrainingMode};
use crate::data::label_check::check_labels;
use crate::data::lists::Lists;
use crate::data::loader::{self, BatchBuilder, ImageCaches, MicroBatch};
use crate::evaluate::{Interrupted, Predictor, Protocol};
use crate::method::prototypes::PrototypeSettings;
use crate::method::schedule::Schedule;
use crate::method::step::{Learner, StepReport};
use crate::method::{loss, precise_bn, prototype_init, teacher};
use crate::run::folder::{check_output_dir, lock};
use crate::run::log::RunLog;
use crate::run::scoring::{ImageScores, Scorer};
use crate::run::state::{self, RunState};
use crate::run::stop::StopReason;
use crate::run::{RunOptions, RunOutcome, Score};
use crate::run::{checkpoint, memory, plan, provenance, sample_images};
use crate::{calibrate, net, pretrained, report};

/// A run under way.
struct Trainer<'a> {
    config: &'a Config,
    options: &'a RunOptions,
    arch: Arch,
    lists: &'a Lists,
    learner: Learner<'a>,
    protocol: Protocol,
    log: RunLog,
    /// Best mean IoU of the evaluated network on the validation list, in percent.
    best: Option<f64>,
    /// Points assigned to each prototype up to the last line of the log.
    logged_assignments: Vec<u64>,
}

/// Trains as configured and writes `checkpoint/`, `best/`, `state/`, `config.toml`, `run.json`, `log.jsonl`,
/// `tensorboard/` and `report.html`.
pub fn fit(config: &Config, options: &RunOptions) -> Result<RunOutcome> {
    let lists = Lists::open(config)?;
    let arch =
        Arch::new(config.network, lists.classes.count())?.with_auxiliary(config.auxiliary)?;
    let graph = arch.graph();
    graph.shapes(config.batch, config.crop, config.crop)?;
    let unlabeled = lists.unlabeled.as_ref().map(|unlabeled| unlabeled.count());
    let schedule = Schedule::new(config, lists.labeled.count(), unlabeled)?;
    let state_folder = options.out.join(state::FOLDER);
    let resumed = options.resume.then(|| RunState::read(&state_folder, config)).transpose()?;
    check_output_dir(options)?;
    let first = resumed.as_ref().map_or(0, |state| state.step);
    let best = resumed.as_ref().and_then(|state| state.best);
    let log = RunLog::new(first, schedule.steps)?;
    let learner = match resumed {
        Some(state) => {
            check_resumable(&state, &state_folder, schedule, &lists)?;
            state.restore(&state_folder, config, schedule, &graph, options.device)?
        }
        None => {
            let weights = initial_weights(config, options, &graph, &log)?;
            Learner::new(config, schedule, &graph, &weights, options.device)?
        }
    };
    let mut trainer = Trainer {
        config,
        options,
        arch,
        lists: &lists,
        protocol: Protocol { grid: LogitGrid::from_arch(arch), window: config.window },
        logged_assignments: assignments(&learner),
        learner,
        log,
        best,
    };
    let outcome = memory::explain_out_of_memory(trainer.train(first));
    trainer.log.finish();
    outcome
}

fn check_resumable(
    state: &RunState,
    folder: &Path,
    schedule: Schedule,
    lists: &Lists,
) -> Result<()> {
    ensure!(
        state.step <= schedule.steps,
        "{} was saved after step {} of a run of {} steps: the folder is damaged",
        folder.display(),
        state.step,
        schedule.steps
    );
    ensure!(
        state.data.as_ref().is_none_or(|data| Some(data) == lists.digest().as_ref()),
        "classes or listed images have changed since {} was saved: restore them, or start another run with --init-from",
        folder.display()
    );
    Ok(())
}

/// Returns random weights, overwritten by those of `pretrained` and `--init-from`.
fn initial_weights(
    config: &Config,
    options: &RunOptions,
    graph: &Graph,
    log: &RunLog,
) -> Result<StateDict> {
    let mut weights = pretrained::initial(graph, config.seed);
    if let Some(path) = &config.pretrained {
        log.say(&format!("starting from {}", pretrained::load(&mut weights, path)?));
    }
    if let Some(folder) = &options.init_from {
        let loaded = pretrained::load_checkpoint(&mut weights, graph, folder)?;
        log.say(&format!("starting from {loaded}"));
    }
    Ok(weights)
}

/// Returns the number of points assigned to each prototype so far; empty without prototypes.
fn assignments(learner: &Learner) -> Vec<u64> {
    learner
        .prototypes
        .as_ref()
        .map(|prototypes| prototypes.counters().assignments.clone())
        .unwrap_or_default()
}

/// Recomputes the student's BatchNorm statistics, copies the teacher from it and initializes the prototypes.
pub fn end_warmup(
    learner: &mut Learner,
    builder: &BatchBuilder,
    caches: &ImageCaches,
    lists: &Lists,
    grid: LogitGrid,
) -> Result<()> {
    let config = learner.config;
    let batches = config.precise_bn_batches;
    precise_bn::update_statistics(&learner.student, builder, &caches.labeled, batches)?;
    teacher::update_ema(&learner.teacher, &learner.student, 0.0, true)?;
    learner.teacher_ready = true;
    if config.mode == TrainingMode::Prototype {
        learner.prototypes = Some(prototype_init::initialize(
            &learner.teacher,
            prototype_init::feature_node(learner.student.graph(), config.features)?,
            &lists.labeled,
            PrototypeSettings::from_config(config, learner.classes()),
            grid,
        )?);
    }
    Ok(())
}

impl Trainer<'_> {
    fn train(&mut self, first: u64) -> Result<RunOutcome> {
        let config = self.config;
        let schedule = self.learner.schedule;
        let labels = (first == 0).then(|| check_labels(config, self.lists)).transpose()?;
        let pixels = self.lists.count_labeled_pixels()?;
        ensure!(
            pixels.iter().any(|&count| count > 0),
            "no pixel of the labeled images has a class: all are ignored"
        );
        self.learner.class_weights =
            loss::class_weights(config.class_weights, &pixels, self.learner.device())?;
        let builder = BatchBuilder::new(
            config,
            schedule.unlabeled_from(config.mode),
            net::mean_color(self.learner.student.graph()),
        );
        let caches =
            ImageCaches::new(Arc::clone(&self.lists.labeled), self.lists.unlabeled.clone());
        if let Some(labels) = labels {
            self.lists.check_readable()?;
            for warning in self.lists.warnings() {
                self.log.say(&format!("warning: {warning}"));
            }
            let cost = plan::measure_step_cost(&self.learner, &builder, &caches)?;
            self.log.say(&plan::describe(&self.learner, self.lists, &pixels, &labels, cost));
        }
        if self.options.dry_run {
            return Ok(RunOutcome::Planned);
        }
        let _lock = lock(self.options)?;
        self.open_folder(first)?;
        let batches = loader::start(caches.clone(), builder, first, self.options.loader_threads)?;
        let last = self.options.stop_after.map_or(schedule.steps, |stop| stop.min(schedule.steps));
        for step in first..last {
            if step == schedule.warmup {
                self.end_warmup(&builder, &caches)?;
            }
            let asked = Instant::now();
            let batches = batches.recv().context("the loader has stopped")??;
            let waited = asked.elapsed();
            let report = self.learner.step(&batches, step).with_context(|| {
                format!("step {} failed on {}", step + 1, self.image_names(&batches))
            })?;
            let done = step + 1;
            self.log_step(done, &report, waited)?;
            let unfinished = done < schedule.steps;
            if unfinished && config.eval_every > 0 && done.is_multiple_of(config.eval_every) {
                unless_interrupted(self.evaluate(done))?;
            }
            let stop =
                self.options.monitor.due().or_else(|| (done == last).then_some(StopReason::Step));
            if let Some(stop) = stop.filter(|_| unfinished) {
                return self.stop(done, stop);
            }
            if unfinished && done.is_multiple_of(config.save_every) {
                self.save(done)?;
            }
        }
        if last < schedule.steps {
            return self.stop(last.max(first), StopReason::Step);
        }
        if !self.learner.teacher_ready {
            self.end_warmup(&builder, &caches)?;
        }
        self.save(schedule.steps)?;
        match (unless_interrupted(self.finish())?, self.options.monitor.due()) {
            (None, Some(stop)) => {
                self.log.say("stopped while scoring the last step; --resume repeats the scoring");
                Ok(RunOutcome::Stopped(stop))
            }
            (scores, _) => Ok(RunOutcome::Finished(scores.unwrap_or_default())),
        }
    }

    /// Creates the run's folder and opens its log.
    fn open_folder(&mut self, first: u64) -> Result<()> {
        let out = &self.options.out;
        std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
        self.log.open(out, first)?;
        atomic::write(&out.join("config.toml"), toml::to_string(self.config)?.as_bytes())?;
        provenance::write(out, self.options.device)
    }

    fn end_warmup(&mut self, builder: &BatchBuilder, caches: &ImageCaches) -> Result<()> {
        end_warmup(&mut self.learner, builder, caches, self.lists, self.protocol.grid)?;
        self.logged_assignments = assignments(&self.learner);
        self.log.pause();
        Ok(())
    }

    fn log_step(&mut self, done: u64, report: &StepReport, waited: Duration) -> Result<()> {
        let Learner { schedule, teacher_ready, .. } = self.learner;
        let due = done.is_multiple_of(self.config.log_every) || done == schedule.steps;
        let written = self.log.step(done, report, waited, due)?;
        if written && teacher_ready && self.config.mode != TrainingMode::Supervised {
            let now = assignments(&self.learner);
            let before = std::mem::replace(&mut self.logged_assignments, now);
            let since: Vec<u64> = self
                .logged_assignments
                .iter()
                .zip(&before)
                .map(|(now, before)| now - before)
                .collect();
            let statistics = self.learner.counters.take(&self.lists.classes, &since)?;
            self.log.classes(done, statistics)?;
        }
        Ok(())
    }

    /// Names the images of a step.
    fn image_names(&self, batches: &[MicroBatch]) -> String {
        let mut names = Vec::new();
        for batch in batches {
            names.extend(batch.labeled.indices.iter().map(|&at| self.lists.labeled.name(at)));
        }
        for batch in batches.iter().filter_map(|batch| batch.unlabeled.as_ref()) {
            if let Some(unlabeled) = &self.lists.unlabeled {
                names.extend(batch.indices.iter().map(|&at| unlabeled.name(at)));
            }
        }
        names.join(", ")
    }

    fn save(&mut self, step: u64) -> Result<()> {
        let folder = self.options.out.join(state::FOLDER);
        state::save(&folder, &self.learner, step, self.best, self.lists.digest())?;
        self.log.saved(step, state::FOLDER)
    }

    /// Saves the state and ends the run.
    fn stop(&mut self, done: u64, stop: StopReason) -> Result<RunOutcome> {
        self.save(done)?;
        self.log.say(&format!("stopped after step {done}; continue with --resume"));
        Ok(RunOutcome::Stopped(stop))
    }

    /// Scores a list and logs the scores.
    fn score(
        &mut self,
        images: &LabeledDataset,
        list: &str,
        step: u64,
    ) -> Result<(Vec<Score>, ImageScores)> {
        let scorer = Scorer {
            classes: &self.lists.classes,
            protocol: self.protocol,
            monitor: &self.options.monitor,
        };
        let data = format!("{} {list}", self.config.name);
        let (scores, image_scores) = scorer.score(&self.learner, images, &data, step)?;
        for score in &scores {
            self.log.score(&score.which, &score.metrics)?;
        }
        Ok((scores, image_scores))
    }

    /// Scores the validation list, if there is one; writes `best/` where the score is the best so far, the report and
    /// the sample pseudo-labels.
    fn evaluate(&mut self, step: u64) -> Result<Vec<Score>> {
        let Some(validation) = &self.lists.validation else {
            report::write(&self.options.out, &self.config.name, &[])?;
            self.write_pseudo_labels(step)?;
            return Ok(Vec::new());
        };
        let (scores, image_scores) = self.score(validation, "validation", step)?;
        let metrics = &scores[0].metrics;
        if metrics.scores.mean_iou > self.best {
            self.best = metrics.scores.mean_iou;
            let best = checkpoint::from_learner(
                &self.learner,
                self.arch,
                &self.lists.classes,
                Some(metrics.clone()),
            )?;
            best.write(&self.options.out.join("best"))?;
            self.log.saved(step, "best")?;
        }
        let (_, net) = self.learner.evaluated_net();
        let shown = sample_images::render(
            Predictor::linear(net, self.protocol),
            validation,
            &self.lists.classes,
            &sample_images::choose(image_scores),
        )?;
        report::write(&self.options.out, &self.config.name, &shown)?;
        self.write_pseudo_labels(step)?;
        self.log.pause();
        Ok(scores)
    }

    /// Writes the pseudo-labels of `dumped_images` unlabeled images.
    fn write_pseudo_labels(&self, step: u64) -> Result<()> {
        let count = self.config.dumped_images;
        let Some(unlabeled) = self.lists.unlabeled.as_ref().filter(|_| count > 0) else {
            return Ok(());
        };
        let (_, net) = self.learner.evaluated_net();
        sample_images::write_pseudo_labels(
            Predictor::linear(net, self.protocol),
            unlabeled,
            &self.lists.classes,
            count,
            &self.options.out.join("pseudo-labels").join(step.to_string()),
        )
    }

    /// Scores the last step on every list and writes the checkpoint.
    fn finish(&mut self) -> Result<Vec<Score>> {
        let steps = self.learner.schedule.steps;
        // The report is written with the scores of the validation list, so the other list comes first.
        let unlabeled = match &self.lists.unlabeled_truth {
            Some(unlabeled) => self.score(unlabeled, "unlabeled", steps)?.0,
            None => Vec::new(),
        };
        let mut scores = self.evaluate(steps)?;
        let metrics = scores.first().map(|score| score.metrics.clone());
        scores.extend(unlabeled);
        self.log.say("recording probe and calibration");
        let mut checkpoint =
            checkpoint::from_learner(&self.learner, self.arch, &self.lists.classes, metrics)?;
        let images = self.config.calibration_images;
        if images > 0 {
            let teacher = self.learner.teacher.with_precision(Precision::Float32);
            let labeled = &self.lists.labeled;
            checkpoint.calibration =
                Some(calibrate::record(&teacher, labeled, images, &self.config.name)?);
        }
        checkpoint.write(&self.options.out.join("checkpoint"))?;
        Ok(scores)
    }
}

/// Returns None for scores that were interrupted, as the run is told to stop.
fn unless_interrupted(scores: Result<Vec<Score>>) -> Result<Option<Vec<Score>>> {
    match scores {
        Err(error) if error.is::<Interrupted>() => Ok(None),
        scores => scores.map(Some),
    }
}
