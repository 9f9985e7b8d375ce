//! `protoseg synth`: synthetic street scenes as a data set on disk.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use image::{ImageFormat, RgbImage};
use protoseg_images::label_map::LabelMap;
use protoseg_models::atomic;
use protoseg_models::classes::{ClassTable, IGNORE_INDEX};

use super::{CommandError, CommandOutcome, OrUsage, print};

/// Name of the class file.
const CLASSES: &str = "classes.txt";

/// Write synthetic street scenes with their labels as a data set
///
/// Writes OUT/images, OUT/labels (Cityscapes train ids, 255 is ignored), OUT/classes.txt and
/// OUT/all.txt: a data set of the kind `folder` for `protoseg train` and `protoseg eval`. The same
/// seed gives the same scenes.
#[derive(Debug, clap::Args)]
pub(crate) struct SynthArgs {
    /// Output folder
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Number of scenes
    #[arg(long, value_name = "N", value_parser = super::image_count(), default_value_t = 8)]
    count: usize,
    /// Random seed
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Height and width in pixels
    #[arg(long, value_name = "HxW", value_parser = super::parse_size, default_value = "1024x2048")]
    size: [usize; 2],
}

pub(crate) fn run(arguments: &SynthArgs) -> Result<CommandOutcome, CommandError> {
    let SynthArgs { out, count, seed, size: [height, width] } = arguments;
    prepare(out).or_usage()?;
    let mut list = String::new();
    for index in 0..*count {
        let scene = protoseg_synthetic::render_scene(*seed, index as u64, *height, *width);
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
        list.push_str(&format!("images/{name}\n"));
    }
    write(&out.join("all.txt"), list.as_bytes())?;
    print(format!("{count} scenes of {height}x{width} in {}", out.display()))?;
    Ok(CommandOutcome::Success)
}

/// Creates the folders and the class file, by which a later run recognizes the folder.
fn prepare(out: &Path) -> Result<()> {
    refuse_other_contents(out)?;
    for folder in ["images", "labels"] {
        let folder = out.join(folder);
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    write(&out.join(CLASSES), class_file().as_bytes())
}

/// Older scenes are overwritten; a folder with anything else in it is refused.
fn refuse_other_contents(out: &Path) -> Result<()> {
    let failed = || out.display().to_string();
    if !out.try_exists().with_context(failed)? {
        return Ok(());
    }
    let entries = std::fs::read_dir(out).with_context(failed)?;
    let names: Vec<_> = entries
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<_, _>>()
        .with_context(failed)?;
    let known = names
        .iter()
        .all(|name| ["images", "labels", CLASSES, "all.txt"].iter().any(|known| name == *known));
    let own =
        known && std::fs::read(out.join(CLASSES)).is_ok_and(|text| text == class_file().as_bytes());
    ensure!(
        names.is_empty() || own,
        "{} holds files that `protoseg synth` did not write; choose a new folder for --out",
        out.display()
    );
    Ok(())
}

/// Class file of the data set, whose labels are train ids.
fn class_file() -> String {
    let classes = ClassTable::cityscapes();
    let lines: String =
        classes.classes().iter().zip(0..).map(|(class, id)| class.line(id)).collect();
    format!("# id name red green blue; {IGNORE_INDEX} in a label counts nowhere\n{lines}")
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    atomic::write(path, bytes).with_context(|| path.display().to_string())
}
