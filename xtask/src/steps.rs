//! Titled steps and their times.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Titles and times of the steps so far.
#[derive(Default)]
pub(crate) struct Steps {
    done: Vec<(String, Duration)>,
}

impl Steps {
    /// Runs a step; errors get its title as context.
    pub(crate) fn run(&mut self, title: &str, step: impl FnOnce() -> Result<()>) -> Result<()> {
        eprintln!("\n== {title}");
        let start = Instant::now();
        let outcome = step().with_context(|| title.to_owned());
        let elapsed = start.elapsed();
        eprintln!(
            "== {title}: {} in {:.1} s",
            if outcome.is_ok() { "done" } else { "FAILED" },
            elapsed.as_secs_f64()
        );
        self.done.push((title.to_owned(), elapsed));
        outcome
    }

    /// Formats a line per step and the total.
    pub(crate) fn table(&self) -> String {
        let total: Duration = self.done.iter().map(|(_, elapsed)| *elapsed).sum();
        let rows = self.done.iter().map(|(title, elapsed)| (title.as_str(), *elapsed));
        let width = self
            .done
            .iter()
            .map(|(title, _)| title.chars().count())
            .max()
            .unwrap_or(0)
            .max("total".len());
        rows.chain([("total", total)]).fold(String::new(), |mut table, (title, elapsed)| {
            // Writing to a string cannot fail.
            let _ = writeln!(table, "{title:width$}  {:8.1} s", elapsed.as_secs_f64());
            table
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_per_step_and_a_total() {
        let mut steps = Steps::default();
        steps.run("a long title", || Ok(())).unwrap();
        let error = steps.run("b", || anyhow::bail!("no")).unwrap_err();
        assert_eq!(format!("{error:#}"), "b: no");
        assert_eq!(
            steps.table(),
            "a long title       0.0 s\nb                  0.0 s\ntotal              0.0 s\n"
        );
    }
}
