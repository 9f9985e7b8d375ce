//! Lists of classes that lie beside the masks of trees like Pascal VOC's: CVAT's `labelmap.txt`, and
//! the `class_names.txt` of LabelMe's `labelme2voc.py`.

use std::path::{Path, PathBuf};

use protoseg_models::classes::{
    Class, ClassFile, ClassTable, IgnoredIds, means_ignored, voc_color,
};

use super::{DatasetError, read};
use crate::label_mapping::{CVAT_LEGEND, ClassOrigin, LabelMapping, NAME_LISTS};

/// LabelMe's name of what counts for nothing.
const IGNORE: &str = "__ignore__";
/// LabelMe's name of what no shape covers.
const BACKGROUND: &str = "_background_";

/// Finds the list of classes of a tree.
pub(super) fn find(root: &Path) -> Result<Option<PathBuf>, DatasetError> {
    let [names, labels] = NAME_LISTS.map(|name| root.join(name));
    for path in [root.join(CVAT_LEGEND), names] {
        if path.is_file() {
            return Ok(Some(path));
        }
    }
    if !labels.is_file() {
        return Ok(None);
    }
    // Other programs have files of this name.
    let text = read(&labels)?;
    let first = text.trim_start_matches('\u{feff}').lines().next().unwrap_or_default().trim();
    Ok([IGNORE, BACKGROUND].contains(&first).then_some(labels))
}

/// Reads a list of classes that [`find`] has found.
pub(super) fn mapping(path: &Path) -> Result<LabelMapping, DatasetError> {
    let text = read(path)?;
    let text = text.trim_start_matches('\u{feff}');
    let is_cvat = path.file_name().is_some_and(|name| name == CVAT_LEGEND);
    let classes = if is_cvat { colored(text, path) } else { named(text, path) }?;
    Ok(LabelMapping::new(classes, ClassOrigin::File(path.into()), |_| false, &[]))
}

/// Parses a line `name:red,green,blue:parts:actions` for each class. Ids are the numbers of the lines
/// from 0; those called `ignore` count for nothing.
fn colored(text: &str, path: &Path) -> Result<ClassFile, DatasetError> {
    let mut lines = LegendLines::new(path);
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut fields = line.split(':');
        let color = |text: &str| -> Option<[u8; 3]> {
            let channels: Option<Vec<u8>> =
                text.split(',').map(|channel| channel.trim().parse().ok()).collect();
            channels?.try_into().ok()
        };
        let parsed = fields.next().filter(|name| !name.is_empty()).zip(fields.next());
        let parsed = parsed.and_then(|(name, channels)| Some((name, color(channels)?)));
        let Some((name, color)) = parsed else {
            let reason = "is no line of CVAT's list; write `name:red,green,blue::`, such as \
                          `road:128,64,128::`, or `ignore:red,green,blue::` for what counts for nothing";
            return Err(line_fault(path, index, line, reason));
        };
        lines.add(index, line, name, color, means_ignored(name))?;
    }
    lines.file()
}

/// Parses the names of LabelMe. Ids are the numbers of the lines from 0, those behind a first line
/// `__ignore__` too.
fn named(text: &str, path: &Path) -> Result<ClassFile, DatasetError> {
    // Some programs write ids.
    if let Ok(file) = ClassFile::parse(text) {
        return Ok(file);
    }
    let mut lines = LegendLines::new(path);
    let text = text.trim_end();
    let skipped = usize::from(text.lines().next().is_some_and(|line| line.trim() == IGNORE));
    for (index, line) in text.lines().enumerate().skip(skipped) {
        let name = line.trim();
        if name.is_empty() {
            let reason = "is empty, and ids are the numbers of the lines; write a name, or \
                          `__ignore__` for what counts for nothing";
            return Err(line_fault(path, index, line, reason));
        }
        let id = index - skipped;
        let color = id.checked_sub(1).map_or([0; 3], voc_color);
        lines.add(index, line, name, color, name == IGNORE)?;
    }
    lines.file()
}

fn line_fault(list: &Path, index: usize, text: &str, reason: &str) -> DatasetError {
    let (list, text, reason) = (list.to_owned(), text.to_owned(), reason.to_owned());
    DatasetError::Line { list, line: index + 1, text, reason }
}

/// Classes and ignored ids by the lines of a list.
struct LegendLines<'a> {
    path: &'a Path,
    classes: Vec<Class>,
    ignored: Vec<IgnoredIds>,
}

impl<'a> LegendLines<'a> {
    fn new(path: &'a Path) -> Self {
        Self { path, classes: Vec::new(), ignored: Vec::new() }
    }

    fn add(
        &mut self,
        index: usize,
        line: &str,
        name: &str,
        color: [u8; 3],
        is_ignored: bool,
    ) -> Result<(), DatasetError> {
        let id = u8::try_from(self.classes.len() + self.ignored.len());
        let id = id.map_err(|_| {
            line_fault(self.path, index, line, "is past the 256 ids that a mask can hold")
        })?;
        let name = name.to_owned();
        if is_ignored {
            let name = Some(name);
            self.ignored.push(IgnoredIds { ids: (id, id), name, color: Some(color) });
        } else {
            self.classes.push(Class { name, color, source_id: id });
        }
        Ok(())
    }

    fn file(self) -> Result<ClassFile, DatasetError> {
        let path = self.path;
        let table = ClassTable::try_from(self.classes)
            .map_err(|source| DatasetError::Classes { path: path.into(), source })?;
        Ok(ClassFile { ignored: self.ignored, ..table.into() })
    }
}
