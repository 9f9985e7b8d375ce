//! A network as data: a list of named nodes, each an operation and the nodes it reads.
//!
//! Three consumers walk the list, each with one exhaustive `match` over [`Op`]: the trainer runs it on libtorch, export
//! writes it as ONNX, and this crate derives shapes, parameters and costs from it. A new operation breaks the build of
//! all three until they handle it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A two-dimensional convolution, weights `[out, in / groups, kernel, kernel]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Conv {
    /// Output channels.
    pub out: usize,
    /// Height and width of the kernel.
    pub kernel: usize,
    /// Step in both directions.
    pub stride: usize,
    /// Zeros added at the top, left, bottom and right.
    pub pads: [usize; 4],
    /// Distance between kernel taps.
    pub dilation: usize,
    /// Channel groups; as many as input channels for a depthwise convolution.
    pub groups: usize,
    /// Whether a bias `[out]` is added.
    pub bias: bool,
}

impl Conv {
    /// A convolution of stride 1 without bias, padded so that an odd kernel keeps the size.
    pub fn new(out: usize, kernel: usize) -> Self {
        Self { out, kernel, stride: 1, pads: [kernel / 2; 4], dilation: 1, groups: 1, bias: false }
    }

    /// The same with a stride; the padding stays.
    pub fn stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    /// The same with a dilation, the padding widened to keep the size.
    pub fn dilation(self, dilation: usize) -> Self {
        Self { dilation, pads: [self.kernel / 2 * dilation; 4], ..self }
    }

    /// The same with pads [top, left, bottom, right].
    pub fn pads(self, pads: [usize; 4]) -> Self {
        Self { pads, ..self }
    }

    /// The same in channel groups.
    pub fn groups(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    /// The same with a bias.
    pub fn bias(self) -> Self {
        Self { bias: true, ..self }
    }
}

/// What a node computes. Tensors are `[N, C, H, W]` floats but for the input's bytes.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// The picture: bytes `[N, H, W, 3]`, RGB.
    Input,
    /// Bytes `[N, H, W, 3]` to floats `[N, 3, H, W]`: `(x - mean) / std` per channel, in units of 0 to 255.
    Normalize {
        /// Subtracted, per channel.
        mean: [f64; 3],
        /// Divided by, per channel.
        std: [f64; 3],
    },
    /// Convolution.
    Conv(Conv),
    /// Batch normalisation over N, H and W.
    BatchNorm {
        /// Added to the variance.
        eps: f64,
        /// Share of the batch's statistics in the running ones.
        momentum: f64,
    },
    /// max(x, 0).
    Relu,
    /// min(max(x, 0), 6).
    Relu6,
    /// The largest of each square, padded with minus infinity on all sides.
    MaxPool {
        /// Height and width.
        kernel: usize,
        /// Step in both directions.
        stride: usize,
        /// Padding on each side.
        pad: usize,
        /// Whether a last partial square counts.
        ceil_mode: bool,
    },
    /// Mean over H and W: `[N, C, 1, 1]`.
    GlobalAvgPool,
    /// Bilinear resize of the first input to the height and width of the second.
    Resize {
        /// Whether corner pixels' centres coincide; otherwise pixel edges do (half-pixel centres).
        align_corners: bool,
    },
    /// Sum of two tensors of one shape.
    Add,
    /// Inputs one after the other along C.
    Concat,
    /// `[N, C, 1, 1]` to `[N, out]`, with bias.
    Linear {
        /// Output features.
        out: usize,
    },
    /// Drops whole channels while training; nothing otherwise.
    Dropout2d {
        /// Share that is dropped.
        p: f64,
    },
}

/// Position of a node in its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub usize);

/// One operation with its name and inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Unique in the graph; parameters are called `{name}.weight` and so on, as in the published state dicts.
    pub name: String,
    /// What is computed.
    pub op: Op,
    /// Nodes read, each earlier in the list.
    pub inputs: Vec<NodeId>,
    /// Channels of the output.
    pub channels: usize,
}

/// What a node's output is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tag {
    /// The map that prototypes see, `[N, D, h, w]`.
    Features,
    /// Class scores before upsampling, `[N, classes, h, w]` (`[N, classes]` for a classifier).
    Logits,
    /// Class scores of the auxiliary head, used in training only.
    Aux,
}

/// A network.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Graph {
    nodes: Vec<Node>,
    tags: BTreeMap<Tag, NodeId>,
}

impl Graph {
    /// A graph that holds its input node and nothing else.
    pub fn new() -> Self {
        let mut graph = Self::default();
        graph.push("input", Op::Input, &[]);
        graph
    }

    /// Adds a node at the end.
    ///
    /// # Panics
    /// Where the network's builder is wrong: a name twice, an input that does not exist, channels that do not fit. Which
    /// graphs are built depends on no file but for the class count, and every preset is built in a test.
    pub fn push(&mut self, name: impl Into<String>, op: Op, inputs: &[NodeId]) -> NodeId {
        let name = name.into();
        assert!(self.find(&name).is_none(), "two nodes are called {name}");
        let channels = self.output_channels(&name, &op, inputs);
        self.nodes.push(Node { name, op, inputs: inputs.to_vec(), channels });
        NodeId(self.nodes.len() - 1)
    }

    fn output_channels(&self, name: &str, op: &Op, inputs: &[NodeId]) -> usize {
        let of = |index: usize| self.nodes[inputs[index].0].channels;
        match *op {
            Op::Input | Op::Normalize { .. } => 3,
            Op::Conv(conv) => {
                assert!(
                    of(0) % conv.groups == 0 && conv.out % conv.groups == 0,
                    "{name}: {} channels in {} groups",
                    of(0),
                    conv.groups
                );
                conv.out
            }
            Op::Linear { out } => out,
            Op::Add => {
                assert!(of(0) == of(1), "{name} adds {} to {} channels", of(1), of(0));
                of(0)
            }
            Op::Concat => (0..inputs.len()).map(of).sum(),
            Op::BatchNorm { .. }
            | Op::Relu
            | Op::Relu6
            | Op::MaxPool { .. }
            | Op::GlobalAvgPool
            | Op::Resize { .. }
            | Op::Dropout2d { .. } => of(0),
        }
    }

    /// Says what a node's output is for.
    pub fn tag(&mut self, tag: Tag, node: NodeId) {
        self.tags.insert(tag, node);
    }

    /// The node with a tag.
    pub fn tagged(&self, tag: Tag) -> Option<NodeId> {
        self.tags.get(&tag).copied()
    }

    /// All tags.
    pub fn tags(&self) -> &BTreeMap<Tag, NodeId> {
        &self.tags
    }

    /// The input node.
    pub fn input(&self) -> NodeId {
        NodeId(0)
    }

    /// All nodes, each after its inputs.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// All nodes with their positions.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().enumerate().map(|(index, node)| (NodeId(index), node))
    }

    /// A node.
    ///
    /// # Panics
    /// Where `id` is of another graph.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// The node of a name.
    pub fn find(&self, name: &str) -> Option<NodeId> {
        self.nodes.iter().position(|node| node.name == name).map(NodeId)
    }

    /// The part of the graph that some nodes need, in the same order, with the tags that survive.
    pub fn keep(&self, wanted: &[NodeId]) -> Self {
        let mut needed = vec![false; self.nodes.len()];
        needed[0] = true;
        for id in wanted {
            needed[id.0] = true;
        }
        for index in (0..self.nodes.len()).rev().filter(|&index| index > 0) {
            if needed[index] {
                for input in &self.nodes[index].inputs {
                    needed[input.0] = true;
                }
            }
        }
        self.filter_map(
            |id, node| if needed[id.0] { Rewrite::Keep(node.clone()) } else { Rewrite::Drop },
        )
    }

    /// A new graph from a decision for each node. Readers of a bypassed node read the named node instead.
    pub fn filter_map(&self, mut rewrite: impl FnMut(NodeId, &Node) -> Rewrite) -> Self {
        let mut nodes: Vec<Node> = Vec::new();
        let mut moved: Vec<Option<NodeId>> = Vec::with_capacity(self.nodes.len());
        for (id, node) in self.iter() {
            let place = match rewrite(id, node) {
                Rewrite::Keep(mut kept) => {
                    kept.inputs = kept.inputs.iter().filter_map(|input| moved[input.0]).collect();
                    nodes.push(kept);
                    Some(NodeId(nodes.len() - 1))
                }
                Rewrite::Bypass(source) => moved[source.0],
                Rewrite::Drop => None,
            };
            moved.push(place);
        }
        let tags = self
            .tags
            .iter()
            .filter_map(|(&tag, id)| moved[id.0].map(|place| (tag, place)))
            .collect();
        Self { nodes, tags }
    }
}

/// What becomes of a node in [`Graph::filter_map`].
#[derive(Debug, Clone, PartialEq)]
pub enum Rewrite {
    /// Stays, perhaps changed; its inputs are still those of the old graph.
    Keep(Node),
    /// Goes; who read it reads this earlier node of the old graph.
    Bypass(NodeId),
    /// Goes, and nothing that stays reads it.
    Drop,
}
