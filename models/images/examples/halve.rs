//! Copies a dataset with every image and label map at half its size: `halve DATA OUT`. Other files
//! are copied as they are; existing ones are skipped.

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
    std::fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    for entry in from.read_dir().with_context(|| from.display().to_string())? {
        let path = entry?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            halve(&path, &target)?;
        } else if !target.exists() {
            let bytes = halved(&path).with_context(|| path.display().to_string())?;
            atomic::write(&target, &bytes)?;
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
        let labels = (0..height * width).map(pixel).collect();
        return Ok(LabelMap { height, width, labels }.ids_png()?);
    }
    let image = image_file::read(path, MAX_PIXELS)?;
    let half =
        imageops::resize(&image, image.width() / 2, image.height() / 2, FilterType::Triangle);
    let mut bytes = std::io::Cursor::new(Vec::new());
    half.write_to(&mut bytes, image::ImageFormat::Png)?;
    Ok(bytes.into_inner())
}
