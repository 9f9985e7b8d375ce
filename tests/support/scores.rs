//! Synthetic logits: random ones, and those of a street scene.

#![allow(dead_code, clippy::allow_attributes, reason = "each test program uses a part")]

use protoseg_infer::stitch::LogitMap;
use protoseg_models::random::Stream;

/// Number of classes of a street scene.
pub(crate) const CLASSES: usize = 19;

/// Returns independent logits in [-1, 1): neighbors disagree at nearly every pixel.
pub(crate) fn random(height: usize, width: usize) -> LogitMap {
    let stream = Stream::keyed(&[1]);
    let data = (0..(CLASSES * height * width) as u64)
        .map(|index| stream.signed_unit(index) as f32)
        .collect();
    LogitMap { classes: CLASSES, height, width, data }
}

/// Returns logits as a network gives them for a scene: high for the true class, with soft
/// boundaries and some noise.
pub(crate) fn scene(height: usize, width: usize) -> LogitMap {
    let labels = protoseg_synthetic::render_scene(5, 0, height, width).labels;
    let stream = Stream::keyed(&[2]);
    let logit = |index: usize| {
        let class = index / (height * width);
        let row = index / width % height;
        let column = index % width;
        let near = |center: usize, count: usize| center.saturating_sub(2)..(center + 3).min(count);
        let around = near(row, height)
            .flat_map(|row| near(column, width).map(move |column| row * width + column));
        let same = around.filter(|&pixel| usize::from(labels[pixel]) == class).count();
        same as f32 * 0.4 + stream.signed_unit(index as u64) as f32
    };
    LogitMap {
        classes: CLASSES,
        height,
        width,
        data: (0..CLASSES * height * width).map(logit).collect(),
    }
}
