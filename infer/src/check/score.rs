//! Every file of a bundle on labelled pictures: the score of each, beside that of the 32-bit logits file.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::EngineConfig;
use crate::segmenter::Segmenter;
use crate::session::Runner;
use anyhow::Context;
use protoseg_images::image_file::MAX_PIXELS;
use protoseg_images::labeled::{LabeledDataset, LabeledImage};
use protoseg_models::bundle::{Manifest, ModelFile};
use protoseg_models::errors::error_chain;
use protoseg_models::gate::{GateLimits, Verdict, judged};
use protoseg_models::metrics::ConfusionMatrix;
use protoseg_models::variant::{FrameSpec, ModelKind, Precision};
use protoseg_models::window::Tiling;

use super::agreement::Agreement;
use super::frame::{self, ReferencePrediction};
use super::report::{FileReport, ScoreReport};

/// Labelled pictures, and what they are called.
#[derive(Debug)]
pub struct LabeledImages {
    /// The pictures.
    pub set: LabeledDataset,
    /// Such as `camvid val`.
    pub name: String,
}

/// A logits file in some windows, that files are scored as or held against; for each picture it runs once at most.
struct ReferenceModel {
    file: String,
    pieces: Tiling,
    segmenter: Segmenter,
    made: Option<ReferencePrediction>,
}

impl ReferenceModel {
    fn stitched(&mut self, labelled: &LabeledImage) -> anyhow::Result<&ReferencePrediction> {
        let made = match self.made.take() {
            Some(made) => made,
            None => ReferencePrediction::new(&mut self.segmenter, &labelled.image)
                .with_context(|| self.file.clone())?,
        };
        Ok(self.made.insert(made))
    }
}

/// What runs one file.
enum FileRunner {
    /// By its place among the references.
    ReferenceModel(usize),
    Frame(Box<Runner>, FrameSpec),
}

/// A file on its way through the pictures.
struct ScoredFile {
    engine: FileRunner,
    /// Whose score it is compared with, by its place among the references: the 32-bit file in the same windows.
    base: Option<usize>,
    /// Whose labels it is compared with, and what rounding may decide between them.
    peer: Option<(usize, f64)>,
    confusion: ConfusionMatrix,
    base_confusion: ConfusionMatrix,
    agreement: Agreement,
    images: usize,
    skipped: usize,
}

/// Scores every file that did not fail already. A picture that cannot be read ends it all: scores of other pictures than
/// those asked for would be compared with nothing. So does `stop`, once it is true.
pub(super) fn score(
    folder: &Path,
    manifest: &Manifest,
    pictures: &LabeledImages,
    reports: &mut [FileReport],
    stop: &AtomicBool,
    advance: &dyn Fn(),
) -> anyhow::Result<()> {
    let mut references = Vec::new();
    let mut contestants = Vec::new();
    for (file, report) in manifest.files.iter().zip(&mut *reports) {
        let scored = file.variant.kind != ModelKind::Labels;
        if !scored {
            report.notes.push("gives labels alone, which `protoseg eval` scores".to_owned());
        }
        let opened = (scored && report.errors.is_empty())
            .then(|| contestant(folder, manifest, file, &mut references));
        contestants.push(opened.and_then(|opened| kept(report, opened)));
    }
    for index in (0..pictures.set.count()).take_while(|_| !stop.load(Ordering::Relaxed)) {
        let labelled = pictures.set.read(index, MAX_PIXELS)?;
        references.iter_mut().for_each(|stitcher| stitcher.made = None);
        for (place, report) in contestants.iter_mut().zip(&mut *reports) {
            let Some(contestant) = place else { continue };
            let added = contestant
                .add(&labelled, &mut references)
                .with_context(|| pictures.set.name(index));
            if kept(report, added.with_context(|| report.file.clone())).is_none() {
                *place = None;
            }
        }
        advance();
    }
    for (contestant, report) in contestants.into_iter().zip(reports) {
        let Some(contestant) = contestant else { continue };
        if contestant.skipped > 0 && contestant.images == 0 {
            let skipped = contestant.skipped;
            report.notes.push(format!(
                "none of the {skipped} pictures is of its size, so there is no score of it"
            ));
        }
        report.score = contestant.score(&pictures.name, report);
    }
    Ok(())
}

/// The value, or its error in the report.
fn kept<T>(report: &mut FileReport, result: anyhow::Result<T>) -> Option<T> {
    result.map_err(|error| report.errors.push(error_chain(error.as_ref()))).ok()
}

/// Opens a file and what it is compared with.
fn contestant(
    folder: &Path,
    manifest: &Manifest,
    file: &ModelFile,
    references: &mut Vec<ReferenceModel>,
) -> anyhow::Result<ScoredFile> {
    let pieces = match file.variant.kind {
        ModelKind::Logits | ModelKind::Labels => Tiling::from(manifest.model.window),
        ModelKind::Frame => frame::form(file)?.tiling,
    };
    let mut stitcher = |file: &ModelFile| -> anyhow::Result<usize> {
        let known =
            |stitcher: &ReferenceModel| stitcher.file == file.file && stitcher.pieces == pieces;
        if let Some(place) = references.iter().position(known) {
            return Ok(place);
        }
        let segmenter = frame::open(folder, manifest, file, Some(pieces))?;
        references.push(ReferenceModel { file: file.file.clone(), pieces, segmenter, made: None });
        Ok(references.len() - 1)
    };
    let base = frame::reference_file(manifest, Precision::Fp32).map(&mut stitcher).transpose()?;
    let (engine, peer) = match file.variant.kind {
        ModelKind::Logits | ModelKind::Labels => {
            (FileRunner::ReferenceModel(stitcher(file)?), Precision::Fp32)
        }
        ModelKind::Frame => {
            let path = manifest.verified(folder, file)?;
            let runner = Runner::open(&path, &EngineConfig::default())?;
            (FileRunner::Frame(Box::new(runner), frame::form(file)?), file.variant.precision)
        }
    };
    let peer = frame::reference_file(manifest, peer);
    let peer = peer
        .map(|peer| Ok::<_, anyhow::Error>((stitcher(peer)?, frame::rounding_between(file, peer))));
    let peer = peer.transpose()?;
    let confusion = ConfusionMatrix::new(manifest.model.classes.count());
    let base_confusion = confusion.clone();
    Ok(ScoredFile {
        engine,
        base,
        peer,
        confusion,
        base_confusion,
        agreement: Agreement::default(),
        images: 0,
        skipped: 0,
    })
}

impl ScoredFile {
    /// Whether it is what others are compared with.
    fn is_base(&self) -> bool {
        matches!((&self.engine, self.base), (FileRunner::ReferenceModel(own), Some(base)) if *own == base)
    }

    /// Counts one picture.
    fn add(
        &mut self,
        labelled: &LabeledImage,
        references: &mut [ReferenceModel],
    ) -> anyhow::Result<()> {
        let labels = match &mut self.engine {
            FileRunner::ReferenceModel(own) => references[*own].stitched(labelled)?.labels.clone(),
            FileRunner::Frame(runner, form) => {
                if [labelled.image.height() as usize, labelled.image.width() as usize]
                    != [form.height, form.width]
                {
                    self.skipped += 1;
                    return Ok(());
                }
                let [labels, _] = frame::run(runner, *form, labelled.image.as_raw())?;
                labels
            }
        };
        self.confusion.add(&labelled.truth, &labels)?;
        self.images += 1;
        if self.is_base() {
            return Ok(());
        }
        if let Some(base) = self.base {
            self.base_confusion
                .add(&labelled.truth, &references[base].stitched(labelled)?.labels)?;
        }
        if let Some((peer, rounding)) = self.peer {
            self.agreement.add(&Agreement::compare(
                &references[peer].stitched(labelled)?.reference(rounding),
                &labels,
            ));
        }
        Ok(())
    }

    /// The score; none where no picture was scored, or none had labels that count.
    fn score(&self, data: &str, report: &FileReport) -> Option<ScoreReport> {
        let mean_iou = 100.0 * self.confusion.mean_iou()?;
        let drop = self.base_confusion.mean_iou().map(|base| 100.0 * base - mean_iou);
        let labels = (self.agreement.pixels > 0).then(|| self.agreement.report());
        let GateLimits { mean_iou_drop, label_agreement, .. } = report.limits;
        let held = [
            drop.zip(mean_iou_drop).map(|(drop, limit)| drop <= limit),
            judged(
                report.precision,
                labels.zip(label_agreement).map(|(labels, limit)| labels.agreement >= limit),
            ),
        ];
        Some(ScoreReport {
            data: data.to_owned(),
            images: self.images,
            skipped: self.skipped,
            mean_iou,
            mean_iou_drop: drop,
            labels,
            verdict: Verdict::from_checks(held),
        })
    }
}
