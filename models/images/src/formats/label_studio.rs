//! Label Studio tasks with predictions: one brush region per image and class.

use std::io::Write;

use protoseg_models::classes::{Class, ClassTable};
use serde::Serialize;

use super::{FormatError, ImageLabels, Run, percent_encode, runs, separate, write_json};

/// Settings of the file besides the labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelStudioOptions {
    /// Put before each percent-encoded image name to make the URL of the image in Label Studio.
    pub prefix: String,
    /// Version of the model, to tell predictions apart.
    pub model_version: String,
}

impl Default for LabelStudioOptions {
    /// Images in a local storage at their folder; version `protoseg`.
    fn default() -> Self {
        Self { prefix: "/data/local-files/?d=".to_owned(), model_version: "protoseg".to_owned() }
    }
}

/// Name of the brush in the labeling configuration, as in Label Studio's template for masks.
const BRUSH: &str = "tag";
/// Name of the image there, and of the field of a task.
const IMAGE: &str = "image";

#[derive(Serialize)]
struct Task<'a> {
    data: Data,
    predictions: [Prediction<'a>; 1],
}

#[derive(Serialize)]
struct Data {
    image: String,
}

#[derive(Serialize)]
struct Prediction<'a> {
    model_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f64>,
    result: Vec<Region<'a>>,
}

#[derive(Serialize)]
struct Region<'a> {
    id: String,
    r#type: &'static str,
    from_name: &'static str,
    to_name: &'static str,
    original_width: usize,
    original_height: usize,
    image_rotation: u8,
    value: Value<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f64>,
}

#[derive(Serialize)]
struct Value<'a> {
    format: &'static str,
    rle: Vec<u8>,
    brushlabels: [&'a str; 1],
}

/// Writes the file: one task with one prediction per image. The score of a region is the mean
/// confidence of its pixels, that of a prediction of all pixels with a class, if known. Keeps the
/// labels of one image at a time in memory.
///
/// The project's labeling configuration must know the classes: see [`labeling_config`].
///
/// ```
/// use protoseg_images::formats::{ImageLabels, label_studio};
/// use protoseg_images::label_map::LabelMap;
/// use protoseg_models::classes::ClassTable;
///
/// let map = LabelMap { height: 1, width: 2, labels: vec![0, 255] };
/// let name = "my street.jpg".into();
/// let image = ImageLabels { name, map, confidence: Some(vec![204, 0]) };
/// let mut file = Vec::new();
/// label_studio::write(&mut file, [Ok(image)], &ClassTable::cityscapes(), &Default::default())?;
/// let text = String::from_utf8(file)?;
/// assert!(text.contains(r#""image":"/data/local-files/?d=my%20street.jpg""#));
/// assert!(text.contains(r#""score":0.8"#));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write(
    mut out: impl Write,
    images: impl IntoIterator<Item = Result<ImageLabels, FormatError>>,
    classes: &ClassTable,
    options: &LabelStudioOptions,
) -> Result<(), FormatError> {
    write!(out, "[")?;
    for (index, image) in images.into_iter().enumerate() {
        let task = task(&image?, classes, options)?;
        separate(&mut out, index)?;
        write_json(&mut out, &task)?;
    }
    writeln!(out, "]")?;
    Ok(out.flush()?)
}

fn task<'a>(
    image: &ImageLabels,
    classes: &'a ClassTable,
    options: &'a LabelStudioOptions,
) -> Result<Task<'a>, FormatError> {
    image.check(classes)?;
    let (height, width) = (image.map.height, image.map.width);
    let pixels = height * width;
    if pixels > MAX_PIXELS {
        return Err(FormatError::TooLarge { name: image.name.clone(), pixels, limit: MAX_PIXELS });
    }
    let mut regions: Vec<Option<BrushRle>> = (0..classes.count()).map(|_| None).collect();
    for run in runs(&image.map.labels) {
        if let Some(region) = regions.get_mut(usize::from(run.label)) {
            region.get_or_insert_with(|| BrushRle::new(pixels)).push(run);
        }
    }
    let scores = image.mean_confidence();
    let region = |(label, (region, class)): (usize, (Option<BrushRle>, &'a Class))| {
        Some(Region {
            id: format!("class-{label}"),
            r#type: "brushlabels",
            from_name: BRUSH,
            to_name: IMAGE,
            original_width: width,
            original_height: height,
            image_rotation: 0,
            value: Value { format: "rle", rle: region?.finish(), brushlabels: [&class.name] },
            score: scores.as_ref().map(|scores| scores.labels[label]),
        })
    };
    let result =
        regions.into_iter().zip(classes.classes()).enumerate().filter_map(region).collect();
    let score = scores.as_ref().map(|scores| scores.all);
    let keep = |letter: char| letter.is_ascii_alphanumeric() || "-._~/".contains(letter);
    let url = format!("{}{}", options.prefix, percent_encode(&image.name, keep));
    let prediction = Prediction { model_version: &options.model_version, score, result };
    Ok(Task { data: Data { image: url }, predictions: [prediction] })
}

/// Returns the labeling configuration of a project for these classes, in their colors, for Label
/// Studio's settings.
pub fn labeling_config(classes: &ClassTable) -> String {
    let label = |Class { name, color: [red, green, blue], .. }: &Class| {
        let name = name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let name = name.replace('"', "&quot;");
        format!("    <Label value=\"{name}\" background=\"#{red:02x}{green:02x}{blue:02x}\"/>\n")
    };
    let labels: String = classes.classes().iter().map(label).collect();
    format!(
        "<View>\n  <Image name=\"{IMAGE}\" value=\"${IMAGE}\" zoom=\"true\"/>\n  \
         <BrushLabels name=\"{BRUSH}\" toName=\"{IMAGE}\">\n{labels}  </BrushLabels>\n</View>\n"
    )
}

/// Bytes of a pixel: RGBA, all 255 in the mask, else 0.
const CHANNELS: usize = 4;
/// The header counts bytes in 32 bits.
const MAX_PIXELS: usize = u32::MAX as usize / CHANNELS;
/// Bits of the four sizes of a run length.
const LENGTH_BITS: [u32; 4] = [3, 4, 8, 16];

/// Label Studio's run-length encoding of a mask along the rows, packed in bits.
#[derive(Debug)]
struct BrushRle {
    bits: Bits,
    /// Pixels of the image.
    pixels: usize,
    /// Pixels that are encoded.
    end: usize,
}

impl BrushRle {
    /// Starts a mask over at most [`MAX_PIXELS`] pixels.
    fn new(pixels: usize) -> Self {
        let mut bits = Bits::default();
        bits.push((pixels * CHANNELS) as u32, 32);
        bits.push(u8::BITS - 1, 5);
        for length in LENGTH_BITS {
            bits.push(length - 1, 4);
        }
        Self { bits, pixels, end: 0 }
    }

    /// Adds a run of the mask, in order.
    fn push(&mut self, run: Run) {
        self.add(0, run.start - self.end);
        self.add(255, run.length);
        self.end = run.start + run.length;
    }

    /// Returns the bytes, padded by one to eight bits as by Label Studio's own encoder.
    fn finish(mut self) -> Vec<u8> {
        self.add(0, self.pixels - self.end);
        let spare = 8 - self.bits.pending;
        self.bits.push(0, spare);
        self.bits.bytes
    }

    fn add(&mut self, value: u8, pixels: usize) {
        let mut length = pixels * CHANNELS;
        // The rest of a long run keeps the largest size.
        let size = LENGTH_BITS.iter().position(|&bits| length <= 1 << bits).unwrap_or(3);
        while length > 0 {
            let part = length.min(1 << LENGTH_BITS[3]);
            length -= part;
            self.bits.push(1, 1);
            self.bits.push(size as u32, 2);
            self.bits.push(part as u32 - 1, LENGTH_BITS[size]);
            self.bits.push(value.into(), u8::BITS);
        }
    }
}

/// A bit string, the first bit the highest of its byte.
#[derive(Debug, Default)]
struct Bits {
    bytes: Vec<u8>,
    /// Bits that do not fill a byte yet, the last the lowest.
    rest: u64,
    /// Number of these bits, less than eight.
    pending: u32,
}

impl Bits {
    /// Adds the lowest `count` bits of a value, at most 32.
    fn push(&mut self, value: u32, count: u32) {
        self.rest = self.rest << count | u64::from(value);
        self.pending += count;
        while self.pending >= 8 {
            self.pending -= 8;
            self.bytes.push((self.rest >> self.pending) as u8);
        }
        self.rest &= (1 << self.pending) - 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decoder after the format's description: length, word size, four sizes; then runs or single
    /// words.
    fn decode(bytes: &[u8]) -> Vec<u8> {
        let mut at = 0;
        let mut read = |count: usize| {
            let value = (at..at + count).fold(0, |value, bit| {
                value << 1 | usize::from(bytes[bit / 8] >> (7 - bit % 8) & 1)
            });
            at += count;
            value
        };
        let length = read(32);
        let word = read(5) + 1;
        let sizes: Vec<usize> = (0..4).map(|_| read(4) + 1).collect();
        let mut out = Vec::new();
        while out.len() < length {
            let repeats = read(1) == 1;
            let size = read(2);
            let count = read(sizes[size]) + 1;
            if repeats {
                let value = read(word) as u8;
                out.extend(std::iter::repeat_n(value, count));
            } else {
                out.extend((0..count).map(|_| read(word) as u8));
            }
        }
        out
    }

    #[test]
    fn masks_survive_with_runs_of_every_size() {
        for lengths in [
            &[0, 1, 2, 2, 3, 4, 5, 63, 64, 65][..],
            &[16_383, 16_384, 16_385, 32_768, 1],
            &[0, 40_000],
            &[5],
        ] {
            let mut expected = Vec::new();
            for (index, &length) in lengths.iter().enumerate() {
                expected.extend(std::iter::repeat_n(if index % 2 == 0 { 0 } else { 255 }, length));
            }
            let mut brush = BrushRle::new(expected.len());
            let mut start = 0;
            for (index, &length) in lengths.iter().enumerate() {
                if index % 2 == 1 {
                    brush.push(Run { label: 0, start, length });
                }
                start += length;
            }
            let pixels = decode(&brush.finish());
            let expected: Vec<u8> =
                expected.into_iter().flat_map(|value| [value; CHANNELS]).collect();
            assert_eq!(pixels, expected, "{lengths:?}");
        }
    }
}
