//! Label Studio's tasks: brushes, polygons, rectangles and ellipses.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::detect::{AnnotationSource, read_json};
use super::foreign;
use super::image_index::FoundImage;
use super::raster::{Area, ellipse, rectangle, rotate};
use super::{Annotations, ConvertError, Item, Truth, item_name};

#[derive(Deserialize)]
struct StudioTask {
    #[serde(default)]
    id: Value,
    data: serde_json::Map<String, Value>,
    #[serde(default)]
    annotations: Vec<Answer>,
    #[serde(default)]
    predictions: Vec<Answer>,
}

/// The work of a person or a model on a task.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    result: Vec<StudioRegion>,
    #[serde(default)]
    was_cancelled: bool,
}

#[derive(Deserialize)]
struct StudioRegion {
    /// That of other results of one region: its area and its label may be apart.
    #[serde(default)]
    id: Value,
    #[serde(default, rename = "type")]
    kind: Option<String>,
    original_width: Option<usize>,
    original_height: Option<usize>,
    /// Degrees by which the image was turned on the screen.
    image_rotation: Option<f64>,
    #[serde(default)]
    value: StudioShape,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StudioShape {
    format: Option<String>,
    rle: Option<Vec<u8>>,
    points: Option<Vec<[f64; 2]>>,
    x: Option<f64>,
    y: Option<f64>,
    width: Option<f64>,
    height: Option<f64>,
    #[serde(rename = "radiusX")]
    radius_x: Option<f64>,
    #[serde(rename = "radiusY")]
    radius_y: Option<f64>,
    rotation: f64,
    labels: Option<Vec<String>>,
    brushlabels: Option<Vec<String>>,
    polygonlabels: Option<Vec<String>>,
    rectanglelabels: Option<Vec<String>>,
    ellipselabels: Option<Vec<String>>,
}

pub(super) fn read(source: AnnotationSource<'_>) -> Result<Annotations, ConvertError> {
    let mut annotations = Annotations::default();
    // The order of the class file where there is one, as tasks do not list their classes.
    for class in source.class_names() {
        annotations.class(class);
    }
    let mut tally = TaskTally::default();
    for path in source.files("json")? {
        let value: Value = read_json(&path)?;
        if !value.is_array() {
            continue;
        }
        let foreign = foreign::by_content(&value);
        let tasks: Vec<StudioTask> =
            serde_json::from_value(value).map_err(|source| match foreign {
                Some(format) => ConvertError::Foreign { path: path.clone(), format },
                None => ConvertError::Json { path: path.clone(), source },
            })?;
        for task in tasks {
            let (name, image) = image(source, &path, &task)?;
            let StudioTask { id, annotations: answers, predictions, .. } = task;
            let mut answers = answers.into_iter().rev().filter(|answer| !answer.was_cancelled);
            let answer = answers.next();
            tally.answered_twice += usize::from(answers.next().is_some());
            let Some(answer) = answer.or_else(|| predictions.into_iter().next_back()) else {
                tally.unanswered += 1;
                continue;
            };
            let task =
                if id.is_null() { format!("`{name}`") } else { format!("`{name}` (task {id})") };
            let truth = truth(&task, answer, &source.options.ignore, &mut annotations, &mut tally)
                .unwrap_or_else(|reason| Truth::Broken(format!("in {task}, {reason}")));
            let name = item_name(source, &name, image.path());
            annotations.items.push(Item { name, image, origin: path.clone(), truth });
        }
    }
    tally.write_notes(&mut annotations);
    Ok(annotations)
}

/// Parts of all tasks that are left out.
#[derive(Default)]
struct TaskTally {
    unanswered: usize,
    answered_twice: usize,
    /// Number of regions, with the kind and the task of the first.
    without_area: (usize, String),
    without_label: (usize, String),
}

impl TaskTally {
    fn write_notes(self, annotations: &mut Annotations) {
        annotations.note(self.answered_twice, |count| {
            format!("{count} tasks have several annotations, of which the last counts")
        });
        annotations.note(self.without_label.0, |count| {
            let first = &self.without_label.1;
            let regions = if count == 1 {
                "region without a label is"
            } else {
                "regions without a label are"
            };
            format!(
                "{count} {regions} left out, such as {first}; give each a label in Label Studio"
            )
        });
        annotations.note(self.without_area.0, |count| {
            let first = &self.without_area.1;
            let regions = if count == 1 {
                "region without an area is"
            } else {
                "regions without an area are"
            };
            format!(
                "{count} {regions} left out, such as {first}; polygons, brushes, rectangles and \
                 ellipses have areas"
            )
        });
        annotations.note(self.unanswered, |count| {
            format!("{count} tasks without annotations are left out")
        });
    }
}

fn count_one((count, first): &mut (usize, String), kind: &str, task: &str) {
    if *count == 0 {
        *first = format!("`{kind}` in {task}");
    }
    *count += 1;
}

/// The results of one region.
#[derive(Default)]
struct JoinedRegion {
    kind: String,
    area: Option<Area>,
    labels: Vec<String>,
}

/// The regions of a task; fails with the reason why they cannot be drawn.
fn truth(
    task: &str,
    answer: Answer,
    ignored: &[String],
    annotations: &mut Annotations,
    tally: &mut TaskTally,
) -> Result<Truth, String> {
    let mut size: Option<[usize; 2]> = None;
    let mut regions: Vec<JoinedRegion> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for result in answer.result {
        let place = match &result.id {
            Value::Null => regions.len(),
            id => *places.entry(id.to_string()).or_insert(regions.len()),
        };
        if place == regions.len() {
            regions.push(JoinedRegion::default());
        }
        let Some(region) = regions.get_mut(place) else { continue };
        if region.kind.is_empty() {
            region.kind = result.kind.unwrap_or_default();
        }
        for label in result.value.labels() {
            if !region.labels.contains(label) {
                region.labels.push(label.clone());
            }
        }
        let Some(own) = result.original_height.zip(result.original_width) else { continue };
        let own = [own.0, own.1];
        if *size.get_or_insert(own) != own {
            return Err("the regions are for images of two sizes".to_owned());
        }
        let Some(area) = result.value.area(own)? else { continue };
        let turn = result.image_rotation.unwrap_or_default();
        if turn.rem_euclid(360.0) != 0.0 {
            return Err(format!(
                "a region was drawn on the image turned by {turn} degrees (image_rotation); turn the \
                 image back in Label Studio and draw its regions there"
            ));
        }
        region.area.get_or_insert(area);
    }
    let mut shapes = Vec::new();
    for JoinedRegion { kind, area, mut labels } in regions {
        if labels.len() > 1 {
            labels.retain(|label| {
                let is_ignored = ignored.contains(label);
                if is_ignored {
                    annotations.class(label);
                }
                !is_ignored
            });
        }
        match (area, &labels[..]) {
            (None, _) => count_one(&mut tally.without_area, &kind, task),
            (Some(_), []) => count_one(&mut tally.without_label, &kind, task),
            (Some(area), [label]) => shapes.push((annotations.class(label), area)),
            (Some(_), labels) => {
                return Err(format!(
                    "a region has the labels {}, and a pixel has one; keep one of them in Label Studio, \
                     or leave the others out with --ignore NAME",
                    labels.join(", ")
                ));
            }
        }
    }
    // An answer without a region is for an image of any size.
    Ok(Truth::Shapes { size, shapes })
}

impl StudioShape {
    fn labels(&self) -> impl Iterator<Item = &String> {
        let Self { labels, brushlabels, polygonlabels, rectanglelabels, ellipselabels, .. } = self;
        [labels, brushlabels, polygonlabels, rectanglelabels, ellipselabels]
            .into_iter()
            .flatten()
            .flatten()
    }

    /// The area on an image; coordinates are in percent of its sides.
    fn area(&self, [height, width]: [usize; 2]) -> Result<Option<Area>, &'static str> {
        let across = |percent: f64| percent / 100.0 * width as f64;
        let down = |percent: f64| percent / 100.0 * height as f64;
        if let Some(rle) = &self.rle {
            if self.format.as_deref().unwrap_or("rle") != "rle" {
                return Err("a brush has another format than `rle`");
            }
            let pixels =
                decode_brush(rle, height * width).ok_or("a brush has broken run lengths")?;
            return Ok(Some(Area::Pixels { left: 0, top: 0, width, pixels }));
        }
        if let Some(points) = &self.points {
            let points = points.iter().map(|[x, y]| [across(*x), down(*y)]).collect();
            return Ok(Some(Area::Polygons(vec![points])));
        }
        let Some((x, y)) = self.x.zip(self.y) else { return Ok(None) };
        let start = [across(x), down(y)];
        if let Some((radius_x, radius_y)) = self.radius_x.zip(self.radius_y) {
            let radii = [across(radius_x), down(radius_y)];
            return Ok(Some(Area::Polygons(vec![ellipse(start, radii, self.rotation)])));
        }
        let Some((box_width, box_height)) = self.width.zip(self.height) else { return Ok(None) };
        let end = [across(x + box_width), down(y + box_height)];
        // Label Studio turns rectangles about their first corner.
        Ok(Some(Area::Polygons(vec![rotate(rectangle(start, end), start, self.rotation)])))
    }
}

/// The name of a task's image, and its file.
fn image(
    source: AnnotationSource<'_>,
    path: &Path,
    task: &StudioTask,
) -> Result<(String, FoundImage), ConvertError> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let url = task.data.get("image").and_then(text).or_else(|| task.data.values().find_map(text));
    let url = url.ok_or_else(|| ConvertError::Content {
        path: path.into(),
        reason: format!("the task {} names no image in its data", task.id),
    })?;
    let name = image_name(&url);
    let found = source.image(&name, path);
    if found != FoundImage::Missing {
        return Ok((name, found));
    }
    // An upload gets eight digits and a dash before its name.
    let file = name.rsplit('/').next().unwrap_or(&name);
    if let Some((digits, original)) = file.split_once('-')
        && digits.len() == 8
        && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
    {
        let found = source.image(original, path);
        if found != FoundImage::Missing {
            return Ok((original.to_owned(), found));
        }
    }
    Ok((name, FoundImage::Missing))
}

/// The path in a URL: that of local files, `?d=PATH`, or else what follows the host, or its last part.
fn image_name(url: &str) -> String {
    let local = url.split_once("?d=").map(|(_, path)| path);
    let path = local.unwrap_or_else(|| {
        let path = url.split(['?', '#']).next().unwrap_or(url);
        if path.contains("://") || path.starts_with("/data/") {
            path.rsplit('/').next().unwrap_or(path)
        } else {
            path
        }
    });
    percent_decode(path).trim_start_matches('/').to_owned()
}

fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digits = text.get(at + 1..at + 3).filter(|_| byte == b'%');
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) => {
                decoded.push(value);
                at += 3;
            }
            None => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Decodes Label Studio's run lengths of RGBA bytes packed in bits: the number of bytes, the size of
/// a word, four sizes of lengths; then runs of one word, or single words. A pixel is in the mask if
/// its alpha is not 0.
fn decode_brush(bytes: &[u8], pixels: usize) -> Option<Vec<bool>> {
    let mut at = 0;
    let mut read = |count: usize| {
        let mut value = 0_usize;
        for bit in at..at + count {
            value = value << 1 | usize::from(bytes.get(bit / 8)? >> (7 - bit % 8) & 1);
        }
        at += count;
        Some(value)
    };
    let length = read(32)?;
    let word = read(5)? + 1;
    let mut sizes = [0; 4];
    for size in &mut sizes {
        *size = read(4)? + 1;
    }
    if length != pixels.checked_mul(4)? {
        return None;
    }
    let mut words: Vec<u8> = Vec::with_capacity(length);
    while words.len() < length {
        let repeats = read(1)? == 1;
        let size = read(2)?;
        let count = (read(sizes[size])? + 1).min(length - words.len());
        if repeats {
            let value = read(word)? as u8;
            words.resize(words.len() + count, value);
        } else {
            for _ in 0..count {
                words.push(read(word)? as u8);
            }
        }
    }
    Some(words.chunks_exact(4).map(|pixel| pixel[3] != 0).collect())
}
