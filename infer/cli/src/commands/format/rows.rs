//! Output formats of images that are labeled by rows.

use std::path::{Path, PathBuf};

use protoseg_images::formats::{label_ids, png_name};
use protoseg_images::geo::GeoReference;
use protoseg_images::label_rows::RowEncoding;
use protoseg_models::classes::ClassTable;

use super::{OutputFormat, OutputFormats};

/// Plane of a prediction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowPlane {
    Labels,
    Confidence,
    Margin,
}

/// A file that is written row by row.
#[derive(Debug)]
pub(crate) struct RowOutput {
    /// Path below the output folder.
    pub(crate) path: PathBuf,
    pub(crate) encoding: RowEncoding,
    pub(crate) plane: RowPlane,
    /// The id that is written for each label, where it is another.
    pub(crate) ids: Option<[u8; 256]>,
}

impl OutputFormat {
    /// True where a file of the format can be written row by row.
    fn is_by_rows(self) -> bool {
        match self {
            Self::Ids
            | Self::GeoTiff
            | Self::LabelMapping
            | Self::Color
            | Self::Confidence
            | Self::Margin => true,
            Self::Overlay | Self::Pseudo | Self::Coco | Self::Cvat | Self::LabelStudio => false,
        }
    }
}

impl OutputFormats {
    /// Names of the chosen formats that cannot be written row by row, comma-separated; None where
    /// all can.
    pub(crate) fn whole_image_formats(&self) -> Option<String> {
        let whole = self.chosen.iter().filter(|format| !format.is_by_rows());
        let names: Vec<String> = whole.map(|format| format.name()).collect();
        (!names.is_empty()).then(|| names.join(","))
    }

    /// Files of an image by the name of its results.
    pub(crate) fn row_outputs(
        &self,
        name: &Path,
        geo: Option<&GeoReference>,
        classes: &ClassTable,
    ) -> Vec<RowOutput> {
        let output = |format: &OutputFormat| {
            let path = Path::new(format.folder()?).join(png_name(name));
            let labels = |path, encoding| {
                Some(RowOutput { path, encoding, plane: RowPlane::Labels, ids: None })
            };
            match format {
                OutputFormat::Ids => labels(path, RowEncoding::train_ids(classes)),
                OutputFormat::Color => labels(path, RowEncoding::color(classes)),
                OutputFormat::GeoTiff => {
                    let geo = geo.cloned().unwrap_or_default();
                    labels(path.with_extension("tif"), RowEncoding::GeoTiff(geo))
                }
                OutputFormat::LabelMapping => {
                    let path = Path::new(format.folder()?).join(label_ids::file_name(name));
                    let ids = Some(label_ids::ids(classes));
                    Some(RowOutput { ids, ..labels(path, RowEncoding::gray())? })
                }
                OutputFormat::Confidence => {
                    let plane = RowPlane::Confidence;
                    Some(RowOutput { plane, ..labels(path, RowEncoding::gray())? })
                }
                OutputFormat::Margin => {
                    let plane = RowPlane::Margin;
                    Some(RowOutput { plane, ..labels(path, RowEncoding::gray())? })
                }
                OutputFormat::Overlay
                | OutputFormat::Pseudo
                | OutputFormat::Coco
                | OutputFormat::Cvat
                | OutputFormat::LabelStudio => None,
            }
        };
        self.chosen.iter().filter_map(output).collect()
    }
}
