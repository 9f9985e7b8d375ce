//! Which format annotations have, and its reader.

use std::path::{Path, PathBuf};

use protoseg_models::classes::{ClassFile, ClassTable};
use protoseg_models::errors::FileError;

use super::foreign::{self, ForeignFormat};
use super::image_index::{FoundImage, IMAGE_FOLDERS, ImageIndex, files};
use super::{
    Annotations, ConvertError, ConvertOptions, coco, cvat_xml, label_studio, labelme, mask_files,
    mask_tree, one_per_class, pairs, supervisely,
};
use crate::dataset::is_image_path;
use crate::dataset::layout::FolderLayout;
use crate::id_map::IdMap;
use crate::scan::is_by_product;

/// A format of annotations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SourceFormat {
    /// CVAT's "Segmentation mask 1.1": `labelmap.txt` and `SegmentationClass`.
    Cvat,
    /// CVAT's "CVAT for images 1.1" and "CVAT for video 1.1": `annotations.xml`.
    CvatXml,
    /// COCO's JSON of instances, stuff or panoptic segments.
    Coco,
    /// Label Studio's JSON of tasks.
    LabelStudio,
    /// A JSON file of LabelMe for each image.
    LabelMe,
    /// Supervisely's project: `meta.json`, and folders with `ann` and `img`.
    Supervisely,
    /// `JPEGImages` and `SegmentationClass` with the classes of Pascal VOC, of LabelMe's
    /// `class_names.txt` or of a class file.
    Voc,
    /// A mask for each class of an image.
    Masks,
    /// Roboflow's "Semantic Segmentation Masks": `_classes.csv`, and `NAME_mask.png` beside `NAME.jpg`.
    Roboflow,
    /// The layout of protoseg: `images`, `labels`, `classes.txt`.
    Folder,
}

impl std::fmt::Display for SourceFormat {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Cvat => "CVAT masks",
            Self::CvatXml => "CVAT's XML",
            Self::Coco => "COCO",
            Self::LabelStudio => "Label Studio",
            Self::LabelMe => "LabelMe",
            Self::Supervisely => "Supervisely",
            Self::Voc => "Pascal VOC",
            Self::Masks => "a mask for each class",
            Self::Roboflow => "Roboflow's masks",
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
    pub(super) classes: Option<(&'a ClassFile, &'a Path)>,
    /// New ids of the masks.
    pub(super) id_map: Option<&'a IdMap>,
}

impl AnnotationSource<'_> {
    pub(super) fn read(self, format: SourceFormat) -> Result<Annotations, ConvertError> {
        match format {
            SourceFormat::Cvat | SourceFormat::Voc => mask_tree::read(self),
            SourceFormat::CvatXml => cvat_xml::read(self),
            SourceFormat::Coco => coco::read(self),
            SourceFormat::LabelStudio => label_studio::read(self),
            SourceFormat::LabelMe => labelme::read(self),
            SourceFormat::Supervisely => supervisely::read(self),
            SourceFormat::Masks => one_per_class::read(self),
            SourceFormat::Roboflow => mask_files::read_roboflow(self),
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

    /// The image of a name in an annotation file.
    pub(super) fn image(self, name: &str, annotations: &Path) -> FoundImage {
        self.index.find(name, annotations.parent())
    }

    /// Names of the classes of the class file; none if there is no file.
    pub(super) fn class_names(&self) -> impl Iterator<Item = &str> {
        let table = self.classes.map(|(file, _)| &file.table);
        table.into_iter().flat_map(ClassTable::classes).map(|class| class.name.as_str())
    }

    /// Masks below the folder of masks, sorted.
    pub(super) fn masks(self) -> Result<Vec<PathBuf>, ConvertError> {
        mask_paths(self.input, self.options.images.as_deref())
    }
}

/// Files that are looked at once a format is found that is not read.
const LOOKED_AT: usize = 64;

/// Folder of masks: `labels` or `masks` in the input, or the only one of another usual name that
/// holds masks and no annotations, or else the input itself.
pub(super) fn mask_folder(input: &Path) -> PathBuf {
    let usual = ["labels", "masks"].map(|name| input.join(name));
    if let Some(folder) = usual.into_iter().find(|folder| folder.is_dir()) {
        return folder;
    }
    let holds_masks = |folder: &PathBuf| {
        let files = files(folder, &[]).unwrap_or_default();
        let is_annotation =
            |path: &PathBuf| has_extension(path, "json") || has_extension(path, "xml");
        files.iter().any(|path| is_image_path(path)) && !files.iter().any(is_annotation)
    };
    // Those of other formats are read by their names.
    let is_other = |folder: &PathBuf| mask_tree::FOLDERS.iter().any(|name| folder.ends_with(name));
    let other = FolderLayout::find(input).ok().map(|layout| input.join(layout.labels));
    let other = other.filter(|folder| folder.is_dir() && !is_other(folder) && holds_masks(folder));
    other.unwrap_or_else(|| input.to_owned())
}

/// Masks in their folder; not the images beside them.
fn mask_paths(input: &Path, images: Option<&Path>) -> Result<Vec<PathBuf>, ConvertError> {
    let folder = mask_folder(input);
    let skip: &[&str] = if folder == input { &IMAGE_FOLDERS } else { &[] };
    // Or that of another usual name.
    let own = FolderLayout::find(input).ok().map(|layout| input.join(layout.images));
    let images = images.map(Path::to_owned).or(own.filter(|own| own.is_dir() && folder == input));
    let images = images.and_then(|images| images.canonicalize().ok());
    let is_image = |path: &Path| {
        let below =
            |images: &PathBuf| path.canonicalize().is_ok_and(|path| path.starts_with(images));
        images.as_ref().is_some_and(below)
    };
    let is_mask = |path: &PathBuf| is_image_path(path) && !is_image(path);
    Ok(files(&folder, skip)?.into_iter().filter(is_mask).collect())
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

/// The folder of an archive's files: people pack a folder, and not what is in it.
pub(super) fn unpacked_root(folder: &Path) -> PathBuf {
    let known = ["images", "labels", "masks", "JPEGImages", "SegmentationClass", "annotations"];
    let mut root = folder.to_owned();
    loop {
        let entries = std::fs::read_dir(&root).into_iter().flatten().filter_map(Result::ok);
        let mut entries = entries.filter(|entry| !is_by_product(&entry.file_name()));
        match (entries.next(), entries.next()) {
            (Some(only), None)
                if only.path().is_dir() && !known.iter().any(|name| only.file_name() == *name) =>
            {
                root = only.path();
            }
            _ => return root,
        }
    }
}

/// Finds out the format of a file or folder.
pub(super) fn detect(source: AnnotationSource<'_>) -> Result<SourceFormat, ConvertError> {
    let AnnotationSource { input, options, index, .. } = source;
    let images = options.images.as_deref();
    if input.is_file() {
        let refused = |foreign: Option<ForeignFormat>| match foreign {
            Some(format) => ConvertError::Foreign { path: input.into(), format },
            None => ConvertError::Unknown(input.into()),
        };
        return match input.extension().and_then(|extension| extension.to_str()) {
            Some("xml") => xml_format(input)?.map_err(refused),
            Some("json") => json_format(input)?.map_err(refused),
            _ => Err(refused(foreign::by_name(input).or_else(|| foreign::by_first_line(input)))),
        };
    }
    let has = |name: &str| input.join(name).exists();
    if mask_tree::FOLDERS.iter().any(|name| has(name)) {
        return Ok(if has("labelmap.txt") { SourceFormat::Cvat } else { SourceFormat::Voc });
    }
    if has("leftImg8bit") && has("gtFine") {
        return Err(ConvertError::Foreign { path: input.into(), format: foreign::CITYSCAPES });
    }
    let has_images = images.is_some() || index.has_folder();
    let masks = mask_folder(input);
    if has_images && masks != input {
        if let Some(text) = yolo_text(&masks) {
            return Err(ConvertError::Foreign { path: text, format: foreign::yolo() });
        }
        if !mask_paths(input, images)?.is_empty() {
            return layout(source);
        }
    }
    let found = files(input, &[])?;
    if found.iter().any(|path| path.file_name().is_some_and(|name| name == "annotations.xml")) {
        return Ok(SourceFormat::CvatXml);
    }
    let is_roboflow = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name == pairs::ROBOFLOW_CLASSES)
            && ClassFile::load(path).is_ok()
    };
    if found.iter().any(is_roboflow) {
        return Ok(SourceFormat::Roboflow);
    }
    let mut refused = None;
    for (index, path) in found.iter().enumerate() {
        if refused.is_some() && index > LOOKED_AT {
            break;
        }
        let format = if has_extension(path, "json") {
            json_format(path)
        } else if has_extension(path, "xml") {
            xml_format(path)
        } else {
            Ok(Err(foreign::by_name(path)))
        };
        match format {
            Ok(Ok(format)) => return Ok(format),
            Ok(Err(format)) => {
                let path = path.clone();
                refused = refused.or(format.map(|format| ConvertError::Foreign { path, format }));
            }
            // One broken file does not tell the format of the others.
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    if has_images && !mask_paths(input, images)?.is_empty() {
        return layout(source);
    }
    // Tables of other things lie beside many data sets.
    let is_open = match &refused {
        Some(ConvertError::Foreign { format, .. }) => *format == foreign::CSV,
        other => other.is_none(),
    };
    if is_open && pairs::find(source)?.1 {
        return Ok(SourceFormat::Folder);
    }
    if is_open && one_per_class::names_images(source)? {
        return Ok(SourceFormat::Masks);
    }
    Err(refused.unwrap_or_else(|| ConvertError::Unknown(input.into())))
}

/// A text of YOLO in a folder of labels without masks.
fn yolo_text(folder: &Path) -> Option<PathBuf> {
    let files = files(folder, &[]).ok()?;
    if files.iter().any(|path| is_image_path(path)) {
        return None;
    }
    let text = files.into_iter().find(|path| has_extension(path, "txt"))?;
    let content = std::fs::read_to_string(&text).ok()?;
    (content.trim().is_empty() || foreign::is_yolo(&content)).then_some(text)
}

/// Tells a label map for each image from a mask for each class of an image.
pub(super) fn layout(source: AnnotationSource<'_>) -> Result<SourceFormat, ConvertError> {
    let is_folder = source.masks()?.is_empty() || pairs::find(source)?.1;
    Ok(if is_folder { SourceFormat::Folder } else { SourceFormat::Masks })
}

/// The format of an XML file, or else the one that is not read.
fn xml_format(path: &Path) -> Result<Result<SourceFormat, Option<ForeignFormat>>, ConvertError> {
    let text = std::fs::read_to_string(path).map_err(FileError::at(path))?;
    let document = roxmltree::Document::parse(&text)
        .map_err(|source| ConvertError::Xml { path: path.into(), source })?;
    Ok(match document.root_element().tag_name().name() {
        "annotations" => Ok(SourceFormat::CvatXml),
        other => Err(foreign::by_root_element(other)),
    })
}

/// The format of a JSON file, or else the one that is not read.
fn json_format(path: &Path) -> Result<Result<SourceFormat, Option<ForeignFormat>>, ConvertError> {
    let value = match read_json::<serde_json::Value>(path) {
        Ok(value) => value,
        // JSON by lines has this ending too.
        Err(error) => {
            return foreign::by_first_line(path).map(|found| Err(Some(found))).ok_or(error);
        }
    };
    let has = |key: &str| value.get(key).is_some();
    let is_task =
        |task: &serde_json::Value| task.get("annotations").or(task.get("predictions")).is_some();
    Ok(if has("shapes") {
        Ok(SourceFormat::LabelMe)
    } else if has("images") && has("annotations") {
        Ok(SourceFormat::Coco)
    } else if value.as_array().and_then(|tasks| tasks.first()).is_some_and(is_task) {
        Ok(SourceFormat::LabelStudio)
    } else if supervisely::is_supervisely(&value) {
        Ok(SourceFormat::Supervisely)
    } else {
        Err(foreign::by_content(&value))
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
