//! Stage times of a segmenter, which are zero for stages that do not happen, and the execution
//! providers of its nodes.

use std::time::{Duration, Instant};

use protoseg_infer::{EngineConfig, Outputs, Segmenter, Stage};
use protoseg_models::window::{Tiling, Window};

use crate::common::{fixture, stripes};
use crate::gate::framed;
use crate::import::imported;

/// Whether preprocessing, upload, download and stitching take any time in a prediction.
fn stages(segmenter: &mut Segmenter, [width, height]: [u32; 2]) -> [bool; 4] {
    let image = stripes(width, height);
    let (before, start) = (segmenter.times(), Instant::now());
    segmenter.predict(&image, Outputs::default()).unwrap();
    let passed = start.elapsed();
    let times = segmenter.times() - before;
    assert!(times[Stage::Compute] > Duration::ZERO, "{times:?}");
    assert!(times.total() <= passed, "{times:?} in {passed:?}");
    [Stage::Preprocess, Stage::Upload, Stage::Download, Stage::Stitch]
        .map(|stage| times[stage] > Duration::ZERO)
}

#[test]
fn stages_are_timed_where_they_happen() {
    let open = |tiling: Tiling| {
        let options = EngineConfig { window: Some(tiling), ..EngineConfig::default() };
        Segmenter::open_with(fixture("colors"), &options).unwrap()
    };
    // A CPU uploads nothing. Logits of whole images are copied out, and images are preprocessed
    // only where they are padded.
    let mut whole = open(Tiling::Whole);
    assert_eq!(stages(&mut whole, [96, 64]), [false, false, true, true]);
    assert_eq!(stages(&mut whole, [96, 8]), [true, false, true, true]);
    // Logits of windows are borrowed.
    let mut windows = open(Tiling::Windows(Window { size: 32, stride: 16 }));
    assert_eq!(stages(&mut windows, [96, 64]), [true, false, false, true]);
    let (before, pixels) = (windows.times(), vec![7; 2 * 32 * 32 * 3]);
    windows.run_tiles(&pixels, [2, 32, 32]).unwrap();
    let times = windows.times() - before;
    let timed: Vec<Stage> = times.iter().map(|(stage, _)| stage).collect();
    assert_eq!(timed, [Stage::Compute, Stage::Download], "{times:?}");

    // A frame file does everything itself, for images of its size.
    let place = framed();
    let options = EngineConfig { frame_files: Some(true), ..EngineConfig::default() };
    let mut frame = Segmenter::open_with(place.at("bundle"), &options).unwrap();
    assert_eq!(stages(&mut frame, [96, 64]), [false, false, true, false]);
    assert_eq!(stages(&mut frame, [64, 96]), [true, false, false, true]);
}

#[test]
fn images_of_imported_files_are_preprocessed() {
    let scores = imported("float-nchw", "--normalization imagenet");
    let mut scores = Segmenter::open(scores.at("imported")).unwrap();
    assert_eq!(stages(&mut scores, [64, 32]), [true, false, true, true]);
    let labels = imported("labels-int64", "--normalization none");
    let mut labels = Segmenter::open(labels.at("imported")).unwrap();
    assert_eq!(stages(&mut labels, [64, 32]), [true, false, true, true]);
}

#[test]
fn profiles_are_of_the_file_that_runs_the_image() {
    let place = framed();
    let nodes = |frame_files: bool, size: [usize; 2]| {
        let options = EngineConfig { frame_files: Some(frame_files), ..EngineConfig::default() };
        let segmenter = Segmenter::open_with(place.at("bundle"), &options).unwrap();
        let profile = segmenter.profile(size).unwrap();
        assert_eq!(
            profile.nodes.keys().collect::<Vec<_>>(),
            ["CPUExecutionProvider"],
            "{profile:?}"
        );
        profile.nodes["CPUExecutionProvider"]
    };
    // The frame file contains the window file, and tiles, stitches and upsamples too.
    let [windows, other, frame] =
        [nodes(false, [64, 96]), nodes(true, [96, 64]), nodes(true, [64, 96])];
    assert!(windows == other && windows < frame, "{windows} {other} {frame}");
    let labels = imported("labels-int64", "--normalization none");
    let labels = Segmenter::open(labels.at("imported")).unwrap().profile([32, 64]).unwrap();
    assert!(labels.nodes["CPUExecutionProvider"] > 0, "{labels:?}");
}
