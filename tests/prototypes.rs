//! The prototype confidence of a file equals its definition and agrees with libtorch.

mod support;

use std::collections::BTreeSet;
use std::path::Path;

use protoseg_export::onnx::emit::emit;
use protoseg_export::{Network, PixelOutput};
use protoseg_infer::EngineConfig;
use protoseg_infer::session::Runner;
use protoseg_models::arch::{Arch, Preset};
use protoseg_models::bundle::{Manifest, Model};
use protoseg_models::classes::{ClassTable, IGNORE_INDEX};
use protoseg_models::graph::{NodeId, Op, Tag};
use protoseg_models::prototypes::{PROTOTYPE_CONFIDENCE, Prototypes};
use protoseg_models::random::Stream;
use protoseg_models::reading::ImageReading;
use protoseg_models::variant::{Precision, Variant};
use protoseg_models::weights::Tensor;
use protoseg_models::window::{Blend, LogitGrid};
use protoseg_models::{formula, probe};
use support::{program, repository, succeed};

const CLASSES: usize = 11;
const SIZE: [usize; 2] = [57, 83];

/// Returns prototypes near values of a network, so that cosines differ; the last class has none.
fn prototypes(node: &str, values: &Tensor) -> Prototypes {
    let (channels, places) = (values.shape[1], values.shape[2] * values.shape[3]);
    let at = |place: usize| {
        (0..channels).map(|channel| values.data[channel * places + place]).collect::<Vec<f32>>()
    };
    let stream = Stream::named("prototypes");
    let mean = (0..channels).map(|channel| 0.5 * at(places / 2)[channel]).collect();
    let near = |class: usize, number: usize| {
        let index = class * 3 + number;
        at(index * 7 % places)
            .iter()
            .zip(0..)
            .map(|(value, n)| value + stream.signed_unit(n) as f32 * 0.2)
            .collect()
    };
    let class = |class: usize| {
        (class + 1 < CLASSES).then(|| (0..3).map(|number| near(class, number)).collect())
    };
    Prototypes {
        version: Prototypes::VERSION.to_owned(),
        node: node.to_owned(),
        temperature: 0.1,
        mean,
        classes: (0..CLASSES).map(class).collect(),
    }
}

/// Returns the positions on a map of another length on both sides of a pixel, and the weight of the
/// second.
fn between(pixel: usize, pixels: usize, places: usize, align_corners: bool) -> (usize, usize, f64) {
    let place = if align_corners {
        pixel as f64 * (places - 1) as f64 / (pixels - 1) as f64
    } else {
        ((pixel as f64 + 0.5) * places as f64 / pixels as f64 - 0.5).max(0.0)
    };
    let before = place.floor() as usize;
    (before, (before + 1).min(places - 1), place - place.floor())
}

/// Computes the probability of every pixel's label by definition, in 64-bit floats.
fn expected(
    prototypes: &Prototypes,
    values: &Tensor,
    labels: &[u8],
    align_corners: bool,
) -> Vec<f64> {
    let [channels, height, width] = [values.shape[1], values.shape[2], values.shape[3]];
    let scores: Vec<Vec<f64>> = (0..height * width)
        .map(|place| {
            let own: Vec<f32> = (0..channels)
                .map(|channel| values.data[channel * height * width + place])
                .collect();
            prototypes.scores(&own)
        })
        .collect();
    let probability = |pixel: usize| {
        let (top, bottom, down) = between(pixel / SIZE[1], SIZE[0], height, align_corners);
        let (left, right, across) = between(pixel % SIZE[1], SIZE[1], width, align_corners);
        let score = |class: usize| {
            let at = |y: usize, x: usize| scores[y * width + x][class];
            if at(0, 0).is_infinite() {
                return f64::NEG_INFINITY;
            }
            (at(top, left) * (1.0 - across) + at(top, right) * across) * (1.0 - down)
                + (at(bottom, left) * (1.0 - across) + at(bottom, right) * across) * down
        };
        let powers: Vec<f64> = (0..CLASSES).map(|class| score(class).exp()).collect();
        powers[usize::from(labels[pixel])] / powers.iter().sum::<f64>()
    };
    (0..SIZE[0] * SIZE[1]).map(probability).collect()
}

#[test]
fn a_file_follows_the_definition() {
    for preset in [Preset::DeepLabV3PlusEfficientNetLite0, Preset::DeepLabV3PlusResNet50] {
        let arch = Arch::new(preset, CLASSES).unwrap();
        let graph = arch.graph();
        let weights = formula::weights(&graph, Some(3));
        let [logits, features] = [Tag::Logits, Tag::Features].map(|tag| graph.tagged(tag).unwrap());
        // Also before its ReLU, if any: a value that folding and quantization would otherwise
        // remove.
        let before = |id: NodeId| (graph.node(id).op == Op::Relu).then(|| graph.node(id).inputs[0]);
        for node in std::iter::once(features).chain(before(features)) {
            let name = graph.node(node).name.clone();
            let outputs = [(logits, "logits"), (node, "values")];
            let network = Network::new(&graph, &weights, &outputs).unwrap();
            let plain = emit(&network, &Variant::LOGITS, None).unwrap().file.to_bytes();
            let [height, width] = SIZE;
            let scene = protoseg_synthetic::render_scene(4, 0, height, width).image;
            let shape = [1, height, width];
            let mut runner = Runner::from_bytes("plain", &plain, &EngineConfig::default()).unwrap();
            let values = runner.run_outputs(&scene, shape, &["values"]).unwrap().remove(0);
            let prototypes = prototypes(&name, &values);

            let grid = LogitGrid::from_arch(arch);
            let model = Model {
                version: Model::VERSION.to_owned(),
                name: "street".to_owned(),
                classes: ClassTable::camvid(),
                ignore: IGNORE_INDEX,
                grid,
                window: None,
                arch: Some(arch),
                blend: Blend::Ramp,
                weights_sha256: None,
                reading: ImageReading::default(),
            };
            let judged = Network::new(&graph, &weights, &outputs[..1])
                .unwrap()
                .with_pixel_outputs(&[PixelOutput::Labels]);
            let judged =
                judged.with_prototype_head(prototypes.clone()).unwrap().fold_batch_norm().unwrap();
            for (precision, steps) in [(Precision::Fp32, 1), (Precision::Fp16, 12)] {
                let variant = Variant { precision, ..Variant::LOGITS };
                let file = emit(&judged, &variant, Some(&model)).unwrap().file.to_bytes();
                let mut runner =
                    Runner::from_bytes("judged", &file, &EngineConfig::default()).unwrap();
                let found =
                    runner.run_bytes(&scene, shape, &["labels", PROTOTYPE_CONFIDENCE]).unwrap();
                let expected = expected(&prototypes, &values, &found[0], grid.align_corners);
                let differences = found[1]
                    .iter()
                    .zip(&expected)
                    .map(|(&found, expected)| (f64::from(found) - 255.0 * expected).abs());
                let largest = differences.fold(0.0, f64::max);
                let spread = expected.iter().filter(|share| (0.05..0.95).contains(*share)).count();
                eprintln!(
                    "{preset} {name} {precision:?}: {largest:.2} steps, {spread} pixels in doubt"
                );
                // Rounding errs by half a step; fp16 changes cosines by 1e-3, and the temperature
                // makes that 1e-2.
                assert!(largest <= f64::from(steps), "{preset} {name} {precision:?}: {largest}");
                assert!(spread > 100, "{preset} {name}: only {spread} pixels are in doubt");
            }
        }
    }
}

/// Trains a few steps with prototypes and returns the checkpoint folder.
fn trained(folder: &Path, settings: &[&str]) -> std::path::PathBuf {
    let run = folder.join("run");
    let mut train = program("protoseg");
    train
        .arg("train")
        .arg(repository().join("train/configs/synthetic.toml"))
        .arg("--out")
        .arg(&run);
    let small = "steps=4 warmup_steps=2 mode=prototype synthetic_labeled=5 synthetic_unlabeled=5 synthetic_validation=1 \
                 synthetic_size=[64,96] crop=64 batch=2 window={size=64,stride=48} precise_bn_batches=1 calibration_images=1";
    let settings = small.split_whitespace().chain(settings.iter().copied());
    train
        .args(settings.flat_map(|setting| ["--set", setting]))
        .args(["--threads", "1"])
        .current_dir(repository());
    succeed(&mut train);
    run.join("checkpoint")
}

#[test]
fn trained_prototypes_are_exported_on_request_and_agree_with_libtorch() {
    let root = tempfile::tempdir().unwrap();
    // Temperature and learning rate with which a short training leaves confidences below 1.
    let checkpoint =
        trained(root.path(), &["features=centered", "temperature=0.2", "learning_rate=0.001"]);
    let cases = probe::read(&checkpoint.join("probe.safetensors")).unwrap();
    let sure = cases
        .iter()
        .flat_map(|case| case.prototype_confidence.clone().unwrap())
        .collect::<BTreeSet<u8>>();
    assert!(sure.len() > 10, "libtorch's confidence has few values: {sure:?}");
    let export = |out: &str, more: &[&str]| {
        let mut command = program("protoseg");
        command.arg("export").arg(&checkpoint).arg("--out").arg(root.path().join(out)).args(more);
        succeed(&mut command)
    };
    let report = export("plain", &[]);
    let plain = std::fs::read(root.path().join("plain/model.onnx")).unwrap();
    assert!(
        !report.contains("prototype") && !String::from_utf8_lossy(&plain).contains("prototype"),
        "{report}"
    );

    let more = ["--prototype-confidence", "--output", "confidence"];
    let report = export("judged", &more);
    let exact = |line: &&str| {
        line.starts_with("passed  model.onnx")
            && line.contains("prototype confidence within one step 100.0000 %")
    };
    assert_eq!(report.lines().filter(exact).count(), cases.len(), "{report}");
    // The check would refuse int8 of a barely trained network, as mostly noise.
    export("unjudged", &[&more[..], &["--precision", "fp32,int8", "--no-check"]].concat());
    let manifest = Manifest::read(&root.path().join("unjudged")).unwrap().value;
    assert_eq!(manifest.files.len(), 2);
    for file in &manifest.files {
        let names: Vec<&str> = file.outputs.iter().map(|output| output.name.as_str()).collect();
        assert_eq!(names, ["logits", "confidence", PROTOTYPE_CONFIDENCE], "{}", file.file);
    }
    // Without prototypes nothing is written.
    std::fs::remove_file(checkpoint.join("prototypes.json")).unwrap();
    let mut command = program("protoseg");
    command.arg("export").arg(&checkpoint).arg("--out").arg(root.path().join("none")).args(more);
    let output = command.output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && message.contains("prototypes.json"), "{message}");
    assert!(!root.path().join("none").exists());
}
