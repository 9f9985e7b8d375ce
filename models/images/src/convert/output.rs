//! Converted annotations as files: a folder dataset, or an annotation file of another program.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use protoseg_models::atomic;
use protoseg_models::errors::FileError;

use super::counts::ConversionCounts;
use super::draw::{Drawn, mask_fault};
use super::{Conversion, ConvertError, Item};
use crate::formats::{
    AnnotationFormat, AnnotationOptions, FormatError, ImageLabels, png_name, pseudo_labels,
};
use crate::id_map::IdMapError;
use crate::label_census::LabelFaults;
use crate::label_mapping::ClassOrigin;
use crate::labeled::LabeledImageError;
use crate::palettes::PaletteCensus;

/// Errors of the images of a conversion.
#[derive(Default)]
struct ConversionFaults {
    /// Images that cost themselves.
    failed: Vec<ConvertError>,
    /// Masks with ids or colors that have no meaning, by item.
    masks: BTreeMap<usize, LabeledImageError>,
    /// Ids without new ones, with their pixels and masks.
    ids: BTreeMap<u32, [u64; 2]>,
    /// Palettes of the masks, with the place of their classes.
    palettes: PaletteCensus,
    origin: Option<ClassOrigin>,
}

impl ConversionFaults {
    fn add(&mut self, index: usize, error: ConvertError) {
        match mask_fault(error) {
            Ok(error) => {
                self.masks.insert(index, error.into());
            }
            Err(ConvertError::IdMap(IdMapError::Unknown { ids, .. })) => {
                for (id, [pixels, masks]) in ids {
                    let sum = self.ids.entry(id).or_default();
                    *sum = [sum[0] + pixels, sum[1] + masks];
                }
            }
            Err(error) => self.failed.push(error),
        }
    }

    /// Adds the palette of a mask that was read.
    fn add_palette(&mut self, drawn: &Drawn) {
        if let Some((path, origin, palette)) = &drawn.palette {
            self.palettes.add(palette, path);
            self.origin.get_or_insert_with(|| origin.clone());
        }
    }

    /// True if the conversion goes on without some images.
    fn are_of_images(&self) -> bool {
        self.masks.is_empty() && self.ids.is_empty()
    }

    /// Fails with an error that concerns all images, or all of them one by one; else adds the errors to
    /// the counts.
    fn finish(
        mut self,
        conversion: &Conversion,
        counts: &mut ConversionCounts,
    ) -> Result<(), ConvertError> {
        let images = conversion.count();
        if let Some(error) =
            self.origin.as_ref().and_then(|origin| self.palettes.contradiction(origin))
        {
            // Behind the faults of single masks.
            self.masks.insert(usize::MAX, error.into());
        }
        if !self.masks.is_empty() {
            let faults = LabelFaults::new(images, self.masks, &conversion.table);
            return Err(ConvertError::Masks(Box::new(faults)));
        }
        if !self.ids.is_empty() {
            let path = conversion.options.map.clone().unwrap_or_default();
            return Err(IdMapError::Unknown { path, ids: self.ids }.into());
        }
        conversion.check_threshold(counts)?;
        if counts.images > 0 {
            counts.failed = self.failed;
            return Ok(());
        }
        let more = self.failed.len().saturating_sub(1);
        let mut failed = self.failed.into_iter();
        match failed.next() {
            Some(first) if more > 0 => {
                Err(ConvertError::Several { first: Box::new(first), more, images })
            }
            Some(first) => Err(first),
            None => Ok(()),
        }
    }
}

impl Conversion {
    /// Writes a dataset of the kind `folder`, which appears whole or not at all: `images` (hard links
    /// where they can be made), `labels`, `classes.txt`, `all.txt` and the lists of the annotations.
    /// Images that cannot be converted are left out and counted, unless they are all. `observe` is
    /// called after each image.
    pub fn write_folder(
        &self,
        out: &Path,
        observe: impl Fn(),
    ) -> Result<ConversionCounts, ConvertError> {
        let mut counts = ConversionCounts::new(self.table.count());
        let class_file = pseudo_labels::class_file(&self.table)?;
        let at_out = FileError::at(out);
        let written = atomic::write_folder(out, &[], |folder| -> Result<(), ConvertError> {
            write(folder, "classes.txt", class_file.as_bytes())?;
            let items = &self.annotations.items;
            let mut faults = ConversionFaults::default();
            let mut is_written = vec![false; items.len()];
            let mut owners: HashMap<PathBuf, &str> = HashMap::new();
            for (index, item) in items.iter().enumerate() {
                // Label maps are named by images without their extensions.
                let label = png_name(Path::new(&item.name));
                let drawn = match owners.get(&label) {
                    Some(first) => {
                        let (first, second) = ((*first).to_owned(), item.name.clone());
                        Err(ConvertError::SameLabel { first, second })
                    }
                    None => self.draw(item),
                };
                match drawn {
                    Ok(drawn) if item.image.path().is_none() => {
                        drop(drawn);
                        faults.add(index, item.missing_image());
                    }
                    Ok(drawn) => {
                        counts.add(item, &drawn);
                        faults.add_palette(&drawn);
                        if faults.are_of_images() {
                            self.write_item(folder, item, drawn)?;
                        }
                        is_written[index] = true;
                        owners.insert(label, &item.name);
                    }
                    // The others are tried too, so that all faults are known at once.
                    Err(error) => faults.add(index, error),
                }
                observe();
            }
            faults.finish(self, &mut counts)?;
            self.write_unlabeled(folder)?;
            self.write_lists(folder, &is_written)
        });
        written.map_err(|error| match error {
            ConvertError::Write(source) => at_out(source).into(),
            other => self.name_files(other),
        })?;
        Ok(self.with_named_files(counts))
    }

    fn write_lists(&self, folder: &Path, is_written: &[bool]) -> Result<(), ConvertError> {
        let items = &self.annotations.items;
        let line = |&index: &usize| {
            let name = &items.get(index).filter(|_| is_written[index])?.name;
            Some(format!("images/{name}\n"))
        };
        let all: String = (0..items.len()).filter_map(|index| line(&index)).collect();
        write(folder, "all.txt", all.as_bytes())?;
        for (name, list) in &self.annotations.lists {
            // These names are taken.
            let taken = ["all", "classes", "unlabeled"];
            let suffix = if taken.contains(&name.as_str()) { "-list" } else { "" };
            let lines: String = list.iter().filter_map(line).collect();
            write(folder, format!("{name}{suffix}.txt"), lines.as_bytes())?;
        }
        Ok(())
    }

    fn write_item(&self, folder: &Path, item: &Item, drawn: Drawn) -> Result<(), ConvertError> {
        let image = item.image.path().ok_or_else(|| item.missing_image())?;
        let mut map = drawn.map;
        let void = self.table.void_id();
        for label in &mut map.labels {
            let class = self.table.classes().get(usize::from(*label));
            *label = class.map_or(void, |class| class.source_id);
        }
        let label = Path::new("labels").join(png_name(Path::new(&item.name)));
        write(folder, &label, &map.ids_png()?)?;
        self.place_image(image, &folder.join("images").join(&item.name))
    }

    /// Links or copies an image to a place.
    fn place_image(&self, image: &Path, place: &Path) -> Result<(), ConvertError> {
        let at_place = FileError::at(place);
        std::fs::create_dir_all(place.parent().unwrap_or(Path::new("."))).map_err(&at_place)?;
        // A link into an unpacked archive would end with it.
        let linked = self.unpacked.is_none()
            && image.canonicalize().and_then(|image| std::fs::hard_link(image, place)).is_ok();
        if !linked {
            std::fs::copy(image, place).map_err(&at_place)?;
        }
        Ok(())
    }

    /// Writes the images without annotations, with their list, if they are wanted.
    fn write_unlabeled(&self, folder: &Path) -> Result<(), ConvertError> {
        let images = &self.annotations.unlabeled;
        if !self.options.unlabeled || images.is_empty() {
            return Ok(());
        }
        for (name, image) in images {
            self.place_image(image, &folder.join("unlabeled").join(name))?;
        }
        let list: String = images.iter().map(|(name, _)| format!("unlabeled/{name}\n")).collect();
        write(folder, "unlabeled.txt", list.as_bytes())
    }

    /// Writes an annotation file of another program. Images that cannot be converted are left out and
    /// counted, unless they are all.
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
        let mut images = DrawnImages {
            conversion: self,
            observe,
            next: 0,
            counts: ConversionCounts::new(self.table.count()),
            faults: ConversionFaults::default(),
            failed: None,
        };
        let written = format.write(path, &mut images, &self.table, &options);
        match images.failed {
            Some(error) => Err(self.name_files(error)),
            None => Ok(written.map(|()| self.with_named_files(images.counts))?),
        }
    }

    fn with_named_files(&self, mut counts: ConversionCounts) -> ConversionCounts {
        counts.failed = counts.failed.into_iter().map(|error| self.name_files(error)).collect();
        counts
    }
}

/// Label maps of a conversion one by one. Ends with an error if they are not to be written.
struct DrawnImages<'a, F> {
    conversion: &'a Conversion,
    observe: F,
    next: usize,
    counts: ConversionCounts,
    faults: ConversionFaults,
    /// The reason why nothing is written.
    failed: Option<ConvertError>,
}

impl<F: Fn()> Iterator for DrawnImages<'_, F> {
    type Item = Result<ImageLabels, FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(item) = self.conversion.annotations.items.get(self.next) {
            let drawn = self.conversion.draw(item);
            self.next += 1;
            (self.observe)();
            match drawn {
                Ok(drawn) => {
                    self.counts.add(item, &drawn);
                    self.faults.add_palette(&drawn);
                    if self.faults.are_of_images() {
                        let name = item.name.as_str().into();
                        return Some(Ok(ImageLabels { name, map: drawn.map, confidence: None }));
                    }
                }
                Err(error) => self.faults.add(self.next - 1, error),
            }
        }
        if self.failed.is_some() {
            return None;
        }
        let faults = std::mem::take(&mut self.faults);
        let error = faults.finish(self.conversion, &mut self.counts).err()?;
        let text = error.to_string();
        self.failed = Some(error);
        // The writer must not finish the file.
        Some(Err(FormatError::Write(std::io::Error::other(text))))
    }
}

fn write(folder: &Path, name: impl AsRef<Path>, bytes: &[u8]) -> Result<(), ConvertError> {
    let path = folder.join(name);
    let at_path = FileError::at(&path);
    std::fs::create_dir_all(path.parent().unwrap_or(folder)).map_err(&at_path)?;
    Ok(std::fs::write(&path, bytes).map_err(&at_path)?)
}
