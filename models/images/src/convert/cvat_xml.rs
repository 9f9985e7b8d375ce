//! CVAT's XML files of polygons, boxes, ellipses and masks: "CVAT for images 1.1", and "CVAT for video
//! 1.1", whose tracks are read by [`cvat_tracks`](super::cvat_tracks).

use std::collections::BTreeMap;
use std::path::Path;

use protoseg_models::errors::FileError;
use roxmltree::{Document, Node};

use super::detect::AnnotationSource;
use super::raster::{Area, ellipse, rectangle, rotate};
use super::{Annotations, ConvertError, Item, Truth, cvat_tracks};

pub(super) fn read(source: AnnotationSource<'_>) -> Result<Annotations, ConvertError> {
    let mut annotations = Annotations::default();
    for path in source.files("xml")? {
        let text = std::fs::read_to_string(&path).map_err(FileError::at(&path))?;
        let document = Document::parse(&text)
            .map_err(|source| ConvertError::Xml { path: path.clone(), source })?;
        if document.root_element().tag_name().name() == "annotations" {
            add_file(source, &path, &document, &mut annotations)?;
            cvat_tracks::add_file(source, &path, &document, &mut annotations)?;
        }
    }
    Ok(annotations)
}

fn add_file(
    source: AnnotationSource<'_>,
    path: &Path,
    document: &Document<'_>,
    annotations: &mut Annotations,
) -> Result<(), ConvertError> {
    let content = |reason: String| ConvertError::Content { path: path.into(), reason };
    for label in document.descendants().filter(|node| node.has_tag_name("label")) {
        let child = |tag: &str| label.children().find(|node| node.has_tag_name(tag));
        let text = |tag: &str| child(tag).and_then(|node| node.text());
        let Some(name) = child("name").map(|name| name.text().unwrap_or_default()) else {
            continue;
        };
        let class = annotations.class(name);
        let color = text("color").and_then(hex_color);
        if let Some(known) = annotations.classes.get_mut(usize::from(class)) {
            known.color = known.color.or(color);
        }
    }
    let mut left_out = 0;
    // Of a project: train, validation and test.
    let mut subsets: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for image in document.root_element().children().filter(|node| node.has_tag_name("image")) {
        let name = attribute::<String>(image, "name").map_err(content)?;
        let truth = image_truth(image, annotations, &mut left_out);
        let truth = truth.unwrap_or_else(|reason| Truth::Broken(format!("in `{name}`, {reason}")));
        if let Some(subset) = image.attribute("subset").filter(|subset| *subset != "default") {
            subsets.entry(subset.to_lowercase()).or_default().push(annotations.items.len());
        }
        annotations.items.push(Item::find(source, &name, path, truth));
    }
    annotations.lists.extend(subsets.into_iter().filter(|(name, _)| is_file_stem(name)));
    annotations.note(left_out, |count| {
        format!("{count} annotations without an area (tags, lines, points) are left out")
    });
    Ok(())
}

/// The shapes of an image, or the reason why they cannot be drawn.
fn image_truth(
    image: Node<'_, '_>,
    annotations: &mut Annotations,
    left_out: &mut usize,
) -> Result<Truth, String> {
    let size = [number(image, "height")? as usize, number(image, "width")? as usize];
    let mut shapes = Vec::new();
    for node in image.children().filter(Node::is_element) {
        match area(node)? {
            Some(area) => {
                let label = attribute::<String>(node, "label")?;
                let order = node.attribute("z_order").and_then(|order| order.trim().parse().ok());
                let order: i64 = order.unwrap_or_default();
                shapes.push((order, annotations.class(&label), area));
            }
            None => *left_out += usize::from(node.attribute("label").is_some()),
        }
    }
    // Stable: shapes of one layer stay in the order of the file.
    shapes.sort_by_key(|(order, ..)| *order);
    let shapes = shapes.into_iter().map(|(_, class, area)| (class, area)).collect();
    Ok(Truth::Shapes { size: Some(size), shapes })
}

/// True for names that a list may have.
fn is_file_stem(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0'])
}

/// The area of a shape; `None` where it has none.
pub(super) fn area(node: Node<'_, '_>) -> Result<Option<Area>, String> {
    let value = |name: &str| number(node, name);
    let rotation = node.attribute("rotation").map_or(Ok(0.0), |_| value("rotation"))?;
    Ok(Some(match node.tag_name().name() {
        "polygon" => Area::Polygons(vec![points(&attribute::<String>(node, "points")?)?]),
        "box" => {
            let [start, end] = [[value("xtl")?, value("ytl")?], [value("xbr")?, value("ybr")?]];
            let center = [start[0].midpoint(end[0]), start[1].midpoint(end[1])];
            Area::Polygons(vec![rotate(rectangle(start, end), center, rotation)])
        }
        "ellipse" => {
            let center = [value("cx")?, value("cy")?];
            Area::Polygons(vec![ellipse(center, [value("rx")?, value("ry")?], rotation)])
        }
        "mask" => {
            let lengths: Option<Vec<usize>> = attribute::<String>(node, "rle")?
                .split(',')
                .map(|length| length.trim().parse().ok())
                .collect();
            Area::Rows {
                left: attribute(node, "left")?,
                top: attribute(node, "top")?,
                width: attribute(node, "width")?,
                lengths: lengths.ok_or("a mask has broken run lengths")?,
            }
        }
        _ => return Ok(None),
    }))
}

pub(super) fn attribute<T: std::str::FromStr>(node: Node<'_, '_>, name: &str) -> Result<T, String> {
    let text = node.attribute(name);
    text.and_then(|text| text.trim().parse().ok())
        .ok_or_else(|| format!("a `{}` has no valid attribute `{name}`", node.tag_name().name()))
}

fn number(node: Node<'_, '_>, name: &str) -> Result<f64, String> {
    attribute::<f64>(node, name).and_then(|number| {
        let finite = number.is_finite().then_some(number);
        finite.ok_or_else(|| format!("`{name}` is {number}"))
    })
}

/// Parses `x,y;x,y`.
fn points(text: &str) -> Result<Vec<[f64; 2]>, String> {
    let point = |text: &str| {
        let (x, y) = text.split_once(',')?;
        Some([x.trim().parse().ok()?, y.trim().parse().ok()?])
    };
    let points: Option<Vec<[f64; 2]>> = text.split(';').map(point).collect();
    points.ok_or_else(|| "a polygon has broken points".to_owned())
}

fn hex_color(text: &str) -> Option<[u8; 3]> {
    let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6)?;
    let [_, red, green, blue] = u32::from_str_radix(digits, 16).ok()?.to_be_bytes();
    Some([red, green, blue])
}
