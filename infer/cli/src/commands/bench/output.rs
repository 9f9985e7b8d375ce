//! Files that a report is written to.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::ensure;
use protoseg_bench::report::BenchReport;
use protoseg_bench::{page, perf_analyzer};

use crate::commands::output_file;

#[derive(Debug, clap::Args)]
pub(super) struct OutputArgs {
    /// Write the report with every sample as JSON, for `protoseg bench compare`
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write a page for a browser, with latency distributions and stage times
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write a table in perf_analyzer's columns and more; one per kind of load, with its name
    /// before the extension, where there are several
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Print the report with every sample as JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl OutputArgs {
    /// Refuses files that cannot be written or lie in what is measured, before the measurement.
    pub(super) fn check<'a>(
        &self,
        bundles: impl Iterator<Item = &'a PathBuf>,
    ) -> anyhow::Result<()> {
        let files: Vec<&PathBuf> =
            [&self.report, &self.html, &self.csv].into_iter().flatten().collect();
        files.iter().try_for_each(|path| output_file::check(path))?;
        for bundle in bundles.filter_map(|bundle| bundle.canonicalize().ok()) {
            for path in &files {
                // A file that does not exist yet counts too: the next run would measure another
                // bundle.
                let folder = path.parent().map(|folder| Path::new(".").join(folder));
                let place = path.canonicalize().ok().or_else(|| folder?.canonicalize().ok());
                ensure!(
                    place.is_none_or(|place| !place.starts_with(&bundle)),
                    "{} lies in what is measured, which must not change; name another file",
                    path.display()
                );
            }
        }
        let is_duplicate = |(index, path): (usize, &&PathBuf)| files[..index].contains(path);
        ensure!(
            !files.iter().enumerate().any(is_duplicate),
            "two of --report, --html and --csv name the same file"
        );
        Ok(())
    }

    /// Writes all files that can be written, and returns the first failure.
    pub(super) fn write(&self, report: &BenchReport) -> anyhow::Result<()> {
        let mut written = Vec::new();
        if let Some(path) = &self.report {
            written.push(output_file::resolve(path).and_then(|place| Ok(report.write(&place)?)));
        }
        if let Some(path) = &self.html {
            written.push(output_file::write(path, page::html(report).as_bytes()));
        }
        if let Some(path) = &self.csv {
            let tables = perf_analyzer::csv(report)?;
            for (load, text) in &tables {
                let file =
                    if tables.len() == 1 { path.clone() } else { with_suffix(path, load.name()) };
                written.push(output_file::write(&file, text.as_bytes()));
            }
        }
        written.into_iter().collect()
    }
}

/// `a/b.csv` with the suffix `offline` is `a/b-offline.csv`.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path.file_stem().unwrap_or_default());
    name.push(format!("-{suffix}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_stand_before_the_extension() {
        let name = |path: &str| with_suffix(Path::new(path), "offline");
        assert_eq!(name("a/b.csv"), Path::new("a/b-offline.csv"));
        assert_eq!(name("table"), Path::new("table-offline"));
        assert_eq!(name("x.y.csv"), Path::new("x.y-offline.csv"));
    }
}
