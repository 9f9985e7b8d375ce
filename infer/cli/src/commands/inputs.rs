//! Input images of a command line, with their names below the output folder.

use std::collections::{BTreeMap, HashSet};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail, ensure};
use protoseg_images::dataset::is_image_path;
use protoseg_images::formats::png_name;

use super::lists;

/// Input image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InputImage {
    pub(crate) path: PathBuf,
    /// Path below the folder or glob that named the image; for a single file, its file name.
    pub(crate) name: PathBuf,
}

/// Extensions of video files.
const VIDEO_EXTENSIONS: [&str; 8] = ["avi", "m4v", "mkv", "mov", "mp4", "mpg", "webm", "wmv"];

/// Collects the images of files, folders (recursively), globs and lists, without duplicate pairs of
/// file and name. Paths in lists are relative to `root`, by default to the list's folder.
pub(crate) fn collect(
    arguments: &[PathBuf],
    lists: &[PathBuf],
    root: Option<&Path>,
) -> anyhow::Result<Vec<InputImage>> {
    let mut inputs: Vec<InputImage> = Vec::new();
    for list in lists.iter().chain(arguments.iter().filter(|argument| is_stdin(argument))) {
        inputs.extend(lists::read(list, root)?);
    }
    for argument in arguments.iter().filter(|argument| !is_stdin(argument)) {
        let text = argument.to_string_lossy();
        if argument.is_dir() {
            let mut files = Vec::new();
            walk(argument, &mut HashSet::new(), &mut files)?;
            inputs.extend(files.into_iter().map(|path| below(path, argument)));
        } else if argument.exists() {
            let folder = argument.parent().unwrap_or(Path::new(""));
            inputs.push(below(argument.clone(), folder));
        } else if text.contains(['*', '?', '[']) {
            let base: PathBuf = argument
                .components()
                .take_while(|part| !part.as_os_str().to_string_lossy().contains(['*', '?', '[']))
                .collect();
            let paths = glob::glob(&text).with_context(|| format!("{text} is not a valid glob"))?;
            let mut paths: Vec<PathBuf> = paths
                .collect::<Result<_, _>>()
                .with_context(|| format!("cannot read the matches of {text}"))?;
            paths.retain(|path| is_image_path(path) && path.is_file());
            // Globs follow links to folders, even in cycles: keep the shortest path to each file.
            paths.sort_by_cached_key(|path| (path.components().count(), path.clone()));
            let mut seen = HashSet::new();
            paths.retain(|path| {
                seen.insert((
                    path.parent().map(Path::canonicalize).and_then(Result::ok),
                    path.file_name().map(ToOwned::to_owned),
                ))
            });
            inputs.extend(paths.into_iter().map(|path| below(path, &base)));
        } else {
            bail!("{text} does not exist");
        }
    }
    ensure!(
        !inputs.is_empty(),
        "no image (png, jpg, webp, tif) in {}",
        arguments
            .iter()
            .chain(lists)
            .map(|path| path.display().to_string())
            .collect::<Vec<_>>()
            .join(", ")
    );
    let is_video = |input: &&InputImage| {
        let extension = input.path.extension().map(|text| text.to_string_lossy().to_lowercase());
        extension.is_some_and(|extension| VIDEO_EXTENSIONS.contains(&extension.as_str()))
    };
    if let Some(InputImage { path, .. }) = inputs.iter().find(is_video) {
        bail!(
            "{} is a video; extract its frames first, for example with `ffmpeg -i FILE frames/%06d.png`",
            path.display()
        );
    }
    let mut seen = HashSet::new();
    inputs.retain(|input| {
        let file = input.path.canonicalize().unwrap_or_else(|_| input.path.clone());
        seen.insert((file, input.name.clone()))
    });
    Ok(inputs)
}

/// Returns true for `-`, the standard input.
pub(crate) fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

fn below(path: PathBuf, base: &Path) -> InputImage {
    let name = path.strip_prefix(base).unwrap_or(&path).to_owned();
    InputImage { path, name }
}

/// Adds the images below a folder; follows links, each folder once.
fn walk(
    folder: &Path,
    seen: &mut HashSet<PathBuf>,
    files: &mut Vec<PathBuf>,
) -> anyhow::Result<()> {
    let failed = || folder.display().to_string();
    if !seen.insert(folder.canonicalize().with_context(failed)?) {
        return Ok(());
    }
    let entries = std::fs::read_dir(folder).with_context(failed)?;
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .with_context(failed)?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            walk(&path, seen, files)?;
        } else if is_image_path(&path) {
            files.push(path);
        }
    }
    Ok(())
}

/// Refuses outputs that collide, overwrite an input, or would be inputs of the next run.
pub(crate) fn check_outputs(
    inputs: &[InputImage],
    arguments: &[PathBuf],
    out: &Path,
) -> anyhow::Result<()> {
    let resolved = resolve(out)?;
    for folder in arguments.iter().filter(|argument| argument.is_dir()) {
        let input = folder.canonicalize().with_context(|| folder.display().to_string())?;
        ensure!(
            !resolved.starts_with(&input),
            "the output folder {} is inside the input folder {}, so the next run would label its results; choose another --out",
            out.display(),
            folder.display()
        );
    }
    let mut names = BTreeMap::new();
    for input in inputs {
        let name = png_name(&input.name);
        if let Some(other) = names.insert(name.clone(), input) {
            bail!(
                "{} and {} would both become {}; label them into different folders",
                other.path.display(),
                input.path.display(),
                name.display()
            );
        }
        let path = input.path.canonicalize().unwrap_or_else(|_| input.path.clone());
        ensure!(
            !path.starts_with(&resolved),
            "the input {} is inside the output folder {}, where it could be overwritten; choose another --out",
            input.path.display(),
            out.display()
        );
    }
    for (name, input) in &names {
        let folders = name.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty());
        if let Some((folder, other)) =
            folders.filter_map(|folder| names.get_key_value(folder)).next()
        {
            bail!(
                "the results of {} would be the file {}, which is also the folder of the results of {}; label them into different folders",
                other.path.display(),
                folder.display(),
                input.path.display()
            );
        }
    }
    Ok(())
}

/// Absolute path without links, of which only the beginning need exist. Missing folders will be
/// created, so `..` leaves them as it leaves existing ones.
fn resolve(path: &Path) -> anyhow::Result<PathBuf> {
    let path = std::path::absolute(path).with_context(|| path.display().to_string())?;
    let mut resolved = PathBuf::new();
    for part in path.components() {
        if part == Component::ParentDir {
            resolved.pop();
            continue;
        }
        resolved.push(part);
        if resolved.exists() {
            resolved = resolved.canonicalize().with_context(|| resolved.display().to_string())?;
        }
    }
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        root
    }

    fn names(arguments: &[PathBuf]) -> Vec<String> {
        collect(arguments, &[], None)
            .unwrap()
            .iter()
            .map(|input| input.name.display().to_string())
            .collect()
    }

    #[test]
    fn files_folders_and_globs_name_images() {
        let root = tree(&["a/x.png", "a/deep/y.JPG", "a/notes.txt", "b/z.tif"]);
        let at = |name: &str| root.path().join(name);
        #[cfg(unix)]
        std::os::unix::fs::symlink(at("a"), at("a/deep/again")).unwrap();
        assert_eq!(names(&[at("a")]), ["deep/y.JPG", "x.png"]);
        assert_eq!(names(&[at("a/x.png"), at("b")]), ["x.png", "z.tif"]);
        assert_eq!(names(&[at("a/x.png"), at("a")]), ["x.png", "deep/y.JPG"]);
        assert_eq!(
            names(&[at("a/deep"), at("a")]),
            ["again/x.png", "y.JPG", "deep/y.JPG", "x.png"]
        );
        assert_eq!(names(&[at("a/**/*.JPG")]), ["deep/y.JPG"]);
        #[cfg(unix)]
        std::os::unix::fs::symlink(at("b/z.tif"), at("b/w.tif")).unwrap();
        assert_eq!(names(&[at("b")]), ["w.tif", "z.tif"]);
        assert_eq!(names(&[at("b/*.tif")]), ["w.tif", "z.tif"]);
        let message = |argument| collect(&[at(argument)], &[], None).unwrap_err().to_string();
        assert!(message("c").ends_with("c does not exist"));
        assert!(message("b/*.png").contains("no image") && message("b/*.png").ends_with("b/*.png"));
    }

    #[test]
    fn colliding_and_nested_outputs_are_refused() {
        let root =
            tree(&["a/x.png", "a/x.jpg", "b/y.png", "out/ids/z.png", "c/x.jpg", "c/x.png/y.jpg"]);
        let at = |name: &str| root.path().join(name);
        let message = |argument: &str, out: &str| {
            let arguments = [at(argument)];
            let checked =
                check_outputs(&collect(&arguments, &[], None).unwrap(), &arguments, &at(out));
            checked.map_err(|error| error.to_string())
        };
        assert!(message("a", "new").unwrap_err().contains("would both become x.png"));
        assert!(message("c", "new").unwrap_err().contains("would be the file x.png"));
        assert!(message("b", "b/labels").unwrap_err().contains("is inside the input folder"));
        assert!(message("b", "a/../b").unwrap_err().contains("is inside the input folder"));
        assert!(
            message("b", "gone/../b/labels").unwrap_err().contains("is inside the input folder")
        );
        assert!(
            message("b", "gone/deep/../../a/../b/new")
                .unwrap_err()
                .contains("is inside the input folder")
        );
        #[cfg(unix)]
        std::os::unix::fs::symlink(at("b"), at("link")).unwrap();
        #[cfg(unix)]
        assert!(
            message("b", "gone/../link/new").unwrap_err().contains("is inside the input folder")
        );
        assert!(
            message("out/ids/z.png", "out").unwrap_err().contains("is inside the output folder")
        );
        assert_eq!(message("b", "new/deep"), Ok(()));
    }
}
