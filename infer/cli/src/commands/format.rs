//! Output formats of `protoseg label`: their names, paths and contents.

mod rows;

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueEnum;
use image::RgbImage;
use protoseg_images::formats::{
    AnnotationFormat, FormatError, ImageLabels, StoredLabels, cvat, label_ids, png_name,
    pseudo_labels,
};
use protoseg_images::geo::{GeoReference, Place};
use protoseg_images::geo_tiff;
use protoseg_images::notes::ImageNotes;
use protoseg_images::world_file::{self, WorldFileError};
use protoseg_infer::upsample::{Outputs, Prediction, into_vec};
use protoseg_label::STATE_DIR;
use protoseg_models::classes::{Class, ClassTable, IGNORE_INDEX};
use protoseg_models::errors::FileError;

pub(crate) use self::rows::{RowOutput, RowPlane};
use super::annotation_args::AnnotationArgs;

/// Folder of pseudo-labels, a data set in itself.
const PSEUDO: &str = "pseudo";

/// Kind of output file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum OutputFormat {
    /// Train ids as gray PNG
    Ids,
    /// Train ids as GeoTIFF where the image has one's tags, with the same place on Earth
    #[value(name = "geotiff")]
    GeoTiff,
    /// Ids of the class file as gray PNG, named for the official evaluation of Cityscapes
    #[value(name = "labelids")]
    LabelMapping,
    /// Train ids as palette PNG in the colors of the classes
    Color,
    /// Colors of the classes blended over the image, as PNG; the background keeps the image's
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

/// Names of the results of images.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct ResultNames {
    /// `a.jpg` has the result `a.jpg.png`, instead of `a.png`.
    pub(crate) keep_ending: bool,
}

/// Name of [`ResultNames::keep_ending`] in the journal.
const KEEP_ENDING: &str = "keep-ending";
/// Name of [`OutputFormats::overlay_background`] there.
const OVERLAY_BACKGROUND: &str = "overlay-background";

impl ResultNames {
    /// The name that takes the place of an image's in the names of its results, from which they
    /// drop the ending.
    pub(crate) fn result_name(self, name: &Path) -> PathBuf {
        if self.keep_ending { with_second_ending(name) } else { name.to_owned() }
    }
}

/// The name with its ending once more, such as `a.jpg.jpg`.
fn with_second_ending(name: &Path) -> PathBuf {
    let mut doubled = name.as_os_str().to_owned();
    doubled.push(".");
    doubled.push(name.extension().unwrap_or("png".as_ref()));
    doubled.into()
}

/// Image with its prediction.
pub(crate) struct LabeledImage<'a> {
    pub(crate) image: &'a RgbImage,
    pub(crate) labels: &'a ImageLabels,
    /// Highest minus second-highest logit, `[height, width]`.
    pub(crate) margin: Option<&'a [u8]>,
    /// Place of the image on Earth.
    pub(crate) geo: Option<&'a GeoReference>,
}

/// Formats of a run with their parameters.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OutputFormats {
    chosen: Vec<OutputFormat>,
    /// Least confidence of a pseudo-label.
    min_confidence: f64,
    pub(crate) names: ResultNames,
    /// Overlays are painted where the background is, too.
    pub(crate) overlay_background: bool,
    pub(crate) annotations: AnnotationArgs,
}

impl OutputFormat {
    /// Folder of a format with files for each image.
    fn folder(self) -> Option<&'static str> {
        match self {
            Self::Ids => Some("ids"),
            Self::GeoTiff => Some("geotiff"),
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
            Self::Ids
            | Self::GeoTiff
            | Self::LabelMapping
            | Self::Color
            | Self::Overlay
            | Self::Confidence
            | Self::Margin
            | Self::Pseudo => None,
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
    /// The requested formats and those that they need. A model may lack confidence, for a reason.
    pub(crate) fn new(
        requested: &[OutputFormat],
        min_confidence: f64,
        lacks_confidence: Option<&str>,
    ) -> anyhow::Result<Self> {
        let mut chosen: Vec<OutputFormat> = requested.to_vec();
        if requested.iter().any(|format| format.combined_file().is_some()) {
            chosen.push(OutputFormat::Ids);
        }
        if requested.contains(&OutputFormat::LabelStudio) && lacks_confidence.is_none() {
            chosen.push(OutputFormat::Confidence);
        }
        chosen.sort();
        chosen.dedup();
        let needs_logits = chosen.iter().find(|&&format| {
            format != OutputFormat::LabelStudio && format.outputs() != Outputs::default()
        });
        match needs_logits.zip(lacks_confidence) {
            Some((format, reason)) => anyhow::bail!(
                "{reason}, so it has no confidence; leave out --format {}",
                format.name()
            ),
            None => Ok(Self { chosen, min_confidence, ..Self::none() }),
        }
    }

    fn none() -> Self {
        Self {
            chosen: Vec::new(),
            min_confidence: pseudo_labels::DEFAULT_MIN_CONFIDENCE,
            names: ResultNames::default(),
            overlay_background: false,
            annotations: AnnotationArgs::default(),
        }
    }

    /// Names of the formats with files for each image, and of what their files depend on.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        let formats = self.chosen.iter().filter(|format| format.folder().is_some());
        let names = formats.map(|format| match format {
            OutputFormat::Pseudo => format!("{}>={}", format.name(), self.min_confidence),
            _ => format.name(),
        });
        let overlay = self.chosen.contains(&OutputFormat::Overlay) && self.overlay_background;
        names
            .chain(self.names.keep_ending.then(|| KEEP_ENDING.to_owned()))
            .chain(overlay.then(|| OVERLAY_BACKGROUND.to_owned()))
    }

    /// Names of the formats with one combined file, and of what their files depend on.
    pub(crate) fn combined_names(&self) -> impl Iterator<Item = String> {
        let formats = self.chosen.iter().filter(|format| format.combined_file().is_some());
        let options = self.annotations.names().filter(|_| self.combined_files().next().is_some());
        formats.map(|format| format.name()).chain(options)
    }

    /// Restores the formats of a run from both kinds of names.
    pub(crate) fn from_names<'a>(names: impl Iterator<Item = &'a str>) -> anyhow::Result<Self> {
        let mut formats = Self::none();
        for text in names {
            match text {
                KEEP_ENDING => formats.names.keep_ending = true,
                OVERLAY_BACKGROUND => formats.overlay_background = true,
                _ if formats.annotations.restore(text) => {}
                _ => formats.restore(text)?,
            }
        }
        Ok(formats)
    }

    /// Restores a format by its name in the journal.
    fn restore(&mut self, text: &str) -> anyhow::Result<()> {
        let (name, min_confidence) =
            text.split_once(">=").map_or((text, None), |(name, share)| (name, Some(share)));
        let format = OutputFormat::from_str(name, false).ok();
        self.chosen.push(
            format.with_context(|| format!("this version does not know the format `{name}`"))?,
        );
        if let Some(share) = min_confidence {
            self.min_confidence =
                share.parse().with_context(|| format!("`{text}` is not a format"))?;
        }
        Ok(())
    }

    /// Says which ids the files hold, where the classes have other ids than train ids.
    pub(crate) fn ids_note(&self, classes: &ClassTable) -> Option<String> {
        /// Classes that the note names.
        const NAMED: usize = 3;
        let chosen = |format| self.chosen.contains(&format);
        if classes.has_train_ids() || !chosen(OutputFormat::Ids) && !chosen(OutputFormat::Color) {
            return None;
        }
        let list = |id: fn(usize, &Class) -> usize| {
            let classes = classes.classes().iter().enumerate();
            let named =
                classes.take(NAMED).map(|(at, class)| format!("{} {}", id(at, class), class.name));
            named.collect::<Vec<_>>().join(", ")
        };
        let more = if classes.count() > NAMED { ", …" } else { "" };
        let folder = if chosen(OutputFormat::Ids) { "ids" } else { "color" };
        Some(format!(
            "{folder} holds train ids ({}{more}); --format labelids writes those of the class file \
             ({}{more})",
            list(|train_id, _| train_id),
            list(|_, class| class.source_id.into())
        ))
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

    /// Folders of the formats with files for each image.
    pub(crate) fn folders(&self) -> impl Iterator<Item = &'static str> {
        self.chosen.iter().filter_map(|format| format.folder())
    }

    /// Fails if a format cannot name a class, or an option names an unknown one.
    pub(crate) fn check(&self, classes: &ClassTable) -> anyhow::Result<()> {
        let options = self.annotations.options(classes)?;
        for format in &self.chosen {
            let checked = match (format, format.combined_file()) {
                (OutputFormat::Pseudo, _) => pseudo_labels::class_file(classes).map(drop),
                (_, Some(combined_file)) => combined_file.check(classes, &options),
                _ => Ok(()),
            };
            checked.with_context(|| format!("--format {} cannot be written", format.name()))?;
        }
        Ok(())
    }

    /// True if the place of images on Earth is written.
    pub(crate) fn needs_place(&self) -> bool {
        self.chosen.contains(&OutputFormat::GeoTiff)
    }

    /// Returns the place of an image on Earth, by its own tags or, where it is written, by the world
    /// file beside the image.
    pub(crate) fn place(
        &self,
        place: Option<Place>,
        notes: &ImageNotes,
        image: &Path,
    ) -> Result<Option<Place>, WorldFileError> {
        // A world file tells of the pixels as they are stored.
        let is_asked = self.needs_place() && !notes.is_turned;
        if is_asked { world_file::complete(place, image) } else { Ok(place) }
    }

    /// Files of an image: path below the output folder and contents.
    pub(crate) fn files(
        &self,
        labeled: &LabeledImage<'_>,
        classes: &ClassTable,
    ) -> anyhow::Result<Vec<(PathBuf, Vec<u8>)>> {
        let LabeledImage { image, labels, margin, geo } = labeled;
        let ImageLabels { name, map, confidence } = labels;
        let no_logits = || "the model gave no logits";
        let mut files = Vec::new();
        for format in &self.chosen {
            let Some(folder) = format.folder() else { continue };
            let path = Path::new(folder).join(png_name(name));
            match format {
                OutputFormat::Ids => files.push((path, map.train_ids_png(classes)?)),
                OutputFormat::GeoTiff => {
                    let tiff = geo_tiff::encode(map, geo.unwrap_or(&GeoReference::default()))?;
                    files.push((path.with_extension("tif"), tiff));
                }
                OutputFormat::LabelMapping => {
                    files.push((
                        Path::new(folder).join(label_ids::file_name(name)),
                        label_ids::png(map, classes)?,
                    ));
                }
                OutputFormat::Color => files.push((path, map.color_png(classes)?)),
                OutputFormat::Overlay => {
                    files.push((path, map.overlay_png(image, classes, self.overlay_background)?));
                }
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

    /// Writes lists and combined files from the files of each image. Returns lines about what the
    /// combined files hold otherwise than expected.
    pub(crate) fn finish(
        &self,
        out: &Path,
        names: &[PathBuf],
        max_pixels: u64,
        classes: &ClassTable,
    ) -> anyhow::Result<Vec<String>> {
        if self.chosen.contains(&OutputFormat::Pseudo) {
            let names = names.iter().map(|name| self.names.result_name(name)).collect();
            pseudo_labels::write_lists(&out.join(PSEUDO), names, classes)?;
        }
        let options = self.annotations.options(classes)?;
        let mut notes = Vec::new();
        let confidence =
            self.chosen.contains(&OutputFormat::Confidence).then(|| out.join("confidence"));
        for format in self.combined_files() {
            let confidence = confidence.clone().filter(|_| format == AnnotationFormat::LabelStudio);
            let (names, lines) = format.select_names(names.to_vec());
            notes.extend(lines);
            let images = StoredLabels::new(names, out.join("ids"), confidence, max_pixels);
            let images = if self.names.keep_ending {
                images.with_result_names(with_second_ending)
            } else {
                images
            };
            // Written in the state folder, which is on the same file system, then renamed.
            let partial = out.join(STATE_DIR).join(format.file_name());
            let path = out.join(format.file_name());
            format.write(&partial, images, classes, &options)?;
            std::fs::rename(&partial, &path).map_err(FileError::at(&path))?;
            if format == AnnotationFormat::Cvat
                && cvat::has_background(classes)
                && !self.annotations.says_background()
            {
                notes.push(format!(
                    "{} has no annotations of the class `background`, which CVAT refuses in tasks \
                     without such a label; --cvat-background writes them",
                    format.file_name()
                ));
            }
        }
        Ok(notes)
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
            None,
        )
        .unwrap();
        let names: Vec<String> = formats.names().chain(formats.combined_names()).collect();
        assert_eq!(names, ["ids", "confidence", "pseudo>=0.75", "labelstudio"]);
        assert_eq!(OutputFormats::from_names(names.iter().map(String::as_str)).unwrap(), formats);
        assert!(OutputFormats::from_names(["future"].into_iter()).is_err());
        let mut formats = OutputFormats::new(&[OutputFormat::Overlay], 0.9, None).unwrap();
        assert_eq!(formats.names().collect::<Vec<_>>(), ["overlay"]);
        formats.overlay_background = true;
        let names: Vec<String> = formats.names().collect();
        assert_eq!(names, ["overlay", "overlay-background"]);
        let restored = OutputFormats::from_names(names.iter().map(String::as_str)).unwrap();
        assert!(restored.overlay_background && restored.names().eq(names));
    }

    #[test]
    fn a_model_without_logits_has_no_confidence() {
        let of = |format| {
            OutputFormats::new(&[format], 0.9, Some("labels")).map(|formats| formats.outputs())
        };
        assert!(of(OutputFormat::Margin).unwrap_err().to_string().contains("--format margin"));
        assert!(of(OutputFormat::Pseudo).is_err() && of(OutputFormat::Ids).is_ok());
        assert!(of(OutputFormat::LabelStudio).is_ok());
    }
}
