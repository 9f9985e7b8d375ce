//! Window geometry: plans of windows over a Cityscapes frame and over an image of a gigapixel, and
//! iteration over them.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use protoseg_models::arch::{Arch, Preset};
use protoseg_models::window::{Blend, LogitGrid, WindowPlan};

const FRAMES: [(&str, [usize; 2]); 2] =
    [("1024x2048", [1024, 2048]), ("32768x32768", [32_768, 32_768])];
const PRESETS: [Preset; 2] =
    [Preset::DeepLabV3PlusEfficientNetLite0, Preset::DeepLabV3PlusResNet101];

fn windows(criterion: &mut Criterion) {
    for (frame, [height, width]) in FRAMES {
        for preset in PRESETS {
            let grid = LogitGrid::from_arch(Arch::new(preset, 19).expect("19 classes"));
            let plan = || {
                WindowPlan::new(
                    black_box([height, width]),
                    grid.default_window(),
                    grid,
                    Blend::Ramp,
                )
            };
            let planned = plan().expect("default windows fit the network");
            let mut group = criterion.benchmark_group(format!("windows of {frame}, {preset}"));
            group.bench_function("plan", |bencher| bencher.iter(plan));
            group.bench_function("starts", |bencher| {
                bencher.iter(|| black_box(&planned).starts().map(black_box).count());
            });
            group.bench_function("starts in logits", |bencher| {
                bencher.iter(|| black_box(&planned).logit_starts().map(black_box).count());
            });
            group.bench_function("sums of weights", |bencher| {
                bencher.iter(|| black_box(&planned).weight_sums());
            });
            group.finish();
        }
    }
}

criterion_group!(benches, windows);
criterion_main!(benches);
