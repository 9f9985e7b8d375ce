//! Images that lie among the others and have no annotations.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::image_index::{FoundImage, ImageIndex};
use super::{Annotations, Truth};

/// Images that a note names.
const NAMED: usize = 3;

impl Annotations {
    /// Collects the images that the annotations do not name, unless they are known by now.
    pub(super) fn find_unlabeled(&mut self, index: &ImageIndex) {
        if self.knows_unlabeled {
            return;
        }
        let mut named: HashSet<&Path> = HashSet::new();
        let mut masks: HashSet<&Path> = HashSet::new();
        for item in &self.items {
            match &item.image {
                FoundImage::At(path) | FoundImage::Shared { path, .. } => drop(named.insert(path)),
                FoundImage::Ambiguous(first, second) => {
                    named.extend([first.as_path(), second.as_path()]);
                }
                FoundImage::Missing => {}
            }
            match &item.truth {
                Truth::Mask { path, .. }
                | Truth::Renumbered { path, .. }
                | Truth::Threshold { path, .. }
                | Truth::Panoptic { path, .. } => drop(masks.insert(path)),
                Truth::Layers { layers, .. } => {
                    masks.extend(layers.iter().map(|(_, path)| path.as_path()));
                }
                Truth::Shapes { .. } | Truth::Broken(_) => {}
            }
        }
        // Folders of nothing but masks.
        let folder = |path: &&Path| path.parent().unwrap_or(Path::new("")).to_owned();
        let of_images: HashSet<PathBuf> = named.iter().map(folder).collect();
        let of_masks: HashSet<PathBuf> =
            masks.iter().map(folder).filter(|folder| !of_images.contains(folder)).collect();
        let is_left = |path: &&Path| {
            !named.contains(path) && !masks.contains(path) && !of_masks.contains(&folder(path))
        };
        let left: Vec<&Path> = index.all().into_iter().filter(is_left).collect();
        self.unlabeled = left.iter().map(|path| (index.name(path), path.to_path_buf())).collect();
    }

    /// Says what becomes of images without annotations.
    pub(super) fn unlabeled_note(&self, are_kept: bool) -> Option<String> {
        let names: Vec<&str> =
            self.unlabeled.iter().take(NAMED).map(|(name, _)| name.as_str()).collect();
        let (count, names) = (self.unlabeled.len(), names.join(", "));
        let have = if count == 1 { "image has" } else { "images have" };
        match (count, are_kept) {
            (0, false) => None,
            (0, true) => Some("--unlabeled finds no image without annotations".to_owned()),
            (_, false) => Some(format!(
                "{count} {have} no annotations and {} left out, such as {names}; --unlabeled takes {} \
                 over, for semi-supervised training",
                if count == 1 { "is" } else { "are" },
                if count == 1 { "it" } else { "them" },
            )),
            (_, true) => Some(format!(
                "{count} {have} no annotations, such as {names}: in the folder `unlabeled`, and listed in \
                 unlabeled.txt for `unlabeled = \"unlabeled.txt\"` in training"
            )),
        }
    }
}
