//! Images that do not fit into the memory for one image: labeled by rows of windows, or refused
//! with the reason.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use image::{ImageFormat, Rgb, RgbImage};
use protoseg_models::random::Stream;

use crate::common::{TestDir, answer, expect, files, results, signal, stripes};

const BY_ROWS: &str = "label bundle big --window 64:48 --format ids,geotiff,labelids,color,confidence,margin --image-memory 100K";

/// Test folder with a TIFF and a PNG in `big`, and an image of some pixels.
fn test_dir(width: u32, height: u32) -> TestDir {
    let dir = TestDir::new();
    std::fs::create_dir(dir.at("big")).unwrap();
    let noise = Stream::named("noise");
    let pixel = |x: u32, y: u32| {
        let own = (x / 23 + y / 31) as usize % 3;
        let byte = |band: usize| {
            let noise = noise.below(u64::from(y * width + x) * 3 + band as u64, 60) as u8;
            noise + if band == own { 60 } else { 30 }
        };
        Rgb([0, 1, 2].map(byte))
    };
    let image = RgbImage::from_fn(width, height, pixel);
    image.save(dir.at("big/scene.tif")).unwrap();
    image.save(dir.at("big/street.png")).unwrap();
    stripes(48, 32).save(dir.at("big/small.png")).unwrap();
    dir
}

fn decoded(path: &Path) -> Vec<u8> {
    image::open(path).unwrap().into_bytes()
}

/// True if nothing is said but that images have no place on Earth, which GeoTIFFs would keep.
fn placeless(message: &str) -> bool {
    message.lines().all(|line| line.starts_with("warning: ") && line.contains("no place on Earth"))
}

#[test]
fn images_by_rows_have_the_labels_of_those_in_memory() {
    let dir = test_dir(611, 407);
    for (out, options) in [
        ("one", ""),
        ("three", " --batch 3"),
        ("many", " --batch 40"),
        ("cores", " --mode throughput --threads 2"),
    ] {
        let whole = BY_ROWS.replace(" --image-memory 100K", "");
        let given = answer(&mut dir.command(&format!("{whole} --out whole-{out}{options}")));
        assert!(given.status == 0 && placeless(&given.stderr), "{given:?}");
        let given = answer(&mut dir.command(&format!("{BY_ROWS} --out {out}{options}")));
        assert!(given.status == 0 && placeless(&given.stderr), "{given:?}");
        assert!(given.stdout.starts_with("3 labeled into"), "{given:?}");
        let names = results(&dir.at(out));
        assert_eq!(names, results(&dir.at(&format!("whole-{out}"))));
        assert_eq!(names.len(), 18);
        for name in names {
            let whole = dir.at(&format!("whole-{out}")).join(&name);
            let found = dir.at(out).join(&name);
            assert!(decoded(&found) == decoded(&whole), "{out}: {name}");
            // A file that says the same in other bytes would be another for --resume of a user.
            if name.starts_with("geotiff/") {
                assert!(std::fs::read(found).unwrap() == std::fs::read(whole).unwrap(), "{name}");
            }
        }
        let again = answer(&mut dir.command(&format!("{BY_ROWS} --out {out}{options} --resume")));
        assert!(again.stdout.starts_with("0 labeled, 3 kept"), "{again:?}");
    }
}

#[test]
fn what_cannot_go_by_rows_is_refused_before_it_is_run() {
    let dir = test_dir(300, 200);
    image::open(dir.at("big/street.png")).unwrap().save(dir.at("big/photo.jpg")).unwrap();
    for (out, more, failed, parts) in [
        (
            "formats",
            "--window 64:48 --format ids,overlay,coco --image-memory 100K",
            3,
            ["--format overlay,coco needs all of its pixels", "--image-memory 1M"],
        ),
        (
            "whole",
            "--window whole --image-memory 100K",
            3,
            ["300x200 pixels take 1 MB at once", "--window 512:384"],
        ),
        (
            "files",
            "--window 64:48 --image-memory 100K",
            1,
            ["photo.jpg", "gdal_translate -co TILED=YES"],
        ),
        (
            "pixels",
            "--window 64:48 --image-memory 100K --max-pixels 50000",
            3,
            ["limit of 50000", ".jpg"],
        ),
    ] {
        let given = answer(&mut dir.command(&format!("label bundle big --out {out} {more}")));
        assert_eq!(given.status, 3, "{more}: {given:?}");
        assert!(given.stdout.starts_with(&format!("{} labeled", 4 - failed)), "{given:?}");
        for part in parts {
            assert!(given.stderr.contains(part), "{more}: `{part}` is not in {}", given.stderr);
        }
        assert_eq!(given.stderr.matches("error: ").count(), failed, "{given:?}");
        let out = dir.at(out);
        let failures = std::fs::read_to_string(out.join(".protoseg/failed.jsonl")).unwrap();
        assert_eq!(failures.lines().count(), failed);
        assert!(files(&out.join(".protoseg/partial")).is_empty());
    }
    // Without an option, what fits into memory is labeled there.
    let given = answer(&mut dir.command("label bundle big --out all --format ids,overlay"));
    assert_eq!(given.status, 0, "{given:?}");
}

#[test]
fn a_header_of_many_pixels_is_enough_to_go_by_rows() {
    let dir = test_dir(300, 300);
    // 20000x20000 pixels, and then nothing.
    let mut bytes = std::fs::read(dir.at("big/street.png")).unwrap();
    bytes[16..24].copy_from_slice(&[0, 0, 0x4E, 0x20, 0, 0, 0x4E, 0x20]);
    let mut crc = flate2::Crc::new();
    crc.update(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&crc.sum().to_be_bytes());
    std::fs::write(dir.at("big/street.png"), bytes).unwrap();
    let given = answer(&mut dir.command("label bundle big --out out"));
    assert_eq!(given.status, 3, "{given:?}");
    assert!(given.stdout.starts_with("2 labeled, 1 failed"), "{given:?}");
    let parts = ["big/street.png", "broken or cut short"];
    assert!(parts.iter().all(|part| given.stderr.contains(part)), "{given:?}");
    assert_eq!(results(&dir.at("out")), ["ids/scene.png", "ids/small.png"]);
    assert!(files(&dir.at("out/.protoseg/partial")).is_empty());
    let given = answer(&mut dir.command("label bundle big --out less --max-pixels 300000000"));
    assert!(given.stderr.contains("limit of 300000000"), "{given:?}");
}

#[test]
fn an_interrupted_image_leaves_nothing_and_is_labeled_by_resume() {
    let dir = test_dir(1500, 1500);
    std::fs::remove_file(dir.at("big/street.png")).unwrap();
    let line = "label bundle big --window 64:8 --format ids,geotiff --image-memory 100K --verbose";
    let clean = answer(&mut dir.command(&format!("{line} --out clean")));
    assert_eq!(clean.status, 0, "{clean:?}");
    assert!(clean.stderr.contains("big/scene.tif: "), "{clean:?}");
    for (name, status) in [("TERM", Some(143)), ("KILL", None)] {
        let out = format!("out-{name}");
        let mut command = dir.command(&format!("{line} --out {out}"));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut lines = stderr.lines().map(Result::unwrap);
        assert!(lines.any(|line| line.ends_with(" windows")), "no progress");
        signal(child.id(), name);
        lines.for_each(drop);
        assert_eq!(child.wait().unwrap().code(), status);
        assert_eq!(results(&dir.at(&out)), ["geotiff/small.tif", "ids/small.png"]);
        let left = files(&dir.at(&out).join(".protoseg/partial"));
        assert_eq!(left.is_empty(), name == "TERM", "{left:?}");
        let resumed = answer(&mut dir.command(&format!("{line} --out {out} --resume")));
        assert!(resumed.stdout.starts_with("1 labeled, 1 kept"), "{resumed:?}");
        for name in results(&dir.at("clean")) {
            let bytes = |folder: &str| std::fs::read(dir.at(folder).join(&name)).unwrap();
            assert!(bytes(&out) == bytes("clean"), "{name}");
        }
        assert!(files(&dir.at(&out).join(".protoseg/partial")).is_empty());
    }
}

#[test]
fn remarks_and_ranges_hold_by_rows() {
    let dir = test_dir(100, 100);
    let deep = image::open(dir.at("big/scene.tif")).unwrap().into_rgb8();
    let values: Vec<u16> = deep.as_raw().iter().map(|&value| u16::from(value) * 30).collect();
    let deep: image::ImageBuffer<Rgb<u16>, Vec<u16>> =
        image::ImageBuffer::from_raw(100, 100, values).unwrap();
    deep.save_with_format(dir.at("big/scene.tif"), ImageFormat::Tiff).unwrap();
    deep.save(dir.at("big/street.png")).unwrap();
    let line = "label bundle big --window 64:48 --image-memory 10K --out out";
    let parts = ["the largest value of big/scene.tif is", "2 of 3 images", "--range 0:"];
    expect("remarks", &answer(&mut dir.command(line)), 0, &parts);
    let ranged = answer(&mut dir.command(&format!("{line} --resume --range 0:3600")));
    assert!(ranged.status == 0 && !ranged.stderr.contains("largest value"), "{ranged:?}");
    let picked = answer(&mut dir.command(&format!("{line}-picked --channels 1,2,4")));
    assert_eq!(picked.status, 3, "{picked:?}");
    assert_eq!(picked.stderr.matches("channel 4 is chosen, and it has 3").count(), 3);
}
