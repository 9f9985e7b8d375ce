//! Commands on a bundle with known labels.

use std::path::Path;
use std::process::Command;

use crate::common::{
    LABELED, answer, fixture, install, install_script, protoseg, results, stripe_labels, stripes,
};
use image::RgbImage;
use protoseg_images::image_file;
use protoseg_images::label_map::{self, LabelMap};
use protoseg_infer::session::Runner;
use protoseg_infer::{EngineConfig, Outputs, Segmenter};
use protoseg_models::bundle::Manifest;
use protoseg_models::gate::Verdict;
use protoseg_models::window::{Tiling, Window};

fn segmenter(tiling: Tiling) -> Segmenter {
    let options = EngineConfig {
        window: Some(tiling),
        batch: std::num::NonZeroUsize::new(3),
        ..EngineConfig::default()
    };
    Segmenter::open_with(fixture("colors"), &options).unwrap()
}

#[test]
fn a_segmenter_labels_whole_images_and_windows_alike() {
    let mut whole = segmenter(Tiling::Whole);
    let mut alone = Segmenter::open(fixture("colors/model.onnx")).unwrap();
    assert_eq!((whole.window(), alone.window()), (None, Some(Window { size: 48, stride: 32 })));
    assert_eq!(alone.model(), whole.model());
    let mut small = segmenter(Tiling::Windows(Window { size: 32, stride: 16 }));
    for (width, height) in [(128, 96), (64, 64), (132, 52), (16, 16), (4, 8)] {
        let image = stripes(width, height);
        let expected = stripe_labels(width, height);
        for segmenter in [&mut whole, &mut alone, &mut small] {
            let map = segmenter.predict(&image, Outputs::default()).unwrap();
            assert_eq!(map.labels.dim(), (height as usize, width as usize));
            let wrong = map
                .labels
                .iter()
                .zip(&expected)
                .filter(|(found, expected)| found != expected)
                .count();
            assert_eq!(wrong, 0, "{width}x{height}, windows {:?}", segmenter.window());
        }
    }
    // Where no window reaches beyond the image, they differ only in the order of sums.
    let noise = RgbImage::from_fn(128, 96, |x, y| {
        image::Rgb([1, 2, 3].map(|factor| (((x / 8 * 37) ^ (y / 8 * 91)) * factor) as u8))
    });
    let expected = whole.predict(&noise, Outputs::default()).unwrap();
    for segmenter in [&mut alone, &mut small] {
        assert!(segmenter.predict(&noise, Outputs::default()).unwrap() == expected);
    }
    // Odd sizes: the last cells hold fewer pixels, so only the size is compared.
    for (width, height) in [(1, 1), (47, 33), (97, 3)] {
        for segmenter in [&mut whole, &mut alone, &mut small] {
            let map = segmenter.predict(&stripes(width, height), Outputs::default()).unwrap();
            assert_eq!(map.labels.dim(), (height as usize, width as usize));
        }
    }
    assert!(whole.predict(&RgbImage::new(0, 0), Outputs::default()).is_err());
    assert!(small.times().run().as_nanos() > 0);
}

#[test]
fn a_runner_gives_any_named_output() {
    let path = fixture("colors/model.onnx");
    let mut runner = Runner::open(&path, &EngineConfig::default()).unwrap();
    let image = stripes(64, 32);
    let outputs = runner.run_outputs(image.as_raw(), [1, 32, 64], &["pooled", "logits"]).unwrap();
    assert_eq!([&outputs[0].shape[..], &outputs[1].shape[..]], [[1, 3, 8, 16]; 2]);
    assert!((outputs[0].data[0] - 220.0 / 255.0).abs() < 1e-6);
    assert_eq!(runner.run(image.as_raw(), [1, 32, 64]).unwrap(), outputs[1]);
    let mut from_bytes =
        Runner::from_bytes("bytes", &std::fs::read(&path).unwrap(), &EngineConfig::default())
            .unwrap();
    assert_eq!(from_bytes.run(image.as_raw(), [1, 32, 64]).unwrap(), outputs[1]);
    let message =
        runner.run_outputs(image.as_raw(), [1, 32, 64], &["features"]).unwrap_err().to_string();
    assert!(message.ends_with("has no output `features`; it has logits, pooled"), "{message}");
    assert!(runner.run(image.as_raw(), [1, 32, 65]).is_err());
    assert!(Runner::from_bytes("text", b"hello", &EngineConfig::default()).is_err());
}

#[test]
fn label_keeps_names_and_skips_a_broken_image() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    std::fs::create_dir_all(at("in/deep")).unwrap();
    stripes(64, 48).save(at("in/a.png")).unwrap();
    stripes(40, 80).save(at("in/deep/b.webp")).unwrap();
    let run = |inputs: &Path, more: &[&str]| {
        let bundle = fixture("colors");
        let mut arguments =
            vec!["label".as_ref(), bundle.as_os_str(), inputs.as_os_str(), "--out".as_ref()];
        let out = at("out");
        arguments.push(out.as_os_str());
        arguments.extend(more.iter().map(|argument| std::ffi::OsStr::new(*argument)));
        protoseg(arguments)
    };
    let done = run(&at("in"), &["--format", "ids,color,overlay"]);
    assert_eq!((done.status, done.stderr.as_str()), (0, ""), "{done:?}");
    assert!(done.stdout.starts_with("2 labeled into "), "{}", done.stdout);
    let expected = ["color", "ids", "overlay"]
        .map(|kind| [format!("{kind}/a.png"), format!("{kind}/deep/b.png")]);
    assert_eq!(results(&at("out")), expected.as_flattened());
    let map = LabelMap { height: 48, width: 64, labels: stripe_labels(64, 48) };
    assert_eq!(label_map::read(&at("out/ids/a.png"), 10_000).unwrap(), map);
    assert_eq!(label_map::read(&at("out/color/a.png"), 10_000).unwrap(), map);
    let overlay = image_file::read(&at("out/overlay/a.png"), 10_000).unwrap();
    assert_eq!((overlay.dimensions(), overlay.get_pixel(0, 0).0), ((64, 48), [210, 10, 10]));

    let bytes = std::fs::read(at("in/a.png")).unwrap();
    std::fs::write(at("in/cut.png"), &bytes[..bytes.len() / 2]).unwrap();
    let some = run(
        &at("in"),
        &["--resume", "--window", "32:16", "--batch", "2", "--threads", "1", "--json"],
    );
    assert_eq!(some.status, 3, "{some:?}");
    let summary: serde_json::Value = serde_json::from_str(&some.stdout).unwrap();
    assert_eq!(summary[LABELED], 2);
    assert!(summary["failed"][0]["path"].as_str().unwrap().ends_with("cut.png"));
    for stage in ["decode", "run", "stitch", "decide", "encode"] {
        assert!(summary["stages"][stage]["seconds"].as_f64().unwrap() > 0.0, "{stage}");
    }
    // Warnings name images labeled again and files of other formats.
    assert_eq!(some.stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1);
    assert!(some.stderr.contains("cut.png: broken or cut short"), "{}", some.stderr);
    assert_eq!(results(&at("out")), expected.as_flattened());
}

#[test]
fn eval_scores_a_folder() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    for name in ["images", "labels"] {
        std::fs::create_dir(at(name)).unwrap();
    }
    std::fs::write(at("classes.txt"), "10 red\n20 green\n30 blue\n").unwrap();
    let ids = stripe_labels(48, 16).into_iter().map(|label| 10 * (label + 1)).collect();
    let mut map = LabelMap { height: 16, width: 48, labels: ids };
    stripes(48, 16).save(at("images/a.png")).unwrap();
    std::fs::write(at("labels/a.png"), map.ids_png().unwrap()).unwrap();
    let run = |more: &[&str]| {
        let (bundle, root) = (fixture("colors"), root.path());
        let arguments = ["eval".as_ref(), bundle.as_os_str(), "--root".as_ref(), root.as_os_str()];
        protoseg(
            arguments
                .into_iter()
                .chain(more.iter().map(|argument| std::ffi::OsStr::new(*argument))),
        )
    };
    let perfect = run(&["--data", "folder"]);
    assert_eq!(perfect.status, 0, "{perfect:?}");
    assert!(
        perfect.stdout.contains("mIoU") && perfect.stdout.contains("100.00"),
        "{}",
        perfect.stdout
    );
    // A quarter of the red pixels is labeled green, another is void: IoU 128/192 and 256/320.
    for (row, labels) in map.labels.chunks_mut(48).enumerate() {
        labels[..16].fill([20, 255, 10, 10][row / 4]);
    }
    std::fs::write(at("labels/a.png"), map.ids_png().unwrap()).unwrap();
    let scored = run(&["--data", "folder", "--json", "--limit", "1"]);
    let summary: serde_json::Value = serde_json::from_str(&scored.stdout).unwrap();
    let iou = |class: usize| summary["scores"]["classes"][class]["iou"].as_f64().unwrap();
    assert!(
        (iou(0) - 100.0 * 128.0 / 192.0).abs() < 1e-9
            && (iou(1) - 100.0 * 256.0 / 320.0).abs() < 1e-9
    );
    assert_eq!(
        (summary["images"].as_u64(), summary["protocol"].as_str()),
        (Some(1), Some("48:32"))
    );
    let other = run(&["--data", "camvid"]);
    assert_eq!(other.status, 2);
    assert!(other.stderr.contains("val.txt"), "{}", other.stderr);
}

#[test]
fn check_passes_equal_outputs_and_fails_others() {
    let root = tempfile::tempdir().unwrap();
    for name in ["manifest.json", "model.onnx", "probe.safetensors"] {
        std::fs::copy(fixture("colors").join(name), root.path().join(name)).unwrap();
    }
    let run = |more: &[&str]| {
        let arguments = ["check".as_ref(), root.path().as_os_str()];
        protoseg(
            arguments
                .into_iter()
                .chain(more.iter().map(|argument| std::ffi::OsStr::new(*argument))),
        )
    };
    let passed = run(&["--record"]);
    assert_eq!(passed.status, 0, "{passed:?}");
    assert_eq!(passed.stdout.matches("passed  model.onnx ").count(), 2, "{}", passed.stdout);
    let mut manifest = Manifest::read(root.path()).unwrap().value;
    let gate = &manifest.gate[0];
    assert!(
        gate.verdict == Verdict::Passed
            && gate.logit_error.unwrap() < 1e-5
            && gate.label_agreement == Some(1.0)
    );

    let mut cases = manifest.probe(root.path()).unwrap();
    cases[1].logits.data[7] += 0.05;
    cases[0].labels[..20].fill(0);
    let probe = root.path().join("probe.safetensors");
    protoseg_models::probe::write(&probe, &cases).unwrap();
    manifest.probe_sha256 = Some(protoseg_models::digest::sha256_file(&probe).unwrap());
    manifest.write(root.path()).unwrap();
    let failed = run(&[]);
    assert_eq!(
        (failed.status, failed.stdout.matches("FAILED  model.onnx ").count()),
        (1, 2),
        "{failed:?}"
    );
    assert_eq!(Manifest::read(root.path()).unwrap().value, manifest);

    manifest.probe_sha256 = None;
    manifest.write(root.path()).unwrap();
    let none = run(&[]);
    assert_eq!(none.status, 1);
    assert!(none.stderr.contains("has no probe"), "{}", none.stderr);
}

#[test]
fn completions_are_printed_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let given = protoseg(["completions", shell]);
        assert_eq!((given.status, given.stderr.as_str()), (0, ""), "{shell}");
        assert!(given.stdout.contains("label") && given.stdout.contains("format"), "{shell}");
    }
    assert_eq!(protoseg(["completions", "csh"]).status, 2);
}

#[cfg(unix)]
#[test]
fn sibling_programs_are_started() {
    let root = tempfile::tempdir().unwrap();
    let own = root.path().join("protoseg");
    install(env!("CARGO_BIN_EXE_protoseg").as_ref(), &own);
    let missing = answer(Command::new(&own).args(["train", "x.toml"]).env("PATH", root.path()));
    assert_eq!(missing.status, 2);
    assert!(
        missing.stderr.contains("protoseg-train is neither beside this program nor on PATH"),
        "{}",
        missing.stderr
    );
    install_script("echo \"$@\"\nexit 7", &root.path().join("protoseg-export"));
    let started =
        answer(Command::new(&own).args(["export", "--help", "a b", "--out=x", "--", "-v"]));
    assert_eq!(
        (started.status, started.stdout.as_str()),
        (7, "--help a b --out=x -- -v\n"),
        "{started:?}"
    );
}
