//! Kernels after the network for a Cityscapes frame, each on one thread: stitching of windows, and
//! upsampling with prediction, with vector instructions and without, beside ONNX Runtime's Resize,
//! ArgMax and Cast of the same logits.
//!
//! `PROTOSEG_MODEL` names a `model.onnx` of a bundle, whose logits for a synthetic image are then
//! timed too.

#[path = "../tests/support/messages.rs"]
mod messages;
#[path = "../tests/support/runtime.rs"]
mod runtime;
#[path = "../tests/support/scores.rs"]
mod scores;

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, criterion_group};
use protoseg_infer::stitch::{LogitMap, Stitcher};
use protoseg_infer::upsample::{self, LogitGeometry, Outputs};
use protoseg_models::window::{Blend, LogitGrid, WindowPlan};
use runtime::Tail;

const GRID: LogitGrid = LogitGrid { stride: 4, encoder_stride: 16, align_corners: false };
const FRAME: LogitGeometry = LogitGeometry::new([1024, 2048], [1024, 2048], false);

fn stitch(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("stitch 1024x2048, 19 classes");
    group.sample_size(20);
    let size = [FRAME.height, FRAME.width];
    if let Ok(plan) = WindowPlan::new(size, GRID.default_window(), GRID, Blend::Ramp) {
        let [rows, columns] = plan.tile_logits();
        let windows = scores::random(plan.count() * rows, columns);
        group.bench_function("eight windows of 768", |bencher| {
            bencher.iter(|| {
                let mut stitcher = Stitcher::new(&plan, scores::CLASSES)?;
                stitcher.add(black_box(&windows.data));
                Some(stitcher.finish())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, stitch, upsample);

fn upsample(criterion: &mut Criterion) {
    let mut all = vec![("random", scores::random(256, 512)), ("scene", scores::scene(256, 512))];
    if let Some(model) = std::env::var_os("PROTOSEG_MODEL") {
        let image = protoseg_synthetic::render_scene(5, 0, FRAME.height, FRAME.width).image;
        all.push(("network", runtime::logits(Path::new(&model), &image, FRAME.padded)));
    }
    for (name, logits) in &all {
        let mut group = criterion.benchmark_group(format!("19x256x512 to 1024x2048, {name}"));
        group.sample_size(20);
        for (what, confidence, margin) in [
            ("labels", false, false),
            ("labels, confidence", true, false),
            ("labels, margin", false, true),
            ("labels, confidence, margin", true, true),
        ] {
            let outputs = Outputs { confidence, margin, logits: false };
            group.bench_function(what, |bencher| {
                bencher.iter(|| upsample::predict(black_box(logits), &FRAME, outputs));
            });
            group.bench_function(format!("{what}; scalar"), |bencher| {
                bencher.iter(|| upsample::predict_scalar(black_box(logits), &FRAME, outputs));
            });
        }
        let LogitMap { classes, height, width, .. } = *logits;
        let mut tail = Tail::new([classes, height, width], FRAME);
        group.bench_function("ONNX Runtime's labels", |bencher| {
            bencher.iter(|| tail.labels(black_box(logits)));
        });
        group.finish();
    }
}

fn main() -> Result<(), rayon::ThreadPoolBuildError> {
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global()?;
    benches();
    Criterion::default().configure_from_args().final_summary();
    Ok(())
}
