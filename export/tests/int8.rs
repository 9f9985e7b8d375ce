//! What a file in 8 bits must be, read back from its bytes: the forms that runtimes take for operations on integers.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::collections::BTreeMap;

use prost::Message;
use protoseg_export::onnx::emit::{emit, emit_quantized};
use protoseg_export::onnx::proto::{GraphProto, ModelProto, NodeProto, TensorProto};
use protoseg_export::{Network, QuantizationPlan, QuantizeConfig};
use protoseg_models::arch::{Arch, Preset};
use protoseg_models::calibration::{Calibration, HISTOGRAM_BINS, NodeRange};
use protoseg_models::formula;
use protoseg_models::graph::{Graph, Op, Tag};
use protoseg_models::variant::{Precision, Variant};

const FLOAT: i32 = 1;
const UINT8: i32 = 2;
const INT8: i32 = 3;
const INT32: i32 = 6;

/// A calibration that knows every node, by what it is.
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

/// A file, with its constants and the nodes that make its values, by name.
struct File {
    graph: GraphProto,
    constants: BTreeMap<String, TensorProto>,
}

impl File {
    fn new(network: &Network, scheme: &QuantizationPlan) -> Self {
        let bytes = emit_quantized(network, scheme, None).unwrap().file.to_bytes();
        let graph = ModelProto::decode(bytes.as_slice()).unwrap().graph.unwrap();
        let constants = graph
            .initializer
            .iter()
            .map(|tensor| (tensor.name().to_owned(), tensor.clone()))
            .collect();
        Self { graph, constants }
    }

    fn maker(&self, value: &str) -> Option<&NodeProto> {
        self.graph.node.iter().find(|node| node.output[0] == value)
    }

    fn readers(&self, value: &str) -> Vec<&NodeProto> {
        self.graph
            .node
            .iter()
            .filter(|node| node.input.iter().any(|input| input == value))
            .collect()
    }

    fn of(&self, operator: &str) -> impl Iterator<Item = &NodeProto> {
        self.graph.node.iter().filter(move |node| node.op_type() == operator)
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let bytes = self.constants[name].raw_data.as_ref().unwrap();
        bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    /// The steps and the zero of a value that is dequantised; none of a float.
    fn rounding(&self, value: &str) -> Option<(Vec<f32>, &TensorProto)> {
        let maker = self.maker(value).filter(|maker| maker.op_type() == "DequantizeLinear")?;
        Some((self.floats(&maker.input[1]), &self.constants[&maker.input[2]]))
    }
}

/// What holds in every file: a value is rounded once, and read back in the very steps that it was rounded in.
fn check_pairs(file: &File, element: i32) {
    for quantize in file.of("QuantizeLinear") {
        let [value, size, zero] = quantize.input.as_slice() else { panic!("{quantize:?}") };
        assert_ne!(
            file.maker(value).unwrap().op_type(),
            "DequantizeLinear",
            "{value} is rounded twice"
        );
        assert_eq!(
            file.readers(value).len(),
            1,
            "{value} is read as it was before it was rounded, too"
        );
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
fn on_cpus_all_but_the_classifier_counts_in_integers() {
    for preset in [Preset::DeepLabV3PlusEfficientNetLite0, Preset::DeepLabV3PlusResNet50] {
        let graph = graph(preset);
        let network = network(&graph, &[]);
        let scheme =
            QuantizationPlan::new(&network, &calibration(&graph), QuantizeConfig::CPU).unwrap();
        let classifier = &network.graph().nodes().last().unwrap().name;
        let quantization = scheme.form().quantization.clone().unwrap();
        assert_eq!((quantization.weight_bits, quantization.symmetric), (7, false));
        assert_eq!(&quantization.float_nodes, std::slice::from_ref(classifier));
        assert_eq!(scheme.form().precision, Precision::Int8);

        let file = File::new(&network, &scheme);
        check_pairs(&file, UINT8);
        for conv in file.of("Conv") {
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
            let [integers, ..] = file.maker(weight).unwrap().input.as_slice() else {
                panic!("{weight}")
            };
            let integers = &file.constants[integers];
            assert_eq!(integers.data_type, Some(INT8));
            let bytes = integers.raw_data.as_ref().unwrap();
            assert!(
                bytes.iter().all(|&byte| (-63..=63).contains(&(byte as i8))),
                "{weight} takes more than 7 bits"
            );
            let (weight, zero) = file.rounding(weight).unwrap();
            assert!(zero.raw_data.as_ref().unwrap().iter().all(|&byte| byte == 0));
            assert_eq!(weight.len() as i64, integers.dims[0]);
            let maker = file.maker(bias).unwrap();
            assert_eq!(file.constants[&maker.input[0]].data_type, Some(INT32));
            let products: Vec<f32> = weight.iter().map(|weight| weight * input[0]).collect();
            assert_eq!(file.rounding(bias).unwrap().0, products, "{bias}");
            // Rounded after its activation, if it has one, and nowhere before.
            let mut after = file.readers(&conv.output[0]);
            assert_eq!(after.len(), 1);
            if matches!(after[0].op_type(), "Relu" | "Clip") {
                after = file.readers(&after[0].output[0]);
            }
            assert_eq!(after[0].op_type(), "QuantizeLinear", "{}", conv.name());
        }
        for node in ["Resize", "MaxPool"].into_iter().flat_map(|operator| file.of(operator)) {
            let before = file.maker(&node.input[0]).unwrap();
            let after = file.readers(&node.output[0])[0];
            for constant in [1, 2] {
                let bytes =
                    |node: &NodeProto| file.constants[&node.input[constant]].raw_data.clone();
                assert_eq!(bytes(before), bytes(after), "{}", node.name());
            }
        }
        for shape in file.of("Shape") {
            assert_ne!(
                file.maker(&shape.input[0]).unwrap().op_type(),
                "DequantizeLinear",
                "{}",
                shape.name()
            );
        }
    }
}

/// Channels of one mean and deviation are their own integers; others must be normalised first.
#[test]
fn pixels_are_rounded_only_where_they_must() {
    for (preset, rounded) in
        [(Preset::DeepLabV3PlusEfficientNetLite0, false), (Preset::DeepLabV3PlusResNet50, true)]
    {
        let graph = graph(preset);
        let network = network(&graph, &[]);
        let file = File::new(
            &network,
            &QuantizationPlan::new(&network, &calibration(&graph), QuantizeConfig::CPU).unwrap(),
        );
        let maker = file.maker("normalize.integers").unwrap();
        assert_eq!(maker.op_type(), if rounded { "QuantizeLinear" } else { "Transpose" });
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
fn for_tensorrt_zero_is_0_and_biases_are_floats() {
    let graph = graph(Preset::DeepLabV3PlusEfficientNetLite0);
    let network = network(&graph, &[]);
    let scheme =
        QuantizationPlan::new(&network, &calibration(&graph), QuantizeConfig::TENSORRT).unwrap();
    let quantization = scheme.form().quantization.clone().unwrap();
    assert_eq!((quantization.weight_bits, quantization.symmetric), (8, true));
    let file = File::new(&network, &scheme);
    check_pairs(&file, INT8);
    for node in
        ["QuantizeLinear", "DequantizeLinear"].into_iter().flat_map(|operator| file.of(operator))
    {
        let zero = &file.constants[&node.input[2]];
        assert!(
            zero.data_type == Some(INT8)
                && zero.raw_data.as_ref().unwrap().iter().all(|&byte| byte == 0)
        );
    }
    for conv in file.of("Conv") {
        assert_eq!(file.constants[&conv.input[2]].data_type, Some(FLOAT), "{}", conv.name());
    }
    let integers = &file.constants["encoder._conv_stem.weight.integers"];
    assert!(
        integers.raw_data.as_ref().unwrap().iter().any(|&byte| (byte as i8).unsigned_abs() == 127)
    );
}

#[test]
fn sensitive_values_stay_floats_with_what_makes_and_reads_them() {
    let graph = graph(Preset::DeepLabV3PlusEfficientNetLite0);
    let network = network(&graph, &[]);
    let mut calibration = calibration(&graph);
    // Read by the next block's convolution and by its sum.
    calibration.nodes.get_mut("encoder._blocks.1._bn2").unwrap().sensitivity = 0.2;
    let scheme = QuantizationPlan::new(&network, &calibration, QuantizeConfig::CPU).unwrap();
    let block = |part: &str| format!("encoder._blocks.{part}");
    let mut expected =
        ["1._project_conv", "2._expand_conv", "2._bn0.relu", "2.add"].map(block).to_vec();
    // The convolution's activation is rounded, so what reads it counts in integers again; a convolution from floats to
    // integers counts in floats, with its activation.
    expected.push("decoder.classifier".to_owned());
    assert_eq!(scheme.form().quantization.as_ref().unwrap().float_nodes, expected);
    let file = File::new(&network, &scheme);
    check_pairs(&file, UINT8);
    assert!(file.maker("encoder._blocks.1._bn2").unwrap().op_type() == "Conv");
    assert!(
        file.rounding("encoder._blocks.2._bn0.relu").is_some()
            && file.rounding("encoder._blocks.2.add").is_some()
    );

    let all = QuantizeConfig { max_sensitivity: 0.3, ..QuantizeConfig::CPU };
    let scheme = QuantizationPlan::new(&network, &calibration, all).unwrap();
    assert_eq!(scheme.form().quantization.as_ref().unwrap().float_nodes, ["decoder.classifier"]);
    let none = QuantizeConfig { max_sensitivity: 0.0, ..QuantizeConfig::CPU };
    let error = QuantizationPlan::new(&network, &calibration, none).unwrap_err().to_string();
    assert!(error.starts_with("nothing would count in 8 bits"), "{error}");
}

#[test]
fn taps_come_out_as_floats() {
    let graph = graph(Preset::DeepLabV3PlusEfficientNetLite0);
    let taps = [
        "encoder._blocks.2.add",
        "encoder._bn0",
        "decoder.aspp.pool",
        "encoder._blocks.3._bn1.relu",
    ];
    let network = network(&graph, &taps);
    let scheme =
        QuantizationPlan::new(&network, &calibration(&graph), QuantizeConfig::CPU).unwrap();
    let file = File::new(&network, &scheme);
    check_pairs(&file, UINT8);
    for tap in taps {
        assert_eq!(file.maker(tap).unwrap().op_type(), "DequantizeLinear", "{tap}");
    }
}

#[test]
fn the_same_bytes_each_time() {
    let graph = graph(Preset::DeepLabV3PlusEfficientNetLite0);
    let network = network(&graph, &[]);
    for rounding in [QuantizeConfig::CPU, QuantizeConfig::TENSORRT] {
        let write = || {
            let scheme = QuantizationPlan::new(&network, &calibration(&graph), rounding).unwrap();
            emit_quantized(&network, &scheme, None).unwrap().file.to_bytes()
        };
        assert_eq!(write(), write());
    }
}

#[test]
fn what_cannot_be_quantised_is_refused_by_name() {
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
    // Computed along with its activation, so that nothing needs to be known of it.
    let mut calibration = self::calibration(&graph);
    calibration.nodes.remove("decoder.low.norm");
    QuantizationPlan::new(&network, &calibration, QuantizeConfig::CPU).unwrap();
    let bits = QuantizeConfig { weight_bits: 9, ..QuantizeConfig::CPU };
    let error = QuantizationPlan::new(&network, &calibration, bits).unwrap_err().to_string();
    assert_eq!(error, "weights have 7 or 8 bits, not 9");
    let form = Variant { precision: Precision::Int8, ..Variant::LOGITS };
    assert!(emit(&network, &form, None).is_err());
}
