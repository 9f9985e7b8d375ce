//! Progress of what happens beside the steps: a message in the bar on a terminal, else a line every few seconds.

use std::io::{IsTerminal, stderr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Time between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Time between two messages on a terminal.
const DRAW_EVERY: Duration = Duration::from_millis(200);

/// A bar that shows messages alone.
pub fn message_bar() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{msg}") {
        bar.set_style(style);
    }
    bar
}

/// Progress through `total` parts, counted by any number of threads.
pub struct Progress {
    bar: ProgressBar,
    verb: String,
    unit: &'static str,
    total: usize,
    done: AtomicUsize,
    started: Instant,
    shown: Mutex<Instant>,
    terminal: bool,
}

impl Progress {
    /// Starts, for instance, "reading" 20 000 "images"; messages are shown in a bar.
    pub fn new(
        bar: &ProgressBar,
        verb: impl Into<String>,
        unit: &'static str,
        total: usize,
    ) -> Self {
        let now = Instant::now();
        Self {
            bar: bar.clone(),
            verb: verb.into(),
            unit,
            total,
            done: AtomicUsize::new(0),
            started: now,
            shown: Mutex::new(now),
            terminal: stderr().is_terminal(),
        }
    }

    /// Shows nothing; for callers without a run.
    pub fn hidden() -> Self {
        Self::new(&ProgressBar::hidden(), "", "", 0)
    }

    /// Counts a part that is done.
    pub fn done(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if self.total == 0 {
            return;
        }
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let every = if self.terminal { DRAW_EVERY } else { LINE_EVERY };
        if shown.elapsed() < every {
            return;
        }
        *shown = Instant::now();
        let text = self.text(done);
        if self.terminal {
            self.bar.set_message(text);
        } else {
            self.bar.suspend(|| eprintln!("{text}"));
        }
    }

    fn text(&self, done: usize) -> String {
        let Self { verb, unit, total, .. } = self;
        let rate = done as f64 / self.started.elapsed().as_secs_f64().max(1e-3);
        let rate = if rate >= 10.0 { format!("{rate:.0}") } else { format!("{rate:.1}") };
        format!("{verb} {done} of {total} {unit}, {rate}/s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_the_counts_and_the_rate() {
        let progress = Progress::new(&ProgressBar::hidden(), "reading", "images", 20);
        let text = progress.text(3);
        assert!(text.starts_with("reading 3 of 20 images, ") && text.ends_with("/s"), "{text}");
        progress.done();
        Progress::hidden().done();
    }
}
