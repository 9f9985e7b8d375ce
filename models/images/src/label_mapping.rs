//! The meaning of the samples of a mask: ids and colors to train ids.

mod error;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use image::metadata::Orientation;
use protoseg_models::classes::{ClassFile, IGNORE_INDEX, voc_color};

pub use self::error::{MaskError, UnknownId};
pub(crate) use self::error::{NAMED_WIDE, NO_COLORS, count, list_colors};
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

    /// Reads a mask of at most `max_pixels` pixels; returns height, width and train ids, as the pixels
    /// are stored.
    pub fn read(
        &self,
        path: &Path,
        max_pixels: u64,
    ) -> Result<([usize; 2], MappedLabels), MaskError> {
        let (size, mapped, _) = self.read_oriented(path, max_pixels)?;
        Ok((size, mapped))
    }

    /// Like [`read`](Self::read), with the EXIF orientation that the file of the mask asks for.
    pub(crate) fn read_oriented(
        &self,
        path: &Path,
        max_pixels: u64,
    ) -> Result<([usize; 2], MappedLabels, Orientation), MaskError> {
        let mask = Mask::read(path, max_pixels)?;
        let (size, orientation) = (mask.size(), mask.orientation);
        Ok((size, self.map(mask, path)?, orientation))
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
            let palette = self.open_palette(&indices, palette);
            let mapped = self.map_ids(indices, width, path)?;
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

    /// Indices in use with their colors, where a class file without colors leaves it open what these
    /// mean.
    pub(crate) fn open_palette(&self, indices: &[u8], palette: &[[u8; 3]]) -> Vec<DrawnIndex> {
        let is_open = matches!(self.origin, ClassOrigin::File(_))
            && !self.classes.given_colors.contains(&true)
            && !is_generic(palette);
        if !is_open {
            return Vec::new();
        }
        let counts = count_bytes(indices);
        let used: Vec<u8> =
            (0..=255).filter(|&index: &u8| counts[usize::from(index)] > 0).collect();
        palettes::drawn(&used, palette)
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
        if pixels.iter().all(|[red, green, blue]| red == green && green == blue) {
            let grays: Vec<u8> = pixels.iter().map(|[red, ..]| *red).collect();
            let counts = (0..=255).zip(*count_bytes(&grays));
            let values = counts.filter(|(_, pixels)| *pixels > 0).collect();
            return Err(MaskError::GrayColors { path, values, origin });
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

#[cfg(test)]
mod tests;
