//! The program: its files, output and error messages, and the [`gate`] before a bundle is written.

#![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

#[cfg(unix)]
mod gate;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use prost::Message;
use protoseg_export::onnx::proto::{ModelProto, StringStringEntryProto};
use protoseg_models::arch::{Arch, Preset};
use protoseg_models::bundle::{METADATA_KEY, Manifest, Model};
use protoseg_models::calibration::{Calibration, HISTOGRAM_BINS, NodeRange};
use protoseg_models::checkpoint::{Checkpoint, CheckpointHeader};
use protoseg_models::classes::ClassTable;
use protoseg_models::formula;
use protoseg_models::probe::ProbeCase;
use protoseg_models::variant::{VARIANT_KEY, Variant};
use protoseg_models::weights::Tensor;
use protoseg_models::window::{Tiling, Window};

/// A folder with a checkpoint of the smallest preset.
struct TestDir {
    root: tempfile::TempDir,
}

impl TestDir {
    fn new() -> Self {
        Self::with(|_| {})
    }

    /// Changes the checkpoint before it is written.
    fn with(change: impl FnOnce(&mut Checkpoint)) -> Self {
        let arch = Arch::new(Preset::DeepLabV3PlusEfficientNetLite0, 11).unwrap();
        let probe = ProbeCase {
            name: "4x4".to_owned(),
            height: 4,
            width: 4,
            image: vec![0; 48],
            logits: Tensor { shape: vec![1, 11, 1, 1], data: vec![0.0; 11] },
            labels: vec![0; 16],
            prototype_confidence: None,
        };
        let mut checkpoint = Checkpoint {
            header: CheckpointHeader::new("street", arch, ClassTable::camvid(), None),
            weights: formula::weights(&arch.graph(), None),
            probe: vec![probe],
            calibration: None,
            prototypes: None,
            metrics: None,
            config: String::new(),
        };
        change(&mut checkpoint);
        let folder = Self { root: tempfile::tempdir().unwrap() };
        checkpoint.write(&folder.checkpoint()).unwrap();
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn checkpoint(&self) -> PathBuf {
        self.path("checkpoint")
    }

    /// Exports without a check.
    fn export(&self, out: &str, more: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_protoseg-export"));
        command.arg(self.checkpoint()).arg("--out").arg(self.path(out)).arg("--no-check");
        command.args(more).output().unwrap()
    }

    /// Expects an export to fail with some words in one line, and to write nothing.
    fn refused(&self, more: &[&str], words: &[&str]) {
        let output = self.export("bundle", more);
        assert_eq!(output.status.code(), Some(1));
        expect_words(&output, words);
        let left: Vec<_> =
            self.root.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| name == "checkpoint"), "{left:?}");
    }
}

fn expect_words(output: &Output, words: &[&str]) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.starts_with("error: ") && message.lines().count() == 1, "{message}");
    for word in words {
        assert_eq!(message.matches(word).count(), 1, "`{word}` in: {message}");
    }
}

fn files(folder: &Path) -> Vec<String> {
    let names =
        folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn windows_and_the_reading_of_images_are_kept_with_their_reason() {
    let folder = TestDir::with(|checkpoint| {
        checkpoint.header.window = Some(Window { size: 512, stride: 384 });
        checkpoint.header.reading.range = "0:4095".parse().ok();
    });
    for (options, window, reason, reading) in [
        ("", "512:384", "windows of 512:384, as training scored;", "--range 0:4095"),
        (
            "--window 512:256",
            "512:256",
            "as --window says; training scored 512:384",
            "--range 0:4095",
        ),
        (
            "--window whole --channels 4,3,2",
            "whole",
            "whole images, as --window says",
            "--channels 4,3,2 --range 0:4095",
        ),
    ] {
        let more: Vec<&str> = options.split_whitespace().collect();
        let output = folder.export("bundle", &more);
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && stdout.contains(reason), "{options}: {stdout}{stderr}");
        let manifest = Manifest::read(&folder.path("bundle")).unwrap().value;
        assert!(manifest.provenance.window.unwrap().contains(reason), "{options}");
        assert_eq!(Tiling::from(manifest.model.window).to_string(), window, "{options}");
        assert_eq!(manifest.model.reading.to_string(), reading, "{options}");
        let other = stderr.contains("training read its own by --range 0:4095");
        assert_eq!(other, options.contains("--channels"), "{options}: {stderr}");
    }
}

#[test]
fn options_without_effect_or_with_conflicts_are_refused() {
    let folder = TestDir::new();
    for (arguments, part) in [
        ("--frame 64x96:1 --frame 64x96", "given twice"),
        ("--decide margin", "--frame"),
        ("--precision int8 --frame 64x96", "are in floats"),
        ("--window whole --frame 64x96:2", "leave out :COUNT"),
        ("--window whole --frame 31x96", "too small to be run whole"),
        ("--name=", "the name is blank"),
        ("--name=\t", "the name is blank"),
        ("--name=a\nb", "the name is blank"),
        ("--name=é --triton", "`é`"),
        (
            "--window 48:4 --frame 4096x4096:1",
            "choose a larger :COUNT of --frame, or larger windows",
        ),
        ("--window 48:4 --frame 4096x4096", "choose larger windows or strides with --window"),
    ] {
        folder.refused(&arguments.split(' ').collect::<Vec<_>>(), &[part]);
    }
}

#[test]
fn a_bundle_is_complete_and_reproducible() {
    let folder = TestDir::new();
    let output = folder.export("bundle", &["--window", "768:512", "--name", "my street"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let line = "model.onnx  logits  fp32  13.1 MB  image uint8 [N, H, W, 3] -> logits float32 [N, 11, h, w]\n";
    let stdout = String::from_utf8_lossy(&output.stdout);
    let (first, second) = stdout.split_once('\n').unwrap();
    assert_eq!(format!("{first}\n"), line);
    assert!(second.starts_with("windows of 768:512, as --window says;"), "{second}");
    assert!(output.stderr.is_empty());

    let bundle = folder.path("bundle");
    assert_eq!(files(&bundle), ["manifest.json", "model.onnx", "probe.safetensors"]);
    let manifest = Manifest::read(&bundle).unwrap().value;
    assert_eq!((manifest.model.name.as_str(), manifest.files.len()), ("my street", 1));
    assert_eq!(manifest.model.window, Some(Window { size: 768, stride: 512 }));
    assert!(
        manifest.provenance.command.contains("--name 'my street'"),
        "{}",
        manifest.provenance.command
    );
    assert_eq!(
        manifest.model.weights_sha256,
        Some(Checkpoint::weights_digest(&folder.checkpoint()).unwrap())
    );
    assert_eq!(manifest.probe(&bundle).unwrap().len(), 1);
    let path = manifest.verified(&bundle, &manifest.files[0]).unwrap();
    let bytes = std::fs::read(path).unwrap();
    let metadata = ModelProto::decode(bytes.as_slice()).unwrap().metadata_props;
    let keys: Vec<&str> = metadata.iter().map(StringStringEntryProto::key).collect();
    assert_eq!(keys, [METADATA_KEY, VARIANT_KEY]);
    assert_eq!(serde_json::from_str::<Model>(metadata[0].value()).unwrap(), manifest.model);
    assert_eq!(
        serde_json::from_str::<Variant>(metadata[1].value()).unwrap(),
        manifest.files[0].variant
    );

    // Over the old bundle, and to another folder.
    for out in ["bundle", "other"] {
        assert!(
            folder.export(out, &["--window", "768:512", "--name", "my street"]).status.success()
        );
        assert_eq!(std::fs::read(folder.path(out).join("model.onnx")).unwrap(), bytes);
    }
    assert_eq!(files(folder.root.path()), ["bundle", "checkpoint", "other"]);
}

#[test]
fn nodes_can_be_outputs() {
    let folder = TestDir::new();
    let taps = [
        "--output",
        "encoder._blocks.2.add",
        "--output",
        "decoder.aspp.pool",
        "--output",
        "decoder.dropout",
    ];
    let output = folder.export("bundle", &taps);
    let line = String::from_utf8_lossy(&output.stdout);
    let signature = "logits float32 [N, 11, h, w], encoder._blocks.2.add float32 [N, 24, h, w], decoder.aspp.pool float32 \
                 [N, 320, 1, 1], decoder.dropout float32 [N, 128, h, w]\n";
    assert!(line.contains(signature), "{line}");
    let folder = TestDir::new();
    folder.refused(&["--output", "encoder.add"], &["no node `encoder.add`"]);
    folder.refused(&["--output", "decoder.classifier"], &["as two outputs"]);
}

#[test]
fn frame_files_always_have_labels_and_confidence() {
    let folder = TestDir::new();
    let output = folder.export("bundle", &["--frame", "64x96", "--decide", "margin,labels,margin"]);
    let line = String::from_utf8_lossy(&output.stdout);
    let signature =
        "labels uint8 [N, 64, 96], confidence uint8 [N, 64, 96], margin float32 [N, 64, 96]\n";
    assert!(line.contains(signature), "{line}");
    let folder = TestDir::new();
    folder.refused(&["--frame", "64x9000"], &["64x9000", "too large"]);
    for wrong in ["64", "0x64", "64x64:0", "64x64x3"] {
        assert_eq!(folder.export("bundle", &["--frame", wrong]).status.code(), Some(2), "{wrong}");
    }
}

#[test]
fn taps_are_not_listed_in_the_manifest() {
    let folder = TestDir::new();
    assert!(folder.export("bundle", &["--taps"]).status.success());
    let bundle = folder.path("bundle");
    assert_eq!(files(&bundle), ["manifest.json", "model.onnx", "probe.safetensors", "taps.onnx"]);
    assert_eq!(Manifest::read(&bundle).unwrap().value.files.len(), 1);
    let read = |name: &str| {
        ModelProto::decode(std::fs::read(bundle.join(name)).unwrap().as_slice()).unwrap()
    };
    let model = read("model.onnx");
    let taps = read("taps.onnx");
    // The variant, but not the model, whose logits they do not have.
    assert_eq!((taps.metadata_props.len(), &taps.metadata_props[0]), (1, &model.metadata_props[1]));
    assert_eq!(taps.metadata_props[0].key(), VARIANT_KEY);
    let names = |model: ModelProto| -> Vec<String> {
        model.graph.unwrap().output.iter().map(|output| output.name().to_owned()).collect()
    };
    assert_eq!(names(model), ["logits"]);
    let names = names(taps);
    assert_eq!((names[0].as_str(), names[1].as_str()), ("normalize", "encoder._bn0"));
    assert_eq!(names.last().unwrap(), "decoder.classifier");
    // Taps of an older bundle are removed.
    assert!(folder.export("bundle", &[]).status.success());
    assert_eq!(files(&bundle), ["manifest.json", "model.onnx", "probe.safetensors"]);
}

#[test]
fn a_broken_checkpoint_is_refused_in_one_line() {
    let folder = TestDir::new();
    std::fs::remove_file(folder.checkpoint().join("weights.safetensors")).unwrap();
    folder.refused(&[], &["weights.safetensors: No such file"]);
    std::fs::remove_file(folder.checkpoint().join("arch.json")).unwrap();
    folder.refused(&[], &["is not a checkpoint: it has no arch.json"]);

    let folder = TestDir::new();
    let weights = folder.checkpoint().join("weights.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    folder.refused(
        &[],
        &["weights.safetensors is not a complete .safetensors file", "copy it again"],
    );

    let missing = TestDir::with(|checkpoint| {
        assert!(checkpoint.weights.remove("decoder.classifier.bias").is_some());
    });
    missing.refused(
        &[],
        &["weights.safetensors: ", "1 tensor is missing, first `decoder.classifier.bias`"],
    );
    let extra = TestDir::with(|checkpoint| {
        checkpoint
            .weights
            .insert("prototypes.0".to_owned(), Tensor { shape: vec![1], data: vec![0.0] });
    });
    extra.refused(
        &[],
        &["weights.safetensors: ", "1 tensor is unknown to the network, first `prototypes.0`"],
    );
    let not_a_number = TestDir::with(|checkpoint| {
        checkpoint.weights.get_mut("decoder.refine1.pointwise.conv.weight").unwrap().data[5] =
            f32::NAN;
    });
    not_a_number.refused(
        &[],
        &["weights.safetensors: ", "`decoder.refine1.pointwise.conv.weight` holds values"],
    );
    let below_zero = TestDir::with(|checkpoint| {
        checkpoint.weights.get_mut("encoder._bn0.running_var").unwrap().data[3] = -2.0;
    });
    below_zero.refused(&[], &["`encoder._bn0`", "running variance of channel 3 is -2"]);
}

#[test]
fn windows_must_fit_the_network() {
    let folder = TestDir::with(|checkpoint| {
        checkpoint.header.window = Some(Window { size: 512, stride: 256 });
    });
    folder.refused(
        &["--window", "769:512"],
        &["windows of 769 pixels do not fit this network: 768 or 784 do"],
    );
    folder
        .refused(&["--window", "768:510"], &["a stride of 510 pixels does not fit windows of 768"]);
    folder.refused(&["--window", "0:0"], &["windows of 0 pixels"]);
    for wrong in ["768", "768:", "all", "-1:2"] {
        let output = folder.export("bundle", &[&format!("--window={wrong}")]);
        assert_eq!(output.status.code(), Some(2), "{wrong}");
    }
    for (more, window) in
        [(&[][..], Some(Window { size: 512, stride: 256 })), (&["--window", "whole"], None)]
    {
        assert!(folder.export("bundle", more).status.success());
        assert_eq!(Manifest::read(&folder.path("bundle")).unwrap().value.model.window, window);
    }
}

#[test]
fn only_a_bundle_is_replaced() {
    let folder = TestDir::new();
    let occupied = folder.path("work");
    std::fs::create_dir(&occupied).unwrap();
    assert!(folder.export("work", &[]).status.success(), "an empty folder is free");
    std::fs::remove_file(occupied.join("manifest.json")).unwrap();
    let before = files(&occupied);
    let output = folder.export("work", &[]);
    assert_eq!(output.status.code(), Some(1));
    expect_words(&output, &["work holds `model.onnx` but", "name another folder"]);
    // A web page's manifest.json.
    std::fs::write(occupied.join("manifest.json"), r#"{"name": "page", "icons": []}"#).unwrap();
    assert_eq!(folder.export("work", &[]).status.code(), Some(1));
    assert_eq!(files(&occupied)[1..], before);

    std::fs::write(folder.path("file"), "text").unwrap();
    let output = folder.export("file", &[]);
    expect_words(&output, &["file is a file"]);
    for out in ["checkpoint", "checkpoint/bundle", "checkpoint/../checkpoint/a/b", "."] {
        let output = folder.export(out, &[]);
        assert_eq!(output.status.code(), Some(1), "{out}");
        expect_words(&output, &["cannot hold the bundle"]);
    }
    assert_eq!(files(folder.root.path()), ["checkpoint", "file", "work"]);
    let checkpoint = files(&folder.checkpoint());
    assert_eq!(
        checkpoint,
        ["arch.json", "config.toml", "probe.safetensors", "weights.safetensors"]
    );
}

/// Adds ranges of every node.
fn calibrated(checkpoint: &mut Checkpoint) {
    let range =
        NodeRange { min: 0.0, max: 6.0, histogram: vec![1; HISTOGRAM_BINS], sensitivity: 0.0 };
    let graph = checkpoint.header.arch.graph();
    let nodes = graph.nodes().iter().map(|node| (node.name.clone(), range.clone())).collect();
    let version = Calibration::VERSION.to_owned();
    checkpoint.calibration =
        Some(Calibration { version, source: "none".to_owned(), count: 1, nodes });
}

#[test]
fn each_precision_has_a_file_in_the_given_order() {
    let folder = TestDir::with(calibrated);
    let output = folder.export(
        "bundle",
        &["--precision", "fp32,int8,fp16,int8-trt", "--output", "encoder._bn0.relu"],
    );
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let bundle = folder.path("bundle");
    let manifest = Manifest::read(&bundle).unwrap().value;
    let found: Vec<&str> = manifest.files.iter().map(|file| file.file.as_str()).collect();
    assert_eq!(found, ["model.onnx", "model.int8.onnx", "model.fp16.onnx", "model.int8-trt.onnx"]);
    for file in &manifest.files {
        let bytes = std::fs::read(manifest.verified(&bundle, file).unwrap()).unwrap();
        let metadata = ModelProto::decode(bytes.as_slice()).unwrap().metadata_props;
        let variant = metadata.iter().find(|entry| entry.key() == VARIANT_KEY).unwrap();
        assert_eq!(serde_json::from_str::<Variant>(variant.value()).unwrap(), file.variant);
        assert_eq!(file.variant.quantization.is_some(), file.file.contains("int8"));
        assert_eq!(file.outputs.len(), 2);
    }
    let sizes = manifest.files.iter().map(|file| bundle.join(&file.file).metadata().unwrap().len());
    let [fp32, int8, fp16, _] = sizes.collect::<Vec<_>>()[..] else { panic!("{found:?}") };
    assert!(fp32 > 19 * fp16 / 10 && fp16 > 17 * int8 / 10, "{fp32} {fp16} {int8}");

    // Other files of the older bundle are removed.
    assert!(
        folder
            .export("bundle", &["--precision", "int8", "--weight-bits", "8", "--float-above", "0"])
            .status
            .success()
    );
    assert_eq!(files(&bundle), ["manifest.json", "model.int8.onnx", "probe.safetensors"]);
    let quantization =
        Manifest::read(&bundle).unwrap().value.files[0].variant.quantization.clone().unwrap();
    assert_eq!((quantization.weight_bits, quantization.symmetric), (8, false));
    assert_eq!(quantization.float_nodes, ["decoder.classifier"]);
}

#[test]
fn an_impossible_precision_is_refused() {
    let folder = TestDir::new();
    folder.refused(
        &["--precision", "fp32,int8"],
        &["no calibration.json", "calibration_images above 0"],
    );
    folder.refused(
        &["--precision", "int8-trt"],
        &["int8-trt needs value ranges", "no calibration.json"],
    );
    folder.refused(&["--precision", "fp16,fp32,fp16"], &["fp16 is given twice"]);
    folder.refused(&["--weight-bits", "8"], &["--weight-bits has no effect without int8"]);
    folder.refused(
        &["--float-above", "0.1"],
        &["--float-above has no effect without int8 or int8-trt"],
    );
    for wrong in [
        ["--precision", "int4"],
        ["--weight-bits", "6"],
        ["--float-above", "much"],
        ["--float-above=-1", "--name=a"],
    ] {
        assert_eq!(folder.export("bundle", &wrong).status.code(), Some(2), "{wrong:?}");
    }
    let lacking = TestDir::with(|checkpoint| {
        calibrated(checkpoint);
        checkpoint.calibration.as_mut().unwrap().nodes.remove("decoder.aspp.pool");
    });
    lacking.refused(&["--precision", "fp32,int8"], &["the calibration lacks `decoder.aspp.pool`"]);
    let large = TestDir::with(|checkpoint| {
        checkpoint.weights.get_mut("decoder.classifier.bias").unwrap().data[0] = 1e5;
    });
    large.refused(
        &["--precision", "fp16"],
        &["fp16 cannot hold the tensor `decoder.classifier.bias`", "100000"],
    );
}

#[test]
fn a_checkpoint_without_probe_is_exported_with_a_warning() {
    let folder = TestDir::with(|checkpoint| checkpoint.probe.clear());
    let output = folder.export("deep/er/bundle", &[]);
    assert!(output.status.success());
    assert!(
        String::from_utf8_lossy(&output.stderr).starts_with("warning: the checkpoint has no probe")
    );
    assert_eq!(files(&folder.path("deep/er/bundle")), ["manifest.json", "model.onnx"]);
}

#[test]
fn wrong_usage_exits_with_2() {
    let program = || Command::new(env!("CARGO_BIN_EXE_protoseg-export"));
    assert_eq!(program().output().unwrap().status.code(), Some(2));
    assert_eq!(
        program().args(["a", "--out", "b", "--precision", "fp8"]).output().unwrap().status.code(),
        Some(2)
    );
    let help = program().arg("--help").output().unwrap();
    assert!(
        help.status.success()
            && String::from_utf8_lossy(&help.stdout).contains("--window <SIZE:STRIDE>")
    );
}
