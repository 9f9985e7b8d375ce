//! Export of EfficientNet-Lite0 with formula weights: bytes of its ONNX files, checkpoint folder to
//! bundle folder, and the checks on opening a bundle.

#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use protoseg_export::onnx::emit::{emit, emit_quantized};
use protoseg_export::options::{ExportOptions, ExportPrecision};
use protoseg_export::{Network, QuantizationPlan, QuantizeConfig, bundle};
use protoseg_models::arch::Preset;
use protoseg_models::bundle::Manifest;
use protoseg_models::checkpoint::Checkpoint;
use protoseg_models::graph::Tag;
use protoseg_models::variant::{Precision, Variant};
use tempfile::TempDir;

/// Returns a folder with the checkpoint in `checkpoint/`.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    support::write_checkpoint(
        &folder.path().join("checkpoint"),
        Preset::DeepLabV3PlusEfficientNetLite0,
    );
    folder
}

fn options(precisions: &[ExportPrecision]) -> ExportOptions {
    ExportOptions {
        precisions: precisions.to_vec(),
        command: "bench".to_owned(),
        ..ExportOptions::default()
    }
}

/// Weights to network to bytes, in memory.
fn bytes(criterion: &mut Criterion) {
    let folder = folder();
    let checkpoint =
        Checkpoint::read(&folder.path().join("checkpoint")).expect("the checkpoint just written");
    let graph = checkpoint.header.arch.graph();
    let logits = graph.tagged(Tag::Logits).expect("a segmentor has logits");
    let fold = || {
        Network::new(&graph, black_box(&checkpoint.weights), &[(logits, "logits")])?
            .fold_batch_norm()
    };
    let network = fold().expect("the weights fit");
    let calibration = checkpoint.calibration.as_ref().expect("the checkpoint is calibrated");
    let mut group = criterion.benchmark_group("ONNX bytes, EfficientNet-Lite0");
    group.sample_size(10);
    group.bench_function("fold", |bencher| bencher.iter(fold));
    for precision in [Precision::Fp32, Precision::Fp16] {
        let variant = Variant { precision, ..Variant::LOGITS };
        group.bench_function(format!("{precision:?}"), |bencher| {
            bencher.iter(|| emit(&network, &variant, None).map(|emitted| emitted.file.to_bytes()));
        });
    }
    group.bench_function("Int8", |bencher| {
        bencher.iter(|| {
            let plan = QuantizationPlan::new(&network, calibration, QuantizeConfig::CPU)?;
            emit_quantized(&network, &plan, None).map(|emitted| emitted.file.to_bytes())
        });
    });
    group.finish();
}

/// Folder to folder, synced to disk.
fn folders(criterion: &mut Criterion) {
    let folder = folder();
    let [checkpoint, out] = ["checkpoint", "bundle"].map(|name| folder.path().join(name));
    let mut group = criterion.benchmark_group("checkpoint to bundle, EfficientNet-Lite0");
    group.sample_size(10);
    for precisions in [ExportPrecision::Fp32, ExportPrecision::Fp16, ExportPrecision::Int8] {
        let options = options(&[precisions]);
        group.bench_function(precisions.to_string(), |bencher| {
            bencher.iter(|| {
                bundle::write(&checkpoint, &out, &options).expect("the checkpoint can be exported")
            });
        });
    }
    let options = options(&[ExportPrecision::Fp32, ExportPrecision::Fp16, ExportPrecision::Int8]);
    group.bench_function("all three", |bencher| {
        bencher.iter(|| {
            bundle::write(&checkpoint, &out, &options).expect("the checkpoint can be exported")
        });
    });
    group.finish();
}

fn open(criterion: &mut Criterion) {
    let folder = folder();
    let [checkpoint, out] = ["checkpoint", "bundle"].map(|name| folder.path().join(name));
    let manifest = bundle::write(&checkpoint, &out, &options(&[ExportPrecision::Fp32]))
        .expect("it can be exported");
    let file = manifest.files.first().expect("a bundle has a file");
    let size = out.join(&file.file).metadata().expect("the file is there").len();
    let mut group = criterion.benchmark_group("opening a bundle, EfficientNet-Lite0");
    group.bench_function("manifest", |bencher| bencher.iter(|| Manifest::read(black_box(&out))));
    group.sample_size(20).throughput(Throughput::Bytes(size));
    group.bench_function("digest", |bencher| {
        bencher.iter(|| manifest.verified(black_box(&out), file));
    });
    group.finish();
}

criterion_group!(benches, bytes, folders, open);
criterion_main!(benches);
