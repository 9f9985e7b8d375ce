//! Heads on the maps of a vision transformer.

use super::efficientnet_lite::{self, LITE0};
use super::resnet::conv_norm_relu;
use super::vit::{self, VitOutputs, VitScaling};
use super::{VitHead, VitOptions};
use crate::graph::{Conv, Graph, NodeId, Op, Tag};

const NORM: Op = Op::BatchNorm { eps: 1e-5, momentum: 0.1 };
/// Start of the names of the pretrained stem, a part of the encoder.
pub const STEM_PREFIX: &str = "encoder.stem.";
const DROPOUT: Op = Op::Dropout2d { p: 0.1 };

/// Builds a transformer with its head.
pub(super) fn build(
    scaling: VitScaling,
    VitOptions { head, patch_pixels, registers }: VitOptions,
    classes: usize,
    auxiliary: bool,
) -> Graph {
    let mut graph = Graph::new();
    let VitOutputs { taps, .. } =
        vit::encoder(&mut graph, "encoder.", scaling, patch_pixels, registers);
    let joined = graph.push("decoder.concat", Op::Concat, &taps);
    let classifier = Op::Conv(Conv::new(classes, 1).bias());
    let features = match head {
        VitHead::Linear => graph.push("decoder.norm", NORM, &[joined]),
        VitHead::Pyramid | VitHead::PyramidLite0 => {
            let mixed = mixed(&mut graph, joined);
            if auxiliary {
                let aux = graph.push("auxor.aux", classifier.clone(), &[mixed]);
                graph.tag(Tag::Aux, aux);
            }
            let stem = match head {
                VitHead::PyramidLite0 => pretrained_stem(&mut graph),
                _ => shallow_stem(&mut graph, patch_pixels),
            };
            refined(&mut graph, mixed, stem)
        }
    };
    graph.tag(Tag::Features, features);
    let dropped = graph.push("decoder.dropout", DROPOUT, &[features]);
    let logits = graph.push("decoder.classifier", classifier, &[dropped]);
    graph.tag(Tag::Logits, logits);
    graph
}

/// Returns the stride of the pyramid head's logits in pixels.
pub(super) fn pyramid_stride(patch_pixels: usize) -> usize {
    if patch_pixels.is_multiple_of(4) { 4 } else { patch_pixels / 2 }
}

/// Projects and mixes the joined maps, 96 channels at the stride of the patches.
fn mixed(graph: &mut Graph, joined: NodeId) -> NodeId {
    let projected = norm_relu(graph, "decoder.project", Conv::new(96, 1), joined);
    norm_relu(graph, "decoder.mix", Conv::new(96, 3), projected)
}

/// Shallow features of the image at the finer stride, for thin things: 32 channels.
fn shallow_stem(graph: &mut Graph, patch_pixels: usize) -> Vec<NodeId> {
    let image = graph.find("normalize").unwrap_or(graph.input());
    let [first, second] = match pyramid_stride(patch_pixels) {
        4 => [Conv::new(16, 3).stride(2), Conv::new(32, 3).stride(2)],
        stride => [Conv::new(16, stride).stride(stride).pads([0; 4]), Conv::new(32, 3)],
    };
    let stem = norm_relu(graph, "decoder.stem1", first, image);
    vec![norm_relu(graph, "decoder.stem2", second, stem)]
}

/// Features of EfficientNet-Lite0 at strides 4 and 8: 24 and 40 channels.
fn pretrained_stem(graph: &mut Graph) -> Vec<NodeId> {
    let image = graph.push("stem.normalize", efficientnet_lite::NORMALIZE, &[graph.input()]);
    efficientnet_lite::stages(graph, STEM_PREFIX, LITE0, 8, 3, image).split_off(1)
}

/// Refines mixed maps at the finer stride beside features of the image: 64 channels.
fn refined(graph: &mut Graph, mixed: NodeId, stem: Vec<NodeId>) -> NodeId {
    let resize = Op::Resize { align_corners: false };
    let finest = stem[0];
    let mut parts = vec![graph.push("decoder.resize", resize.clone(), &[mixed, finest])];
    for (index, part) in stem.into_iter().enumerate() {
        parts.push(match index {
            0 => part,
            _ => graph.push("decoder.stem.resize", resize.clone(), &[part, finest]),
        });
    }
    let joined = graph.push("decoder.join", Op::Concat, &parts);
    norm_relu(graph, "decoder.refine", Conv::new(64, 3), joined)
}

/// Adds a convolution, batch normalization and ReLU.
fn norm_relu(graph: &mut Graph, name: &str, conv: Conv, input: NodeId) -> NodeId {
    let names = ["conv", "norm", "relu"].map(|part| format!("{name}.{part}"));
    conv_norm_relu(graph, names, conv, input)
}
