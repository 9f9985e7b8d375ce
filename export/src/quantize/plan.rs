//! Quantization plan: which values of a network are rounded to 8 bits, and which nodes stay in
//! floats.

use anyhow::{Context, Result, bail, ensure};
use protoseg_models::analysis::Role;
use protoseg_models::calibration::{Calibration, HISTOGRAM_BINS, NodeRange};
use protoseg_models::graph::{Node, NodeId, Op};
use protoseg_models::variant::{ModelKind, Precision, Quantization, Variant};

use crate::network::Network;
use crate::quantize::conv::QuantizedConv;
use crate::quantize::linear::QuantizedLinear;
use crate::quantize::range::QuantParams;

/// Default sensitivity above which a value stays in floats.
///
/// A sensitivity is the relative error of the logits if one value alone is rounded, and errors of
/// many roundings add up in quadrature. The values of trained networks have sensitivities well
/// below 0.01, most below 0.005, so a hundred of them give an error of about 0.05: a value above
/// that does more harm than all others together, and costs less in floats.
pub const DEFAULT_MAX_SENSITIVITY: f32 = 0.05;

/// Options of a quantization.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QuantizeConfig {
    /// Signed values with zero point 0 and biases in floats, as TensorRT requires.
    pub symmetric: bool,
    /// Bits of a weight.
    pub weight_bits: u8,
    /// Values of higher sensitivity stay in floats.
    pub max_sensitivity: f32,
}

impl QuantizeConfig {
    /// For ONNX Runtime on CPUs. Weights have 7 bits, because processors without VNNI add pairs of
    /// products of an unsigned and a signed byte in 16 bits, which 8-bit weights may overflow.
    pub const CPU: Self =
        Self { symmetric: false, weight_bits: 7, max_sensitivity: DEFAULT_MAX_SENSITIVITY };
    /// For TensorRT.
    pub const TENSORRT: Self =
        Self { symmetric: true, weight_bits: 8, max_sensitivity: DEFAULT_MAX_SENSITIVITY };
}

/// The rounded values and quantized layers of a network.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizationPlan {
    variant: Variant,
    symmetric: bool,
    /// Rounding of each node's value; none if it stays in floats.
    params: Vec<Option<QuantParams>>,
    /// Convolutions in integers.
    convs: Vec<Option<QuantizedConv>>,
    /// Linear layers on tokens in integers.
    linears: Vec<Option<QuantizedLinear>>,
    /// The normalization, if its quantized value equals the pixels.
    pixels: Option<NodeId>,
}

impl QuantizationPlan {
    /// Plans a network after all passes, from a calibration of its values by name.
    ///
    /// A value is rounded unless its sensitivity is too high, no node reads it (the logits, so the
    /// classifier stays in floats), or only an activation reads it, which is fused with its node. A
    /// node that reads or computes a value that is not rounded stays in floats.
    ///
    /// Between the tokens of a transformer only what a linear layer alone reads is rounded, and the
    /// layer gives floats: sums, normalizations, attention and its softmax stay in floats.
    pub fn new(
        network: &Network,
        calibration: &Calibration,
        config: QuantizeConfig,
    ) -> Result<Self> {
        let QuantizeConfig { symmetric, weight_bits, max_sensitivity } = config;
        ensure!(matches!(weight_bits, 7 | 8), "weights have 7 or 8 bits, not {weight_bits}");
        ensure!(
            max_sensitivity >= 0.0,
            "the limit of sensitivities must be 0 or more, not {max_sensitivity}"
        );
        let activations = activations(network);
        let mut params: Vec<Option<QuantParams>> = Vec::with_capacity(activations.len());
        let mut pixels = None;
        let extra_tokens = network.graph.extra_tokens();
        for (id, node) in network.graph.iter() {
            let rounds = if extra_tokens[id.0].is_some() {
                only_linear_layers_read(network, id)
            } else {
                // The convolution over patches stays in floats: a hundredth of the work, at the
                // root of everything.
                let read = network.graph.nodes().iter().any(|reader| {
                    reader.inputs.contains(&id) && !matches!(reader.op, Op::PatchEmbed { .. })
                });
                read && !matches!(node.op, Op::PatchEmbed { .. })
                    && activations[id.0].is_none()
                    && !matches!(node.op, Op::Input | Op::Linear { .. })
            };
            let range = if rounds {
                let range = measured(calibration, network.value_name(id))?;
                Some(range).filter(|range| range.sensitivity <= max_sensitivity)
            } else {
                None
            };
            // Pooling and resizing give no new values: with equal parameters before and after, they
            // run on bytes.
            let inherited = match node.op {
                Op::MaxPool { .. } | Op::Resize { .. } => params[node.inputs[0].0],
                _ => None,
            };
            let own =
                range.map(|range| inherited.unwrap_or_else(|| choose(node, range, symmetric)));
            if own.is_some() && !symmetric && pixel_params(node).is_some() {
                pixels = Some(id);
            }
            params.push(own);
        }
        let integers = integers(network, &activations, &params);
        ensure!(
            integers.contains(&true),
            "no node would be in 8 bits: rounding any value changes the logits by more than \
             {max_sensitivity}"
        );
        let mut convs = Vec::with_capacity(params.len());
        let mut linears = Vec::with_capacity(params.len());
        let mut float_nodes = Vec::new();
        for (id, node) in network.graph.iter() {
            let input = node.inputs.first().and_then(|input| params[input.0]);
            convs.push(match (&node.op, input) {
                (Op::Conv(_), Some(input)) if integers[id.0] => {
                    Some(quantize_conv(network, node, input, weight_bits))
                }
                _ => None,
            });
            linears.push(match node.op {
                Op::TokenLinear { .. } if integers[id.0] => {
                    let weight = &network.weights[&node.parameter_name(Role::LinearWeight)];
                    let shape = [weight.shape[0], weight.shape[1]];
                    Some(QuantizedLinear::new(&weight.data, shape, weight_bits))
                }
                _ => None,
            });
            if !integers[id.0] && !matches!(node.op, Op::Input | Op::Normalize { .. }) {
                float_nodes.push(node.name.clone());
            }
        }
        let variant = Variant {
            kind: ModelKind::Logits,
            precision: Precision::Int8,
            frame: None,
            quantization: Some(Quantization { weight_bits, symmetric, float_nodes }),
        };
        Ok(Self { variant, symmetric, params, convs, linears, pixels })
    }

    /// Returns the variant of the file.
    pub fn variant(&self) -> &Variant {
        &self.variant
    }

    /// Returns true for signed values and biases in floats.
    pub(crate) fn symmetric(&self) -> bool {
        self.symmetric
    }

    /// Returns the rounding of a node's value.
    pub(crate) fn params(&self, id: NodeId) -> Option<QuantParams> {
        self.params[id.0]
    }

    /// Returns a convolution in integers.
    pub(crate) fn conv(&self, id: NodeId) -> Option<&QuantizedConv> {
        self.convs[id.0].as_ref()
    }

    /// Returns a linear layer on tokens in integers.
    pub(crate) fn linear(&self, id: NodeId) -> Option<&QuantizedLinear> {
        self.linears[id.0].as_ref()
    }

    /// Returns true for the normalization whose quantized value equals the pixels.
    pub(crate) fn is_pixels(&self, id: NodeId) -> bool {
        self.pixels == Some(id)
    }
}

/// Returns for each node the activation that is the only reader of its value, and is fused with it.
fn activations(network: &Network) -> Vec<Option<NodeId>> {
    let activation = |(id, node): (NodeId, &Node)| {
        if !matches!(node.op, Op::Conv(_) | Op::Add)
            || network.output_values().any(|value| value == network.value_name(id))
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

/// Returns true for tokens that linear layers read, and nothing else.
fn only_linear_layers_read(network: &Network, id: NodeId) -> bool {
    let mut readers =
        network.graph.nodes().iter().filter(|reader| reader.inputs.contains(&id)).peekable();
    readers.peek().is_some() && readers.all(|reader| matches!(reader.op, Op::TokenLinear { .. }))
}

/// Marks the nodes in integers: those with rounded inputs and outputs, and linear layers on tokens
/// with rounded inputs.
fn integers(
    network: &Network,
    activations: &[Option<NodeId>],
    params: &[Option<QuantParams>],
) -> Vec<bool> {
    let mut integers = vec![false; params.len()];
    for (id, node) in network.graph.iter() {
        let rounded = |inputs: &[NodeId]| inputs.iter().all(|input| params[input.0].is_some());
        let reads = match node.op {
            Op::Conv(_) | Op::Add | Op::Concat | Op::MaxPool { .. } | Op::GlobalAvgPool => {
                rounded(&node.inputs)
            }
            // Their outputs are floats.
            Op::TokenLinear { .. } => {
                integers[id.0] = rounded(&node.inputs);
                continue;
            }
            // Only the size of the second input counts.
            Op::Resize { .. } => rounded(&node.inputs[..1]),
            Op::Relu | Op::Relu6 => {
                activations[node.inputs[0].0] == Some(id) && integers[node.inputs[0].0]
            }
            Op::Input
            | Op::Normalize { .. }
            | Op::BatchNorm { .. }
            | Op::Linear { .. }
            | Op::Dropout2d { .. }
            | Op::PatchEmbed { .. }
            | Op::EmbedTokens { .. }
            | Op::LayerNorm { .. }
            | Op::Attention { .. }
            | Op::Gelu
            | Op::LayerScale
            | Op::TokenMap { .. } => false,
        };
        integers[id.0] = reads && params[activations[id.0].unwrap_or(id).0].is_some();
    }
    integers
}

/// Returns the range of a value after checking it.
fn measured<'a>(calibration: &'a Calibration, value: &str) -> Result<&'a NodeRange> {
    let found = calibration.nodes.get(value);
    let range = found.with_context(|| {
        format!("the calibration lacks `{value}`: it is of another network; train again")
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
    bail!("in the calibration, `{value}` {wrong}; train again")
}

fn choose(node: &Node, range: &NodeRange, symmetric: bool) -> QuantParams {
    let bounds = match node.op {
        Op::Relu => [0.0, f64::INFINITY],
        Op::Relu6 => [0.0, 6.0],
        _ => [f64::NEG_INFINITY, f64::INFINITY],
    };
    match pixel_params(node) {
        Some(params) if !symmetric => params,
        _ if symmetric => QuantParams::symmetric(range, bounds),
        _ => QuantParams::unsigned(range, bounds),
    }
}

/// Returns the parameters with which the pixels themselves are the quantized normalized value:
/// channels share one integer mean and one standard deviation.
fn pixel_params(node: &Node) -> Option<QuantParams> {
    let Op::Normalize { mean: [mean, ..], std: [std, ..] } = node.op else { return None };
    let alike = node.op == Op::Normalize { mean: [mean; 3], std: [std; 3] };
    let zero_point = mean as u8;
    (alike && f64::from(zero_point) == mean && std > 0.0)
        .then(|| QuantParams { scale: (1.0 / std) as f32, zero_point })
}

fn quantize_conv(network: &Network, node: &Node, input: QuantParams, bits: u8) -> QuantizedConv {
    let part = |part: &str| {
        network.weights.get(&format!("{}.{part}", node.name)).map(|tensor| tensor.data.as_slice())
    };
    let weights = part("weight").unwrap_or_default();
    let zeros = vec![0.0; node.channels];
    QuantizedConv::new(weights, part("bias").unwrap_or(&zeros), input.scale, bits)
}
