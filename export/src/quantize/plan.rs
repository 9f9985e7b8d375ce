//! Which values of a network are rounded to 8 bits, in which steps, and which nodes count in floats.

use anyhow::{Context, Result, bail, ensure};
use protoseg_models::calibration::{Calibration, HISTOGRAM_BINS, NodeRange};
use protoseg_models::graph::{Node, NodeId, Op};
use protoseg_models::variant::{ModelKind, Precision, Quantization, Variant};

use crate::network::Network;
use crate::quantize::conv::QuantizedConv;
use crate::quantize::range::QuantParams;

/// Sensitivity above which a value stays in floats.
///
/// A sensitivity is the error of the logits, over the logits, where one value alone is rounded. Errors of many roundings
/// add up as their squares do. The values of trained networks have sensitivities well below 0.01, most below 0.005, so a
/// hundred of them make an error of about 0.05: a value above that does more harm than all others together, and its
/// neighbours in floats cost less than it does.
pub const DEFAULT_MAX_SENSITIVITY: f32 = 0.05;

/// How a network is quantised, as its maker decides.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QuantizeConfig {
    /// Signed values with their zero at 0, weights of 8 bits and biases in floats, as TensorRT wants them.
    pub symmetric: bool,
    /// Bits that weights use.
    pub weight_bits: u8,
    /// Values of a higher sensitivity stay in floats.
    pub max_sensitivity: f32,
}

impl QuantizeConfig {
    /// For ONNX Runtime on a CPU. Weights of 7 bits, because processors without dot products of bytes (AVX2) add
    /// products of an unsigned and a signed byte in pairs of 16 bits, where two of 8 bits may overflow.
    pub const CPU: Self =
        Self { symmetric: false, weight_bits: 7, max_sensitivity: DEFAULT_MAX_SENSITIVITY };
    /// For TensorRT.
    pub const TENSORRT: Self =
        Self { symmetric: true, weight_bits: 8, max_sensitivity: DEFAULT_MAX_SENSITIVITY };
}

/// What of a network is quantised, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizationPlan {
    form: Variant,
    symmetric: bool,
    /// In which steps each node's value is rounded; none where it stays as it is.
    steps: Vec<Option<QuantParams>>,
    /// Convolutions that count in integers.
    kernels: Vec<Option<QuantizedConv>>,
    /// The normalisation, where pixels are its value in 8 bits just as they come.
    pixels: Option<NodeId>,
}

impl QuantizationPlan {
    /// The scheme of a network after all passes. The calibration has what its values were like, by their names.
    ///
    /// A value is rounded unless its sensitivity is too high, nothing reads it (the logits, so the classifier counts in
    /// floats), or an activation alone does, which is computed along with it. Whatever makes or reads a value that is not
    /// rounded counts in floats.
    pub fn new(
        network: &Network,
        calibration: &Calibration,
        rounding: QuantizeConfig,
    ) -> Result<Self> {
        let QuantizeConfig { symmetric, weight_bits, max_sensitivity } = rounding;
        ensure!(matches!(weight_bits, 7 | 8), "weights have 7 or 8 bits, not {weight_bits}");
        ensure!(
            max_sensitivity >= 0.0,
            "a limit of sensitivities is no less than 0, not {max_sensitivity}"
        );
        let activations = activations(network);
        let (mut steps, mut pixels) = (Vec::with_capacity(activations.len()), None);
        for (id, node) in network.graph.iter() {
            let read = network.graph.nodes().iter().any(|reader| reader.inputs.contains(&id));
            let rounds = read
                && activations[id.0].is_none()
                && !matches!(node.op, Op::Input | Op::Linear { .. });
            let range = rounds.then(|| measured(calibration, network.value(id))).transpose()?;
            let step =
                range.filter(|range| range.sensitivity <= max_sensitivity).map(
                    |range| match node.op {
                        // These make no new values; with the same steps going in and out, they count in bytes.
                        Op::MaxPool { .. } | Op::Resize { .. } => {
                            inherited(&steps, node).unwrap_or(new_step(node, range, symmetric))
                        }
                        _ => new_step(node, range, symmetric),
                    },
                );
            if step.is_some() && !symmetric && pixel_step(node).is_some() {
                pixels = Some(id);
            }
            steps.push(step);
        }
        let integers = integers(network, &activations, &steps);
        ensure!(
            integers.contains(&true),
            "nothing would count in 8 bits, as rounding any value moves the logits by more than {max_sensitivity} of them"
        );
        let kernels = |(id, node): (NodeId, &Node)| match node.op {
            Op::Conv(_) if integers[id.0] => {
                steps[node.inputs[0].0].map(|input| kernels(network, node, input, weight_bits))
            }
            _ => None,
        };
        let kernels = network.graph.iter().map(kernels).collect();
        let floats = network.graph.iter().filter(|&(id, node)| {
            !integers[id.0] && !matches!(node.op, Op::Input | Op::Normalize { .. })
        });
        let float_nodes = floats.map(|(_, node)| node.name.clone()).collect();
        let quantization = Some(Quantization { weight_bits, symmetric, float_nodes });
        let form = Variant {
            kind: ModelKind::Logits,
            precision: Precision::Int8,
            frame: None,
            quantization,
        };
        Ok(Self { form, symmetric, steps, kernels, pixels })
    }

    /// What a file that is written by it says of itself.
    pub fn form(&self) -> &Variant {
        &self.form
    }

    /// Whether bytes are signed, and biases floats.
    pub(crate) fn symmetric(&self) -> bool {
        self.symmetric
    }

    /// In which steps a node's value is rounded.
    pub(crate) fn step(&self, id: NodeId) -> Option<QuantParams> {
        self.steps[id.0]
    }

    /// The kernels of a convolution that counts in integers.
    pub(crate) fn kernels(&self, id: NodeId) -> Option<&QuantizedConv> {
        self.kernels[id.0].as_ref()
    }

    /// Whether the pixels are a node's value in 8 bits just as they come.
    pub(crate) fn is_pixels(&self, id: NodeId) -> bool {
        self.pixels == Some(id)
    }
}

/// For each node the activation that alone reads its value, and so is computed along with it.
fn activations(network: &Network) -> Vec<Option<NodeId>> {
    let activation = |(id, node): (NodeId, &Node)| {
        if !matches!(node.op, Op::Conv(_) | Op::Add)
            || network.output_values().any(|value| value == network.value(id))
        {
            return None;
        }
        let mut readers = network.graph.iter().filter(|(_, reader)| reader.inputs.contains(&id));
        match (readers.next(), readers.next()) {
            (Some((reader, Node { op: Op::Relu | Op::Relu6, .. })), None) => Some(reader),
            _ => None,
        }
    };
    network.graph.iter().map(activation).collect()
}

/// Which nodes count in integers: all that they read and make is rounded.
fn integers(
    network: &Network,
    activations: &[Option<NodeId>],
    steps: &[Option<QuantParams>],
) -> Vec<bool> {
    let mut integers = vec![false; steps.len()];
    for (id, node) in network.graph.iter() {
        let read = |inputs: &[NodeId]| inputs.iter().all(|input| steps[input.0].is_some());
        let reads = match node.op {
            Op::Conv(_) | Op::Add | Op::Concat | Op::MaxPool { .. } | Op::GlobalAvgPool => {
                read(&node.inputs)
            }
            // Of the second it reads the size.
            Op::Resize { .. } => read(&node.inputs[..1]),
            Op::Relu | Op::Relu6 => {
                activations[node.inputs[0].0] == Some(id) && integers[node.inputs[0].0]
            }
            Op::Input
            | Op::Normalize { .. }
            | Op::BatchNorm { .. }
            | Op::Linear { .. }
            | Op::Dropout2d { .. } => false,
        };
        integers[id.0] = reads && steps[activations[id.0].unwrap_or(id).0].is_some();
    }
    integers
}

/// The range of a value, once it is known to be one.
fn measured<'a>(calibration: &'a Calibration, value: &str) -> Result<&'a NodeRange> {
    let found = calibration.nodes.get(value);
    let range = found.with_context(|| {
        format!("the calibration lacks `{value}`; train again, as it is of another network")
    })?;
    let NodeRange { min, max, ref histogram, sensitivity } = *range;
    let wrong = if !(min.is_finite() && max.is_finite()) {
        format!("runs from {min} to {max}, which are not both finite")
    } else if min > max {
        format!("runs from {min} down to {max}")
    } else if histogram.len() != HISTOGRAM_BINS {
        format!("has a histogram of {} bins, not {HISTOGRAM_BINS}", histogram.len())
    } else if histogram.iter().all(|&count| count == 0) {
        "has an empty histogram".to_owned()
    } else if !(sensitivity.is_finite() && sensitivity >= 0.0) {
        format!("has the sensitivity {sensitivity}")
    } else {
        return Ok(range);
    };
    bail!("in the calibration, `{value}` {wrong}; train again to record another")
}

fn new_step(node: &Node, range: &NodeRange, symmetric: bool) -> QuantParams {
    let bounds = match node.op {
        Op::Relu => [0.0, f64::INFINITY],
        Op::Relu6 => [0.0, 6.0],
        _ => [f64::NEG_INFINITY, f64::INFINITY],
    };
    match pixel_step(node) {
        Some(step) if !symmetric => step,
        _ if symmetric => QuantParams::symmetric(range, bounds),
        _ => QuantParams::unsigned(range, bounds),
    }
}

/// The step of the value that a node's first input has, where it is rounded.
fn inherited(steps: &[Option<QuantParams>], node: &Node) -> Option<QuantParams> {
    node.inputs.first().and_then(|input| steps[input.0])
}

/// The step in which pixels are their own normalised value: channels share one mean, a whole number, and one deviation.
fn pixel_step(node: &Node) -> Option<QuantParams> {
    let Op::Normalize { mean: [mean, ..], std: [std, ..] } = node.op else { return None };
    let alike = node.op == Op::Normalize { mean: [mean; 3], std: [std; 3] };
    let zero = mean as u8;
    (alike && f64::from(zero) == mean && std > 0.0)
        .then(|| QuantParams { size: (1.0 / std) as f32, zero })
}

fn kernels(network: &Network, node: &Node, input: QuantParams, bits: u8) -> QuantizedConv {
    let part = |part: &str| {
        network.weights.get(&format!("{}.{part}", node.name)).map(|tensor| tensor.data.as_slice())
    };
    let zeros = vec![0.0; node.channels];
    QuantizedConv::new(
        part("weight").unwrap_or_default(),
        part("bias").unwrap_or(&zeros),
        input.size,
        bits,
    )
}
