//! `protoseg export`: runs `protoseg-export`, checks the bundle, and moves it to --out.
//!
//! The bundle is written to a hidden folder beside --out and renamed after its check, so a
//! bundle that fails never appears, and an older one stays until then.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{CommandFactory, Parser};
use protoseg_infer::check;
use protoseg_infer::session;
use protoseg_models::bundle::{Manifest, TUNING};
use protoseg_models::gate::Verdict;
use protoseg_models::{atomic, bundle_output};

use super::check::open_labeled_images;
use super::data::{DataArgs, DatasetKind};
use super::signals::StopSignals;
use super::{CommandError, CommandOutcome, OrUsage, print, print_stderr, progress, sibling};

/// Interval of polling for the end of `protoseg-export` and for signals.
const POLL: Duration = Duration::from_millis(20);

/// Options of `protoseg export` besides those of `protoseg-export`.
#[derive(Debug, Parser)]
#[command(name = "protoseg export", no_binary_name = true, disable_help_flag = true)]
#[command(
    override_usage = "protoseg export CHECKPOINT --out DIR [OPTIONS]",
    help_template = "{options}"
)]
struct Options {
    /// Write the bundle without a check; needs no ONNX Runtime
    #[arg(long)]
    no_check: bool,
    /// Score every file on labeled images too: kind of data set
    #[arg(long, value_enum, value_name = "NAME", conflicts_with = "no_check")]
    check_data: Option<DatasetKind>,
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
    #[arg(long, value_name = "N", requires = "check_data", value_parser = super::image_count())]
    check_limit: Option<usize>,
}

impl Options {
    fn data(self) -> DataArgs {
        DataArgs {
            data: self.check_data,
            root: self.check_root,
            split: self.check_split,
            list: self.check_list,
            limit: self.check_limit,
            prefix: "check-",
            ..DataArgs::default()
        }
    }
}

/// Command line, split between this program and `protoseg-export`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Words {
    own: Vec<OsString>,
    /// For `protoseg-export`.
    other: Vec<OsString>,
    /// Last --out folder, with its index in `other`.
    out: Option<(PathBuf, usize)>,
    /// --help or --version is given.
    help: bool,
}

impl Words {
    fn new(arguments: &[OsString]) -> Self {
        let mut words = Self::default();
        let mut arguments = arguments.iter();
        while let Some(word) = arguments.next() {
            match word.as_bytes() {
                b"--" => {
                    words.other.push(word.clone());
                    words.other.extend(arguments.by_ref().cloned());
                }
                b"--no-check" => words.own.push(word.clone()),
                own if own.starts_with(b"--check-") => {
                    words.own.push(word.clone());
                    if !own.contains(&b'=') {
                        words.own.extend(arguments.next().cloned());
                    }
                }
                b"--out" => {
                    words.other.push(word.clone());
                    if let Some(folder) = arguments.next() {
                        words.out = Some((folder.into(), words.other.len()));
                        words.other.push(folder.clone());
                    }
                }
                out if out.starts_with(b"--out=") => {
                    // Split into two words like the other form.
                    let folder = OsStr::from_bytes(&out[b"--out=".len()..]).to_owned();
                    words.out = Some(((&folder).into(), words.other.len() + 1));
                    words.other.extend(["--out".into(), folder]);
                }
                other => {
                    words.help |=
                        [b"--help".as_slice(), b"-h", b"--version", b"-V"].contains(&other);
                    words.other.push(word.clone());
                }
            }
        }
        words
    }
}

/// Reason that no bundle was written.
enum Stop {
    CommandError(CommandError),
    /// Exit status of `protoseg-export`, which has printed its error.
    Sibling(u8),
    /// Lines of the failed check.
    CheckFailed(Vec<String>),
    Signal,
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::CommandError(CommandError::Runtime(error.into()))
    }
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Self::CommandError(CommandError::Runtime(error))
    }
}

/// Exports, checks, and moves a bundle that passes to --out.
pub(crate) fn run(arguments: &[OsString]) -> Result<CommandOutcome, CommandError> {
    let words = Words::new(arguments);
    if words.help {
        return help(arguments);
    }
    let options = Options::parse_from(&words.own);
    let Some((out, word)) = words.out.clone().filter(|_| !options.no_check) else {
        match sibling::exec("export", &words.other).or_usage()? {}
    };
    let no_runtime =
        "the bundle is checked before it is written; --no-check exports without a check";
    session::load_runtime().context(no_runtime).or_usage()?;
    atomic::recover(&out).with_context(|| out.display().to_string())?;
    bundle_output::refuse_checkpoint(&out).map_err(anyhow::Error::from)?;
    let older = Manifest::read(&out).map(|older| older.value.names()).unwrap_or_default();
    let known: Vec<&str> = older.iter().map(String::as_str).collect();
    let tuned = out.join(TUNING).is_file();
    let data = options.data();
    let signals = StopSignals::catch()?;
    let mut lines = Vec::new();
    let written = atomic::write_folder(&out, &known, |hidden| {
        let mut words = words.other.clone();
        hidden.as_os_str().clone_into(&mut words[word]);
        export(&words, hidden, &out, &signals.stop)?;
        lines = checked(hidden, &out, &data, &signals.stop)?;
        Ok(())
    });
    match written {
        Ok(()) => {
            lines.iter().try_for_each(print)?;
            if tuned {
                print_stderr(
                    "warning: the tuning of the older bundle was removed with it; run `protoseg tune` again",
                );
            }
            Ok(CommandOutcome::Success)
        }
        Err(Stop::Sibling(status)) => Ok(CommandOutcome::ExitCode(status)),
        Err(Stop::Signal) => Ok(CommandOutcome::ExitCode(signals.status())),
        Err(Stop::CheckFailed(lines)) => {
            lines.iter().try_for_each(print)?;
            let out = out.display();
            Err(anyhow!("the bundle does not pass its check, so nothing was written to {out}; --no-check writes it for inspection").into())
        }
        Err(Stop::CommandError(CommandError::Runtime(error))) => {
            Err(CommandError::Runtime(error.context(out.display().to_string())))
        }
        Err(Stop::CommandError(usage)) => Err(usage),
    }
}

/// Prints the help of `protoseg-export`, then the options added here.
fn help(arguments: &[OsString]) -> Result<CommandOutcome, CommandError> {
    let mut command = sibling::command("export").or_usage()?;
    let status = command
        .args(arguments)
        .status()
        .with_context(|| command.get_program().display().to_string())?;
    if !status.success() {
        return Ok(CommandOutcome::ExitCode(status.code().map_or(1, |code| code as u8)));
    }
    if arguments.iter().any(|word| word == "--help" || word == "-h") {
        let options = Options::command().render_long_help();
        print(format!(
            "\nThe bundle is then checked like `protoseg check` and written if it passes:\n\n{options}"
        ))?;
    }
    Ok(CommandOutcome::Success)
}

/// Runs `protoseg-export` and shows `out` in its messages in place of the hidden folder. After a
/// signal its partial files are removed.
fn export(words: &[OsString], hidden: &Path, out: &Path, stop: &AtomicBool) -> Result<(), Stop> {
    let mut command = sibling::command("export")
        .map_err(|error| Stop::CommandError(CommandError::Usage(error)))?;
    let program = command.get_program().display().to_string();
    let mut child =
        command.args(words).stderr(Stdio::piped()).spawn().with_context(|| program.clone())?;
    let errors = child.stderr.take();
    // Read while it runs: a full pipe would block it.
    let errors =
        thread::spawn(move || errors.map_or_else(|| Ok(String::new()), std::io::read_to_string));
    let status = loop {
        if let Some(status) = child.try_wait().with_context(|| program.clone())? {
            break status;
        }
        if stop.load(Ordering::Relaxed) {
            child.kill().with_context(|| program.clone())?;
        }
        thread::sleep(POLL);
    };
    if stop.load(Ordering::Relaxed) {
        atomic::remove_partial(hidden)?;
        return Err(Stop::Signal);
    }
    let errors = errors.join().ok().transpose().context(program)?.unwrap_or_default();
    if !errors.is_empty() {
        print_stderr(renamed(errors.trim_end_matches('\n'), hidden, out));
    }
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(Stop::Sibling(code as u8)),
        None => Err(anyhow!("protoseg-export was killed by a signal").into()),
    }
}

/// Checks the hidden folder and records the result in its manifest; returns the report's lines.
fn checked(
    hidden: &Path,
    out: &Path,
    data: &DataArgs,
    stop: &AtomicBool,
) -> Result<Vec<String>, Stop> {
    let mut manifest = Manifest::read(hidden).map_err(anyhow::Error::from)?.value;
    let images = open_labeled_images(data, &manifest)
        .map_err(|error| Stop::CommandError(CommandError::Usage(error)))?;
    let cases = manifest.probe(hidden).map_err(anyhow::Error::from)?;
    if cases.is_empty() {
        let why = "the checkpoint has no probe, so its bundle cannot be checked; --no-check exports without a check";
        return Err(anyhow!(why).into());
    }
    let bar = progress::bar(images.as_ref().map_or(0, |images| images.set.count()));
    let report =
        check::check_bundle(hidden, &manifest, &cases, images.as_ref(), stop, &|| bar.inc(1));
    bar.finish_and_clear();
    if stop.load(Ordering::Relaxed) {
        return Err(Stop::Signal);
    }
    let lines = report.lines().iter().map(|line| renamed(line, hidden, out)).collect();
    if !report.passed {
        return Err(Stop::CheckFailed(lines));
    }
    for file in report.files.iter().filter(|file| file.verdict == Verdict::NotJudged) {
        let why = match (data.data, file.not_judged.as_deref()) {
            (Some(_), Some(why)) => why,
            _ if check::has_fp32_reference(&manifest) => {
                "name labeled images with --check-data and --check-root"
            }
            _ => {
                "name labeled images with --check-data and --check-root, and add fp32 to --precision as the reference of scores"
            }
        };
        print_stderr(format_args!("warning: the quality of {} was not judged: {why}", file.file));
    }
    manifest.gate = report.gates();
    manifest.provenance.command = renamed(&manifest.provenance.command, hidden, out);
    manifest.write(hidden).map_err(anyhow::Error::from)?;
    Ok(lines)
}

fn renamed(text: &str, hidden: &Path, out: &Path) -> String {
    text.replace(&*hidden.to_string_lossy(), &out.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Words {
        Words::new(&text.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn words_are_split_between_the_programs() {
        let split = words(
            "ck --check-data camvid --out=a/b --window 768:512 --check-root=/data --no-check -- --out x",
        );
        assert_eq!(split.own, ["--check-data", "camvid", "--check-root=/data", "--no-check"]);
        assert_eq!(split.other, ["ck", "--out", "a/b", "--window", "768:512", "--", "--out", "x"]);
        assert_eq!((split.out, split.help), (Some(("a/b".into(), 2)), false));
        assert_eq!(words("ck --out dir").out, Some(("dir".into(), 2)));
        assert_eq!((words("ck --out").out, words("-h").help), (None, true));
    }
}
