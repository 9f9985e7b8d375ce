//! Classes of a conversion: those of the annotations, or of a class file, and the one of pixels that
//! no shape covers.

use std::collections::BTreeMap;

use protoseg_models::classes::{
    Class, ClassError, ClassFile, ClassTable, IGNORE_INDEX, is_named_background, means_ignored,
    means_void, voc_color,
};

use super::{Annotations, ConvertError, ConvertOptions, SourceClass, Truth};

/// Name of a class that has none.
const UNNAMED: &str = "unnamed";

/// Gives classes without a name one, and notes names that may not be meant.
pub(super) fn check_names(
    annotations: &mut Annotations,
    file: Option<&ClassFile>,
    options: &ConvertOptions,
) {
    let mut notes = Vec::new();
    let taken =
        |classes: &[SourceClass], name: &str| classes.iter().any(|class| class.name == name);
    for index in 0..annotations.classes.len() {
        if annotations.classes[index].name.is_empty() {
            let mut name = UNNAMED.to_owned();
            while taken(&annotations.classes, &name) {
                name.push('_');
            }
            notes.push(format!("a class without a name is called `{name}`"));
            annotations.classes[index].name = name;
        }
    }
    let mut alike: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let plain = |name: &str| {
        let words: Vec<&str> =
            name.split(|letter: char| letter.is_whitespace() || "_-".contains(letter)).collect();
        words.join(" ").trim().to_lowercase()
    };
    for class in &annotations.classes {
        alike.entry(plain(&class.name)).or_default().push(&class.name);
        let name = &class.name;
        let is_ignored = options.ignore.contains(name) || is_ignored_by(file, name);
        if is_ignored || file.is_some() {
            continue;
        }
        if means_nothing_by_name(name) {
            notes.push(format!("`{name}` counts for nothing, by its name"));
        } else if means_void(name) {
            notes.push(format!(
                "`{name}` is a class like any other; if its pixels count for nothing, give --ignore \
                 '{name}'"
            ));
        }
    }
    for names in alike.into_values().filter(|names| names.len() > 1) {
        notes.push(format!(
            "{} are classes of their own; if they are one, give them one name in the annotations",
            quoted(&names).join(" and ")
        ));
    }
    annotations.notes.extend(notes);
}

fn quoted(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("`{name}`")).collect()
}

/// True for names that say that their pixels count for nothing.
fn means_nothing_by_name(name: &str) -> bool {
    name == "__ignore__" || means_ignored(name)
}

/// True for names on a line of a class file that ignores its ids.
fn is_ignored_by(file: Option<&ClassFile>, name: &str) -> bool {
    file.is_some_and(|file| file.ignored.iter().any(|line| line.name.as_deref() == Some(name)))
}

/// Returns the classes to have, the train id of each class of the annotations, and that of pixels
/// that no shape covers.
pub(super) fn decide(
    annotations: &Annotations,
    file: Option<&ClassFile>,
    options: &ConvertOptions,
) -> Result<(ClassTable, Vec<u8>, u8), ConvertError> {
    let classes = &annotations.classes;
    let names = || classes.iter().map(|class| class.name.clone()).collect::<Vec<_>>();
    let is_in_file = |name: &str| {
        file.is_some_and(|file| file.table.classes().iter().any(|own| own.name == name))
    };
    for name in &options.ignore {
        if !classes.iter().any(|class| class.name == *name) && !is_in_file(name) {
            let (option, name, classes) = ("ignore", name.clone(), names());
            return Err(ConvertError::NoSuchClass { option, name, classes });
        }
    }
    let is_chosen = |name: &str| options.ignore.iter().any(|ignored| ignored == name);
    let is_background = |name: &str| options.background.as_deref() == Some(name);
    let is_ignored = |name: &str| {
        let by_name = file.is_none() && means_nothing_by_name(name) && !is_background(name);
        is_chosen(name) || by_name || is_ignored_by(file, name)
    };
    let table = match file {
        Some(file) => file.table.clone(),
        None => make_table(classes, &is_ignored, options.background.as_deref())?,
    };
    let train_id = |name: &str| {
        let find = |matches: &dyn Fn(&str) -> bool| {
            table.classes().iter().position(|class| matches(&class.name))
        };
        // Programs write the background in several ways.
        let index = find(&|own| own == name)
            .or_else(|| find(&|own| is_named_background(own) && is_named_background(name)))?;
        u8::try_from(index).ok()
    };
    let means_nothing = |name: &str| {
        let by_name = means_nothing_by_name(name) || is_named_background(name);
        is_ignored(name) || by_name || name.starts_with("void")
    };
    let known = |name: &str| train_id(name).is_some() || means_nothing(name);
    let missing: Vec<String> = names().into_iter().filter(|name| !known(name)).collect();
    if !missing.is_empty() {
        return Err(ConvertError::MissingClasses(missing));
    }
    let label = |name: &str| {
        if is_ignored(name) { IGNORE_INDEX } else { train_id(name).unwrap_or(IGNORE_INDEX) }
    };
    let labels = classes.iter().map(|class| label(&class.name)).collect();
    let uncovered = match &options.background {
        Some(name) => train_id(name).ok_or_else(|| {
            let classes = table.classes().iter().map(|class| class.name.clone()).collect();
            ConvertError::NoSuchClass { option: "background", name: name.clone(), classes }
        })?,
        None => {
            let background =
                table.classes().iter().position(|class| is_named_background(&class.name));
            let is_free = |index: usize| {
                let name = &table.classes()[index].name;
                !annotations.draws(name) && !is_chosen(name)
            };
            let free = background.filter(|&index| is_free(index));
            free.and_then(|index| u8::try_from(index).ok()).unwrap_or(IGNORE_INDEX)
        }
    };
    Ok((table, labels, uncovered))
}

impl Annotations {
    /// Returns true if a shape or segment has the class.
    fn draws(&self, name: &str) -> bool {
        let Some(class) = self.classes.iter().position(|class| class.name == name) else {
            return false;
        };
        self.items.iter().any(|item| match &item.truth {
            Truth::Shapes { shapes, .. } => {
                shapes.iter().any(|(index, _)| usize::from(*index) == class)
            }
            Truth::Panoptic { segments, .. } => {
                segments.values().any(|index| usize::from(*index) == class)
            }
            Truth::Layers { layers, .. } => {
                layers.iter().any(|(index, _)| usize::from(*index) == class)
            }
            Truth::Mask { outside: Some(outside), .. } if usize::from(outside.class) == class => {
                self.has_drawn_background
            }
            Truth::Mask { .. } | Truth::Renumbered { .. } | Truth::Threshold { .. } => true,
            Truth::Broken(_) => false,
        })
    }
}

/// Makes the table of the classes that are not ignored, the background first.
fn make_table(
    classes: &[SourceClass],
    is_ignored: &dyn Fn(&str) -> bool,
    background: Option<&str>,
) -> Result<ClassTable, ConvertError> {
    let background = background.filter(|name| !classes.iter().any(|class| class.name == *name));
    let background = background.map(SourceClass::named);
    let kept = classes.iter().filter(|class| !is_ignored(&class.name));
    let all: Vec<SourceClass> = background.into_iter().chain(kept.cloned()).collect();
    if all.len() < 2 {
        let names: Vec<&str> = all.iter().map(|class| class.name.as_str()).collect();
        return Err(ConvertError::TooFewClasses(quoted(&names)));
    }
    let own_ids: Option<Vec<u8>> = all.iter().map(|class| class.id).collect();
    let class = |(index, class): (usize, &SourceClass)| Class {
        name: class.name.clone(),
        color: class.color.unwrap_or_else(|| voc_color(index)),
        source_id: match &own_ids {
            Some(ids) => ids[index],
            None => u8::try_from(index).unwrap_or(IGNORE_INDEX),
        },
    };
    if all.len() > 255 {
        return Err(ClassError::Count(all.len()).into());
    }
    Ok(ClassTable::try_from(all.iter().enumerate().map(class).collect::<Vec<_>>())?)
}
