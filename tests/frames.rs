//! A frame file gives the labels of windows that are stitched outside the graph.

mod support;

use image::RgbImage;
use protoseg_infer::segmenter::Segmenter;
use protoseg_infer::session::Runner;
use protoseg_infer::{EngineConfig, Outputs};
use protoseg_models::arch::Preset;
use support::{program, succeed, write_checkpoint};

/// Smallest share of equal labels: both sum the same logits, and round differently in upsampling.
const AGREEMENT: f64 = 0.9999;

#[test]
fn a_side_that_is_shorter_than_a_window_is_not_filled_with_smeared_edges() {
    let folder = tempfile::tempdir().unwrap();
    let (checkpoint, bundle) = (folder.path().join("checkpoint"), folder.path().join("bundle"));
    write_checkpoint(&checkpoint, Preset::DeepLabV3PlusEfficientNetLite0);
    let mut export = program("protoseg-export");
    succeed(export.arg(&checkpoint).arg("--out").arg(&bundle).arg("--no-check"));
    let open = |window: &str| {
        let window = Some(window.parse().unwrap());
        let config = EngineConfig { window, ..EngineConfig::default() };
        Segmenter::open_with(&bundle, &config).unwrap()
    };
    let (mut windows, mut small, mut whole) = (open("256:192"), open("96:64"), open("whole"));
    let scene = |height: usize, width: usize| {
        let scene = protoseg_synthetic::render_scene(3, 1, height, width).image;
        RgbImage::from_raw(width as u32, height as u32, scene).unwrap()
    };
    let all = Outputs { confidence: true, margin: true, logits: true };
    for (height, width) in [(92, 124), (256, 20), (36, 256)] {
        let image = scene(height, width);
        let found = windows.predict(&image, all).unwrap();
        assert!(found == whole.predict(&image, all).unwrap(), "{height}x{width}");
        assert_eq!(windows.tiling([height, width]).unwrap().0, 1);
    }
    // Three windows of 48x96, as high as the image alone needs.
    let image = scene(48, 200);
    let found = small.predict(&image, all).unwrap();
    assert_eq!(small.tiling([48, 200]).unwrap(), (3, 3.0 * 48.0 * 96.0 / (48.0 * 200.0)));
    assert_eq!(found.logits.unwrap().dim(), (19, 12, 50));
    let rolling = small.predict(&image, Outputs { logits: false, ..all }).unwrap();
    assert!((rolling.labels, rolling.margin) == (found.labels, found.margin));
}

#[test]
fn stitching_inside_the_graph_equals_stitching_outside() {
    let folder = tempfile::tempdir().unwrap();
    for (preset, window) in [
        (Preset::DeepLabV3PlusEfficientNetLite0, "96:64"),
        (Preset::DeepLabV3PlusEfficientNetLite0, "whole"),
        (Preset::DeepLabV3PlusResNet50, "97:64"),
    ] {
        let (checkpoint, bundle) = (folder.path().join("checkpoint"), folder.path().join("bundle"));
        write_checkpoint(&checkpoint, preset);
        // One window, less than one, and several with the last one shifted.
        let sizes = [[150, 200], [97, 96], [60, 131]];
        let mut export = program("protoseg-export");
        export.arg(&checkpoint).arg("--out").arg(&bundle).args(["--window", window]);
        succeed(export.args(["--no-check", "--frame", "150x200,97x96,60x131"]));
        let mut outside = Segmenter::open(&bundle).unwrap();
        for [height, width] in sizes {
            let file = bundle.join(format!("frame-{height}x{width}.onnx"));
            let mut inside = Runner::open(&file, &EngineConfig::default()).unwrap();
            // Two frames in a batch give what each gives alone.
            let scenes =
                [0, 1].map(|index| protoseg_synthetic::render_scene(3, index, height, width).image);
            let [labels, confidence] =
                inside.run_frames(&scenes.concat(), [2, height, width]).unwrap();
            assert_eq!((labels.len(), confidence.len()), (2 * height * width, 2 * height * width));
            let mut expected = Vec::new();
            for scene in scenes {
                let image = RgbImage::from_raw(width as u32, height as u32, scene).unwrap();
                expected.extend(outside.predict(&image, Outputs::default()).unwrap().labels);
            }
            let equal =
                labels.iter().zip(&expected).filter(|(found, expected)| found == expected).count();
            let agreement = equal as f64 / labels.len() as f64;
            eprintln!("{preset} {window} {height}x{width}: {agreement:.6} of labels");
            assert!(agreement >= AGREEMENT, "{preset} {window} {height}x{width}: {agreement}");
        }
    }
}
