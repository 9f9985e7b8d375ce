//! EfficientNet-Lite encoders, with the names of the PyPI package `efficientnet_lite_pytorch`.
//!
//! No squeeze-and-excitation, ReLU6, static TensorFlow SAME padding. The stem and the last stage
//! have one width in all variants; the other widths scale to multiples of 8, and the depths of the
//! inner stages round up.

use crate::graph::{Conv, Graph, NodeId, Op, Tag};

/// Normalization that the published weights expect.
pub const NORMALIZE: Op = Op::Normalize { mean: [127.0; 3], std: [128.0; 3] };

/// Some published running variances are zero, so this epsilon must stay.
const NORM: Op = Op::BatchNorm { eps: 1e-3, momentum: 0.1 };

/// Width and depth multipliers of an encoder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LiteScaling {
    width: f64,
    depth: f64,
}

/// EfficientNet-Lite0.
pub const LITE0: LiteScaling = LiteScaling { width: 1.0, depth: 1.0 };
/// EfficientNet-Lite1.
pub const LITE1: LiteScaling = LiteScaling { width: 1.0, depth: 1.1 };
/// EfficientNet-Lite2.
pub const LITE2: LiteScaling = LiteScaling { width: 1.1, depth: 1.2 };

/// A stage of inverted bottlenecks (MBConv).
struct MBConvStage {
    repeats: usize,
    kernel: usize,
    stride: usize,
    expand: usize,
    out: usize,
}

/// The seven stages of EfficientNet-B0, which the variants scale.
const STAGES: [MBConvStage; 7] = [
    MBConvStage { repeats: 1, kernel: 3, stride: 1, expand: 1, out: 16 },
    MBConvStage { repeats: 2, kernel: 3, stride: 2, expand: 6, out: 24 },
    MBConvStage { repeats: 2, kernel: 5, stride: 2, expand: 6, out: 40 },
    MBConvStage { repeats: 3, kernel: 3, stride: 2, expand: 6, out: 80 },
    MBConvStage { repeats: 3, kernel: 5, stride: 1, expand: 6, out: 112 },
    MBConvStage { repeats: 4, kernel: 5, stride: 2, expand: 6, out: 192 },
    MBConvStage { repeats: 1, kernel: 3, stride: 1, expand: 6, out: 320 },
];

impl LiteScaling {
    fn channels(self, base: usize) -> usize {
        // To the nearest multiple of 8, but not below nine tenths.
        let scaled = base as f64 * self.width;
        let rounded = ((scaled + 4.0) as usize / 8 * 8).max(8);
        if (rounded as f64) < 0.9 * scaled { rounded + 8 } else { rounded }
    }

    fn repeats(self, stage: usize) -> usize {
        let base = STAGES[stage].repeats;
        if stage == 0 || stage == STAGES.len() - 1 {
            base
        } else {
            (base as f64 * self.depth).ceil() as usize
        }
    }
}

/// Encoder outputs for a decoder.
pub(crate) struct LiteOutputs {
    /// At stride 4, before the third stage.
    pub(crate) low: NodeId,
    /// Of the last stage.
    pub(crate) high: NodeId,
}

/// Adds the encoder, its names below `prefix`. Beyond `output_stride`, strides become dilation.
pub(crate) fn encoder(
    graph: &mut Graph,
    prefix: &str,
    variant: LiteScaling,
    output_stride: usize,
) -> LiteOutputs {
    let pixels = graph.push("normalize", NORMALIZE, &[graph.input()]);
    let outputs = stages(graph, prefix, variant, output_stride, STAGES.len(), pixels);
    LiteOutputs { low: outputs[1], high: outputs[STAGES.len() - 1] }
}

/// Adds the first `count` of the seven stages on normalized pixels; returns the output of each, the
/// first ones at strides 2, 4 and 8.
pub(crate) fn stages(
    graph: &mut Graph,
    prefix: &str,
    variant: LiteScaling,
    output_stride: usize,
    count: usize,
    pixels: NodeId,
) -> Vec<NodeId> {
    let stem = Op::Conv(same(Conv::new(32, 3), 2, 1));
    let stem = graph.push(format!("{prefix}_conv_stem"), stem, &[pixels]);
    let mut last = norm_relu6(graph, &format!("{prefix}_bn0"), stem);
    let mut outputs = Vec::with_capacity(count);
    let mut block = 0;
    let mut stride = 2;
    let mut dilation = 1;
    for (index, stage) in STAGES.iter().enumerate().take(count) {
        for repeat in 0..variant.repeats(index) {
            let mut step = if repeat == 0 { stage.stride } else { 1 };
            // The first block of a stage whose stride became dilation has the dilation before it.
            let own_dilation = dilation;
            if stride * step > output_stride {
                dilation *= step;
                step = 1;
            }
            stride *= step;
            let name = format!("{prefix}_blocks.{block}.");
            let depthwise = same(Conv::new(0, stage.kernel), step, own_dilation);
            let out = variant.channels(stage.out);
            last = inverted_bottleneck(graph, &name, depthwise, [stage.expand, out], last);
            block += 1;
        }
        outputs.push(last);
    }
    outputs
}

/// Builds the ImageNet classifier with its published parameters and logits `[N, 1000]`.
pub fn classifier(variant: LiteScaling) -> Graph {
    let mut graph = Graph::new();
    let high = encoder(&mut graph, "", variant, 32).high;
    let head = graph.push("_conv_head", Op::Conv(Conv::new(1280, 1)), &[high]);
    let head = norm_relu6(&mut graph, "_bn1", head);
    let pooled = graph.push("_avg_pooling", Op::GlobalAvgPool, &[head]);
    let dropped = graph.push("_dropout", Op::Dropout2d { p: 0.2 }, &[pooled]);
    let logits = graph.push("_fc", Op::Linear { out: 1000 }, &[dropped]);
    graph.tag(Tag::Logits, logits);
    graph
}

/// Static SAME padding: at stride 2 one pixel less at the top and left than at bottom and right.
fn same(conv: Conv, stride: usize, dilation: usize) -> Conv {
    let total = dilation * (conv.kernel - 1) + 1 - stride;
    let before = total / 2;
    let after = total - before;
    Conv { stride, dilation, pads: [before, before, after, after], ..conv }
}

/// Adds an inverted bottleneck. Channels and groups of `depthwise` follow from the input.
fn inverted_bottleneck(
    graph: &mut Graph,
    name: &str,
    depthwise: Conv,
    [expand, out]: [usize; 2],
    input: NodeId,
) -> NodeId {
    let channels = graph.node(input).channels;
    let wide = channels * expand;
    let mut last = input;
    if expand != 1 {
        last = graph.push(format!("{name}_expand_conv"), Op::Conv(Conv::new(wide, 1)), &[last]);
        last = norm_relu6(graph, &format!("{name}_bn0"), last);
    }
    let depthwise = Conv { out: wide, groups: wide, ..depthwise };
    last = graph.push(format!("{name}_depthwise_conv"), Op::Conv(depthwise), &[last]);
    last = norm_relu6(graph, &format!("{name}_bn1"), last);
    last = graph.push(format!("{name}_project_conv"), Op::Conv(Conv::new(out, 1)), &[last]);
    last = graph.push(format!("{name}_bn2"), NORM, &[last]);
    if depthwise.stride == 1 && channels == out {
        last = graph.push(format!("{name}add"), Op::Add, &[last, input]);
    }
    last
}

fn norm_relu6(graph: &mut Graph, name: &str, input: NodeId) -> NodeId {
    let normed = graph.push(name, NORM, &[input]);
    graph.push(format!("{name}.relu"), Op::Relu6, &[normed])
}
