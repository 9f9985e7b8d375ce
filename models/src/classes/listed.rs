//! Lists of classes in the forms of other programs: tables with commas, `red green blue name` as
//! CamVid's `label_colors.txt`, `name red green blue`, and names alone, such as those of YAML.

use std::collections::BTreeSet;

use super::ClassError;
use super::table::{self, ClassRow};

/// A class as a list of another program has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedClass {
    /// Its id; by default the position in the list.
    pub id: Option<u8>,
    /// Its name.
    pub name: String,
    /// RGB, if it is given.
    pub color: Option<[u8; 3]>,
}

/// Words above a column of names.
const NAMES: [&str; 9] = [
    "name",
    "class_name",
    "classname",
    "label_name",
    "category_name",
    "class",
    "category",
    "label",
    "names",
];

/// Words above a column of ids.
const IDS: [&str; 11] = [
    "id", "class_id", "classid", "label_id", "idx", "index", "value", "number", "label", "class",
    "category",
];

/// Words above columns of red, green and blue.
const RGB: [[&str; 2]; 3] = [["r", "red"], ["g", "green"], ["b", "blue"]];

/// Words above a column of whole colors.
const COLORS: [&str; 4] = ["color", "rgb", "hex", "color_rgb"];

/// A line and its number from 1.
type Row<'a> = (usize, &'a str);

/// Meaning of the columns of a table.
#[derive(Debug, Clone, Copy)]
struct ListColumns {
    id: Option<usize>,
    name: usize,
    color: ColorColumns,
}

#[derive(Debug, Clone, Copy)]
enum ColorColumns {
    None,
    /// The first of three.
    Rgb([usize; 3]),
    /// `#rrggbb`, or three numbers.
    Whole(usize),
}

/// Reads a table of classes: rows with commas or semicolons between ids, names and colors, with or
/// without a line above them that names the columns; or lines `red green blue name`,
/// `id red green blue name` or `name red green blue`. None where all lines are of another form.
pub fn parse_class_table(text: &str) -> Result<Option<Vec<ListedClass>>, ClassError> {
    if let Some(titled) = table::parse(text.trim_start_matches('\u{feff}')) {
        let titled = titled?;
        let is_plain = (0..).zip(&titled).all(|(place, row)| row.id == place);
        let listed = |ClassRow { id, name, color, .. }| {
            let id = (!is_plain).then_some(id);
            ListedClass { id, name, color }
        };
        return Ok(Some(titled.into_iter().map(listed).collect()));
    }
    let rows = rows(text);
    for separator in [',', ';'] {
        if let Some(table) = separated(&rows, separator)
            && let Some(found) = table_of(&rows, &table)?
        {
            return Ok(Some(found));
        }
    }
    words(&rows)
}

/// Reads names line by line, as they are or as items of YAML, JSON or Python, in quotes or before a
/// comma; behind `#` stands a comment. Also reads `id: name` and `name id`. None where a line begins
/// with a number or holds what names do not, so that it is of another form.
///
/// # Errors
/// If a line is part of a table, so that more than a name stands there.
pub fn parse_class_names(text: &str) -> Result<Option<Vec<ListedClass>>, ClassError> {
    let mut rows = rows(text);
    if rows.len() > 1 && rows[0].1 == "names:" {
        rows.remove(0);
    }
    if rows.is_empty() {
        return Ok(None);
    }
    if let Some(keyed) = keyed(&rows) {
        return Ok(Some(keyed));
    }
    let items = rows.iter().all(|(_, row)| row.starts_with("- "));
    let cleaned = |(line, row): &Row<'_>| {
        let row = if items { &row[2..] } else { row };
        let name = unquoted(without_comment(row).trim_end_matches(',').trim());
        (*line, name.to_owned())
    };
    let names: Vec<(usize, String)> = rows.iter().map(cleaned).collect();
    let is_other = |name: &str| {
        name.starts_with(|letter: char| letter.is_ascii_digit())
            || name.contains(['#', ':'])
            || name.is_empty()
    };
    if names.iter().any(|(_, name)| is_other(name)) {
        return Ok(None);
    }
    if let Some(found) = names_with_ids(&names) {
        return Ok(Some(found));
    }
    let same_columns = ['\t', ',', ';', '|'].into_iter().any(|separator| {
        let count = |name: &str| name.matches(separator).count();
        names.len() > 1
            && count(&names[0].1) > 0
            && names.iter().all(|(_, name)| count(name) == count(&names[0].1))
    });
    for (line, name) in &names {
        let reason = if name.starts_with(['[', ']', '{', '}']) {
            "is a bracket: write a name a line, or save the list as .json"
        } else if same_columns {
            "seems to be a row of a table whose columns are not known: write `id name red green blue`, or name the columns in the first line, \
             such as id,name,red,green,blue"
        } else if trailing_numbers(name) >= 3 {
            "ends with a color, and other lines do not: write `id name red green blue` on each"
        } else {
            continue;
        };
        return Err(ClassError::Columns { line: *line, text: name.clone(), reason });
    }
    let listed = |(_, name)| ListedClass { id: None, name, color: None };
    Ok(Some(names.into_iter().map(listed).collect()))
}

/// True for a line that names columns, such as `id name red green blue`.
pub(super) fn names_columns(line: &str) -> bool {
    let words: Vec<String> = line.split_whitespace().map(str::to_lowercase).collect();
    words.len() > 1
        && words.iter().all(|word| is_column(word))
        && words.iter().any(|word| NAMES.contains(&word.as_str()))
}

fn is_column(word: &str) -> bool {
    let lists = [&NAMES[..], &IDS, &COLORS];
    lists.iter().any(|list| list.contains(&word)) || RGB.iter().flatten().any(|one| *one == word)
}

/// The lines that are neither blank nor comments.
fn rows(text: &str) -> Vec<Row<'_>> {
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    let numbered = (1..).zip(lines);
    numbered.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).collect()
}

/// Cells of rows with a separator, of which all have as many, two or more.
fn separated(rows: &[Row<'_>], separator: char) -> Option<Vec<Vec<String>>> {
    let cells = |(_, row): &Row<'_>| -> Option<Vec<String>> {
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .delimiter(u8::try_from(separator).ok()?)
            .trim(csv::Trim::All)
            .from_reader(row.as_bytes());
        let record = reader.records().next()?.ok()?;
        Some(record.iter().map(str::to_owned).collect())
    };
    let mut table: Vec<Vec<String>> = rows.iter().map(cells).collect::<Option<_>>()?;
    if table.iter().all(|cells| cells.last().is_some_and(String::is_empty)) {
        table.iter_mut().for_each(|cells| {
            cells.pop();
        });
    }
    let count = table.first()?.len();
    (count > 1 && table.iter().all(|cells| cells.len() == count)).then_some(table)
}

/// Classes of a table; None where its columns are not known.
fn table_of(
    rows: &[Row<'_>],
    table: &[Vec<String>],
) -> Result<Option<Vec<ListedClass>>, ClassError> {
    let Some((first, rest)) = table.split_first() else { return Ok(None) };
    let titles: Vec<String> = first.iter().map(|cell| cell.to_lowercase()).collect();
    let titled = !rest.is_empty()
        // Single letters may be names of classes.
        && titles.iter().any(|title| title.len() > 1 && is_column(title))
        && titles.iter().all(|title| !is_number(title) && !title.starts_with('#'));
    let failed = |index: usize, reason: &'static str| {
        let (line, text) = rows.get(index).copied().unwrap_or_default();
        ClassError::Columns { line, text: text.to_owned(), reason }
    };
    let (body, skipped, columns) = if titled {
        let columns = titled_columns(&titles, rest).ok_or_else(|| {
            failed(0, "names no column of names: call it `name`, as in id,name,red,green,blue")
        })?;
        (rest, 1, Some(columns))
    } else {
        let kinds: String = (0..first.len()).map(|column| kind_of(table, column)).collect();
        if kinds == "tnnnn" {
            let reason = "holds four numbers behind a name, an id or opacity and a color: name the columns in the first line, such as \
                          name,id,red,green,blue";
            return Err(failed(0, reason));
        }
        (table, 0, untitled_columns(&kinds))
    };
    let Some(ListColumns { id, name, color }) = columns else { return Ok(None) };
    let class = |(index, cells): (usize, &Vec<String>)| {
        let cell = |column: usize| cells.get(column).map_or("", String::as_str);
        let (line, _) = rows.get(index + skipped).copied().unwrap_or_default();
        let color = match color {
            ColorColumns::None => None,
            ColorColumns::Rgb(columns) => Some(byte_color(columns.map(cell))),
            ColorColumns::Whole(column) if cell(column).is_empty() => None,
            ColorColumns::Whole(column) => Some(whole_color(cell(column))),
        };
        let color = color.map(|color| {
            color.ok_or_else(|| failed(index + skipped, "has a color beyond 0 to 255"))
        });
        let id = id.map(|column| {
            let large = ClassError::LargeId { line, id: cell(column).to_owned() };
            cell(column).parse().map_err(|_| large)
        });
        let name = cell(name).to_owned();
        if name.is_empty() {
            return Err(failed(index + skipped, "has no name"));
        }
        Ok(ListedClass { id: id.transpose()?, name, color: color.transpose()? })
    };
    body.iter().enumerate().map(class).collect::<Result<_, _>>().map(Some)
}

/// `n` for a column of numbers, `h` of colors `#rrggbb`, `t` of anything else.
fn kind_of(table: &[Vec<String>], column: usize) -> char {
    let all = |fits: fn(&str) -> bool| {
        table.iter().all(|cells| cells.get(column).is_some_and(|cell| fits(cell)))
    };
    if all(is_number) {
        'n'
    } else if all(|cell| cell.starts_with('#') && whole_color(cell).is_some()) {
        'h'
    } else {
        't'
    }
}

/// Columns by the kinds of their cells.
fn untitled_columns(kinds: &str) -> Option<ListColumns> {
    use ColorColumns::{None as Plain, Rgb, Whole};
    let (id, name, color) = match kinds {
        "nt" => (Some(0), 1, Plain),
        "tn" => (Some(1), 0, Plain),
        "th" => (None, 0, Whole(1)),
        "nth" => (Some(0), 1, Whole(2)),
        "tnh" => (Some(1), 0, Whole(2)),
        "nnnt" => (None, 3, Rgb([0, 1, 2])),
        "tnnn" => (None, 0, Rgb([1, 2, 3])),
        "nnnnt" => (Some(0), 4, Rgb([1, 2, 3])),
        "ntnnn" => (Some(0), 1, Rgb([2, 3, 4])),
        _ => return None,
    };
    Some(ListColumns { id, name, color })
}

/// Columns by their titles; others are left out.
fn titled_columns(titles: &[String], body: &[Vec<String>]) -> Option<ListColumns> {
    let numbers = |column: usize| kind_of(body, column) == 'n';
    let find = |words: &[&str], is_id: bool| {
        let fits = |column: &usize| numbers(*column) == is_id;
        let at = |word: &&str| titles.iter().position(|title| title == word).filter(fits);
        words.iter().find_map(at)
    };
    let name = find(&NAMES, false)?;
    let rgb = RGB.map(|words| find(&words, true));
    let whole = find(&COLORS, false).map_or(ColorColumns::None, ColorColumns::Whole);
    let color = match rgb {
        [Some(red), Some(green), Some(blue)] => ColorColumns::Rgb([red, green, blue]),
        _ => whole,
    };
    Some(ListColumns { id: find(&IDS, true), name, color })
}

/// Lines of words: a color, perhaps with an id before it, and a name, or the other way around.
fn words(rows: &[Row<'_>]) -> Result<Option<Vec<ListedClass>>, ClassError> {
    let rows = match rows.split_first() {
        Some(((_, first), rest)) if !rest.is_empty() && names_columns(first) => rest,
        _ => rows,
    };
    let lines: Vec<(usize, String)> =
        rows.iter().map(|(line, row)| (*line, spread_color(without_comment(row)))).collect();
    let all = |fits: &dyn Fn(usize, usize) -> bool| {
        let counts = |line: &String| (leading_numbers(line), trailing_numbers(line));
        lines.iter().all(|(_, line)| {
            let (leading, trailing) = counts(line);
            line.split_whitespace().count() > leading.max(trailing) && fits(leading, trailing)
        })
    };
    if lines.is_empty() {
        return Ok(None);
    }
    // Numbers: those before the name, with and without an id.
    let (ids, before) = if all(&|leading, trailing| leading >= 4 && trailing == 0) {
        (1, true)
    } else if all(&|leading, trailing| leading >= 3 && trailing == 0) {
        (0, true)
    } else if all(&|leading, trailing| leading == 0 && trailing >= 3) {
        (0, false)
    } else {
        return Ok(None);
    };
    if !before && all(&|_, trailing| trailing == 4) {
        let (line, text) = lines.first().cloned().unwrap_or_default();
        let reason = "holds four numbers behind a name, an id or opacity and a color: write `id name red green blue`";
        return Err(ClassError::Columns { line, text, reason });
    }
    let class = |(line, text): &(usize, String)| {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (numbers, name) = if before {
            words.split_at(ids + 3)
        } else {
            let (name, numbers) = words.split_at(words.len() - 3);
            (numbers, name)
        };
        let out_of_range = || ClassError::Columns {
            line: *line,
            text: text.clone(),
            reason: "has a number beyond 0 to 255, where an id or a color is expected",
        };
        let byte = |word: &&str| word.parse::<u8>().map_err(|_| out_of_range());
        let numbers: Vec<u8> = numbers.iter().map(byte).collect::<Result<_, _>>()?;
        let color = numbers.last_chunk::<3>().copied();
        let id = numbers.first().copied().filter(|_| ids == 1);
        Ok(ListedClass { id, name: unquoted(&name.join(" ")).to_owned(), color })
    };
    lines.iter().map(class).collect::<Result<_, _>>().map(Some)
}

/// Lines `id: name`.
fn keyed(rows: &[Row<'_>]) -> Option<Vec<ListedClass>> {
    let class = |(_, row): &Row<'_>| {
        let (id, name) = row.split_once(':')?;
        let name = unquoted(without_comment(name).trim_end_matches(',').trim());
        let id = unquoted(id.trim()).parse().ok()?;
        let is_name = !name.is_empty() && !name.contains(':');
        is_name.then(|| ListedClass { id: Some(id), name: name.to_owned(), color: None })
    };
    rows.iter().map(class).collect()
}

/// Names that each end with a number of their own, if what stands before it differs.
fn names_with_ids(names: &[(usize, String)]) -> Option<Vec<ListedClass>> {
    let class = |(_, name): &(usize, String)| {
        let (name, id) = name.rsplit_once(char::is_whitespace)?;
        let name = name.trim();
        let id: u8 = id.parse().ok()?;
        let plain = trailing_numbers(name) == 0;
        plain.then(|| ListedClass { id: Some(id), name: name.to_owned(), color: None })
    };
    let classes: Vec<ListedClass> = names.iter().map(class).collect::<Option<_>>()?;
    let distinct: BTreeSet<&str> = classes.iter().map(|class| class.name.as_str()).collect();
    let ids: BTreeSet<Option<u8>> = classes.iter().map(|class| class.id).collect();
    (classes.len() > 1 && distinct.len() == classes.len() && ids.len() == classes.len())
        .then_some(classes)
}

/// A line without the comment behind it; `#` before a color starts none.
fn without_comment(line: &str) -> &str {
    let is_comment = |at: &usize| {
        let before = line[..*at].ends_with(char::is_whitespace);
        before && whole_color(line[*at..].split_whitespace().next().unwrap_or_default()).is_none()
    };
    match line.match_indices('#').map(|(at, _)| at).find(is_comment) {
        Some(at) => line[..at].trim_end(),
        None => line,
    }
}

/// A line whose last word is a color, `#rrggbb` or three numbers with commas, as three words.
fn spread_color(line: &str) -> String {
    let color = |(name, last): (&str, &str)| {
        let [red, green, blue] = whole_color(last)?;
        Some(format!("{name} {red} {green} {blue}"))
    };
    let split = line.rsplit_once(char::is_whitespace);
    split.and_then(color).unwrap_or_else(|| line.to_owned())
}

/// The text between quotes.
fn unquoted(text: &str) -> &str {
    let quotes = ['"', '\''].into_iter();
    let mut inner = quotes.filter_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote));
    inner.next().unwrap_or(text)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit())
}

fn leading_numbers(line: &str) -> usize {
    line.split_whitespace().take_while(|word| is_number(word)).count()
}

fn trailing_numbers(line: &str) -> usize {
    line.split_whitespace().rev().take_while(|word| is_number(word)).count()
}

fn byte_color(words: [&str; 3]) -> Option<[u8; 3]> {
    let [red, green, blue] = words.map(|word| word.parse().ok());
    Some([red?, green?, blue?])
}

/// A color `#rrggbb`, or three numbers with commas or spaces between them, perhaps in brackets.
fn whole_color(text: &str) -> Option<[u8; 3]> {
    if let Some(digits) = text.strip_prefix('#') {
        let is_hex = digits.len() == 6 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let number = u32::from_str_radix(digits, 16).ok().filter(|_| is_hex)?;
        let [_, red, green, blue] = number.to_be_bytes();
        return Some([red, green, blue]);
    }
    let inner = text.trim_matches(['(', ')', '[', ']']);
    let words = inner.split([',', ' ']).filter(|word| !word.is_empty());
    let words: [&str; 3] = words.collect::<Vec<_>>().try_into().ok()?;
    byte_color(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(id: Option<u8>, name: &str, color: Option<[u8; 3]>) -> ListedClass {
        ListedClass { id, name: name.to_owned(), color }
    }

    #[test]
    fn tables_of_other_programs_are_read() {
        let table = |text: &str| parse_class_table(text).map_err(|error| error.to_string());
        let sky = |ids: [Option<u8>; 2]| {
            let named = [("open sky", [1, 2, 3]), ("road", [4, 5, 6])];
            let all = ids.into_iter().zip(named);
            Ok(Some(all.map(|(id, (name, color))| class(id, name, Some(color))).collect()))
        };
        for text in [
            // CamVid's label_colors.txt.
            "1 2 3\t\topen sky\n4 5 6\t\troad\n",
            "# colors\n1 2 3 open sky # blue\n\n4 5 6 road\n",
            "open sky 1 2 3\nroad 4 5 6\n",
            "open sky 1,2,3\nroad 4,5,6\n",
            "open sky #010203\nroad #040506\n",
            "name r g b\nopen sky 1 2 3\nroad 4 5 6\n",
            "open sky,1,2,3\nroad,4,5,6",
            "1;2;3;open sky\n4;5;6;road",
            "name, r, g, b\n\"open sky\", 1, 2, 3\nroad, 4, 5, 6\n",
            "open sky,#010203\nroad,#040506\n",
            "Class,Color\nopen sky,\"1,2,3\"\nroad,\"(4, 5, 6)\"\n",
        ] {
            assert_eq!(table(text), sky([None, None]), "{text}");
        }
        for text in [
            "7 1 2 3 open sky\n9 4 5 6 road\n",
            "7,open sky,1,2,3\n9,road,4,5,6\n",
            "7,1,2,3,open sky\n9,4,5,6,road\n",
            "id,name,extra,red,green,blue\n7,open sky,x,1,2,3\n9,road,y,4,5,6\n",
            "label,category,color\n7,open sky,#010203\n9,road,#040506\n",
        ] {
            assert_eq!(table(text), sky([Some(7), Some(9)]), "{text}");
        }
        let plain = vec![class(Some(1), "a", None), class(Some(0), "b", None)];
        for text in ["1,a\n0,b\n", "a,1\nb,0\n", "id,name\n1,a\n0,b\n", "1,a,\n0,b,\n"] {
            assert_eq!(table(text), Ok(Some(plain.clone())), "{text}");
        }
        // Class files of protoseg, and names.
        for text in [
            "0 road 128 64 128\n1 sky 0 0 1\n",
            "0 3 cars\n1 sky\n",
            "0 a 255,0,16\n1 b 1,2,3",
            "0\troad # x\n1\tsky\n",
            "0,77 ignore\n1 a\n2 b",
            "a, b\nc, d\n",
            "road\nsky\n",
            "",
        ] {
            assert_eq!(table(text), Ok(None), "{text}");
        }
        for (text, parts) in [
            ("a,1,2,3,4\nb,1,2,3,4\n", ["line 1", "four numbers"]),
            ("a 1 2 3 4\nb 1 2 3 4\n", ["line 1", "four numbers"]),
            ("id,red,green,blue\n1,2,3,4\n", ["line 1", "no column of names"]),
            ("a,1,2,3\nb,1,2,300\n", ["line 2", "beyond 0 to 255"]),
            ("a 1 2 3\nb 1 2 300\n", ["line 2", "beyond 0 to 255"]),
            ("id,name\n1,a\n300,b\n", ["line 3", "300 is above 255"]),
        ] {
            let error = table(text).unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
        }
    }

    #[test]
    fn names_are_read_in_every_spelling_and_tables_are_none() {
        let names = |text: &str| {
            let found = parse_class_names(text).map_err(|error| error.to_string())?;
            Ok(found.map(|found| {
                found.into_iter().map(|class| (class.id, class.name)).collect::<Vec<_>>()
            }))
        };
        let plain =
            Ok::<_, String>(Some(vec![(None, "bg".to_owned()), (None, "a cat".to_owned())]));
        for text in [
            "bg\na cat\n",
            "# my classes\nbg\na cat # small\n",
            "- bg\n- a cat\n",
            "names:\n- bg\n- 'a cat'\n",
            "\"bg\",\n\"a cat\"\n",
            "bg,\na cat,\n",
        ] {
            assert_eq!(names(text), plain, "{text}");
        }
        let numbered = Ok(Some(vec![(Some(1), "bg".to_owned()), (Some(0), "a cat".to_owned())]));
        for text in ["1: bg\n0: a cat\n", "names:\n  1: bg\n  0: 'a cat'\n", "bg 1\na cat 0\n"] {
            assert_eq!(names(text), numbered, "{text}");
        }
        let zones = Ok(Some(vec![(None, "zone 1".to_owned()), (None, "zone 2".to_owned())]));
        assert_eq!(names("zone 1\nzone 2\n"), zones);
        for other in ["7 road\n8 sky\n", "names: [a, b]\n", ""] {
            assert_eq!(names(other), Ok(None), "{other}");
        }
        for (text, parts) in [
            ("bg 0 0 0\ncat\n", ["line 1", "ends with a color"]),
            ("a|b\nc|d\n", ["line 1", "row of a table"]),
            ("[\n\"bg\",\n\"cat\"\n]\n", ["line 1", "is a bracket"]),
        ] {
            let error = names(text).unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
        }
        // Two names of one class, as ADE20K has them, beside one.
        assert!(names("building, edifice\nsky\n").is_ok());
    }
}
