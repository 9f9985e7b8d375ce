//! `protoseg import` on small models of other programs (`fixtures/adopt/make.py`). In nearly all of
//! them the logit of class c is input channel c, so that the color of a pixel gives its label.

use image::RgbImage;
use protoseg_images::label_map;
use protoseg_models::bundle::{Manifest, ProbeReference};
use protoseg_models::random::Stream;
use protoseg_models::window::Window;

use crate::common::{
    ProgramOutput, TestDir, answer, expect, files, fixture, results, stripe_labels, stripes,
};

/// Test folder with the model `name` in `theirs`.
pub(crate) fn test_dir(name: &str) -> TestDir {
    let dir = TestDir::new();
    std::fs::create_dir(dir.at("theirs")).unwrap();
    for extension in ["onnx", "data"] {
        let file = format!("{name}.{extension}");
        let from = fixture("adopt").join(&file);
        if from.exists() {
            std::fs::copy(from, dir.at("theirs").join(file)).unwrap();
        }
    }
    dir
}

pub(crate) fn import(dir: &TestDir, name: &str, options: &str) -> ProgramOutput {
    let line =
        format!("import theirs/{name}.onnx --classes in/classes.txt --out imported {options}");
    answer(&mut dir.command(line.trim_end()))
}

/// Test folder with the model imported.
pub(crate) fn imported(name: &str, options: &str) -> TestDir {
    let dir = test_dir(name);
    let given = import(&dir, name, options);
    assert_eq!((given.status, given.stderr.as_str()), (0, ""), "{name} {options}: {given:?}");
    assert_eq!(files(&dir.at("imported")), ["manifest.json", "model.onnx", "probe.safetensors"]);
    dir
}

pub(crate) fn label(dir: &TestDir, image: &RgbImage, options: &str) -> ProgramOutput {
    for folder in ["images", "out"] {
        let _ = std::fs::remove_dir_all(dir.at(folder));
    }
    std::fs::create_dir(dir.at("images")).unwrap();
    image.save(dir.at("images/p.png")).unwrap();
    answer(&mut dir.command(format!("label imported images --out out {options}").trim_end()))
}

/// Labels of an image by `protoseg label`.
pub(crate) fn labels(dir: &TestDir, image: &RgbImage, options: &str) -> Vec<u8> {
    let given = label(dir, image, options);
    assert_eq!((given.status, given.stderr.as_str()), (0, ""), "{options}: {given:?}");
    let map = label_map::read(&dir.at("out/ids/p.png"), 1 << 20).unwrap();
    assert_eq!((map.width, map.height), (image.width() as usize, image.height() as usize));
    map.labels
}

pub(crate) fn noise(width: u32, height: u32) -> RgbImage {
    let stream = Stream::keyed(&[u64::from(width), u64::from(height)]);
    let bytes =
        (0..u64::from(width * height * 3)).map(|index| stream.below(index, 256) as u8).collect();
    RgbImage::from_raw(width, height, bytes).unwrap()
}

/// Normalized value of a byte of channel 0 (red), 1 (green) or 2 (blue).
type Value = fn(usize, f64) -> f64;

fn plain(_: usize, byte: f64) -> f64 {
    byte
}

fn imagenet(channel: usize, byte: f64) -> f64 {
    (byte / 255.0 - [0.485, 0.456, 0.406][channel]) / [0.229, 0.224, 0.225][channel]
}

fn odd_numbers(channel: usize, byte: f64) -> f64 {
    (byte / 2.0 - [100.0, 20.0, 60.0][channel]) / [3.0, 9.0, 5.0][channel]
}

/// Index of the first largest normalized channel, of blue, green, red if `bgr`.
fn expected(image: &RgbImage, bgr: bool, value: Value) -> Vec<u8> {
    let label = |pixel: &image::Rgb<u8>| {
        let mut values: Vec<f64> =
            (0..3).map(|channel| value(channel, f64::from(pixel.0[channel]))).collect();
        if bgr {
            values.reverse();
        }
        (1..3).fold(0, |best, class| if values[class] > values[best] { class } else { best }) as u8
    };
    image.pixels().map(label).collect()
}

#[test]
fn an_unwritable_output_folder_is_named() {
    let dir = test_dir("float-nchw");
    let line = "import theirs/float-nchw.onnx --classes in/classes.txt --out /proc/z --order rgb --normalization unit";
    let given = answer(&mut dir.command(line));
    assert!(
        given.status == 1
            && given.stderr.starts_with("error: /proc/z: the bundle could not be written"),
        "{given:?}"
    );
}

#[test]
fn images_are_preprocessed_as_each_file_takes_them() {
    const ODD: &str = "--scale 2 --mean 100,20,60 --std 3,9,5";
    let rows: [(&str, &str, bool, Value); 11] = [
        ("float-nchw", "--normalization imagenet", false, imagenet),
        ("float-nchw", "--normalization none --order bgr", true, plain),
        ("float-nchw", "--normalization unit --multiple 1", false, plain),
        ("float-nhwc", ODD, false, odd_numbers),
        ("float-nhwc", &format!("{ODD} --order bgr --multiple 24"), true, odd_numbers),
        ("byte-nchw", "", false, plain),
        ("byte-nhwc", "--order bgr", true, plain),
        ("labels-int64", "--normalization imagenet --order bgr", true, imagenet),
        ("labels-int32", ODD, false, odd_numbers),
        ("skip", "--normalization imagenet", false, imagenet),
        ("skip", "--normalization imagenet --multiple 32", false, imagenet),
    ];
    for (name, options, bgr, value) in rows {
        let dir = imported(name, options);
        for (width, height) in [(64, 32), (50, 37), (1, 3)] {
            let image = noise(width, height);
            let (found, expected) = (labels(&dir, &image, ""), expected(&image, bgr, value));
            let wrong =
                found.iter().zip(&expected).filter(|(found, expected)| found != expected).count();
            assert_eq!(wrong, 0, "{name} {options}: {width}x{height}");
        }
    }
}

#[test]
fn the_file_is_copied_and_the_manifest_describes_it() {
    let dir =
        imported("two-outputs", "--normalization imagenet --order bgr --output y --name street");
    let folder = dir.at("imported");
    let read = |path| std::fs::read(path).unwrap();
    assert_eq!(read(folder.join("model.onnx")), read(dir.at("theirs/two-outputs.onnx")));
    let manifest = Manifest::read(&folder).unwrap().value;
    assert_eq!(
        (manifest.model.name.as_str(), manifest.reference),
        ("street", ProbeReference::OwnOutputs)
    );
    let adapter = serde_json::to_value(&manifest.files[0].adapter).unwrap();
    let said = serde_json::json!({
        "layout": "nchw", "order": "bgr", "batch": null, "size": null, "output": "y",
        "normalization": manifest.files[0].adapter.as_ref().unwrap().normalization,
    });
    assert_eq!(adapter, said);
    assert!(manifest.provenance.command.starts_with("protoseg import theirs/two-outputs.onnx"));
    assert_eq!(manifest.probe(&folder).unwrap().len(), 2);
    let image = noise(33, 20);
    assert_eq!(labels(&dir, &image, ""), expected(&image, true, imagenet));

    // Replaces the old bundle; `check` says that it compares the runtime with itself.
    std::fs::copy(fixture("adopt/labels-int64.onnx"), dir.at("theirs/two-outputs.onnx")).unwrap();
    assert_eq!(import(&dir, "two-outputs", "--normalization none").status, 0);
    for bundle in ["imported", "bundle"] {
        let given = answer(&mut dir.command(&format!("check {bundle}")));
        assert_eq!((given.status, given.stderr.as_str()), (0, ""), "{given:?}");
        assert_eq!(given.stdout.contains("its own outputs"), bundle == "imported", "{given:?}");
        assert_eq!(given.stdout.contains("logit error"), bundle == "bundle", "{given:?}");
    }
    let given = answer(&mut dir.command("check imported --json --record"));
    let summary: serde_json::Value = serde_json::from_str(&given.stdout).unwrap();
    assert_eq!((&summary["passed"], &summary["reference"]), (&true.into(), &"self".into()));
    let truth = answer(&mut dir.command("eval bundle --data folder --root in"));
    let given = answer(&mut dir.command("eval imported --data folder --root in"));
    assert_eq!((given.status, given.stderr.as_str()), (0, ""), "{given:?}");
    assert_eq!(given.stdout.lines().next(), truth.stdout.lines().next());
}

#[test]
fn a_check_fails_with_another_channel_order() {
    let dir = imported("float-nchw", "--normalization imagenet");
    let mut manifest = Manifest::read(&dir.at("imported")).unwrap().value;
    manifest.files[0].adapter.as_mut().unwrap().order = protoseg_models::adapter::ChannelOrder::Bgr;
    manifest.write(&dir.at("imported")).unwrap();
    let given = answer(&mut dir.command("check imported"));
    assert_eq!(given.status, 1, "{given:?}");
    assert_eq!(given.stdout.matches("FAILED").count(), 2, "{given:?}");
}

#[test]
fn files_of_one_square_size_run_in_windows() {
    for name in ["square", "pairs"] {
        let dir = imported(name, "--normalization imagenet");
        let manifest = Manifest::read(&dir.at("imported")).unwrap().value;
        assert_eq!(manifest.model.window, Some(Window { size: 64, stride: 42 }));
        for (width, height) in [(64, 64), (150, 97), (10, 70)] {
            let image = noise(width, height);
            for options in ["", "--batch 3", "--window 64:64"] {
                assert!(
                    labels(&dir, &image, options) == expected(&image, false, imagenet),
                    "{name} {width}x{height} {options}"
                );
            }
        }
        let given = label(&dir, &noise(64, 65), "--window whole");
        expect("whole", &given, 3, &["images/p.png", "65x64 pixels do not fit", "64x64"]);
        let given = label(&dir, &noise(64, 64), "--window 32:16");
        expect("windows", &given, 2, &["32x32 pixels do not fit", "64x64"]);
        let image = noise(64, 64);
        assert_eq!(labels(&dir, &image, "--window whole"), expected(&image, false, imagenet));
    }
    let dir = imported("square", "--normalization none --window 64:24");
    let image = noise(100, 101);
    assert_eq!(labels(&dir, &image, ""), expected(&image, false, plain));
}

#[test]
fn files_of_one_oblong_size_run_in_windows_or_scale_images() {
    let dir = imported("wide", "--normalization imagenet");
    for (width, height) in [(64, 32), (150, 97), (10, 70)] {
        let image = noise(width, height);
        for options in ["", "--batch 3"] {
            assert!(
                labels(&dir, &image, options) == expected(&image, false, imagenet),
                "{width}x{height} {options}"
            );
        }
    }
    let given = label(&dir, &noise(32, 64), "--window whole");
    expect(
        "whole",
        &given,
        3,
        &["images/p.png", "64x32 pixels do not fit", "32x64 and nothing else"],
    );
    assert_eq!(results(&dir.at("out")), [""; 0]);
    let dir = imported("wide", "--normalization none --window 32x64:16");
    assert_eq!(labels(&dir, &noise(99, 50), ""), expected(&noise(99, 50), false, plain));
    for name in ["wide", "labels-byte"] {
        let dir = imported(name, "--normalization imagenet --fit resize");
        let image = noise(64, 32);
        assert_eq!(labels(&dir, &image, ""), expected(&image, false, imagenet));
        assert_eq!(labels(&dir, &stripes(128, 64), ""), stripe_labels(128, 64));
        let given = answer(&mut dir.command("check imported"));
        assert_eq!(
            (given.status, given.stdout.matches("passed  model.onnx 32x64").count()),
            (0, 1),
            "{given:?}"
        );
        let dir = test_dir(name);
        for (options, part) in [
            ("--window 32:16", if name == "wide" { "32x64" } else { "labels" }),
            ("--multiple 8", "--multiple"),
            ("--size 32x32", "--size 32x32"),
            ("--fit resize --window 64:32", if name == "wide" { "exclude" } else { "labels" }),
        ] {
            let given = import(&dir, name, &format!("--normalization none {options}"));
            expect(name, &given, 2, &["theirs/", part]);
        }
    }
    let dir = imported("labels-int64", "--normalization none");
    expect("labels", &label(&dir, &noise(64, 64), "--window 64:32"), 2, &["labels", "whole"]);
}

#[test]
fn logits_of_a_larger_stride_are_upsampled_as_described() {
    let dir = imported("quarter", "--normalization unit --window 64:32");
    assert_eq!(Manifest::read(&dir.at("imported")).unwrap().value.model.grid.stride, 4);
    for options in ["", "--window whole"] {
        assert_eq!(labels(&dir, &stripes(160, 96), options), stripe_labels(160, 96), "{options}");
    }
    let stride = |name, options: &str| {
        let dir = imported(name, &format!("--normalization none {options}"));
        let grid = Manifest::read(&dir.at("imported")).unwrap().value.model.grid;
        (grid.stride, grid.encoder_stride)
    };
    assert_eq!(
        [stride("skip", ""), stride("quarter", ""), stride("float-nchw", "")],
        [(1, 8), (4, 4), (1, 1)]
    );
    assert_eq!(
        [stride("skip", "--multiple 48"), stride("quarter", "--multiple 6")],
        [(1, 48), (4, 12)]
    );
    let dir = imported("aligned", "--normalization none --align-corners");
    for (width, height) in [(97, 65), (70, 50)] {
        // Uniform squares, so that few pixels are near a boundary.
        let coarse = noise(width / 8 + 1, height / 8 + 1);
        let image = RgbImage::from_fn(width, height, |x, y| *coarse.get_pixel(x / 8, y / 8));
        let found = labels(&dir, &image, "");
        let mut near = 0;
        for (index, &found) in found.iter().enumerate() {
            let (x, y) = (index as u32 % width, index as u32 / width);
            let at = |x: u32, y: u32| {
                image.get_pixel(x.min(width - 1), y.min(height - 1)).0.map(f64::from)
            };
            let (left, top) = (x / 4 * 4, y / 4 * 4);
            let (right, down) = (f64::from(x % 4) / 4.0, f64::from(y % 4) / 4.0);
            let score = |class: usize| {
                let across =
                    |y| at(left, y)[class] * (1.0 - right) + at(left + 4, y)[class] * right;
                across(top) * (1.0 - down) + across(top + 4) * down
            };
            let best = (0..3).map(score).fold(f64::MIN, f64::max);
            assert!(best - score(usize::from(found)) < 1e-3, "{x} {y}: {found}");
            near += usize::from((0..3).filter(|&class| best - score(class) < 1e-3).count() > 1);
        }
        assert!(near < 50, "{near} ties");
    }
}

#[test]
fn unsupported_files_are_refused_and_leave_nothing() {
    const PLAIN: &str = "--normalization none";
    let rows: [(&str, &str, &[&str]); 22] = [
        ("two-inputs", PLAIN, &["2 inputs", "z float32"]),
        ("vector", PLAIN, &["`y` of shape [1, 3]", "neither logits", "nor labels"]),
        ("thirds", "--normalization none --window 48:24", &["no whole fraction", "whole only"]),
        ("half-large", "--normalization none", &["not finite", "128x192"]),
        ("float-nchw", "--normalization none --fit resize", &["any size", "--size HEIGHTxWIDTH"]),
        ("float-nchw", "--normalization none --threshold 0.5", &["--threshold", "3 classes"]),
        ("float-nchw", "--normalization none --label-values ids", &["--label-values", "scores"]),
        ("binary-logit", PLAIN, &["one channel", "--classes names 3"]),
        ("not-finite", PLAIN, &["not finite", "128x192"]),
        ("hidden-classes", PLAIN, &["logits of 6 classes", "names 3"]),
        ("high-labels", PLAIN, &["the label 3", "0 to 2", "--label-values"]),
        ("two-outputs", "--normalization none --output z", &["no output `z`", "auxiliary"]),
        ("skip", "--normalization none --multiple 4", &["failed", "100x108", "--multiple"]),
        ("float-nchw", "", &["--normalization", "--mean"]),
        ("byte-nchw", PLAIN, &["takes bytes", "leave out"]),
        ("labels-int64", "--normalization none --align-corners", &["--align-corners", "labels"]),
        ("labels-int64", "--normalization none --window 64:32", &["labels", "whole"]),
        (
            "quarter",
            "--normalization none --align-corners",
            &["no whole stride", "--align-corners"],
        ),
        ("quarter", "--normalization none --window 50:48", &["50 pixels", "48 or 52"]),
        ("float-nchw", "--normalization none --classes cityscapes", &["3 classes", "names 19"]),
        (
            "float-nchw",
            "--normalization none --classes nowhere.txt",
            &["nowhere.txt", "cityscapes, camvid or voc"],
        ),
        ("text", PLAIN, &["text.onnx cannot be opened as an ONNX model"]),
    ];
    for (name, options, parts) in rows {
        let dir = test_dir(name);
        std::fs::write(dir.at("theirs/text.onnx"), "hello").unwrap();
        let given = if options.contains("--classes") {
            answer(&mut dir.command(&format!("import theirs/{name}.onnx --out imported {options}")))
        } else {
            import(&dir, name, options)
        };
        expect(&format!("{name} {options}"), &given, 2, parts);
        assert_eq!(given.stdout, "");
        let mut left: Vec<_> =
            dir.at("").read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["bundle", "in", "theirs"], "{name} {options}");
    }
    let dir = test_dir("float-nchw");
    for (options, part) in [
        ("--mean 123,116,103 --std 58,57,57", "another scale"),
        ("--mean 0,0,0 --std 0,1,1", "above 0"),
    ] {
        expect(options, &import(&dir, "float-nchw", options), 2, &[part]);
    }
    let given = import(&dir, "gone", PLAIN);
    expect("gone", &given, 2, &["theirs/gone.onnx is not a file"]);
}

#[test]
fn foreign_files_are_not_overwritten() {
    let dir = test_dir("float-nchw");
    let import = |out: &str| {
        let line = format!(
            "adopt theirs/float-nchw.onnx --classes in/classes.txt --normalization none --out {out}"
        );
        answer(&mut dir.command(&line))
    };
    expect("its own folder", &import("theirs"), 2, &["theirs/float-nchw.onnx lies there"]);
    expect("images", &import("in"), 2, &["in holds `classes.txt`", "another folder"]);
    expect("a file", &import("in/classes.txt"), 2, &["in/classes.txt is a file"]);
    expect("below a file", &import("in/classes.txt/x"), 1, &["Not a directory"]);
    assert_eq!(files(&dir.at("theirs")), ["float-nchw.onnx"]);
    assert_eq!(files(&dir.at("in")), ["classes.txt", "images/a.png", "labels/a.png"]);
    assert_eq!(import("bundle").status, 0);
}
