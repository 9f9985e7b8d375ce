//! Options of the annotation formats of `protoseg label`, and their names in the journal.

use anyhow::{Context, Result};
use protoseg_images::formats::AnnotationOptions;
use protoseg_models::classes::ClassTable;

/// Choices for files of all images.
#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
pub(crate) struct AnnotationArgs {
    /// Leave classes out of coco, cvat and labelstudio: names, comma-separated
    #[arg(
        long,
        aliases = ["classes-out", "skip"],
        value_name = "CLASS",
        value_delimiter = ',',
        help_heading = "Output"
    )]
    skip_classes: Vec<String>,
    /// Write an annotation for each connected piece of a class into coco.json, instead of one for
    /// the class
    #[arg(long, help_heading = "Output")]
    coco_pieces: bool,
    /// Annotate the class `background` in cvat.zip too, for tasks with such a label
    #[arg(long, help_heading = "Output")]
    cvat_background: bool,
}

/// Beginning of the journal's name of a class that is left out.
const SKIPPED: &str = "skip-classes=";
const COCO_PIECES: &str = "coco-pieces";
const CVAT_BACKGROUND: &str = "cvat-background";

impl AnnotationArgs {
    /// The options by train ids; fails if a class is unknown.
    pub(crate) fn options(&self, classes: &ClassTable) -> Result<AnnotationOptions> {
        let train_id = |name: &String| {
            let found = classes.classes().iter().position(|class| class.name == *name);
            found.and_then(|index| u8::try_from(index).ok()).with_context(|| {
                let known = classes.classes().iter().map(|class| class.name.as_str());
                format!(
                    "--skip-classes {name}: the model has no such class; it has {}",
                    known.collect::<Vec<_>>().join(", ")
                )
            })
        };
        Ok(AnnotationOptions {
            skipped: self.skip_classes.iter().map(train_id).collect::<Result<_>>()?,
            coco_pieces: self.coco_pieces,
            cvat_background: self.cvat_background,
        })
    }

    /// True if the class `background` is asked for or left out by name.
    pub(super) fn says_background(&self) -> bool {
        let is_background = |name: &String| name.eq_ignore_ascii_case("background");
        self.cvat_background || self.skip_classes.iter().any(is_background)
    }

    /// Names of the choices that differ from the defaults.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        let skipped = self.skip_classes.iter().map(|name| format!("{SKIPPED}{name}"));
        let flags = [(self.coco_pieces, COCO_PIECES), (self.cvat_background, CVAT_BACKGROUND)];
        let flags = flags.into_iter().filter(|(chosen, _)| *chosen);
        skipped.chain(flags.map(|(_, name)| name.to_owned()))
    }

    /// Restores a choice by its name; false if it is none.
    pub(super) fn restore(&mut self, name: &str) -> bool {
        match name {
            COCO_PIECES => self.coco_pieces = true,
            CVAT_BACKGROUND => self.cvat_background = true,
            _ => match name.strip_prefix(SKIPPED) {
                Some(class) => self.skip_classes.push(class.to_owned()),
                None => return false,
            },
        }
        true
    }
}
