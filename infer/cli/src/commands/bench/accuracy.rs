//! Whether the model that is measured computes what it should: the same file, run in the same way.

use std::path::Path;

use protoseg_bench::report::Accuracy;
use protoseg_images::image_file::MAX_PIXELS;
use protoseg_images::labeled::LabeledDataset;
use protoseg_infer::EngineConfig;
use protoseg_infer::pipeline::Pipeline;
use protoseg_models::errors::error_chain;

use crate::commands::data::ensure_same_classes;
use crate::commands::eval;
use protoseg_infer::check;

/// LabeledData pictures, and what they are called.
pub(crate) struct LabeledData {
    pub(crate) set: LabeledDataset,
    pub(crate) name: String,
}

/// Holds a file of a bundle against its probe, and scores it on labelled pictures. What cannot be found out is said, and stops
/// nothing.
pub(super) fn measure(
    bundle: &Path,
    file: &str,
    config: &EngineConfig,
    labeled: Option<&LabeledData>,
) -> Accuracy {
    let mut accuracy = Accuracy::default();
    match check::probe_agreement(bundle, file, config) {
        Ok((agreement, reference)) => {
            accuracy.probe_agreement = Some(agreement);
            accuracy.reference = Some(reference);
        }
        Err(error) => accuracy.missing = Some(error_chain(&error)),
    }
    if let Some(LabeledData { set, name }) = labeled {
        accuracy.data = Some(name.clone());
        match score(bundle, config, set) {
            Ok(mean_iou) => accuracy.mean_iou = mean_iou,
            Err(error) => accuracy.missing = Some(error_chain(error.as_ref())),
        }
    }
    accuracy
}

fn score(
    bundle: &Path,
    config: &EngineConfig,
    set: &LabeledDataset,
) -> anyhow::Result<Option<f64>> {
    let mut pipeline = Pipeline::open(bundle, config, Some(set.count()))?;
    ensure_same_classes(pipeline.segmenter().model(), &set.classes())?;
    let (confusion, _) = eval::score(&mut pipeline, set, MAX_PIXELS, |_, _, _, _| ())?;
    Ok(confusion.scores(&pipeline.segmenter().model().classes).mean_iou)
}
