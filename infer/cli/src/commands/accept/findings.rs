//! What was tried, and what came of it.

use std::collections::BTreeMap;

use protoseg_models::errors::error_chain;
use serde::Serialize;

use crate::commands::print;

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct CheckResult {
    /// What should hold.
    what: String,
    /// Whether it does.
    status: Status,
    /// What was seen, or why nothing was.
    detail: String,
    /// The numbers of it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    figures: BTreeMap<&'static str, f64>,
}

/// Whether something holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Status {
    Passed,
    Failed,
    Skipped,
}

impl std::fmt::Display for CheckResult {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let status = match self.status {
            Status::Passed => "passed ",
            Status::Failed => "FAILED ",
            Status::Skipped => "not run",
        };
        write!(formatter, "{status}  {}: {}", self.what, self.detail)
    }
}

/// All that was tried, in order.
#[derive(Debug)]
pub(super) struct CheckResults {
    all: Vec<CheckResult>,
    /// Whether each is printed as it comes.
    print: bool,
}

impl CheckResults {
    /// None yet; each that comes is printed, or not.
    pub(super) fn new(print: bool) -> Self {
        Self { all: Vec::new(), print }
    }

    /// Something that holds or does not.
    pub(super) fn add<const N: usize>(
        &mut self,
        what: String,
        holds: bool,
        detail: String,
        figures: [(&'static str, f64); N],
    ) {
        let status = if holds { Status::Passed } else { Status::Failed };
        self.push(CheckResult { what, status, detail, figures: BTreeMap::from(figures) });
    }

    /// Something that could not be done.
    pub(super) fn failed(&mut self, what: String, error: &anyhow::Error) {
        let detail = error_chain(error.as_ref());
        self.push(CheckResult { what, status: Status::Failed, detail, figures: BTreeMap::new() });
    }

    /// Something that cannot be tried here.
    pub(super) fn skipped(&mut self, what: String, why: impl Into<String>) {
        self.push(CheckResult {
            what,
            status: Status::Skipped,
            detail: why.into(),
            figures: BTreeMap::new(),
        });
    }

    fn push(&mut self, finding: CheckResult) {
        if self.print {
            // Where nobody listens, the last line fails too, and there the command says so.
            let _ = print(&finding);
        }
        self.all.push(finding);
    }

    /// Whether something was tried and nothing failed.
    pub(super) fn passed(&self) -> bool {
        let is = |status: Status| move |finding: &CheckResult| finding.status == status;
        self.all.iter().any(is(Status::Passed)) && !self.all.iter().any(is(Status::Failed))
    }

    pub(super) fn all(self) -> Vec<CheckResult> {
        self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_fails_all_and_nothing_tried_is_no_success() {
        let mut findings = CheckResults::new(false);
        findings.skipped("a".to_owned(), "no device");
        assert!(!findings.passed());
        findings.add("b".to_owned(), true, "1 of 1".to_owned(), [("share", 1.0)]);
        assert!(findings.passed());
        findings.failed("c".to_owned(), &anyhow::anyhow!("broken").context("file"));
        assert!(!findings.passed());
        let lines: Vec<String> = findings.all().iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            ["not run  a: no device", "passed   b: 1 of 1", "FAILED   c: file: broken"]
        );
    }
}
