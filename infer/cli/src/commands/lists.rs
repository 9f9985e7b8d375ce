//! Lists of images, from a file or the standard input: each line a path or a JSON object.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::inputs::{InputImage, is_stdin};

/// JSON object of one line.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListLine {
    image: PathBuf,
    /// Path below the output folder; by default that of the image.
    name: Option<PathBuf>,
}

/// Reads a list. Its lines are JSON objects if its name ends in `.jsonl` or it starts with `{`.
pub(super) fn read(list: &Path, root: Option<&Path>) -> Result<Vec<InputImage>> {
    let name =
        if is_stdin(list) { "the standard input".to_owned() } else { list.display().to_string() };
    let bytes = if is_stdin(list) {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        std::fs::read(list)
    };
    let bytes = bytes.with_context(|| name.clone())?;
    let folder =
        if is_stdin(list) { Path::new("") } else { list.parent().unwrap_or(Path::new("")) };
    parse(&bytes, root.unwrap_or(folder), list.extension() == Some(OsStr::new("jsonl")))
        .context(name)
}

fn parse(bytes: &[u8], root: &Path, objects: bool) -> Result<Vec<InputImage>> {
    // Byte order mark of some editors.
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let lines =
        bytes.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let objects = objects || bytes.trim_ascii_start().starts_with(b"{");
    let mut inputs = Vec::new();
    for (number, line) in (1..).zip(lines).filter(|(_, line)| !line.trim_ascii().is_empty()) {
        let input = if objects { parse_object(line, root) } else { parse_path(line, root) };
        inputs.push(input.with_context(|| format!("line {number}"))?);
    }
    Ok(inputs)
}

/// Parses a line that is a path; refuses pairs of image and label.
fn parse_path(line: &[u8], root: &Path) -> Result<InputImage> {
    let input = plain(Path::new(OsStr::from_bytes(line)), root);
    let first = line.split(u8::is_ascii_whitespace).next().filter(|first| first.len() < line.len());
    let first = first.map(|first| Path::new(OsStr::from_bytes(first)));
    match first.filter(|first| {
        !first.as_os_str().is_empty() && root.join(first).is_file() && !input.path.exists()
    }) {
        Some(first) => bail!(
            "{} does not exist, but {} does; write one image a line, without its label",
            input.path.display(),
            root.join(first).display()
        ),
        None => Ok(input),
    }
}

fn plain(path: &Path, root: &Path) -> InputImage {
    InputImage { path: root.join(path), name: name_of(path, root) }
}

fn parse_object(line: &[u8], root: &Path) -> Result<InputImage> {
    let ListLine { image, name } = serde_json::from_slice(line)
        .context("expected an object such as {\"image\": \"a/street.jpg\"}")?;
    let Some(name) = name else { return Ok(plain(&image, root)) };
    if name.as_os_str().is_empty() {
        bail!("the name is empty; write a path below the output folder, or leave \"name\" out");
    }
    if !name.components().all(|part| matches!(part, Component::Normal(_))) {
        bail!("the name {} is not below the output folder", name.display());
    }
    Ok(InputImage { path: root.join(image), name })
}

/// Path below the root; the file name if it is elsewhere.
fn name_of(path: &Path, root: &Path) -> PathBuf {
    let below = path.strip_prefix(root).unwrap_or(path);
    let inside = |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if below.components().all(|part| inside(&part)) {
        below.components().filter(|part| *part != Component::CurDir).collect()
    } else {
        below.file_name().map(PathBuf::from).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str, root: &str, objects: bool) -> Vec<(String, String)> {
        let inputs = parse(text.as_bytes(), Path::new(root), objects).unwrap();
        inputs
            .iter()
            .map(|input| (input.path.display().to_string(), input.name.display().to_string()))
            .collect()
    }

    #[test]
    fn lines_are_paths_or_objects() {
        let own = |path: &str, name: &str| (path.to_owned(), name.to_owned());
        let text = "a/x y.png\r\n\n./b.jpg\n../c.png\n/d/e.png\n/data/f.png";
        let expected = [
            own("/data/a/x y.png", "a/x y.png"),
            own("/data/./b.jpg", "b.jpg"),
            own("/data/../c.png", "c.png"),
            own("/d/e.png", "e.png"),
            own("/data/f.png", "f.png"),
        ];
        assert_eq!(pairs(text, "/data", false), expected);
        let text = "{\"image\": \"a.png\"}\n{\"image\": \"/b.png\", \"name\": \"c/d.png\"}\n";
        assert_eq!(pairs(text, "in", false), [own("in/a.png", "a.png"), own("/b.png", "c/d.png")]);
        assert_eq!(pairs("", "in", true), []);
        assert_eq!(
            pairs("\u{feff}a.png\nb.png", "in", false),
            [own("in/a.png", "a.png"), own("in/b.png", "b.png")]
        );
    }

    #[test]
    fn errors_name_the_line() {
        let message =
            |text: &str| format!("{:#}", parse(text.as_bytes(), Path::new(""), true).unwrap_err());
        assert!(message("\n{\"image\": 5}").starts_with("line 2: "));
        assert!(message("{\"image\": \"a\", \"labels\": \"b\"}").contains("labels"));
        assert!(message("{\"image\": \"a\", \"name\": \"\"}").contains("the name is empty"));
        for name in ["../a", "/a"] {
            assert!(
                message(&format!("{{\"image\": \"a\", \"name\": {name:?}}}"))
                    .contains("is not below"),
                "{name}"
            );
        }
    }
}
