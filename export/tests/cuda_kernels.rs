//! Every node of a frame file has a kernel in ONNX Runtime's CUDA provider, by a table from its
//! documentation. A node without one would run on the CPU, with two transfers of its values.

#![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

use std::collections::BTreeMap;

use prost::Message;
use protoseg_export::onnx::frame;
use protoseg_export::onnx::proto::{DataType, GraphProto, ModelProto, NodeProto};
use protoseg_export::{Network, PixelOutput};
use protoseg_models::arch::{Arch, Preset};
use protoseg_models::bundle::Model;
use protoseg_models::classes::ClassTable;
use protoseg_models::formula;
use protoseg_models::graph::Tag;
use protoseg_models::reading::ImageReading;
use protoseg_models::variant::{FrameSpec, ModelKind, Precision, Variant};
use protoseg_models::window::{Blend, LogitGrid, Tiling, Window};

const TABLE: &str = include_str!("tables/cuda_kernels.txt");

struct Kernel {
    /// Version of the operator at our opset.
    version: u32,
    first: u32,
    /// None for a registration of one version.
    last: Option<u32>,
    types: Vec<&'static str>,
}

fn table() -> BTreeMap<&'static str, Kernel> {
    let line = |line: &'static str| {
        let mut words = line.split_whitespace();
        let (name, version, versions) =
            (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        let (first, last) = match versions.split_once('-') {
            Some((first, last)) => (first, Some(last.parse().unwrap())),
            None => (versions.strip_suffix('+').unwrap(), None),
        };
        let kernel = Kernel {
            version: version.parse().unwrap(),
            first: first.parse().unwrap(),
            last,
            types: words.collect(),
        };
        (name, kernel)
    };
    TABLE.lines().filter(|line| !line.starts_with('#')).map(line).collect()
}

/// Returns the frame file of a preset, with windows that reach beyond the frame.
fn file(preset: Preset, precision: Precision) -> GraphProto {
    let arch = Arch::new(preset, 19).unwrap();
    let graph = arch.inference_graph();
    let logits = graph.tagged(Tag::Logits).unwrap();
    let network =
        Network::new(&graph, &formula::weights(&graph, None), &[(logits, "logits")]).unwrap();
    let grid = LogitGrid::from_arch(arch);
    let size = if grid.align_corners { 97 } else { 96 };
    let window = Window { size, stride: 64 };
    let model = Model {
        version: Model::VERSION.to_owned(),
        name: "street".to_owned(),
        classes: ClassTable::cityscapes(),
        ignore: 255,
        grid,
        window: Some(window),
        arch: Some(arch),
        blend: Blend::Ramp,
        weights_sha256: None,
        reading: ImageReading::default(),
    };
    let frame =
        FrameSpec { height: 150, width: 200, tiling: Tiling::Windows(window), windows_at_once: 4 };
    let variant =
        Variant { kind: ModelKind::Frame, precision, frame: Some(frame), quantization: None };
    let emitted = frame::emit(
        &network.fold_batch_norm().unwrap(),
        &variant,
        &frame,
        &PixelOutput::ALL,
        &model,
    )
    .unwrap();
    let model = ModelProto::decode(emitted.file.to_bytes().as_slice()).unwrap();
    assert_eq!(model.opset_import[0].version, Some(17));
    model.graph.unwrap()
}

fn type_name(element: i32) -> &'static str {
    match DataType::try_from(element).unwrap() {
        DataType::Float => "float",
        DataType::Float16 => "float16",
        DataType::Uint8 => "uint8",
        DataType::Int64 => "int64",
        other => panic!("{other:?} is not expected in a frame file"),
    }
}

/// Returns the type of a node's outputs.
fn output_type(node: &NodeProto, inputs: &[&'static str]) -> &'static str {
    match node.op_type() {
        "Cast" => type_name(node.attribute[0].i.unwrap() as i32),
        "ArgMax" => "int64",
        "Equal" => "bool",
        "Where" => inputs[1],
        _ => inputs[0],
    }
}

#[test]
fn every_node_of_a_frame_file_has_a_cuda_kernel() {
    let table = table();
    for (preset, precision) in [
        (Preset::DeepLabV3PlusEfficientNetLite0, Precision::Fp32),
        (Preset::DeepLabV3PlusEfficientNetLite0, Precision::Fp16),
        (Preset::DeepLabV3PlusResNet50, Precision::Fp32),
        (Preset::DeepLabV3PlusResNet50, Precision::Fp16),
    ] {
        let graph = file(preset, precision);
        let mut types = BTreeMap::from([("image".to_owned(), "uint8"), (String::new(), "none")]);
        for constant in &graph.initializer {
            types.insert(constant.name().to_owned(), type_name(constant.data_type.unwrap()));
        }
        for node in &graph.node {
            let name = node.name();
            let kernel = table.get(node.op_type());
            let kernel = kernel
                .unwrap_or_else(|| panic!("{name}: no kernel of {} is known", node.op_type()));
            let fits = kernel.last.map_or(kernel.version == kernel.first, |last| {
                (kernel.first..=last).contains(&kernel.version)
            });
            assert!(
                fits,
                "{name}: the kernel of {} is not for version {}",
                node.op_type(),
                kernel.version
            );
            let inputs: Vec<&str> = node.input.iter().map(|input| types[input]).collect();
            assert!(
                kernel.types.contains(&inputs[0]),
                "{name}: no kernel of {} for {}",
                node.op_type(),
                inputs[0]
            );
            for output in &node.output {
                types.insert(output.clone(), output_type(node, &inputs));
            }
        }
        assert_eq!(
            ["labels", "confidence", "margin"].map(|name| types[name]),
            ["uint8", "uint8", "float"]
        );
    }
}

#[test]
fn weights_are_shared_by_all_windows() {
    let graph = file(Preset::DeepLabV3PlusEfficientNetLite0, Precision::Fp32);
    let stems = graph
        .node
        .iter()
        .filter(|node| node.input.iter().any(|input| input == "encoder._conv_stem.weight"));
    // Six windows, four at once.
    assert_eq!(stems.count(), 2);
    let weights =
        graph.initializer.iter().filter(|constant| constant.name() == "encoder._conv_stem.weight");
    assert_eq!(weights.count(), 1);
}
