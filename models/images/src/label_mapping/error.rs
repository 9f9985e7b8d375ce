//! The reasons why a mask has no meaning: what was found, and the way out, apart from each other, so that
//! many masks of one fault name the way once.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::{CVAT_LEGEND, ClassOrigin, NAME_LISTS};
use crate::dataset::VOC_WAY_OUT;
use crate::label_map::LabelMapError;

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
    #[error("{}", self.whole())]
    Ids { path: PathBuf, ids: Vec<UnknownId>, per_class: Option<u32>, origin: ClassOrigin },
    /// Colors that are neither those of classes nor ignored, all of them, the most frequent first.
    #[error("{}", self.whole())]
    Colors { path: PathBuf, colors: Vec<([u8; 3], u64)>, void: u8, origin: ClassOrigin },
    /// Colors, while the classes have none; all of them, the most frequent first.
    #[error("{}", self.whole())]
    NoColors { path: PathBuf, colors: Vec<([u8; 3], u64)>, origin: ClassOrigin },
    /// Gray values in three equal channels, while the classes have colors and some value is none of
    /// these; values with their pixels, in ascending order.
    #[error("{}", self.whole())]
    GrayColors { path: PathBuf, values: Vec<(u8, u64)>, origin: ClassOrigin },
    /// A color of two classes.
    #[error("{}", self.whole())]
    SharedColor {
        path: PathBuf,
        color: [u8; 3],
        first: String,
        second: String,
        origin: ClassOrigin,
    },
    /// A palette that holds the colors of the classes in another order.
    #[error("{}", self.whole())]
    Palette {
        path: PathBuf,
        index: u8,
        color: [u8; 3],
        drawn: String,
        class: String,
        own_color: [u8; 3],
        origin: ClassOrigin,
    },
    /// Palettes that draw one color under several indices, while the classes have no colors; `masks`
    /// are the numbers of those with `index` and with `first_index`.
    #[error("{}", self.whole())]
    PalettesDiffer {
        path: PathBuf,
        index: u8,
        first: PathBuf,
        first_index: u8,
        masks: [usize; 2],
        color: [u8; 3],
        origin: ClassOrigin,
    },
    /// Train ids of other classes.
    #[error("{}", self.whole())]
    TrainIds { path: PathBuf, classes: Vec<String>, origin: ClassOrigin },
    /// A file that cannot be read.
    #[error(transparent)]
    File(#[from] LabelMapError),
}

/// The way out of colors where the class file has none.
pub(crate) const NO_COLORS: &str =
    "write `id name red green blue` on its lines, or save the masks as ids in gray PNG";

impl MaskError {
    fn whole(&self) -> String {
        match self.way_out() {
            Some(way) => format!("{}; {way}", self.fact()),
            None => self.fact(),
        }
    }

    /// Returns what was found, without the way out.
    pub fn fact(&self) -> String {
        match self {
            Self::Ids { path, ids, .. } => format!("{}: {}", path.display(), unknown_ids(ids)),
            Self::Colors { path, colors, .. } => {
                let (noun, neither) = if colors.len() == 1 {
                    ("color", "is neither that of a class")
                } else {
                    ("colors", "are neither those of classes")
                };
                let colors = counted_colors(colors);
                format!("{}: the {noun} {colors} {neither} nor ignored", path.display())
            }
            Self::NoColors { path, colors, origin } => format!(
                "{} holds the colors {}, and {origin} gives no class a color",
                path.display(),
                counted_colors(colors)
            ),
            Self::GrayColors { path, values, origin } => {
                let listed: Vec<String> = values
                    .iter()
                    .take(NAMED)
                    .map(|(value, pixels)| format!("{value} ({})", count(*pixels)))
                    .collect();
                let more = values.len().saturating_sub(NAMED);
                let last = values.last().map_or(0, |(value, _)| *value);
                let more =
                    if more > 0 { format!(" and {more} more up to {last}") } else { String::new() };
                format!(
                    "{}: all pixels are gray, with red, green and blue the same: {}{more}, which look like \
                     ids saved as RGB and are not the colors of {origin}",
                    path.display(),
                    listed.join(", ")
                )
            }
            Self::SharedColor { path, color, first, second, origin } => format!(
                "{}: the color {} is that of `{first}` and of `{second}` in {origin}",
                path.display(),
                rgb(*color)
            ),
            Self::Palette { path, index, color, drawn, class, own_color, origin } => format!(
                "{}: index {index} is drawn in {}, which is `{drawn}` in {origin}, and {index} is \
                 `{class}` there, {}: the palette was put in another order",
                path.display(),
                rgb(*color),
                rgb(*own_color)
            ),
            Self::PalettesDiffer { path, index, first, first_index, masks, color, origin } => {
                format!(
                    "{}: the color {} is the index {index} here and {first_index} in {}: the palettes \
                     differ ({} {index}, {} {first_index}), and {origin} gives no class a color, so that \
                     neither says which class it is",
                    path.display(),
                    rgb(*color),
                    first.display(),
                    masks_have(masks[0]),
                    masks_have(masks[1]),
                )
            }
            Self::TrainIds { path, classes, origin } => format!(
                "{} holds the train ids of the classes {}, which are not those of {origin}",
                path.display(),
                classes.join(", ")
            ),
            Self::File(error) => error.to_string(),
        }
    }

    /// Returns what can be done; `None` where the fact says it.
    pub fn way_out(&self) -> Option<String> {
        Some(match self {
            Self::Ids { ids, per_class, origin, .. } => {
                origin.way_out_of_ids(ids.iter().map(|unknown| unknown.id), *per_class)
            }
            Self::Colors { colors, void, origin, .. } => {
                let unknown: Vec<[u8; 3]> = colors.iter().map(|(color, _)| *color).collect();
                origin.way_out_of_colors(&unknown, *void)
            }
            Self::NoColors { .. } => NO_COLORS.to_owned(),
            Self::GrayColors { origin, .. } => format!(
                "if they are ids, save the masks with one channel (`Image.open(a).convert(\"L\").save(a)`), \
                 or take the colors out of {origin}; if they are colors, write these on its lines, with \
                 `ignore` where they count for nothing"
            ),
            Self::SharedColor { .. } => "give each its own".to_owned(),
            Self::Palette { origin, .. } => format!(
                "save the mask as RGB, or with the palette in the order of the ids, or take the colors \
                 out of {origin} if the indices are right"
            ),
            Self::PalettesDiffer { .. } => {
                "write `id name red green blue` on its lines and save the masks as RGB, whose colors then \
                 decide, or save them as gray PNG if the indices are right"
                    .to_owned()
            }
            Self::TrainIds { .. } => "use the files of `label --format labelids`".to_owned(),
            Self::File(_) => return None,
        })
    }
}

fn masks_have(masks: usize) -> String {
    if masks == 1 { "1 mask has".to_owned() } else { format!("{masks} masks have") }
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
            Self::File(path) if path.extension().is_some_and(|ending| ending == "csv") => format!(
                "if they count for nothing, add a row of the name `ignore` for each to {}, or else rows \
                 of their classes",
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
            Self::BuiltIn("Pascal VOC") => {
                format!("these are not the label files of Pascal VOC; {VOC_WAY_OUT}")
            }
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

/// Colors that a message names.
const NAMED: usize = 8;
/// Ids that a message names where some are above 255; there may be one for each object.
pub(crate) const NAMED_WIDE: usize = 16;

fn unknown_ids(ids: &[UnknownId]) -> String {
    let one = ids.len() == 1;
    let mut text = String::from(if one { "the id " } else { "the ids " });
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
    let neither = if one { "is neither a class nor" } else { "are neither classes nor" };
    format!("{text} {neither} ignored")
}

fn counted_colors(colors: &[([u8; 3], u64)]) -> String {
    list_colors(colors.iter().map(|&(color, pixels)| (color, count(pixels))))
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
