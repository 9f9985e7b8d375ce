//! What a run of `protoseg label` says of itself at its end.

use std::path::Path;
use std::time::Duration;

use protoseg_infer::pipeline::{Pipeline, PipelineSetup, StageReport};
use protoseg_label::shard::Shard;
use protoseg_models::errors::error_chain;
use serde::Serialize;

use super::record::path_text;

/// A run.
#[derive(Debug, Serialize)]
pub(super) struct LabelSummary {
    /// Pictures that this run labelled.
    #[serde(rename = "labelled")]
    pub(super) labeled: usize,
    /// Pictures whose results an earlier run left.
    pub(super) kept: usize,
    /// Pictures that were not begun, as the run was interrupted.
    pub(super) left: usize,
    pub(super) failed: Vec<FailedInput>,
    shard: Shard,
    seconds: f64,
    images_per_second: f64,
    setup: PipelineSetup,
    stages: Option<StageReport>,
}

/// A picture that could not be labelled.
#[derive(Debug, Serialize)]
pub(super) struct FailedInput {
    path: String,
    error: String,
}

impl FailedInput {
    pub(super) fn new(path: &Path, error: &anyhow::Error) -> Self {
        Self { path: path_text(path), error: error_chain(error.as_ref()) }
    }
}

impl LabelSummary {
    pub(super) fn new(
        pipeline: &Pipeline,
        labeled: usize,
        kept: usize,
        failed: Vec<FailedInput>,
        shard: Shard,
    ) -> Self {
        let setup = pipeline.setup().clone();
        Self {
            labeled,
            kept,
            left: 0,
            failed,
            shard,
            seconds: 0.0,
            images_per_second: 0.0,
            setup,
            stages: None,
        }
    }

    /// How long it took.
    pub(super) fn time(&mut self, elapsed: Duration, stages: StageReport) {
        self.seconds = elapsed.as_secs_f64();
        self.images_per_second = self.labeled as f64 / self.seconds;
        self.stages = Some(stages);
    }

    /// As people read it.
    pub(super) fn human(&self, out: &Path) -> String {
        let counts = [
            (self.kept, "there before"),
            (self.failed.len(), "failed"),
            (self.left, "left for --resume"),
        ];
        let counts: String = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!(", {count} {what}"))
            .collect();
        let head = format!(
            "{} labelled{counts} into {} in {:.1} s ({:.2} images/s)",
            self.labeled,
            out.display(),
            self.seconds,
            self.images_per_second,
        );
        let Some(StageReport { decode, run, stitch, decide, encode, bottleneck }) = &self.stages
        else {
            return head;
        };
        if self.labeled == 0 {
            return head;
        }
        let work = [
            ("decode", decode),
            ("run", run),
            ("stitch", stitch),
            ("decide", decide),
            ("encode", encode),
        ];
        let work = work
            .map(|(name, stage)| {
                format!("{name} {:.2} ({:.0} %)", stage.seconds, 100.0 * stage.busy)
            })
            .join(", ");
        format!("{head}\nwork in seconds (of what its threads had): {work}\n{bottleneck}")
    }
}
