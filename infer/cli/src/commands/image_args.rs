//! The pictures that `protoseg bench` and `protoseg tune` ask about: files, or scenes that are drawn.

use std::path::PathBuf;

use anyhow::ensure;
use protoseg_bench::images::BenchImages;
use protoseg_images::image_file::MAX_PIXELS;

use super::inputs;

/// Pictures drawn where nobody names files: the size of Cityscapes' frames.
const SIZE: [usize; 2] = [1024, 2048];

/// Most pictures that are held in memory.
const MOST: usize = 4096;

/// Which pictures are asked about.
#[derive(Debug, clap::Args)]
pub(crate) struct ImageArgs {
    /// Pictures, folders of pictures, or patterns such as 'in/**/*.jpg', held in memory [default: drawn street scenes]
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pictures: Vec<PathBuf>,
    /// Height and width of drawn scenes [default: 1024x2048]
    #[arg(long, value_name = "HxW", value_parser = super::parse_size, conflicts_with = "pictures")]
    picture_size: Option<[usize; 2]>,
    /// How many different pictures
    #[arg(long, value_name = "N", default_value_t = 8)]
    picture_count: usize,
}

impl ImageArgs {
    /// Reads or draws them.
    pub(crate) fn open(&self) -> anyhow::Result<BenchImages> {
        ensure!(
            (1..=MOST).contains(&self.picture_count),
            "--picture-count is a number from 1 to {MOST}"
        );
        if self.pictures.is_empty() {
            return Ok(BenchImages::synthetic(
                self.picture_count,
                self.picture_size.unwrap_or(SIZE),
                0,
            )?);
        }
        let mut paths: Vec<PathBuf> = inputs::collect(&self.pictures, &[], None)?
            .into_iter()
            .map(|input| input.path)
            .collect();
        paths.truncate(self.picture_count);
        let names: Vec<String> =
            self.pictures.iter().map(|path| path.display().to_string()).collect();
        Ok(BenchImages::from_files(&paths, MAX_PIXELS, names.join(", "))?)
    }
}
