//! The gate: `protoseg check` on each kind of file.
//!
//! The files of `fixtures/gate` are variants of the model in `fixtures/colors`, written by
//! `make.py` there.

use std::path::Path;

use image::{Rgb, RgbImage};
use protoseg_infer::{EngineConfig, Outputs, Segmenter};
use protoseg_models::bundle::{Manifest, ModelFile};
use protoseg_models::digest;
use protoseg_models::gate::{GateLimits, GateResult, Verdict};
use protoseg_models::variant::{FrameSpec, ModelKind, Precision, Quantization, Variant};
use protoseg_models::window::{Tiling, Window};

use crate::common::{TestDir, answer, fixture, stripes};

pub(crate) const INT8: &str = "model.int8.onnx";
const FRAME: &str = "frame.onnx";
const DATA: &str = "check bundle --data folder --root in";

pub(crate) fn int8() -> Variant {
    let quantization = Quantization { weight_bits: 7, symmetric: false, float_nodes: Vec::new() };
    Variant { precision: Precision::Int8, quantization: Some(quantization), ..Variant::LOGITS }
}

fn frame() -> Variant {
    let tiling = Tiling::Windows(Window { size: 48, stride: 32 });
    let frame = FrameSpec { height: 64, width: 96, tiling, windows_at_once: 6 };
    Variant { kind: ModelKind::Frame, frame: Some(frame), ..Variant::LOGITS }
}

/// Test folder whose bundle also has a frame file for 96x64 pixels.
pub(crate) fn framed() -> TestDir {
    test_dir(FRAME, frame(), None)
}

/// Test folder whose bundle has one more file, with some of its bytes replaced.
pub(crate) fn test_dir(name: &str, variant: Variant, patch: Option<(&[u8], &[u8])>) -> TestDir {
    let dir = TestDir::new();
    std::fs::copy(fixture("gate").join(name), dir.at("bundle").join(name)).unwrap();
    if let Some((from, to)) = patch {
        dir.patch(&format!("bundle/{name}"), from, to);
    }
    change(&dir, |manifest| {
        let sha256 = digest::sha256_file(&dir.at("bundle").join(name)).unwrap();
        let first = manifest.files[0].clone();
        manifest.files.push(ModelFile { file: name.to_owned(), variant, sha256, ..first });
    });
    dir
}

fn change(dir: &TestDir, change: impl FnOnce(&mut Manifest)) {
    let mut manifest = Manifest::read(&dir.at("bundle")).unwrap().value;
    change(&mut manifest);
    manifest.write(&dir.at("bundle")).unwrap();
}

fn gates(bundle: &Path) -> Vec<GateResult> {
    Manifest::read(bundle).unwrap().value.gate
}

/// Runs a check, expects an exit status, and returns its lines about one file.
fn lines(dir: &TestDir, arguments: &str, status: i32, file: &str) -> Vec<String> {
    let given = answer(&mut dir.command(arguments));
    assert_eq!((given.status, given.stderr.as_str()), (status, ""), "{given:?}");
    given.stdout.lines().filter(|line| line.contains(file)).map(str::to_owned).collect()
}

#[test]
fn the_limits_of_the_manifest_judge() {
    let dir = TestDir::new();
    let strict =
        GateLimits { logit_error: Some(1e-12), ..GateLimits::for_precision(Precision::Fp32) };
    change(&dir, |manifest| manifest.files[0].limits = Some(strict));
    let failed = lines(&dir, "check bundle --record", 1, "FAILED  model.onnx");
    assert_eq!(failed.len(), 2, "{failed:?}");
    assert!(failed[0].contains("33x47") && failed[0].contains("(limit 1e-12)"), "{failed:?}");
    let gate = &gates(&dir.at("bundle"))[0];
    assert_eq!((gate.verdict, gate.limits), (Verdict::Failed, strict));
    let free = GateLimits {
        logit_error: None,
        noise_to_signal: None,
        label_agreement: None,
        mean_iou_drop: None,
    };
    change(&dir, |manifest| manifest.files[0].limits = Some(free));
    assert_eq!(lines(&dir, "check bundle", 0, "not judged  model.onnx").len(), 3);
}

#[test]
fn int8_is_judged_by_images_above_a_floor() {
    let unjudged = test_dir(INT8, int8(), None);
    let found = lines(&unjudged, "check bundle --record", 0, INT8);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(
        found[0].starts_with("not judged  model.int8.onnx ") && found[0].contains("(no limit)"),
        "{found:?}"
    );
    assert_eq!(found[2], "not judged  model.int8.onnx: needs --data");
    let gate = &gates(&unjudged.at("bundle"))[1];
    assert_eq!((gate.verdict, gate.score.as_ref()), (Verdict::NotJudged, None));
    assert!(
        gate.logit_error.unwrap() > 1e-4 && gate.notes == ["not judged: needs --data"],
        "{gate:?}"
    );
    assert!(gate.noise_to_signal.unwrap() > 1e-4 && gate.labels_equal.unwrap() > 0.9, "{gate:?}");

    let found = lines(&unjudged, &format!("{DATA} --record"), 0, "passed  model.int8.onnx");
    assert!(
        found[0]
            .contains("mIoU 25.00 on 1 images, folder all, 0.000 above the fp32 file (limit 1.00)"),
        "{found:?}"
    );
    let gates = gates(&unjudged.at("bundle"));
    assert!(gates.iter().all(|gate| gate.verdict == Verdict::Passed), "{gates:?}");
    let scores: Vec<_> = gates.iter().map(|gate| gate.score.as_ref().unwrap()).collect();
    assert_eq!(
        scores.iter().map(|score| score.mean_iou_drop).collect::<Vec<_>>(),
        [None, Some(0.0)]
    );
    assert_eq!(
        (scores[0].labels_equal, scores[1].label_agreement, scores[1].labels_equal),
        (None, Some(1.0), Some(1.0))
    );

    // Red is never predicted: half of the labels are wrong.
    let no_red = Some((&0.02_f32.to_le_bytes()[..], &(-9.0_f32).to_le_bytes()[..]));
    let worse = test_dir(INT8, int8(), no_red);
    // Either limit fails the file, with images or without.
    let limit =
        |limits: GateLimits| change(&worse, |manifest| manifest.files[1].limits = Some(limits));
    let usual = GateLimits::for_precision(Precision::Int8);
    for limits in [
        GateLimits { noise_to_signal: None, ..usual },
        GateLimits { label_agreement: None, ..usual },
    ] {
        limit(limits);
        let found = lines(&worse, "check bundle", 1, "FAILED");
        assert!(
            found.len() == 2
                && found[0].contains("(limit 60.00 % over the probe)")
                    != limits.noise_to_signal.is_some()
        );
        assert!(
            found[0].contains("(limit 0.90 over the probe)") == limits.noise_to_signal.is_some(),
            "{found:?}"
        );
    }
    limit(GateLimits { noise_to_signal: None, label_agreement: Some(0.2), ..usual });
    assert_eq!(lines(&worse, "check bundle", 0, "FAILED").len(), 0);
    let found = lines(&worse, DATA, 1, "FAILED");
    assert!(
        found[0].contains("model.int8.onnx: mIoU 0.00") && found[0].contains("25.000 below"),
        "{found:?}"
    );
    // Label agreement on images is judged like that of the probe, whatever the score.
    limit(GateLimits {
        noise_to_signal: None,
        label_agreement: Some(0.2),
        mean_iou_drop: None,
        ..usual
    });
    assert_eq!(lines(&worse, DATA, 0, "FAILED").len(), 0);
    RgbImage::from_pixel(32, 32, Rgb([220, 20, 20])).save(worse.at("in/images/a.png")).unwrap();
    let found = lines(&worse, DATA, 1, "FAILED");
    assert!(found[0].contains("labels 0.0000 % (limit 20.00 %)"), "{found:?}");
    // NaN logits fail.
    let lost = test_dir(INT8, int8(), Some((&0.02_f32.to_le_bytes(), &f32::NAN.to_le_bytes())));
    assert_eq!(lines(&lost, "check bundle", 1, "FAILED  model.int8.onnx 33x47").len(), 1);
    let found = lines(&lost, DATA, 1, "not finite");
    assert!(found[0].contains("model.int8.onnx 33x47: logits that are not finite"), "{found:?}");
    assert!(found[2].contains("images/a.png") && found[2].contains("model.int8.onnx"), "{found:?}");
}

#[test]
fn frames_are_compared_with_windows_stitched_outside() {
    let good = test_dir(FRAME, frame(), None);
    let found = lines(&good, "check bundle --record", 0, FRAME);
    assert_eq!(found.len(), 2, "{found:?}");
    for (index, line) in found.iter().enumerate() {
        assert!(
            line.starts_with(&format!(
                "passed  frame.onnx scene {index} of 64x96: labels 100.0000 %"
            )),
            "{line}"
        );
        assert!(line.contains("confidence within one step 100.0000 %"), "{line}");
    }
    let gate = &gates(&good.at("bundle"))[1];
    assert_eq!(
        (gate.verdict, gate.logit_error, gate.label_agreement),
        (Verdict::Passed, None, Some(1.0))
    );

    let found = lines(&good, DATA, 0, FRAME);
    assert_eq!(
        found[2],
        "note  frame.onnx: none of the 1 images is of its size, so there is no score of it"
    );
    stripes(96, 64).save(good.at("in/images/b.png")).unwrap();
    good.labels("in/labels/b.png", 96, 64, 10);
    let found = lines(&good, DATA, 0, FRAME);
    assert!(
        found[2].contains("on 1 images, folder all (1 of another size skipped), 0.000 above"),
        "{found:?}"
    );

    // Resampling shifted by half a pixel: labels differ near boundaries only.
    let shifted = test_dir(FRAME, frame(), Some((b"half_pixel", b"asymmetric")));
    let found = lines(&shifted, "check bundle", 1, FRAME);
    assert!(found.iter().all(|line| line.starts_with("FAILED  frame.onnx scene ")), "{found:?}");
    // Wrong confidence alone fails too.
    let sure = test_dir(FRAME, frame(), Some((&255.0_f32.to_le_bytes(), &250.0_f32.to_le_bytes())));
    let found = lines(&sure, "check bundle", 1, "FAILED  frame.onnx");
    assert!(found[0].contains("labels 100.0000 %"), "{found:?}");
    let alone = test_dir(FRAME, frame(), None);
    change(&alone, |manifest| drop(manifest.files.remove(0)));
    let found = lines(&alone, "check bundle", 1, FRAME);
    assert!(
        found[0].contains("no file of the kind `logits` to compare frame.onnx with"),
        "{found:?}"
    );
}

#[test]
fn taps_name_the_worst_node() {
    let dir = TestDir::new();
    let given = answer(&mut dir.command("check bundle --taps"));
    assert_eq!((given.status, given.stdout.as_str()), (1, ""), "{given:?}");
    assert!(
        given.stderr.contains("bundle needs taps.onnx") && given.stderr.contains("--taps"),
        "{given:?}"
    );
    for name in ["taps.onnx", "taps.fp16.onnx"] {
        std::fs::copy(fixture("gate").join(name), dir.at("bundle").join(name)).unwrap();
    }
    let found = lines(&dir, "check bundle --taps", 0, "taps");
    assert_eq!(
        found[0],
        "taps  taps.fp16.onnx on 33x47: worst of 3 nodes is logits; the 3 worst, in order of computation:"
    );
    let nodes: Vec<&str> = found[1..].iter().map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert_eq!(nodes, ["unit", "mean", "logits"]);
    let given = answer(&mut dir.command("check bundle --taps --json"));
    let summary: serde_json::Value = serde_json::from_str(&given.stdout).unwrap();
    assert_eq!(
        (&summary["taps"][0]["worst"], &summary["passed"]),
        (&"logits".into(), &true.into())
    );
}

#[test]
fn data_options_are_those_of_eval() {
    let dir = TestDir::new();
    for (arguments, part) in [
        ("check bundle --root in", "--data"),
        ("check bundle --data folder", "--root"),
        ("check bundle --data camvid --root in", "val.txt"),
        ("check bundle --data synthetic", "a score would mean nothing"),
        ("eval bundle", "--data"),
    ] {
        let given = answer(&mut dir.command(arguments));
        assert_eq!((given.status, given.stdout.as_str()), (2, ""), "{arguments}: {given:?}");
        assert!(given.stderr.contains(part), "{arguments}: {given:?}");
    }
    dir.labels("in/labels/a.png", 32, 31, 10);
    let found = lines(&dir, DATA, 1, "FAILED");
    assert!(found[0].contains("labels/a.png has 32x31"), "{found:?}");
}

#[test]
fn images_of_its_size_run_through_a_frame_file_if_requested() {
    let dir = framed();
    let config = EngineConfig { frame_files: Some(true), ..EngineConfig::default() };
    let mut framed = Segmenter::open_with(dir.at("bundle"), &config).unwrap();
    let mut stitched = Segmenter::open(dir.at("bundle")).unwrap();
    let frame_file = |segmenter: &Segmenter, outputs| {
        segmenter.file_name_for([64, 96], outputs) != stitched.file_name_for([64, 96], outputs)
    };
    let outputs = Outputs { confidence: true, ..Outputs::default() };
    assert!(frame_file(&framed, outputs));
    // It gives neither margin nor logits.
    for others in [Outputs { margin: true, ..outputs }, Outputs { logits: true, ..outputs }] {
        assert!(!frame_file(&framed, others));
        assert_eq!(
            framed.predict(&stripes(96, 64), others).unwrap(),
            Segmenter::open(dir.at("bundle")).unwrap().predict(&stripes(96, 64), others).unwrap()
        );
    }
    // Other windows than those in the file are run outside of it.
    let window = Some(Tiling::Windows(Window { size: 32, stride: 16 }));
    let other = Segmenter::open_with(dir.at("bundle"), &EngineConfig { window, ..config }).unwrap();
    assert!(!frame_file(&other, Outputs::default()));
    for (width, height, through) in [(96, 64, true), (64, 96, false), (96, 64, true)] {
        let size = [height as usize, width as usize];
        let [name, windows] =
            [&framed, &stitched].map(|segmenter| segmenter.file_name_for(size, outputs).to_owned());
        assert_eq!(name != windows, through, "{width}x{height}");
        let image = stripes(width, height);
        let [found, expected] = [&mut framed, &mut stitched]
            .map(|segmenter| segmenter.predict(&image, outputs).unwrap());
        assert!(found.labels == expected.labels, "{width}x{height}");
        let (found, expected) = (found.confidence.unwrap(), expected.confidence.unwrap());
        assert_eq!(found.dim(), (size[0], size[1]), "{width}x{height}");
        // Both round sums of different precision.
        assert!(
            found.iter().zip(&expected).all(|(found, expected)| found.abs_diff(*expected) <= 1),
            "{width}x{height}"
        );
    }
}
