//! `protoseg check`: compares every file of a bundle with the libtorch outputs in its probe, and
//! its score on labeled images with that of the fp32 file.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use anyhow::anyhow;
use protoseg_infer::check::{self, CheckReport, LabeledImages, TapsReport};
use protoseg_infer::session;
use protoseg_models::bundle::{Manifest, ProbeReference};
use protoseg_models::versioned::Versioned;
use serde::Serialize;

use super::data::{DataArgs, ensure_same_classes};
use super::{
    CommandError, CommandOutcome, OrUsage, print, print_json, progress, warn_newer_version,
};

/// Check that a bundle's files compute the same as libtorch
///
/// Runs the probe's images through every file with logits and compares logits and labels with
/// libtorch's. Frame files run two synthetic scenes and are compared with windows stitched outside
/// the file. With --data, the mIoU of every file on labeled images is compared with that of the
/// fp32 file. The probe of an imported bundle holds the model's own outputs, so the check compares
/// this machine with the one that imported it.
#[derive(Debug, clap::Args)]
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
    let report = check::check_bundle(
        folder,
        &manifest,
        &cases,
        images.as_ref(),
        &AtomicBool::new(false),
        &|| bar.inc(1),
    );
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
        lines.into_iter().try_for_each(print)?;
    }
    recorded?;
    Ok(if output.report.passed { CommandOutcome::Success } else { CommandOutcome::Failed })
}

/// Opens labeled images and checks that their classes are the model's; `None` without --data.
pub(crate) fn open_labeled_images(
    arguments: &DataArgs,
    manifest: &Manifest,
) -> anyhow::Result<Option<LabeledImages>> {
    if arguments.data.is_none() {
        return Ok(None);
    }
    let set = arguments.open()?;
    ensure_same_classes(&manifest.model, &set.classes())?;
    if set.count() == 0 {
        return Err(anyhow!("no image in {}", arguments.describe()));
    }
    Ok(Some(LabeledImages { set, name: arguments.describe() }))
}
