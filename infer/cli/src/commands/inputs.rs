//! Input images of a command line, with their names below the output folder.

use std::collections::{BTreeMap, HashSet};
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail, ensure};
use protoseg_images::formats::png_name;
use protoseg_images::scan::{ScanReport, Scanner};

use super::pattern::{PathPattern, is_pattern};
use super::{lists, print_stderr};

/// Input image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InputImage {
    pub(crate) path: PathBuf,
    /// Path below the folder or glob that named the image; for a single file, its file name.
    pub(crate) name: PathBuf,
    /// The reason why the image cannot be labeled, known before it is read.
    pub(crate) refusal: Option<String>,
}

impl InputImage {
    /// An image that is to be read.
    pub(crate) fn new(path: PathBuf, name: PathBuf) -> Self {
        Self { path, name, refusal: None }
    }

    /// The same, to fail by itself.
    pub(crate) fn refused(self, reason: String) -> Self {
        Self { refusal: Some(reason), ..self }
    }

    /// The path and the reason of a refusal.
    pub(crate) fn refusal_error(&self) -> Option<anyhow::Error> {
        let reason = self.refusal.as_ref()?;
        Some(anyhow::anyhow!("{}: {reason}", self.path.display()))
    }
}

/// Images of a command line, and an account of what folders hold besides.
#[derive(Debug)]
pub(crate) struct Inputs {
    pub(crate) images: Vec<InputImage>,
    pub(crate) scan: ScanReport,
    /// Images that were named again, under the same name below the output folder.
    pub(crate) repeated: usize,
}

/// Extensions of video files.
const VIDEO_EXTENSIONS: [&str; 8] = ["avi", "m4v", "mkv", "mov", "mp4", "mpg", "webm", "wmv"];

/// Collects the images of files, folders (recursively), globs and lists, without duplicate pairs of
/// file and name. Paths in lists are relative to `root`, by default to the list's folder. Folders
/// and globs pass over hidden entries and by-products unless `hidden`.
pub(crate) fn collect(
    arguments: &[PathBuf],
    lists: &[PathBuf],
    root: Option<&Path>,
    hidden: bool,
) -> anyhow::Result<Inputs> {
    let mut scanner = Scanner::new(hidden);
    let mut inputs: Vec<InputImage> = Vec::new();
    for list in lists.iter().chain(arguments.iter().filter(|argument| is_stdin(argument))) {
        inputs.extend(lists::read(list, root)?);
    }
    for argument in arguments.iter().filter(|argument| !is_stdin(argument)) {
        let text = argument.to_string_lossy();
        if argument.is_dir() {
            let images = scanner.images(argument);
            inputs.extend(images.into_iter().map(|path| below(path, argument)));
        } else if argument.exists() {
            let folder = argument.parent().unwrap_or(Path::new(""));
            inputs.push(below(argument.clone(), folder));
        } else if is_pattern(&text) {
            let pattern = PathPattern::parse(&text)?;
            let images = pattern.images(&mut scanner);
            inputs.extend(images.into_iter().map(|path| below(path, &pattern.base)));
        } else {
            match argument.metadata() {
                Err(error) if error.kind() != ErrorKind::NotFound => bail!("{text}: {error}"),
                _ => bail!("{text} does not exist"),
            }
        }
    }
    let scan = scanner.into_report();
    if inputs.is_empty() {
        let named = arguments.iter().chain(lists).map(|path| path.display().to_string());
        bail!("{}", no_image(&named.collect::<Vec<_>>().join(", "), &scan));
    }
    for input in inputs.iter_mut().filter(|input| is_video(&input.path)) {
        input.refusal = Some(
            "is a video; extract its frames first, for example with `ffmpeg -i FILE \
             frames/%06d.png`"
                .to_owned(),
        );
    }
    if let Some(first) = inputs.first().filter(|_| inputs.iter().all(|input| is_video(&input.path)))
    {
        bail!("{} {}", first.path.display(), first.refusal.as_deref().unwrap_or_default());
    }
    let named = inputs.len();
    let mut seen = HashSet::new();
    inputs.retain(|input| {
        let file = input.path.canonicalize().unwrap_or_else(|_| input.path.clone());
        seen.insert((file, input.name.clone()))
    });
    let repeated = named - inputs.len();
    Ok(Inputs { images: inputs, scan, repeated })
}

/// The message of inputs without an image: what is there instead.
fn no_image(named: &str, scan: &ScanReport) -> String {
    let unreadable =
        scan.unreadable.iter().map(|folder| format!("{}: {}", folder.path.display(), folder.error));
    let reasons: Vec<String> = unreadable.chain(scan.lines()).collect();
    let reasons =
        if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join("; ")) };
    // The names end the line where nothing else is to be said.
    format!("no image (png, jpg, webp, tif, bmp, gif, pnm) in {named}{reasons}")
}

fn is_video(path: &Path) -> bool {
    let ending = path.extension().map(|text| text.to_string_lossy().to_lowercase());
    ending.is_some_and(|ending| VIDEO_EXTENSIONS.contains(&ending.as_str()))
}

/// Prints what a scan passed over.
pub(crate) fn print_passed_over(scan: &ScanReport) {
    for line in scan.lines() {
        print_stderr(format_args!("note: {line}"));
    }
}

/// Returns true for `-`, the standard input.
pub(crate) fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

fn below(path: PathBuf, base: &Path) -> InputImage {
    let name = path.strip_prefix(base).unwrap_or(&path).to_owned();
    InputImage::new(path, name)
}

/// Refuses outputs that overwrite inputs or would be inputs of the next run. Of several inputs, those
/// that could be overwritten are refused alone.
pub(crate) fn check_outputs(
    inputs: &mut [InputImage],
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
    let is_inside = |input: &InputImage| {
        let path = input.path.canonicalize().unwrap_or_else(|_| input.path.clone());
        path.starts_with(&resolved)
    };
    if let Some(first) = inputs.first().filter(|_| inputs.iter().all(is_inside)) {
        bail!(
            "the input {} is inside the output folder {}, where it could be overwritten; choose another --out",
            first.path.display(),
            out.display()
        );
    }
    for input in inputs.iter_mut().filter(|input| is_inside(input)) {
        input.refusal = Some(format!(
            "is inside the output folder {}, where it could be overwritten; choose another --out",
            out.display()
        ));
    }
    Ok(())
}

/// Refuses each image whose results would be written over those of another, and those whose
/// results would be a file where others need a folder. `result_name` gives the name that the
/// results of an image follow from. Returns one line about all of them.
pub(crate) fn refuse_collisions(
    inputs: &mut [InputImage],
    result_name: impl Fn(&Path) -> PathBuf,
) -> Option<String> {
    let mut names: BTreeMap<PathBuf, Vec<usize>> = BTreeMap::new();
    for (index, input) in inputs.iter().enumerate().filter(|(_, input)| input.refusal.is_none()) {
        names.entry(png_name(&result_name(&input.name))).or_default().push(index);
    }
    let mut refusals: BTreeMap<usize, String> = BTreeMap::new();
    let mut shared = Vec::new();
    for (name, users) in names.iter().filter(|(_, users)| users.len() > 1) {
        let paths: Vec<String> =
            users.iter().map(|&index| inputs[index].path.display().to_string()).collect();
        for &index in users {
            let same = users
                .iter()
                .any(|&other| other != index && inputs[other].name == inputs[index].name);
            let advice = if same {
                "label their folders apart, or give each a \"name\" in a list of JSON lines"
                    .to_owned()
            } else {
                format!(
                    "add --keep-ending, which names results with the ending of the image, or \
                     label one ending alone by a pattern, such as '{}'",
                    pattern_of(&inputs[index].path).display()
                )
            };
            let reason =
                format!("{} would both become {}; {advice}", paths.join(" and "), name.display());
            refusals.insert(index, reason);
        }
        shared.push(paths.join(" and "));
    }
    for (name, users) in &names {
        let folders = name.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty());
        for (folder, files) in folders.filter_map(|folder| names.get_key_value(folder)) {
            for &file in files {
                refusals.entry(file).or_insert_with(|| {
                    format!(
                        "its results would be the file {}, which is also the folder of the \
                         results of {}; add --keep-ending, or label it into another folder",
                        folder.display(),
                        inputs[users[0]].path.display()
                    )
                });
            }
        }
    }
    for (index, reason) in refusals {
        inputs[index].refusal = Some(reason);
    }
    (!shared.is_empty()).then(|| {
        let more = shared.len().saturating_sub(SHOWN_COLLISIONS);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        let count: usize = names.values().map(Vec::len).filter(|&users| users > 1).sum();
        format!(
            "{count} images are not labeled, as their results would have the same names: {}{more}",
            shared[..shared.len().min(SHOWN_COLLISIONS)].join("; ")
        )
    })
}

/// Groups of images that a line about them names.
const SHOWN_COLLISIONS: usize = 20;

/// Pattern of the images of one ending in a folder.
fn pattern_of(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from("*");
    if let Some(ending) = path.extension() {
        name.push(".");
        name.push(ending);
    }
    path.with_file_name(name)
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
    use protoseg_images::testing::empty_files;

    use super::*;

    fn names(arguments: &[PathBuf]) -> Vec<String> {
        collect(arguments, &[], None, false)
            .unwrap()
            .images
            .iter()
            .map(|input| input.name.display().to_string())
            .collect()
    }

    #[test]
    fn files_folders_and_globs_name_images() {
        let root = empty_files(&["a/x.png", "a/deep/y.JPG", "a/notes.txt", "b/z.tif"]).unwrap();
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
        let message =
            |argument| collect(&[at(argument)], &[], None, false).unwrap_err().to_string();
        assert!(message("c").ends_with("c does not exist"));
        assert!(message("b/*.png").contains("no image") && message("b/*.png").ends_with("b/*.png"));
    }

    #[test]
    fn patterns_follow_the_rules_of_folders() {
        let root = empty_files(&[
            "a.jpg",
            "b.JPG",
            "site/c.jpg",
            "site/deep/d.jpg",
            "site/._c.jpg",
            "@eaDir/a.jpg",
            ".cache/e.jpg",
            "f.heic",
        ])
        .unwrap();
        let at = |name: &str| root.path().join(name);
        #[cfg(unix)]
        std::os::unix::fs::symlink(root.path(), at("site/again")).unwrap();
        for (pattern, expected) in [
            ("**/*.jpg", &["a.jpg", "site/c.jpg", "site/deep/d.jpg"][..]),
            ("*.[jJ]*", &["a.jpg", "b.JPG"]),
            ("*/*.jpg", &["site/c.jpg"]),
            ("si?e/**", &["site/c.jpg", "site/deep/d.jpg"]),
            ("**/deep/*", &["site/deep/d.jpg"]),
            (".*/*.jpg", &[".cache/e.jpg"]),
            ("@eaDir/*.jpg", &["a.jpg"]),
        ] {
            assert_eq!(names(&[at(pattern)]), expected, "{pattern}");
        }
        let scan = |pattern: &str| collect(&[at(pattern)], &[], None, false).unwrap().scan;
        assert_eq!((scan("**/*").hidden, scan("**/*").unread_files()), (3, 1));
        assert_eq!(collect(&[at("**/*")], &[], None, true).unwrap().images.len(), 7);
    }

    #[test]
    fn colliding_results_cost_their_images_alone() {
        let root =
            empty_files(&["a/x.png", "a/x.jpg", "a/y.png", "c/x.jpg", "c/x.png/y.jpg"]).unwrap();
        let refused = |folder: &str, keep: bool| {
            let mut inputs = collect(&[root.path().join(folder)], &[], None, false).unwrap().images;
            let line = refuse_collisions(&mut inputs, |name| {
                let mut kept = name.as_os_str().to_owned();
                kept.push(if keep { ".png" } else { "" });
                kept.into()
            });
            let refused = inputs.iter().filter_map(InputImage::refusal_error);
            (line, refused.map(|error| error.to_string()).collect::<Vec<_>>())
        };
        let (line, reasons) = refused("a", false);
        assert!(line.unwrap().starts_with("2 images are not labeled"));
        assert_eq!(reasons.len(), 2);
        for part in ["a/x.jpg: ", "would both become x.png", "--keep-ending", "a/*.jpg'"] {
            assert!(reasons[0].contains(part), "{reasons:?}");
        }
        let (line, reasons) = refused("c", false);
        assert!(line.is_none() && reasons.len() == 1, "{reasons:?}");
        assert!(reasons[0].contains("c/x.jpg: its results would be the file x.png"));
        assert_eq!((refused("a", true), refused("c", true)), ((None, vec![]), (None, vec![])));
    }

    #[test]
    fn nested_outputs_are_refused() {
        let root = empty_files(&["a/x.png", "b/y.png", "out/ids/z.png"]).unwrap();
        let at = |name: &str| root.path().join(name);
        let message = |argument: &str, out: &str| {
            let arguments = [at(argument)];
            let mut inputs = collect(&arguments, &[], None, false).unwrap();
            let checked = check_outputs(&mut inputs.images, &arguments, &at(out));
            checked.map_err(|error| error.to_string())
        };
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
