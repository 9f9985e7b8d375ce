//! Label Studio's tasks with predictions: for each picture and each class in it one region of the brush.

use std::io::Write;
use std::path::Path;

use protoseg_models::classes::{Class, ClassTable};
use serde::Serialize;

use super::brush_rle::{self, BrushRle};
use super::coco::{json, separate};
use super::runs::runs;
use super::{FormatError, ImageLabels, names};

/// What the file says beside the labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelStudioOptions {
    /// What stands before each picture's name, percent-encoded, to make the address under which Label Studio has it.
    pub prefix: String,
    /// Version of the model, by which Label Studio tells predictions apart.
    pub model_version: String,
}

impl Default for LabelStudioOptions {
    /// Pictures in a local storage at their folder; version `protoseg`.
    fn default() -> Self {
        Self { prefix: "/data/local-files/?d=".to_owned(), model_version: "protoseg".to_owned() }
    }
}

/// Name of the brush in the labelling interface, as Label Studio's template for masks has it.
const BRUSH: &str = "tag";
/// Name of the picture there, and of the task's field.
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

/// Writes the file: a task a picture, with one prediction. A region's score is the mean confidence of its pixels, a
/// prediction's that of all pixels with a class, where it is known. Of labels there is one picture in memory at a time.
///
/// The project's labelling interface must know the classes: [`labeling_config`] writes it.
///
/// ```
/// use protoseg_images::formats::{ImageLabels, label_studio};
/// use protoseg_images::label_map::LabelMap;
/// use protoseg_models::classes::ClassTable;
///
/// let map = LabelMap { height: 1, width: 2, labels: vec![0, 255] };
/// let picture = ImageLabels { name: "my street.jpg".into(), map, confidence: Some(vec![204, 0]) };
/// let mut file = Vec::new();
/// label_studio::write(&mut file, [Ok(picture)], &ClassTable::cityscapes(), &label_studio::LabelStudioOptions::default())?;
/// let text = String::from_utf8(file)?;
/// assert!(text.contains(r#""image":"/data/local-files/?d=my%20street.jpg""#) && text.contains(r#""score":0.8"#));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write(
    mut out: impl Write,
    pictures: impl IntoIterator<Item = Result<ImageLabels, FormatError>>,
    classes: &ClassTable,
    options: &LabelStudioOptions,
) -> Result<(), FormatError> {
    write!(out, "[")?;
    for (count, picture) in pictures.into_iter().enumerate() {
        let task = task(&picture?, classes, options)?;
        separate(&mut out, count)?;
        json(&mut out, &task)?;
    }
    writeln!(out, "]")?;
    Ok(out.flush()?)
}

fn task<'a>(
    picture: &ImageLabels,
    classes: &'a ClassTable,
    options: &'a LabelStudioOptions,
) -> Result<Task<'a>, FormatError> {
    picture.check(classes)?;
    let (height, width) = (picture.map.height, picture.map.width);
    let (pixels, limit) = (height * width, brush_rle::MAX_PIXELS);
    if pixels > limit {
        return Err(FormatError::TooLarge { name: picture.name.clone(), pixels, limit });
    }
    let mut regions: Vec<Option<BrushRle>> = (0..classes.count()).map(|_| None).collect();
    for run in runs(&picture.map.labels) {
        if let Some(region) = regions.get_mut(usize::from(run.label)) {
            region.get_or_insert_with(|| BrushRle::new(pixels)).push(run);
        }
    }
    let scores = picture.mean_confidence();
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
    let data = Data { image: address(&options.prefix, &picture.name) };
    Ok(Task {
        data,
        predictions: [Prediction { model_version: &options.model_version, score, result }],
    })
}

fn address(prefix: &str, name: &Path) -> String {
    let keep = |letter: char| letter.is_ascii_alphanumeric() || "-._~/".contains(letter);
    format!("{prefix}{}", names::percent_encoded(name, keep))
}

/// The labelling interface of a project for these classes, in their colours, as Label Studio's settings take it.
pub fn labeling_config(classes: &ClassTable) -> String {
    let label = |Class { name, color: [red, green, blue], .. }: &Class| {
        let escaped = |letter: char| match letter {
            '&' => "&amp;".to_owned(),
            '<' => "&lt;".to_owned(),
            '>' => "&gt;".to_owned(),
            '"' => "&quot;".to_owned(),
            letter => letter.to_string(),
        };
        let name: String = name.chars().map(escaped).collect();
        format!("    <Label value=\"{name}\" background=\"#{red:02x}{green:02x}{blue:02x}\"/>\n")
    };
    let labels: String = classes.classes().iter().map(label).collect();
    format!(
        "<View>\n  <Image name=\"{IMAGE}\" value=\"${IMAGE}\" zoom=\"true\"/>\n  \
         <BrushLabels name=\"{BRUSH}\" toName=\"{IMAGE}\">\n{labels}  </BrushLabels>\n</View>\n"
    )
}
