//! Lists of images, from a file or the standard input: each line a path or a JSON object.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use protoseg_images::list::{
    self, IMAGE_FOLDERS, LineContent, ListObject, ListResolver, ListedFile,
};

use super::inputs::{InputImage, is_stdin};
use super::print_stderr;

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
    let objects = list.extension() == Some(OsStr::new("jsonl"));
    let (inputs, remarks) = parse(&bytes, root.unwrap_or(folder), objects).context(name.clone())?;
    for remark in remarks {
        print_stderr(format_args!("warning: {name}: {remark}"));
    }
    Ok(inputs)
}

/// The images of the lines, and remarks on those that are there under other names.
fn parse(bytes: &[u8], root: &Path, objects: bool) -> Result<(Vec<InputImage>, Vec<String>)> {
    let mut resolver = ListResolver::new(root, &IMAGE_FOLDERS);
    let input = |line: list::ListLine| {
        let input = match line.content {
            LineContent::Object(object) => from_object(object, root, &mut resolver),
            LineContent::Text(text) => from_text(&text, root, &mut resolver),
        };
        input.with_context(|| format!("line {}", line.number))
    };
    let inputs =
        list::parse(bytes, objects, root)?.into_iter().map(input).collect::<Result<_>>()?;
    Ok((inputs, resolver.remarks()))
}

/// The image of a line that is a path; refuses pairs of image and label.
fn from_text(text: &OsStr, root: &Path, resolver: &mut ListResolver<'_>) -> Result<InputImage> {
    let input = plain(text, root, resolver);
    if input.path.is_file() {
        return Ok(input);
    }
    let bytes = text.as_encoded_bytes();
    let tabs = bytes.contains(&b'\t');
    let is_end = |byte: &u8| match byte {
        b'\t' | b',' | b';' => true,
        byte => !tabs && byte.is_ascii_whitespace(),
    };
    let Some(end) = bytes.iter().position(is_end) else { return Ok(input) };
    let first = <OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(bytes[..end].trim_ascii());
    match resolver.file(first) {
        Some(first) => bail!(
            "{} does not exist, but {} does; write one image a line, without its label",
            input.path.display(),
            root.join(first).display()
        ),
        None => Ok(input),
    }
}

/// The image that a text means. One that is not there, or not told apart, fails by itself.
fn plain(text: &OsStr, root: &Path, resolver: &mut ListResolver<'_>) -> InputImage {
    let given = || InputImage::new(root.join(text), name_of(Path::new(text), root));
    match resolver.image(text) {
        ListedFile::Found(path) => InputImage::new(root.join(&path), name_of(&path, root)),
        ListedFile::Ambiguous(paths) => {
            let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
            given().refused(format!("the line could be {}; write one", paths.join(" or ")))
        }
        ListedFile::Missing(Some(near)) => {
            given().refused(format!("does not exist, but {} does", near.display()))
        }
        ListedFile::Missing(None) => given(),
    }
}

fn from_object(
    object: ListObject,
    root: &Path,
    resolver: &mut ListResolver<'_>,
) -> Result<InputImage> {
    let mut input = plain(object.image.as_os_str(), root, resolver);
    let Some(name) = object.name else { return Ok(input) };
    if name.as_os_str().is_empty() {
        bail!("the name is empty; write a path below the output folder, or leave \"name\" out");
    }
    if !name.components().all(|part| matches!(part, Component::Normal(_))) {
        bail!("the name {} is not below the output folder", name.display());
    }
    input.name = name;
    Ok(input)
}

/// Path below the root, however it is written; the file name if it is elsewhere.
fn name_of(path: &Path, root: &Path) -> PathBuf {
    let file_name = || path.file_name().map(PathBuf::from).unwrap_or_default();
    list::below(root, path).unwrap_or_else(file_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str, root: &str, objects: bool) -> Vec<(String, String)> {
        let (inputs, _) = parse(text.as_bytes(), Path::new(root), objects).unwrap();
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
