//! A run from its configuration to its checkpoint.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail, ensure};
use protoseg_models::arch::Arch;
use protoseg_models::atomic;
use protoseg_models::classes::ClassTable;
use protoseg_models::graph::Graph;
use protoseg_models::weights::StateDict;
use protoseg_models::window::LogitGrid;

use crate::config::Config;
use crate::config::options::TrainingMode;
use crate::data::augment::Geometry;
use crate::data::census::{self, Census, CensusOptions};
use crate::data::label_check::check_labels;
use crate::data::lists::Lists;
use crate::data::loader::{self, BatchBuilder, ImageCaches, MicroBatch, TeacherSource};
use crate::evaluate::Protocol;
use crate::method::loss;
use crate::method::schedule::Schedule;
use crate::method::step::{Learner, StepReport};
use crate::progress::{self, Progress};
use crate::run::distill::FinishedTeacher;
use crate::run::finish::unless_interrupted;
use crate::run::folder::{check_output_dir, lock};
use crate::run::log::RunLog;
use crate::run::memory::{self, OutOfMemory, Phase, explain_out_of_memory, in_phase};
use crate::run::plan::{self, PlannedImages};
use crate::run::provenance;
use crate::run::state::{self, RunState};
use crate::run::stop::StopReason;
use crate::run::warmup_end::WarmupEnd;
use crate::run::{NothingBegun, RunOptions, RunOutcome};
use crate::{net, pretrained};

/// Folder of a frozen encoder's outputs.
const FEATURES: &str = "features";
/// Folder of a finished teacher's labels.
const TEACHER_LABELS: &str = "teacher-labels";

/// A run under way.
pub(super) struct Trainer<'a> {
    pub(super) config: &'a Config,
    pub(super) options: &'a RunOptions,
    pub(super) arch: Arch,
    pub(super) lists: &'a Lists,
    census: &'a Census,
    geometry: Geometry,
    teacher: Option<FinishedTeacher>,
    pub(super) learner: Learner<'a>,
    pub(super) protocol: Protocol,
    pub(super) log: RunLog,
    /// Best mean IoU of the evaluated network on the validation list, in percent.
    pub(super) best: Option<f64>,
    /// Points assigned to each prototype up to the last line of the log.
    logged_assignments: Vec<u64>,
    /// Peak memory in the plan.
    planned_memory: Option<u64>,
}

/// Trains as configured and writes `checkpoint/`, `best/`, `state/`, `config.toml`, `run.json`, `log.jsonl`,
/// `tensorboard/` and `report.html`.
pub fn fit(config: &Config, options: &RunOptions) -> Result<RunOutcome> {
    let Some(Prepared { lists, census, arch, geometry, learner, teacher, log, first, best }) =
        prepare(config, options).map_err(nothing_begun)?
    else {
        eprintln!("stopped while the images were read; another start reads the rest");
        return Ok(RunOutcome::Stopped(options.monitor.due().unwrap_or(StopReason::Step)));
    };
    let learner = with_feature_cache(learner, options, &census)?;
    let mut trainer = Trainer {
        config,
        options,
        arch,
        lists: &lists,
        census: &census,
        geometry,
        teacher,
        protocol: Protocol { grid: LogitGrid::from_arch(arch), window: config.window },
        logged_assignments: assignments(&learner),
        learner,
        log,
        best,
        planned_memory: None,
    };
    let outcome = explain_out_of_memory(trainer.train(first), Phase::Steps);
    trainer.log.finish();
    outcome
}

/// The parts of a run before its first step.
struct Prepared<'a> {
    lists: Lists,
    census: Census,
    arch: Arch,
    geometry: Geometry,
    learner: Learner<'a>,
    teacher: Option<FinishedTeacher>,
    log: RunLog,
    /// Steps done.
    first: u64,
    best: Option<f64>,
}

/// Checks and reads everything that a run needs; `None` if that was interrupted.
fn prepare<'a>(config: &'a Config, options: &RunOptions) -> Result<Option<Prepared<'a>>> {
    let mut lists = Lists::open(config)?;
    let arch = config.arch(lists.classes.count())?;
    let graph = arch.graph();
    let [height, width] = config.crop.sides();
    graph.shapes(config.batch, height, width)?;
    let geometry = Geometry::new(config, &lists.classes)?;
    schedule(config, &lists)?;
    let state_folder = options.out.join(state::FOLDER);
    let resumed = options.resume.then(|| RunState::read(&state_folder, config)).transpose()?;
    check_output_dir(options)?;
    let taken =
        in_phase(Phase::Reading, || take_census(config, options, &mut lists, resumed.as_ref()));
    let Some(census) = unless_interrupted(taken)? else { return Ok(None) };
    let schedule = schedule(config, &lists)?;
    let first = resumed.as_ref().map_or(0, |state| state.step);
    let best = resumed.as_ref().and_then(|state| state.best);
    let log = RunLog::new(first, schedule.steps)?;
    let learner = match resumed {
        Some(state) => {
            check_resumable(&state, &state_folder, schedule, &lists, config)?;
            state.restore(&state_folder, config, schedule, &graph, options.device)?
        }
        None => {
            let weights = initial_weights(config, options, &graph, &lists.classes, &log)?;
            Learner::new(config, schedule, &graph, &weights, options.device)?
        }
    };
    let teacher = finished_teacher(config, options, &lists)?;
    Ok(Some(Prepared { lists, census, arch, geometry, learner, teacher, log, first, best }))
}

/// Memory that runs out says nothing about what was given.
fn nothing_begun(error: Error) -> Error {
    if error.is::<OutOfMemory>() { error } else { NothingBegun(error).into() }
}

/// Opens the network that labels the unlabeled images, if there is one; its labels are kept beside
/// what has been read of the images.
fn finished_teacher(
    config: &Config,
    options: &RunOptions,
    lists: &Lists,
) -> Result<Option<FinishedTeacher>> {
    let open = |checkpoint: &PathBuf| {
        FinishedTeacher::open(
            checkpoint,
            &lists.classes,
            &config.reading(),
            &options.census.join(TEACHER_LABELS),
            options.device,
            options.monitor.interrupt(),
        )
    };
    config.teacher.as_ref().map(open).transpose()
}

/// Keeps outputs of a frozen encoder beside what has been read of the images, if images come again.
fn with_feature_cache<'a>(
    learner: Learner<'a>,
    options: &RunOptions,
    census: &Census,
) -> Result<Learner<'a>> {
    let Config { freeze_encoder, feature_cache_gb, crop, crops_per_image, scale, .. } =
        *learner.config;
    if !freeze_encoder || feature_cache_gb == 0.0 {
        return Ok(learner);
    }
    let come_again = crops_per_image > 0;
    let unlabeled =
        census.unlabeled.as_ref().filter(|_| learner.config.mode != TrainingMode::Supervised);
    let lists = [Some(&census.labeled), unlabeled];
    let mut sizes = lists.into_iter().flatten().flat_map(|facts| &facts.sizes);
    let fit = sizes.all(|&size| crop.holds(size));
    let changes = [
        (!come_again && scale != [1.0, 1.0], "`scale` is not [1.0, 1.0]"),
        (!come_again && !fit, "images are larger than `crop`"),
        (learner.config.labeled_photometric, "`labeled_photometric` changes their colors"),
    ];
    let changes: Vec<&str> =
        changes.iter().filter(|(changes, _)| *changes).map(|&(_, why)| why).collect();
    if !changes.is_empty() {
        eprintln!(
            "note: every crop runs through the frozen encoder, as no crop comes twice: {}{}",
            changes.join(", "),
            if learner.config.labeled_photometric {
                ""
            } else {
                "; `crops_per_image` makes them come again"
            }
        );
        return Ok(learner);
    }
    let folder = options.census.join(FEATURES);
    let limit = (feature_cache_gb * 1e9) as u64;
    let Learner { student, teacher, .. } = learner;
    Ok(Learner {
        student: student.with_feature_cache(&folder, limit)?,
        teacher: teacher.with_feature_cache(&folder, limit)?,
        ..learner
    })
}

fn schedule(config: &Config, lists: &Lists) -> Result<Schedule> {
    let unlabeled = lists.unlabeled.as_ref().map(|unlabeled| unlabeled.count());
    Schedule::new(config, lists.labeled.count(), unlabeled)
}

/// Reads the listed files: all of them for a new run, and the labeled ones, for the pixels of each class, for one that has
/// begun.
fn take_census(
    config: &Config,
    options: &RunOptions,
    lists: &mut Lists,
    resumed: Option<&RunState>,
) -> Result<Census> {
    let skipped = resumed.and_then(RunState::skipped);
    if let Some(skipped) = &skipped {
        lists.skip_unlabeled(skipped)?;
    }
    if skipped.is_some() && !options.accept_changes {
        let moved = resumed.and_then(|state| state.moved_from(config)).zip(config.root.as_deref());
        let moved = moved.map(|(from, to)| [from, to]);
        let changed = census::changed_files(&options.census, lists, moved);
        if let [first, others @ ..] = changed.as_slice() {
            bail!(
                "{}{} changed since the run began: restore the files, start another run (which may begin with the weights \
                 of a checkpoint by --init-from), or train on with them by --resume --accept-changes",
                first.display(),
                match others.len() {
                    0 => " has".to_owned(),
                    1 => " and another file have".to_owned(),
                    others => format!(" and {others} other files have"),
                }
            );
        }
    }
    let choices = CensusOptions {
        config,
        out: &options.census,
        labeled_only: skipped.is_some() && !options.accept_changes,
        interrupt: options.monitor.interrupt(),
    };
    let bar = progress::message_bar();
    let start = |images| Progress::new(&bar, "reading", "images", images);
    let census = Census::take(lists, &choices, start, |line| bar.suspend(|| eprintln!("{line}")));
    bar.finish_and_clear();
    let mut census = census?;
    census.skipped.extend(skipped.into_iter().flatten());
    ensure!(
        census.labeled.pixels.iter().any(|&count| count > 0),
        "no pixel of the labeled images has a class: all are ignored"
    );
    // Scenes are not counted.
    let validation = census.validation.as_ref().filter(|facts| !facts.pixels.is_empty());
    ensure!(
        validation.is_none_or(|facts| facts.pixels.iter().any(|&count| count > 0)),
        "no pixel of the validation images has a class: all are ignored, and nothing could be scored"
    );
    Ok(census)
}

fn check_resumable(
    state: &RunState,
    folder: &Path,
    schedule: Schedule,
    lists: &Lists,
    config: &Config,
) -> Result<()> {
    ensure!(
        state.step <= schedule.steps,
        "{} was saved after step {} of a run of {} steps: the folder is damaged",
        folder.display(),
        state.step,
        schedule.steps
    );
    let changes = state.lists.as_ref().map(|then| then.changes(lists, config)).unwrap_or_default();
    ensure!(
        changes.is_empty(),
        "{} changed since {} was saved: restore what was there, or start another run, which may begin with these weights \
         by --init-from",
        changes.join(" and "),
        folder.display()
    );
    Ok(())
}

/// Returns random weights, overwritten by those of `pretrained` and `--init-from`.
fn initial_weights(
    config: &Config,
    options: &RunOptions,
    graph: &Graph,
    classes: &ClassTable,
    log: &RunLog,
) -> Result<StateDict> {
    let mut weights = pretrained::initial(graph, config.seed);
    if let Some(path) = &config.pretrained {
        log.say(&format!("starting from {}", pretrained::load(&mut weights, path)?));
    }
    if let Some(path) = &config.pretrained_stem {
        log.say(&format!("starting from {}", pretrained::load_stem(&mut weights, path)?));
    }
    if let Some(folder) = &options.init_from {
        let loaded = pretrained::load_checkpoint(&mut weights, graph, classes, folder)?;
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

impl Trainer<'_> {
    fn train(&mut self, first: u64) -> Result<RunOutcome> {
        let config = self.config;
        let schedule = self.learner.schedule;
        let pixels = &self.census.labeled.pixels;
        self.learner.class_weights =
            loss::class_weights(config.class_weights, pixels, self.learner.device())?;
        let builder = BatchBuilder::new(
            config,
            self.geometry.clone(),
            schedule.unlabeled_from(config.mode),
            net::mean_color(self.learner.student.graph()),
        );
        let mut caches =
            ImageCaches::new(Arc::clone(&self.lists.labeled), self.lists.unlabeled.clone());
        caches.teacher = self.teacher.as_ref().map(|_| TeacherSource::Placeholder);
        if first == 0 && !self.plan(&builder, &caches)? {
            return Ok(self.stopped());
        }
        if self.options.dry_run {
            return Ok(RunOutcome::Planned);
        }
        let _lock = lock(self.options).map_err(nothing_begun)?;
        self.open_folder(first)?;
        if unless_interrupted(self.label_unlabeled())?.is_none() {
            self.log.say("stopped while the teacher labeled images; another start labels the rest");
            return Ok(self.stopped());
        }
        if let Some(FinishedTeacher { labels, .. }) = &self.teacher {
            caches.teacher = Some(TeacherSource::Labels(Arc::clone(labels)));
        }
        let batches =
            loader::start(caches.clone(), builder.clone(), first, self.options.loader_threads)?;
        let last = self.options.stop_after.map_or(schedule.steps, |stop| stop.min(schedule.steps));
        for step in first..last {
            if step == schedule.warmup && !self.end_warmup(&builder, &caches, step, first)? {
                return Ok(self.stopped());
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
        if !self.learner.teacher_ready
            && !self.end_warmup(&builder, &caches, schedule.steps, first)?
        {
            return Ok(self.stopped());
        }
        self.save(schedule.steps)?;
        let outcome = self.finish()?;
        if let (Some(peak), Some(planned)) = (memory::peak(), self.planned_memory) {
            let [peak, planned] = [peak, planned].map(plan::gigabytes);
            self.log.say(&format!("peak memory {peak}, planned {planned}"));
        }
        Ok(outcome)
    }

    /// Has the finished teacher, if there is one, label the unlabeled images.
    fn label_unlabeled(&mut self) -> Result<()> {
        let (Some(teacher), Some(images)) = (&self.teacher, &self.lists.unlabeled) else {
            return Ok(());
        };
        let progress = self.log.progress("teacher labels:", "images", images.count());
        in_phase(Phase::Labeling, || teacher.label_all(images, &progress))?;
        self.log.pause();
        Ok(())
    }

    /// Measures and prints the plan; returns false if that was interrupted.
    fn plan(&mut self, builder: &BatchBuilder, caches: &ImageCaches) -> Result<bool> {
        let images = PlannedImages {
            lists: self.lists,
            census: self.census,
            builder,
            caches,
            protocol: self.protocol,
            teacher: self.teacher.as_ref(),
            interrupt: self.options.monitor.interrupt(),
        };
        let labels = check_labels(self.config, self.lists, self.census).map_err(nothing_begun)?;
        let measured = plan::measure_cost(&self.learner, &images);
        let Some(cost) = unless_interrupted(measured)? else {
            self.log.say("stopped before the first step");
            return Ok(false);
        };
        self.planned_memory = cost.memory;
        for warning in &self.census.warnings {
            self.log.say(&format!("warning: {warning}"));
        }
        self.log.say(&plan::describe(&self.learner, &images, &labels, cost));
        Ok(true)
    }

    /// Creates the run's folder and opens its log.
    fn open_folder(&mut self, first: u64) -> Result<()> {
        let out = &self.options.out;
        std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
        self.log.open(out, first)?;
        atomic::write(&out.join("config.toml"), toml::to_string(self.config)?.as_bytes())?;
        provenance::write(out, self.options.device)
    }

    /// Ends the warm-up after `done` steps; returns false if that was interrupted, with the state before it saved.
    fn end_warmup(
        &mut self,
        builder: &BatchBuilder,
        caches: &ImageCaches,
        done: u64,
        first: u64,
    ) -> Result<bool> {
        // Statistics and prototypes take minutes on large data, and cannot be saved halfway.
        if done > first {
            self.save(done).with_context(|| format!("the warm-up ended after step {done}"))?;
        }
        let ending = WarmupEnd {
            builder,
            caches,
            lists: self.lists,
            grid: self.protocol.grid,
            interrupt: self.options.monitor.interrupt(),
        };
        let progress =
            |verb: &str, unit: &'static str, parts: usize| self.log.progress(verb, unit, parts);
        let learner = &mut self.learner;
        let ended = in_phase(Phase::WarmupEnd, || ending.run(learner, progress));
        if unless_interrupted(ended)?.is_none() {
            self.log.say("stopped at the end of the warm-up; --resume repeats it");
            return Ok(false);
        }
        self.logged_assignments = assignments(&self.learner);
        self.log.pause();
        Ok(true)
    }

    /// The outcome of a run that was interrupted with everything saved.
    pub(super) fn stopped(&self) -> RunOutcome {
        RunOutcome::Stopped(self.options.monitor.due().unwrap_or(StopReason::Step))
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
        let (lists, skipped) =
            (self.lists.digests(self.config.root.as_deref()), &self.census.skipped);
        state::save(&folder, &self.learner, step, self.best, lists, skipped)?;
        self.log.saved(step, state::FOLDER)
    }

    /// Saves the state and ends the run.
    fn stop(&mut self, done: u64, stop: StopReason) -> Result<RunOutcome> {
        self.save(done)?;
        self.log.say(&format!("stopped after step {done}; continue with --resume"));
        Ok(RunOutcome::Stopped(stop))
    }
}
