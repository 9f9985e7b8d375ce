//! The check at the end of an export: `protoseg check` judges the hidden folder, and only a bundle
//! that passes takes its place. A program of its own runs it, so that nothing here depends on ONNX
//! Runtime.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use protoseg_models::bundle::{Manifest, ModelFile};
use protoseg_models::gate::Verdict;
use protoseg_models::variant::{ModelKind, Precision};
use protoseg_program::sibling::{self, SiblingError};
use protoseg_program::signals::StopSignals;

/// Interval of polling for the end of `protoseg check` and for signals.
const POLL: Duration = Duration::from_millis(20);

/// Most labeled images.
const MAX_IMAGES: u64 = 1_000_000;

// Options of the check. Not a doc comment: clap would use it as the description of the program.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Check before the bundle is written, as `protoseg check` does")]
pub(crate) struct CheckOptions {
    /// Write the bundle without a check; needs no ONNX Runtime
    #[arg(long)]
    no_check: bool,
    /// Score every file on labeled images too: kind of data set
    #[arg(long, value_name = "NAME", conflicts_with = "no_check")]
    #[arg(value_parser = ["camvid", "cityscapes", "voc", "folder", "synthetic"])]
    check_data: Option<String>,
    /// Folder of the data set
    #[arg(long, value_name = "DIR", requires = "check_data")]
    check_root: Option<PathBuf>,
    /// Split [default: val; for `folder`: all]
    #[arg(long, value_name = "NAME", requires = "check_data", conflicts_with = "check_list")]
    check_split: Option<String>,
    /// List of images
    #[arg(long, value_name = "FILE", requires = "check_data")]
    check_list: Option<PathBuf>,
    /// Score only the first N images
    #[arg(long, value_name = "N", requires = "check_data")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=MAX_IMAGES))]
    check_limit: Option<u64>,
}

/// Reason that no bundle was written, with an exit status of its own.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stop {
    #[error("the bundle is checked before it is written; --no-check exports without a check: {0}")]
    NoChecker(#[from] SiblingError),
    #[error(
        "the bundle does not pass its check, so nothing was written to {}; --no-check writes it for inspection",
        .0.display()
    )]
    Failed(PathBuf),
    #[error(
        "{failed} did not pass the check and was left out; {} has {kept}. --float-above 0.02 keeps more values of 8-bit files in \
         floats, and --no-check writes all for inspection",
        out.display()
    )]
    LeftOut {
        /// The bundle.
        out: PathBuf,
        /// Files that failed.
        failed: String,
        /// Files of the bundle.
        kept: String,
    },
    /// That of `protoseg check`, which has printed its error, or of a signal.
    #[error("exit status {0}")]
    Status(u8),
}

impl Stop {
    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            Self::NoChecker(_) => 2,
            Self::Failed(_) | Self::LeftOut { .. } => 1,
            Self::Status(status) => *status,
        }
    }
}

/// Result of a check that does not stop the export.
#[derive(Debug, Default)]
pub(crate) struct Judgement {
    /// Lines of the report.
    pub(crate) lines: String,
    /// Names of the files to leave out.
    pub(crate) failed: Vec<String>,
}

/// Files that failed, with the frame files of their precision; None where nothing failed by itself,
/// no file with logits is left, or the fp32 file failed, by which the others are measured.
fn failed_apart(manifest: &Manifest) -> Option<Vec<String>> {
    let failed = |file: &ModelFile| {
        let result = manifest.gate.iter().find(|result| result.file == file.file);
        result.is_some_and(|result| result.verdict == Verdict::Failed)
    };
    let logits = || manifest.files.iter().filter(|file| file.variant.kind == ModelKind::Logits);
    let is_reference = |file: &&ModelFile| file.variant.precision == Precision::Fp32;
    if logits().filter(is_reference).any(failed) || logits().all(failed) {
        return None;
    }
    let is_bad_frame = |file: &ModelFile| {
        let own = |other: &&ModelFile| other.variant.precision == file.variant.precision;
        file.variant.kind == ModelKind::Frame && logits().filter(own).any(failed)
    };
    let out = manifest.files.iter().filter(|file| failed(file) || is_bad_frame(file));
    let names: Vec<String> = out.map(|file| file.file.clone()).collect();
    (!names.is_empty()).then_some(names)
}

/// `protoseg check` with its options, all but the folder.
pub(crate) struct Gate(Command);

impl CheckOptions {
    /// Returns the check; none with --no-check.
    pub(crate) fn gate(self) -> Result<Option<Gate>, Stop> {
        if self.no_check {
            return Ok(None);
        }
        let mut command = sibling::command("protoseg")?;
        command.args(["check", "--record"]);
        let options = [
            ("--data=", self.check_data.map(OsString::from)),
            ("--root=", self.check_root.map(OsString::from)),
            ("--split=", self.check_split.map(OsString::from)),
            ("--list=", self.check_list.map(OsString::from)),
            ("--limit=", self.check_limit.map(|limit| limit.to_string().into())),
        ];
        for (name, value) in options {
            command.args(value.map(|value| joined(name, value)));
        }
        Ok(Some(Gate(command)))
    }
}

fn joined(name: &str, value: impl Into<OsString>) -> OsString {
    let mut word = OsString::from(name);
    word.push(value.into());
    word
}

impl Gate {
    /// Checks a folder that `out` will name, and records the results in its manifest. Files that fail
    /// are left out where files with logits are left that need none of them; else the whole bundle
    /// fails, and the lines of the report are printed. Ends early after a signal.
    pub(crate) fn judge(
        self,
        folder: &Path,
        out: &Path,
        signals: &StopSignals,
    ) -> Result<Judgement> {
        let Self(mut command) = self;
        let program = command.get_program().display().to_string();
        command.arg(joined("--exported-as=", out)).arg(folder).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| program.clone())?;
        let stdout = child.stdout.take();
        // Read while it runs: a full pipe would block it.
        let lines = thread::spawn(move || {
            stdout.map_or_else(|| Ok(String::new()), std::io::read_to_string)
        });
        let status = loop {
            if let Some(status) = child.try_wait().with_context(|| program.clone())? {
                break status;
            }
            if signals.stopped() {
                child.kill().with_context(|| program.clone())?;
            }
            thread::sleep(POLL);
        };
        let lines = lines.join().map_err(|_| anyhow!("the output of {program} is lost"))?;
        if signals.stopped() {
            return Err(Stop::Status(signals.status()).into());
        }
        let lines = lines.with_context(|| program.clone())?;
        match status.code() {
            Some(0) => Ok(Judgement { lines, failed: Vec::new() }),
            Some(1) if !lines.is_empty() => match failed_apart(&Manifest::read(folder)?.value) {
                Some(failed) => Ok(Judgement { lines, failed }),
                None => {
                    crate::print(&lines)?;
                    Err(Stop::Failed(out.into()).into())
                }
            },
            Some(code) => Err(Stop::Status(code as u8).into()),
            None => bail!("{program} was killed by a signal"),
        }
    }
}
