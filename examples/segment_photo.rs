//! Segments one photo, prints the share of each class and writes an overlay.
//!
//! ```sh
//! cargo run --release --example segment_photo -- BUNDLE PHOTO OVERLAY.png
//! ```

#![expect(clippy::print_stdout, reason = "an example prints its results")]

use std::error::Error;

use protoseg_images::label_map::LabelMap;
use protoseg_infer::{Outputs, Segmenter, image_file};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [bundle, photo, overlay] = &arguments[..] else {
        return Err("usage: segment_photo BUNDLE PHOTO OVERLAY.png".into());
    };
    let mut segmenter = Segmenter::open(bundle)?;
    let file = image_file::ImageFile::read(photo.as_ref(), image_file::MAX_PIXELS)?;
    let image = file.decode_as(segmenter.model().reading)?.image;
    let prediction = segmenter.predict(&image, Outputs::default())?;

    let classes = &segmenter.model().classes;
    let pixels = prediction.pixels_by_class(classes.count());
    for (class, count) in classes.classes().iter().zip(pixels) {
        println!(
            "{:16} {:5.1} %",
            class.name,
            100.0 * count as f64 / prediction.labels.len() as f64
        );
    }
    std::fs::write(overlay, LabelMap::from(prediction).overlay_png(&image, classes, false)?)?;
    Ok(())
}
