//! A mask for each class of an image: `a.car.png`, `car/a.png`, `a/car.png`, or Label Studio's
//! `task-1-annotation-1-by-1-tag-car-0.png`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use image::metadata::Orientation;

use super::detect::{AnnotationSource, mask_folder};
use super::image_index::FoundImage;
use super::{Annotations, ConvertError, Item, Truth};
use crate::dataset::label_file::is_mask_path;
use crate::mask::{Mask, MaskSamples};
use crate::pairing::without_mask_words;

/// Letters between the parts of a name.
const SEPARATORS: [char; 6] = ['/', '.', '_', '-', ' ', '+'];

/// Classes that a note names.
const NAMED: usize = 12;

/// A mask with the image and the class that its name gives.
struct Layer {
    path: PathBuf,
    /// Stem of the image below its folder, or the number of its task.
    image: String,
    class: String,
}

/// Images, and masks of one class each.
struct MaskFiles {
    /// Folder of the masks.
    folder: PathBuf,
    images: Vec<PathBuf>,
    /// Names of the images without their endings.
    stems: Vec<String>,
    masks: Vec<PathBuf>,
}

impl MaskFiles {
    fn find(source: AnnotationSource<'_>) -> Result<Self, ConvertError> {
        let folder = mask_folder(source.input);
        let mut masks = source.masks()?;
        let mut images: Vec<PathBuf> = source.index.all().into_iter().map(PathBuf::from).collect();
        let is_apart =
            source.options.images.is_some() || source.index.has_folder() || folder != source.input;
        if !is_apart {
            // In one folder, endings tell them apart: masks have one that holds ids.
            images.retain(|path| !is_mask_path(path));
            masks.retain(|path| is_mask_path(path));
        }
        let stem = |image: &PathBuf| {
            Path::new(&source.index.name(image)).with_extension("").to_string_lossy().into_owned()
        };
        let stems = images.iter().map(stem).collect();
        Ok(Self { folder, images, stems, masks })
    }
}

/// Returns true if at least half of the masks beside images are named by an image and something else.
pub(super) fn names_images(source: AnnotationSource<'_>) -> Result<bool, ConvertError> {
    let MaskFiles { folder, stems, masks, .. } = MaskFiles::find(source)?;
    let images = ImageStems::new(&stems);
    let is_named = |path: &&PathBuf| {
        let below = path.strip_prefix(&folder).unwrap_or(path).with_extension("");
        images.find(&below.to_string_lossy()).first().is_some_and(|(_, rest)| !rest.is_empty())
    };
    let named = masks.iter().filter(is_named).count();
    Ok(named > 0 && named * 2 >= masks.len())
}

/// Says which classes are taken from names, where no class file lists them.
fn classes_note(layers: &[Layer], folder: &Path) -> Option<String> {
    let mut counts: BTreeMap<&str, (usize, &Path)> = BTreeMap::new();
    for layer in layers {
        counts.entry(&layer.class).or_insert((0, &layer.path)).0 += 1;
    }
    let named = |(class, (count, path)): (&&str, &(usize, &Path))| {
        let masks = if *count == 1 { "mask" } else { "masks" };
        let name = path.strip_prefix(folder).unwrap_or(path).display();
        format!("`{class}` ({count} {masks}, such as {name})")
    };
    let named: Vec<String> = counts.iter().take(NAMED).map(named).collect();
    let more = counts.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!named.is_empty()).then(|| {
        format!("the classes are taken from the names of the masks: {}{more}", named.join(", "))
    })
}

pub(super) fn read(source: AnnotationSource<'_>) -> Result<Annotations, ConvertError> {
    let MaskFiles { folder, images, stems, masks } = &MaskFiles::find(source)?;
    let below = |path: &Path| {
        path.strip_prefix(folder).unwrap_or(path).with_extension("").to_string_lossy().into_owned()
    };
    let mut annotations = Annotations { knows_unlabeled: true, ..Annotations::default() };
    let tasks: Option<Vec<Layer>> =
        masks.iter().map(|path| task_layer(path, &below(path))).collect();
    let layers = match tasks {
        Some(layers) if !layers.is_empty() => by_task(source, layers, stems, &mut annotations)?,
        _ => {
            let known: Vec<&str> = source.class_names().collect();
            let images = ImageStems::new(stems);
            let layer = |path: &PathBuf| named_layer(path, &below(path), &images, &known);
            let named: Vec<Option<Layer>> =
                masks.iter().map(layer).collect::<Result<_, ConvertError>>()?;
            let strange: Vec<&PathBuf> = masks
                .iter()
                .zip(&named)
                .filter(|(_, layer)| layer.is_none())
                .map(|(path, _)| path)
                .collect();
            annotations.note(strange.len(), |count| {
                let masks = if count == 1 { "mask is" } else { "masks are" };
                let first = strange[0].display();
                format!("{count} {masks} named after no image and left out, such as {first}")
            });
            let layers: Vec<Layer> = named.into_iter().flatten().collect();
            annotations.notes.extend(classes_note(&layers, folder).filter(|_| known.is_empty()));
            layers
        }
    };
    for class in source.class_names() {
        annotations.class(class);
    }
    let names: BTreeSet<&str> = layers.iter().map(|layer| layer.class.as_str()).collect();
    for name in names {
        annotations.class(name);
    }
    let mut by_image: BTreeMap<&str, Vec<(u8, PathBuf)>> = BTreeMap::new();
    for layer in &layers {
        let class = annotations.class(&layer.class);
        by_image.entry(&layer.image).or_default().push((class, layer.path.clone()));
    }
    for (image, stem) in images.iter().zip(stems) {
        let Some(mut layers) = by_image.remove(stem.as_str()) else {
            annotations.unlabeled.push((source.index.name(image), image.clone()));
            continue;
        };
        // In the order of the classes, so that the later class counts where masks overlap.
        layers.sort();
        let name = source.index.name(image);
        let (image, origin) = (FoundImage::At(image.clone()), layers[0].1.clone());
        let truth = Truth::Layers { layers, least: source.options.threshold };
        annotations.items.push(Item { name, image, origin, truth });
    }
    Ok(annotations)
}

/// Parses a name of Label Studio: `task-N-annotation-M-by-K-tag-CLASS-I`.
fn task_layer(path: &Path, name: &str) -> Option<Layer> {
    let file = name.rsplit('/').next()?;
    let (task, rest) = file.strip_prefix("task-")?.split_once('-')?;
    let (_, tag) = rest.split_once("-tag-")?;
    let (class, index) = tag.rsplit_once('-')?;
    let numbers = task.parse::<u64>().is_ok() && index.parse::<u64>().is_ok();
    numbers.then(|| Layer { path: path.into(), image: task.to_owned(), class: class.to_owned() })
}

/// Gives tasks their images in order: their names tell no more.
fn by_task(
    source: AnnotationSource<'_>,
    layers: Vec<Layer>,
    stems: &[String],
    annotations: &mut Annotations,
) -> Result<Vec<Layer>, ConvertError> {
    let number = |layer: &Layer| layer.image.parse::<u64>().unwrap_or_default();
    let tasks: BTreeSet<u64> = layers.iter().map(number).collect();
    if tasks.len() != stems.len() {
        return Err(ConvertError::Content {
            path: source.input.into(),
            reason: format!(
                "the masks are of {} tasks and there are {} images, so that their order does not \
                 tell which belong together; export Label Studio's JSON",
                tasks.len(),
                stems.len()
            ),
        });
    }
    let images: BTreeMap<u64, &String> = tasks.into_iter().zip(stems).collect();
    let pairs: Vec<String> =
        images.iter().take(3).map(|(task, stem)| format!("task {task} is {stem}")).collect();
    annotations.notes.push(format!(
        "tasks and images are paired in order, as their names tell no more: {}; Label Studio's JSON \
         would tell",
        pairs.join(", ")
    ));
    let with_image = |layer: Layer| {
        let image = images.get(&number(&layer)).map_or_else(String::new, ToString::to_string);
        Layer { image, ..layer }
    };
    Ok(layers.into_iter().map(with_image).collect())
}

/// Stems of images by their plain spelling.
struct ImageStems<'a>(HashMap<String, Vec<&'a String>>);

impl<'a> ImageStems<'a> {
    fn new(stems: &'a [String]) -> Self {
        let mut by_spelling: HashMap<String, Vec<&String>> = HashMap::new();
        for stem in stems {
            by_spelling.entry(plain(stem)).or_default().push(stem);
        }
        Self(by_spelling)
    }

    /// Stems that a name holds between separators, with the rest of the name; the longest first.
    fn find(&self, name: &str) -> Vec<(&'a String, String)> {
        let spelling = plain(name);
        let starts =
            spelling.char_indices().map(|(at, letter)| (at, at + letter.len_utf8(), letter));
        let cuts: Vec<(usize, usize)> = starts
            .filter(|(.., letter)| SEPARATORS.contains(letter))
            .map(|(start, end, _)| (start, end))
            .collect();
        let begins = std::iter::once(0).chain(cuts.iter().map(|(_, end)| *end));
        let ends = || cuts.iter().map(|(start, _)| *start).chain([spelling.len()]);
        let parts = begins.flat_map(|begin| ends().map(move |end| (begin, end)));
        let parts: BTreeSet<&str> =
            parts.filter_map(|(begin, end)| spelling.get(begin..end)).collect();
        let stems = parts.into_iter().filter_map(|part| self.0.get(part)).flatten();
        let mut found: Vec<(&String, String)> =
            stems.filter_map(|stem| Some((*stem, without(name, stem)?))).collect();
        found.sort_by_key(|(stem, _)| std::cmp::Reverse(stem.len()));
        found
    }
}

/// A name whatever its case and spaces.
fn plain(text: &str) -> String {
    text.to_lowercase().replace([' ', '-'], "_")
}

/// Finds image and class in a name that holds both; `None` if it holds no image.
fn named_layer(
    path: &Path,
    name: &str,
    images: &ImageStems<'_>,
    known: &[&str],
) -> Result<Option<Layer>, ConvertError> {
    let content = |reason: String| ConvertError::Content { path: path.into(), reason };
    // The longest: `street 10` is no mask of `street`.
    let found = images.find(name);
    let (stem, rest) = match &found[..] {
        [] => return Ok(None),
        [(first, _), (second, _), ..] if first.len() == second.len() => {
            // The name of a mask begins with that of its image: `1_car_2` is one of `1`.
            let file = plain(name.rsplit('/').next().unwrap_or(name));
            let begins = |(stem, _): &&(&String, String)| {
                let rest = file.strip_prefix(&*plain(stem));
                stem.len() == first.len() && rest.is_some_and(|rest| rest.starts_with(SEPARATORS))
            };
            let mut begun = found.iter().filter(begins);
            match (begun.next(), begun.next()) {
                (Some((stem, rest)), None) => (*stem, rest),
                _ => {
                    let reason = format!("may be a mask of `{first}` or of `{second}`");
                    return Err(content(reason));
                }
            }
        }
        [(stem, rest), ..] => (*stem, rest),
    };
    let mut classes: Vec<&&str> =
        known.iter().filter(|class| without(rest, class).is_some()).collect();
    classes.sort_by_key(|class| std::cmp::Reverse(class.len()));
    let class = match classes.first() {
        Some(class) => class.to_string(),
        None if known.is_empty() && !rest.is_empty() => class_of(rest),
        None if rest.is_empty() => {
            return Err(content(
                "names no class: a mask for each class is called such as a.car.png or car/a.png"
                    .to_owned(),
            ));
        }
        None => {
            return Err(content(format!("names none of the classes {}", known.join(", "))));
        }
    };
    Ok(Some(Layer { path: path.into(), image: stem.clone(), class }))
}

/// The class in what is left of a name: without the number of a piece, and without a word for masks.
fn class_of(rest: &str) -> String {
    let mut parts: Vec<&str> = rest.split('/').collect();
    let is_filler = |part: &&str| {
        part.parse::<u64>().is_ok()
            || ["mask", "masks", "label", "labels"].contains(&&*part.to_lowercase())
    };
    if parts.iter().any(|part| !is_filler(part)) {
        parts.retain(|part| !is_filler(part));
    }
    let class = parts.join("/");
    without_mask_words(&class).to_owned()
}

/// A name without a part of it that begins and ends at separators, whatever its case and spaces.
fn without(name: &str, part: &str) -> Option<String> {
    let (plain_name, plain_part) = (plain(name), plain(part));
    if plain_name.len() != name.len() || plain_part.is_empty() {
        return None;
    }
    let ends = |text: &str| text.is_empty() || text.ends_with(SEPARATORS);
    let starts = |text: &str| text.is_empty() || text.starts_with(SEPARATORS);
    let (at, _) = plain_name
        .match_indices(&plain_part)
        .find(|(at, _)| ends(&plain_name[..*at]) && starts(&plain_name[at + plain_part.len()..]))?;
    let before = name.get(..at)?.trim_matches(SEPARATORS);
    let after = name.get(at + plain_part.len()..)?.trim_matches(SEPARATORS);
    Some([before, after].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/"))
}

/// Size of a mask of one class, true for its pixels, and the orientation of its file. It has one value
/// besides black.
pub(super) fn set_pixels(
    path: &Path,
    max_pixels: u64,
) -> Result<([usize; 2], Vec<bool>, Orientation), ConvertError> {
    let mask = Mask::read(path, max_pixels)?;
    let (size, orientation) = (mask.size(), mask.orientation);
    let values: Vec<u32> = match mask.samples {
        MaskSamples::Colors(colors) => {
            let number = |[red, green, blue]: [u8; 3]| u32::from_be_bytes([0, red, green, blue]);
            colors.into_iter().map(number).collect()
        }
        ids => ids.into_ids().unwrap_or_default(),
    };
    let found: BTreeSet<u32> = values.iter().copied().filter(|value| *value != 0).collect();
    if found.len() > 1 {
        let listed: Vec<String> = found.iter().take(4).map(ToString::to_string).collect();
        return Err(ConvertError::Content {
            path: path.into(),
            reason: format!(
                "holds {} values besides 0, such as {}, where a mask of one class has one; give \
                 --threshold",
                found.len(),
                listed.join(", ")
            ),
        });
    }
    Ok((size, values.into_iter().map(|value| value != 0).collect(), orientation))
}
