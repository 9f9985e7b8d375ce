//! Upsampled labels are those of ONNX Runtime's Resize and ArgMax; confidence and margin those of
//! logits in f64.

#[path = "support/messages.rs"]
mod messages;
#[path = "support/runtime.rs"]
mod runtime;
#[path = "support/scores.rs"]
mod scores;
mod support;

use protoseg_images::image_file;
use protoseg_infer::stitch::LogitMap;
use protoseg_infer::upsample::{self, LogitGeometry, Outputs, PixelDecision, into_vec};
use runtime::Tail;

/// Labels may differ where the two best classes are nearer than this share of the largest logit:
/// 32-bit floats round by about a hundredth of it, and the order of operations is free.
const NEAR: f32 = 1e-5;

/// Distance from the middle between two bytes within which 32-bit floats may round to the other
/// one, in steps.
const MIDDLE: f64 = 2e-3;

/// Compares a frame's labels with ONNX Runtime's, and confidence and margin with f64.
fn compare(name: &str, logits: &LogitMap, frame: LogitGeometry) {
    let outputs = Outputs { confidence: true, margin: true, logits: false };
    let prediction = upsample::predict(logits, &frame, outputs);
    let expected = Tail::new([logits.classes, logits.height, logits.width], frame).labels(logits);
    let decisions = upsample::reference_decisions(logits, &frame);
    let largest = logits.data.iter().fold(0.0_f32, |largest, logit| largest.max(logit.abs()));
    let labels = into_vec(prediction.labels);
    assert_eq!(labels.len(), expected.len());
    let differs = |pixel: &usize| labels[*pixel] != expected[*pixel];
    let different: Vec<usize> = (0..expected.len()).filter(differs).collect();
    let clear = different.iter().filter(|&&pixel| decisions[pixel].gap >= NEAR * largest).count();
    eprintln!(
        "{name}, {frame:?}: {} of {} labels differ, {clear} of them clear",
        different.len(),
        expected.len()
    );
    assert_eq!(clear, 0, "{name}, {frame:?}");
    let (Some(confidence), Some(margin)) = (prediction.confidence, prediction.margin) else {
        panic!("outputs are missing")
    };
    let (confidence, margin) = (into_vec(confidence), into_vec(margin));
    for (pixel, PixelDecision { gap, confidence: sure }) in decisions.into_iter().enumerate() {
        let logits_here =
            || upsample::logits_at(logits, &frame, pixel / frame.width, pixel % frame.width);
        if confidence[pixel] != sure {
            let found = logits_here();
            let best = found.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let exact = 255.0 / found.iter().map(|logit| (logit - best).exp()).sum::<f64>();
            assert!(
                (exact.fract() - 0.5).abs() < MIDDLE,
                "{name}, {frame:?}: {} for {exact}",
                confidence[pixel]
            );
        }
        let exact = 16.0 * f64::from(gap);
        let near = (exact + 0.5).floor().min(255.0) == f64::from(margin[pixel])
            || (exact.fract() - 0.5).abs() < MIDDLE;
        assert!(near, "{name}, {frame:?}: {} for {exact}", margin[pixel]);
    }
}

#[test]
fn labels_are_those_of_onnx_runtime() {
    for align_corners in [false, true] {
        // Frames as windows make them, with and without padding to cut off; then those of any size.
        let padded =
            |grid: [usize; 2]| grid.map(|side| if align_corners { side * 4 - 3 } else { side * 4 });
        let regular = [[128, 256], [65, 97], [33, 50]].map(|grid| (grid, padded(grid)));
        let cut = regular.map(|(grid, padded)| (grid, padded, [padded[0] - 3, padded[1] - 2]));
        let odd =
            [([64, 96], [40, 77]), ([9, 11], [130, 175]), ([33, 49], [129, 195]), ([1, 1], [3, 5])];
        let whole = regular.into_iter().chain(odd).map(|(grid, padded)| (grid, padded, padded));
        for (grid, padded, [height, width]) in whole.chain(cut) {
            let frame = LogitGeometry::new([height, width], padded, align_corners);
            compare("random", &scores::random(grid[0], grid[1]), frame);
            let mut scene = scores::scene(grid[0], grid[1]);
            compare("scene", &scene, frame);
            // Whole cells have the highest byte of both confidence and margin.
            scene.data.iter_mut().for_each(|logit| *logit *= 3.0);
            compare("sharp scene", &scene, frame);
        }
    }
}

#[test]
fn labels_of_a_network_are_those_of_onnx_runtime() {
    let Some(model) = std::env::var_os("PROTOSEG_MODEL") else {
        return eprintln!("skipped: PROTOSEG_MODEL names no `model.onnx` of a bundle");
    };
    let Some(folder) =
        support::real_data("upsampling a network's logits", "cityscapes-mini/leftImg8bit")
    else {
        return;
    };
    let mut open = vec![folder];
    let mut seen = 0;
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(path)
                .expect("a folder")
                .map(|entry| entry.expect("an entry").path());
            open.extend(entries);
            continue;
        }
        let image = image_file::read(&path, image_file::MAX_PIXELS).expect("an image");
        let [height, width] = [image.height(), image.width()].map(|side| side as usize);
        let logits = runtime::logits(model.as_ref(), image.as_raw(), [height, width]);
        let frame = LogitGeometry::new([height, width], [height, width], false);
        compare(&path.display().to_string(), &logits, frame);
        seen += 1;
    }
    assert!(seen > 0, "no image");
}
