//! LabelMe: a JSON file of shapes for each image.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::detect::{AnnotationSource, read_json};
use super::image_index::FoundImage;
use super::raster::{Area, ellipse, rectangle};
use super::{Annotations, ConvertError, Item, Truth};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LabelMeFile {
    shapes: Vec<LabelMeShape>,
    image_path: String,
    image_height: Option<usize>,
    image_width: Option<usize>,
    /// The image file in base64, unless it was left out.
    image_data: Option<String>,
}

#[derive(Deserialize)]
struct LabelMeShape {
    label: String,
    points: Vec<[f64; 2]>,
    #[serde(default)]
    shape_type: Option<String>,
    #[serde(default)]
    mask: Option<String>,
}

pub(super) fn read(source: AnnotationSource<'_>) -> Result<Annotations, ConvertError> {
    let mut annotations = Annotations::default();
    for class in source.class_names() {
        annotations.class(class);
    }
    let mut embedded = 0;
    let mut left_out: BTreeMap<String, usize> = BTreeMap::new();
    for path in source.files("json")? {
        let file = match parse(&path) {
            Ok(Some(file)) => file,
            Ok(None) => continue,
            Err(error) => {
                // Costs its image.
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                let truth = Truth::Broken(format!("cannot be read: {error}"));
                annotations.items.push(Item::find(source, &name, &path, truth));
                continue;
            }
        };
        // Written on Windows too.
        let name = file.image_path.replace('\\', "/");
        let name = name.trim_start_matches("../");
        let size = file.image_height.zip(file.image_width).map(<[usize; 2]>::from);
        let mut shapes = Vec::new();
        let mut broken = None;
        for shape in file.shapes {
            match shape.area() {
                Ok(Some(area)) => shapes.push((annotations.class(&shape.label), area)),
                Ok(None) => *left_out.entry(shape.shape_type.unwrap_or_default()).or_default() += 1,
                Err(reason) => broken = Some(format!("a shape of `{}` {reason}", shape.label)),
            }
        }
        let truth = broken.map_or(Truth::Shapes { size, shapes }, Truth::Broken);
        let mut item = Item::find(source, name, &path, truth);
        // The path in the file is relative to that, and not to the folder of images.
        if let Some(image) = item.image.path() {
            item.name = source.index.name(image);
        } else if let (FoundImage::Missing, Some(data)) = (&item.image, &file.image_data)
            && let Ok(bytes) = BASE64_STANDARD.decode(data)
        {
            let number = annotations.items.len();
            item.image = FoundImage::At(annotations.embed(number, &bytes)?);
            embedded += 1;
        }
        annotations.items.push(item);
    }
    annotations.note(embedded, |count| {
        format!("{count} images are not found, and taken out of the JSON files that hold them")
    });
    let kinds: Vec<String> =
        left_out.iter().map(|(kind, count)| format!("{count} of the type {kind}")).collect();
    annotations.note(left_out.values().sum(), |_| {
        format!("shapes without an area are left out: {}", kinds.join(", "))
    });
    Ok(annotations)
}

/// Reads a file; `None` if it is another program's.
fn parse(path: &Path) -> Result<Option<LabelMeFile>, ConvertError> {
    let value: serde_json::Value = read_json(path)?;
    if value.get("shapes").is_none() {
        return Ok(None);
    }
    let file = serde_json::from_value(value);
    file.map(Some).map_err(|source| ConvertError::Json { path: path.into(), source })
}

impl LabelMeShape {
    /// The area of a shape; `None` for those that have none, such as lines and points.
    fn area(&self) -> Result<Option<Area>, &'static str> {
        let two = || match self.points[..] {
            [first, second] => Ok((first, second)),
            _ => Err("needs two points"),
        };
        Ok(Some(match self.shape_type.as_deref().unwrap_or("polygon") {
            "polygon" | "oriented_rectangle" => Area::Polygons(vec![self.points.clone()]),
            "rectangle" => {
                let (first, second) = two()?;
                Area::Polygons(vec![rectangle(first, second)])
            }
            "circle" => {
                let (center, edge) = two()?;
                let radius = (edge[0] - center[0]).hypot(edge[1] - center[1]);
                Area::Polygons(vec![ellipse(center, [radius; 2], 0.0)])
            }
            "mask" => {
                let (first, _) = two()?;
                let png = self.mask.as_deref().and_then(|mask| BASE64_STANDARD.decode(mask).ok());
                let mask = png.and_then(|png| image::load_from_memory(&png).ok());
                let mask = mask.ok_or("has a broken mask")?.into_luma8();
                let width = mask.width() as usize;
                let pixels = mask.into_raw().into_iter().map(|sample| sample > 0).collect();
                let [left, top] = first.map(|place| place.max(0.0) as usize);
                Area::Pixels { left, top, width, pixels }
            }
            _ => return Ok(None),
        }))
    }
}
