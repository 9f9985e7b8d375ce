//! Class files that are tables: Roboflow's `_classes.csv` (`Pixel Value, Class`), and lists of names and
//! colors such as `name,r,g,b`.

use csv::{ReaderBuilder, StringRecord, Trim};

use super::ClassError;

/// Names of the columns, in small letters without signs and spaces.
const NAME: [&str; 6] = ["category", "class", "classname", "label", "labelname", "name"];
const ID: [&str; 8] =
    ["classid", "id", "index", "labelid", "pixel", "pixelvalue", "sourceid", "value"];
const COLOR: [[&str; 2]; 3] = [["r", "red"], ["g", "green"], ["b", "blue"]];

/// A row of a table of classes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClassRow {
    /// Number of the line, from 1.
    pub(super) line: usize,
    /// Number of the row, from 0, where the table has no column of ids.
    pub(super) id: u8,
    pub(super) name: String,
    pub(super) color: Option<[u8; 3]>,
}

/// Columns by their place.
struct Columns {
    name: usize,
    id: Option<usize>,
    color: Option<[usize; 3]>,
}

impl Columns {
    /// Finds the names of the columns in a first line; `None` where they are not those of classes.
    fn find(header: &StringRecord) -> Option<Self> {
        let plain = |cell: &str| -> String {
            cell.to_lowercase().chars().filter(|letter| letter.is_alphanumeric()).collect()
        };
        let names: Vec<String> = header.iter().map(plain).collect();
        let place = |known: &[&str]| names.iter().position(|name| known.contains(&name.as_str()));
        let [red, green, blue] = COLOR.map(|known| place(&known));
        let color = red.zip(green).zip(blue).map(|((red, green), blue)| [red, green, blue]);
        let (name, id) = (place(&NAME)?, place(&ID));
        (id.is_some() || color.is_some()).then_some(Self { name, id, color })
    }
}

/// Parses a table; `None` for texts of which the first line names no columns of classes.
pub(super) fn parse(text: &str) -> Option<Result<Vec<ClassRow>, ClassError>> {
    let first = text.lines().find(|line| !line.trim().is_empty())?;
    let delimiter = [b',', b';', b'\t'].into_iter().find(|byte| first.as_bytes().contains(byte))?;
    let mut reader = ReaderBuilder::new();
    reader.has_headers(false).delimiter(delimiter).flexible(true).trim(Trim::All);
    let mut records = reader.from_reader(text.as_bytes()).into_records();
    let columns = Columns::find(&records.next()?.ok()?)?;
    let mut rows = Vec::new();
    for record in records {
        let Ok(record) = record else {
            return Some(Err(ClassError::Row { line: 0, text: "a broken row".to_owned() }));
        };
        if record.iter().all(str::is_empty) {
            continue;
        }
        match row(&record, &columns, rows.len()) {
            Ok(row) => rows.push(row),
            Err(error) => return Some(Err(error)),
        }
    }
    Some(Ok(rows))
}

fn row(record: &StringRecord, columns: &Columns, index: usize) -> Result<ClassRow, ClassError> {
    let line = record.position().map_or(0, |position| position.line() as usize);
    let text = || record.iter().collect::<Vec<_>>().join(",");
    let fault = || ClassError::Row { line, text: text() };
    let id = match columns.id {
        Some(column) => {
            let id = record.get(column).unwrap_or_default();
            let number: u64 = id.parse().map_err(|_| fault())?;
            u8::try_from(number).map_err(|_| ClassError::LargeId { line, id: id.to_owned() })?
        }
        None => u8::try_from(index).map_err(|_| ClassError::Count(index + 1))?,
    };
    let color = columns.color.map(|columns| {
        let channel = |column: usize| record.get(column)?.parse().ok();
        let [red, green, blue] = columns.map(channel);
        Some([red?, green?, blue?])
    });
    let color = match color {
        Some(None) => return Err(fault()),
        color => color.flatten(),
    };
    let name = record.get(columns.name).unwrap_or_default().to_owned();
    if name.is_empty() {
        return Err(fault());
    }
    Ok(ClassRow { line, id, name, color })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::classes::{ClassFile, ClassTable};

    #[test]
    fn tables_of_classes_are_class_files() {
        let roboflow = "Pixel Value, Class\r\n0, background\r\n1, open water\r\n255, ignore\r\n";
        let file = ClassFile::parse(roboflow).unwrap();
        let names: Vec<(u8, &str)> =
            file.table.classes().iter().map(|class| (class.source_id, &*class.name)).collect();
        assert_eq!(names, [(0, "background"), (1, "open water")]);
        assert_eq!(file.given_colors, [false; 2]);
        assert!(file.is_ignored(255));
        let colors = ClassFile::parse("name,r,g,b\nAnimal,64,128,64\n\"Arch, old\",192,0,128\n");
        let colors = colors.unwrap();
        assert_eq!(colors.table.classes()[1].name, "Arch, old");
        assert_eq!(
            (colors.color(0), colors.table.classes()[1].source_id),
            (Some([64, 128, 64]), 1)
        );
        let semicolons = ClassTable::parse("id;label\n7;road\n9;sky\n").unwrap();
        assert_eq!(semicolons.classes()[1].source_id, 9);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("_classes.csv");
        std::fs::write(&path, roboflow).unwrap();
        assert_eq!(ClassTable::load(Path::new(&path)).unwrap(), file.table);
        for (text, part) in [
            ("id,class\n0,a\nx,b\n", "line 3: `x,b` is not a row"),
            ("id,class\n0,a\n300,b\n", "the id 300 is above 255"),
            ("id,class\n0,a\n1,\n", "line 3: `1,` is not a row"),
            ("name,r,g,b\na,1,2,3\nb,1,2,300\n", "line 3: `b,1,2,300`"),
        ] {
            let error = ClassFile::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        // Lines of a class file that hold commas.
        assert!(ClassFile::parse("0,3 ignore\n1 a\n2 class, id\n").is_ok());
    }
}
