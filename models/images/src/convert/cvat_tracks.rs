//! Tracks of "CVAT for video 1.1": shapes of an object from frame to frame, some drawn by a person
//! (keyframes), the others interpolated.
//!
//! Frames with a keyframe are converted, if the file has the shape of every object there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use roxmltree::{Document, Node};

use super::cvat_xml::{area, attribute};
use super::detect::AnnotationSource;
use super::raster::Area;
use super::{Annotations, ConvertError, Item, Truth};

/// Shapes of an object by frame.
struct Track {
    class: u8,
    shapes: BTreeMap<u64, TrackShape>,
}

struct TrackShape {
    is_keyframe: bool,
    /// `None` where the object is out of sight.
    area: Option<Area>,
    order: i64,
}

impl Track {
    /// Returns true if the object may be seen in a frame for which the file has no shape.
    fn is_unknown_at(&self, frame: u64) -> bool {
        let before = self.shapes.range(..frame).next_back();
        !self.shapes.contains_key(&frame) && before.is_some_and(|(_, shape)| shape.area.is_some())
    }
}

/// Adds the frames of the tracks of a file.
pub(super) fn add_file(
    source: AnnotationSource<'_>,
    path: &Path,
    document: &Document<'_>,
    annotations: &mut Annotations,
) -> Result<(), ConvertError> {
    let content = |reason: String| ConvertError::Content { path: path.into(), reason };
    let mut tracks = Vec::new();
    let mut left_out = 0;
    for node in document.root_element().children().filter(|node| node.has_tag_name("track")) {
        let label = attribute::<String>(node, "label").map_err(content)?;
        match shapes(node)
            .map_err(|reason| content(format!("in a track of `{label}`, {reason}")))?
        {
            Some(shapes) => tracks.push(Track { class: annotations.class(&label), shapes }),
            None => left_out += 1,
        }
    }
    let frames: BTreeSet<u64> =
        tracks.iter().flat_map(|track| track.shapes.keys().copied()).collect();
    let mut keyframes = tracks.iter().flat_map(|track| &track.shapes);
    let keyframes: BTreeSet<u64> = keyframes
        .by_ref()
        .filter(|(_, shape)| shape.is_keyframe)
        .map(|(frame, _)| *frame)
        .collect();
    let is_whole = |frame: &u64| !tracks.iter().any(|track| track.is_unknown_at(*frame));
    let (whole, parts): (Vec<u64>, Vec<u64>) = keyframes.iter().copied().partition(is_whole);
    let size = size(document);
    let mut missing = 0;
    for frame in &whole {
        let visible = |track: &Track| {
            let TrackShape { area, order, .. } = track.shapes.get(frame)?;
            Some((*order, track.class, area.clone()?))
        };
        let mut shapes: Vec<(i64, u8, Area)> = tracks.iter().filter_map(visible).collect();
        // Stable: shapes of one layer stay in the order of the file.
        shapes.sort_by_key(|(order, ..)| *order);
        let shapes = shapes.into_iter().map(|(_, class, area)| (class, area)).collect();
        let truth = Truth::Shapes { size, shapes };
        let item = Item::find(source, &format!("frame_{frame:06}"), path, truth);
        missing += usize::from(item.image.path().is_none());
        annotations.items.push(item);
    }
    annotations.note(left_out, |count| {
        format!("{count} tracks without an area (lines, points, skeletons, cuboids) are left out")
    });
    annotations.note(parts.len(), |count| {
        format!(
            "{count} keyframes are left out, as the file has no shape for other objects there, such as \
             frame {}: export \"CVAT for images 1.1\", which has all shapes of all frames",
            parts[0]
        )
    });
    annotations.note(frames.len() - keyframes.len(), |count| {
        format!(
            "{count} frames between keyframes are left out, as their shapes are interpolated: \"CVAT for \
             images 1.1\" has these too"
        )
    });
    annotations.note(missing, |count| {
        format!(
            "{count} frames of the video are not found as frame_000000.png and so on: `ffmpeg -i VIDEO \
             -start_number 0 frame_%06d.png` makes them"
        )
    });
    Ok(())
}

/// Shapes of a track by frame; `None` if they have no area.
fn shapes(track: Node<'_, '_>) -> Result<Option<BTreeMap<u64, TrackShape>>, String> {
    let mut shapes = BTreeMap::new();
    for node in track.children().filter(Node::is_element) {
        let is_set = |name: &str| node.attribute(name).is_some_and(|text| text.trim() == "1");
        let Some(area) = area(node)? else {
            // Attributes of the track are elements too.
            if node.attribute("frame").is_some() {
                return Ok(None);
            }
            continue;
        };
        let order = node.attribute("z_order").and_then(|order| order.trim().parse().ok());
        let shape = TrackShape {
            // Where nothing is said of it, every shape was drawn.
            is_keyframe: node.attribute("keyframe").is_none() || is_set("keyframe"),
            area: Some(area).filter(|_| !is_set("outside")),
            order: order.unwrap_or_default(),
        };
        shapes.insert(attribute(node, "frame")?, shape);
    }
    Ok(Some(shapes))
}

/// Height and width of the video, if the file gives them.
fn size(document: &Document<'_>) -> Option<[usize; 2]> {
    let node = document.descendants().find(|node| node.has_tag_name("original_size"))?;
    let side = |tag: &str| {
        node.children().find(|node| node.has_tag_name(tag))?.text()?.trim().parse().ok()
    };
    Some([side("height")?, side("width")?])
}
