//! Images that two lists share, or that stand several times in one: by path, by file (hard and symbolic
//! links), or by their pixels, also in other formats and compressions; and images that look alike, as
//! copies do that were saved again with loss.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use image::RgbImage;
use protoseg_models::digest;

use crate::labeled::LabeledDataset;
use crate::thumbnail::{Thumbnail, ThumbnailIndex};

/// The images of a list with the digests of their pixels.
#[derive(Debug, Clone, Copy)]
pub struct ListedPixels<'a> {
    /// The images.
    pub set: &'a LabeledDataset,
    /// A [`pixel_digest`] for each; or none, and pixels are not compared.
    pub digests: &'a [String],
    /// A thumbnail for each; or none, and looks are not compared.
    pub thumbnails: &'a [Thumbnail],
}

/// Images of a list by their files and pixels.
struct KnownImages<'a> {
    files: HashMap<(u64, u64), &'a Path>,
    pixels: HashMap<&'a str, &'a Path>,
}

impl<'a> KnownImages<'a> {
    fn new(list: ListedPixels<'a>, paths: &[&'a Path]) -> Self {
        let mut known = Self { files: HashMap::new(), pixels: HashMap::new() };
        for (index, image) in paths.iter().enumerate() {
            if let Some(file) = file(image) {
                known.files.entry(file).or_insert(image);
            }
            if let Some(digest) = list.digests.get(index) {
                known.pixels.entry(digest).or_insert(image);
            }
        }
        known
    }

    /// The image that is the same file, or has the same pixels; true for the latter.
    fn find(&self, image: &Path, digest: Option<&String>) -> Option<(&'a Path, bool)> {
        let same_file = file(image).and_then(|file| self.files.get(&file));
        let same_pixels = || Some((*self.pixels.get(digest?.as_str())?, true));
        same_file.map(|same| (*same, false)).or_else(same_pixels)
    }
}

/// Images of one list that are in another one too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    /// Number of images of the second list.
    pub images: usize,
    /// How many of them are in the first list too.
    pub shared: usize,
    /// Name of the first such image in the first and in the second list.
    pub example: [String; 2],
    /// True if that image has only its pixels in common.
    pub by_pixels: bool,
}

impl std::fmt::Display for Overlap {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { images, shared, example: [first, second], by_pixels } = self;
        let same = match by_pixels {
            true => format!("{second}, which has the pixels of {first}"),
            false if first == second => second.clone(),
            false => format!("{second}, which is {first}"),
        };
        write!(formatter, "{shared} of {images}, such as {same}")
    }
}

/// Images of one list that look like images of another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alike {
    /// Number of images of the second list.
    pub images: usize,
    /// How many of them look like one of the first list.
    pub alike: usize,
    /// Name of the first such image, and of the one that it looks like.
    pub example: [String; 2],
}

impl std::fmt::Display for Alike {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { images, alike, example: [image, like] } = self;
        write!(formatter, "{alike} of {images}, such as {image}, which looks like {like}")
    }
}

/// Images of a list that have the pixels of an earlier one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copies {
    /// Number of images of the list.
    pub images: usize,
    /// Number of those that have the pixels of an earlier one.
    pub copies: usize,
    /// Names of the first such image and of the earlier one.
    pub example: [String; 2],
}

impl std::fmt::Display for Copies {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { images, copies, example: [copy, first] } = self;
        let have = if *copies == 1 { "has" } else { "have" };
        write!(
            formatter,
            "{copies} of {images} {have} the pixels of another one, such as {copy} those of {first}"
        )
    }
}

/// Returns a text that is the same for images of the same size and pixels: SHA-256, cut to 128 bits.
pub fn pixel_digest(image: &RgbImage) -> String {
    let digest = digest::sha256_bytes(image.as_raw());
    let (width, height) = image.dimensions();
    format!("{width}x{height}-{}", digest.get(..32).unwrap_or(&digest))
}

/// Returns the images of `other` that are in `first` too; `None` if there are none.
pub fn find(first: ListedPixels<'_>, other: ListedPixels<'_>) -> Option<Overlap> {
    let samples = paths(first.set)?;
    let others = paths(other.set)?;
    let known = KnownImages::new(first, &samples);
    let mut shared = 0;
    let mut example = None;
    for (index, image) in others.iter().enumerate() {
        let Some((same, by_pixels)) = known.find(image, other.digests.get(index)) else { continue };
        shared += 1;
        example.get_or_insert((same, *image, by_pixels));
    }
    let (same, image, by_pixels) = example?;
    let example = [same, image].map(|path| path.display().to_string());
    Some(Overlap { images: others.len(), shared, example, by_pixels })
}

/// Returns the images of `other` that look like one of `first`, without those that [`find`] finds;
/// `None` if there are none.
pub fn find_alike(first: ListedPixels<'_>, other: ListedPixels<'_>) -> Option<Alike> {
    let samples = paths(first.set)?;
    let others = paths(other.set)?;
    let known = KnownImages::new(first, &samples);
    let index = ThumbnailIndex::new(first.thumbnails.iter());
    let mut alike = 0;
    let mut example = None;
    for (at, image) in others.iter().enumerate() {
        let found = other.thumbnails.get(at).and_then(|thumbnail| index.find(thumbnail));
        let Some(found) = found.and_then(|found| samples.get(found)) else { continue };
        if known.find(image, other.digests.get(at)).is_none() {
            alike += 1;
            example.get_or_insert([*image, *found]);
        }
    }
    let example = example?.map(|path| path.display().to_string());
    Some(Alike { images: others.len(), alike, example })
}

/// Returns the images of a list that have the pixels of an earlier one; `None` if there are none.
pub fn copies(list: ListedPixels<'_>) -> Option<Copies> {
    let images = paths(list.set)?;
    let mut pixels: HashMap<&str, &Path> = HashMap::new();
    let mut copies = 0;
    let mut example = None;
    for (image, digest) in images.iter().zip(list.digests) {
        let first = *pixels.entry(digest).or_insert(image);
        if first != *image {
            copies += 1;
            example.get_or_insert([*image, first]);
        }
    }
    let example = example?.map(|path| path.display().to_string());
    Some(Copies { images: images.len(), copies, example })
}

/// Paths of the images; `None` for synthetic scenes.
fn paths(set: &LabeledDataset) -> Option<Vec<&Path>> {
    let LabeledDataset::Files { samples, .. } = set else { return None };
    Some(samples.iter().map(|sample| sample.image.as_path()).collect())
}

fn file(path: &Path) -> Option<(u64, u64)> {
    let metadata = path.metadata().ok()?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use image::codecs::png::{CompressionType, FilterType, PngEncoder};

    use super::*;
    use crate::dataset::Dataset;
    use crate::testing::tree;

    fn shade(value: u8) -> RgbImage {
        RgbImage::from_fn(20, 10, |x, y| image::Rgb([x as u8, y as u8, value]))
    }

    #[test]
    fn images_are_found_by_path_link_and_pixels() {
        let root =
            tree(&[("classes.txt", "0 a\n1 b"), ("images/x", ""), ("labels/x", "")]).unwrap();
        let at = |name: &str| root.path().join(name);
        for (name, value) in
            [("a.png", 1), ("b.png", 2), ("c.png", 3), ("copy.tif", 2), ("x.png", 9)]
        {
            shade(value).save(at("images").join(name)).unwrap();
        }
        let best = fs::File::create(at("images/best.png")).unwrap();
        let best = PngEncoder::new_with_quality(best, CompressionType::Best, FilterType::Paeth);
        shade(1).write_with_encoder(best).unwrap();
        fs::hard_link(at("images/c.png"), at("images/link.png")).unwrap();
        for name in ["a", "b", "c", "copy", "x", "link", "best"] {
            fs::write(at(&format!("labels/{name}.png")), "").unwrap();
        }
        let list = |name: &str, images: &[&str]| {
            let lines: String = images.iter().map(|image| format!("images/{image}\n")).collect();
            fs::write(at(name), lines).unwrap();
            let set = LabeledDataset::from_files(Dataset::Folder, root.path(), Some(&at(name)), "");
            let digests: Vec<String> = images
                .iter()
                .map(|image| crate::image_file::read(&at("images").join(image), 1000).unwrap())
                .map(|image| pixel_digest(&image))
                .collect();
            (set.unwrap(), digests)
        };
        let train = list("train.txt", &["a.png", "b.png", "c.png"]);
        let listed = |(set, digests): &'_ (LabeledDataset, Vec<String>)| -> Option<Overlap> {
            let train = ListedPixels { set: &train.0, digests: &train.1, thumbnails: &[] };
            find(train, ListedPixels { set, digests, thumbnails: &[] })
        };
        let overlap =
            listed(&list("val.txt", &["copy.tif", "x.png", "a.png", "link.png", "best.png"]));
        let overlap = overlap.unwrap();
        assert_eq!((overlap.images, overlap.shared), (5, 4));
        let text = overlap.to_string();
        assert!(
            text.starts_with("4 of 5, such as ") && text.contains("copy.tif, which has"),
            "{text}"
        );
        assert_eq!(listed(&list("other.txt", &["x.png"])), None);
        let link = listed(&list("link.txt", &["link.png"])).unwrap().to_string();
        assert!(link.contains("link.png, which is ") && link.ends_with("c.png"), "{link}");
        let both = list("both.txt", &["a.png", "best.png", "b.png"]);
        let copies =
            copies(ListedPixels { set: &both.0, digests: &both.1, thumbnails: &[] }).unwrap();
        assert_eq!((copies.copies, copies.images), (1, 3));
        assert_ne!(pixel_digest(&RgbImage::new(2, 3)), pixel_digest(&RgbImage::new(3, 2)));
    }
}
