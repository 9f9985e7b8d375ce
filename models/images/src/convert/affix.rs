//! Parts that the names of masks add to those of their images: `a_mask.png` for `a.jpg`.

use std::collections::HashSet;

/// Words for masks, which are no classes.
const WORDS: [&str; 16] = [
    "mask",
    "masks",
    "label",
    "labels",
    "l",
    "gt",
    "seg",
    "segmentation",
    "annotation",
    "anno",
    "groundtruth",
    "ground truth",
    "labelids",
    "label ids",
    "semantic",
    "pixels",
];

/// A beginning and an end of file names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Affix {
    prefix: String,
    suffix: String,
}

impl std::fmt::Display for Affix {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}NAME{}", self.prefix, self.suffix)
    }
}

impl Affix {
    /// The name of the image of a mask; both are paths without their extensions.
    pub(super) fn strip(&self, mask: &str) -> Option<String> {
        let (folder, file) = split(mask);
        let image = file.strip_prefix(&*self.prefix)?.strip_suffix(&*self.suffix)?;
        (!image.is_empty()).then(|| format!("{folder}{image}"))
    }

    /// The one that all masks have, which with it taken away are named like images. It is none of the
    /// classes, or where there are none a word for masks.
    pub(super) fn find(
        images: &HashSet<String>,
        masks: &[String],
        classes: &[&str],
    ) -> Option<Self> {
        if masks.iter().any(|mask| images.contains(mask)) {
            return None;
        }
        let (folder, file) = split(masks.first()?);
        let cuts: Vec<usize> = file.char_indices().map(|(at, _)| at).chain([file.len()]).collect();
        let mut parts: Vec<(usize, usize)> = cuts
            .iter()
            .flat_map(|&start| cuts.iter().map(move |&end| (start, end)))
            .filter(|(start, end)| start < end)
            .filter(|(start, end)| images.contains(&format!("{folder}{}", &file[*start..*end])))
            .collect();
        parts.sort_by_key(|(start, end)| std::cmp::Reverse(end - start));
        let affix = |(start, end): (usize, usize)| Self {
            prefix: file[..start].to_owned(),
            suffix: file[end..].to_owned(),
        };
        let is_common = |affix: &Self| {
            masks.iter().all(|mask| affix.strip(mask).is_some_and(|name| images.contains(&name)))
        };
        let found = parts.into_iter().map(affix).find(is_common)?;
        let word = found.word();
        let holds = |class: &&str| format!(" {word} ").contains(&format!(" {} ", plain(class)));
        let is_class = classes.iter().any(holds);
        let is_meant = !classes.is_empty() || WORDS.contains(&&*word);
        (!is_class && is_meant).then_some(found)
    }

    /// The one of the masks in a folder of images and masks, each of which has the other.
    pub(super) fn beside(names: &HashSet<String>) -> Option<Self> {
        let affixes = WORDS.iter().flat_map(|word| {
            let word = word.replace(' ', "");
            let spelled = [word.clone(), word.to_uppercase()];
            spelled.into_iter().flat_map(|word| {
                ["_", "-", "."].map(|between| Self {
                    prefix: String::new(),
                    suffix: format!("{between}{word}"),
                })
            })
        });
        let is_whole = |affix: &Self| {
            let masks = names
                .iter()
                .filter(|name| affix.strip(name).is_some_and(|image| names.contains(&image)));
            masks.count() * 2 == names.len() && !names.is_empty()
        };
        affixes.into_iter().find(is_whole)
    }

    fn word(&self) -> String {
        plain(&format!("{} {}", self.prefix, self.suffix))
    }
}

/// The folder of a name with its slash, and the rest.
fn split(name: &str) -> (&str, &str) {
    name.split_at(name.rfind('/').map_or(0, |at| at + 1))
}

/// Words in small letters with single spaces.
fn plain(text: &str) -> String {
    let words = text.split(|letter: char| letter.is_whitespace() || "_-.+".contains(letter));
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ").to_lowercase()
}
