//! Output formats of `protoseg label`: their names, paths and contents.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueEnum;
use image::RgbImage;
use protoseg_images::formats::{
    AnnotationFormat, FormatError, ImageLabels, StoredLabels, label_ids, png_name, pseudo_labels,
};
use protoseg_infer::upsample::{Outputs, Prediction, into_vec};
use protoseg_label::STATE_DIR;
use protoseg_models::classes::{ClassTable, IGNORE_INDEX};
use protoseg_models::errors::FileError;

/// Folder of pseudo-labels, a data set in itself.
const PSEUDO: &str = "pseudo";

/// Kind of output file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum OutputFormat {
    /// Train ids as gray PNG
    Ids,
    /// Ids of the classes' data set as gray PNG, named for the official evaluation of Cityscapes
    #[value(name = "labelids")]
    LabelMapping,
    /// Train ids as palette PNG in the colors of the classes
    Color,
    /// Colors of the classes blended over the image, as PNG
    Overlay,
    /// Largest softmax of each pixel in steps of 1/255, as gray PNG
    Confidence,
    /// Highest minus second-highest logit in steps of 1/16, as gray PNG
    Margin,
    /// Data set for `protoseg train`: confident labels, links to the images, classes and a list
    Pseudo,
    /// coco.json: a mask for each class of an image; writes ids too
    Coco,
    /// cvat.zip, which CVAT imports as "Segmentation mask 1.1"; writes ids too
    Cvat,
    /// labelstudio.json: tasks with brush predictions and confidence; writes ids too
    #[value(name = "labelstudio")]
    LabelStudio,
}

/// Image with its prediction.
pub(crate) struct LabeledImage<'a> {
    pub(crate) image: &'a RgbImage,
    pub(crate) labels: &'a ImageLabels,
    /// Highest minus second-highest logit, `[height, width]`.
    pub(crate) margin: Option<&'a [u8]>,
}

/// Formats of a run with their parameters.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OutputFormats {
    chosen: Vec<OutputFormat>,
    /// Least confidence of a pseudo-label.
    min_confidence: f64,
}

impl OutputFormat {
    /// Folder of a format with files for each image.
    fn folder(self) -> Option<&'static str> {
        match self {
            Self::Ids => Some("ids"),
            Self::LabelMapping => Some("labelids"),
            Self::Color => Some("color"),
            Self::Overlay => Some("overlay"),
            Self::Confidence => Some("confidence"),
            Self::Margin => Some("margin"),
            Self::Pseudo => Some(PSEUDO),
            Self::Coco | Self::Cvat | Self::LabelStudio => None,
        }
    }

    /// Combined file of all images.
    fn combined_file(self) -> Option<AnnotationFormat> {
        match self {
            Self::Coco => Some(AnnotationFormat::Coco),
            Self::Cvat => Some(AnnotationFormat::Cvat),
            Self::LabelStudio => Some(AnnotationFormat::LabelStudio),
            _ => None,
        }
    }

    /// Name on the command line.
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Outputs of the model that the format needs besides labels.
    fn outputs(self) -> Outputs {
        Outputs {
            confidence: matches!(self, Self::Confidence | Self::Pseudo | Self::LabelStudio),
            margin: self == Self::Margin,
            logits: false,
        }
    }
}

impl OutputFormats {
    /// The requested formats and those that they need. A model without logits has no confidence.
    pub(crate) fn new(
        requested: &[OutputFormat],
        min_confidence: f64,
        has_logits: bool,
    ) -> anyhow::Result<Self> {
        let mut chosen: Vec<OutputFormat> = requested.to_vec();
        if requested.iter().any(|format| format.combined_file().is_some()) {
            chosen.push(OutputFormat::Ids);
        }
        if requested.contains(&OutputFormat::LabelStudio) && has_logits {
            chosen.push(OutputFormat::Confidence);
        }
        chosen.sort();
        chosen.dedup();
        let needs_logits = chosen.iter().find(|&&format| {
            format != OutputFormat::LabelStudio && format.outputs() != Outputs::default()
        });
        match needs_logits.filter(|_| !has_logits) {
            Some(format) => anyhow::bail!(
                "this model gives labels without logits, so it has no confidence; leave out --format {}",
                format.name()
            ),
            None => Ok(Self { chosen, min_confidence }),
        }
    }

    /// Names of the formats with files for each image, with their parameters.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        self.chosen.iter().filter(|format| format.folder().is_some()).map(|format| match format {
            OutputFormat::Pseudo => format!("{}>={}", format.name(), self.min_confidence),
            _ => format.name(),
        })
    }

    /// Names of the formats with one combined file.
    pub(crate) fn combined_names(&self) -> impl Iterator<Item = String> {
        self.chosen
            .iter()
            .filter(|format| format.combined_file().is_some())
            .map(|format| format.name())
    }

    /// Restores the formats of a run from both kinds of names.
    pub(crate) fn from_names<'a>(names: impl Iterator<Item = &'a str>) -> anyhow::Result<Self> {
        let mut formats =
            Self { chosen: Vec::new(), min_confidence: pseudo_labels::DEFAULT_MIN_CONFIDENCE };
        for text in names {
            let (name, min_confidence) =
                text.split_once(">=").map_or((text, None), |(name, share)| (name, Some(share)));
            let format = OutputFormat::from_str(name, false).ok();
            formats.chosen.push(
                format
                    .with_context(|| format!("this version does not know the format `{name}`"))?,
            );
            if let Some(share) = min_confidence {
                formats.min_confidence =
                    share.parse().with_context(|| format!("`{text}` is not a format"))?;
            }
        }
        Ok(formats)
    }

    /// Outputs of the model that the formats need besides labels.
    pub(crate) fn outputs(&self) -> Outputs {
        self.chosen.iter().fold(Outputs::default(), |all, format| {
            let own = format.outputs();
            Outputs {
                confidence: all.confidence || own.confidence,
                margin: all.margin || own.margin,
                ..all
            }
        })
    }

    /// Least confidence of a pseudo-label, if there are to be some.
    pub(crate) fn pseudo_confidence(&self) -> Option<f64> {
        self.chosen.contains(&OutputFormat::Pseudo).then_some(self.min_confidence)
    }

    /// True if a pixel is sure enough for a pseudo-label.
    pub(crate) fn keeps_any(&self, labels: &ImageLabels) -> bool {
        let Some(least) = self.pseudo_confidence() else { return false };
        let is_kept =
            |(&step, &label): (&u8, &u8)| label != IGNORE_INDEX && f64::from(step) / 255.0 >= least;
        let confidence = labels.confidence.iter().flatten();
        confidence.zip(&labels.map.labels).any(is_kept)
    }

    /// Says what the values of `ids` are, where the classes have other ids in their data set.
    pub(crate) fn ids_note(&self, classes: &ClassTable) -> Option<String> {
        let mut numbered = (0_u8..).zip(classes.classes());
        if !self.chosen.contains(&OutputFormat::Ids)
            || numbered.all(|(train_id, class)| train_id == class.source_id)
        {
            return None;
        }
        let listed = |id: &dyn Fn(usize) -> u8| {
            let names = classes.classes().iter().take(3).enumerate();
            let mut names: Vec<String> =
                names.map(|(index, class)| format!("{} {}", id(index), class.name)).collect();
            if classes.count() > names.len() {
                names.push("…".to_owned());
            }
            names.join(", ")
        };
        let train = listed(&|index| index as u8);
        let own = listed(&|index| classes.classes()[index].source_id);
        let there = match self.chosen.contains(&OutputFormat::LabelMapping) {
            true => "labelids/ holds",
            false => "--format labelids writes",
        };
        Some(format!("ids/ holds train ids ({train}); {there} the ids of the classes ({own})"))
    }

    /// Folders of the formats with files for each image.
    pub(crate) fn folders(&self) -> impl Iterator<Item = &'static str> {
        self.chosen.iter().filter_map(|format| format.folder())
    }

    /// Fails if a format cannot name an image or class.
    pub(crate) fn check<'a>(
        &self,
        names: &(impl Iterator<Item = &'a Path> + Clone),
        classes: &ClassTable,
    ) -> anyhow::Result<()> {
        for format in &self.chosen {
            let checked = match (format, format.combined_file()) {
                (OutputFormat::Pseudo, _) => pseudo_labels::class_file(classes).map(drop),
                (_, Some(combined_file)) => combined_file.check(names.clone(), classes),
                _ => Ok(()),
            };
            checked.with_context(|| format!("--format {} cannot be written", format.name()))?;
        }
        Ok(())
    }

    /// Files of an image: path below the output folder and contents.
    pub(crate) fn files(
        &self,
        labeled: &LabeledImage<'_>,
        classes: &ClassTable,
    ) -> anyhow::Result<Vec<(PathBuf, Vec<u8>)>> {
        let LabeledImage { image, labels, margin } = labeled;
        let ImageLabels { name, map, confidence } = labels;
        let no_logits = || "the model gave no logits";
        let mut files = Vec::new();
        for format in &self.chosen {
            let Some(folder) = format.folder() else { continue };
            let path = Path::new(folder).join(png_name(name));
            match format {
                OutputFormat::Ids => files.push((path, map.ids_png()?)),
                OutputFormat::LabelMapping => {
                    files.push((
                        Path::new(folder).join(label_ids::file_name(name)),
                        label_ids::png(map, classes)?,
                    ));
                }
                OutputFormat::Color => files.push((path, map.color_png(classes)?)),
                OutputFormat::Overlay => files.push((path, map.overlay_png(image, classes)?)),
                OutputFormat::Confidence => {
                    files.push((path, map.gray_png(confidence.as_ref().with_context(no_logits)?)?));
                }
                OutputFormat::Margin => {
                    files.push((path, map.gray_png(margin.with_context(no_logits)?)?));
                }
                OutputFormat::Pseudo => {
                    let root = Path::new(folder);
                    files.push((
                        root.join(pseudo_labels::label_path(name)),
                        pseudo_labels::labels_png(labels, self.min_confidence, classes)?,
                    ));
                    let confidence = map.gray_png(confidence.as_ref().with_context(no_logits)?)?;
                    files.push((root.join(pseudo_labels::confidence_path(name)), confidence));
                }
                OutputFormat::Coco | OutputFormat::Cvat | OutputFormat::LabelStudio => {}
            }
        }
        Ok(files)
    }

    /// Links the image into the folder of pseudo-labels; returns the link's path below `out`.
    pub(crate) fn link(
        &self,
        out: &Path,
        image: &Path,
        name: &Path,
    ) -> Result<Option<PathBuf>, FormatError> {
        if !self.chosen.contains(&OutputFormat::Pseudo) {
            return Ok(None);
        }
        pseudo_labels::link(image, &out.join(PSEUDO), name)?;
        Ok(Some(Path::new(PSEUDO).join(pseudo_labels::image_path(name))))
    }

    /// Writes lists and combined files from the files of each image.
    pub(crate) fn finish(
        &self,
        out: &Path,
        names: &[PathBuf],
        max_pixels: u64,
        classes: &ClassTable,
    ) -> Result<(), FormatError> {
        if self.chosen.contains(&OutputFormat::Pseudo) {
            pseudo_labels::write_lists(&out.join(PSEUDO), names.to_vec(), classes)?;
        }
        let confidence =
            self.chosen.contains(&OutputFormat::Confidence).then(|| out.join("confidence"));
        self.combined_files().try_for_each(|format| {
            let confidence = confidence.clone().filter(|_| format == AnnotationFormat::LabelStudio);
            let images = StoredLabels::new(names.to_vec(), out.join("ids"), confidence, max_pixels);
            // Written in the state folder, which is on the same file system, then renamed.
            let partial = out.join(STATE_DIR).join(format.file_name());
            let path = out.join(format.file_name());
            format.write(&partial, images, classes)?;
            Ok(std::fs::rename(&partial, &path).map_err(FileError::at(&path))?)
        })
    }

    fn combined_files(&self) -> impl Iterator<Item = AnnotationFormat> {
        self.chosen.iter().filter_map(|format| format.combined_file())
    }
}

/// Splits a prediction into named labels and the margin.
pub(crate) fn into_image_labels(
    name: &Path,
    mut prediction: Prediction,
) -> (ImageLabels, Option<Vec<u8>>) {
    let confidence = prediction.confidence.take().map(into_vec);
    let margin = prediction.margin.take().map(into_vec);
    (ImageLabels { name: name.to_owned(), map: prediction.into(), confidence }, margin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_restore_the_formats() {
        let formats = OutputFormats::new(
            &[OutputFormat::LabelStudio, OutputFormat::Pseudo, OutputFormat::Pseudo],
            0.75,
            true,
        )
        .unwrap();
        let names: Vec<String> = formats.names().chain(formats.combined_names()).collect();
        assert_eq!(names, ["ids", "confidence", "pseudo>=0.75", "labelstudio"]);
        assert_eq!(OutputFormats::from_names(names.iter().map(String::as_str)).unwrap(), formats);
        assert!(OutputFormats::from_names(["future"].into_iter()).is_err());
    }

    #[test]
    fn a_model_without_logits_has_no_confidence() {
        let of =
            |format| OutputFormats::new(&[format], 0.9, false).map(|formats| formats.outputs());
        assert!(of(OutputFormat::Margin).unwrap_err().to_string().contains("--format margin"));
        assert!(of(OutputFormat::Pseudo).is_err() && of(OutputFormat::Ids).is_ok());
        assert!(of(OutputFormat::LabelStudio).is_ok());
    }
}
