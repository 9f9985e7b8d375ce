//! Parts that the names of masks and images have besides the name that they share: `a_mask.png` for
//! `a.jpg`, `1_gtFine_labelIds.png` for `1_leftImg8bit.png`.

#[cfg(feature = "annotations")]
use std::collections::BTreeMap;
use std::collections::HashSet;

/// Words for masks, which are no classes.
const MASK_WORDS: [&str; 27] = [
    "anno",
    "annotation",
    "annotations",
    "fine",
    "finelabelids",
    "ground",
    "groundtruth",
    "gt",
    "gtfine",
    "ids",
    "l",
    "label",
    "labelids",
    "labelmap",
    "labels",
    "lbl",
    "manual1",
    "mask",
    "masks",
    "pixels",
    "seg",
    "segm",
    "segmap",
    "segmentation",
    "segmentations",
    "semantic",
    "truth",
];
/// Words for images.
const IMAGE_WORDS: [&str; 11] = [
    "frame",
    "image",
    "images",
    "img",
    "input",
    "leftimg8bit",
    "original",
    "photo",
    "raw",
    "rgb",
    "sat",
];
/// Letters between words.
const SEPARATORS: [char; 5] = ['_', '-', '.', '+', ' '];
/// Masks whose names are looked at, where the first ones tell nothing.
const LOOKED_AT: usize = 64;

/// A beginning and an end of file names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Affix {
    prefix: String,
    suffix: String,
}

impl std::fmt::Display for Affix {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}NAME{}", self.prefix, self.suffix)
    }
}

impl Affix {
    fn suffix(suffix: &str) -> Self {
        Self { prefix: String::new(), suffix: suffix.to_owned() }
    }

    /// The rest of a name; `None` for names without this beginning and end.
    fn strip<'a>(&self, name: &'a str) -> Option<&'a str> {
        let rest = name.strip_prefix(&*self.prefix)?.strip_suffix(&*self.suffix)?;
        (!rest.is_empty()).then_some(rest)
    }

    /// Words in small letters with single spaces.
    fn words(&self) -> String {
        plain(&format!("{} {}", self.prefix, self.suffix))
    }

    fn is_of_masks(&self) -> bool {
        let words = self.words();
        !words.is_empty() && words.split(' ').all(|word| MASK_WORDS.contains(&word))
    }

    fn is_empty(&self) -> bool {
        self.prefix.is_empty() && self.suffix.is_empty()
    }
}

/// The names of images and of their masks, as a part that both share and what each adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamePattern {
    image: Affix,
    mask: Affix,
}

impl std::fmt::Display for NamePattern {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.image.is_empty() {
            let mask = &self.mask;
            return write!(
                formatter,
                "the masks are named {mask}, where NAME is that of the image"
            );
        }
        write!(formatter, "the images are named {}, and their masks {}", self.image, self.mask)
    }
}

impl NamePattern {
    /// The part that the name of an image shares with its mask; names are without folder and ending.
    pub(crate) fn of_image<'a>(&self, name: &'a str) -> Option<&'a str> {
        self.image.strip(name)
    }

    /// The part that the name of a mask shares with its image.
    pub(crate) fn of_mask<'a>(&self, name: &'a str) -> Option<&'a str> {
        self.mask.strip(name)
    }

    /// Masks are named like their images, with a suffix.
    #[cfg(feature = "annotations")]
    pub(crate) fn with_suffix(suffix: &str) -> Self {
        Self { image: Affix::default(), mask: Affix::suffix(suffix) }
    }

    /// The name of an image by the part that it shares with its mask.
    #[cfg(feature = "annotations")]
    pub(crate) fn image_name(&self, shared: &str) -> String {
        format!("{}{shared}{}", self.image.prefix, self.image.suffix)
    }

    /// Finds the pattern of images and masks in folders of their own; `None` where masks are named
    /// like images, or by classes. A part that all masks add is none of the classes, or where there
    /// are none words for masks; a part that most of them add is such words.
    pub(crate) fn find(images: &HashSet<&str>, masks: &[&str], classes: &[&str]) -> Option<Self> {
        if masks.iter().any(|mask| images.contains(mask)) {
            return None;
        }
        if let Some(mask) = mask_affix(images, masks, classes) {
            return Some(Self { image: Affix::default(), mask });
        }
        let first = images.iter().min()?;
        image_affixes(first).into_iter().find_map(|image| {
            let bare: Option<HashSet<&str>> = images.iter().map(|name| image.strip(name)).collect();
            let bare = bare?;
            let same = masks.iter().filter(|mask| bare.contains(*mask)).count();
            let mask =
                if same > 0 { Some(Affix::default()) } else { mask_affix(&bare, masks, &[]) };
            Some(Self { image, mask: mask? })
        })
    }

    /// Finds the pattern of images and masks in one folder, where more than a third of the images have
    /// a mask.
    #[cfg(feature = "annotations")]
    pub(crate) fn beside(names: &HashSet<&str>) -> Option<Self> {
        let mut masks: BTreeMap<&str, usize> = BTreeMap::new();
        let mut images: BTreeMap<&str, usize> = BTreeMap::new();
        for name in names {
            let ends = name.char_indices().filter(|(_, letter)| SEPARATORS.contains(letter));
            for suffix in ends.filter_map(|(at, _)| name.get(at..)) {
                if Affix::suffix(suffix).is_of_masks() {
                    *masks.entry(suffix).or_default() += 1;
                }
                if IMAGE_WORDS.contains(&&*plain(suffix)) {
                    *images.entry(suffix).or_default() += 1;
                }
            }
        }
        let images: Vec<Affix> =
            std::iter::once("").chain(images.into_keys()).map(Affix::suffix).collect();
        let patterns = masks.keys().flat_map(|mask| {
            let mask = Affix::suffix(mask);
            images.iter().map(move |image| Self { image: image.clone(), mask: mask.clone() })
        });
        let pairs = |pattern: &Self| {
            let has_image = |rest: &str| names.contains(&*pattern.image_name(rest));
            names.iter().filter(|name| pattern.of_mask(name).is_some_and(has_image)).count()
        };
        // Of equal ones the first, whose images have names of their own.
        let best = patterns.fold((0, None), |(most, best), pattern| match pairs(&pattern) {
            count if count > most => (count, Some(pattern)),
            _ => (most, best),
        });
        best.1.filter(|_| best.0 * 4 > names.len())
    }
}

/// Beginnings and ends of an image's name that are words for images.
fn image_affixes(name: &str) -> Vec<Affix> {
    let is_word = |text: &str| IMAGE_WORDS.contains(&&*plain(text));
    let mut found = Vec::new();
    for (at, letter) in name.char_indices() {
        let separates = SEPARATORS.contains(&letter);
        if separates && is_word(&name[at..]) {
            found.push(Affix::suffix(&name[at..]));
        }
        let end = if separates { at + letter.len_utf8() } else { at };
        // `img_1` and `img1`.
        if (separates || letter.is_ascii_digit()) && is_word(&name[..end]) {
            found.push(Affix { prefix: name[..end].to_owned(), suffix: String::new() });
        }
    }
    found
}

/// Beginnings and ends around the names of images that a mask's name holds, the longest first.
fn affixes(images: &HashSet<&str>, mask: &str) -> Vec<Affix> {
    let cuts: Vec<usize> =
        mask.char_indices().map(|(at, _)| at).chain(std::iter::once(mask.len())).collect();
    let mut parts: Vec<(usize, usize)> = cuts
        .iter()
        .flat_map(|&start| cuts.iter().map(move |&end| (start, end)))
        .filter(|(start, end)| start < end && images.contains(&mask[*start..*end]))
        .collect();
    parts.sort_by_key(|(start, end)| std::cmp::Reverse(end - start));
    let affix = |(start, end): (usize, usize)| Affix {
        prefix: mask[..start].to_owned(),
        suffix: mask[end..].to_owned(),
    };
    parts.into_iter().map(affix).collect()
}

fn mask_affix(images: &HashSet<&str>, masks: &[&str], classes: &[&str]) -> Option<Affix> {
    let fits =
        |affix: &Affix, mask: &str| affix.strip(mask).is_some_and(|name| images.contains(name));
    let is_common = |affix: &Affix| masks.iter().all(|mask| fits(affix, mask));
    if let Some(found) = affixes(images, masks.first()?).into_iter().find(is_common) {
        let words = found.words();
        let holds = |class: &&str| format!(" {words} ").contains(&format!(" {} ", plain(class)));
        let is_meant = !classes.is_empty() || found.is_of_masks();
        return (!classes.iter().any(holds) && is_meant).then_some(found);
    }
    let mut tried = HashSet::new();
    masks.iter().take(LOOKED_AT).flat_map(|mask| affixes(images, mask)).find(|affix| {
        let is_new = tried.insert((affix.prefix.clone(), affix.suffix.clone()));
        let holds = |class: &&str| plain(class) == affix.words();
        if !is_new || !affix.is_of_masks() || classes.iter().any(holds) {
            return false;
        }
        let count = masks.iter().filter(|mask| fits(affix, mask)).count();
        count * 2 >= masks.len() || count * 2 >= images.len()
    })
}

/// The words of a text in small letters with single spaces.
fn plain(text: &str) -> String {
    let words = text.split(|letter: char| letter.is_whitespace() || SEPARATORS.contains(&letter));
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ").to_lowercase()
}

/// The name of a class without the words for masks around it, such as `car` of `car_mask`.
#[cfg(feature = "annotations")]
pub(crate) fn without_mask_words(class: &str) -> &str {
    const WORDS: [&str; 13] = [
        "anno",
        "annotation",
        "ground_truth",
        "groundtruth",
        "gt",
        "label",
        "labels",
        "lbl",
        "mask",
        "masks",
        "seg",
        "segm",
        "segmentation",
    ];
    let is_separator = |letter: char| SEPARATORS.contains(&letter);
    // What remains is a name, and not only the number of one.
    let is_name = |rest: &str| rest.chars().any(char::is_alphabetic);
    let mut class = class;
    loop {
        let lower = class.to_ascii_lowercase();
        let shorter = WORDS.iter().find_map(|word| {
            let end = lower.strip_suffix(word).filter(|rest| rest.ends_with(is_separator));
            let start = lower.strip_prefix(word).filter(|rest| rest.starts_with(is_separator));
            let end = end.and_then(|rest| class.get(..rest.len()));
            let start = start.and_then(|rest| class.get(class.len() - rest.len()..));
            end.or(start).map(|rest| rest.trim_matches(is_separator)).filter(|rest| is_name(rest))
        });
        match shorter {
            Some(shorter) => class = shorter,
            None => return class,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(images: &[&str], masks: &[&str], classes: &[&str]) -> Option<String> {
        let images: HashSet<&str> = images.iter().copied().collect();
        NamePattern::find(&images, masks, classes).map(|found| found.to_string())
    }

    #[test]
    fn patterns_of_known_data_sets_are_found() {
        let of = |mask: &str| {
            Some(format!("the masks are named {mask}, where NAME is that of the image"))
        };
        let both = |image: &str, mask: &str| {
            Some(format!("the images are named {image}, and their masks {mask}"))
        };
        for (images, masks, expected) in [
            (["0001TP", "0002TP"], ["0001TP_L", "0002TP_L"], of("NAME_L")),
            (["a", "b"], ["a_seg", "b_seg"], of("NAME_seg")),
            (
                ["ISIC_01", "ISIC_02"],
                ["ISIC_01_segmentation", "ISIC_02_segmentation"],
                of("NAME_segmentation"),
            ),
            (["a", "b"], ["mask_a", "mask_b"], of("mask_NAME")),
            (
                ["x_1_leftImg8bit", "x_2_leftImg8bit"],
                ["x_1_gtFine_labelIds", "x_2_gtFine_labelIds"],
                both("NAME_leftImg8bit", "NAME_gtFine_labelIds"),
            ),
            (["img_1", "img_12"], ["mask_1", "mask_12"], both("img_NAME", "mask_NAME")),
            (["IMG1", "IMG12"], ["label1", "label12"], both("IMGNAME", "labelNAME")),
            (["1_sat", "2_sat"], ["1_mask", "2_mask"], both("NAME_sat", "NAME_mask")),
            (["1_rgb", "2_rgb"], ["1", "2"], both("NAME_rgb", "NAME")),
            (["a", "b"], ["a", "b_mask"], None),
            (["a", "b"], ["a_car", "b_car"], None),
            (["a", "b"], ["a_car_mask", "b_road_mask"], None),
        ] {
            assert_eq!(find(&images, &masks, &[]), expected, "{images:?} {masks:?}");
        }
        // One of no image, and files that are no masks.
        assert_eq!(find(&["a", "b"], &["a_mask", "z_mask", "b_mask"], &[]), of("NAME_mask"));
        let city = ["x_gtFine_color", "x_gtFine_instanceIds", "x_gtFine_labelIds"];
        assert_eq!(find(&["x"], &city, &["road"]), of("NAME_gtFine_labelIds"));
        // Words that all masks add are no class.
        assert_eq!(find(&["a", "b"], &["a_v2", "b_v2"], &["road"]), of("NAME_v2"));
        assert_eq!(find(&["a", "b"], &["a_road", "b_road"], &["road"]), None);
    }

    #[cfg(feature = "annotations")]
    #[test]
    fn images_and_masks_of_one_folder_are_told_apart() {
        let beside = |names: &[&str]| {
            let names: HashSet<&str> = names.iter().copied().collect();
            NamePattern::beside(&names).map(|found| found.to_string())
        };
        let mask =
            Some("the masks are named NAME_mask, where NAME is that of the image".to_owned());
        assert_eq!(beside(&["a", "a_mask", "b", "b_mask", "c"]), mask);
        let deep_globe = beside(&["1_sat", "1_mask", "2_sat", "2_mask", "3_sat"]);
        assert_eq!(deep_globe.unwrap(), "the images are named NAME_sat, and their masks NAME_mask");
        for names in [&["a", "b", "a_car", "b_car"][..], &["a", "b", "c", "d", "e", "a_l"]] {
            assert_eq!(beside(names), None, "{names:?}");
        }
    }

    #[cfg(feature = "annotations")]
    #[test]
    fn words_for_masks_are_no_part_of_a_class() {
        for (given, expected) in [
            ("car_mask", "car"),
            ("mask-car", "car"),
            ("road_seg_mask", "road"),
            ("Car_Ground_Truth", "Car"),
            ("ground", "ground"),
            ("mask", "mask"),
            ("label_1", "label_1"),
            ("open water.gt", "open water"),
            ("unmask", "unmask"),
        ] {
            assert_eq!(without_mask_words(given), expected);
        }
    }
}
