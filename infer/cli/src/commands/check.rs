//! `protoseg check`: holds every file of a bundle against libtorch, whose answers for a few pictures travel in the bundle,
//! and with labelled pictures against the score of the 32-bit file.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use anyhow::anyhow;
use protoseg_infer::check::{self, CheckReport, LabeledImages, TapsReport};
use protoseg_infer::session;
use protoseg_models::bundle::{Manifest, ProbeReference};
use protoseg_models::versioned::Versioned;
use serde::Serialize;

use super::data::{DataArgs, ensure_same_classes};
use super::{CommandError, CommandOutcome, print, print_json, progress, warn_newer_version};

/// Check that a bundle's files compute what libtorch computed
///
/// Runs the pictures of the bundle's probe through every file that gives logits, and holds logits and labels against
/// libtorch's. Files for whole frames run two drawn scenes, and are held against windows stitched outside the file. With
/// --data, the score of every file on labelled pictures is held against that of the 32-bit file. A bundle of `protoseg
/// adopt` holds the model's own answers instead: whether this machine computes the same as the one that adopted it.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// Bundle folder
    bundle: PathBuf,
    #[command(flatten)]
    data: DataArgs,
    /// Compare node by node where the folder holds files that `protoseg export --taps` wrote
    #[arg(long)]
    taps: bool,
    /// Write the result into the bundle's manifest
    #[arg(long)]
    record: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// What is printed.
#[derive(Debug, Serialize)]
struct CheckOutput {
    /// Whose answers the probe holds.
    reference: ProbeReference,
    #[serde(flatten)]
    report: CheckReport,
    taps: Vec<TapsReport>,
}

pub(crate) fn run(arguments: &CheckArgs) -> Result<CommandOutcome, CommandError> {
    let folder = &arguments.bundle;
    session::load_runtime().map_err(CommandError::usage)?;
    let Versioned { value: mut manifest, unknown_fields } =
        Manifest::read(folder).map_err(CommandError::usage)?;
    warn_newer_version(folder, &unknown_fields);
    let pictures = open_labeled_images(&arguments.data, &manifest).map_err(CommandError::usage)?;
    let cases = check::probe_cases(folder, &manifest).map_err(anyhow::Error::from)?;
    let taps = match cases.first().filter(|_| arguments.taps) {
        Some(case) => check::compare_taps(folder, case).map_err(anyhow::Error::from)?,
        None => Vec::new(),
    };
    let bar = progress::bar(pictures.as_ref().map_or(0, |pictures| pictures.set.count()));
    let report = check::check_bundle(
        folder,
        &manifest,
        &cases,
        pictures.as_ref(),
        &AtomicBool::new(false),
        &|| bar.inc(1),
    );
    bar.finish_and_clear();
    // Before the results are printed, as nobody may be listening; and they are worth printing if this fails.
    let recorded = if arguments.record {
        manifest.gate = report.gates();
        manifest.write(folder).map_err(anyhow::Error::from)
    } else {
        Ok(())
    };
    let answer = CheckOutput { reference: manifest.reference, report, taps };
    if arguments.json {
        print_json(&answer)?;
    } else {
        if manifest.reference == ProbeReference::OwnOutputs {
            print(
                "this model was adopted: held against its own answers on the machine that adopted it, not libtorch's",
            )?;
        }
        let lines =
            answer.report.lines().into_iter().chain(answer.taps.iter().flat_map(TapsReport::lines));
        lines.into_iter().try_for_each(print)?;
    }
    recorded?;
    Ok(if answer.report.passed { CommandOutcome::Success } else { CommandOutcome::Failed })
}

/// Opens labelled pictures whose classes are the model's.
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
        return Err(anyhow!("there is no picture in {}", arguments.describe()));
    }
    Ok(Some(LabeledImages { set, name: arguments.describe() }))
}
