//! `protoseg check`: compares every file of a bundle with the libtorch outputs in its probe, and
//! its score on labeled images with that of the fp32 file. `protoseg-export` asks it for the folder
//! that it is about to put in place.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use protoseg_infer::check::{self, CheckReport, LabeledImages, TapsReport};
use protoseg_infer::session;
use protoseg_models::bundle::{Manifest, ProbeReference};
use protoseg_models::errors::error_chain;
use protoseg_models::gate::Verdict;
use protoseg_models::versioned::Versioned;
use serde::Serialize;

use super::data::{DataArgs, ensure_same_classes};
use super::{
    CommandError, CommandOutcome, OrUsage, print, print_json, print_stderr, progress,
    warn_newer_version,
};

/// Check that a bundle's files compute the same as libtorch
///
/// Runs the probe's images through every file with logits and compares logits and labels with
/// libtorch's. Frame files run two synthetic scenes and are compared with windows stitched outside
/// the file. With --data, the mIoU of every file on labeled images is compared with that of the
/// fp32 file. The probe of an imported bundle holds the model's own outputs, so the check compares
/// this machine with the one that imported it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct CheckArgs {
    /// Bundle folder
    bundle: PathBuf,
    #[command(flatten)]
    data: DataArgs,
    /// Compare intermediate outputs of the files that `protoseg export --taps` wrote
    #[arg(long)]
    taps: bool,
    /// Write the result into the bundle's manifest
    #[arg(long)]
    record: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// The folder that BUNDLE is put in place of, for messages: `protoseg-export` asks
    #[arg(long, value_name = "DIR", hide = true, requires = "record", conflicts_with = "json")]
    exported_as: Option<PathBuf>,
}

/// Printed report.
#[derive(Debug, Serialize)]
struct CheckOutput {
    reference: ProbeReference,
    #[serde(flatten)]
    report: CheckReport,
    taps: Vec<TapsReport>,
}

pub(crate) fn run(arguments: &CheckArgs) -> Result<CommandOutcome, CommandError> {
    let Some(out) = &arguments.exported_as else {
        return judge(arguments, &|line| line);
    };
    let hidden = arguments.bundle.to_string_lossy();
    let named = |line: String| line.replace(&*hidden, &out.to_string_lossy());
    let in_words = |error: anyhow::Error| anyhow!(named(error_chain(error.as_ref())));
    session::load_runtime()
        .context("the bundle is checked before it is written; --no-check exports without a check")
        .or_usage()?;
    let data = DataArgs { prefix: "check-", ..arguments.data.clone() };
    judge(&CheckArgs { data, ..arguments.clone() }, &named).map_err(|error| match error {
        CommandError::Usage(error) => CommandError::Usage(in_words(error)),
        CommandError::Runtime(error) => CommandError::Runtime(in_words(error)),
    })
}

/// Checks, and prints the lines of the report as `named` returns them.
fn judge(
    arguments: &CheckArgs,
    named: &dyn Fn(String) -> String,
) -> Result<CommandOutcome, CommandError> {
    let folder = &arguments.bundle;
    session::load_runtime().or_usage()?;
    let Versioned { value: mut manifest, unknown_fields } = Manifest::read(folder).or_usage()?;
    warn_newer_version(folder, &unknown_fields);
    let images = open_labeled_images(&arguments.data, &manifest).or_usage()?;
    let cases = check::probe_cases(folder, &manifest).map_err(anyhow::Error::from)?;
    let taps = match cases.first().filter(|_| arguments.taps) {
        Some(case) => check::compare_taps(folder, case).map_err(anyhow::Error::from)?,
        None => Vec::new(),
    };
    let bar = progress::bar(images.as_ref().map_or(0, |images| images.set.count()));
    let report = check::check_bundle(folder, &manifest, &cases, images.as_ref(), &|| bar.inc(1));
    bar.finish_and_clear();
    // Recorded before printing, which may fail on a closed pipe; printed even if recording failed.
    let recorded = if arguments.record {
        manifest.gate = report.gates();
        manifest.write(folder).map_err(anyhow::Error::from)
    } else {
        Ok(())
    };
    let output = CheckOutput { reference: manifest.reference, report, taps };
    if arguments.json {
        print_json(&output)?;
    } else {
        if manifest.reference == ProbeReference::OwnOutputs {
            print(
                "imported model: compared with its own outputs on the machine that imported it, not with libtorch",
            )?;
        }
        let lines =
            output.report.lines().into_iter().chain(output.taps.iter().flat_map(TapsReport::lines));
        lines.map(named).try_for_each(print)?;
    }
    recorded?;
    if arguments.exported_as.is_some() && output.report.passed {
        warn_not_judged(&output.report, arguments.data.data.is_some(), &manifest);
    }
    Ok(if output.report.passed { CommandOutcome::Success } else { CommandOutcome::Failed })
}

/// Warns of files whose quality nothing has judged.
fn warn_not_judged(report: &CheckReport, has_data: bool, manifest: &Manifest) {
    for file in report.files.iter().filter(|file| file.verdict == Verdict::NotJudged) {
        let why = match file.not_judged.as_deref() {
            Some(why) if has_data => why,
            _ if check::has_fp32_reference(manifest) => {
                "name labeled images with --check-data and --check-root"
            }
            _ => {
                "name labeled images with --check-data and --check-root, and add fp32 to --precision as the reference of scores"
            }
        };
        print_stderr(format_args!("warning: the quality of {} was not judged: {why}", file.file));
    }
}

/// Opens labeled images and checks that their classes are the model's; `None` without --data.
fn open_labeled_images(
    arguments: &DataArgs,
    manifest: &Manifest,
) -> anyhow::Result<Option<LabeledImages>> {
    if arguments.data.is_none() {
        return Ok(None);
    }
    let set = arguments.open()?;
    ensure_same_classes(&manifest.model, &set)?;
    if set.count() == 0 {
        return Err(anyhow!("no image in {}", arguments.describe()));
    }
    Ok(Some(LabeledImages { set, name: arguments.describe() }))
}
