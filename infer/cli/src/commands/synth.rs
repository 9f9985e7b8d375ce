//! `protoseg synth`: synthetic images with their labels as a data set on disk.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use image::{ImageFormat, RgbImage};
use protoseg_images::label_map::LabelMap;
use protoseg_models::atomic;
use protoseg_models::classes::{ClassTable, IGNORE_INDEX};
use protoseg_synthetic::{CELL_CLASSES, Scene};

use super::{CommandError, CommandOutcome, OrUsage, print};

/// Name of the class file.
const CLASSES: &str = "classes.txt";
/// Everything that is written.
const NAMES: [&str; 7] = ["images", "labels", CLASSES, "all.txt", LABELED, UNLABELED, VALIDATION];
const LABELED: &str = "labeled.txt";
const UNLABELED: &str = "unlabeled.txt";
const VALIDATION: &str = "val.txt";

/// What is drawn.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum SceneKind {
    /// Streets with the 19 classes of Cityscapes
    Streets,
    /// Cells under several kinds of microscope, two classes
    Cells,
}

/// Write synthetic images with their labels as a data set
///
/// Writes OUT/images, OUT/labels (ids of the classes, 255 is ignored), OUT/classes.txt and
/// OUT/all.txt: a data set of the kind `folder` for `protoseg train` and `protoseg eval`. The same
/// seed gives the same images.
#[derive(Debug, clap::Args)]
pub(crate) struct SynthArgs {
    /// Output folder
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// What is drawn
    #[arg(long, value_enum, default_value = "streets")]
    kind: SceneKind,
    /// Number of images
    #[arg(long, value_name = "N", value_parser = super::image_count(), default_value_t = 8)]
    count: usize,
    /// Writes labeled.txt with the first N images too, and unlabeled.txt with the others
    #[arg(long, value_name = "N")]
    labeled: Option<usize>,
    /// Writes val.txt with the last N images, which are then in no other list but all.txt
    #[arg(long, value_name = "N", requires = "labeled", default_value_t = 0)]
    validation: usize,
    /// Random seed
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Height and width in pixels
    #[arg(long, value_name = "HxW", value_parser = super::parse_size, default_value = "1024x2048")]
    size: [usize; 2],
}

impl SceneKind {
    fn render(self, seed: u64, index: u64, height: usize, width: usize) -> Scene {
        match self {
            Self::Streets => protoseg_synthetic::render_scene(seed, index, height, width),
            Self::Cells => protoseg_synthetic::render_cells(seed, index, height, width),
        }
    }

    /// Class file of the data set, whose labels are train ids.
    fn class_file(self) -> String {
        let lines: String = match self {
            Self::Streets => {
                let classes = ClassTable::cityscapes();
                classes.classes().iter().zip(0..).map(|(class, id)| class.line(id)).collect()
            }
            Self::Cells => {
                let classes = CELL_CLASSES.iter().enumerate();
                classes
                    .map(|(id, (name, [r, g, b]))| format!("{id} {name} {r} {g} {b}\n"))
                    .collect()
            }
        };
        format!("# id name red green blue; {IGNORE_INDEX} in a label counts nowhere\n{lines}")
    }
}

pub(crate) fn run(arguments: &SynthArgs) -> Result<CommandOutcome, CommandError> {
    let SynthArgs { out, kind, count, labeled, validation, seed, size: [height, width] } =
        arguments;
    check_lists(arguments).or_usage()?;
    prepare(out, *kind).or_usage()?;
    let mut list = Vec::with_capacity(*count);
    for index in 0..*count {
        let scene = kind.render(*seed, index as u64, *height, *width);
        let name = format!("scene{index:04}.png");
        let image = RgbImage::from_raw(*width as u32, *height as u32, scene.image)
            .context("a scene has another size")?;
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, ImageFormat::Png).context("a scene cannot be encoded")?;
        write(&out.join("images").join(&name), bytes.get_ref())?;
        let labels = LabelMap { height: *height, width: *width, labels: scene.labels };
        write(
            &out.join("labels").join(&name),
            &labels.ids_png().context("labels cannot be encoded")?,
        )?;
        list.push(format!("images/{name}\n"));
    }
    write(&out.join("all.txt"), list.concat().as_bytes())?;
    if let Some(labeled) = *labeled {
        let end = count - validation;
        let lists = [
            (LABELED, &list[..labeled]),
            (UNLABELED, &list[labeled..end]),
            (VALIDATION, &list[end..]),
        ];
        for (name, lines) in lists.into_iter().filter(|(_, lines)| !lines.is_empty()) {
            write(&out.join(name), lines.concat().as_bytes())?;
        }
    }
    print(format!("{count} scenes of {height}x{width} in {}", out.display()))?;
    Ok(CommandOutcome::Success)
}

fn check_lists(SynthArgs { count, labeled, validation, .. }: &SynthArgs) -> Result<()> {
    let Some(labeled) = labeled else { return Ok(()) };
    ensure!(
        *labeled > 0 && labeled.saturating_add(*validation) < *count,
        "--labeled {labeled} and --validation {validation} leave no labeled or no unlabeled image of \
         --count {count}"
    );
    Ok(())
}

/// Creates the folders and the class file, by which a later run recognizes the folder.
fn prepare(out: &Path, kind: SceneKind) -> Result<()> {
    refuse_other_contents(out, kind)?;
    for folder in ["images", "labels"] {
        let folder = out.join(folder);
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    write(&out.join(CLASSES), kind.class_file().as_bytes())
}

/// Older scenes are overwritten; a folder with anything else in it is refused.
fn refuse_other_contents(out: &Path, kind: SceneKind) -> Result<()> {
    let failed = || out.display().to_string();
    if !out.try_exists().with_context(failed)? {
        return Ok(());
    }
    let entries = std::fs::read_dir(out).with_context(failed)?;
    let names: Vec<_> = entries
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<_, _>>()
        .with_context(failed)?;
    let known = names.iter().all(|name| NAMES.iter().any(|known| name == *known));
    let own = known
        && std::fs::read(out.join(CLASSES)).is_ok_and(|text| text == kind.class_file().as_bytes());
    ensure!(
        names.is_empty() || own,
        "{} holds files that `protoseg synth` did not write; choose a new folder for --out",
        out.display()
    );
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    atomic::write(path, bytes).with_context(|| path.display().to_string())
}
