//! Sample images: the best and worst of the validation list for the report, and pseudo-labels of
//! unlabeled images.

use std::path::Path;

use anyhow::{Context, Result};
use image::codecs::jpeg::JpegEncoder;
use image::imageops;
use protoseg_images::image_file::MAX_PIXELS;
use protoseg_images::label_map::LabelMap;
use protoseg_images::labeled::LabeledDataset;
use protoseg_models::atomic;
use protoseg_models::classes::ClassTable;

use crate::evaluate::Predictor;
use crate::report::ReportImage;

/// Number of best images, and of worst ones.
pub(super) const SHOWN: usize = 3;
const JPEG_QUALITY: u8 = 80;
/// Longest side of an image in the report.
const LONGEST_SIDE: usize = 1024;

/// Selects the images of the report by their scores: the best, then the worst.
pub fn choose(mut scores: Vec<(usize, f64)>) -> Vec<(usize, f64)> {
    scores.sort_by(|left, right| right.1.total_cmp(&left.1));
    let worst = scores.split_off(SHOWN.min(scores.len()));
    let first = worst.len().saturating_sub(SHOWN);
    scores.extend_from_slice(&worst[first..]);
    scores
}

/// Height and width of an image in the report.
fn shown_size(size: [usize; 2]) -> [usize; 2] {
    let longest = size[0].max(size[1]);
    let shown = longest.min(LONGEST_SIDE);
    size.map(|length| (length * shown / longest).max(1))
}

/// Images with truth and prediction, encoded for the report; large ones are scaled down.
pub fn render(
    predictor: Predictor,
    samples: &LabeledDataset,
    classes: &ClassTable,
    scores: &[(usize, f64)],
) -> Result<Vec<ReportImage>> {
    let render = |&(index, iou): &(usize, f64)| -> Result<ReportImage> {
        let sample = samples.read(index, MAX_PIXELS)?;
        let [height, width] = sample.size();
        let predicted = predictor.labels(sample.image.as_raw(), [height, width])?;
        let [rows, columns] = shown_size([height, width]);
        let mut image = Vec::new();
        let encoder = JpegEncoder::new_with_quality(&mut image, JPEG_QUALITY);
        if [rows, columns] == [height, width] {
            sample.image.write_with_encoder(encoder)?;
        } else {
            imageops::thumbnail(&sample.image, columns as u32, rows as u32)
                .write_with_encoder(encoder)?;
        }
        let colored = |labels: &[u8]| {
            let nearest = |place: usize| {
                let [row, column] = [place / columns, place % columns];
                labels[row * height / rows * width + column * width / columns]
            };
            let labels = (0..rows * columns).map(nearest).collect();
            LabelMap { height: rows, width: columns, labels }.color_png(classes)
        };
        let (truth, prediction) = (colored(&sample.truth)?, colored(&predicted)?);
        Ok(ReportImage { name: samples.name(index), iou: 100.0 * iou, image, truth, prediction })
    };
    scores.iter().map(render).collect()
}

/// Writes the pseudo-labels of `count` images spread over a list (`NUMBER.png`, ids as palette
/// indices in the colors of the classes) and their confidence (`NUMBER.confidence.png`, 255 is
/// certain).
pub fn write_pseudo_labels(
    predictor: Predictor,
    samples: &LabeledDataset,
    classes: &ClassTable,
    count: usize,
    folder: &Path,
) -> Result<()> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let count = count.min(samples.count());
    for position in 0..count {
        let index = position * samples.count() / count;
        let sample = samples.read(index, MAX_PIXELS)?;
        let [height, width] = sample.size();
        let [labels, confidence] =
            predictor.labels_and_confidence(sample.image.as_raw(), [height, width])?;
        let write = |name: String, bytes: &[u8]| {
            let path = folder.join(name);
            atomic::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
        };
        write(format!("{index}.png"), &LabelMap { height, width, labels }.color_png(classes)?)?;
        write(
            format!("{index}.confidence.png"),
            &LabelMap { height, width, labels: confidence }.ids_png()?,
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_images_are_shown_smaller() {
        assert_eq!(shown_size([600, 1024]), [600, 1024]);
        assert_eq!(shown_size([3000, 4096]), [750, 1024]);
        assert_eq!(shown_size([1, 9000]), [1, 1024]);
    }

    #[test]
    fn the_best_and_the_worst_are_shown_once() {
        let numbered = |scores: &[f64]| choose(scores.iter().copied().enumerate().collect());
        let shown: Vec<usize> = numbered(&[0.5, 0.9, 0.1, 0.7, 0.3, 0.8, 0.2])
            .into_iter()
            .map(|(index, _)| index)
            .collect();
        assert_eq!(shown, [1, 5, 3, 4, 6, 2]);
        assert_eq!(numbered(&[0.1, 0.2, 0.3, 0.4]).len(), 4);
        assert!(numbered(&[]).is_empty());
    }
}
