//! Structure of 8-bit files, decoded from their bytes: the QDQ patterns that runtimes fuse to
//! integer operations.

#![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

use std::collections::BTreeMap;

use prost::Message;
use protoseg_export::onnx::emit::{emit, emit_quantized};
use protoseg_export::onnx::proto::{GraphProto, ModelProto, NodeProto, TensorProto};
use protoseg_export::{Network, QuantizationPlan, QuantizeConfig};
use protoseg_models::arch::vit::{self, VitScaling};
use protoseg_models::arch::{Arch, Preset};
use protoseg_models::calibration::{Calibration, HISTOGRAM_BINS, NodeRange};
use protoseg_models::formula;
use protoseg_models::graph::{Conv, Graph, Op, Tag};
use protoseg_models::variant::{Precision, Variant};

const FLOAT: i32 = 1;
const UINT8: i32 = 2;
const INT8: i32 = 3;
const INT32: i32 = 6;

/// Returns a calibration of every node by its operation.
fn calibration(graph: &Graph) -> Calibration {
    let range = |op: &Op| match op {
        Op::Relu | Op::Relu6 => [0.0, 6.0],
        _ => [-3.0, 4.0],
    };
    let node = |node: &protoseg_models::graph::Node| {
        let [min, max] = range(&node.op);
        (
            node.name.clone(),
            NodeRange { min, max, histogram: vec![1; HISTOGRAM_BINS], sensitivity: 0.001 },
        )
    };
    let nodes = graph.nodes().iter().skip(1).map(node).collect();
    Calibration {
        version: Calibration::VERSION.to_owned(),
        source: "none".to_owned(),
        count: 1,
        nodes,
    }
}

fn network(graph: &Graph, taps: &[&str]) -> Network {
    let logits = (graph.tagged(Tag::Logits).unwrap(), "logits");
    let taps = taps.iter().map(|&tap| (graph.find(tap).unwrap(), tap));
    let outputs: Vec<_> = std::iter::once(logits).chain(taps).collect();
    Network::new(graph, &formula::weights(graph, None), &outputs)
        .unwrap()
        .fold_batch_norm()
        .unwrap()
}

fn graph(preset: Preset) -> Graph {
    Arch::new(preset, 5).unwrap().graph()
}

/// A decoded file with its constants by name.
struct File {
    graph: GraphProto,
    constants: BTreeMap<String, TensorProto>,
}

impl File {
    fn new(network: &Network, plan: &QuantizationPlan) -> Self {
        let bytes = emit_quantized(network, plan, None).unwrap().file.to_bytes();
        let graph = ModelProto::decode(bytes.as_slice()).unwrap().graph.unwrap();
        let constants = graph
            .initializer
            .iter()
            .map(|tensor| (tensor.name().to_owned(), tensor.clone()))
            .collect();
        Self { graph, constants }
    }

    fn producer(&self, value: &str) -> Option<&NodeProto> {
        self.graph.node.iter().find(|node| node.output[0] == value)
    }

    fn readers(&self, value: &str) -> Vec<&NodeProto> {
        self.graph
            .node
            .iter()
            .filter(|node| node.input.iter().any(|input| input == value))
            .collect()
    }

    fn operators(&self, operator: &str) -> impl Iterator<Item = &NodeProto> {
        self.graph.node.iter().filter(move |node| node.op_type() == operator)
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let bytes = self.constants[name].raw_data.as_ref().unwrap();
        bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    /// Returns the scales and the zero point of a dequantized value; none for a float.
    fn rounding(&self, value: &str) -> Option<(Vec<f32>, &TensorProto)> {
        let producer =
            self.producer(value).filter(|producer| producer.op_type() == "DequantizeLinear")?;
        Some((self.floats(&producer.input[1]), &self.constants[&producer.input[2]]))
    }
}

/// Returns a small transformer with a linear head.
fn transformer() -> Graph {
    let mut graph = Graph::new();
    let outputs = vit::encoder(&mut graph, "encoder.", VitScaling::new(64, 4), 14, 0);
    let joined = graph.push("decoder.concat", Op::Concat, &outputs.taps);
    let logits = graph.push("decoder.classifier", Op::Conv(Conv::new(5, 1).bias()), &[joined]);
    graph.tag(Tag::Logits, logits);
    graph
}

/// Checks that each value is rounded once and dequantized with the same parameters.
fn check_pairs(file: &File, element: i32) {
    for quantize in file.operators("QuantizeLinear") {
        let [value, size, zero] = quantize.input.as_slice() else { panic!("{quantize:?}") };
        assert_ne!(
            file.producer(value).unwrap().op_type(),
            "DequantizeLinear",
            "{value} is rounded twice"
        );
        assert_eq!(file.readers(value).len(), 1, "{value} is also read unrounded");
        let zero = &file.constants[zero];
        assert_eq!((zero.data_type, zero.dims.len()), (Some(element), 0));
        assert!(file.floats(size)[0] > 0.0);
        let readers = file.readers(&quantize.output[0]);
        let read_back = readers.iter().filter(|reader| reader.op_type() != "Shape");
        for reader in read_back {
            assert_eq!(
                (reader.op_type(), &reader.input[1..]),
                ("DequantizeLinear", &quantize.input[1..])
            );
        }
    }
}

#[test]
fn for_cpus_all_but_the_classifier_is_in_integers() {
    for preset in [Preset::DeepLabV3PlusEfficientNetLite0, Preset::DeepLabV3PlusResNet50] {
        let graph = graph(preset);
        let network = network(&graph, &[]);
        let plan =
            QuantizationPlan::new(&network, &calibration(&graph), QuantizeConfig::CPU).unwrap();
        let classifier = &network.graph().nodes().last().unwrap().name;
        let quantization = plan.variant().quantization.clone().unwrap();
        assert_eq!((quantization.weight_bits, quantization.symmetric), (7, false));
        assert_eq!(&quantization.float_nodes, std::slice::from_ref(classifier));
        assert_eq!(plan.variant().precision, Precision::Int8);

        let file = File::new(&network, &plan);
        check_pairs(&file, UINT8);
        for conv in file.operators("Conv") {
            let [input, weight, bias] = conv.input.as_slice() else { panic!("{conv:?}") };
            let (input, zero) = file.rounding(input).unwrap();
            assert_eq!((input.len(), zero.data_type), (1, Some(UINT8)));
            if conv.name() == classifier {
                assert!(
                    file.constants[weight].data_type == Some(FLOAT)
                        && file.constants[bias].data_type == Some(FLOAT)
                );
                continue;
            }
            let [integers, ..] = file.producer(weight).unwrap().input.as_slice() else {
                panic!("{weight}")
            };
            let integers = &file.constants[integers];
            assert_eq!(integers.data_type, Some(INT8));
            let bytes = integers.raw_data.as_ref().unwrap();
            assert!(
                bytes.iter().all(|&byte| (-63..=63).contains(&(byte as i8))),
                "{weight} has more than 7 bits"
            );
            let (weight, zero) = file.rounding(weight).unwrap();
            assert!(zero.raw_data.as_ref().unwrap().iter().all(|&byte| byte == 0));
            assert_eq!(weight.len() as i64, integers.dims[0]);
            let producer = file.producer(bias).unwrap();
            assert_eq!(file.constants[&producer.input[0]].data_type, Some(INT32));
            let products: Vec<f32> = weight.iter().map(|weight| weight * input[0]).collect();
            assert_eq!(file.rounding(bias).unwrap().0, products, "{bias}");
            // Rounded after its activation, if it has one, and not before.
            let mut after = file.readers(&conv.output[0]);
            assert_eq!(after.len(), 1);
            if matches!(after[0].op_type(), "Relu" | "Clip") {
                after = file.readers(&after[0].output[0]);
            }
            assert_eq!(after[0].op_type(), "QuantizeLinear", "{}", conv.name());
        }
        for node in ["Resize", "MaxPool"].into_iter().flat_map(|operator| file.operators(operator))
        {
            let before = file.producer(&node.input[0]).unwrap();
            let after = file.readers(&node.output[0])[0];
            for constant in [1, 2] {
                let bytes =
                    |node: &NodeProto| file.constants[&node.input[constant]].raw_data.clone();
                assert_eq!(bytes(before), bytes(after), "{}", node.name());
            }
        }
        for shape in file.operators("Shape") {
            assert_ne!(
                file.producer(&shape.input[0]).unwrap().op_type(),
                "DequantizeLinear",
                "{}",
                shape.name()
            );
        }
    }
}

/// The pattern that ONNX Runtime fuses to a product of integers: both factors dequantized, the
/// weights with one scale a column, the product not rounded, and the bias added in floats.
#[test]
fn linear_layers_of_transformers_are_in_integers_and_the_rest_of_them_in_floats() {
    let graph = transformer();
    let network = network(&graph, &[]).fold_layer_scale().unwrap();
    for (config, element) in [(QuantizeConfig::CPU, UINT8), (QuantizeConfig::TENSORRT, INT8)] {
        let plan = QuantizationPlan::new(&network, &calibration(&graph), config).unwrap();
        let floats = plan.variant().quantization.clone().unwrap().float_nodes;
        for node in network.graph().nodes().iter().filter(|node| node.name.contains("encoder.")) {
            let linear = matches!(node.op, Op::TokenLinear { .. });
            assert_ne!(floats.contains(&node.name), linear, "{}", node.name);
        }
        let file = File::new(&network, &plan);
        check_pairs(&file, element);
        let products = || file.operators("MatMul").filter(|node| node.name().ends_with(".product"));
        assert_eq!(products().count(), 16);
        for product in products() {
            let name = product.name().strip_suffix(".product").unwrap();
            let (input, zero) = file.rounding(&product.input[0]).unwrap();
            assert_eq!((input.len(), zero.data_type), (1, Some(element)));
            assert_eq!(file.readers(&product.input[0]).len(), 1, "{name}");
            let weight = file.producer(&product.input[1]).unwrap();
            assert_eq!(weight.attribute[0].i, Some(1), "{name}");
            let integers = &file.constants[&weight.input[0]];
            let (scales, zeros) = file.rounding(&product.input[1]).unwrap();
            assert_eq!(integers.data_type, Some(INT8));
            assert_eq!(
                (scales.len() as i64, zeros.dims.as_slice()),
                (integers.dims[1], &integers.dims[1..])
            );
            let sum = file.readers(&product.output[0])[0];
            assert_eq!((sum.op_type(), sum.name()), ("Add", name));
            assert_eq!(file.constants[&sum.input[1]].data_type, Some(FLOAT));
            assert!(file.readers(&sum.output[0])[0].op_type() != "QuantizeLinear", "{name}");
        }
        // The factors of attention, and the shares of its softmax.
        for part in ["scores", "mixed"] {
            let node = format!("encoder.blocks.0.attn.{part}");
            let node = file.producer(&node).unwrap();
            assert!(node.input.iter().all(|input| file.rounding(input).is_none()), "{part}");
        }
    }
}

#[test]
fn sensitive_linear_layers_stay_in_floats_one_by_one() {
    let graph = transformer();
    let network = network(&graph, &[]).fold_layer_scale().unwrap();
    let mut calibration = calibration(&graph);
    let all = QuantizationPlan::new(&network, &calibration, QuantizeConfig::CPU).unwrap();
    for value in ["encoder.blocks.1.mlp.act", "encoder.blocks.2.attn"] {
        calibration.nodes.get_mut(value).unwrap().sensitivity = 0.2;
    }
    let plan = QuantizationPlan::new(&network, &calibration, QuantizeConfig::CPU).unwrap();
    let floats = |plan: &QuantizationPlan| plan.variant().quantization.clone().unwrap().float_nodes;
    let before = floats(&all);
    let added: Vec<String> =
        floats(&plan).into_iter().filter(|node| !before.contains(node)).collect();
    assert_eq!(added, ["encoder.blocks.1.mlp.fc2", "encoder.blocks.2.attn.proj"]);
    let file = File::new(&network, &plan);
    check_pairs(&file, UINT8);
    for name in added {
        let product = file.producer(&format!("{name}.product")).unwrap();
        assert!(product.input.iter().all(|input| file.rounding(input).is_none()), "{name}");
    }
}

/// Pixels with one mean and deviation for all channels are their own integers; others must be
/// normalized first.
#[test]
fn pixels_are_rounded_only_if_necessary() {
    for (preset, rounded) in
        [(Preset::DeepLabV3PlusEfficientNetLite0, false), (Preset::DeepLabV3PlusResNet50, true)]
    {
        let graph = graph(preset);
        let network = network(&graph, &[]);
        let file = File::new(
            &network,
            &QuantizationPlan::new(&network, &calibration(&graph), QuantizeConfig::CPU).unwrap(),
        );
        let producer = file.producer("normalize.integers").unwrap();
        assert_eq!(producer.op_type(), if rounded { "QuantizeLinear" } else { "Transpose" });
        if !rounded {
            let (size, zero) = file.rounding("normalize").unwrap();
            assert_eq!(
                (size, zero.raw_data.as_deref()),
                (vec![1.0 / 128.0], Some([127].as_slice()))
            );
        }
    }
}

#[test]
fn for_tensorrt_zero_points_are_0_and_biases_floats() {
    let graph = graph(Preset::DeepLabV3PlusEfficientNetLite0);
    let network = network(&graph, &[]);
    let plan =
        QuantizationPlan::new(&network, &calibration(&graph), QuantizeConfig::TENSORRT).unwrap();
    let quantization = plan.variant().quantization.clone().unwrap();
    assert_eq!((quantization.weight_bits, quantization.symmetric), (8, true));
    let file = File::new(&network, &plan);
    check_pairs(&file, INT8);
    for node in ["QuantizeLinear", "DequantizeLinear"]
        .into_iter()
        .flat_map(|operator| file.operators(operator))
    {
        let zero = &file.constants[&node.input[2]];
        assert!(
            zero.data_type == Some(INT8)
                && zero.raw_data.as_ref().unwrap().iter().all(|&byte| byte == 0)
        );
    }
    for conv in file.operators("Conv") {
        assert_eq!(file.constants[&conv.input[2]].data_type, Some(FLOAT), "{}", conv.name());
    }
    let integers = &file.constants["encoder._conv_stem.weight.integers"];
    assert!(
        integers.raw_data.as_ref().unwrap().iter().any(|&byte| (byte as i8).unsigned_abs() == 127)
    );
}

#[test]
fn sensitive_values_stay_in_floats_with_their_producers_and_readers() {
    let graph = graph(Preset::DeepLabV3PlusEfficientNetLite0);
    let network = network(&graph, &[]);
    let mut calibration = calibration(&graph);
    // Read by the next block's convolution and by its sum.
    calibration.nodes.get_mut("encoder._blocks.1._bn2").unwrap().sensitivity = 0.2;
    let plan = QuantizationPlan::new(&network, &calibration, QuantizeConfig::CPU).unwrap();
    let block = |part: &str| format!("encoder._blocks.{part}");
    let mut expected =
        ["1._project_conv", "2._expand_conv", "2._bn0.relu", "2.add"].map(block).to_vec();
    // The convolution's activation is rounded, so its readers are in integers again; a convolution
    // from floats to integers is in floats, with its activation.
    expected.push("decoder.classifier".to_owned());
    assert_eq!(plan.variant().quantization.as_ref().unwrap().float_nodes, expected);
    let file = File::new(&network, &plan);
    check_pairs(&file, UINT8);
    assert!(file.producer("encoder._blocks.1._bn2").unwrap().op_type() == "Conv");
    assert!(
        file.rounding("encoder._blocks.2._bn0.relu").is_some()
            && file.rounding("encoder._blocks.2.add").is_some()
    );

    let all = QuantizeConfig { max_sensitivity: 0.3, ..QuantizeConfig::CPU };
    let plan = QuantizationPlan::new(&network, &calibration, all).unwrap();
    assert_eq!(plan.variant().quantization.as_ref().unwrap().float_nodes, ["decoder.classifier"]);
    let none = QuantizeConfig { max_sensitivity: 0.0, ..QuantizeConfig::CPU };
    let error = QuantizationPlan::new(&network, &calibration, none).unwrap_err().to_string();
    assert!(error.starts_with("no node would be in 8 bits"), "{error}");
}

#[test]
fn outputs_of_nodes_are_floats() {
    let graph = graph(Preset::DeepLabV3PlusEfficientNetLite0);
    let taps = [
        "encoder._blocks.2.add",
        "encoder._bn0",
        "decoder.aspp.pool",
        "encoder._blocks.3._bn1.relu",
    ];
    let network = network(&graph, &taps);
    let plan = QuantizationPlan::new(&network, &calibration(&graph), QuantizeConfig::CPU).unwrap();
    let file = File::new(&network, &plan);
    check_pairs(&file, UINT8);
    for tap in taps {
        assert_eq!(file.producer(tap).unwrap().op_type(), "DequantizeLinear", "{tap}");
    }
}

#[test]
fn files_are_reproducible() {
    let graph = graph(Preset::DeepLabV3PlusEfficientNetLite0);
    let network = network(&graph, &[]);
    for config in [QuantizeConfig::CPU, QuantizeConfig::TENSORRT] {
        let write = || {
            let plan = QuantizationPlan::new(&network, &calibration(&graph), config).unwrap();
            emit_quantized(&network, &plan, None).unwrap().file.to_bytes()
        };
        assert_eq!(write(), write());
    }
}

#[test]
fn invalid_ranges_are_refused_by_name() {
    let graph = graph(Preset::DeepLabV3PlusEfficientNetLite0);
    let network = network(&graph, &[]);
    let refused = |change: &dyn Fn(&mut NodeRange)| {
        let mut calibration = calibration(&graph);
        change(calibration.nodes.get_mut("decoder.low.relu").unwrap());
        QuantizationPlan::new(&network, &calibration, QuantizeConfig::CPU).unwrap_err().to_string()
    };
    for (change, words) in [
        (
            &(|range: &mut NodeRange| range.max = f32::INFINITY) as &dyn Fn(&mut NodeRange),
            "runs from 0 to inf",
        ),
        (&|range| range.min = f32::NAN, "runs from NaN to 6"),
        (&|range| range.min = 7.0, "runs from 7 down to 6"),
        (&|range| range.histogram.truncate(255), "has a histogram of 255 bins, not 256"),
        (&|range| range.histogram.fill(0), "has an empty histogram"),
        (&|range| range.sensitivity = f32::NAN, "has the sensitivity NaN"),
    ] {
        let error = refused(change);
        assert!(error.contains("`decoder.low.relu`") && error.contains(words), "{error}");
    }
    let mut calibration = calibration(&graph);
    calibration.nodes.remove("decoder.low.relu");
    let error =
        QuantizationPlan::new(&network, &calibration, QuantizeConfig::CPU).unwrap_err().to_string();
    assert!(error.starts_with("the calibration lacks `decoder.low.relu`"), "{error}");
    // Fused with its activation, so no range is needed.
    let mut calibration = self::calibration(&graph);
    calibration.nodes.remove("decoder.low.norm");
    QuantizationPlan::new(&network, &calibration, QuantizeConfig::CPU).unwrap();
    let bits = QuantizeConfig { weight_bits: 9, ..QuantizeConfig::CPU };
    let error = QuantizationPlan::new(&network, &calibration, bits).unwrap_err().to_string();
    assert_eq!(error, "weights have 7 or 8 bits, not 9");
    let variant = Variant { precision: Precision::Int8, ..Variant::LOGITS };
    assert!(emit(&network, &variant, None).is_err());
}
