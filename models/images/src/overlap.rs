//! Images that two lists share: by path, by file (hard and symbolic links), or by content.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use protoseg_models::digest;

use crate::labeled::LabeledDataset;

/// Images of one list that are in another one too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    /// Number of images of the second list.
    pub images: usize,
    /// How many of them are in the first list too.
    pub shared: usize,
    /// Name of the first such image in the first and in the second list.
    pub example: [String; 2],
}

impl std::fmt::Display for Overlap {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { images, shared, example: [first, second] } = self;
        let same =
            if first == second { second.clone() } else { format!("{second}, which is {first}") };
        write!(formatter, "{shared} of {images}, such as {same}")
    }
}

/// Returns the images of `other` that are in `set` too; `None` if there are none. Only files of the
/// same size are compared by content (SHA-256). Files that cannot be read are left out.
pub fn find(set: &LabeledDataset, other: &LabeledDataset) -> Option<Overlap> {
    let (LabeledDataset::Files { samples, .. }, LabeledDataset::Files { samples: others, .. }) =
        (set, other)
    else {
        return None;
    };
    let mut files: HashMap<(u64, u64), &Path> = HashMap::new();
    let mut sizes: HashMap<u64, Vec<&Path>> = HashMap::new();
    for sample in samples {
        let Ok(metadata) = sample.image.metadata() else { continue };
        files.entry(file(&metadata)).or_insert(&sample.image);
        sizes.entry(metadata.len()).or_default().push(&sample.image);
    }
    let mut digests: HashMap<u64, HashMap<String, &Path>> = HashMap::new();
    let mut found = Vec::new();
    for sample in others {
        let image = sample.image.as_path();
        let Ok(metadata) = image.metadata() else { continue };
        if let Some(same) = files.get(&file(&metadata)) {
            found.push([*same, image]);
            continue;
        }
        let Some(alike) = sizes.get(&metadata.len()) else { continue };
        let digests = digests.entry(metadata.len()).or_insert_with(|| {
            // In reverse, so that the first of equal files is kept.
            let alike = alike.iter().rev().copied();
            alike.filter_map(|path| Some((digest::sha256_file(path).ok()?, path))).collect()
        });
        let same = digest::sha256_file(image).ok().and_then(|digest| digests.get(&digest).copied());
        found.extend(same.map(|same| [same, image]));
    }
    let example = found.first()?.map(|path| path.display().to_string());
    Some(Overlap { images: others.len(), shared: found.len(), example })
}

fn file(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::dataset::Dataset;

    #[test]
    fn images_are_found_by_path_link_and_content() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for folder in ["images", "labels"] {
            fs::create_dir(at(folder)).unwrap();
        }
        fs::write(at("classes.txt"), "0 a\n1 b").unwrap();
        for (name, text) in
            [("a", "one"), ("b", "two"), ("c", "six"), ("copy", "two"), ("x", "ten")]
        {
            fs::write(at(&format!("images/{name}.png")), text).unwrap();
        }
        fs::hard_link(at("images/c.png"), at("images/link.png")).unwrap();
        for name in ["a", "b", "c", "copy", "x", "link"] {
            fs::write(at(&format!("labels/{name}.png")), "").unwrap();
        }
        let list = |name: &str, images: &[&str]| {
            let lines: String =
                images.iter().map(|image| format!("images/{image}.png\n")).collect();
            fs::write(at(name), lines).unwrap();
            LabeledDataset::from_files(Dataset::Folder, root.path(), Some(&at(name)), "").unwrap()
        };
        let train = list("train.txt", &["a", "b", "c"]);
        let overlap = find(&train, &list("val.txt", &["copy", "x", "a", "link"])).unwrap();
        assert_eq!((overlap.images, overlap.shared), (4, 3));
        let text = overlap.to_string();
        assert!(text.starts_with("3 of 4, such as ") && text.ends_with("images/b.png"), "{text}");
        assert_eq!(find(&train, &list("other.txt", &["x"])), None);
    }
}
