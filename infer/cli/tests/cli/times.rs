//! Where a segmenter's time goes, and what runs its operators. What is not done is not counted at all, so that zeros tell where
//! each part is.

use std::time::{Duration, Instant};

use protoseg_infer::{EngineConfig, Outputs, Segmenter, Stage};
use protoseg_models::window::{Tiling, Window};

use crate::adopt::adopted;
use crate::common::{fixture, stripes};
use crate::gate::framed;

/// Times of labelling a picture, held against the time that passed: which of prepare, upload, download and stitch took any.
fn parts(segmenter: &mut Segmenter, [width, height]: [u32; 2]) -> [bool; 4] {
    let picture = stripes(width, height);
    let (before, start) = (segmenter.times(), Instant::now());
    segmenter.predict(&picture, Outputs::default()).unwrap();
    let passed = start.elapsed();
    let times = segmenter.times() - before;
    assert!(times[Stage::Compute] > Duration::ZERO, "{times:?}");
    assert!(times.total() <= passed, "{times:?} in {passed:?}");
    [Stage::Preprocess, Stage::Upload, Stage::Download, Stage::Stitch]
        .map(|stage| times[stage] > Duration::ZERO)
}

#[test]
fn each_part_is_counted_where_it_happens() {
    let open = |pieces: Tiling| {
        let options = EngineConfig { window: Some(pieces), ..EngineConfig::default() };
        Segmenter::open_with(&fixture("colors"), &options).unwrap()
    };
    // On a CPU nothing is uploaded. Scores of whole pictures are copied out, and nothing is cut unless they are padded.
    let mut whole = open(Tiling::Whole);
    assert_eq!(parts(&mut whole, [96, 64]), [false, false, true, true]);
    assert_eq!(parts(&mut whole, [96, 8]), [true, false, true, true]);
    // Scores of windows are lent.
    let mut windows = open(Tiling::Windows(Window { size: 32, stride: 16 }));
    assert_eq!(parts(&mut windows, [96, 64]), [true, false, false, true]);
    let (before, pixels) = (windows.times(), vec![7; 2 * 32 * 32 * 3]);
    windows.run_tiles(&pixels, [2, 32, 32]).unwrap();
    let pieces = windows.times() - before;
    let stages: Vec<Stage> = pieces.iter().map(|(stage, _)| stage).collect();
    assert_eq!(stages, [Stage::Compute, Stage::Download], "{pieces:?}");

    // A frame file does all inside, for pictures of its size.
    let place = framed();
    let options = EngineConfig { frame_files: Some(true), ..EngineConfig::default() };
    let mut frame = Segmenter::open_with(&place.at("bundle"), &options).unwrap();
    assert_eq!(parts(&mut frame, [96, 64]), [false, false, true, false]);
    assert_eq!(parts(&mut frame, [64, 96]), [true, false, false, true]);
}

#[test]
fn what_an_adopted_file_takes_is_prepared() {
    let scores = adopted("float-nchw", "--normalization imagenet");
    let mut scores = Segmenter::open(scores.at("adopted")).unwrap();
    assert_eq!(parts(&mut scores, [64, 32]), [true, false, true, true]);
    let labels = adopted("labels-int64", "--normalization none");
    let mut labels = Segmenter::open(labels.at("adopted")).unwrap();
    assert_eq!(parts(&mut labels, [64, 32]), [true, false, true, true]);
}

#[test]
fn a_profile_is_of_the_file_that_a_picture_goes_through() {
    let place = framed();
    let nodes = |frame_files: bool, size: [usize; 2]| {
        let options = EngineConfig { frame_files: Some(frame_files), ..EngineConfig::default() };
        let segmenter = Segmenter::open_with(&place.at("bundle"), &options).unwrap();
        let profile = segmenter.profile(size).unwrap();
        assert_eq!(
            profile.nodes.keys().collect::<Vec<_>>(),
            ["CPUExecutionProvider"],
            "{profile:?}"
        );
        profile.nodes["CPUExecutionProvider"]
    };
    // The file for frames holds that for windows, and cuts, stitches and decides too.
    let [windows, other, frame] =
        [nodes(false, [64, 96]), nodes(true, [96, 64]), nodes(true, [64, 96])];
    assert!(windows == other && windows < frame, "{windows} {other} {frame}");
    let labels = adopted("labels-int64", "--normalization none");
    let labels = Segmenter::open(labels.at("adopted")).unwrap().profile([32, 64]).unwrap();
    assert!(labels.nodes["CPUExecutionProvider"] > 0, "{labels:?}");
}
