//! What a run of `protoseg label` says of itself at its end.

use std::path::Path;
use std::time::Duration;

use protoseg_infer::pipeline::{Pipeline, Setup, Stages};
use protoseg_label::shard::Shard;
use protoseg_models::errors::sentence;
use serde::Serialize;

use super::record::path_text;

/// A run.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    /// Pictures that this run labelled.
    pub(super) labelled: usize,
    /// Pictures whose results an earlier run left.
    pub(super) kept: usize,
    /// Pictures that were not begun, as the run was interrupted.
    pub(super) left: usize,
    pub(super) failed: Vec<FailedInput>,
    shard: Shard,
    seconds: f64,
    images_per_second: f64,
    setup: Setup,
    stages: Option<Stages>,
}

/// A picture that could not be labelled.
#[derive(Debug, Serialize)]
pub(super) struct FailedInput {
    path: String,
    error: String,
}

impl FailedInput {
    pub(super) fn new(path: &Path, error: &anyhow::Error) -> Self {
        Self { path: path_text(path), error: sentence(error.as_ref()) }
    }
}

impl Summary {
    pub(super) fn new(
        pipeline: &Pipeline,
        labelled: usize,
        kept: usize,
        failed: Vec<FailedInput>,
        shard: Shard,
    ) -> Self {
        let setup = pipeline.setup().clone();
        Self { labelled, kept, left: 0, failed, shard, seconds: 0.0, images_per_second: 0.0, setup, stages: None }
    }

    /// How long it took.
    pub(super) fn time(&mut self, elapsed: Duration, stages: Stages) {
        self.seconds = elapsed.as_secs_f64();
        self.images_per_second = self.labelled as f64 / self.seconds;
        self.stages = Some(stages);
    }

    /// As people read it.
    pub(super) fn human(&self, out: &Path) -> String {
        let counts = [(self.kept, "there before"), (self.failed.len(), "failed"), (self.left, "left for --resume")];
        let counts: String =
            counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!(", {count} {what}")).collect();
        let head = format!(
            "{} labelled{counts} into {} in {:.1} s ({:.2} images/s)",
            self.labelled,
            out.display(),
            self.seconds,
            self.images_per_second,
        );
        let Some(Stages { decode, run, stitch, decide, encode, bottleneck }) = &self.stages else { return head };
        if self.labelled == 0 {
            return head;
        }
        let work = [("decode", decode), ("run", run), ("stitch", stitch), ("decide", decide), ("encode", encode)];
        let work =
            work.map(|(name, stage)| format!("{name} {:.2} ({:.0} %)", stage.seconds, 100.0 * stage.busy)).join(", ");
        format!("{head}\nwork in seconds (of what its threads had): {work}\n{bottleneck}")
    }
}
