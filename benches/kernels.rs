//! What follows the network for a Cityscapes frame: stitching window scores, then upsampling with argmax.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use protoseg_infer::stitch::{LogitMap, Stitcher};
use protoseg_infer::upsample::{self, Frame};
use protoseg_models::random::Stream;
use protoseg_models::window::{LogitGrid, WindowPlan};

const CLASSES: usize = 19;
const GRID: LogitGrid = LogitGrid { stride: 4, encoder_stride: 16, align_corners: false };

fn scores(count: usize) -> Vec<f32> {
    let stream = Stream::keyed(&[1]);
    (0..count as u64).map(|index| stream.signed_unit(index) as f32).collect()
}

fn kernels(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("1024x2048, 19 classes");
    group.sample_size(10);
    if let Ok(plan) = WindowPlan::new(1024, 2048, GRID.usual_window(), GRID) {
        let side = plan.window_logits();
        let windows = scores(plan.count() * CLASSES * side * side);
        group.bench_function("stitch eight windows of 768", |bencher| {
            bencher.iter(|| {
                let mut stitcher = Stitcher::new(&plan, CLASSES)?;
                stitcher.add(black_box(&windows));
                Some(stitcher.finish())
            });
        });
    }
    let map = LogitMap { classes: CLASSES, height: 256, width: 512, data: scores(CLASSES * 256 * 512) };
    let frame = Frame { height: 1024, width: 2048, padded: [1024, 2048], align_corners: false };
    group.bench_function("upsample and argmax", |bencher| bencher.iter(|| upsample::labels(black_box(&map), &frame)));
    group.finish();
}

criterion_group!(benches, kernels);
criterion_main!(benches);
