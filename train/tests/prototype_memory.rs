//! Main memory of the prototype branch, measured in its own process.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use protoseg_models::random::Stream;
use protoseg_train::method::points::SampledPoints;
use protoseg_train::method::similarity::Similarity;
use tch::{Device, Kind, Tensor};

const CLASSES: i64 = 19;
const EACH: i64 = 3;
const CHANNELS: i64 = 512;
/// Side of a Cityscapes crop; `MAP_SIDE` is that of its feature map.
const SIDE: usize = 769;
const MAP_SIDE: i64 = 193;
const CELLS: usize = 32;
/// The gradient of the map takes 76 million bytes of it.
const ALLOWED: u64 = 96_000_000;

/// A line of `/proc/self/status`, in bytes.
fn status(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let value = status.lines().find_map(|status| status.strip_prefix(line)).unwrap();
    value.trim().strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap() * 1024
}

/// Sampling, loss and backward pass over a feature map `[1, channels, side, side]`.
fn learn(map: &Tensor, prototypes: &Tensor) {
    let pixels = SampledPoints::per_image(Stream::keyed(&[1]), 1, [SIDE; 2], CELLS).unwrap();
    let features = pixels.features(map, true).unwrap();
    let compared = Similarity::new(features, prototypes, &[true; CLASSES as usize], 0.1).unwrap();
    let labels =
        Tensor::arange((CELLS * CELLS) as i64, (Kind::Int64, Device::Cpu)).remainder(CLASSES);
    compared.loss(&labels).unwrap().backward();
}

#[test]
fn the_branch_takes_little_more_memory_than_the_gradient_of_its_map() {
    let options = (Kind::Float, Device::Cpu);
    let prototypes = Tensor::rand([CLASSES * EACH, CHANNELS], options);
    let shift = Tensor::zeros([1, CHANNELS, 1, 1], options).set_requires_grad(true);
    // Warm-up: libtorch's one-time allocations do not count.
    learn(&(Tensor::rand([1, CHANNELS, 9, 9], options) + &shift), &prototypes);

    // Channels last in memory, as in the networks, and not a leaf, whose gradient would be kept.
    let map =
        Tensor::rand([1, MAP_SIDE, MAP_SIDE, CHANNELS], options).permute([0, 3, 1, 2]) + &shift;
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS:");
    learn(&map, &prototypes);
    let taken = status("VmHWM:") - before;
    eprintln!("{:.1} MB beyond the map", taken as f64 / 1e6);
    assert!(shift.grad().abs().max().double_value(&[]) > 0.0);
    assert!(taken < ALLOWED, "{taken} bytes beyond the map");
}
