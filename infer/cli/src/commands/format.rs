//! What `protoseg label` can write: kinds of files, where they lie, and how the bytes of each come about.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueEnum;
use image::RgbImage;
use protoseg_images::formats::{
    AnnotationFormat, FormatError, ImageLabels, StoredLabels, label_ids, png_name, pseudo_labels,
};
use protoseg_infer::upsample::{Outputs, Prediction, into_vec};
use protoseg_label::STATE_DIR;
use protoseg_models::classes::ClassTable;
use protoseg_models::errors::FileError;

/// The folder of pseudo-labels, a data set by itself.
const PSEUDO: &str = "pseudo";

/// A kind of output file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum OutputFormat {
    /// Train ids as grey PNG
    Ids,
    /// The ids of the classes' data set as grey PNG, under names that the official evaluation of Cityscapes takes
    #[value(name = "labelids")]
    LabelMapping,
    /// Train ids as palette PNG in the classes' colours
    Color,
    /// The classes' colours over the picture, as PNG
    Overlay,
    /// The largest softmax of each pixel in steps of 1/255, as grey PNG
    Confidence,
    /// The highest score less the second highest in steps of 1/16, as grey PNG
    Margin,
    /// A folder for `protoseg train`: labels of pixels that are sure enough, links to the pictures, classes and a list
    Pseudo,
    /// One coco.json: a mask for each class of a picture. Like the next two it is made of the ids, which are written too
    Coco,
    /// One cvat.zip, which CVAT imports as "Segmentation mask 1.1"
    Cvat,
    /// One labelstudio.json: tasks with predictions of the brush, and how sure they are
    #[value(name = "labelstudio")]
    LabelStudio,
}

/// A picture with all that its files are made of.
pub(crate) struct LabeledImage<'a> {
    /// The picture.
    pub(crate) image: &'a RgbImage,
    /// Its name and labels.
    pub(crate) labels: &'a ImageLabels,
    /// How far the first class is before the second, `[height, width]`.
    pub(crate) margin: Option<&'a [u8]>,
}

/// The formats of a run, and what shapes them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OutputFormats {
    chosen: Vec<OutputFormat>,
    /// How sure pixels must be to be pseudo-labels.
    least: f64,
}

impl OutputFormat {
    /// The folder for its files, where each picture has one.
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

    /// The file for all pictures, where it is one.
    fn combined_file(self) -> Option<AnnotationFormat> {
        match self {
            Self::Coco => Some(AnnotationFormat::Coco),
            Self::Cvat => Some(AnnotationFormat::Cvat),
            Self::LabelStudio => Some(AnnotationFormat::LabelStudio),
            _ => None,
        }
    }

    /// Its name on the command line.
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// What it is made of beside labels.
    fn outputs(self) -> Outputs {
        Outputs {
            confidence: matches!(self, Self::Confidence | Self::Pseudo | Self::LabelStudio),
            margin: self == Self::Margin,
            logits: false,
        }
    }
}

impl OutputFormats {
    /// Those that were asked for with those that others are made of, each once. `scored` says whether the model gives scores,
    /// without which there is no confidence.
    pub(crate) fn new(asked: &[OutputFormat], least: f64, scored: bool) -> anyhow::Result<Self> {
        let mut chosen: Vec<OutputFormat> = asked.to_vec();
        if asked.iter().any(|format| format.combined_file().is_some()) {
            chosen.push(OutputFormat::Ids);
        }
        if asked.contains(&OutputFormat::LabelStudio) && scored {
            chosen.push(OutputFormat::Confidence);
        }
        chosen.sort();
        chosen.dedup();
        let unknown = chosen.iter().find(|&&format| {
            format != OutputFormat::LabelStudio && format.outputs() != Outputs::default()
        });
        match unknown.filter(|_| !scored) {
            Some(format) => anyhow::bail!(
                "this model gives labels and no scores, so it does not say how sure it is: leave out --format {}",
                format.name()
            ),
            None => Ok(Self { chosen, least }),
        }
    }

    /// Names of the formats that each picture has files of, each with what shapes it.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        self.chosen.iter().filter(|format| format.folder().is_some()).map(|format| match format {
            OutputFormat::Pseudo => format!("{}>={}", format.name(), self.least),
            _ => format.name(),
        })
    }

    /// Names of those that hold all pictures in one file.
    pub(crate) fn combined_names(&self) -> impl Iterator<Item = String> {
        self.chosen
            .iter()
            .filter(|format| format.combined_file().is_some())
            .map(|format| format.name())
    }

    /// The formats of a run of which both kinds of names were kept.
    pub(crate) fn from_names<'a>(names: impl Iterator<Item = &'a str>) -> anyhow::Result<Self> {
        let mut formats = Self { chosen: Vec::new(), least: pseudo_labels::DEFAULT_MIN_CONFIDENCE };
        for text in names {
            let (name, least) =
                text.split_once(">=").map_or((text, None), |(name, least)| (name, Some(least)));
            let format = OutputFormat::from_str(name, false).ok();
            formats
                .chosen
                .push(format.with_context(|| {
                    format!("the format `{name}` is not known to this version")
                })?);
            if let Some(least) = least {
                formats.least = least.parse().with_context(|| format!("`{text}` is no format"))?;
            }
        }
        Ok(formats)
    }

    /// What is wanted of every pixel beside its label.
    pub(crate) fn outputs(&self) -> Outputs {
        self.chosen.iter().fold(Outputs::default(), |wanted, format| {
            let more = format.outputs();
            Outputs {
                confidence: wanted.confidence || more.confidence,
                margin: wanted.margin || more.margin,
                ..wanted
            }
        })
    }

    /// Folders for the files of each picture.
    pub(crate) fn folders(&self) -> impl Iterator<Item = &'static str> {
        self.chosen.iter().filter_map(|format| format.folder())
    }

    /// Fails where a format cannot name a picture or class.
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

    /// The files of a picture: places below the output folder, and bytes.
    pub(crate) fn files(
        &self,
        picture: &LabeledImage<'_>,
        classes: &ClassTable,
    ) -> anyhow::Result<Vec<(PathBuf, Vec<u8>)>> {
        let LabeledImage { image, labels, margin, .. } = picture;
        let ImageLabels { name, map, confidence } = labels;
        let none = || "the model gave no scores";
        let mut files = Vec::new();
        for format in &self.chosen {
            let Some(folder) = format.folder() else { continue };
            let place = Path::new(folder).join(png_name(name));
            match format {
                OutputFormat::Ids => files.push((place, map.ids_png()?)),
                OutputFormat::LabelMapping => {
                    files.push((
                        Path::new(folder).join(label_ids::file_name(name)),
                        label_ids::png(map, classes)?,
                    ));
                }
                OutputFormat::Color => files.push((place, map.color_png(classes)?)),
                OutputFormat::Overlay => files.push((place, map.overlay_png(image, classes)?)),
                OutputFormat::Confidence => {
                    files.push((place, map.gray_png(confidence.as_ref().with_context(none)?)?))
                }
                OutputFormat::Margin => {
                    files.push((place, map.gray_png(margin.with_context(none)?)?))
                }
                OutputFormat::Pseudo => {
                    let root = Path::new(folder);
                    files.push((
                        root.join(pseudo_labels::label_path(name)),
                        pseudo_labels::labels_png(labels, self.least, classes)?,
                    ));
                    let sure = map.gray_png(confidence.as_ref().with_context(none)?)?;
                    files.push((root.join(pseudo_labels::confidence_path(name)), sure));
                }
                OutputFormat::Coco | OutputFormat::Cvat | OutputFormat::LabelStudio => {}
            }
        }
        Ok(files)
    }

    /// Puts beside the files what is a link and no file of its own; its place below the output folder.
    pub(crate) fn link(
        &self,
        out: &Path,
        picture: &Path,
        name: &Path,
    ) -> Result<Option<PathBuf>, FormatError> {
        if !self.chosen.contains(&OutputFormat::Pseudo) {
            return Ok(None);
        }
        pseudo_labels::link(picture, &out.join(PSEUDO), name)?;
        Ok(Some(Path::new(PSEUDO).join(pseudo_labels::image_path(name))))
    }

    /// Writes the files for all pictures, from those of each.
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
            let pictures =
                StoredLabels::new(names.to_vec(), out.join("ids"), confidence, max_pixels);
            // Where what is not whole belongs; the rename is on one file system.
            let (made, place) =
                (out.join(STATE_DIR).join(format.file_name()), out.join(format.file_name()));
            format.write(&made, pictures, classes)?;
            Ok(std::fs::rename(&made, &place).map_err(FileError::at(&place))?)
        })
    }

    fn combined_files(&self) -> impl Iterator<Item = AnnotationFormat> {
        self.chosen.iter().filter_map(|format| format.combined_file())
    }
}

/// Labels under a picture's name, and the margin beside them.
pub(crate) fn into_image_labels(
    name: &Path,
    mut decided: Prediction,
) -> (ImageLabels, Option<Vec<u8>>) {
    let confidence = decided.confidence.take().map(into_vec);
    let margin = decided.margin.take().map(into_vec);
    (ImageLabels { name: name.to_owned(), map: decided.into(), confidence }, margin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_bring_the_formats_back() {
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
    fn a_model_without_scores_is_not_asked_how_sure_it_is() {
        let of =
            |format| OutputFormats::new(&[format], 0.9, false).map(|formats| formats.outputs());
        assert!(of(OutputFormat::Margin).unwrap_err().to_string().contains("--format margin"));
        assert!(of(OutputFormat::Pseudo).is_err() && of(OutputFormat::Ids).is_ok());
        assert!(of(OutputFormat::LabelStudio).is_ok());
    }
}
