//! Samples of a list: which image and which label a line means.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::derive::LabelFinder;
use super::layout::{OF_IMAGES, OF_LABELS};
use super::{Dataset, DatasetError, Sample};
use crate::list::{self, LineContent, ListLine, ListedFile};
use crate::scan::is_image_path;

/// Reads the lines of one list.
pub(super) struct ListReader<'a> {
    dataset: Dataset,
    root: &'a Path,
    list: &'a Path,
    labels: LabelFinder<'a>,
}

impl<'a> ListReader<'a> {
    pub(super) fn new(
        dataset: Dataset,
        root: &'a Path,
        list: &'a Path,
    ) -> Result<Self, DatasetError> {
        let mut labels = LabelFinder::new(dataset, root, list);
        if dataset == Dataset::Folder {
            let layout = labels.layout(Path::new(""))?;
            labels.resolver.add_folder(layout.images);
        }
        Ok(Self { dataset, root, list, labels })
    }

    /// Remarks on lines that were taken for files of other names.
    pub(super) fn remarks(&mut self) -> Vec<String> {
        self.labels.remarks()
    }

    /// The files that a line means, all of which must exist; without a label unless `labeled`.
    pub(super) fn sample(
        &mut self,
        line: &ListLine,
        labeled: bool,
    ) -> Result<Sample, DatasetError> {
        let (first, second) = self.columns(line)?;
        if let Some(second) = second.as_deref().filter(|label| labeled && is_swapped(&first, label))
        {
            let reason = format!(
                "names {} as the image and {} as its label: the image comes first, or a first line \
                 such as `label,image` names the columns",
                first.display(),
                second.display()
            );
            return Err(self.malformed(line, reason));
        }
        let label = second.as_deref().filter(|_| labeled).map(|label| self.given_label(label));
        let label = match (label.transpose(), second.as_deref().and_then(Path::to_str)) {
            (Err(DatasetError::MissingLabel { .. } | DatasetError::Missing { .. }), Some(text))
                if text.parse::<i64>().is_ok() =>
            {
                let reason = format!(
                    "has the number {text} where its label map should be: a list names images, and \
                     perhaps their label maps (in Pascal VOC those of ImageSets/Segmentation, not of \
                     ImageSets/Main)"
                );
                return Err(self.malformed(line, reason));
            }
            (label, _) => label?,
        };
        let names_one = second.is_none();
        let image = match self.image(line, &first, names_one) {
            Err(error @ DatasetError::Missing { .. }) if labeled && label.is_none() => {
                // Where the label is missing too, it is named: its path is the less obvious one.
                let usual = self.dataset.image(first.as_os_str());
                return Err(match self.derived_label(line, &usual) {
                    Err(other @ DatasetError::MissingLabel { .. }) => other,
                    _ => error,
                });
            }
            image => image?,
        };
        let image = if names_one { self.unless_label(line, image)? } else { image };
        let label = match label {
            None if labeled => Some(self.derived_label(line, &image)?),
            other => other,
        };
        Ok(Sample { image: self.root.join(image), label })
    }

    fn malformed(&self, line: &ListLine, reason: impl Into<String>) -> DatasetError {
        let text = match &line.content {
            LineContent::Text(text) => text.to_string_lossy().into_owned(),
            LineContent::Object(object) => object.image.display().to_string(),
        };
        DatasetError::Line {
            list: self.list.into(),
            line: line.number,
            text,
            reason: reason.into(),
        }
    }

    /// Splits a line at tabs, or else at spaces, unless the whole line means an image.
    fn columns(&mut self, line: &ListLine) -> Result<(PathBuf, Option<PathBuf>), DatasetError> {
        let text = match &line.content {
            LineContent::Object(object) => return Ok((object.image.clone(), object.label.clone())),
            LineContent::Text(text) => text,
        };
        let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes.trim_ascii()));
        let bytes = text.as_bytes();
        let is_space = |byte: &u8| byte.is_ascii_whitespace();
        let root = self.root;
        let is_file = |path: &Path| root.join(path).is_file();
        if !is_file(&self.dataset.image(text))
            && let Some(values) = self.values(bytes)
        {
            return match &values[..] {
                [image, label] => Ok((image.clone(), Some(label.clone()))),
                [image] => Ok((image.clone(), None)),
                _ => Err(self.malformed(
                    line,
                    "has more than two columns; name them in a first line, such as \
                     `image,split,label`",
                )),
            };
        }
        if let Some(values) = quoted(bytes) {
            match &values[..] {
                [image] => return Ok((image.clone(), None)),
                [image, label] => return Ok((image.clone(), Some(label.clone()))),
                _ => {}
            }
        }
        let tabs = bytes.contains(&b'\t');
        let split = |at: &u8| if tabs { *at == b'\t' } else { is_space(at) };
        let columns: Vec<PathBuf> =
            bytes.split(split).map(path).filter(|column| !column.as_os_str().is_empty()).collect();
        match &columns[..] {
            _ if !tabs && columns.len() > 1 && is_file(&self.dataset.image(text)) => {
                return Ok((text.into(), None));
            }
            [first] => return Ok((first.clone(), None)),
            [first, second] if tabs || is_file(first) => {
                return Ok((first.clone(), Some(second.clone())));
            }
            _ if matches!(self.labels.resolver.exact_image(text), ListedFile::Found(_)) => {
                return Ok((text.into(), None));
            }
            [first, second] if is_image_path(first) => {
                return Ok((first.clone(), Some(second.clone())));
            }
            _ => {}
        }
        // Names with spaces, parted where both sides are files.
        let parts = (0..bytes.len()).filter(|&at| !tabs && is_space(&bytes[at]));
        let parts: Vec<(PathBuf, PathBuf)> =
            parts.map(|at| (path(&bytes[..at]), path(&bytes[at..]))).collect();
        if let Some((first, second)) =
            parts.iter().find(|(first, second)| is_file(first) && is_file(second))
        {
            return Ok((first.clone(), Some(second.clone())));
        }
        // Names on another machine, parted by their endings.
        let mut pairs = parts.iter().filter(|(first, _)| is_image_path(first));
        match (pairs.next(), pairs.next()) {
            (None, _) if !tabs && self.is_foreign_path(&columns, text) => Ok((text.into(), None)),
            (Some((first, second)), None) if is_image_path(second) => {
                Ok((first.clone(), Some(second.clone())))
            }
            _ => match &columns[..] {
                [first, second] => Ok((first.clone(), Some(second.clone()))),
                _ => {
                    let reason = "has more than two columns; put a tab between them if names hold \
                                  spaces";
                    Err(self.malformed(line, reason))
                }
            },
        }
    }

    /// True for a path of another machine whose folders have spaces in their names.
    fn is_foreign_path(&mut self, columns: &[PathBuf], text: &OsStr) -> bool {
        let is_absolute = |path: &PathBuf| {
            path.is_absolute() || path.as_os_str().as_bytes().get(1..3) == Some(b":\\")
        };
        columns.iter().map(is_absolute).eq((0..columns.len()).map(|at| at == 0))
            && matches!(self.labels.resolver.image(text), ListedFile::Found(_))
    }

    /// The values of a line of CSV whose first value is an image, or looks like one; `None` for other
    /// lines. Empty values at the end are left out.
    fn values(&mut self, line: &[u8]) -> Option<Vec<PathBuf>> {
        let delimiters = [b',', b';'].into_iter().filter(|delimiter| line.contains(delimiter));
        for delimiter in delimiters {
            let mut values: Vec<PathBuf> =
                list::values(line, delimiter).into_iter().map(PathBuf::from).collect();
            while values.last().is_some_and(|value| value.as_os_str().is_empty()) {
                values.pop();
            }
            let Some(first) = values.first() else { continue };
            let found = self.labels.resolver.exact_image(first.as_os_str());
            if is_image_path(first) || matches!(found, ListedFile::Found(_)) {
                return Some(values);
            }
        }
        None
    }

    /// Path of an image below the root; where a line names one file, that may be its label.
    fn image(
        &mut self,
        line: &ListLine,
        text: &Path,
        names_one: bool,
    ) -> Result<PathBuf, DatasetError> {
        let usual = self.dataset.image(text.as_os_str());
        if self.root.join(&usual).is_file() {
            return Ok(usual);
        }
        match self.labels.resolver.image(text.as_os_str()) {
            ListedFile::Found(image) => Ok(image),
            ListedFile::Ambiguous(images) => {
                let images: Vec<String> =
                    images.iter().map(|image| format!("`{}`", image.display())).collect();
                Err(self.malformed(line, format!("could be {}: write one", images.join(" or "))))
            }
            ListedFile::Missing(Some(near)) => {
                if names_one && self.labels.is_name_of_label(text, &near)? {
                    return Ok(near);
                }
                Err(self.malformed(line, format!("is missing, but `{}` is there", near.display())))
            }
            ListedFile::Missing(None) => {
                let hint = self.labels.alike_image(text)?.unwrap_or_default();
                let (path, list) = (self.root.join(usual), self.list.into());
                Err(DatasetError::Missing { path, list, hint })
            }
        }
    }

    /// The image that a line names, or that of the label map which it names alone.
    fn unless_label(&mut self, line: &ListLine, image: PathBuf) -> Result<PathBuf, DatasetError> {
        let Some(below) = list::below(self.root, &image) else { return Ok(image) };
        match self.labels.image_of_label(&below)? {
            None => Ok(image),
            Some(Ok(image)) => Ok(image),
            Some(Err(reason)) => Err(self.malformed(line, reason)),
        }
    }

    fn given_label(&mut self, text: &Path) -> Result<PathBuf, DatasetError> {
        let label = match text.to_str() {
            Some(text) => text.replace("_gtFine_labelTrainIds.", "_gtFine_labelIds.").into(),
            None => text.to_owned(),
        };
        self.labels.given(&label)
    }

    fn derived_label(&mut self, line: &ListLine, image: &Path) -> Result<PathBuf, DatasetError> {
        let label = match list::below(self.root, image) {
            Some(below) => self.labels.label(&below)?,
            None => None,
        };
        label.ok_or_else(|| self.malformed(line, "has no label column: write `image label`"))
    }
}

/// The values of a line of nothing but texts in quotes; `None` for other lines.
fn quoted(line: &[u8]) -> Option<Vec<PathBuf>> {
    let mut values = Vec::new();
    let mut rest = line.trim_ascii();
    while let Some(inside) = rest.strip_prefix(b"\"") {
        let end = inside.iter().position(|&byte| byte == b'"')?;
        values.push(PathBuf::from(OsStr::from_bytes(&inside[..end])));
        let after = &inside[end + 1..];
        rest = after.trim_ascii_start();
        if !rest.is_empty() && rest.len() == after.len() {
            return None;
        }
    }
    rest.is_empty().then_some(values).filter(|values| !values.is_empty())
}

/// True where the folders, or the endings, of an image and its label say that they were exchanged.
fn is_swapped(image: &Path, label: &Path) -> bool {
    let lies_in = |path: &Path, folders: &[&str]| {
        path.parent().unwrap_or(Path::new("")).components().any(|folder| {
            let name = folder.as_os_str().to_string_lossy().to_lowercase();
            folders.contains(&name.as_str())
        })
    };
    let by_folder = lies_in(image, &OF_LABELS)
        && !lies_in(image, &OF_IMAGES)
        && lies_in(label, &OF_IMAGES)
        && !lies_in(label, &OF_LABELS);
    let is_lossy = |path: &Path| {
        let ending = path.extension().unwrap_or_default().to_ascii_lowercase();
        ending == "jpg" || ending == "jpeg"
    };
    let is_png = image.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("png"));
    let in_order = lies_in(image, &OF_IMAGES) || lies_in(label, &OF_LABELS);
    by_folder || (is_lossy(label) && is_png && !in_order)
}
