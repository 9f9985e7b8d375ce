//! Supervisely: a project with `meta.json`, and for each image of a data set a JSON file in `ann`
//! beside `img`.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flate2::read::ZlibDecoder;
use image::ImageReader;
use serde::Deserialize;
use serde_json::Value;

use super::detect::{AnnotationSource, has_extension, read_json};
use super::image_index::files;
use super::raster::{Area, rectangle};
use super::{Annotations, ConvertError, Item, SourceClass, Truth, folder_of, item_name};

/// Folder of the annotations of a data set.
const ANNOTATIONS: &str = "ann";
/// Folder of its images.
const IMAGES: &str = "img";

#[derive(Deserialize)]
struct ProjectMeta {
    classes: Vec<MetaClass>,
}

#[derive(Deserialize)]
struct MetaClass {
    title: String,
    /// Such as `#F0F8FF`.
    #[serde(default)]
    color: Option<String>,
}

#[derive(Deserialize)]
struct ImageAnnotations {
    size: ImageSize,
    objects: Vec<SuperviselyObject>,
}

#[derive(Deserialize)]
struct ImageSize {
    height: usize,
    width: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SuperviselyObject {
    class_title: String,
    /// Missing in old projects.
    #[serde(default)]
    geometry_type: Option<String>,
    #[serde(default)]
    points: Option<ObjectPoints>,
    #[serde(default)]
    bitmap: Option<ObjectBitmap>,
}

#[derive(Deserialize)]
struct ObjectPoints {
    exterior: Vec<[f64; 2]>,
    #[serde(default)]
    interior: Vec<Vec<[f64; 2]>>,
}

#[derive(Deserialize)]
struct ObjectBitmap {
    /// A PNG file in zlib in base64.
    data: String,
    /// Column and row of the upper left pixel.
    origin: [f64; 2],
}

/// True for the content of `meta.json`, or of the annotations of an image.
pub(super) fn is_supervisely(value: &Value) -> bool {
    let has = |key: &str| value.get(key).is_some();
    let is_meta = value.get("classes").and_then(Value::as_array).is_some_and(|classes| {
        has("tags") || classes.first().is_some_and(|class| class.get("title").is_some())
    });
    is_meta || (has("size") && has("objects"))
}

pub(super) fn read(source: AnnotationSource<'_>) -> Result<Annotations, ConvertError> {
    let root = folder_of(source.input);
    let mut annotations = Annotations::default();
    match source.classes {
        Some(_) => {
            for class in source.class_names() {
                annotations.class(class);
            }
        }
        None => add_classes(root, &mut annotations)?,
    }
    let mut left_out: BTreeMap<String, usize> = BTreeMap::new();
    let mut lists: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for path in files(root, &[])?.into_iter().filter(|path| is_annotation(path)) {
        let place = AnnotationPlace::new(root, &path);
        let truth = match parse(&path) {
            Ok(Some(file)) => {
                file.truth(&mut annotations, &mut left_out, source.options.max_pixels)
            }
            Ok(None) => continue,
            // Costs its image.
            Err(error) => Truth::Broken(format!("cannot be read: {error}")),
        };
        let image = source.index.find(&place.image.to_string_lossy(), None);
        let name = place.data_set.join(&place.file).to_string_lossy().into_owned();
        let name = item_name(source, &name, image.path());
        lists.entry(place.list_name()).or_default().push(annotations.items.len());
        annotations.items.push(Item { name, image, origin: path, truth });
    }
    if lists.len() > 1 {
        annotations.lists = lists.into_iter().collect();
    }
    let kinds: Vec<String> =
        left_out.iter().map(|(kind, count)| format!("{count} of the type {kind}")).collect();
    annotations.note(left_out.values().sum(), |_| {
        format!("objects without an area are left out: {}", kinds.join(", "))
    });
    Ok(annotations)
}

/// The classes of the project, which lie in its folder; the annotations may be those of one data set.
fn add_classes(root: &Path, annotations: &mut Annotations) -> Result<(), ConvertError> {
    let folders = [Some(root), root.parent()];
    let meta = folders.into_iter().flatten().map(|folder| folder.join("meta.json"));
    let Some(path) = meta.into_iter().find(|path| path.is_file()) else { return Ok(()) };
    for MetaClass { title, color } in read_json::<ProjectMeta>(&path)?.classes {
        let color = color.as_deref().and_then(parse_color);
        annotations.classes.push(SourceClass { color, ..SourceClass::named(&title) });
    }
    Ok(())
}

fn parse_color(text: &str) -> Option<[u8; 3]> {
    let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6 && digits.is_ascii())?;
    let number = u32::from_str_radix(digits, 16).ok()?;
    let [_, red, green, blue] = number.to_be_bytes();
    Some([red, green, blue])
}

fn is_annotation(path: &Path) -> bool {
    let folder = path.parent().and_then(Path::file_name);
    has_extension(path, "json") && folder.is_some_and(|name| name == ANNOTATIONS)
}

/// Places that follow from the path of an annotation file.
struct AnnotationPlace {
    /// Folder of the data set below that of the project.
    data_set: PathBuf,
    /// Name of the image; without an ending in old projects.
    file: PathBuf,
    /// Path of the image below the folder of the project.
    image: PathBuf,
}

impl AnnotationPlace {
    fn new(root: &Path, path: &Path) -> Self {
        let below = path.strip_prefix(root).unwrap_or(path);
        // The name of the image, with `.json` behind it.
        let file = PathBuf::from(below.file_stem().unwrap_or_default());
        let data_set = below.parent().and_then(Path::parent).unwrap_or(Path::new("")).to_owned();
        let image = data_set.join(IMAGES).join(&file);
        Self { data_set, file, image }
    }

    fn list_name(&self) -> String {
        self.data_set.to_string_lossy().replace(['/', '\\'], "-")
    }
}

/// Reads a file; `None` if it is another program's.
fn parse(path: &Path) -> Result<Option<ImageAnnotations>, ConvertError> {
    let value: Value = read_json(path)?;
    if value.get("objects").is_none() {
        return Ok(None);
    }
    let file = serde_json::from_value(value);
    file.map(Some).map_err(|source| ConvertError::Json { path: path.into(), source })
}

impl ImageAnnotations {
    fn truth(
        self,
        annotations: &mut Annotations,
        left_out: &mut BTreeMap<String, usize>,
        max_pixels: u64,
    ) -> Truth {
        let mut shapes = Vec::new();
        for object in self.objects {
            match object.area(max_pixels) {
                Ok(Some(area)) => shapes.push((annotations.class(&object.class_title), area)),
                Ok(None) => *left_out.entry(object.kind().to_owned()).or_default() += 1,
                Err(reason) => {
                    return Truth::Broken(format!(
                        "an object of `{}` {reason}",
                        object.class_title
                    ));
                }
            }
        }
        Truth::Shapes { size: Some([self.size.height, self.size.width]), shapes }
    }
}

impl SuperviselyObject {
    fn kind(&self) -> &str {
        let bitmap = self.bitmap.as_ref().map(|_| "bitmap");
        self.geometry_type.as_deref().or(bitmap).unwrap_or("polygon")
    }

    /// The area of an object; `None` for those that have none, such as points.
    fn area(&self, max_pixels: u64) -> Result<Option<Area>, String> {
        let points = || self.points.as_ref().ok_or("has no points");
        Ok(Some(match self.kind() {
            "bitmap" => self.bitmap.as_ref().ok_or("has no bitmap")?.area(max_pixels)?,
            "polygon" => {
                let ObjectPoints { exterior, interior } = points()?;
                match interior.is_empty() {
                    true => Area::Polygons(vec![exterior.clone()]),
                    false => Area::Holed { outer: exterior.clone(), holes: interior.clone() },
                }
            }
            "rectangle" => match points()?.exterior[..] {
                // The last pixels belong to it.
                [[x, y], [to_x, to_y]] => {
                    let corner = [x.max(to_x) + 1.0, y.max(to_y) + 1.0];
                    Area::Polygons(vec![rectangle([x.min(to_x), y.min(to_y)], corner)])
                }
                _ => return Err("needs two points".to_owned()),
            },
            _ => return Ok(None),
        }))
    }
}

impl ObjectBitmap {
    /// Decodes the pixels: those that are not transparent, or without transparency not black.
    fn area(&self, max_pixels: u64) -> Result<Area, String> {
        let broken = || "has a broken bitmap".to_owned();
        let packed = BASE64_STANDARD.decode(self.data.trim()).map_err(|_| broken())?;
        let mut png = Vec::new();
        // No PNG of so many pixels is larger.
        let limit = max_pixels.saturating_mul(8).saturating_add(1 << 16);
        ZlibDecoder::new(&packed[..]).take(limit).read_to_end(&mut png).map_err(|_| broken())?;
        let open = || ImageReader::new(Cursor::new(&png)).with_guessed_format().ok();
        let (width, height) =
            open().and_then(|reader| reader.into_dimensions().ok()).ok_or_else(broken)?;
        if u64::from(width) * u64::from(height) > max_pixels {
            return Err(format!(
                "has a bitmap of {width}x{height} pixels; --max-pixels raises the limit"
            ));
        }
        let bitmap = open().and_then(|reader| reader.decode().ok()).ok_or_else(broken)?;
        let pixels = if bitmap.color().has_alpha() {
            bitmap.into_rgba8().pixels().map(|pixel| pixel[3] > 0).collect()
        } else {
            bitmap.into_luma8().into_raw().into_iter().map(|sample| sample > 0).collect()
        };
        let [left, top] = self.origin.map(|place| place.max(0.0) as usize);
        Ok(Area::Pixels { left, top, width: width as usize, pixels })
    }
}
