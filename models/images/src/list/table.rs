//! Lists that are tables: a first line names the columns, and lines may hold values in quotes.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use csv::{ReaderBuilder, Trim};

use super::{ListObject, ListTextError};
use crate::scan::is_image_path;

/// Names of the column of images, without signs and spaces.
const IMAGE: [&str; 15] = [
    "file",
    "filename",
    "filepath",
    "image",
    "imagefile",
    "imageid",
    "imagename",
    "imagepath",
    "images",
    "img",
    "imgfile",
    "imgname",
    "imgpath",
    "input",
    "path",
];

/// Names of the column of labels.
const LABEL: [&str; 17] = [
    "annotation",
    "annotationpath",
    "groundtruth",
    "gt",
    "gtpath",
    "label",
    "labelfile",
    "labelpath",
    "labels",
    "mask",
    "maskfile",
    "maskpath",
    "masks",
    "seg",
    "segmentation",
    "segmentationpath",
    "target",
];

/// Names of columns that tell splits apart.
const SPLIT: [&str; 13] = [
    "fold",
    "istest",
    "istrain",
    "istraining",
    "isval",
    "isvalid",
    "isvalidation",
    "partition",
    "phase",
    "set",
    "split",
    "splits",
    "subset",
];

/// Columns of a table, as its first line names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableHeader {
    /// `None` for columns that are parted by spaces.
    delimiter: Option<u8>,
    columns: usize,
    image: usize,
    label: Option<usize>,
    /// Column that tells splits apart, with its name.
    split: Option<(usize, String)>,
}

impl TableHeader {
    /// Recognizes the names of columns in the first line of a list; `next` is the line behind it.
    pub(super) fn detect(line: &[u8], next: Option<&[u8]>, root: &Path) -> Option<Self> {
        let delimiter = [b'\t', b',', b';'].into_iter().find(|byte| line.contains(byte));
        let cells = cells(line, delimiter);
        let names: Vec<String> = cells.iter().map(plain_name).collect();
        let position =
            |known: &[&str]| names.iter().position(|name| known.contains(&name.as_str()));
        let label = position(&LABEL);
        // The images of a table of labels alone follow from these.
        let image = position(&IMAGE).or(label)?;
        // A bare stem such as `image` may also be that of an image.
        let only = cells.len() == 1;
        if only && !next.is_some_and(|next| is_image_path(&path(next.to_vec()))) {
            return None;
        }
        let is_file = |cell: &OsString| {
            is_image_path(Path::new(cell)) || (!cell.is_empty() && root.join(cell).is_file())
        };
        if cells.iter().any(is_file) {
            return None;
        }
        Some(Self {
            delimiter,
            columns: cells.len(),
            image,
            label: label.filter(|label| *label != image),
            split: position(&SPLIT)
                .map(|split| (split, cells[split].to_string_lossy().into_owned())),
        })
    }

    /// The split that a line belongs to, if the table says.
    pub(super) fn split(&self, line: &[u8]) -> Option<OsString> {
        let (split, _) = self.split.as_ref()?;
        cells(line, self.delimiter).into_iter().nth(*split)
    }

    /// Name of the column that tells splits apart.
    pub(super) fn split_name(self) -> Option<String> {
        self.split.map(|(_, name)| name)
    }

    /// Image and label of a line.
    pub(super) fn object(&self, number: usize, line: &[u8]) -> Result<ListObject, ListTextError> {
        let cells = cells(line, self.delimiter);
        if cells.len() != self.columns {
            let (found, expected) = (cells.len(), self.columns);
            return Err(ListTextError::Columns { line: number, found, expected });
        }
        let image = cells.get(self.image).filter(|cell| !cell.is_empty());
        let image = image.ok_or(ListTextError::NoImage { line: number })?.into();
        let label = self.label.and_then(|label| cells.get(label)).filter(|cell| !cell.is_empty());
        Ok(ListObject { image, label: label.map(Into::into), name: None })
    }
}

/// The values of a line of CSV, without quotes and spaces around them.
pub(crate) fn values(line: &[u8], delimiter: u8) -> Vec<OsString> {
    let mut reader = ReaderBuilder::new();
    reader.has_headers(false).delimiter(delimiter).flexible(true).trim(Trim::All);
    let record = reader.from_reader(line).into_byte_records().next();
    let record = record.and_then(Result::ok).unwrap_or_default();
    record.iter().map(|value| OsString::from_vec(value.to_vec())).collect()
}

fn cells(line: &[u8], delimiter: Option<u8>) -> Vec<OsString> {
    match delimiter {
        Some(delimiter) => values(line, delimiter),
        None => line
            .split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty())
            .map(|word| OsString::from_vec(word.to_vec()))
            .collect(),
    }
}

fn path(bytes: Vec<u8>) -> std::path::PathBuf {
    OsString::from_vec(bytes).into()
}

fn plain_name(cell: &OsString) -> String {
    let text = cell.to_string_lossy().to_lowercase();
    text.chars().filter(|character| character.is_alphanumeric()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list::{LineContent, parse};

    /// Images and labels of a list, with `-` for none and `text` for lines that are no table's.
    fn pairs(text: &str) -> Vec<[String; 2]> {
        let lines = parse(text.as_bytes(), false, Path::new("nowhere")).unwrap();
        let pair = |content| match content {
            LineContent::Text(text) => [text.into_string().unwrap(), "text".to_owned()],
            LineContent::Object(ListObject { image, label, .. }) => [
                image.display().to_string(),
                label.map_or("-".to_owned(), |label| label.display().to_string()),
            ],
        };
        lines.into_iter().map(|line| pair(line.content)).collect()
    }

    #[test]
    fn the_first_line_may_name_columns_in_any_order() {
        let expected = [["a,b.jpg".to_owned(), "m/a.png".into()], ["c.jpg".into(), "-".into()]];
        for text in [
            "image,label\n\"a,b.jpg\",m/a.png\nc.jpg,\n",
            "\u{feff}Image_Path;Mask\r\na,b.jpg;m/a.png\r\nc.jpg;\r\n",
            "mask\tsplit\timage\nm/a.png\ttrain\ta,b.jpg\n\ttrain\tc.jpg\n",
            "# made by hand\n,filename, mask path\n0,\"a,b.jpg\", m/a.png\n1, c.jpg ,\n",
        ] {
            assert_eq!(pairs(text), expected, "{text}");
        }
        assert_eq!(pairs("image label\na.jpg b.png"), [["a.jpg".to_owned(), "b.png".into()]]);
        assert_eq!(pairs("filename\na.jpg"), [["a.jpg".to_owned(), "-".into()]]);
        assert_eq!(pairs("mask;split\na.png;train"), [["a.png".to_owned(), "-".into()]]);
        // Stems, and names that hold commas.
        for text in ["image\nstreet", "image, north.png\nb.png", "a.jpg,b.png\nimage,label"] {
            assert!(pairs(text).iter().all(|[_, label]| label == "text"), "{text}");
        }
        let error = |text: &str| parse(text.as_bytes(), false, Path::new("")).unwrap_err();
        let text = error("image,label\na.jpg,b.png,c.png").to_string();
        assert!(text.starts_with("line 2 has 3 columns, and the first line names 2"), "{text}");
        assert!(error("label,image\na.png,").to_string().contains("line 2 names no image"));
        for (column, values) in [("split", ["train", "val"]), ("is_train", ["0", "1"])] {
            let text = format!(
                "image,{column}\na.jpg,{}\nb.jpg,{}\nc.jpg,{}\n",
                values[0], values[1], values[1]
            );
            let expected = format!(
                "`{column}` tells several splits apart: {} (1 row), {} (2 rows)",
                values[0], values[1]
            );
            assert!(error(&text).to_string().contains(&expected), "{}", error(&text));
        }
    }
}
