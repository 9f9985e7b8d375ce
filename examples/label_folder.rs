//! Labels a folder with the pipeline: readers, one session a core and writers side by side.
//!
//! ```sh
//! cargo run --release --example label_folder -- BUNDLE IMAGES OUT
//! ```
//!
//! `protoseg label` does this with a journal, ten formats and shards; this is the part to build on.

#![expect(clippy::print_stdout, reason = "an example prints its results")]

use std::error::Error;
use std::path::{Path, PathBuf};

use protoseg_images::dataset::is_image_path;
use protoseg_images::image_file::{ImageFile, MAX_PIXELS};
use protoseg_images::label_map::LabelMap;
use protoseg_infer::pipeline::{DecodedImage, PendingImage, Pipeline, RunControl};
use protoseg_infer::{EngineConfig, Prediction};

type AnyError = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), AnyError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [bundle, folder, out] = &arguments[..] else {
        return Err("usage: label_folder BUNDLE IMAGES OUT".into());
    };
    let entries = std::fs::read_dir(folder)?;
    let mut images: Vec<PathBuf> =
        entries.map(|entry| Ok(entry?.path())).collect::<Result<_, std::io::Error>>()?;
    images.retain(|path| is_image_path(path));
    std::fs::create_dir_all(out)?;

    let mut pipeline = Pipeline::open(bundle, &EngineConfig::default(), Some(images.len()))?;
    let reading = pipeline.segmenter().model().reading;
    let open = |index: usize| {
        let file = ImageFile::read(&images[index], MAX_PIXELS)?;
        let pixels = file.pixels();
        let decode = move || Ok(DecodedImage { image: file.decode_as(reading)?.image, extra: () });
        Ok::<_, AnyError>(PendingImage { pixels, decode })
    };
    let write = |index: usize, _, prediction: Prediction| {
        let name = images[index].with_extension("png");
        let place = Path::new(out).join(name.file_name().unwrap_or_default());
        std::fs::write(place, LabelMap::from(prediction).ids_png()?)?;
        Ok(())
    };
    let report = pipeline.run(images.len(), &RunControl::default(), open, write);
    for (index, error) in &report.failed {
        eprintln!("{}: {error}", images[*index].display());
    }
    println!(
        "{} labeled, {} failed; {}",
        report.done,
        report.failed.len(),
        report.stages.bottleneck
    );
    report.stopped.map_or(Ok(()), Err)
}
