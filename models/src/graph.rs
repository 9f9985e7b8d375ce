//! A network as data: a list of named nodes, each an operation with its inputs.
//!
//! Three consumers walk the list, each with one exhaustive `match` over [`Op`]: train runs it on
//! libtorch, export writes it as ONNX, and [`analysis`](crate::analysis) derives shapes, parameters
//! and costs. A new operation breaks the build of all three until they handle it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A two-dimensional convolution, weights `[out, in / groups, kernel, kernel]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Conv {
    /// Output channels.
    pub out: usize,
    /// Kernel size in both directions.
    pub kernel: usize,
    /// Stride in both directions.
    pub stride: usize,
    /// Zeros added at the top, left, bottom and right.
    pub pads: [usize; 4],
    /// Distance between kernel taps.
    pub dilation: usize,
    /// Channel groups; as many as input channels for a depthwise convolution.
    pub groups: usize,
    /// Adds a bias `[out]`.
    pub bias: bool,
}

impl Conv {
    /// Returns a convolution of stride 1 without bias, padded so that an odd kernel keeps the size.
    pub fn new(out: usize, kernel: usize) -> Self {
        Self { out, kernel, stride: 1, pads: [kernel / 2; 4], dilation: 1, groups: 1, bias: false }
    }

    /// Sets the stride; the padding stays.
    pub fn stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    /// Sets the dilation and the padding that keeps the size.
    pub fn dilation(self, dilation: usize) -> Self {
        Self { dilation, pads: [self.kernel / 2 * dilation; 4], ..self }
    }

    /// Sets the pads at the top, left, bottom and right.
    pub fn pads(self, pads: [usize; 4]) -> Self {
        Self { pads, ..self }
    }

    /// Sets the number of channel groups.
    pub fn groups(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    /// Adds a bias.
    pub fn bias(self) -> Self {
        Self { bias: true, ..self }
    }
}

/// An operation. Tensors are floats `[N, C, H, W]` unless noted; those of a transformer are tokens
/// `[N, T, C]`, first the class token and registers, then one for each position, row by row.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// The images: bytes `[N, H, W, 3]`, RGB.
    Input,
    /// Bytes `[N, H, W, 3]` to floats `[N, 3, H, W]`: `(x - mean) / std` for each channel, in units
    /// of 0 to 255.
    Normalize {
        /// Mean of each channel.
        mean: [f64; 3],
        /// Standard deviation of each channel.
        std: [f64; 3],
    },
    /// Convolution.
    Conv(Conv),
    /// Batch normalization over N, H and W.
    BatchNorm {
        /// Added to the variance.
        eps: f64,
        /// Weight of a batch in the running statistics, as in PyTorch.
        momentum: f64,
    },
    /// max(x, 0).
    Relu,
    /// min(max(x, 0), 6).
    Relu6,
    /// Maximum over square windows, padded with minus infinity on all sides.
    MaxPool {
        /// Size in both directions.
        kernel: usize,
        /// Stride in both directions.
        stride: usize,
        /// Padding on each side.
        pad: usize,
        /// Counts a partial last window, as in PyTorch.
        ceil_mode: bool,
    },
    /// Mean over H and W: `[N, C, 1, 1]`.
    GlobalAvgPool,
    /// Bilinear resize of the first input to the height and width of the second.
    Resize {
        /// Aligns the centers of corner pixels, otherwise the image edges (half-pixel centers).
        align_corners: bool,
    },
    /// Sum of two tensors of one shape.
    Add,
    /// Concatenation along C.
    Concat,
    /// `[N, C, 1, 1]` to `[N, out]`, with bias.
    Linear {
        /// Output features.
        out: usize,
    },
    /// Dropout of whole channels in training; the identity in inference.
    Dropout2d {
        /// Dropout probability.
        p: f64,
    },
    /// A convolution over squares that do not overlap, with bias; the image is resized before, so
    /// that a square covers `pixels` of it. A rest at the right and the bottom is not covered.
    PatchEmbed {
        /// Output channels.
        out: usize,
        /// Side of a square, and size of the kernel.
        patch: usize,
        /// Side of the square's part of the image, in pixels.
        pixels: usize,
    },
    /// Patches `[N, C, h, w]` to tokens: adds positions, interpolated bicubically from a square
    /// grid, and puts a class token and registers before them.
    EmbedTokens {
        /// Side of the grid of positions.
        grid: usize,
        /// Number of registers.
        registers: usize,
    },
    /// Layer normalization of each token. A second input is a layer normalization of which this one
    /// uses the parameters.
    LayerNorm {
        /// Added to the variance.
        eps: f64,
    },
    /// A linear layer on each token, with bias.
    TokenLinear {
        /// Output channels.
        out: usize,
    },
    /// Multi-head self-attention: channels are queries, keys and values, `[N, T, 3 C]` to
    /// `[N, T, C]`, and within each the heads. Scores are divided by the root of a head's channels.
    Attention {
        /// Number of heads.
        heads: usize,
    },
    /// Gaussian error linear unit, by the error function.
    Gelu,
    /// Tokens times a factor for each channel.
    LayerScale,
    /// Tokens of positions as a map of the second input's height and width, with as many channels.
    TokenMap {
        /// Tokens before those of positions.
        skip: usize,
    },
}

/// Position of a node in its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub usize);

/// A named operation with its inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Unique name. Parameters are called `{name}.weight` and so on, as in published state dicts.
    pub name: String,
    /// The operation.
    pub op: Op,
    /// Input nodes, each earlier in the list.
    pub inputs: Vec<NodeId>,
    /// Output channels.
    pub channels: usize,
}

/// The use of a node's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tag {
    /// Features that prototypes are compared with, `[N, D, h, w]`.
    Features,
    /// Logits before upsampling, `[N, classes, h, w]` (`[N, classes]` for a classifier).
    Logits,
    /// Logits of the auxiliary head, used in training only.
    Aux,
}

/// A network: nodes in topological order, some of them tagged.
///
/// ```
/// use protoseg_models::graph::{Conv, Graph, Op, Tag};
///
/// let mut graph = Graph::new();
/// let op = Op::Normalize { mean: [127.0; 3], std: [128.0; 3] };
/// let pixels = graph.push("normalize", op, &[graph.input()]);
/// let logits = graph.push("head", Op::Conv(Conv::new(19, 3).stride(2).bias()), &[pixels]);
/// graph.tag(Tag::Logits, logits);
///
/// assert_eq!(graph.shapes(1, 64, 128)?[logits.0], [1, 19, 32, 64]);
/// let names: Vec<String> = graph.parameters().into_iter().map(|p| p.name).collect();
/// assert_eq!(names, ["head.weight", "head.bias"]);
/// # Ok::<(), protoseg_models::analysis::InputTooSmall>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Graph {
    nodes: Vec<Node>,
    tags: BTreeMap<Tag, NodeId>,
}

impl Graph {
    /// Returns a graph with an input node only.
    pub fn new() -> Self {
        let mut graph = Self::default();
        graph.push("input", Op::Input, &[]);
        graph
    }

    /// Adds a node at the end.
    ///
    /// # Panics
    /// On a mistake in the builder: a duplicate name, an unknown input, channels that do not fit.
    /// Graphs depend on no input but the class count, and a test builds every preset.
    pub fn push(&mut self, name: impl Into<String>, op: Op, inputs: &[NodeId]) -> NodeId {
        let name = name.into();
        assert!(self.find(&name).is_none(), "two nodes are named {name}");
        let channels = self.output_channels(&name, &op, inputs);
        self.nodes.push(Node { name, op, inputs: inputs.to_vec(), channels });
        NodeId(self.nodes.len() - 1)
    }

    fn output_channels(&self, name: &str, op: &Op, inputs: &[NodeId]) -> usize {
        let input = |index: usize| self.nodes[inputs[index].0].channels;
        match *op {
            Op::Input | Op::Normalize { .. } => 3,
            Op::Conv(conv) => {
                let channels = input(0);
                let fits = channels % conv.groups == 0 && conv.out % conv.groups == 0;
                assert!(fits, "{name}: {channels} channels in {} groups", conv.groups);
                conv.out
            }
            Op::Linear { out } | Op::TokenLinear { out } | Op::PatchEmbed { out, .. } => out,
            Op::Attention { heads } => {
                let channels = input(0) / 3;
                let fits = input(0) == 3 * channels && channels % heads == 0;
                assert!(fits, "{name}: {} channels in {heads} heads", input(0));
                channels
            }
            Op::TokenMap { .. } => {
                assert!(input(0) == input(1), "{name}: {} and {} channels", input(0), input(1));
                input(0)
            }
            Op::Add => {
                assert!(input(0) == input(1), "{name} adds {} to {} channels", input(1), input(0));
                input(0)
            }
            Op::Concat => (0..inputs.len()).map(input).sum(),
            Op::BatchNorm { .. }
            | Op::Relu
            | Op::Relu6
            | Op::MaxPool { .. }
            | Op::GlobalAvgPool
            | Op::Resize { .. }
            | Op::Dropout2d { .. }
            | Op::EmbedTokens { .. }
            | Op::LayerNorm { .. }
            | Op::Gelu
            | Op::LayerScale => input(0),
        }
    }

    /// Tags a node; each tag has one node.
    pub fn tag(&mut self, tag: Tag, node: NodeId) {
        self.tags.insert(tag, node);
    }

    /// Returns the node with a tag.
    pub fn tagged(&self, tag: Tag) -> Option<NodeId> {
        self.tags.get(&tag).copied()
    }

    /// Returns all tags.
    pub fn tags(&self) -> &BTreeMap<Tag, NodeId> {
        &self.tags
    }

    /// Returns the input node.
    pub fn input(&self) -> NodeId {
        NodeId(0)
    }

    /// Returns all nodes, each after its inputs.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Iterates over all nodes with their ids.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().enumerate().map(|(index, node)| (NodeId(index), node))
    }

    /// Returns a node.
    ///
    /// # Panics
    /// If `id` is out of range: it belongs to another graph.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// Returns the node with a name.
    pub fn find(&self, name: &str) -> Option<NodeId> {
        self.nodes.iter().position(|node| node.name == name).map(NodeId)
    }

    /// Returns the subgraph that some nodes depend on, in the same order, with its tags.
    pub fn keep(&self, wanted: &[NodeId]) -> Self {
        let mut needed = vec![false; self.nodes.len()];
        needed[0] = true;
        for id in wanted {
            needed[id.0] = true;
        }
        for (index, node) in self.nodes.iter().enumerate().rev() {
            if needed[index] {
                for input in &node.inputs {
                    needed[input.0] = true;
                }
            }
        }
        self.filter_map(
            |id, node| if needed[id.0] { Rewrite::Keep(node.clone()) } else { Rewrite::Drop },
        )
    }

    /// Rewrites the graph node by node.
    pub fn filter_map(&self, mut rewrite: impl FnMut(NodeId, &Node) -> Rewrite) -> Self {
        let mut nodes: Vec<Node> = Vec::new();
        let mut moved: Vec<Option<NodeId>> = Vec::with_capacity(self.nodes.len());
        for (id, node) in self.iter() {
            let target = match rewrite(id, node) {
                Rewrite::Keep(mut kept) => {
                    kept.inputs = kept.inputs.iter().filter_map(|input| moved[input.0]).collect();
                    nodes.push(kept);
                    Some(NodeId(nodes.len() - 1))
                }
                Rewrite::Bypass(source) => moved[source.0],
                Rewrite::Drop => None,
            };
            moved.push(target);
        }
        let tags =
            self.tags.iter().filter_map(|(&tag, id)| moved[id.0].map(|id| (tag, id))).collect();
        Self { nodes, tags }
    }
}

/// The decision for a node in [`Graph::filter_map`].
#[derive(Debug, Clone, PartialEq)]
pub enum Rewrite {
    /// Keeps the node, possibly changed; its inputs are ids of the old graph.
    Keep(Node),
    /// Removes the node; its readers read this earlier node of the old graph instead.
    Bypass(NodeId),
    /// Removes the node, which no kept node may read.
    Drop,
}
