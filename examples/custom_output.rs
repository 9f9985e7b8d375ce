//! An output of one's own: marks pixels whose two best classes are nearly as likely, from logits and margin.
//!
//! ```sh
//! cargo run --release --example custom_output -- BUNDLE PHOTO UNSURE.png
//! ```

#![expect(clippy::print_stdout, reason = "an example prints its results")]

use std::error::Error;

use image::{GrayImage, Luma};
use protoseg_infer::{Outputs, Segmenter, image_file};

/// Margin, in steps of 1/16, below which a pixel is marked: the best class is less than e times as likely as the next.
const UNSURE: u8 = 16;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [bundle, photo, out] = &arguments[..] else {
        return Err("usage: custom_output BUNDLE PHOTO UNSURE.png".into());
    };
    let mut segmenter = Segmenter::open(bundle)?;
    let file = image_file::ImageFile::read(photo.as_ref(), image_file::MAX_PIXELS)?;
    let image = file.decode_as(segmenter.model().reading)?.image;
    let outputs = Outputs { margin: true, logits: true, ..Outputs::default() };
    let prediction = segmenter.predict(&image, outputs)?;
    let margin = prediction.margin.ok_or("this model gives labels and no logits")?;
    let logits = prediction.logits.ok_or("this model gives labels and no logits")?;

    let mark = |x: u32, y: u32| {
        let unsure = margin[[y as usize, x as usize]] < UNSURE;
        Luma([if unsure { 255 } else { 0 }])
    };
    let marked = GrayImage::from_fn(image.width(), image.height(), mark);
    let count = marked.pixels().filter(|pixel| pixel.0[0] > 0).count();
    println!("{count} of {} pixels are unsure", marked.len());
    println!(
        "logits {:?}, largest {:.2}",
        logits.dim(),
        logits.iter().copied().fold(f32::MIN, f32::max)
    );
    marked.save(out)?;
    Ok(())
}
