//! Shapes, strides, receptive fields, multiply-adds and parameters, derived from a graph.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

use crate::graph::{Graph, Node, NodeId, Op};
use crate::weights::Tensor;

/// An image too small for a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "an image of {height}x{width} pixels is too small for the network: `{node}` would be empty"
)]
pub struct InputTooSmall {
    /// Height of the image.
    pub height: usize,
    /// Width of the image.
    pub width: usize,
    /// The first node with an empty output.
    pub node: String,
}

/// The use of a parameter, which decides how it is initialized and trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Weights of a convolution, `[out, in / groups, kernel, kernel]`.
    ConvWeight,
    /// Weights of a linear layer, `[out, in]`.
    LinearWeight,
    /// Bias of a convolution or linear layer, `[out]`.
    Bias,
    /// Scale of a batch normalization, `[C]`.
    NormWeight,
    /// Shift of a batch normalization, `[C]`.
    NormBias,
    /// Running mean, `[C]`; updated by the forward pass, not by gradients.
    RunningMean,
    /// Running variance, `[C]`; updated by the forward pass, not by gradients.
    RunningVar,
    /// Class token, `[1, 1, C]`.
    ClassToken,
    /// Registers, `[1, R, C]`.
    Registers,
    /// Positions of the class token and of a square grid, `[1, 1 + side^2, C]`.
    Positions,
    /// Factors of the channels of tokens, `[C]`.
    LayerScale,
}

impl Role {
    /// Returns true for parameters that gradients update; the others are buffers.
    pub fn learns(self) -> bool {
        !matches!(self, Self::RunningMean | Self::RunningVar)
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::ConvWeight | Self::LinearWeight | Self::NormWeight => "weight",
            Self::Bias | Self::NormBias => "bias",
            Self::RunningMean => "running_mean",
            Self::RunningVar => "running_var",
            Self::ClassToken => "cls_token",
            Self::Registers => "register_tokens",
            Self::Positions => "pos_embed",
            Self::LayerScale => "gamma",
        }
    }
}

/// A parameter or buffer of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Key in the state dict, see [`Node::parameter_name`].
    pub name: String,
    /// Size of each dimension.
    pub shape: Vec<usize>,
    /// Its use in the node.
    pub role: Role,
}

/// Weights that do not fit their network; the message names the first tensor that differs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WeightMismatch(String);

impl Graph {
    /// Returns the shape of each node's output for images `[batch, height, width, 3]`, in node
    /// order: `[N, C, H, W]`, but `[N, H, W, 3]` for the input, `[N, out]` for a linear layer and
    /// `[N, T, C]` for tokens.
    pub fn shapes(
        &self,
        batch: usize,
        height: usize,
        width: usize,
    ) -> Result<Vec<Vec<usize>>, InputTooSmall> {
        let mut sizes: Vec<[usize; 2]> = Vec::with_capacity(self.nodes().len());
        let mut shapes = Vec::with_capacity(self.nodes().len());
        let extra_tokens = self.extra_tokens();
        for (node, extra) in self.nodes().iter().zip(extra_tokens) {
            let size = output_size(node, &sizes, [height, width]).ok_or_else(|| InputTooSmall {
                height,
                width,
                node: node.name.clone(),
            })?;
            shapes.push(match (&node.op, extra) {
                (Op::Input, _) => vec![batch, height, width, 3],
                (Op::Linear { out }, _) => vec![batch, *out],
                (_, Some(extra)) => vec![batch, extra + size[0] * size[1], node.channels],
                _ => vec![batch, node.channels, size[0], size[1]],
            });
            sizes.push(size);
        }
        Ok(shapes)
    }

    /// Returns for each node whether its value is tokens, and how many of them belong to no position.
    pub fn extra_tokens(&self) -> Vec<Option<usize>> {
        let mut extra: Vec<Option<usize>> = Vec::with_capacity(self.nodes().len());
        for node in self.nodes() {
            extra.push(match node.op {
                Op::EmbedTokens { registers, .. } => Some(1 + registers),
                Op::TokenMap { .. } => None,
                _ => node.inputs.first().and_then(|input| extra[input.0]),
            });
        }
        extra
    }

    /// Returns the output stride of each node in pixels, in node order. A resize takes the stride
    /// of its second input; a global pool keeps that of its input.
    pub fn strides(&self) -> Vec<usize> {
        let mut strides: Vec<usize> = Vec::with_capacity(self.nodes().len());
        for node in self.nodes() {
            let input = |index: usize| strides[node.inputs[index].0];
            strides.push(match node.op {
                Op::Input => 1,
                Op::Conv(conv) => input(0) * conv.stride,
                Op::MaxPool { stride, .. } => input(0) * stride,
                Op::PatchEmbed { pixels, .. } => input(0) * pixels,
                Op::Resize { .. } => input(1),
                _ => input(0),
            });
        }
        strides
    }

    /// Returns the output stride of a node in pixels.
    pub fn stride_of(&self, id: NodeId) -> usize {
        self.strides()[id.0]
    }

    /// Returns the coarsest stride in the graph: the encoder's output stride.
    pub fn encoder_stride(&self) -> usize {
        self.strides().into_iter().max().unwrap_or(1)
    }

    /// Returns the side in pixels of the receptive field of a node; `None` if it is unbounded,
    /// after a global pool or an attention.
    pub fn receptive_field(&self, id: NodeId) -> Option<usize> {
        let strides = self.strides();
        let mut fields: Vec<Option<usize>> = Vec::with_capacity(id.0 + 1);
        for node in &self.nodes()[..=id.0] {
            let mut inputs = node.inputs.iter().map(|input| fields[input.0]);
            let widest = inputs.try_fold(1, |widest, field| Some(widest.max(field?)));
            let step = node.inputs.first().map_or(1, |input| strides[input.0]);
            fields.push(match node.op {
                Op::GlobalAvgPool | Op::Attention { .. } => None,
                // The resize before it reads one pixel beyond the square.
                Op::PatchEmbed { pixels, patch, .. } => {
                    widest.map(|field| field + (pixels - usize::from(pixels == patch)) * step)
                }
                Op::Conv(conv) => {
                    widest.map(|field| field + conv.dilation * (conv.kernel - 1) * step)
                }
                Op::MaxPool { kernel, .. } => widest.map(|field| field + (kernel - 1) * step),
                // Each output position is blended from two source positions.
                Op::Resize { .. } => widest.map(|field| field + step),
                _ => widest,
            });
        }
        fields.last().copied().flatten()
    }

    /// Returns the multiply-adds of convolutions, linear layers and attention for one image.
    pub fn multiply_adds(&self, height: usize, width: usize) -> Result<u64, InputTooSmall> {
        let shapes = self.shapes(1, height, width)?;
        let mut sum = 0;
        for (node, shape) in self.nodes().iter().zip(&shapes) {
            let weights: usize = self
                .node_parameters(node)
                .iter()
                .filter(|parameter| matches!(parameter.role, Role::ConvWeight | Role::LinearWeight))
                .map(|parameter| parameter.shape.iter().product::<usize>())
                .sum();
            let positions = match (&node.op, shape.as_slice()) {
                (_, [_, tokens, _]) => *tokens,
                (_, [_, _, size @ ..]) => size.iter().product::<usize>(),
                _ => 1,
            };
            sum += weights as u64 * positions as u64;
            if let Op::Attention { .. } = node.op {
                // Products of queries and keys, then of their shares and values.
                sum += 2 * (positions * positions * node.channels) as u64;
            }
        }
        Ok(sum)
    }

    /// Returns the parameters and buffers of a node.
    pub fn node_parameters(&self, node: &Node) -> Vec<Parameter> {
        let channels_in = || self.node(node.inputs[0]).channels;
        let parameter = |role: Role, shape: Vec<usize>| Parameter {
            name: node.parameter_name(role),
            shape,
            role,
        };
        match node.op {
            Op::Conv(conv) => {
                let shape = vec![conv.out, channels_in() / conv.groups, conv.kernel, conv.kernel];
                let bias = conv.bias.then(|| parameter(Role::Bias, vec![conv.out]));
                std::iter::once(parameter(Role::ConvWeight, shape)).chain(bias).collect()
            }
            Op::Linear { out } => vec![
                parameter(Role::LinearWeight, vec![out, channels_in()]),
                parameter(Role::Bias, vec![out]),
            ],
            Op::BatchNorm { .. } => {
                [Role::NormWeight, Role::NormBias, Role::RunningMean, Role::RunningVar]
                    .map(|role| parameter(role, vec![node.channels]))
                    .into()
            }
            Op::PatchEmbed { out, patch, .. } => vec![
                parameter(Role::ConvWeight, vec![out, channels_in(), patch, patch]),
                parameter(Role::Bias, vec![out]),
            ],
            Op::EmbedTokens { grid, registers } => {
                let channels = node.channels;
                let registers = (registers > 0)
                    .then(|| parameter(Role::Registers, vec![1, registers, channels]));
                std::iter::once(parameter(Role::ClassToken, vec![1, 1, channels]))
                    .chain([parameter(Role::Positions, vec![1, 1 + grid * grid, channels])])
                    .chain(registers)
                    .collect()
            }
            Op::LayerNorm { .. } if node.inputs.len() == 1 => [Role::NormWeight, Role::NormBias]
                .map(|role| parameter(role, vec![node.channels]))
                .into(),
            Op::TokenLinear { out } => vec![
                parameter(Role::LinearWeight, vec![out, channels_in()]),
                parameter(Role::Bias, vec![out]),
            ],
            Op::LayerScale => vec![parameter(Role::LayerScale, vec![node.channels])],
            Op::Input
            | Op::Normalize { .. }
            | Op::Relu
            | Op::Relu6
            | Op::MaxPool { .. }
            | Op::GlobalAvgPool
            | Op::Resize { .. }
            | Op::Add
            | Op::Concat
            | Op::Dropout2d { .. }
            | Op::LayerNorm { .. }
            | Op::Attention { .. }
            | Op::Gelu
            | Op::TokenMap { .. } => Vec::new(),
        }
    }

    /// Returns all parameters and buffers, in node order.
    pub fn parameters(&self) -> Vec<Parameter> {
        self.nodes().iter().flat_map(|node| self.node_parameters(node)).collect()
    }

    /// Returns the number of trained values; running statistics do not count.
    pub fn parameter_count(&self) -> usize {
        let learned = self.parameters().into_iter().filter(|parameter| parameter.role.learns());
        learned.map(|parameter| parameter.shape.iter().product::<usize>()).sum()
    }

    /// Checks that weights are exactly those of the network, with the right shapes and finite.
    pub fn check_weights<T: Borrow<Tensor>>(
        &self,
        weights: &BTreeMap<String, T>,
    ) -> Result<(), WeightMismatch> {
        let parameters = self.parameters();
        let needed = || parameters.iter().map(|parameter| parameter.name.as_str());
        let missing: Vec<&str> = needed().filter(|name| !weights.contains_key(*name)).collect();
        let known: BTreeSet<&str> = needed().collect();
        let unknown: Vec<&str> =
            weights.keys().map(String::as_str).filter(|name| !known.contains(name)).collect();
        for (names, why) in [(missing, "missing"), (unknown, "unknown to the network")] {
            if let Some(first) = names.first() {
                let count = match names.len() {
                    1 => "1 tensor is".to_owned(),
                    count => format!("{count} tensors are"),
                };
                return Err(WeightMismatch(format!("{count} {why}, first `{first}`")));
            }
        }
        for Parameter { name, shape, .. } in &parameters {
            let found: &Tensor = weights[name].borrow();
            if found.shape != *shape {
                return Err(WeightMismatch(format!(
                    "tensor `{name}` has shape {:?}; the network needs {shape:?}",
                    found.shape
                )));
            }
            if !found.data.iter().all(|value| value.is_finite()) {
                return Err(WeightMismatch(format!(
                    "tensor `{name}` holds values that are not finite"
                )));
            }
        }
        Ok(())
    }
}

impl Node {
    /// Returns the key of a parameter in the state dict: below the node, but beside one that embeds
    /// tokens, as in published files.
    pub fn parameter_name(&self, role: Role) -> String {
        let suffix = role.suffix();
        match (&self.op, self.name.rsplit_once('.')) {
            (Op::EmbedTokens { .. }, Some((parent, _))) => format!("{parent}.{suffix}"),
            (Op::EmbedTokens { .. }, None) => suffix.to_owned(),
            _ => format!("{}.{suffix}", self.name),
        }
    }
}

/// Returns the height and width of a node's output, `None` if it would be empty.
fn output_size(node: &Node, sizes: &[[usize; 2]], image: [usize; 2]) -> Option<[usize; 2]> {
    let input = |index: usize| sizes[node.inputs[index].0];
    let size = match node.op {
        Op::Input => image,
        Op::Conv(conv) => {
            let reach = conv.dilation * (conv.kernel - 1) + 1;
            let out = |length: usize, before: usize, after: usize| {
                (length + before + after).checked_sub(reach).map(|rest| rest / conv.stride + 1)
            };
            let [height, width] = input(0);
            let [top, left, bottom, right] = conv.pads;
            [out(height, top, bottom)?, out(width, left, right)?]
        }
        Op::MaxPool { kernel, stride, pad, ceil_mode } => {
            let out = |length: usize| pooled(length, kernel, stride, pad, ceil_mode);
            let [height, width] = input(0);
            [out(height)?, out(width)?]
        }
        Op::GlobalAvgPool | Op::Linear { .. } => [1, 1],
        Op::Resize { .. } | Op::TokenMap { .. } => input(1),
        Op::PatchEmbed { pixels, .. } => input(0).map(|length| length / pixels),
        Op::Normalize { .. }
        | Op::BatchNorm { .. }
        | Op::Relu
        | Op::Relu6
        | Op::Add
        | Op::Concat
        | Op::Dropout2d { .. }
        | Op::EmbedTokens { .. }
        | Op::LayerNorm { .. }
        | Op::TokenLinear { .. }
        | Op::Attention { .. }
        | Op::Gelu
        | Op::LayerScale => input(0),
    };
    (size[0] > 0 && size[1] > 0).then_some(size)
}

/// Returns the output length of a pooling by PyTorch's rule: in ceil mode a partial last window
/// counts, unless it would start in the padding behind the input.
fn pooled(
    length: usize,
    kernel: usize,
    stride: usize,
    pad: usize,
    ceil_mode: bool,
) -> Option<usize> {
    let rest = (length + 2 * pad).checked_sub(kernel)?;
    if !ceil_mode {
        return Some(rest / stride + 1);
    }
    let windows = rest.div_ceil(stride) + 1;
    Some(if (windows - 1) * stride >= length + pad { windows - 1 } else { windows })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::{Arch, Preset};
    use crate::graph::Tag;

    #[test]
    fn pooling_sizes_follow_pytorch() {
        // MaxPool2d(3, 2, 1, ceil_mode=True) maps 257 to 129, 112 to 57 and 4 to 3; without ceil
        // mode 112 to 56.
        assert_eq!(pooled(257, 3, 2, 1, true), Some(129));
        assert_eq!(pooled(112, 3, 2, 1, true), Some(57));
        assert_eq!(pooled(4, 3, 2, 1, true), Some(3));
        assert_eq!(pooled(112, 3, 2, 1, false), Some(56));
        assert_eq!(pooled(1, 2, 2, 0, false), None);
    }

    #[test]
    fn receptive_fields_and_costs_equal_those_counted_by_hand() {
        let graph = Arch::new(Preset::DeepLabV3PlusResNet50, 21).unwrap().graph();
        let field = |name: &str| graph.receptive_field(graph.find(name).unwrap());
        // 3x3 at stride 1, two 3x3 at stride 2, pooling of 3 at stride 2; then three 3x3 at stride
        // 4.
        assert_eq!((field("encoder.conv1.0"), field("encoder.maxpool")), (Some(3), Some(15)));
        assert_eq!(field("encoder.layer1.2.relu3"), Some(15 + 3 * 8));
        assert_eq!(graph.receptive_field(graph.tagged(Tag::Logits).unwrap()), None);
        // The stem on 64x64 pixels: 27 x 64 + 9 x 64 x 64 + 9 x 64 x 128 weights at 32x32
        // positions.
        let stem = graph.keep(&[graph.find("encoder.conv1.6").unwrap()]);
        assert_eq!(
            stem.multiply_adds(64, 64).unwrap(),
            (27 * 64 + 9 * 64 * 64 + 9 * 64 * 128) * 32 * 32
        );
    }
}
