//! Copies a data set with every picture and label map at half its size: `halve DATA OUT`. Other files are copied as they
//! are; what is there already is left.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use image::imageops::{self, FilterType};
use protoseg_images::image_file::{self, MAX_PIXELS};
use protoseg_images::label_map::{self, LabelMap};
use protoseg_models::atomic;

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let [from, to] =
        [arguments.next(), arguments.next()].map(|path| path.context("usage: halve DATA OUT"));
    halve(&from?, &to?)
}

fn halve(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in from.read_dir().with_context(|| from.display().to_string())? {
        let path = entry?.path();
        let place = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            halve(&path, &place)?;
        } else if !place.exists() {
            let bytes = halved(&path).with_context(|| path.display().to_string())?;
            atomic::write(&place, &bytes)?;
        }
    }
    Ok(())
}

fn halved(path: &Path) -> Result<Vec<u8>> {
    if path.extension() != Some(OsStr::new("png")) {
        return Ok(std::fs::read(path)?);
    }
    if let Ok(map) = label_map::read(path, MAX_PIXELS) {
        let (height, width) = (map.height / 2, map.width / 2);
        let pixel = |index: usize| {
            map.labels[(2 * (index / width) + 1) * map.width + 2 * (index % width) + 1]
        };
        return Ok(LabelMap { height, width, labels: (0..height * width).map(pixel).collect() }
            .ids_png()?);
    }
    let picture = image_file::read(path, MAX_PIXELS)?;
    let half =
        imageops::resize(&picture, picture.width() / 2, picture.height() / 2, FilterType::Triangle);
    let mut bytes = std::io::Cursor::new(Vec::new());
    half.write_to(&mut bytes, image::ImageFormat::Png)?;
    Ok(bytes.into_inner())
}
