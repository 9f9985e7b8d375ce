//! What `protoseg label` can write: kinds of files, where they lie, and how the bytes of each come about.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use image::RgbImage;
use protoseg_infer::formats::{FormatError, OneFile, Stored, label_ids};
use protoseg_infer::label_map::{LabelMap, LabelMapError};
use protoseg_models::classes::ClassTable;

use super::inputs;

/// A kind of output file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Train ids as grey PNG
    Ids,
    /// The ids of the classes' data set as grey PNG, under names that the official evaluation of Cityscapes takes
    #[value(name = "labelids")]
    LabelIds,
    /// Train ids as palette PNG in the classes' colours
    Color,
    /// The classes' colours over the picture, as PNG
    Overlay,
    /// One coco.json: a mask for each class of a picture. Like the next two it is made of the ids, which are written too
    Coco,
    /// One cvat.zip, which CVAT imports as "Segmentation mask 1.1"
    Cvat,
    /// One labelstudio.json: tasks with predictions of the brush
    #[value(name = "labelstudio")]
    LabelStudio,
}

impl Format {
    /// The folder for its files, where each picture has one.
    pub(crate) fn folder(self) -> Option<&'static str> {
        match self {
            Self::Ids => Some("ids"),
            Self::LabelIds => Some("labelids"),
            Self::Color => Some("color"),
            Self::Overlay => Some("overlay"),
            Self::Coco | Self::Cvat | Self::LabelStudio => None,
        }
    }

    /// The file for all pictures, where it is one.
    fn one_file(self) -> Option<OneFile> {
        match self {
            Self::Ids | Self::LabelIds | Self::Color | Self::Overlay => None,
            Self::Coco => Some(OneFile::Coco),
            Self::Cvat => Some(OneFile::Cvat),
            Self::LabelStudio => Some(OneFile::LabelStudio),
        }
    }

    /// Where the file of a picture lies below the output folder.
    pub(crate) fn place(self, name: &Path) -> Option<PathBuf> {
        let file = if self == Self::LabelIds { label_ids::file_name(name) } else { inputs::output_name(name) };
        self.folder().map(|folder| Path::new(folder).join(file))
    }

    /// The file of a picture; nothing where there is none.
    pub(crate) fn bytes(
        self,
        labels: &LabelMap,
        picture: &RgbImage,
        classes: &ClassTable,
    ) -> Result<Vec<u8>, LabelMapError> {
        match self {
            Self::Ids => labels.ids_png(),
            Self::LabelIds => label_ids::png(labels, classes),
            Self::Color => labels.color_png(classes),
            Self::Overlay => labels.overlay_png(picture, classes),
            Self::Coco | Self::Cvat | Self::LabelStudio => Ok(Vec::new()),
        }
    }
}

/// The formats with those that others are made of, each once.
pub(crate) fn complete(formats: &[Format]) -> Vec<Format> {
    let ids = formats.iter().any(|format| format.one_file().is_some()).then_some(Format::Ids);
    let mut complete: Vec<Format> = Vec::new();
    for format in ids.into_iter().chain(formats.iter().copied()) {
        if !complete.contains(&format) {
            complete.push(format);
        }
    }
    complete
}

/// Fails where a format cannot name a picture or class.
pub(crate) fn check(formats: &[Format], names: &[&Path], classes: &ClassTable) -> Result<(), FormatError> {
    one_files(formats).try_for_each(|format| format.check(names.iter().copied(), classes))
}

/// Writes the files for all pictures, from the ids of each.
pub(crate) fn write_one_files(
    formats: &[Format],
    out: &Path,
    names: &[PathBuf],
    max_pixels: u64,
    classes: &ClassTable,
) -> Result<(), FormatError> {
    one_files(formats).try_for_each(|format| {
        let pictures = Stored::new(names.to_vec(), out.join("ids"), None, max_pixels);
        format.write(&out.join(format.file_name()), pictures, classes)
    })
}

fn one_files(formats: &[Format]) -> impl Iterator<Item = OneFile> {
    formats.iter().filter_map(|format| format.one_file())
}
