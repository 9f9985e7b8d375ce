//! Summary of a run of `protoseg label`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use protoseg_images::scan::ScanReport;
use protoseg_infer::pipeline::{Pipeline, PipelineSetup, StageReport};
use protoseg_label::shard::Shard;
use serde::Serialize;

use super::failures::FailedInput;

/// Summary of one run; printed as text or JSON.
#[derive(Debug, Serialize)]
pub(super) struct LabelSummary {
    #[serde(rename = "labelled")]
    pub(super) labeled: usize,
    /// Images whose results of an earlier run are kept.
    pub(super) kept: usize,
    /// Images left for --resume after an interruption.
    pub(super) left: usize,
    pub(super) failed: Vec<FailedInput>,
    /// Files of endings that are not read, and their number by ending.
    passed_over: usize,
    passed_over_endings: BTreeMap<String, usize>,
    /// Hidden entries and by-products that were not entered.
    hidden: usize,
    shard: Shard,
    seconds: f64,
    images_per_second: f64,
    setup: PipelineSetup,
    stages: Option<StageReport>,
    /// The ids that the files hold, where they are not those of the class file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ids: Option<String>,
}

impl LabelSummary {
    pub(super) fn new(
        pipeline: &Pipeline,
        labeled: usize,
        kept: usize,
        failed: Vec<FailedInput>,
        scan: &ScanReport,
        shard: Shard,
    ) -> Self {
        let setup = pipeline.setup().clone();
        Self {
            labeled,
            kept,
            left: 0,
            failed,
            passed_over: scan.unread_files(),
            passed_over_endings: scan.endings.clone(),
            hidden: scan.hidden,
            shard,
            seconds: 0.0,
            images_per_second: 0.0,
            setup,
            stages: None,
            ids: None,
        }
    }

    /// Sets the time of the run and its stages.
    pub(super) fn set_times(&mut self, elapsed: Duration, stages: StageReport) {
        self.seconds = elapsed.as_secs_f64();
        self.images_per_second = self.labeled as f64 / self.seconds;
        self.stages = Some(stages);
    }

    /// Text for the terminal.
    pub(super) fn human(&self, out: &Path) -> String {
        let text = self.work(out);
        match &self.ids {
            Some(ids) if self.labeled + self.kept > 0 => format!("{text}\n{ids}"),
            _ => text,
        }
    }

    fn work(&self, out: &Path) -> String {
        let counts =
            [(self.kept, "kept"), (self.failed.len(), "failed"), (self.left, "left for --resume")];
        let counts: String = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, state)| format!(", {count} {state}"))
            .collect();
        let head = format!(
            "{} labeled{counts} into {} in {:.1} s ({:.2} images/s)",
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
        format!("{head}\nstages in seconds (share of their threads' time): {work}\n{bottleneck}")
    }
}
