//! Which mask is that of which image, by their names: one rule for training, scoring and conversion.
//!
//! A mask has the path of its image below the folder of masks, with another ending. Where there is
//! none, a name that one image and one mask have pairs them in other case, or where either lies in no
//! folder. What all masks add to the names of images, such as `_mask`, is no part of their names.

mod pattern;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use unicode_normalization::UnicodeNormalization;

pub(crate) use pattern::NamePattern;
#[cfg(feature = "annotations")]
pub(crate) use pattern::without_mask_words;

use crate::list::folded;

/// Images and masks by the part of their names that they share.
#[derive(Debug)]
pub(crate) struct Pairing {
    /// Paths below the folder of images, by their name in lower case.
    images: HashMap<String, Vec<PathBuf>>,
    /// Paths below the folder of masks.
    masks: HashMap<String, Vec<PathBuf>>,
    pattern: Option<NamePattern>,
}

/// The mask of an image, as a path below the folder of masks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PairedMask {
    /// In the place that the image's path gives.
    InPlace(PathBuf),
    /// In other upper and lower case.
    OtherCase(PathBuf),
    /// In another folder, as the only one of its name.
    Elsewhere(PathBuf),
    /// Two of one name.
    Several(PathBuf, PathBuf),
    /// None.
    Missing,
}

impl Pairing {
    /// Pairs paths below two folders. `classes` are names that no common part of masks may have.
    pub(crate) fn new(images: Vec<PathBuf>, masks: Vec<PathBuf>, classes: &[&str]) -> Self {
        let stems = |paths: &[PathBuf]| paths.iter().map(|path| stem(path)).collect::<Vec<_>>();
        let (image_stems, mask_stems) = (stems(&images), stems(&masks));
        let names: HashSet<&str> = image_stems.iter().map(String::as_str).collect();
        let mask_names: Vec<&str> = mask_stems.iter().map(String::as_str).collect();
        let pattern = NamePattern::find(&names, &mask_names, classes);
        Self::with_pattern(images, masks, pattern)
    }

    /// Pairs images and masks of a known pattern.
    pub(crate) fn with_pattern(
        images: Vec<PathBuf>,
        masks: Vec<PathBuf>,
        pattern: Option<NamePattern>,
    ) -> Self {
        let mut pairing = Self { images: HashMap::new(), masks: HashMap::new(), pattern };
        for (paths, of_images) in [(images, true), (masks, false)] {
            for path in paths {
                let Some(name) = pairing.shared_name(&path, of_images) else { continue };
                let index = if of_images { &mut pairing.images } else { &mut pairing.masks };
                index.entry(name.to_lowercase()).or_default().push(path);
            }
        }
        pairing
    }

    /// What masks add to the names of their images, for a remark.
    pub(crate) fn pattern(&self) -> Option<&NamePattern> {
        self.pattern.as_ref()
    }

    /// The part of a name that image and mask share.
    fn shared_name(&self, path: &Path, of_images: bool) -> Option<String> {
        let stem = stem(path);
        match &self.pattern {
            None => Some(stem),
            Some(pattern) if of_images => pattern.of_image(&stem).map(str::to_owned),
            Some(pattern) => pattern.of_mask(&stem).map(str::to_owned),
        }
    }

    /// Finds the mask of an image, which is a path below the folder of images.
    pub(crate) fn mask(&self, image: &Path) -> PairedMask {
        let Some(name) = self.shared_name(image, true) else { return PairedMask::Missing };
        let Some(masks) = self.masks.get(&name.to_lowercase()) else { return PairedMask::Missing };
        let parent = |path: &Path| path.parent().map(|parent| form_c(parent.as_os_str()));
        let is_in_place = |mask: &&PathBuf| {
            self.shared_name(mask, false).is_some_and(|own| own == name)
                && parent(mask) == parent(image)
        };
        let mut in_place = masks.iter().filter(is_in_place);
        match (in_place.next(), in_place.next()) {
            (Some(first), Some(second)) => {
                return PairedMask::Several(first.clone(), second.clone());
            }
            (Some(only), None) => return PairedMask::InPlace(only.clone()),
            (None, _) => {}
        }
        match self.only(&name.to_lowercase()) {
            Some((_, mask)) => match (folder(image), folder(mask)) {
                (of_image, of_mask) if of_image == of_mask => PairedMask::OtherCase(mask.into()),
                // Without folders on one side, names alone pair them.
                (of_image, of_mask) if of_image.is_empty() || of_mask.is_empty() => {
                    PairedMask::Elsewhere(mask.into())
                }
                _ => PairedMask::Missing,
            },
            None => PairedMask::Missing,
        }
    }

    /// Finds the image of a mask where one image and one mask have its name.
    pub(crate) fn image(&self, mask: &Path) -> Option<&Path> {
        let name = self.shared_name(mask, false)?;
        self.only(&name.to_lowercase()).map(|(image, _)| image)
    }

    /// The first image of a name, whatever its folder.
    pub(crate) fn image_named(&self, name: &str) -> Option<&Path> {
        self.images.get(name)?.first().map(PathBuf::as_path)
    }

    /// The one image and the one mask of a name.
    fn only(&self, name: &str) -> Option<(&Path, &Path)> {
        match (self.images.get(name)?.as_slice(), self.masks.get(name)?.as_slice()) {
            ([image], [mask]) => Some((image, mask)),
            _ => None,
        }
    }

    /// Says why masks that have the name of an image are not its; `masks` is their folder.
    pub(crate) fn hint(&self, image: &Path, masks: &Path) -> Option<String> {
        let name = self.shared_name(image, true)?.to_lowercase();
        let found = self.masks.get(&name)?;
        let images = self.images.get(&name).map(Vec::as_slice).unwrap_or_default();
        let first = masks.join(found.first()?);
        let reason = match (images, &found[..]) {
            ([one, other, ..], _) => format!(
                "but {} images have this name, such as {} and {}",
                images.len(),
                one.display(),
                other.display()
            ),
            (_, [_, _, ..]) => format!("but {} label maps have this name", found.len()),
            _ => "in a folder of another name".to_owned(),
        };
        Some(format!(
            "; {} is there, {reason}: put label maps into folders as their images are, or name both in a \
             list",
            first.display()
        ))
    }
}

/// The folder of a path in lower case.
fn folder(path: &Path) -> String {
    path.parent().and_then(|parent| folded(parent.as_os_str())).unwrap_or_default()
}

fn form_c(text: &std::ffi::OsStr) -> String {
    text.to_string_lossy().nfc().collect()
}

/// The name of a file without its ending, in Unicode form C.
pub(crate) fn stem(path: &Path) -> String {
    form_c(path.file_stem().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn names_pair_masks_in_place_in_other_case_and_elsewhere() {
        let images =
            paths(&["a.jpg", "B.JPG", "train/c.jpg", "train/d.jpg", "val/d.jpg", "x/e.jpg"]);
        let masks = paths(&["a.png", "b.png", "c.png", "d.png", "y/e.png", "val/D.png"]);
        let pairing = Pairing::new(images, masks, &[]);
        let mask = |image: &str| pairing.mask(Path::new(image));
        assert_eq!(mask("a.jpg"), PairedMask::InPlace("a.png".into()));
        assert_eq!(mask("B.JPG"), PairedMask::OtherCase("b.png".into()));
        assert_eq!(mask("train/c.jpg"), PairedMask::Elsewhere("c.png".into()));
        for image in ["train/d.jpg", "val/d.jpg", "x/e.jpg", "none.jpg"] {
            assert_eq!(mask(image), PairedMask::Missing, "{image}");
        }
        let hint = |image: &str| pairing.hint(Path::new(image), Path::new("labels")).unwrap();
        assert!(hint("train/d.jpg").contains("2 images have this name"));
        assert!(hint("x/e.jpg").contains("labels/y/e.png is there, in a folder"));
        let pairing = Pairing::new(paths(&["a.jpg"]), paths(&["a.png", "a.tif"]), &[]);
        let several = PairedMask::Several("a.png".into(), "a.tif".into());
        assert_eq!(pairing.mask(Path::new("a.jpg")), several);
    }

    #[test]
    fn a_common_part_is_no_name() {
        let images = paths(&["train/img_1.jpg", "train/img_2.jpg"]);
        let pairing = Pairing::new(images, paths(&["mask_1.png", "mask_2.png"]), &[]);
        let found = pairing.mask(Path::new("train/img_2.jpg"));
        assert_eq!(found, PairedMask::Elsewhere("mask_2.png".into()));
        assert_eq!(pairing.image(Path::new("mask_1.png")), Some(Path::new("train/img_1.jpg")));
        assert!(pairing.pattern().is_some());
    }
}
