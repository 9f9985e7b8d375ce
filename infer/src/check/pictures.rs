//! Every file of a bundle on labelled pictures: the score of each, beside that of the 32-bit logits file.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::segmenter::Segmenter;
use crate::session::{Runner, RunnerOptions};
use anyhow::Context;
use protoseg_images::labelled::{Labelled, LabelledSet};
use protoseg_images::picture::MAX_PIXELS;
use protoseg_models::bundle::{Manifest, ModelFile};
use protoseg_models::errors::sentence;
use protoseg_models::form::{FrameForm, Kind, Precision};
use protoseg_models::gate::{Limits, Verdict, counted};
use protoseg_models::metrics::Confusion;
use protoseg_models::window::Pieces;

use super::agreement::Agreement;
use super::frame::{self, Stitched};
use super::report::{FileReport, Score};

/// Labelled pictures, and what they are called.
#[derive(Debug)]
pub struct Pictures {
    /// The pictures.
    pub set: LabelledSet,
    /// Such as `camvid val`.
    pub name: String,
}

/// A logits file in some windows, that files are scored as or held against; for each picture it runs once at most.
struct Stitcher {
    file: String,
    pieces: Pieces,
    segmenter: Segmenter,
    made: Option<Stitched>,
}

impl Stitcher {
    fn stitched(&mut self, labelled: &Labelled) -> anyhow::Result<&Stitched> {
        let made = match self.made.take() {
            Some(made) => made,
            None => Stitched::new(&mut self.segmenter, &labelled.image).with_context(|| self.file.clone())?,
        };
        Ok(self.made.insert(made))
    }
}

/// What runs one file.
enum Engine {
    /// By its place among the stitchers.
    Stitcher(usize),
    Frame(Box<Runner>, FrameForm),
}

/// A file on its way through the pictures.
struct Contestant {
    engine: Engine,
    /// Whose score it is compared with, by its place among the stitchers: the 32-bit file in the same windows.
    base: Option<usize>,
    /// Whose labels it is compared with, and what rounding may decide between them.
    peer: Option<(usize, f64)>,
    confusion: Confusion,
    base_confusion: Confusion,
    agreement: Agreement,
    images: usize,
    skipped: usize,
}

/// Scores every file that did not fail already. A picture that cannot be read ends it all: scores of other pictures than
/// those asked for would be compared with nothing. So does `stop`, once it is true.
pub(super) fn score(
    folder: &Path,
    manifest: &Manifest,
    pictures: &Pictures,
    reports: &mut [FileReport],
    stop: &AtomicBool,
    advance: &dyn Fn(),
) -> anyhow::Result<()> {
    let mut stitchers = Vec::new();
    let mut contestants = Vec::new();
    for (file, report) in manifest.files.iter().zip(&mut *reports) {
        let scored = file.form.kind != Kind::Labels;
        if !scored {
            report.notes.push("gives labels alone, which `protoseg eval` scores".to_owned());
        }
        let opened = (scored && report.errors.is_empty()).then(|| contestant(folder, manifest, file, &mut stitchers));
        contestants.push(opened.and_then(|opened| kept(report, opened)));
    }
    for index in (0..pictures.set.count()).take_while(|_| !stop.load(Ordering::Relaxed)) {
        let labelled = pictures.set.read(index, MAX_PIXELS)?;
        stitchers.iter_mut().for_each(|stitcher| stitcher.made = None);
        for (place, report) in contestants.iter_mut().zip(&mut *reports) {
            let Some(contestant) = place else { continue };
            let added = contestant.add(&labelled, &mut stitchers).with_context(|| pictures.set.name(index));
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
            report.notes.push(format!("none of the {skipped} pictures is of its size, so there is no score of it"));
        }
        report.score = contestant.score(&pictures.name, report);
    }
    Ok(())
}

/// The value, or its error in the report.
fn kept<T>(report: &mut FileReport, result: anyhow::Result<T>) -> Option<T> {
    result.map_err(|error| report.errors.push(sentence(error.as_ref()))).ok()
}

/// Opens a file and what it is compared with.
fn contestant(
    folder: &Path,
    manifest: &Manifest,
    file: &ModelFile,
    stitchers: &mut Vec<Stitcher>,
) -> anyhow::Result<Contestant> {
    let pieces = match file.form.kind {
        Kind::Logits | Kind::Labels => Pieces::from(manifest.model.window),
        Kind::Frame => frame::form(file)?.pieces,
    };
    let mut stitcher = |file: &ModelFile| -> anyhow::Result<usize> {
        let known = |stitcher: &Stitcher| stitcher.file == file.file && stitcher.pieces == pieces;
        if let Some(place) = stitchers.iter().position(known) {
            return Ok(place);
        }
        let segmenter = frame::open(folder, manifest, file, Some(pieces))?;
        stitchers.push(Stitcher { file: file.file.clone(), pieces, segmenter, made: None });
        Ok(stitchers.len() - 1)
    };
    let base = frame::reference_file(manifest, Precision::Fp32).map(&mut stitcher).transpose()?;
    let (engine, peer) = match file.form.kind {
        Kind::Logits | Kind::Labels => (Engine::Stitcher(stitcher(file)?), Precision::Fp32),
        Kind::Frame => {
            let path = manifest.verified(folder, file)?;
            let runner = Runner::open(&path, &RunnerOptions::default())?;
            (Engine::Frame(Box::new(runner), frame::form(file)?), file.form.precision)
        }
    };
    let peer = frame::reference_file(manifest, peer);
    let peer = peer.map(|peer| Ok::<_, anyhow::Error>((stitcher(peer)?, frame::rounding_between(file, peer))));
    let peer = peer.transpose()?;
    let confusion = Confusion::new(manifest.model.classes.count());
    let base_confusion = confusion.clone();
    Ok(Contestant {
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

impl Contestant {
    /// Whether it is what others are compared with.
    fn is_base(&self) -> bool {
        matches!((&self.engine, self.base), (Engine::Stitcher(own), Some(base)) if *own == base)
    }

    /// Counts one picture.
    fn add(&mut self, labelled: &Labelled, stitchers: &mut [Stitcher]) -> anyhow::Result<()> {
        let labels = match &mut self.engine {
            Engine::Stitcher(own) => stitchers[*own].stitched(labelled)?.labels.clone(),
            Engine::Frame(runner, form) => {
                if [labelled.image.height() as usize, labelled.image.width() as usize] != [form.height, form.width] {
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
            self.base_confusion.add(&labelled.truth, &stitchers[base].stitched(labelled)?.labels)?;
        }
        if let Some((peer, rounding)) = self.peer {
            self.agreement.add(&Agreement::of(&stitchers[peer].stitched(labelled)?.reference(rounding), &labels));
        }
        Ok(())
    }

    /// The score; none where no picture was scored, or none had labels that count.
    fn score(&self, data: &str, report: &FileReport) -> Option<Score> {
        let mean_iou = 100.0 * self.confusion.mean_iou()?;
        let drop = self.base_confusion.mean_iou().map(|base| 100.0 * base - mean_iou);
        let labels = (self.agreement.pixels > 0).then(|| self.agreement.report());
        let Limits { mean_iou_drop, label_agreement, .. } = report.limits;
        let held = [
            drop.zip(mean_iou_drop).map(|(drop, limit)| drop <= limit),
            counted(report.precision, labels.zip(label_agreement).map(|(labels, limit)| labels.agreement >= limit)),
        ];
        Some(Score {
            data: data.to_owned(),
            images: self.images,
            skipped: self.skipped,
            mean_iou,
            mean_iou_drop: drop,
            labels,
            verdict: Verdict::of(held),
        })
    }
}
