//! Vision transformers of DINOv2, with the names of facebookresearch's state dicts.
//!
//! Patches of 14 pixels, layer scale, an optional set of registers (Darcet et al., 2024). Positions
//! are interpolated bicubically to the size of the map, without antialiasing and without offset:
//! Hugging Face's rule, which differs from facebookresearch's by a tenth of a patch.

use crate::graph::{Graph, NodeId, Op};

/// Normalization that the published weights expect: ImageNet's mean and deviation.
pub const NORMALIZE: Op =
    Op::Normalize { mean: [123.675, 116.28, 103.53], std: [58.395, 57.12, 57.375] };

/// Side of a patch in pixels of the encoder's image.
pub const PATCH: usize = 14;
/// Side of the grid of published positions: images of 518 pixels.
const GRID: usize = 37;
const NORM: Op = Op::LayerNorm { eps: 1e-6 };

/// Width and depth of a transformer. Heads have 64 channels, hidden layers four times the width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VitScaling {
    width: usize,
    depth: usize,
}

impl VitScaling {
    /// Scales a transformer of no published weights: a width of a multiple of 64, and four blocks at
    /// least.
    pub const fn new(width: usize, depth: usize) -> Self {
        Self { width, depth }
    }
}

/// ViT-S.
pub const SMALL: VitScaling = VitScaling { width: 384, depth: 12 };
/// ViT-B.
pub const BASE: VitScaling = VitScaling { width: 768, depth: 12 };
/// ViT-L.
pub const LARGE: VitScaling = VitScaling { width: 1024, depth: 24 };

/// Encoder outputs for a decoder.
pub struct VitOutputs {
    /// Maps `[N, width, h, w]` of four blocks spread over the depth, each after the last norm.
    pub taps: [NodeId; 4],
    /// The tokens of these maps.
    pub tokens: [NodeId; 4],
}

/// Adds the encoder, its names below `prefix`. A patch covers `pixels` of the image, which is
/// resized before.
pub fn encoder(
    graph: &mut Graph,
    prefix: &str,
    VitScaling { width, depth }: VitScaling,
    pixels: usize,
    registers: usize,
) -> VitOutputs {
    let image = graph.push("normalize", NORMALIZE, &[graph.input()]);
    let embed = Op::PatchEmbed { out: width, patch: PATCH, pixels };
    let patches = graph.push(format!("{prefix}patch_embed.proj"), embed, &[image]);
    let embed = Op::EmbedTokens { grid: GRID, registers };
    let mut last = graph.push(format!("{prefix}tokens"), embed, &[patches]);
    let mut blocks = Vec::with_capacity(depth);
    for index in 0..depth {
        last = block(graph, &format!("{prefix}blocks.{index}."), width, last);
        blocks.push(last);
    }
    let norm = graph.push(format!("{prefix}norm"), NORM, &[last]);
    let tokens = [1, 2, 3, 4].map(|quarter| {
        let index = quarter * depth / 4 - 1;
        if index + 1 == depth {
            return norm;
        }
        graph.push(format!("{prefix}norm.after{index}"), NORM, &[blocks[index], norm])
    });
    let taps = tokens.map(|id| {
        let name = format!("{}.map", graph.node(id).name);
        graph.push(name, Op::TokenMap { skip: 1 + registers }, &[id, patches])
    });
    VitOutputs { taps, tokens }
}

/// Adds a transformer block; returns its output.
fn block(graph: &mut Graph, name: &str, width: usize, input: NodeId) -> NodeId {
    let mut push =
        |part: &str, op: Op, inputs: &[NodeId]| graph.push(format!("{name}{part}"), op, inputs);
    let normed = push("norm1", NORM, &[input]);
    let mixed = push("attn.qkv", Op::TokenLinear { out: 3 * width }, &[normed]);
    let mixed = push("attn", Op::Attention { heads: width / 64 }, &[mixed]);
    let mixed = push("attn.proj", Op::TokenLinear { out: width }, &[mixed]);
    let mixed = push("ls1", Op::LayerScale, &[mixed]);
    let attended = push("add1", Op::Add, &[input, mixed]);
    let normed = push("norm2", NORM, &[attended]);
    let hidden = push("mlp.fc1", Op::TokenLinear { out: 4 * width }, &[normed]);
    let hidden = push("mlp.act", Op::Gelu, &[hidden]);
    let hidden = push("mlp.fc2", Op::TokenLinear { out: width }, &[hidden]);
    let hidden = push("ls2", Op::LayerScale, &[hidden]);
    push("add2", Op::Add, &[attended, hidden])
}

/// Builds the published encoder alone, with its names; no node is tagged.
pub fn backbone(scaling: VitScaling, registers: usize) -> (Graph, VitOutputs) {
    let mut graph = Graph::new();
    let outputs = encoder(&mut graph, "", scaling, PATCH, registers);
    (graph, outputs)
}
