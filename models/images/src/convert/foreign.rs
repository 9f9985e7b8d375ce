//! Annotations of formats that are not read, told by what they hold, with the way to one that is.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde_json::Value;

use super::detect::has_extension;

/// A format that is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForeignFormat {
    /// Name of the format or its program.
    pub name: &'static str,
    /// The way to a format that is read.
    pub way: &'static str,
}

const fn foreign(name: &'static str, way: &'static str) -> ForeignFormat {
    ForeignFormat { name, way }
}

/// Bytes of a line that are looked at.
const LONGEST_LINE: u64 = 64 << 20;

const AS_COCO: &str = "export the masks there as COCO";
const LABELBOX: ForeignFormat = foreign(
    "Labelbox's export",
    "its masks and images are URLs, which are not fetched: download both, the masks as PNG named \
     `IMAGE_CLASS.png` or `CLASS/IMAGE.png`, and convert the folder with `--from masks --images DIR`, \
     or make COCO of it by Labelbox's own converter (`labelbox.data.serialization`)",
);
/// The official tree of Cityscapes.
pub(super) const CITYSCAPES: ForeignFormat = foreign(
    "the tree of Cityscapes",
    "it needs no conversion: train with `data = \"cityscapes\"`, and score with `--data cityscapes`",
);
const YOLO: ForeignFormat = foreign(
    "YOLO's text files",
    "export from the annotation tool as COCO, or make COCO of them by `datumaro`",
);
const NDJSON: ForeignFormat = foreign("JSON by lines", AS_COCO);
const ARCHIVE: ForeignFormat = foreign("an archive other than ZIP", "unpack it");
pub(super) const CSV: ForeignFormat = foreign(
    "a table, as of Kaggle's run lengths or Label Studio",
    "make COCO of it by `pycocotools.mask`, or PNG masks; in Label Studio, export as JSON",
);
const SHAPES: ForeignFormat = foreign(
    "shapes on a map",
    "burn them into masks by `gdal_rasterize -a CLASS -ot Byte shapes.geojson mask.tif`",
);
const BOXES_OF_VOC: ForeignFormat = foreign(
    "boxes of Pascal VOC, which are no masks",
    "take a tree with SegmentationClass, or annotate masks",
);
const ARRAYS: ForeignFormat = foreign(
    "arrays of NumPy or Matlab",
    "save the masks as PNG, such as by `PIL.Image.fromarray(mask.astype(\"uint8\")).save(\"a.png\")`",
);

/// Recognizes a file by its ending.
pub(super) fn by_name(path: &Path) -> Option<ForeignFormat> {
    let ends = |endings: &[&str]| endings.iter().any(|ending| has_extension(path, ending));
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    if ends(&["tar", "tgz", "gz", "bz2", "xz", "7z", "rar"]) {
        return Some(ARCHIVE);
    }
    if ends(&["ndjson", "jsonl"]) {
        let is_labelbox = name.contains("labelbox");
        return Some(if is_labelbox { LABELBOX } else { by_first_line(path).unwrap_or(NDJSON) });
    }
    if ["_classes.csv", "class_dict.csv"].contains(&name.as_str()) {
        return None;
    }
    if ends(&["csv", "tsv"]) {
        return Some(CSV);
    }
    if ends(&["geojson", "shp", "gpkg", "kml"]) {
        return Some(SHAPES);
    }
    if ends(&["npy", "npz", "mat"]) {
        return Some(ARRAYS);
    }
    (["data.yaml", "data.yml", "dataset.yaml"].contains(&name.as_str())).then_some(YOLO)
}

/// Recognizes JSON by lines by its first one.
pub(super) fn by_first_line(path: &Path) -> Option<ForeignFormat> {
    let mut line = Vec::new();
    let file = std::fs::File::open(path).ok()?;
    let mut reader = BufReader::new(file).take(LONGEST_LINE);
    while line.trim_ascii().is_empty() {
        line.clear();
        if reader.read_until(b'\n', &mut line).ok()? == 0 {
            return None;
        }
    }
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line);
    let value: Value = serde_json::from_slice(line).ok()?;
    by_content(&value).or_else(|| by_entry(&value)).or(value.is_object().then_some(NDJSON))
}

/// Recognizes the content of an XML file by its first element.
pub(super) fn by_root_element(name: &str) -> Option<ForeignFormat> {
    (name == "annotation").then_some(BOXES_OF_VOC)
}

/// True for a text of YOLO: lines of a class and its coordinates.
pub(super) fn is_yolo(text: &str) -> bool {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty()).peekable();
    let is_row = |line: &str| {
        let numbers: Option<Vec<f64>> =
            line.split_whitespace().map(|word| word.parse().ok()).collect();
        numbers.is_some_and(|numbers| numbers.len() >= 5)
    };
    lines.peek().is_some() && lines.all(is_row)
}

/// The format of YOLO's texts.
pub(super) const fn yolo() -> ForeignFormat {
    YOLO
}

/// Recognizes the content of a JSON file.
pub(super) fn by_content(value: &Value) -> Option<ForeignFormat> {
    if let Some(list) = value.as_array() {
        return by_entry(list.first()?);
    }
    let has = |key: &str| value.get(key).is_some();
    let holds_all = |keys: &[&str]| keys.iter().all(|key| has(key));
    if value.get("type").and_then(Value::as_str) == Some("FeatureCollection") {
        return Some(SHAPES);
    }
    if holds_all(&["image", "annotations"]) {
        return Some(foreign(
            "masks of Segment Anything (SA-1B), which have no classes",
            "give the masks classes in an annotation tool that takes them, and export them from there",
        ));
    }
    if holds_all(&["imgHeight", "imgWidth", "objects"]) {
        return Some(foreign(
            "polygons of Cityscapes",
            "use the files `…_gtFine_labelIds.png` with the dataset kind `cityscapes`",
        ));
    }
    if has("data_row") && (has("projects") || has("media_attributes")) {
        return Some(LABELBOX);
    }
    if has("_via_img_metadata") || value.as_object().is_some_and(is_via) {
        return Some(foreign("VGG's annotator (VIA)", "export there as COCO"));
    }
    if holds_all(&["item", "annotations"]) {
        return Some(foreign("V7's Darwin JSON", AS_COCO));
    }
    if holds_all(&["categories", "items"]) {
        return Some(foreign(
            "Datumaro's JSON",
            "write COCO by `datum convert -if datumaro -f coco_instances`",
        ));
    }
    if holds_all(&["instances", "metadata"]) {
        return Some(foreign("SuperAnnotate's JSON", AS_COCO));
    }
    None
}

/// Recognizes the first entry of a list.
fn by_entry(entry: &Value) -> Option<ForeignFormat> {
    let has = |key: &str| entry.get(key).is_some();
    if has("image_id") && (has("segmentation") || has("bbox")) {
        return Some(foreign(
            "COCO's results, which name no images and no classes",
            "put them as `annotations` into the file of the images",
        ));
    }
    if ["data_row", "Labeled Data", "DataRow ID", "dataRow"].iter().any(|key| has(key)) {
        return Some(LABELBOX);
    }
    if has("imageName") || has("regions") {
        return Some(foreign("VGG's annotator (VIA)", "export there as COCO"));
    }
    // JSON-MIN has the results of a task under the names of its controls.
    let holds_results =
        |value: &Value| value.get(0).is_some_and(|first| first.get("original_width").is_some());
    let is_min = has("annotator")
        || has("annotation_id")
        || has("lead_time")
        || entry.as_object().is_some_and(|entry| entry.values().any(holds_results));
    (is_min && !has("data"))
        .then_some(foreign("Label Studio's JSON-MIN", "choose the format `JSON` in its export"))
}

/// True for the files of a VIA project: objects with `filename` and `regions`.
fn is_via(value: &serde_json::Map<String, Value>) -> bool {
    let is_file = |entry: &Value| entry.get("filename").is_some() && entry.get("regions").is_some();
    value.values().next().is_some_and(is_file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_their_content() {
        for (json, name) in [
            (
                r#"{"image": {"image_id": 1}, "annotations": [{"segmentation": {}}]}"#,
                "Segment Anything",
            ),
            (r#"[{"ID": "x", "Labeled Data": "https://x"}]"#, "Labelbox"),
            (r#"{"data_row": {}, "media_attributes": {}, "projects": {}}"#, "Labelbox"),
            (r#"{"a.jpg123": {"filename": "a.jpg", "size": 123, "regions": []}}"#, "VIA"),
            (r#"{"_via_settings": {}, "_via_img_metadata": {}}"#, "VIA"),
            (
                r#"[{"image_id": 1, "category_id": 1, "segmentation": {}, "score": 0.5}]"#,
                "COCO's results",
            ),
            (r#"{"imgHeight": 1024, "imgWidth": 2048, "objects": []}"#, "Cityscapes"),
            (r#"{"info": {}, "categories": {"label": {}}, "items": []}"#, "Datumaro"),
            (r#"{"version": "2.0", "item": {}, "annotations": []}"#, "Darwin"),
            (r#"[{"image": "/a.jpg", "id": 1, "label": [], "annotator": 1}]"#, "JSON-MIN"),
            (r#"{"type": "FeatureCollection", "features": []}"#, "on a map"),
        ] {
            let found = by_content(&serde_json::from_str(json).unwrap()).unwrap();
            assert!(found.name.contains(name), "{json}: {found:?}");
        }
        for json in ["{}", "[]", "3", r#"{"a": {"b": 1}}"#, r#"[{"a": 1}]"#] {
            assert_eq!(by_content(&serde_json::from_str(json).unwrap()), None, "{json}");
        }
        assert!(
            is_yolo("0 0.1 0.2 0.3 0.4\n1 0 0 1 0 1 1\n") && !is_yolo("a b c d e") && !is_yolo("")
        );
        assert_eq!(by_name(Path::new("a/export.TAR.gz")), Some(ARCHIVE));
        assert_eq!(by_name(Path::new("a.json")), None);
    }
}
