//! Images of `protoseg bench` and `protoseg tune`: files or synthetic scenes.

use std::path::{Path, PathBuf};

use anyhow::ensure;
use protoseg_bench::images::BenchImages;
use protoseg_images::image_file::MAX_PIXELS;
use protoseg_images::scan::UnreadableFolder;
use protoseg_models::bundle::Manifest;
use protoseg_models::reading::ImageReading;

use super::inputs::{self, InputImage, Inputs};
use super::print_stderr;

/// `[height, width]` of synthetic images: that of Cityscapes.
const DEFAULT_SIZE: [usize; 2] = [1024, 2048];

/// Largest number of images held in memory.
const MAX_COUNT: usize = 4096;

#[derive(Debug, clap::Args)]
pub(crate) struct ImageArgs {
    /// Images, folders or globs such as 'in/**/*.jpg' [default: synthetic scenes]
    #[arg(long, alias = "pictures", value_name = "PATH", num_args = 1.., help_heading = "Images")]
    images: Vec<PathBuf>,
    /// Take hidden entries and by-products of other programs in folders of images too
    #[arg(long, help_heading = "Images")]
    hidden_images: bool,
    /// Height and width of synthetic images [default: 1024x2048]
    #[arg(
        long, alias = "picture-size", value_name = "HxW", value_parser = super::parse_size,
        conflicts_with = "images", help_heading = "Images"
    )]
    image_size: Option<[usize; 2]>,
    /// Number of different images
    #[arg(
        long,
        alias = "picture-count",
        value_name = "N",
        default_value_t = 8,
        help_heading = "Images"
    )]
    image_count: usize,
}

impl ImageArgs {
    /// Reads the images as a bundle says, or renders some.
    pub(crate) fn open(&self, bundle: Option<&Path>) -> anyhow::Result<BenchImages> {
        ensure!(
            (1..=MAX_COUNT).contains(&self.image_count),
            "--image-count is a number from 1 to {MAX_COUNT}"
        );
        if self.images.is_empty() {
            let size = self.image_size.unwrap_or(DEFAULT_SIZE);
            return Ok(BenchImages::synthetic(self.image_count, size, 0)?);
        }
        let Inputs { images, scan, .. } =
            inputs::collect(&self.images, &[], None, self.hidden_images)?;
        for line in scan.lines() {
            print_stderr(format_args!("note: {}", line.replace("--hidden", "--hidden-images")));
        }
        for UnreadableFolder { path, error } in &scan.unreadable {
            print_stderr(format_args!("warning: {}: {error}", path.display()));
        }
        for refused in images.iter().filter_map(InputImage::refusal_error) {
            print_stderr(format_args!("warning: {refused}"));
        }
        let images = images.into_iter().filter(|image| image.refusal.is_none());
        let paths: Vec<PathBuf> = images.take(self.image_count).map(|image| image.path).collect();
        let names: Vec<String> =
            self.images.iter().map(|path| path.display().to_string()).collect();
        let reading = match bundle.filter(|bundle| bundle.is_dir()) {
            Some(bundle) => Manifest::read(bundle)?.value.model.reading,
            None => ImageReading::default(),
        };
        Ok(BenchImages::from_files(&paths, reading, MAX_PIXELS, names.join(", "))?)
    }
}
