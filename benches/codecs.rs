//! Files of a synthetic scene of 1024x2048 pixels: decoding it, and encoding its labels in every
//! format.

use std::hint::black_box;
use std::io::Cursor;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use image::{ImageFormat, RgbImage};
use protoseg_images::formats::{
    AnnotationOptions, ImageLabels, coco, cvat, label_ids, label_studio, pseudo_labels,
};
use protoseg_images::image_file::{self, MAX_PIXELS};
use protoseg_images::label_map::LabelMap;
use protoseg_models::classes::ClassTable;

const SIZE: [usize; 2] = [1024, 2048];

/// The scene and its labels.
fn scene() -> (RgbImage, LabelMap) {
    let [height, width] = SIZE;
    let scene = protoseg_synthetic::render_scene(5, 0, height, width);
    let image =
        RgbImage::from_raw(width as u32, height as u32, scene.image).expect("three bytes a pixel");
    (image, LabelMap { height, width, labels: scene.labels })
}

fn decode(criterion: &mut Criterion) {
    let (image, _) = scene();
    let mut group = criterion.benchmark_group("decode 1024x2048");
    group.sample_size(20).throughput(Throughput::Elements((SIZE[0] * SIZE[1]) as u64));
    for format in [ImageFormat::Png, ImageFormat::Jpeg] {
        let mut file = Cursor::new(Vec::new());
        image.write_to(&mut file, format).expect("an image fits in memory");
        let file = file.into_inner();
        group.bench_function(format!("{format:?}"), |bencher| {
            bencher.iter(|| image_file::decode(black_box(&file), MAX_PIXELS));
        });
    }
    group.finish();
}

fn encode(criterion: &mut Criterion) {
    let (image, map) = scene();
    let classes = ClassTable::cityscapes();
    let confidence: Vec<u8> = image.pixels().map(|pixel| pixel.0[1]).collect();
    let labeled = ImageLabels {
        name: "street.jpg".into(),
        map: map.clone(),
        confidence: Some(confidence.clone()),
    };
    let mut group = criterion.benchmark_group("encode 1024x2048");
    group.sample_size(20).throughput(Throughput::Elements((SIZE[0] * SIZE[1]) as u64));
    group.bench_function("ids", |bencher| bencher.iter(|| black_box(&map).ids_png()));
    group.bench_function("colors", |bencher| bencher.iter(|| black_box(&map).color_png(&classes)));
    group.bench_function("overlay", |bencher| {
        bencher.iter(|| black_box(&map).overlay_png(&image, &classes, false));
    });
    group.bench_function("confidence", |bencher| {
        bencher.iter(|| map.gray_png(black_box(&confidence)));
    });
    group.bench_function("ids of the dataset", |bencher| {
        bencher.iter(|| label_ids::png(black_box(&map), &classes));
    });
    group.bench_function("pseudo labels", |bencher| {
        bencher.iter(|| pseudo_labels::labels_png(black_box(&labeled), 0.5, &classes));
    });
    let images = || [Ok(labeled.clone())];
    group.bench_function("COCO", |bencher| {
        bencher.iter(|| {
            let mut file = Vec::new();
            coco::write(&mut file, images(), &classes, &AnnotationOptions::default()).map(|()| file)
        });
    });
    group.bench_function("CVAT", |bencher| {
        bencher.iter(|| {
            let mut file = Cursor::new(Vec::new());
            cvat::write(&mut file, images(), &classes, &AnnotationOptions::default()).map(|()| file)
        });
    });
    let options = label_studio::LabelStudioOptions::default();
    group.bench_function("Label Studio", |bencher| {
        bencher.iter(|| {
            let mut file = Vec::new();
            label_studio::write(&mut file, images(), &classes, &options).map(|()| file)
        });
    });
    group.finish();
}

criterion_group!(benches, decode, encode);
criterion_main!(benches);
