//! Annotation formats of other programs.
//!
//! One file per image: [`label_ids`] for the official evaluation of Cityscapes, [`pseudo_labels`]
//! for training; ids, colors and overlays are methods of [`LabelMap`]. One file for all images, an
//! [`AnnotationFormat`]: [`coco`], [`cvat`] and [`label_studio`]. These are written image by image
//! from [`StoredLabels`], so that memory does not grow with the dataset, and the same images give
//! the same bytes, however many runs and machines labeled them.

pub mod coco;
pub mod cvat;
pub mod label_ids;
pub mod label_studio;
mod pieces;
pub mod pseudo_labels;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use protoseg_models::atomic;
use protoseg_models::classes::{ClassTable, IGNORE_INDEX};
use protoseg_models::errors::FileError;
use serde::Serialize;
use zip::result::ZipError;

use crate::label_map::{self, LabelMap, LabelMapError};

/// The reason why labels cannot be written in a format.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the names of the fields say it")]
pub enum FormatError {
    /// An I/O error of the output.
    #[error("writing failed: {0}")]
    Write(#[from] std::io::Error),
    /// An I/O error of a file with a path.
    #[error(transparent)]
    File(#[from] FileError),
    /// A label file that cannot be read or encoded.
    #[error(transparent)]
    LabelMap(#[from] LabelMapError),
    /// A class name that the format cannot hold.
    #[error("the class `{class}` {reason}; rename it, or leave the format out")]
    Class { class: String, reason: &'static str },
    /// A number of labels or confidences other than the number of pixels.
    #[error("{}: {found} bytes for {width}x{height} pixels", name.display())]
    Size { name: PathBuf, width: usize, height: usize, found: usize },
    /// More pixels than the format can count.
    #[error(
        "{} has {pixels} pixels, and the format counts no more than {limit}; leave it out",
        name.display()
    )]
    TooLarge { name: PathBuf, pixels: usize, limit: usize },
    /// A label without class; row and column are counted from 0.
    #[error(
        "{}: the label {label} at row {row}, column {column} is not one of the {classes} classes",
        name.display()
    )]
    Label { name: PathBuf, label: u8, row: usize, column: usize, classes: usize },
    /// An error of the ZIP writer.
    #[error("writing the archive failed: {0}")]
    Zip(#[source] ZipError),
}

impl From<ZipError> for FormatError {
    fn from(error: ZipError) -> Self {
        match error {
            ZipError::Io(source) => Self::Write(source),
            other => Self::Zip(other),
        }
    }
}

/// The name of an image and the labels of its pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageLabels {
    /// Path of the image below its folder, such as `a/street.jpg`.
    pub name: PathBuf,
    /// Train ids; 255 for pixels without a class.
    pub map: LabelMap,
    /// Largest softmax of each pixel in steps of 1/255, `[height, width]`.
    pub confidence: Option<Vec<u8>>,
}

impl ImageLabels {
    /// Fails if a label is not a class, or the sizes disagree.
    fn check(&self, classes: &ClassTable) -> Result<(), FormatError> {
        let LabelMap { height, width, ref labels } = self.map;
        let confidence = self.confidence.as_ref().map(Vec::len);
        for found in [Some(labels.len()), confidence].into_iter().flatten() {
            if found != height * width {
                return Err(FormatError::Size { name: self.name.clone(), width, height, found });
            }
        }
        let known = |label: u8| label == IGNORE_INDEX || usize::from(label) < classes.count();
        match labels.iter().position(|&label| !known(label)) {
            None => Ok(()),
            Some(pixel) => Err(FormatError::Label {
                name: self.name.clone(),
                label: labels[pixel],
                row: pixel / width,
                column: pixel % width,
                classes: classes.count(),
            }),
        }
    }

    /// Mean confidence per label and of all pixels with a class, in [0, 1], to four digits.
    fn mean_confidence(&self) -> Option<MeanConfidence> {
        let confidence = self.confidence.as_ref()?;
        let mut sums = [(0_u64, 0_u64); 256];
        for (&label, &confidence) in self.map.labels.iter().zip(confidence) {
            let (sum, count) = &mut sums[usize::from(label)];
            *sum += u64::from(confidence);
            *count += 1;
        }
        let mean = |(sum, count): (u64, u64)| {
            let mean = sum as f64 / (255 * count.max(1)) as f64;
            (mean * 1e4).round() / 1e4
        };
        let classes = &sums[..usize::from(IGNORE_INDEX)];
        let all = classes.iter().fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
        Some(MeanConfidence { labels: sums.map(mean), all: mean(all) })
    }
}

struct MeanConfidence {
    labels: [f64; 256],
    all: f64,
}

/// Label maps of images in order of their paths, read lazily from the files of a labeling run.
///
/// ```
/// use protoseg_images::formats::{AnnotationFormat, StoredLabels};
/// use protoseg_images::label_map::LabelMap;
/// use protoseg_models::classes::ClassTable;
///
/// let out = tempfile::tempdir()?;
/// let ids = out.path().join("ids");
/// std::fs::create_dir(&ids)?;
/// let map = LabelMap { height: 1, width: 2, labels: vec![3, 4] };
/// std::fs::write(ids.join("street.png"), map.ids_png()?)?;
///
/// let images = StoredLabels::new(vec!["street.jpg".into()], ids, None, u64::MAX);
/// let path = out.path().join("coco.json");
/// AnnotationFormat::Coco.write(&path, images, &ClassTable::cityscapes(), &Default::default())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct StoredLabels {
    names: std::vec::IntoIter<PathBuf>,
    ids: PathBuf,
    confidence: Option<PathBuf>,
    max_pixels: u64,
    result_name: fn(&Path) -> PathBuf,
}

impl StoredLabels {
    /// Names images whose train ids, and confidence if known, are in two folders, under the same
    /// names with the extension `.png`; files of at most `max_pixels` pixels.
    pub fn new(
        mut names: Vec<PathBuf>,
        ids: PathBuf,
        confidence: Option<PathBuf>,
        max_pixels: u64,
    ) -> Self {
        names.sort();
        Self { names: names.into_iter(), ids, confidence, max_pixels, result_name: Path::to_owned }
    }

    /// The same for files under other names: `result_name` gives the one that takes the place of an
    /// image's.
    pub fn with_result_names(self, result_name: fn(&Path) -> PathBuf) -> Self {
        Self { result_name, ..self }
    }

    fn read(&self, name: PathBuf) -> Result<ImageLabels, FormatError> {
        let file = png_name(&(self.result_name)(&name));
        let read = |folder: &Path| label_map::read(&folder.join(&file), self.max_pixels);
        let map = read(&self.ids)?;
        let confidence = self.confidence.as_deref().map(read).transpose()?;
        let LabelMap { height, width, .. } = map;
        if let Some(other) = &confidence
            && [other.height, other.width] != [height, width]
        {
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

/// A format with all images in one file.
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
    /// Returns the usual name of the file.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Coco => "coco.json",
            Self::Cvat => "cvat.zip",
            Self::LabelStudio => "labelstudio.json",
        }
    }

    /// Fails if the format cannot hold the name of a class; to be called before anything is labeled.
    pub fn check(
        self,
        classes: &ClassTable,
        options: &AnnotationOptions,
    ) -> Result<(), FormatError> {
        match self {
            Self::Cvat => cvat::label_map(classes, options).map(drop),
            Self::Coco | Self::LabelStudio => Ok(()),
        }
    }

    /// Returns the names that the format tells apart, and a line for each kind of name that it
    /// writes otherwise or leaves out.
    pub fn select_names(self, names: Vec<PathBuf>) -> (Vec<PathBuf>, Vec<String>) {
        let file = self.file_name();
        let mut lines = Vec::new();
        let names = if self == Self::Cvat {
            let mut items: Vec<String> = names.iter().map(|name| cvat::item(name)).collect();
            items.sort();
            let shared: BTreeSet<&String> =
                items.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| &pair[0]).collect();
            let (left_out, kept): (Vec<_>, Vec<_>) =
                names.into_iter().partition(|name| shared.contains(&cvat::item(name)));
            if !left_out.is_empty() {
                lines.push(format!(
                    "{file} leaves out {} images, as CVAT knows images without their endings: {}",
                    left_out.len(),
                    listed(left_out.iter().map(|name| escape_name(name)))
                ));
            }
            kept
        } else {
            names
        };
        let written = |name: &PathBuf| match self {
            Self::Coco => matches!(text_name(name), Cow::Owned(_)),
            Self::Cvat => matches!(cvat::item_name(&name.with_extension("")), Cow::Owned(_)),
            Self::LabelStudio => false,
        };
        let escaped: Vec<&PathBuf> = names.iter().filter(|name| written(name)).collect();
        if !escaped.is_empty() {
            lines.push(format!(
                "{file} names {} with percent signs, as the format cannot hold the names as they \
                 are: {}",
                if escaped.len() == 1 {
                    "1 image".into()
                } else {
                    format!("{} images", escaped.len())
                },
                listed(escaped.into_iter().map(|name| match self {
                    Self::Cvat => cvat::item(name),
                    _ => text_name(name).into_owned(),
                }))
            ));
        }
        (names, lines)
    }

    /// Writes the file, which appears whole or not at all.
    pub fn write(
        self,
        path: &Path,
        images: impl IntoIterator<Item = Result<ImageLabels, FormatError>>,
        classes: &ClassTable,
        options: &AnnotationOptions,
    ) -> Result<(), FormatError> {
        let written = atomic::write_with(path, |file| {
            let mut out = BufWriter::new(file);
            match self {
                Self::Coco => coco::write(&mut out, images, classes, options),
                Self::Cvat => cvat::write(&mut out, images, classes, options),
                Self::LabelStudio => {
                    let images = options.without_skipped(images);
                    label_studio::write(&mut out, images, classes, &Default::default())
                }
            }?;
            Ok(out.flush()?)
        });
        written.map_err(|error| match error {
            FormatError::Write(source) => FileError::at(path)(source).into(),
            other => other,
        })
    }
}

/// Choices of the annotation formats.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnnotationOptions {
    /// Train ids of classes without annotations, in every format.
    pub skipped: BTreeSet<u8>,
    /// COCO: an annotation for each connected piece of a class, instead of one for the class.
    pub coco_pieces: bool,
    /// CVAT: the class `background` is annotated too, in the tasks that have such a label.
    pub cvat_background: bool,
}

impl AnnotationOptions {
    /// Gives the pixels of skipped classes no class.
    fn without_skipped(
        &self,
        images: impl IntoIterator<Item = Result<ImageLabels, FormatError>>,
    ) -> impl Iterator<Item = Result<ImageLabels, FormatError>> {
        let kept: [u8; 256] = std::array::from_fn(|label| {
            let label = label as u8;
            if self.skipped.contains(&label) { IGNORE_INDEX } else { label }
        });
        let nothing = self.skipped.is_empty();
        images.into_iter().map(move |image| {
            let mut image = image?;
            if !nothing {
                image.map.labels.iter_mut().for_each(|label| *label = kept[usize::from(*label)]);
            }
            Ok(image)
        })
    }
}

/// Some of many names, separated by commas.
fn listed(names: impl Iterator<Item = String>) -> String {
    /// Names in a line.
    const SHOWN: usize = 20;

    let names: Vec<String> = names.collect();
    let more = names.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", names[..names.len().min(SHOWN)].join(", "))
}

/// Writes the separator before entry number `index` of a JSON list.
fn separate(out: &mut impl Write, index: usize) -> std::io::Result<()> {
    out.write_all(if index == 0 { b"\n" } else { b",\n" })
}

/// Writes a value as one line of JSON.
fn write_json(out: &mut impl Write, value: &impl Serialize) -> std::io::Result<()> {
    serde_json::to_writer(out, value).map_err(std::io::Error::from)
}

/// Returns the name of an image with the extension `.png` instead of its own. The name `..png`
/// stays as it is: its stem is a dot, for which [`Path::with_extension`] would leave the folder.
pub fn png_name(name: &Path) -> PathBuf {
    let mut file = name.file_stem().unwrap_or_default().to_owned();
    file.push(".png");
    name.with_file_name(file)
}

/// Returns the name of an image as unambiguous text: bytes that are not UTF-8, control characters
/// and `%` become `%` and two digits.
pub fn escape_name(name: &Path) -> String {
    percent_encode(name, |character| !character.is_control())
}

/// The name of an image as text with slashes. One that is not UTF-8, or that holds control
/// characters, is written as [`escape_name`] does.
fn text_name(name: &Path) -> Cow<'_, str> {
    match name.to_str() {
        Some(text) if !text.contains(char::is_control) => Cow::Borrowed(text),
        _ => Cow::Owned(escape_name(name)),
    }
}

/// Writes every byte except the characters that `keep` accepts as `%` and two hexadecimal digits,
/// so that different names stay different.
fn percent_encode(name: &Path, keep: fn(char) -> bool) -> String {
    let mut encoded = String::new();
    for chunk in name.as_os_str().as_encoded_bytes().utf8_chunks() {
        for character in chunk.valid().chars() {
            if keep(character) && character != '%' {
                encoded.push(character);
            } else {
                push_bytes(&mut encoded, character.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        push_bytes(&mut encoded, chunk.invalid());
    }
    encoded
}

fn push_bytes(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "%{byte:02X}");
    }
}

/// Consecutive pixels of one label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    label: u8,
    /// Index of the first pixel.
    start: usize,
    length: usize,
}

impl Run {
    /// Index behind the last pixel.
    fn end(self) -> usize {
        self.start + self.length
    }
}

/// Run-length encodes labels in the given order.
fn runs(labels: &[u8]) -> impl Iterator<Item = Run> {
    let mut start = 0;
    labels.chunk_by(u8::eq).map(move |equal| {
        let run = Run { label: equal[0], start, length: equal.len() };
        start += run.length;
        run
    })
}

/// Transposes a map: the labels column by column.
fn columns(map: &LabelMap) -> Vec<u8> {
    /// Columns per tile, so that the bytes of a tile stay in the L1 cache.
    const TILE: usize = 64;

    let LabelMap { height, width, ref labels } = *map;
    let mut transposed = vec![0; labels.len()];
    for left in (0..width).step_by(TILE) {
        let right = (left + TILE).min(width);
        for (row, labels) in labels.chunks_exact(width).enumerate() {
            for column in left..right {
                transposed[column * height + row] = labels[column];
            }
        }
    }
    transposed
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn every_name_gets_the_extension_png() {
        for (name, png) in [
            ("a/b.c.jpg", "a/b.c.png"),
            ("a/b", "a/b.png"),
            ("a/..jpg", "a/..png"),
            (".x", ".x.png"),
        ] {
            assert_eq!(png_name(Path::new(name)), Path::new(png));
        }
    }

    #[test]
    fn other_characters_become_percent_escapes() {
        let name = Path::new(OsStr::from_bytes(b"a/\xc3\xa9 100%.\xff.png"));
        assert_eq!(
            percent_encode(name, |character| !character.is_whitespace()),
            "a/é%20100%25.%FF.png"
        );
        assert_eq!(
            percent_encode(name, |character| character.is_ascii_graphic()),
            "a/%C3%A9%20100%25.%FF.png"
        );
        assert_eq!(text_name(name), "a/é 100%25.%FF.png");
        assert_eq!(text_name(Path::new("a\nb")), "a%0Ab");
        assert_eq!(text_name(Path::new("a/é b 100%.png")), "a/é b 100%.png");
    }

    #[test]
    fn runs_are_consecutive_and_columns_are_the_transposed_map() {
        let found: Vec<_> =
            runs(&[7, 7, 1, 7]).map(|run| (run.label, run.start, run.length)).collect();
        assert_eq!(found, [(7, 0, 2), (1, 2, 1), (7, 3, 1)]);
        assert_eq!(runs(&[]).count(), 0);
        for (height, width) in [(3, 5), (2, 64), (70, 131), (1, 1), (0, 4), (4, 0)] {
            let labels = (0..height * width).map(|index| (index * 31 % 251) as u8).collect();
            let map = LabelMap { height, width, labels };
            let expected: Vec<u8> = (0..width)
                .flat_map(|column| (0..height).map(move |row| row * width + column))
                .map(|index| map.labels[index])
                .collect();
            assert_eq!(columns(&map), expected);
        }
    }
}
