//! The label values of all masks of a dataset, read before a training step or a score.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use protoseg_models::classes::{Class, ClassTable, IGNORE_INDEX};

use crate::label_mapping::{
    ClassOrigin, MaskError, NAMED_WIDE, NO_COLORS, UnknownId, count, list_colors, most_frequent,
};
use crate::labeled::{LabeledDataset, LabeledImageError};
use crate::palettes::PaletteCensus;

/// Pixels of the masks of a dataset by their meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelCensus {
    /// Number of masks.
    pub masks: usize,
    /// Pixels of each class, by train id.
    pub classes: Vec<u64>,
    /// Pixels that count for nothing.
    pub ignored: u64,
    /// Those of them by id; none of colored masks.
    pub ignored_ids: BTreeMap<u8, u64>,
    table: ClassTable,
    /// True where the class file says that 255 is ignored.
    void_is_listed: bool,
    origin: Option<ClassOrigin>,
}

/// Pixels of one mask by their meaning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MaskCounts {
    /// Pixels of each class, by train id.
    pub classes: Vec<u64>,
    /// Pixels that count for nothing.
    pub ignored: u64,
    /// Those of them by id; none of colored masks.
    pub ignored_ids: BTreeMap<u8, u64>,
}

impl MaskCounts {
    /// Counts train ids, with the pixels of each id in the label file.
    pub fn new(labels: &[u8], ids: Option<&[u64; 256]>, set: &LabeledDataset) -> Self {
        let mut classes = vec![0_u64; 256];
        for &label in labels {
            classes[usize::from(label)] += 1;
        }
        let ignored = classes[usize::from(IGNORE_INDEX)];
        classes.truncate(set.classes().count());
        let is_void = |id: u8| set.mapping().is_some_and(|mapping| mapping.is_void(id));
        let ids = (0..=u8::MAX).zip(ids.into_iter().flatten().copied());
        let ignored_ids = ids.filter(|&(id, pixels)| pixels > 0 && is_void(id)).collect();
        Self { classes, ignored, ignored_ids }
    }
}

impl LabelCensus {
    /// A census of no mask yet.
    pub fn new(set: &LabeledDataset) -> Self {
        let table = set.classes();
        let mapping = set.mapping();
        let listed = mapping.and_then(|mapping| mapping.class_file().ignored_text());
        Self {
            masks: 0,
            classes: vec![0; table.count()],
            ignored: 0,
            ignored_ids: BTreeMap::new(),
            table,
            void_is_listed: listed.is_some_and(|ids| ids.split(", ").any(|id| id == "255")),
            origin: mapping.map(|mapping| mapping.origin().clone()),
        }
    }

    /// Adds a mask.
    pub fn add(&mut self, counts: &MaskCounts) {
        self.masks += 1;
        for (sum, count) in self.classes.iter_mut().zip(&counts.classes) {
            *sum += count;
        }
        self.ignored += counts.ignored;
        for (&id, pixels) in &counts.ignored_ids {
            *self.ignored_ids.entry(id).or_default() += pixels;
        }
    }

    fn merge(&mut self, other: &Self) {
        self.masks += other.masks;
        for (sum, count) in self.classes.iter_mut().zip(&other.classes) {
            *sum += count;
        }
        self.ignored += other.ignored;
        for (&id, pixels) in &other.ignored_ids {
            *self.ignored_ids.entry(id).or_default() += pixels;
        }
    }

    /// Returns the number of pixels with a class.
    pub fn labeled(&self) -> u64 {
        self.classes.iter().sum()
    }

    /// Returns the classes without a pixel.
    pub fn absent(&self) -> Vec<&Class> {
        let classes = self.table.classes().iter().zip(&self.classes);
        classes.filter(|(_, pixels)| **pixels == 0).map(|(class, _)| class).collect()
    }

    /// Describes the ignored pixels, such as `25.5 % of the pixels are ignored (ids 0, 255)`;
    /// `None` if there are none.
    pub fn ignored_text(&self) -> Option<String> {
        let share = self.share(self.ignored);
        let ids: Vec<String> = self.ignored_ids.keys().map(ToString::to_string).collect();
        let word = if ids.len() == 1 { "id" } else { "ids" };
        let ids =
            if ids.is_empty() { String::new() } else { format!(" ({word} {})", ids.join(", ")) };
        (self.ignored > 0).then(|| format!("{share:.1} % of the pixels are ignored{ids}"))
    }

    /// Names the classes without a pixel in the masks of `list`, and what may be the reason; `None` if
    /// every class has one.
    pub fn absent_text(&self, list: &str) -> Option<String> {
        let absent = self.absent();
        let names: Vec<String> = absent
            .iter()
            .map(|class| format!("`{}` (id {})", class.name, class.source_id))
            .collect();
        let first = absent.first()?;
        let word = if absent.len() == 1 { "the class" } else { "the classes" };
        let masks = if self.masks == 1 { "mask" } else { "masks" };
        let mut text = format!(
            "{word} {} has no labeled pixel in the {} {masks} of {list}",
            names.join(", "),
            self.masks
        );
        if absent.len() > 1 {
            text = text.replacen(" has no ", " have no ", 1);
        }
        if let Some((path, void)) = self.unsaid_void() {
            text.push_str(&format!(
                "; {:.1} % of the pixels are 255, which counts for nothing: are these masks of 0 and \
                 255? then write `255 {}` in {}, or else `255 ignore`",
                self.share(void),
                first.name,
                path.display()
            ));
        }
        Some(text)
    }

    /// Returns true if a class has no pixel while pixels are 255, whose meaning nobody has said: the
    /// masks may be of 0 and 255.
    pub fn may_be_of_0_and_255(&self) -> bool {
        !self.absent().is_empty() && self.unsaid_void().is_some()
    }

    /// The class file and the number of pixels that are 255, which it does not mention.
    fn unsaid_void(&self) -> Option<(&Path, u64)> {
        let Some(ClassOrigin::File(path)) = &self.origin else { return None };
        let void = *self.ignored_ids.get(&IGNORE_INDEX)?;
        (void > 0 && !self.void_is_listed).then_some((path, void))
    }

    /// Names the ids that the class file of a dataset ignores.
    pub fn ignored_by_file(set: &LabeledDataset) -> Option<String> {
        let mapping = set.mapping()?;
        let ids = mapping.class_file().ignored_text()?;
        Some(format!("{} ignores {ids}", mapping.origin()))
    }

    /// Points at classes whose name means void, although they are learned.
    pub fn void_classes(&self) -> Vec<String> {
        let Some(origin) = &self.origin else { return Vec::new() };
        let void = self.table.named_like_void().map(|class| {
            let (id, name) = (class.source_id, &class.name);
            format!(
                "`{name}` is a class like any other; if its pixels count for nothing, write \
                 `{id} ignore` in {origin}"
            )
        });
        void.collect()
    }

    fn share(&self, pixels: u64) -> f64 {
        100.0 * pixels as f64 / (self.labeled() + self.ignored).max(1) as f64
    }
}

/// All masks of a dataset that cannot be read.
#[derive(Debug)]
pub struct LabelFaults {
    /// Number of masks of the dataset.
    pub masks: usize,
    /// The faults, by index of the image.
    pub faults: BTreeMap<usize, LabeledImageError>,
    /// Train ids that the dataset's own ids may have been mistaken for.
    train_ids: Option<usize>,
}

impl std::error::Error for LabelFaults {}

impl LabelFaults {
    /// Faults of so many masks, by the number of the mask.
    pub fn new(
        masks: usize,
        faults: BTreeMap<usize, LabeledImageError>,
        table: &ClassTable,
    ) -> Self {
        let train_ids = (!table.has_train_ids()).then(|| table.count());
        Self { masks, faults, train_ids }
    }
}

impl LabeledDataset {
    /// Path of the mask of an image.
    fn label(&self, index: usize) -> Option<&Path> {
        match self {
            Self::Files { samples, .. } => samples[index].label.as_deref(),
            Self::Synthetic { .. } => None,
        }
    }

    /// Returns the fault of masks whose palettes contradict each other, at the first image of this set
    /// that has one of them.
    pub fn palette_fault(&self, palettes: &PaletteCensus) -> Option<(usize, LabeledImageError)> {
        let fault = palettes.contradiction(self.mapping()?.origin())?;
        let MaskError::PalettesDiffer { path, first, .. } = &fault else { return None };
        let is_named =
            |index: &usize| self.label(*index).is_some_and(|label| label == path || label == first);
        let index = (0..self.count()).find(is_named)?;
        Some((index, fault.into()))
    }

    /// Reads all masks and counts their pixels, or else returns all faults. Images are not read.
    pub fn label_census(&self, max_pixels: u64) -> Result<LabelCensus, LabelFaults> {
        let next = AtomicUsize::new(0);
        let result =
            Mutex::new((LabelCensus::new(self), BTreeMap::new(), PaletteCensus::default()));
        let work = || {
            let mut own = LabelCensus::new(self);
            let mut faults = BTreeMap::new();
            let mut palettes = PaletteCensus::default();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= self.count() {
                    break;
                }
                match self.read_labels(index, max_pixels) {
                    Ok(Some(mapped)) => {
                        own.add(&MaskCounts::new(&mapped.labels, Some(&mapped.ids), self));
                        if let Some(path) = self.label(index) {
                            palettes.add(&mapped.palette, path);
                        }
                    }
                    Ok(None) => {}
                    Err(error) => {
                        faults.insert(index, error);
                    }
                }
            }
            // A thread that panicked is passed on by the scope.
            let mut result = result.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            result.0.merge(&own);
            result.1.append(&mut faults);
            result.2.merge(palettes);
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..threads.min(self.count()) {
                scope.spawn(work);
            }
        });
        let (census, mut faults, palettes) =
            result.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        faults.extend(self.palette_fault(&palettes));
        if faults.is_empty() {
            return Ok(census);
        }
        Err(LabelFaults::new(self.count(), faults, &self.classes()))
    }
}

/// Pixels and files of a value that has no meaning.
#[derive(Default)]
struct Occurrence {
    pixels: u64,
    files: usize,
    example: PathBuf,
}

impl Occurrence {
    fn add(&mut self, pixels: u64, path: &Path) {
        self.pixels += pixels;
        self.files += 1;
        path.clone_into(&mut self.example);
    }

    fn text(&self) -> String {
        let pixels = count(self.pixels);
        match self.files {
            1 => format!("{pixels} in {}", self.example.display()),
            files => format!("{pixels} in {files} files"),
        }
    }
}

/// Other faults that a message names.
const NAMED: usize = 5;

impl std::fmt::Display for LabelFaults {
    /// One line: equal faults are joined.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(only) = self.faults.values().next().filter(|_| self.faults.len() == 1) {
            // Names the place in the file.
            let hint = match only {
                LabeledImageError::Mask(MaskError::Ids { ids, .. }) => {
                    self.train_ids_hint(ids.iter().map(|unknown| unknown.id))
                }
                _ => None,
            };
            return write!(formatter, "{only}{}", hint.unwrap_or_default());
        }
        let mut ids: BTreeMap<u32, Occurrence> = BTreeMap::new();
        let mut per_class = None;
        let mut colors: HashMap<[u8; 3], Occurrence> = HashMap::new();
        let mut uncolored: (Option<&ClassOrigin>, HashMap<[u8; 3], Occurrence>) =
            Default::default();
        let mut palettes: Vec<&LabeledImageError> = Vec::new();
        let mut others: Vec<&LabeledImageError> = Vec::new();
        let mut source = None;
        for fault in self.faults.values() {
            match fault {
                LabeledImageError::Mask(MaskError::Ids {
                    path,
                    ids: unknown,
                    per_class: by,
                    origin,
                }) => {
                    source = Some((origin, IGNORE_INDEX));
                    per_class = per_class.or(*by);
                    for &UnknownId { id, pixels, .. } in unknown {
                        ids.entry(id).or_default().add(pixels, path);
                    }
                }
                LabeledImageError::Mask(MaskError::Colors {
                    path,
                    colors: unknown,
                    void,
                    origin,
                }) => {
                    source = Some((origin, *void));
                    for &(color, pixels) in unknown {
                        colors.entry(color).or_default().add(pixels, path);
                    }
                }
                LabeledImageError::Mask(MaskError::NoColors { path, colors, origin }) => {
                    uncolored.0.get_or_insert(origin);
                    for &(color, pixels) in colors {
                        uncolored.1.entry(color).or_default().add(pixels, path);
                    }
                }
                LabeledImageError::Mask(MaskError::Palette { .. }) => palettes.push(fault),
                _ => others.push(fault),
            }
        }
        let mut parts = Vec::new();
        if let Some((origin, void)) = source {
            parts.extend(self.ids_text(&ids, per_class, origin));
            parts.extend(colors_text(&colors, origin, void));
        }
        if let (Some(origin), colors) = &uncolored {
            parts.push(format!(
                "the masks hold the colors {}, and {origin} gives no class a color; {NO_COLORS}",
                occurrences(colors).1
            ));
        }
        if let Some(first) = palettes.first() {
            parts.push(format!("{first}; so in {} of {} masks", palettes.len(), self.masks));
        }
        let more = others.len().saturating_sub(NAMED);
        parts.extend(others.iter().take(NAMED).map(|fault| fault.fact()));
        if more > 0 {
            parts.push(format!("and {more} more of {} masks cannot be read", self.masks));
        }
        // Each way out once, after all that it is for.
        let mut ways: Vec<String> = others.iter().filter_map(|fault| fault.way_out()).collect();
        ways.sort();
        ways.dedup();
        parts.extend(ways);
        formatter.write_str(&parts.join("; "))
    }
}

impl LabelFaults {
    fn ids_text(
        &self,
        ids: &BTreeMap<u32, Occurrence>,
        per_class: Option<u32>,
        origin: &ClassOrigin,
    ) -> Option<String> {
        let (&last, _) = ids.last_key_value()?;
        let named = if last > u32::from(u8::MAX) { NAMED_WIDE } else { ids.len() };
        let listed: Vec<String> =
            ids.iter().take(named).map(|(id, found)| format!("{id} ({})", found.text())).collect();
        let more = ids.len().saturating_sub(named);
        let more = if more > 0 { format!(" and {more} more up to {last}") } else { String::new() };
        let verb = if ids.len() == 1 { "the id" } else { "the ids" };
        let are = if ids.len() == 1 { "is neither a class" } else { "are neither classes" };
        let way = origin.way_out_of_ids(ids.keys().copied(), per_class);
        let hint = self.train_ids_hint(ids.keys().copied()).unwrap_or_default();
        Some(format!(
            "in the masks, {verb} {}{more} {are} of {origin} nor ignored; {way}{hint}",
            listed.join(", ")
        ))
    }

    fn train_ids_hint(&self, mut ids: impl Iterator<Item = u32>) -> Option<String> {
        let classes = self.train_ids.filter(|&classes| ids.all(|id| (id as usize) < classes))?;
        Some(format!(
            "; if these are train ids, 0 to {}, use the files of `label --format labelids`",
            classes - 1
        ))
    }
}

/// Colors with their pixels, the most frequent first, and the text that lists them.
fn occurrences(colors: &HashMap<[u8; 3], Occurrence>) -> (Vec<([u8; 3], u64)>, String) {
    let sorted =
        most_frequent(colors.iter().map(|(color, found)| (*color, found.pixels)).collect());
    let text = |color: &[u8; 3]| colors.get(color).map_or_else(String::new, Occurrence::text);
    let listed = list_colors(sorted.iter().map(|(color, _)| (*color, text(color))));
    (sorted, listed)
}

fn colors_text(
    colors: &HashMap<[u8; 3], Occurrence>,
    origin: &ClassOrigin,
    void: u8,
) -> Option<String> {
    let (sorted, listed) = occurrences(colors);
    sorted.first()?;
    let unknown: Vec<[u8; 3]> = sorted.iter().map(|(color, _)| *color).collect();
    let way = origin.way_out_of_colors(&unknown, void);
    let word = if sorted.len() == 1 { "color" } else { "colors" };
    let are = if sorted.len() == 1 {
        "is neither that of a class"
    } else {
        "are neither those of classes"
    };
    Some(format!("in the masks, the {word} {listed} {are} of {origin} nor ignored; {way}"))
}

#[cfg(test)]
mod tests;
