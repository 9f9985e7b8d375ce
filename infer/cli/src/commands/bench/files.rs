//! The files that a report is written to.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use protoseg_bench::report::BenchReport;
use protoseg_bench::{page, perf_analyzer};

use crate::commands::output_file;

/// Where a report goes beside the terminal.
#[derive(Debug, clap::Args)]
pub(super) struct ReportFiles {
    /// Write the report with every sample, as JSON; `protoseg bench compare` holds two such against each other
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write a page for a browser, with the distribution of latency and where time goes
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write a table in the columns of perf_analyzer and more; one for each kind of load, with its name before the ending,
    /// where there are several
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
}

impl ReportFiles {
    /// Refuses names that cannot be written, and places in what is measured, before anything is.
    pub(super) fn check<'a>(
        &self,
        measured: impl Iterator<Item = &'a PathBuf>,
    ) -> anyhow::Result<()> {
        let named: Vec<&PathBuf> =
            [&self.report, &self.html, &self.csv].into_iter().flatten().collect();
        named.iter().try_for_each(|path| output_file::check(path))?;
        for bundle in measured.filter_map(|path| path.canonicalize().ok()) {
            // Whether it is there already or not: another run would find it.
            let folder = |path: &Path| {
                path.parent().and_then(|folder| Path::new(".").join(folder).canonicalize().ok())
            };
            let place = |path: &Path| path.canonicalize().ok().or_else(|| folder(path));
            if let Some(part) = named
                .iter()
                .find(|path| place(path).is_some_and(|place| place.starts_with(&bundle)))
            {
                bail!(
                    "{} lies in what is measured, which a report must leave alone; name another file",
                    part.display()
                );
            }
        }
        let same = named.iter().enumerate().find(|(place, path)| named[..*place].contains(path));
        ensure!(same.is_none(), "two of --report, --html and --csv name the same file");
        Ok(())
    }

    /// Writes what was asked for. Where one cannot be written, the others are, and the first that failed is told.
    pub(super) fn write(&self, report: &BenchReport) -> anyhow::Result<()> {
        let mut written = Vec::new();
        if let Some(path) = &self.report {
            written.push(output_file::place(path).and_then(|place| Ok(report.write(&place)?)));
        }
        if let Some(path) = &self.html {
            written.push(write(path, &page::html(report)));
        }
        let tables = if self.csv.is_some() { perf_analyzer::csv(report)? } else { Vec::new() };
        for (load, text) in &tables {
            let path = self.csv.as_deref().unwrap_or(Path::new(""));
            written.push(if tables.len() == 1 {
                write(path, text)
            } else {
                write(&named(path, load.name()), text)
            });
        }
        written.into_iter().collect()
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    output_file::write(path, text.as_bytes())
}

/// A file's name with a word before its ending: of `a/b.csv` `a/b-offline.csv`.
fn named(path: &Path, word: &str) -> PathBuf {
    let mut name = OsString::from(path.file_stem().unwrap_or_default());
    name.push(format!("-{word}"));
    if let Some(ending) = path.extension() {
        name.push(".");
        name.push(ending);
    }
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_told_apart_by_their_names() {
        let name = |path: &str| named(Path::new(path), "offline");
        assert_eq!(name("a/b.csv"), Path::new("a/b-offline.csv"));
        assert_eq!(name("table"), Path::new("table-offline"));
        assert_eq!(name("x.y.csv"), Path::new("x.y-offline.csv"));
    }
}
