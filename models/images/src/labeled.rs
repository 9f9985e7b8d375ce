//! Labeled images to train or to score on: those of a dataset on disk, or synthetic scenes.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::RgbImage;
use protoseg_models::classes::ClassTable;
use protoseg_models::reading::ImageReading;
use protoseg_synthetic::render_scene;

use crate::dataset::{Dataset, DatasetError, Sample, SampleList, VOC_WAY_OUT, voc};
use crate::image_file::{ImageFile, ImageFileError, MAX_PIXELS, NotedImage};
use crate::label_map::LabelMap;
use crate::label_mapping::{ClassOrigin, LabelMapping, MappedLabels, MaskError};
use crate::notes::{MaskTurn, NoteCollector};
use crate::palettes::DrawnIndex;
use crate::scan::Scanner;
use crate::turning::{LabelTurn, turn_to_image};

/// An image with its ground truth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabeledImage {
    /// The image.
    pub image: RgbImage,
    /// Train ids `[height, width]`, 255 for ignored pixels.
    pub truth: Vec<u8>,
    /// Pixels of each id in the label file, all 0 for colors; `None` without a file.
    pub ids: Option<Box<[u64; 256]>>,
    /// Indices of the label file with their colors, as in [`MappedLabels`].
    pub palette: Vec<DrawnIndex>,
}

impl LabeledImage {
    /// Returns height and width in pixels.
    pub fn size(&self) -> [usize; 2] {
        [self.image.height() as usize, self.image.width() as usize]
    }
}

/// The reason why a labeled image cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LabeledImageError {
    /// The image.
    #[error(transparent)]
    Image(#[from] ImageFileError),
    /// The label file, or its content.
    #[error(transparent)]
    Mask(#[from] MaskError),
    /// A label file that does not fit its image.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
}

impl LabeledImageError {
    /// Returns what was found, without the way out.
    pub fn fact(&self) -> String {
        match self {
            Self::Image(error) => error.to_string(),
            Self::Mask(error) => error.fact(),
            Self::Dataset(error) => error.fact(),
        }
    }

    /// Returns what can be done about a label file; `None` where the fact says it.
    pub fn way_out(&self) -> Option<String> {
        match self {
            Self::Image(_) => None,
            Self::Mask(error) => error.way_out(),
            Self::Dataset(error) => error.way_out(),
        }
    }

    /// Returns true where a file cannot be read, and false where its content has no meaning or does not
    /// fit.
    pub fn is_unreadable(&self) -> bool {
        match self {
            Self::Image(_) => true,
            Self::Mask(error) => matches!(error, MaskError::File(_)),
            Self::Dataset(_) => false,
        }
    }
}

/// The second step of [`LabeledDataset::open`].
pub type PendingDecode<'a> = Box<dyn FnOnce() -> Result<LabeledImage, LabeledImageError> + 'a>;

/// A sequence of labeled images, read one by one.
///
/// ```
/// use protoseg_images::labeled::LabeledDataset;
///
/// let set = LabeledDataset::Synthetic { seed: 1, first: 0, count: 8, size: [48, 96] };
/// let scene = set.read(3, u64::MAX)?;
/// assert_eq!((scene.size(), scene.truth.len()), ([48, 96], 48 * 96));
/// # Ok::<(), protoseg_images::labeled::LabeledImageError>(())
/// ```
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names of the fields say it")]
pub enum LabeledDataset {
    /// Files of a dataset; every pixel of a sample without label is ignored. `remarks` tell of samples
    /// that their list names again.
    Files {
        samples: Vec<Sample>,
        ids: LabelMapping,
        classes: ClassTable,
        reading: DatasetReading,
        remarks: Vec<String>,
    },
    /// Synthetic street scenes `first..first + count` of a seed, in the classes of Cityscapes;
    /// `size` is height and width.
    Synthetic { seed: u64, first: u64, count: usize, size: [usize; 2] },
}

/// How the image files of a data set are read, and the remarks on those that were.
#[derive(Debug, Clone, Default)]
pub struct DatasetReading {
    reading: ImageReading,
    notes: Arc<NoteCollector>,
}

impl DatasetReading {
    /// Returns how the files are read.
    pub fn choices(&self) -> ImageReading {
        self.reading
    }
}

impl LabeledDataset {
    /// Opens the images of a list file, or else of a split by name.
    pub fn from_files(
        dataset: Dataset,
        root: &Path,
        list: Option<&Path>,
        split: &str,
    ) -> Result<Self, DatasetError> {
        let Some(list) = list else {
            return Self::from_split(dataset, root, split, &mut Scanner::new(false));
        };
        let ids = dataset.label_mapping(root)?;
        Self::files(dataset.labeled(root, list)?, list, ids)
    }

    fn files(list: SampleList, name: &Path, ids: LabelMapping) -> Result<Self, DatasetError> {
        let (classes, reading) = (ids.class_file().table.clone(), DatasetReading::default());
        let mut remarks = list.remarks(name);
        remarks.extend(check_voc(&list.samples, ids.origin())?);
        Ok(Self::Files { samples: list.samples, ids, classes, reading, remarks })
    }

    /// Opens the images of a split by name; the scanner has the account of what was passed over in
    /// folders.
    pub fn from_split(
        dataset: Dataset,
        root: &Path,
        split: &str,
        scanner: &mut Scanner,
    ) -> Result<Self, DatasetError> {
        let ids = dataset.label_mapping(root)?;
        let list = dataset.scan_split(root, split, scanner)?;
        Self::files(list, Path::new(split), ids)
    }

    /// Opens the images of a list file without labels; those that the list `truth` names too have
    /// the label there.
    pub fn unlabeled(
        dataset: Dataset,
        root: &Path,
        list: &Path,
        truth: Option<&Path>,
    ) -> Result<Self, DatasetError> {
        let ids = dataset.label_mapping(root)?;
        let mut images = dataset.unlabeled(root, list)?;
        let known =
            truth.map(|truth| dataset.labeled(root, truth)).transpose()?.unwrap_or_default();
        let truth_remarks = truth.map(|truth| known.remarks(truth)).unwrap_or_default();
        // One list may name an image relative to the root, and the other by its full path.
        let same = |image: &Path| image.canonicalize().unwrap_or_else(|_| image.to_owned());
        let known: HashMap<PathBuf, Option<PathBuf>> =
            known.samples.into_iter().map(|sample| (same(&sample.image), sample.label)).collect();
        for sample in &mut images.samples {
            sample.label = known.get(&same(&sample.image)).cloned().flatten();
        }
        let mut set = Self::files(images, list, ids)?;
        if let Self::Files { remarks, .. } = &mut set {
            remarks.extend(truth_remarks);
        }
        Ok(set)
    }

    /// Returns remarks on samples that the list names again.
    pub fn remarks(&self) -> &[String] {
        match self {
            Self::Files { remarks, .. } => remarks,
            Self::Synthetic { .. } => &[],
        }
    }

    /// Leaves out the images of some indices.
    pub fn without(&self, left_out: &BTreeSet<usize>) -> Self {
        let mut kept = self.clone();
        if let Self::Files { samples, .. } = &mut kept {
            let mut index = 0..;
            samples.retain(|_| index.next().is_none_or(|index| !left_out.contains(&index)));
        }
        kept
    }

    /// Returns the same images, read by a model's choices. Remarks on them are added to those of
    /// this set.
    pub fn with_reading(&self, choices: ImageReading) -> Self {
        let mut set = self.clone();
        if let Self::Files { reading, .. } = &mut set {
            reading.reading = choices;
        }
        set
    }

    /// Returns the same images, whose remarks are added to those of another set.
    pub fn with_notes_of(&self, other: &Self) -> Self {
        let mut set = self.clone();
        if let (Self::Files { reading, .. }, Self::Files { reading: other, .. }) = (&mut set, other)
        {
            reading.notes = Arc::clone(&other.notes);
        }
        set
    }

    /// Returns one warning of each kind about the images that were read by now, of `images` in all.
    pub fn warnings(&self, images: usize) -> Vec<String> {
        match self {
            Self::Files { reading, .. } => reading.notes.warnings(images),
            Self::Synthetic { .. } => Vec::new(),
        }
    }

    /// Returns the images whose ground truth is known.
    pub fn labeled_only(&self) -> Self {
        let mut known = self.clone();
        if let Self::Files { samples, .. } = &mut known {
            samples.retain(|sample| sample.label.is_some());
        }
        known
    }

    /// Keeps only the first `count`.
    pub fn truncate(&mut self, count: usize) {
        match self {
            Self::Files { samples, .. } => samples.truncate(count),
            Self::Synthetic { count: scenes, .. } => *scenes = count.min(*scenes),
        }
    }

    /// Returns the number of images.
    pub fn count(&self) -> usize {
        match self {
            Self::Files { samples, .. } => samples.len(),
            Self::Synthetic { count, .. } => *count,
        }
    }

    /// Returns the classes of the labels.
    pub fn classes(&self) -> ClassTable {
        match self {
            Self::Files { classes, .. } => classes.clone(),
            Self::Synthetic { .. } => ClassTable::cityscapes(),
        }
    }

    /// Returns the meaning of the masks; `None` for synthetic scenes.
    pub fn mapping(&self) -> Option<&LabelMapping> {
        match self {
            Self::Files { ids, .. } => Some(ids),
            Self::Synthetic { .. } => None,
        }
    }

    /// Reads the ground truth alone; `None` where it is unknown.
    pub fn read_labels(
        &self,
        index: usize,
        max_pixels: u64,
    ) -> Result<Option<MappedLabels>, LabeledImageError> {
        match self {
            Self::Files { samples, ids, .. } => {
                let Some(path) = &samples[index].label else { return Ok(None) };
                Ok(Some(ids.read(path, max_pixels)?.1))
            }
            Self::Synthetic { .. } => {
                let labels = self.read(index, max_pixels)?.truth;
                let ids = Box::new([0; 256]);
                Ok(Some(MappedLabels { labels, ids, palette: Vec::new() }))
            }
        }
    }

    /// Returns the name of an image.
    pub fn name(&self, index: usize) -> String {
        match self {
            Self::Files { samples, .. } => samples[index].image.display().to_string(),
            Self::Synthetic { seed, first, .. } => {
                format!("scene {} of seed {seed}", first + index as u64)
            }
        }
    }

    /// Returns the paths of the images; none for synthetic scenes.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let samples = match self {
            Self::Files { samples, .. } => samples.as_slice(),
            Self::Synthetic { .. } => &[],
        };
        samples.iter().map(|sample| sample.image.as_path())
    }

    /// Reads an image and its ground truth, and checks that they fit.
    pub fn read(&self, index: usize, max_pixels: u64) -> Result<LabeledImage, LabeledImageError> {
        let (_, decode) = self.open(index, max_pixels)?;
        decode()
    }

    /// Reads in two steps, for callers with a memory budget: returns the number of pixels, and a
    /// closure that decodes or renders the image.
    pub fn open(
        &self,
        index: usize,
        max_pixels: u64,
    ) -> Result<(u64, PendingDecode<'_>), LabeledImageError> {
        match self {
            Self::Files { samples, ids, reading, .. } => {
                let sample = &samples[index];
                let file = ImageFile::read(&sample.image, max_pixels)?;
                let pixels = file.pixels();
                Ok((pixels, Box::new(move || decode(file, sample, ids, reading, max_pixels))))
            }
            Self::Synthetic { seed, first, size: [height, width], .. } => {
                let render = move || {
                    let scene = render_scene(*seed, first + index as u64, *height, *width);
                    let image = RgbImage::from_raw(*width as u32, *height as u32, scene.image);
                    let image = image.unwrap_or_default();
                    Ok(LabeledImage { image, truth: scene.labels, ids: None, palette: Vec::new() })
                };
                Ok(((height * width) as u64, Box::new(render)))
            }
        }
    }
}

/// Refuses the masks of a tree like Pascal VOC's whose colors are not those of its classes, where no
/// list of classes lies beside them; warns where their names tell that they are others.
fn check_voc(samples: &[Sample], origin: &ClassOrigin) -> Result<Option<String>, DatasetError> {
    if *origin != ClassOrigin::BuiltIn("Pascal VOC") {
        return Ok(None);
    }
    let masks: Vec<&Path> = samples.iter().filter_map(|sample| sample.label.as_deref()).collect();
    if let Some(reason) = voc::other_palette(&masks, MAX_PIXELS) {
        return Err(DatasetError::NotVoc(reason));
    }
    Ok(voc::other_names(&masks).map(|reason| {
        format!(
            "{reason}, and no list of classes lies beside them: they are read in the 21 classes of Pascal \
             VOC; if these are others, {VOC_WAY_OUT}"
        )
    }))
}

fn decode(
    file: ImageFile,
    sample: &Sample,
    ids: &LabelMapping,
    DatasetReading { reading, notes }: &DatasetReading,
    max_pixels: u64,
) -> Result<LabeledImage, LabeledImageError> {
    let orientation = file.orientation();
    let NotedImage { image, notes: seen, .. } = file.decode_as(*reading)?;
    let name = sample.image.display().to_string();
    notes.add(&name, &seen);
    let Some(path) = &sample.label else {
        let truth = vec![255; image.len() / 3];
        return Ok(LabeledImage { truth, image, ids: None, palette: Vec::new() });
    };
    let (size, mapped, own) = ids.read_oriented(path, max_pixels)?;
    let ([height, width], MappedLabels { labels, ids, palette }) = (size, mapped);
    let map = LabelMap { height, width, labels };
    let image_size = [image.height() as usize, image.width() as usize];
    let (map, turn) = turn_to_image(map, own, orientation, image_size);
    match turn {
        LabelTurn::Seen => {}
        LabelTurn::WithImage => notes.add_turned(&name, true),
        LabelTurn::Unclear => notes.add_turned(&name, false),
        LabelTurn::Own => notes.add_oriented_mask(&path.display().to_string(), MaskTurn::Confirmed),
        LabelTurn::OwnUnclear => {
            notes.add_oriented_mask(&path.display().to_string(), MaskTurn::Unconfirmed);
        }
        LabelTurn::OwnIgnored => {
            notes.add_oriented_mask(&path.display().to_string(), MaskTurn::Ignored);
        }
    }
    let label_size = [map.height, map.width];
    if image_size != label_size {
        let (image, label) = (sample.image.clone(), path.clone());
        return Err(DatasetError::Size { image, image_size, label, label_size }.into());
    }
    Ok(LabeledImage { image, truth: map.labels, ids: Some(ids), palette })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(image: (u32, u32), labels: &LabelMap) -> (tempfile::TempDir, LabeledDataset) {
        let root = tempfile::tempdir().unwrap();
        let place = |name: &str| -> PathBuf { root.path().join(name) };
        for name in ["images", "labels"] {
            std::fs::create_dir(place(name)).unwrap();
        }
        std::fs::write(place("classes.txt"), "3 land\n8 sea").unwrap();
        RgbImage::new(image.0, image.1).save(place("images/a.png")).unwrap();
        std::fs::write(place("labels/a.png"), labels.ids_png().unwrap()).unwrap();
        let set = LabeledDataset::from_files(Dataset::Folder, root.path(), None, "all").unwrap();
        (root, set)
    }

    #[test]
    fn labels_come_as_train_ids_and_mismatches_are_reported() {
        let map = |labels: &[u8]| LabelMap { height: 2, width: 2, labels: labels.to_vec() };
        let (_root, set) = folder((2, 2), &map(&[3, 8, 255, 3]));
        assert_eq!(set.read(0, 100).unwrap().truth, [0, 1, 255, 0]);
        let (_root, set) = folder((2, 2), &map(&[3, 8, 8, 4]));
        let message = set.read(0, 100).unwrap_err().to_string();
        assert!(
            message.contains("labels/a.png: the id 4 (1 pixel, first at row 1, column 1)"),
            "{message}"
        );
        let (_root, set) = folder((3, 2), &map(&[3; 4]));
        let message = set.read(0, 100).unwrap_err().to_string();
        assert!(
            message.contains("a.png has 3x2 pixels, but its label")
                && message.contains("has 2x2; "),
            "{message}"
        );
    }

    #[test]
    fn a_tree_without_names_has_those_of_pascal_voc_only_where_its_masks_may_be_these() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            path
        };
        let write = |stem: &str, color: [u8; 3]| {
            RgbImage::new(2, 1).save(at(&format!("JPEGImages/{stem}.jpg"))).unwrap();
            let file = std::fs::File::create(at(&format!("SegmentationClass/{stem}.png"))).unwrap();
            let mut encoder = png::Encoder::new(file, 2, 1);
            encoder.set_color(png::ColorType::Indexed);
            encoder.set_palette([[0; 3], color].as_flattened().to_vec());
            encoder.write_header().unwrap().write_image_data(&[0, 1]).unwrap();
            std::fs::write(at("ImageSets/Segmentation/val.txt"), stem).unwrap();
            LabeledDataset::from_files(Dataset::Voc, root.path(), None, "val")
        };
        let official = write("2007_000032", [128, 0, 0]).unwrap();
        assert!(official.remarks().is_empty());
        let named = write("street", [128, 0, 0]).unwrap();
        let remark = &named.remarks()[0];
        assert!(
            remark.contains("such as street.png") && remark.contains("the 21 classes"),
            "{remark}"
        );
        let message = write("2007_000032", [1, 2, 3]).unwrap_err().to_string();
        for part in
            ["2007_000032.png is not that of Pascal VOC", "no list of classes", "--classes FILE"]
        {
            assert!(message.contains(part), "{message}");
        }
        std::fs::write(at("class_names.txt"), "ground\ncar\n").unwrap();
        assert!(write("street", [1, 2, 3]).unwrap().remarks().is_empty());
    }

    #[test]
    fn masks_of_the_stored_pixels_are_turned_with_their_images() {
        use image::ImageEncoder;
        use image::codecs::jpeg::JpegEncoder;
        let set_of = |(width, height): (u32, u32), map: LabelMap| {
            let (root, _) = folder((1, 1), &map);
            let at = |name: &str| root.path().join(name);
            std::fs::remove_file(at("images/a.png")).unwrap();
            // TIFF header and one entry: orientation 6, turn clockwise by 90 degrees.
            let exif = b"MM\0\x2A\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
            let file = std::fs::File::create(at("images/a.jpg")).unwrap();
            let mut encoder = JpegEncoder::new_with_quality(file, 90);
            encoder.set_exif_metadata(exif.to_vec()).unwrap();
            encoder.encode_image(&RgbImage::new(width, height)).unwrap();
            let set = LabeledDataset::from_files(Dataset::Folder, root.path(), None, "all");
            (root, set.unwrap())
        };
        let map =
            |width, height, labels: &[u8]| LabelMap { height, width, labels: labels.to_vec() };
        // Stored 3x1, seen 1x3: the left end of the mask comes to the top.
        for (mask, warning) in
            [(map(3, 1, &[3, 8, 8]), Some("were turned with them")), (map(1, 3, &[3, 8, 8]), None)]
        {
            let (_root, set) = set_of((3, 1), mask);
            let labeled = set.read(0, 100).unwrap();
            assert_eq!((labeled.size(), &labeled.truth[..]), ([3, 1], &[0, 1, 1][..]));
            let warnings = set.warnings(1);
            assert_eq!(warnings.len(), usize::from(warning.is_some()), "{warnings:?}");
            assert!(warnings.iter().all(|text| text.contains(warning.unwrap())), "{warnings:?}");
        }
        let (_root, set) = set_of((2, 2), map(2, 2, &[3, 8, 8, 8]));
        assert_eq!(set.read(0, 100).unwrap().truth, [0, 1, 1, 1]);
        assert!(set.warnings(1)[0].contains("does not tell"), "{:?}", set.warnings(1));
    }

    #[test]
    fn unlabeled_images_may_have_a_known_truth() {
        let (root, _) = folder((2, 2), &LabelMap { height: 2, width: 2, labels: vec![3; 4] });
        RgbImage::new(3, 1).save(root.path().join("images/b.png")).unwrap();
        let list = |name: &str, lines: &str| -> PathBuf {
            std::fs::write(root.path().join(name), lines).unwrap();
            root.path().join(name)
        };
        let images = list("images.txt", "images/a.png\nimages/b.png");
        let truth = list("truth.txt", "images/a.png");
        let set =
            LabeledDataset::unlabeled(Dataset::Folder, root.path(), &images, Some(&truth)).unwrap();
        assert_eq!((set.count(), set.labeled_only().count()), (2, 1));
        assert_eq!(
            [set.read(0, 100).unwrap().truth, set.read(1, 100).unwrap().truth],
            [vec![0; 4], vec![255; 3]]
        );
        let set = LabeledDataset::unlabeled(Dataset::Folder, root.path(), &images, None).unwrap();
        assert_eq!(set.labeled_only().count(), 0);
    }

    #[test]
    fn synthetic_scenes_are_datasets_too() {
        let mut set = LabeledDataset::Synthetic { seed: 1, first: 3, count: 5, size: [48, 64] };
        set.truncate(2);
        let scene = set.read(1, 100).unwrap();
        assert_eq!(
            (set.count(), scene.image.dimensions(), scene.truth.len()),
            (2, (64, 48), 48 * 64)
        );
    }
}
