//! Class scores at logit resolution, drawn: by chance, and of a street scene.

#![allow(dead_code, clippy::allow_attributes, reason = "each program uses its own part")]

use protoseg_infer::stitch::LogitMap;
use protoseg_models::random::Stream;

/// Classes of a street scene.
pub(crate) const CLASSES: usize = 19;

/// Scores in [-1, 1), each by itself: at nearly every pixel the corners disagree.
pub(crate) fn random(height: usize, width: usize) -> LogitMap {
    let stream = Stream::keyed(&[1]);
    let data = (0..(CLASSES * height * width) as u64)
        .map(|index| stream.signed_unit(index) as f32)
        .collect();
    LogitMap { classes: CLASSES, height, width, data }
}

/// Scores as a network gives them for a scene: high for what is seen, passing over into the next class within a few steps,
/// with some noise.
pub(crate) fn scene(height: usize, width: usize) -> LogitMap {
    let (labels, stream) =
        (protoseg_synthetic::render_scene(5, 0, height, width).labels, Stream::keyed(&[2]));
    let score = |index: usize| {
        let (class, row, column) =
            (index / (height * width), index / width % height, index % width);
        let near = |place: usize, count: usize| place.saturating_sub(2)..(place + 3).min(count);
        let around = near(row, height)
            .flat_map(|row| near(column, width).map(move |column| row * width + column));
        let same = around.filter(|&place| usize::from(labels[place]) == class).count();
        same as f32 * 0.4 + stream.signed_unit(index as u64) as f32
    };
    LogitMap {
        classes: CLASSES,
        height,
        width,
        data: (0..CLASSES * height * width).map(score).collect(),
    }
}
