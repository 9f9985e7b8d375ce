//! Label maps read back from the files that labelling left.

use std::path::{Path, PathBuf};

use super::{FormatError, ImageLabels, png_name};
use crate::label_map::{self, LabelMap};

/// The labels of pictures, in order of their paths, each read when it is asked for.
///
/// ```
/// use protoseg_images::formats::{AnnotationFormat, StoredLabels};
/// use protoseg_images::label_map::LabelMap;
/// use protoseg_models::classes::ClassTable;
///
/// let out = tempfile::tempdir()?;
/// std::fs::create_dir(out.path().join("ids"))?;
/// let map = LabelMap { height: 1, width: 2, labels: vec![3, 4] };
/// std::fs::write(out.path().join("ids/street.png"), map.ids_png()?)?;
///
/// let pictures = StoredLabels::new(vec!["street.jpg".into()], out.path().join("ids"), None, u64::MAX);
/// AnnotationFormat::Coco.write(&out.path().join("coco.json"), pictures, &ClassTable::cityscapes())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct StoredLabels {
    names: std::vec::IntoIter<PathBuf>,
    ids: PathBuf,
    confidence: Option<PathBuf>,
    max_pixels: u64,
}

impl StoredLabels {
    /// Of pictures of these names, whose train ids lie in the folder `ids`, and their confidence, if it is known, in another,
    /// under the same names but for the ending `.png`; files of at most `max_pixels` pixels.
    pub fn new(
        mut names: Vec<PathBuf>,
        ids: PathBuf,
        confidence: Option<PathBuf>,
        max_pixels: u64,
    ) -> Self {
        names.sort();
        Self { names: names.into_iter(), ids, confidence, max_pixels }
    }

    fn read(&self, name: PathBuf) -> Result<ImageLabels, FormatError> {
        let read = |folder: &Path| label_map::read(&folder.join(png_name(&name)), self.max_pixels);
        let map = read(&self.ids)?;
        let confidence = self.confidence.as_deref().map(read).transpose()?;
        let size = |map: &LabelMap| [map.height, map.width];
        if let Some(other) = confidence.as_ref().filter(|confidence| size(confidence) != size(&map))
        {
            let LabelMap { height, width, .. } = map;
            return Err(FormatError::Size { name, width, height, found: other.labels.len() });
        }
        Ok(ImageLabels { map, confidence: confidence.map(|confidence| confidence.labels), name })
    }
}

impl Iterator for StoredLabels {
    type Item = Result<ImageLabels, FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        let name = self.names.next()?;
        Some(self.read(name))
    }
}
