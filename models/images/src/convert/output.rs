//! Converted annotations as files: a folder dataset, or an annotation file of another program.

use std::path::{Component, Path, PathBuf};

use protoseg_models::atomic;
use protoseg_models::errors::FileError;

use super::{Conversion, ConvertError, Drawn, Item};
use crate::formats::{
    AnnotationFormat, AnnotationOptions, FormatError, ImageLabels, png_name, pseudo_labels,
};

/// Pixels of converted label maps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConversionCounts {
    /// Number of images.
    pub images: usize,
    /// Pixels of each class, by train id.
    pub classes: Vec<u64>,
    /// Pixels without a class.
    pub ignored: u64,
    /// Pixels that no shape covers.
    pub uncovered: u64,
    /// Pixels where a shape hides one of another class.
    pub overlapping: u64,
}

impl ConversionCounts {
    /// Returns the number of pixels.
    pub fn pixels(&self) -> u64 {
        self.classes.iter().sum::<u64>() + self.ignored
    }

    fn add(&mut self, drawn: &Drawn) {
        self.images += 1;
        for &label in &drawn.map.labels {
            match self.classes.get_mut(usize::from(label)) {
                Some(count) => *count += 1,
                None => self.ignored += 1,
            }
        }
        self.uncovered += drawn.uncovered;
        self.overlapping += drawn.overlapping;
    }
}

impl Conversion {
    fn counts(&self) -> ConversionCounts {
        ConversionCounts { classes: vec![0; self.table.count()], ..ConversionCounts::default() }
    }

    /// Writes a dataset of the kind `folder`, which appears whole or not at all: `images` (hard links
    /// where they can be made), `labels`, `classes.txt`, `all.txt` and the lists of the annotations.
    /// `observe` is called after each image.
    pub fn write_folder(
        &self,
        out: &Path,
        observe: impl Fn(),
    ) -> Result<ConversionCounts, ConvertError> {
        let class_file = pseudo_labels::class_file(&self.table)?;
        let mut counts = self.counts();
        let at_out = FileError::at(out);
        let written = atomic::write_folder(out, &[], |folder| -> Result<(), ConvertError> {
            write(folder, "classes.txt", class_file.as_bytes())?;
            let items = &self.annotations.items;
            let mut failed = Vec::new();
            for item in items {
                match self.draw(item) {
                    Ok(drawn) => {
                        counts.add(&drawn);
                        self.write_item(folder, item, drawn)?;
                    }
                    // The others are tried too, so that all faults are known at once.
                    Err(error) => failed.push(error),
                }
                observe();
            }
            if let Some(error) = several(failed, items.len()) {
                return Err(error);
            }
            let line = |item: &Item| format!("images/{}\n", item.name);
            write(folder, "all.txt", items.iter().map(line).collect::<String>().as_bytes())?;
            for (name, list) in &self.annotations.lists {
                let lines: String = list.iter().filter_map(|&at| items.get(at)).map(line).collect();
                write(folder, format!("{name}.txt"), lines.as_bytes())?;
            }
            Ok(())
        });
        written.map_err(|error| match error {
            ConvertError::Write(source) => at_out(source).into(),
            other => other,
        })?;
        Ok(counts)
    }

    fn write_item(&self, folder: &Path, item: &Item, drawn: Drawn) -> Result<(), ConvertError> {
        let is_plain =
            Path::new(&item.name).components().all(|part| matches!(part, Component::Normal(_)));
        let image = item.image.as_deref().filter(|_| is_plain);
        let image = image.ok_or_else(|| ConvertError::MissingImage {
            name: item.name.clone(),
            annotations: folder.into(),
        })?;
        let mut map = drawn.map;
        let void = self.table.void_id();
        for label in &mut map.labels {
            let class = self.table.classes().get(usize::from(*label));
            *label = class.map_or(void, |class| class.source_id);
        }
        let label = Path::new("labels").join(png_name(Path::new(&item.name)));
        write(folder, &label, &map.ids_png()?)?;
        let place = folder.join("images").join(&item.name);
        let at_place = FileError::at(&place);
        std::fs::create_dir_all(place.parent().unwrap_or(folder)).map_err(&at_place)?;
        // A link into an unpacked archive would end with it.
        let linked = self.unpacked.is_none()
            && image.canonicalize().and_then(|image| std::fs::hard_link(image, &place)).is_ok();
        if !linked {
            std::fs::copy(image, &place).map_err(&at_place)?;
        }
        Ok(())
    }

    /// Writes an annotation file of another program.
    pub fn write_annotations(
        &self,
        format: AnnotationFormat,
        path: &Path,
        observe: impl Fn(),
    ) -> Result<ConversionCounts, ConvertError> {
        let options = AnnotationOptions::default();
        format.check(&self.table, &options)?;
        let names: Vec<PathBuf> =
            self.annotations.items.iter().map(|item| item.name.as_str().into()).collect();
        let count = names.len();
        let (kept, lines) = format.select_names(names);
        if kept.len() < count {
            return Err(ConvertError::Names(lines.join("; ")));
        }
        let mut counts = self.counts();
        let mut failed = None;
        let images = self.annotations.items.iter().map_while(|item| match self.draw(item) {
            Ok(drawn) => {
                counts.add(&drawn);
                observe();
                let name = item.name.as_str().into();
                Some(Ok(ImageLabels { name, map: drawn.map, confidence: None }))
            }
            Err(error) => {
                let text = error.to_string();
                failed = Some(error);
                // The writer must not finish the file.
                Some(Err(FormatError::Write(std::io::Error::other(text))))
            }
        });
        let written = format.write(path, images, &self.table, &options);
        match failed {
            Some(error) => Err(error),
            None => Ok(written.map(|()| counts)?),
        }
    }
}

/// The first of some errors, with the number of the others.
fn several(errors: Vec<ConvertError>, images: usize) -> Option<ConvertError> {
    let more = errors.len().saturating_sub(1);
    let first = errors.into_iter().next()?;
    if more == 0 {
        return Some(first);
    }
    Some(ConvertError::Several { first: Box::new(first), more, images })
}

fn write(folder: &Path, name: impl AsRef<Path>, bytes: &[u8]) -> Result<(), ConvertError> {
    let path = folder.join(name);
    let at_path = FileError::at(&path);
    std::fs::create_dir_all(path.parent().unwrap_or(folder)).map_err(&at_path)?;
    Ok(std::fs::write(&path, bytes).map_err(&at_path)?)
}
