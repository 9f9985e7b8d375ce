//! Label maps of many kinds and the annotation files that are made from them.

use std::path::{Path, PathBuf};

use protoseg_images::formats::{
    AnnotationFormat, AnnotationOptions, FormatError, StoredLabels, label_studio,
};
use protoseg_images::label_map::LabelMap;
use protoseg_models::classes::{Class, ClassTable, IGNORE_INDEX};
use protoseg_models::random::Stream;

/// Classes with difficult names and colors: spaces, letters of markup, black, and one color twice.
fn classes() -> ClassTable {
    let mut classes = ClassTable::cityscapes().classes().to_vec();
    classes[3].name = "wall, \"dry\" <stone> & brick".to_owned();
    classes[4].color = [0; 3];
    classes[5].color = classes[6].color;
    let more = (0..6).map(|index| Class {
        name: format!("more {index}"),
        color: [index, 0, 7],
        source_id: 100 + index,
    });
    classes.extend(more);
    ClassTable::try_from(classes).unwrap()
}

/// Maps of many kinds: synthetic scenes with ignored pixels, noise of every class, runs longer than
/// any counter's step, single rows, columns and pixels, and one without any class.
fn maps(classes: usize) -> Vec<(PathBuf, LabelMap)> {
    let scene = |index, height, width| LabelMap {
        height,
        width,
        labels: protoseg_synthetic::render_scene(5, index, height, width).labels,
    };
    let noise = |seed, height: usize, width: usize, kinds: usize| {
        let stream = Stream::keyed(&[seed]);
        let draw = |index| match stream.below(index, kinds + 1) as u8 {
            label if usize::from(label) == kinds => IGNORE_INDEX,
            label => label,
        };
        LabelMap { height, width, labels: (0..(height * width) as u64).map(draw).collect() }
    };
    let plain =
        |height, width, label| LabelMap { height, width, labels: vec![label; height * width] };
    let maps = [
        ("b/street 1.jpg", scene(1, 512, 1024)),
        ("b/street 2.jpg", scene(2, 331, 517)),
        ("a/deep/noise.webp", noise(1, 61, 83, classes)),
        ("a/two.tif", noise(2, 97, 64, 2)),
        ("plain.png", plain(300, 400, 24)),
        ("row.png", noise(3, 1, 70, 3)),
        ("column.png", noise(4, 70, 1, 3)),
        ("pixel.png", plain(1, 1, 0)),
        ("nothing.png", plain(9, 7, IGNORE_INDEX)),
    ];
    maps.into_iter().map(|(name, map)| (name.into(), map)).collect()
}

/// Writes one file per map, and from these one file per annotation format.
pub(crate) fn write(folder: &Path) -> Result<(), FormatError> {
    let classes = classes();
    let mut names = Vec::new();
    for (index, (name, map)) in (0..).zip(maps(classes.count())) {
        let stream = Stream::keyed(&[9, index]);
        let confidence: Vec<u8> =
            (0..map.labels.len() as u64).map(|pixel| stream.below(pixel, 256) as u8).collect();
        for (kind, png) in [("ids", map.ids_png()?), ("confidence", map.gray_png(&confidence)?)] {
            let path = folder.join(kind).join(name.with_extension("png"));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, png).unwrap();
        }
        names.push(name);
    }
    let confidence = Some(folder.join("confidence"));
    let images = StoredLabels::new(names.clone(), folder.join("ids"), confidence, 1 << 20);
    for format in [AnnotationFormat::Coco, AnnotationFormat::Cvat, AnnotationFormat::LabelStudio] {
        let options = AnnotationOptions::default();
        format.check(&classes, &options)?;
        format.write(&folder.join(format.file_name()), images.clone(), &classes, &options)?;
    }
    names.sort();
    let lines: String = names.iter().map(|name| format!("{}\n", name.display())).collect();
    std::fs::write(folder.join("names.txt"), lines).unwrap();
    let class = |Class { name, color: [red, green, blue], .. }: &Class| {
        format!("{name} {red} {green} {blue}\n")
    };
    let lines: String = classes.classes().iter().map(class).collect();
    std::fs::write(folder.join("classes.txt"), lines).unwrap();
    let config = label_studio::labeling_config(&classes);
    std::fs::write(folder.join("labelstudio.xml"), config).unwrap();
    Ok(())
}
