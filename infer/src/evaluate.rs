//! Scores a model on labeled images.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use image::RgbImage;
use protoseg_images::label_mapping::{ClassOrigin, LabelMapping};
use protoseg_images::labeled::LabeledDataset;
use protoseg_models::bundle::Model;
use protoseg_models::classes::{Class, ClassTable};
use protoseg_models::metrics::ConfusionMatrix;

use crate::check::CheckError;
use crate::check::error::WithContext;
use crate::pipeline::{
    DecodedImage, PendingImage, Pipeline, PipelineEvent, PipelineReport, RunControl,
};
use crate::upsample::{Prediction, into_vec};

/// Refuses a data set whose classes differ from the model's: train ids would mean different things.
pub fn ensure_same_classes(model: &Model, set: &LabeledDataset) -> Result<(), CheckError> {
    let names = |table: &ClassTable| {
        table.classes().iter().map(|class: &Class| class.name.clone()).collect::<Vec<_>>()
    };
    let known = names(&model.classes);
    let found = names(&set.classes());
    if known == found {
        return Ok(());
    }
    let (own, other) = (known.join(", "), found.join(", "));
    let file = match set.mapping().map(LabelMapping::origin) {
        Some(ClassOrigin::File(path)) => Some(path),
        _ => None,
    };
    let place = file.map_or_else(|| "the data set".to_owned(), |path| path.display().to_string());
    let is_same = |name: &String| known.contains(name);
    let is_reordered = found.len() == known.len() && found.iter().all(is_same);
    Err(CheckError::Invalid(match file.filter(|_| is_reordered) {
        Some(path) => {
            let root = path.parent().filter(|root| !root.as_os_str().is_empty());
            let root = root.unwrap_or(Path::new("."));
            let lines: Vec<String> =
                (0..).zip(&known).map(|(id, name): (usize, _)| format!("`{id} {name}`")).collect();
            format!(
                "the model `{}` has the classes {own}; {place} has them in another order, {other}: a score \
                 would mean nothing; `protoseg convert {} --classes FILE --out NEW` gives the data the \
                 model's order, where FILE has the lines {}",
                model.name,
                root.display(),
                lines.join(", ")
            )
        }
        None => format!(
            "the model `{}` has the classes {own}; {place} has {other}: a score would mean nothing",
            model.name
        ),
    }))
}

/// Sees each image with its truth and its labels, `[height, width]`.
pub type Look<'a> = &'a (dyn Fn(usize, &RgbImage, &[u8], &[u8]) + Sync);

/// Labels every image of a set and returns the confusion matrix of its pixels. `look` sees each
/// image with its truth and its labels, `observe` each event of the pipeline. Images are read as
/// the model says; remarks on them are added to the set's.
///
/// # Errors
/// If an image cannot be scored, or with `skip_broken` if none can; else the report has those that
/// could not.
pub fn score(
    pipeline: &mut Pipeline,
    set: &LabeledDataset,
    max_pixels: u64,
    skip_broken: bool,
    look: Look<'_>,
    observe: &(dyn Fn(PipelineEvent<'_, CheckError>) + Sync),
) -> Result<(ConfusionMatrix, PipelineReport<CheckError>), CheckError> {
    let set = &set.with_reading(pipeline.segmenter().model().reading);
    let confusion = Mutex::new(ConfusionMatrix::new(pipeline.segmenter().model().classes.count()));
    let open = |index: usize| {
        let (pixels, decode) = set.open(index, max_pixels)?;
        let decode = move || {
            let labeled = decode()?;
            Ok(DecodedImage { image: labeled.image, extra: labeled.truth })
        };
        Ok(PendingImage { pixels, decode })
    };
    let encode = |index: usize, item: DecodedImage<Vec<u8>>, prediction: Prediction| {
        let labels = into_vec(prediction.labels);
        look(index, &item.image, &item.extra, &labels);
        let mut confusion = confusion.lock().unwrap_or_else(PoisonError::into_inner);
        confusion.add(&item.extra, &labels).context(|| set.name(index))
    };
    let control = RunControl { observe, ..RunControl::default() };
    let mut report = pipeline.run(set.count(), &control, open, encode);
    if let Some(error) = report.stopped.take() {
        return Err(error);
    }
    let (failed, all) = (report.failed.len(), set.count());
    if failed > 0 && (!skip_broken || failed == all) {
        let way_out = if failed == all { "" } else { "; --skip-broken scores the others" };
        return Err(CheckError::Invalid(format!(
            "{failed} of {all} images could not be scored, so there is no score{way_out}"
        )));
    }
    Ok((confusion.into_inner().unwrap_or_else(PoisonError::into_inner), report))
}
