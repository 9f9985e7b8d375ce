//! Scores of every file of a bundle on labeled images, beside that of the fp32 logits file.

use std::path::Path;

use crate::config::EngineConfig;
use crate::segmenter::Segmenter;
use crate::session::Runner;
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
use super::{CheckError, WithContext};

/// Labeled images, and their name.
#[derive(Debug)]
pub struct LabeledImages {
    /// The images.
    pub set: LabeledDataset,
    /// Name, such as `camvid val`.
    pub name: String,
}

/// A logits file with a tiling, which files are scored as or compared with; it runs each image once
/// at most.
struct ReferenceModel {
    file: String,
    tiling: Tiling,
    segmenter: Segmenter,
    prediction: Option<ReferencePrediction>,
}

impl ReferenceModel {
    fn predict(&mut self, labeled: &LabeledImage) -> Result<&ReferencePrediction, CheckError> {
        let prediction = match self.prediction.take() {
            Some(prediction) => prediction,
            None => ReferencePrediction::new(&mut self.segmenter, &labeled.image)
                .context(|| self.file.clone())?,
        };
        Ok(self.prediction.insert(prediction))
    }
}

/// Runner of one file.
enum FileRunner {
    /// Index into the references.
    ReferenceModel(usize),
    Frame(Box<Runner>, FrameSpec),
}

/// A file, with its counts so far.
struct ScoredFile {
    runner: FileRunner,
    /// Index of the reference whose score it is compared with: the fp32 file in the same windows.
    base: Option<usize>,
    /// Index of the reference whose labels it is compared with, and the tie tolerance.
    peer: Option<(usize, f64)>,
    confusion: ConfusionMatrix,
    base_confusion: ConfusionMatrix,
    agreement: Agreement,
    images: usize,
    skipped: usize,
}

/// Scores every file that has not failed yet. An image that cannot be read is an error: scores over
/// other images could not be compared.
pub(super) fn score(
    folder: &Path,
    manifest: &Manifest,
    images: &LabeledImages,
    reports: &mut [FileReport],
    advance: &dyn Fn(),
) -> Result<(), CheckError> {
    let set = images.set.with_reading(manifest.model.reading);
    let mut references = Vec::new();
    let mut scored_files = Vec::new();
    for (file, report) in manifest.files.iter().zip(&mut *reports) {
        let has_logits = file.variant.kind != ModelKind::Labels;
        if !has_logits {
            report.notes.push("gives labels alone, which `protoseg eval` scores".to_owned());
        }
        let opened = (has_logits && report.errors.is_empty())
            .then(|| open_file(folder, manifest, file, &mut references));
        scored_files.push(opened.and_then(|opened| kept(report, opened)));
    }
    for index in 0..set.count() {
        let labeled = set.read(index, MAX_PIXELS)?;
        references.iter_mut().for_each(|reference| reference.prediction = None);
        for (slot, report) in scored_files.iter_mut().zip(&mut *reports) {
            let Some(file) = slot else { continue };
            let added = file.add(&labeled, &mut references).context(|| set.name(index));
            if kept(report, added.context(|| report.file.clone())).is_none() {
                *slot = None;
            }
        }
        advance();
    }
    for (file, report) in scored_files.into_iter().zip(reports) {
        let Some(file) = file else { continue };
        if file.skipped > 0 && file.images == 0 {
            let skipped = file.skipped;
            report.notes.push(format!(
                "none of the {skipped} images is of its size, so there is no score of it"
            ));
        }
        report.score = file.score(&images.name, report);
    }
    Ok(())
}

/// Returns the value, or puts its error into the report.
fn kept<T>(report: &mut FileReport, result: Result<T, CheckError>) -> Option<T> {
    result.map_err(|error| report.errors.push(error_chain(&error))).ok()
}

/// Opens a file and its references.
fn open_file(
    folder: &Path,
    manifest: &Manifest,
    file: &ModelFile,
    references: &mut Vec<ReferenceModel>,
) -> Result<ScoredFile, CheckError> {
    let tiling = match file.variant.kind {
        ModelKind::Logits | ModelKind::Labels => Tiling::from(manifest.model.window),
        ModelKind::Frame => frame::spec(file)?.tiling,
    };
    let mut reference = |file: &ModelFile| -> Result<usize, CheckError> {
        let known = |known: &ReferenceModel| known.file == file.file && known.tiling == tiling;
        if let Some(index) = references.iter().position(known) {
            return Ok(index);
        }
        let own = tiling == Tiling::from(manifest.model.window);
        let segmenter = frame::open(folder, manifest, file, (!own).then_some(tiling))?;
        references.push(ReferenceModel {
            file: file.file.clone(),
            tiling,
            segmenter,
            prediction: None,
        });
        Ok(references.len() - 1)
    };
    let base = frame::reference_file(manifest, Precision::Fp32).map(&mut reference).transpose()?;
    let (runner, peer) = match file.variant.kind {
        ModelKind::Logits | ModelKind::Labels => {
            (FileRunner::ReferenceModel(reference(file)?), Precision::Fp32)
        }
        ModelKind::Frame => {
            let path = manifest.verified(folder, file)?;
            let frame = Runner::open(&path, &EngineConfig::default())?;
            (FileRunner::Frame(Box::new(frame), frame::spec(file)?), file.variant.precision)
        }
    };
    let peer = frame::reference_file(manifest, peer);
    let peer = peer
        .map(|peer| Ok::<_, CheckError>((reference(peer)?, frame::rounding_between(file, peer))));
    let peer = peer.transpose()?;
    let confusion = ConfusionMatrix::new(manifest.model.classes.count());
    let base_confusion = confusion.clone();
    Ok(ScoredFile {
        runner,
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
    /// True where it is the reference of the others.
    fn is_base(&self) -> bool {
        matches!((&self.runner, self.base), (FileRunner::ReferenceModel(own), Some(base)) if *own == base)
    }

    /// Counts one image.
    fn add(
        &mut self,
        labeled: &LabeledImage,
        references: &mut [ReferenceModel],
    ) -> Result<(), CheckError> {
        let labels = match &mut self.runner {
            FileRunner::ReferenceModel(own) => references[*own].predict(labeled)?.labels.clone(),
            FileRunner::Frame(runner, spec) => {
                if [labeled.image.height() as usize, labeled.image.width() as usize]
                    != [spec.height, spec.width]
                {
                    self.skipped += 1;
                    return Ok(());
                }
                let [labels, _] = frame::run(runner, *spec, labeled.image.as_raw())?;
                labels
            }
        };
        self.confusion.add(&labeled.truth, &labels)?;
        self.images += 1;
        if self.is_base() {
            return Ok(());
        }
        if let Some(base) = self.base {
            self.base_confusion.add(&labeled.truth, &references[base].predict(labeled)?.labels)?;
        }
        if let Some((peer, rounding)) = self.peer {
            self.agreement.add(&Agreement::compare(
                &references[peer].predict(labeled)?.reference(rounding),
                &labels,
            ));
        }
        Ok(())
    }

    /// Returns the score; None where no image was scored, or none had labels that count.
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
