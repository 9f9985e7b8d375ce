//! The formats that hold all pictures in one file.

use std::io::{BufWriter, Write};
use std::path::Path;

use protoseg_models::atomic;
use protoseg_models::classes::ClassTable;

use super::{FormatError, ImageLabels, coco, cvat, label_studio, names};

/// A format that holds all pictures in one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AnnotationFormat {
    /// [`coco`].
    Coco,
    /// [`cvat`].
    Cvat,
    /// [`label_studio`].
    LabelStudio,
}

impl AnnotationFormat {
    /// What its file is called.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Coco => "coco.json",
            Self::Cvat => "cvat.zip",
            Self::LabelStudio => "labelstudio.json",
        }
    }

    /// Fails where the format cannot name a class or a picture, so that this is known before anything is labelled.
    pub fn check<'a>(
        self,
        mut names: impl Iterator<Item = &'a Path>,
        classes: &ClassTable,
    ) -> Result<(), FormatError> {
        match self {
            Self::Coco => names.try_for_each(|name| names::text(name).map(drop)),
            Self::Cvat => {
                cvat::label_map(classes)?;
                names.try_for_each(|name| cvat::item(name).map(drop))
            }
            Self::LabelStudio => Ok(()),
        }
    }

    /// Writes the file at a path, where it appears whole or not at all.
    pub fn write(
        self,
        path: &Path,
        pictures: impl IntoIterator<Item = Result<ImageLabels, FormatError>>,
        classes: &ClassTable,
    ) -> Result<(), FormatError> {
        atomic::write_with(path, |file| {
            let mut out = BufWriter::new(file);
            match self {
                Self::Coco => coco::write(&mut out, pictures, classes),
                Self::Cvat => cvat::write(&mut out, pictures, classes),
                Self::LabelStudio => label_studio::write(
                    &mut out,
                    pictures,
                    classes,
                    &label_studio::LabelStudioOptions::default(),
                ),
            }?;
            Ok(out.flush()?)
        })
        .map_err(|error| match error {
            FormatError::Write(source) => FormatError::Io { path: path.into(), source },
            other => other,
        })
    }
}
