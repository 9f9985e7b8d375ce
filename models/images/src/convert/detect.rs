//! Which format annotations have, and its reader.

use std::path::{Path, PathBuf};

use protoseg_models::classes::ClassFile;
use protoseg_models::errors::FileError;

use super::image_index::{ImageIndex, files};
use super::{
    Annotations, ConvertError, ConvertOptions, coco, cvat_xml, label_studio, labelme, mask_files,
    one_per_class,
};

/// A format of annotations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SourceFormat {
    /// CVAT's "Segmentation mask 1.1": `labelmap.txt` and `SegmentationClass`.
    Cvat,
    /// CVAT's "CVAT for images 1.1": `annotations.xml`.
    CvatXml,
    /// COCO's JSON of instances, stuff or panoptic segments.
    Coco,
    /// Label Studio's JSON of tasks.
    LabelStudio,
    /// A JSON file of LabelMe for each image.
    LabelMe,
    /// `JPEGImages` and `SegmentationClass` with the classes of Pascal VOC.
    Voc,
    /// A mask for each class of an image.
    Masks,
    /// The layout of protoseg: `images`, `labels`, `classes.txt`.
    Folder,
}

impl std::fmt::Display for SourceFormat {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Cvat => "CVAT masks",
            Self::CvatXml => "CVAT for images",
            Self::Coco => "COCO",
            Self::LabelStudio => "Label Studio",
            Self::LabelMe => "LabelMe",
            Self::Voc => "Pascal VOC",
            Self::Masks => "a mask for each class",
            Self::Folder => "images and labels",
        })
    }
}

/// Annotations that are being read.
#[derive(Debug, Clone, Copy)]
pub(super) struct AnnotationSource<'a> {
    pub(super) input: &'a Path,
    pub(super) options: &'a ConvertOptions,
    pub(super) index: &'a ImageIndex,
    /// The class file that was named, or lies beside the annotations.
    pub(super) classes: Option<&'a ClassFile>,
}

impl AnnotationSource<'_> {
    pub(super) fn read(self, format: SourceFormat) -> Result<Annotations, ConvertError> {
        match format {
            SourceFormat::Cvat | SourceFormat::Voc => mask_files::read_tree(self),
            SourceFormat::CvatXml => cvat_xml::read(self),
            SourceFormat::Coco => coco::read(self),
            SourceFormat::LabelStudio => label_studio::read(self),
            SourceFormat::LabelMe => labelme::read(self),
            SourceFormat::Masks => one_per_class::read(self),
            SourceFormat::Folder => mask_files::read_folder(self),
        }
    }

    /// Files with an extension: the input itself, or those below it.
    pub(super) fn files(self, extension: &str) -> Result<Vec<PathBuf>, ConvertError> {
        if self.input.is_file() {
            return Ok(vec![self.input.into()]);
        }
        let mut files = files(self.input, &[])?;
        files.retain(|path| has_extension(path, extension));
        Ok(files)
    }

    /// The image of a name; with an option to leave it out where only its annotations are needed.
    pub(super) fn image(self, name: &str) -> Result<Option<PathBuf>, ConvertError> {
        Ok(self.index.find(name)?.map(Path::to_owned))
    }
}

/// Unpacks a ZIP archive.
pub(super) fn unpack(input: &Path) -> Result<Option<tempfile::TempDir>, ConvertError> {
    if !input.is_file() || !has_extension(input, "zip") {
        return Ok(None);
    }
    let broken = |source| ConvertError::Zip { path: input.into(), source };
    let folder = tempfile::tempdir().map_err(FileError::at(input))?;
    let file = std::fs::File::open(input).map_err(FileError::at(input))?;
    // Names that lead out of the folder are refused by the reader.
    zip::ZipArchive::new(file)
        .and_then(|mut archive| archive.extract(folder.path()))
        .map_err(broken)?;
    Ok(Some(folder))
}

/// Finds out the format of a file or folder.
pub(super) fn detect(input: &Path) -> Result<SourceFormat, ConvertError> {
    if input.is_file() {
        return match input.extension().and_then(|extension| extension.to_str()) {
            Some("xml") => Ok(SourceFormat::CvatXml),
            Some("json") => json_format(input)?.ok_or_else(|| ConvertError::Unknown(input.into())),
            _ => Err(ConvertError::Unknown(input.into())),
        };
    }
    let has = |name: &str| input.join(name).exists();
    if has("SegmentationClass") {
        return Ok(if has("labelmap.txt") { SourceFormat::Cvat } else { SourceFormat::Voc });
    }
    if has("images") && (has("labels") || has("masks")) {
        let default = if has("labels") { SourceFormat::Folder } else { SourceFormat::Masks };
        return Ok(layout(input, default));
    }
    let found = files(input, &[])?;
    if found.iter().any(|path| path.file_name().is_some_and(|name| name == "annotations.xml")) {
        return Ok(SourceFormat::CvatXml);
    }
    for path in found.iter().filter(|path| has_extension(path, "json")) {
        if let Some(format) = json_format(path)? {
            return Ok(format);
        }
    }
    Err(ConvertError::Unknown(input.into()))
}

/// Tells a label map for each image from a mask for each class of an image.
pub(super) fn layout(input: &Path, default: SourceFormat) -> SourceFormat {
    let stems = |folder: &str| -> Vec<PathBuf> {
        let root = input.join(folder);
        let below = |path: PathBuf| Some(path.strip_prefix(&root).ok()?.with_extension(""));
        files(&root, &[]).unwrap_or_default().into_iter().filter_map(below).collect()
    };
    let (images, labels) = (stems("images"), stems("labels"));
    let paired = images.iter().any(|image| labels.contains(image));
    if paired || labels.is_empty() { default } else { SourceFormat::Masks }
}

fn json_format(path: &Path) -> Result<Option<SourceFormat>, ConvertError> {
    let value = read_json::<serde_json::Value>(path)?;
    let has = |key: &str| value.get(key).is_some();
    let is_task =
        |task: &serde_json::Value| task.get("annotations").or(task.get("predictions")).is_some();
    Ok(if has("shapes") {
        Some(SourceFormat::LabelMe)
    } else if has("images") && has("annotations") {
        Some(SourceFormat::Coco)
    } else if value.as_array().and_then(|tasks| tasks.first()).is_some_and(is_task) {
        Some(SourceFormat::LabelStudio)
    } else {
        None
    })
}

/// Reads a JSON file.
pub(super) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, ConvertError> {
    let text = std::fs::read(path).map_err(FileError::at(path))?;
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
    serde_json::from_slice(text).map_err(|source| ConvertError::Json { path: path.into(), source })
}

pub(super) fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|own| own.eq_ignore_ascii_case(extension))
}
