//! The reasons why annotations cannot be converted.

use std::path::PathBuf;

use protoseg_models::classes::ClassError;
use protoseg_models::errors::FileError;

use super::foreign::ForeignFormat;
use crate::dataset::{DatasetError, size_hint};
use crate::formats::FormatError;
use crate::id_map::IdMapError;
use crate::image_file::ImageFileError;
use crate::label_census::LabelFaults;
use crate::label_map::LabelMapError;
use crate::label_mapping::MaskError;

/// The reason why annotations cannot be converted.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the names of the fields say it")]
pub enum ConvertError {
    /// An I/O error.
    #[error(transparent)]
    File(#[from] FileError),
    /// An I/O error of the output.
    #[error("writing failed: {0}")]
    Write(#[from] std::io::Error),
    /// A class file.
    #[error(transparent)]
    Classes(#[from] ClassError),
    /// A dataset of ours or of Pascal VOC.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// A mask.
    #[error(transparent)]
    Mask(#[from] MaskError),
    /// Masks with ids or colors that have no meaning, over all masks.
    #[error("{0}")]
    Masks(Box<LabelFaults>),
    /// New ids of masks.
    #[error(transparent)]
    IdMap(#[from] IdMapError),
    /// A mask that cannot be read.
    #[error(transparent)]
    LabelMap(#[from] LabelMapError),
    /// An image.
    #[error(transparent)]
    Image(#[from] ImageFileError),
    /// Names of images that a format does not tell apart.
    #[error("{0}; rename them")]
    Names(String),
    /// An annotation file that cannot be written.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Malformed JSON.
    #[error("{}: {source}", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    /// Malformed XML.
    #[error("{}: {source}", path.display())]
    Xml { path: PathBuf, source: roxmltree::Error },
    /// A broken archive.
    #[error("{}: {source}", path.display())]
    Zip { path: PathBuf, source: zip::result::ZipError },
    /// No format known here.
    #[error(
        "{} holds no annotations of a known format; --from names one (cvat, cvat-xml, coco, \
         label-studio, labelme, supervisely, voc, masks, roboflow, folder). Masks lie in `labels` beside \
         `images`, under the names of their images (`a.png` or `a_mask.png` for `a.jpg`); masks of one \
         class each are `masks/a_car.png` or `masks/car/a.png`; --images names another folder of images",
        .0.display()
    )]
    Unknown(PathBuf),
    /// A known format that is not read.
    #[error("{} is {}, which is not read: {}", path.display(), format.name, format.way)]
    Foreign { path: PathBuf, format: ForeignFormat },
    /// Annotations without an image to convert.
    #[error("{} has no image to convert{}", path.display(), joined(notes))]
    NoImage { path: PathBuf, notes: Vec<String> },
    /// Content that the format does not allow, or that has no area.
    #[error("{}: {reason}", path.display())]
    Content { path: PathBuf, reason: String },
    /// An image that annotations name.
    #[error(
        "the image `{name}` of {} is not found; name its folder with --images", annotations.display()
    )]
    MissingImage { name: String, annotations: PathBuf },
    /// Several images of one name.
    #[error(
        "the image `{name}` of {} may be {} or {}; write its path there, or name the right folder \
         with --images",
        annotations.display(), first.display(), second.display()
    )]
    AmbiguousImage { name: String, annotations: PathBuf, first: PathBuf, second: PathBuf },
    /// An image with annotations under two names.
    #[error("{}", same_image(image, first, second))]
    SameImage { image: PathBuf, first: String, second: String },
    /// Annotations of another size; sizes are `[height, width]`.
    #[error(
        "{} has {}x{} pixels, but its annotations are for {}x{}; {}",
        path.display(), image[1], image[0], annotations[1], annotations[0],
        annotated_size_hint(*image, *annotations)
    )]
    Size { path: PathBuf, image: [usize; 2], annotations: [usize; 2] },
    /// A threshold with all pixels on one side.
    #[error("{0}")]
    Threshold(Box<OneSided>),
    /// Classes of the annotations that the class file lacks.
    #[error(
        "the class file lacks the classes {}; add them, or leave each out with --ignore NAME",
        .0.join(", ")
    )]
    MissingClasses(Vec<String>),
    /// A tree of masks that nothing gives names.
    #[error(
        "{} has no list of the classes of its masks, and {reason}; name a file of lines `id name` with \
         --classes FILE, or give --classes voc if the masks have the 21 classes of Pascal VOC",
        path.display()
    )]
    NoNames { path: PathBuf, reason: String },
    /// A name that is no class.
    #[error("--{option} `{name}` is none of the classes {}", classes.join(", "))]
    NoSuchClass { option: &'static str, name: String, classes: Vec<String> },
    /// A single class.
    #[error(
        "the annotations have only the class {}; --background NAME makes what they do not cover \
         another one",
        .0.join(", ")
    )]
    TooFewClasses(Vec<String>),
    /// Several images whose annotations cannot be drawn.
    #[error("{first}; and so {more} more of {images} images")]
    Several { first: Box<Self>, more: usize, images: usize },
    /// Two images whose label maps would have one name.
    #[error("`{first}` and `{second}` would share a label map; rename one of them")]
    SameLabel { first: String, second: String },
    /// An error of files that were unpacked into a folder, which is named by its archive.
    #[error("{}", named_by_archive(&fault.to_string(), folder, archive))]
    InArchive { folder: PathBuf, archive: PathBuf, fault: Box<Self> },
}

impl ConvertError {
    /// Returns true where files cannot be read or written, and false where what they hold, or what was
    /// asked for, cannot be meant.
    pub fn is_of_files(&self) -> bool {
        match self {
            Self::File(_) | Self::Write(_) | Self::Format(_) => true,
            Self::InArchive { fault, .. } => fault.is_of_files(),
            _ => false,
        }
    }
}

/// Masks of which a threshold takes all pixels or none.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the fields say it")]
pub struct OneSided {
    /// Least brightness of the class, from 1 to 255.
    pub threshold: u8,
    pub class: String,
    pub masks: usize,
    pub pixels: u64,
    /// Brightness of the darkest and of the brightest pixel.
    pub range: [u8; 2],
    /// True if all pixels are below the threshold.
    pub are_dark: bool,
    pub example: PathBuf,
    /// Thresholds that part the pixels.
    pub others: Option<[u8; 2]>,
    /// Least and largest sample of a mask of ids that are not its brightness.
    pub ids: Option<[u32; 2]>,
}

impl std::fmt::Display for OneSided {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { threshold, class, masks, pixels, range: [low, high], example, .. } = self;
        let side = if self.are_dark { "darker" } else { "at least as bright" };
        let masks = if *masks == 1 { "the mask".to_owned() } else { format!("{masks} masks") };
        write!(
            formatter,
            "--threshold {threshold} leaves one side empty: all {pixels} pixels of {masks} of \
             `{class}` are {side}, from {low} to {high} ({})",
            example.display()
        )?;
        if let Some([least, most]) = self.ids {
            write!(
                formatter,
                ", as their samples, {least} to {most}, are no shades from black to white"
            )?;
        }
        match self.others {
            Some([first, last]) if first == last => {
                write!(formatter, "; --threshold {first} parts them")?;
            }
            Some([first, last]) => {
                write!(formatter, "; a threshold from {first} to {last} parts them")?;
            }
            None => {}
        }
        formatter.write_str(
            "; if the samples are ids, leave --threshold out: classes.txt says what they mean",
        )
    }
}

/// Replaces the folder of unpacked files by the archive.
pub(super) fn named_by_archive(
    text: &str,
    folder: &std::path::Path,
    archive: &std::path::Path,
) -> String {
    text.replace(&folder.display().to_string(), &archive.display().to_string())
}

fn joined(notes: &[String]) -> String {
    notes.iter().map(|note| format!("; {note}")).collect()
}

fn same_image(image: &std::path::Path, first: &str, second: &str) -> String {
    let image = image.display();
    if first == second {
        return format!(
            "the annotations list {image} twice, as `{first}`; if that is one image, give all its \
             annotations one of the two ids and take the other entry out, or else write the paths of both"
        );
    }
    format!(
        "{image} is the image of `{first}` and of `{second}`; write the paths of both images in the \
         annotations, or take one out"
    )
}

fn annotated_size_hint(image: [usize; 2], annotations: [usize; 2]) -> String {
    let [height, width] = annotations;
    let images = "--images names the folder of the images as they were annotated";
    if image == [width, height] {
        return format!(
            "the image was turned after it was annotated, or has lost its EXIF orientation: {images}"
        );
    }
    format!("{images}, or else {}", size_hint(image, annotations))
}
