//! The meaning of the samples of a mask: ids and colors to train ids.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use protoseg_models::classes::{ClassFile, IGNORE_INDEX, voc_color};

use crate::label_map::LabelMapError;
use crate::mask::{Mask, MaskSamples};
use crate::palettes::{self, DrawnIndex};

/// CVAT's list of classes and colors.
pub(crate) const CVAT_LEGEND: &str = "labelmap.txt";
/// LabelMe's lists of names, the one of the tree first.
pub(crate) const NAME_LISTS: [&str; 2] = ["class_names.txt", "labels.txt"];

/// The train id of every id and color in the masks of a dataset.
///
/// Its `Debug` text is the same in every process: a training's census tells by it whether masks
/// still mean what they did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelMapping {
    classes: Box<ClassFile>,
    train_ids: Box<[Option<u8>; 256]>,
    colors: BTreeMap<[u8; 3], ColorMeaning>,
    /// Color of an id, where the class file gives it.
    id_colors: Box<[Option<[u8; 3]>; 256]>,
    origin: ClassOrigin,
}

/// Place of the classes of a dataset, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClassOrigin {
    /// A class file of the user.
    File(PathBuf),
    /// A built-in table of a dataset.
    BuiltIn(&'static str),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ColorMeaning {
    label: u8,
    name: String,
    /// Another class of the same color.
    shared_with: Option<String>,
}

/// A number of pixels of an id that means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownId {
    /// The id.
    pub id: u32,
    /// Number of pixels.
    pub pixels: u64,
    /// Row and column of the first one, from 0.
    pub first: [usize; 2],
}

/// The reason why a mask has no meaning.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the names of the fields say it")]
pub enum MaskError {
    /// Ids that are neither classes nor ignored, all of them, in ascending order.
    /// If they look like ids of instances, these divided by `per_class` are ids of classes.
    #[error("{}: {}", path.display(), unknown_ids(ids, *per_class, origin))]
    Ids { path: PathBuf, ids: Vec<UnknownId>, per_class: Option<u32>, origin: ClassOrigin },
    /// Colors that are neither those of classes nor ignored, all of them, the most frequent first.
    #[error("{}: {}", path.display(), unknown_colors(colors, *void, origin))]
    Colors { path: PathBuf, colors: Vec<([u8; 3], u64)>, void: u8, origin: ClassOrigin },
    /// Colors, while the classes have none; all of them, the most frequent first.
    #[error(
        "{} holds the colors {}, and {origin} gives no class a color; write `id name red green blue` \
         on its lines, or save the masks as ids in gray PNG",
        path.display(), list_colors(colors.iter().map(|&(color, pixels)| (color, count(pixels))))
    )]
    NoColors { path: PathBuf, colors: Vec<([u8; 3], u64)>, origin: ClassOrigin },
    /// A color of two classes.
    #[error(
        "{}: the color {} is that of `{first}` and of `{second}` in {origin}; give each its own",
        path.display(), rgb(*color)
    )]
    SharedColor {
        path: PathBuf,
        color: [u8; 3],
        first: String,
        second: String,
        origin: ClassOrigin,
    },
    /// A palette that holds the colors of the classes in another order.
    #[error(
        "{}: index {index} is drawn in {}, which is `{drawn}` in {origin}, and {index} is `{class}` \
         there, {}: the palette was put in another order; save the mask as RGB, or with the palette \
         in the order of the ids, or take the colors out of {origin} if the indices are right",
        path.display(), rgb(*color), rgb(*own_color)
    )]
    Palette {
        path: PathBuf,
        index: u8,
        color: [u8; 3],
        drawn: String,
        class: String,
        own_color: [u8; 3],
        origin: ClassOrigin,
    },
    /// Palettes that draw one color under several indices, while the classes have no colors.
    #[error(
        "{}: the color {} is the index {index} here and {first_index} in {}: the palettes differ, and \
         {origin} gives no class a color, so that neither says which class it is; write `id name red \
         green blue` on its lines and save the masks as RGB, whose colors then decide, or save them as \
         gray PNG if the indices are right",
        path.display(), rgb(*color), first.display()
    )]
    PalettesDiffer {
        path: PathBuf,
        index: u8,
        first: PathBuf,
        first_index: u8,
        color: [u8; 3],
        origin: ClassOrigin,
    },
    /// Train ids of other classes.
    #[error(
        "{} holds the train ids of the classes {}, which are not those of {origin}; use the files of \
         `label --format labelids`",
        path.display(), classes.join(", ")
    )]
    TrainIds { path: PathBuf, classes: Vec<String>, origin: ClassOrigin },
    /// A file that cannot be read.
    #[error(transparent)]
    File(#[from] LabelMapError),
}

/// Train ids of a mask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappedLabels {
    /// Train ids `[height, width]`, 255 for ignored pixels.
    pub labels: Vec<u8>,
    /// Pixels of each id in the file; all 0 for colors.
    pub ids: Box<[u64; 256]>,
    /// Indices in use with their colors, where a file of classes without colors leaves it open what
    /// these mean.
    pub palette: Vec<DrawnIndex>,
}

impl std::fmt::Display for ClassOrigin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(formatter, "{}", path.display()),
            Self::BuiltIn(name) => write!(formatter, "the table of {name}"),
        }
    }
}

impl ClassOrigin {
    /// The way to give ids a meaning; some may be above 255, which label maps cannot hold.
    pub(crate) fn way_out_of_ids(
        &self,
        ids: impl Iterator<Item = u32> + Clone,
        per_class: Option<u32>,
    ) -> String {
        let line = |ids: &mut dyn Iterator<Item = u32>| {
            format!("{} ignore", ids.map(|id| id.to_string()).collect::<Vec<_>>().join(","))
        };
        let byte = u32::from(u8::MAX);
        if ids.clone().all(|id| id <= byte) {
            return self.way_out(&line(&mut ids.clone()));
        }
        let root = match self {
            Self::File(path) => {
                let root = path.parent().filter(|root| !root.as_os_str().is_empty());
                root.unwrap_or(Path::new(".")).display().to_string()
            }
            Self::BuiltIn("Cityscapes") if per_class.is_some() => {
                return "these are ids of instances; use the files `…_gtFine_labelIds.png`"
                    .to_owned();
            }
            Self::BuiltIn(_) => "ROOT".to_owned(),
        };
        let example = match per_class {
            Some(by) => format!(
                "; they look like ids of instances, which are those of classes when divided by {by}: the \
                 lines are `{by}-{} /{by}` and `* =`",
                by * 256 - 1
            ),
            None => {
                let first = ids.clone().find(|id| *id > byte).unwrap_or_default();
                format!(" by lines such as `{first} 7` or `{first} ignore`, and `* =` for the rest")
            }
        };
        let small: Vec<u32> = ids.filter(|id| *id <= byte).collect();
        let small = if small.is_empty() {
            String::new()
        } else {
            format!("; {}", self.way_out(&line(&mut small.into_iter())))
        };
        format!(
            "ids above 255 do not fit into a label map: `protoseg convert {root} --map FILE --out NEW` \
             gives them others{example}{small}"
        )
    }

    /// The way to give ids or colors a meaning; `line` is that of a class file to ignore them.
    pub(crate) fn way_out(&self, line: &str) -> String {
        match self {
            Self::File(path) if is_named(path, &[CVAT_LEGEND]) => format!(
                "ids are the numbers of the lines in {}, from 0; add a line `name:red,green,blue::` for \
                 each up to there",
                path.display()
            ),
            Self::File(path) if is_named(path, &NAME_LISTS) => format!(
                "ids are the numbers of the lines in {}, from 0; add a line for each up to there, \
                 `__ignore__` where it counts for nothing",
                path.display()
            ),
            Self::File(path) => format!(
                "if they count for nothing, add the line `{line}` to {}, or else lines of their \
                 classes",
                path.display()
            ),
            Self::BuiltIn("Pascal VOC") => "these are not the label files of Pascal VOC; `protoseg \
                                            convert TREE --classes FILE --out NEW` takes the classes of \
                                            a file of lines `id name`"
                .to_owned(),
            Self::BuiltIn(name) => format!(
                "these are not the label files of {name}; use the dataset kind `folder`, whose \
                 classes.txt names classes and, as `{line}`, what is ignored"
            ),
        }
    }

    /// The way to give colors a meaning, the most frequent first.
    pub(crate) fn way_out_of_colors(&self, colors: &[[u8; 3]], void: u8) -> String {
        match self {
            Self::File(path) if is_named(path, &[CVAT_LEGEND]) => {
                let line = |color: &[u8; 3]| format!("`ignore:{}::`", rgb(*color));
                let lines: Vec<String> = colors.iter().take(NAMED).map(line).collect();
                format!(
                    "if they count for nothing, add the line{} {} to {}, or else lines of their classes",
                    if lines.len() == 1 { "" } else { "s" },
                    lines.join(", "),
                    path.display()
                )
            }
            _ => match colors {
                [color] => self.way_out(&color_line(*color, void)),
                [color, rest @ ..] if rest.len() < NAMED => {
                    let line = color_line(*color, void);
                    self.way_out(&format!("{line}` and one for each other color, or `* ignore"))
                }
                _ => format!("{} (it ignores every color of no class)", self.way_out("* ignore")),
            },
        }
    }
}

fn is_named(path: &Path, names: &[&str]) -> bool {
    path.file_name().is_some_and(|own| names.iter().any(|name| own == *name))
}

impl LabelMapping {
    /// Makes the mapping of a class file. `is_void` accepts further ids that are ignored, and
    /// `void_colors` are colors that are.
    pub fn new(
        classes: ClassFile,
        origin: ClassOrigin,
        is_void: impl Fn(u8) -> bool,
        void_colors: &[[u8; 3]],
    ) -> Self {
        let known = classes.table.train_ids();
        let is_class: [bool; 256] = std::array::from_fn(|id| {
            classes.table.classes().iter().any(|class| usize::from(class.source_id) == id)
        });
        let train_id = |index: usize| {
            let id = index as u8;
            if is_class[index] {
                Some(known[index])
            } else {
                (classes.is_ignored(id) || is_void(id)).then_some(IGNORE_INDEX)
            }
        };
        let train_ids = Box::new(std::array::from_fn(train_id));
        let mut colors: BTreeMap<[u8; 3], ColorMeaning> = BTreeMap::new();
        let mut id_colors = Box::new([None; 256]);
        let mut add = |color: [u8; 3], label: u8, name: &str| {
            let meaning = ColorMeaning { label, name: name.to_owned(), shared_with: None };
            let known = colors.entry(color).or_insert_with(|| meaning.clone());
            if known.label != label {
                known.shared_with = Some(meaning.name);
            }
        };
        for (index, class) in classes.table.classes().iter().enumerate() {
            if let Some(color) = classes.color(index) {
                add(color, known[usize::from(class.source_id)], &class.name);
                id_colors[usize::from(class.source_id)] = Some(color);
            }
        }
        for ignored in &classes.ignored {
            let Some(color) = ignored.color else { continue };
            add(color, IGNORE_INDEX, "ignore");
            if ignored.ids.0 == ignored.ids.1 {
                id_colors[usize::from(ignored.ids.0)] = Some(color);
            }
        }
        for &color in void_colors {
            // Never in place of a class.
            colors.entry(color).or_insert_with(|| ColorMeaning {
                label: IGNORE_INDEX,
                name: "ignore".to_owned(),
                shared_with: None,
            });
        }
        Self { classes: Box::new(classes), train_ids, colors, id_colors, origin }
    }

    /// Returns the classes and what their file ignores.
    pub fn class_file(&self) -> &ClassFile {
        &self.classes
    }

    /// Returns the place of the classes.
    pub fn origin(&self) -> &ClassOrigin {
        &self.origin
    }

    /// Returns true if pixels of an id count for nothing.
    pub fn is_void(&self, id: u8) -> bool {
        self.train_ids[usize::from(id)] == Some(IGNORE_INDEX)
    }

    /// Reads a mask of at most `max_pixels` pixels; returns height, width and train ids.
    pub fn read(
        &self,
        path: &Path,
        max_pixels: u64,
    ) -> Result<([usize; 2], MappedLabels), MaskError> {
        let mask = Mask::read(path, max_pixels)?;
        Ok((mask.size(), self.map(mask, path)?))
    }

    /// Gives the samples of a mask their meaning. Errors name `path`.
    pub fn map(&self, mask: Mask, path: &Path) -> Result<MappedLabels, MaskError> {
        let width = mask.width;
        if let Some(names) = mask.train_ids_of {
            return self.map_train_ids(mask.samples, names, path);
        }
        match mask.samples {
            MaskSamples::Ids(ids) => self.map_ids(ids, width, path),
            MaskSamples::Indexed { indices, palette } => {
                self.map_indices(indices, &palette, width, path)
            }
            MaskSamples::WideIds(ids) => Err(self.unknown_ids(&ids, width, path)),
            MaskSamples::Colors(colors) => self.map_colors(&colors, width, path),
        }
    }

    fn map_train_ids(
        &self,
        samples: MaskSamples,
        names: Vec<String>,
        path: &Path,
    ) -> Result<MappedLabels, MaskError> {
        let own = self.classes.table.classes();
        let same = own.len() == names.len()
            && own.iter().zip(&names).all(|(class, name)| class.name == *name);
        let in_range = |&label: &u8| usize::from(label) < own.len() || label == IGNORE_INDEX;
        match samples {
            MaskSamples::Ids(labels) | MaskSamples::Indexed { indices: labels, .. }
                if same && labels.iter().all(in_range) =>
            {
                let mut ids = Box::new([0; 256]);
                for &label in &labels {
                    let id =
                        own.get(usize::from(label)).map_or(IGNORE_INDEX, |class| class.source_id);
                    ids[usize::from(id)] += 1;
                }
                Ok(MappedLabels { labels, ids, palette: Vec::new() })
            }
            _ => {
                let origin = self.origin.clone();
                Err(MaskError::TrainIds { path: path.into(), classes: names, origin })
            }
        }
    }

    fn map_ids(
        &self,
        mut labels: Vec<u8>,
        width: usize,
        path: &Path,
    ) -> Result<MappedLabels, MaskError> {
        let ids = count_bytes(&labels);
        if (0..256).any(|id| ids[id] > 0 && self.train_ids[id].is_none()) {
            let wide: Vec<u32> = labels.into_iter().map(u32::from).collect();
            return Err(self.unknown_ids(&wide, width, path));
        }
        let table = self.train_ids.map(|label| label.unwrap_or(IGNORE_INDEX));
        for label in &mut labels {
            *label = table[usize::from(*label)];
        }
        Ok(MappedLabels { labels, ids, palette: Vec::new() })
    }

    /// The error of ids, of which some have no meaning.
    pub(crate) fn unknown_ids(&self, ids: &[u32], width: usize, path: &Path) -> MaskError {
        let known =
            |id: u32| u8::try_from(id).is_ok_and(|id| self.train_ids[usize::from(id)].is_some());
        let mut unknown: BTreeMap<u32, UnknownId> = BTreeMap::new();
        for (index, &id) in ids.iter().enumerate().filter(|(_, id)| !known(**id)) {
            let first = [index / width.max(1), index % width.max(1)];
            unknown.entry(id).or_insert(UnknownId { id, pixels: 0, first }).pixels += 1;
        }
        // Class * 1000 + number, as Cityscapes has it, or * 256, as Mapillary. The latter is likely only
        // where there are several classes.
        let wide = || unknown.keys().copied().filter(|id| *id > u32::from(u8::MAX));
        let classes = |by: u32| wide().map(|id| id / by).collect::<BTreeSet<u32>>();
        let per_class = [(1000, 1), (256, 2)].into_iter().find(|&(by, least)| {
            let classes = classes(by);
            classes.len() >= least && classes.into_iter().all(|id| id > 0 && known(id))
        });
        let per_class = per_class.map(|(by, _)| by);
        let ids = unknown.into_values().collect();
        MaskError::Ids { path: path.into(), ids, per_class, origin: self.origin.clone() }
    }

    /// Returns the train id of an id; `None` if it has no meaning.
    #[cfg(feature = "annotations")]
    pub(crate) fn train_id(&self, id: u8) -> Option<u8> {
        self.train_ids[usize::from(id)]
    }

    /// Indices are ids, unless the palette says otherwise. Only a palette that holds the colors of
    /// the classes does: others, such as a rainbow, are there to look at.
    fn map_indices(
        &self,
        indices: Vec<u8>,
        palette: &[[u8; 3]],
        width: usize,
        path: &Path,
    ) -> Result<MappedLabels, MaskError> {
        let counts = count_bytes(&indices);
        let used: Vec<u8> =
            (0..=255).filter(|&index: &u8| counts[usize::from(index)] > 0).collect();
        let color = |index: u8| palette.get(usize::from(index)).copied();
        let meaning = |index: u8| color(index).and_then(|color| self.colors.get(&color));
        let known = |index: u8| self.train_ids[usize::from(index)].is_some();
        let all_drawn = used.iter().all(|&index| meaning(index).is_some());
        if !self.is_drawn_in(palette, used.len(), all_drawn) {
            let mapped = self.map_ids(indices, width, path)?;
            let is_open = matches!(self.origin, ClassOrigin::File(_))
                && !self.classes.given_colors.contains(&true)
                && !is_generic(palette);
            let palette = if is_open { palettes::drawn(&used, palette) } else { Vec::new() };
            return Ok(MappedLabels { palette, ..mapped });
        }
        if all_drawn && !used.iter().all(|&index| known(index)) {
            // The indices have no meaning, and the colors have one.
            let colors: Vec<[u8; 3]> =
                indices.iter().map(|&index| color(index).unwrap_or_default()).collect();
            return self.map_colors(&colors, width, path);
        }
        for index in used {
            let (Some(color), Some(meaning), Some(own_color)) =
                (color(index), meaning(index), self.id_colors[usize::from(index)])
            else {
                continue;
            };
            if color == own_color || self.train_ids[usize::from(index)] == Some(meaning.label) {
                continue;
            }
            return Err(MaskError::Palette {
                path: path.into(),
                index,
                color,
                drawn: meaning.name.clone(),
                class: self.name(index),
                own_color,
                origin: self.origin.clone(),
            });
        }
        self.map_ids(indices, width, path)
    }

    /// Returns true if a palette is one of the classes: it holds the colors of all of them, or all
    /// colors in use are those of classes (`all_drawn`), and not by chance a single one of many.
    fn is_drawn_in(&self, palette: &[[u8; 3]], used: usize, all_drawn: bool) -> bool {
        let classes = self.classes.table.classes().iter().enumerate();
        let given: Vec<[u8; 3]> =
            classes.filter_map(|(index, _)| self.classes.color(index)).collect();
        let held = given.iter().filter(|color| palette.contains(color)).count();
        let holds_all = held == given.len() && held > 1;
        let is_tight = palette.len() == used;
        !is_generic(palette) && (holds_all || all_drawn && (held > 1 || is_tight))
    }

    fn name(&self, id: u8) -> String {
        let class = self.classes.table.classes().iter().find(|class| class.source_id == id);
        class.map_or_else(|| "ignore".to_owned(), |class| class.name.clone())
    }

    fn map_colors(
        &self,
        pixels: &[[u8; 3]],
        width: usize,
        path: &Path,
    ) -> Result<MappedLabels, MaskError> {
        let (path, origin) = (PathBuf::from(path), self.origin.clone());
        let is_given = self.classes.given_colors.contains(&true);
        if !is_given {
            // Ids that a program saved in three equal channels.
            if pixels.iter().all(|[red, green, blue]| red == green && green == blue) {
                let ids = pixels.iter().map(|[red, ..]| *red).collect();
                return self.map_ids(ids, width, &path);
            }
            let mut colors: HashMap<[u8; 3], u64> = HashMap::new();
            for &color in pixels {
                *colors.entry(color).or_default() += 1;
            }
            return Err(MaskError::NoColors { path, colors: most_frequent(colors), origin });
        }
        let mut unknown: HashMap<[u8; 3], u64> = HashMap::new();
        let mut last: Option<([u8; 3], u8)> = None;
        let mut labels = Vec::with_capacity(pixels.len());
        for &color in pixels {
            // Neighbors mostly have one color.
            if let Some((seen, label)) = last
                && seen == color
            {
                labels.push(label);
                continue;
            }
            match self.colors.get(&color) {
                Some(ColorMeaning { label, shared_with: None, .. }) => {
                    last = Some((color, *label));
                    labels.push(*label);
                }
                Some(ColorMeaning { name, shared_with: Some(second), .. }) => {
                    let (first, second) = (name.clone(), second.clone());
                    return Err(MaskError::SharedColor { path, color, first, second, origin });
                }
                None if self.classes.ignores_rest => {
                    last = Some((color, IGNORE_INDEX));
                    labels.push(IGNORE_INDEX);
                }
                None => {
                    *unknown.entry(color).or_default() += 1;
                    labels.push(IGNORE_INDEX);
                }
            }
        }
        if unknown.is_empty() {
            let ids = Box::new([0; 256]);
            return Ok(MappedLabels { labels, ids, palette: Vec::new() });
        }
        let void = self.classes.table.void_id();
        Err(MaskError::Colors { path, colors: most_frequent(unknown), void, origin })
    }
}

/// Sorts colors by their number of pixels, the most frequent first.
pub(crate) fn most_frequent(colors: HashMap<[u8; 3], u64>) -> Vec<([u8; 3], u64)> {
    let mut colors: Vec<([u8; 3], u64)> = colors.into_iter().collect();
    colors.sort_by_key(|&(color, pixels)| (std::cmp::Reverse(pixels), color));
    colors
}

fn count_bytes(bytes: &[u8]) -> Box<[u64; 256]> {
    let mut counts = Box::new([0; 256]);
    for &byte in bytes {
        counts[usize::from(byte)] += 1;
    }
    counts
}

/// Returns true for palettes that programs put into every file of ids: shades of gray, and the colors
/// of Pascal VOC.
fn is_generic(palette: &[[u8; 3]]) -> bool {
    let voc = |index: usize| index.checked_sub(1).map_or([0; 3], voc_color);
    let gray = |index: usize| [index as u8; 3];
    let equals = |color: &dyn Fn(usize) -> [u8; 3]| {
        palette.len() > 16 && palette.iter().enumerate().all(|(index, own)| *own == color(index))
    };
    equals(&voc) || equals(&gray)
}

/// Colors that a message names.
const NAMED: usize = 8;
/// Ids that a message names where some are above 255; there may be one for each object.
pub(crate) const NAMED_WIDE: usize = 16;

fn unknown_ids(ids: &[UnknownId], per_class: Option<u32>, origin: &ClassOrigin) -> String {
    let mut text = String::from("the ids ");
    let is_wide = ids.iter().any(|unknown| unknown.id > u32::from(u8::MAX));
    let named = if is_wide { NAMED_WIDE } else { ids.len() };
    for (index, unknown) in ids.iter().take(named).enumerate() {
        let UnknownId { id, pixels, first: [row, column] } = unknown;
        let comma = if index == 0 { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ =
            write!(text, "{comma}{id} ({}, first at row {row}, column {column})", count(*pixels));
    }
    if ids.len() > named {
        let last = ids.last().map_or(0, |unknown| unknown.id);
        let _ = write!(text, " and {} more up to {last}", ids.len() - named);
    }
    let way = origin.way_out_of_ids(ids.iter().map(|unknown| unknown.id), per_class);
    format!("{text} are neither classes nor ignored; {way}")
}

fn unknown_colors(colors: &[([u8; 3], u64)], void: u8, origin: &ClassOrigin) -> String {
    let listed = list_colors(colors.iter().map(|&(color, pixels)| (color, count(pixels))));
    let unknown: Vec<[u8; 3]> = colors.iter().map(|(color, _)| *color).collect();
    let way = origin.way_out_of_colors(&unknown, void);
    format!("the colors {listed} are neither those of classes nor ignored; {way}")
}

/// The line of a class file that ignores a color.
fn color_line([red, green, blue]: [u8; 3], void: u8) -> String {
    format!("{void} ignore {red} {green} {blue}")
}

/// Lists the first colors with their counts.
pub(crate) fn list_colors(colors: impl Iterator<Item = ([u8; 3], String)>) -> String {
    let all: Vec<String> =
        colors.map(|(color, count)| format!("{} ({count})", rgb(color))).collect();
    let more = all.len().saturating_sub(NAMED);
    let listed = all[..all.len() - more].join(", ");
    if more == 0 {
        return listed;
    }
    format!("{listed} and {more} more, as smoothed edges have")
}

pub(crate) fn count(pixels: u64) -> String {
    if pixels == 1 { "1 pixel".to_owned() } else { format!("{pixels} pixels") }
}

pub(crate) fn rgb([red, green, blue]: [u8; 3]) -> String {
    format!("{red},{green},{blue}")
}

#[cfg(test)]
mod tests;
