//! DeepLabV3+ decoders: the paper's on ResNets (U2PL's `decoder.py`), a separable one on
//! EfficientNet-Lite.

use super::efficientnet_lite::{self, LiteOutputs, LiteScaling};
use super::resnet::{self, ResNetOutputs, conv_norm_relu};
use crate::graph::{Conv, Graph, NodeId, Op, Tag};

/// Every dropout of both decoders.
const DROPOUT: Op = Op::Dropout2d { p: 0.1 };

/// The ResNets resize with aligned corners, the Lites with half-pixel centers.
const ALIGNED: Op = Op::Resize { align_corners: true };
const HALF_PIXEL: Op = Op::Resize { align_corners: false };

/// Builds the paper's network on a ResNet with `blocks` bottlenecks in each stage; its features
/// have 512 channels at stride 4.
pub(crate) fn on_resnet(blocks: [usize; 4], classes: usize, auxiliary: bool) -> Graph {
    let mut graph = Graph::new();
    let ResNetOutputs { layer1, layer3, layer4 } = resnet::encoder(&mut graph, blocks);
    let pyramid = pyramid(&mut graph, layer4);
    let names = ["decoder.head.0", "decoder.head.1", "decoder.head.2"];
    let head = conv_norm_relu(&mut graph, names, Conv::new(256, 3), pyramid);
    let head = graph.push("decoder.head.3", DROPOUT, &[head]);
    let names = ["decoder.low_conv.0", "decoder.low_conv.1", "decoder.low_conv.2"];
    let low = conv_norm_relu(&mut graph, names, Conv::new(256, 1).bias(), layer1);
    let head = graph.push("decoder.resize", ALIGNED, &[head, low]);
    let features = graph.push("decoder.concat", Op::Concat, &[low, head]);
    graph.tag(Tag::Features, features);

    let classifier = Op::Conv(Conv::new(classes, 1).bias());
    let first = conv_dropout(&mut graph, "decoder.classifier", 0, features);
    let second = conv_dropout(&mut graph, "decoder.classifier", 4, first);
    let logits = graph.push("decoder.classifier.8", classifier.clone(), &[second]);
    graph.tag(Tag::Logits, logits);

    if auxiliary {
        let dropped = conv_dropout(&mut graph, "auxor.aux", 0, layer3);
        let aux = graph.push("auxor.aux.4", classifier, &[dropped]);
        graph.tag(Tag::Aux, aux);
    }
    graph
}

/// Adds a 3x3 convolution to 256 channels with bias, batch normalization, ReLU and dropout, named
/// by their index in a PyTorch `Sequential`.
fn conv_dropout(graph: &mut Graph, name: &str, index: usize, input: NodeId) -> NodeId {
    let names = [0, 1, 2].map(|part| format!("{name}.{}", index + part));
    let mapped = conv_norm_relu(graph, names, Conv::new(256, 3).bias(), input);
    graph.push(format!("{name}.{}", index + 3), DROPOUT, &[mapped])
}

/// Adds atrous spatial pyramid pooling: image mean, 1x1 and three dilated 3x3, 256 channels each.
fn pyramid(graph: &mut Graph, input: NodeId) -> NodeId {
    let mean = graph.push("decoder.aspp.conv1.0", Op::GlobalAvgPool, &[input]);
    let names = ["decoder.aspp.conv1.1", "decoder.aspp.conv1.2", "decoder.aspp.conv1.3"];
    let mean = conv_norm_relu(graph, names, Conv::new(256, 1), mean);
    let mut branches = vec![graph.push("decoder.aspp.resize", ALIGNED, &[mean, input])];
    let dilated = [12, 24, 36].map(|dilation| Conv::new(256, 3).dilation(dilation));
    for (index, conv) in std::iter::once(Conv::new(256, 1)).chain(dilated).enumerate() {
        let names = [0, 1, 2].map(|part| format!("decoder.aspp.conv{}.{part}", index + 2));
        branches.push(conv_norm_relu(graph, names, conv, input));
    }
    graph.push("decoder.aspp.concat", Op::Concat, &branches)
}

/// Builds a separable DeepLabV3+ on EfficientNet-Lite at encoder stride 16, with features of 128
/// channels at stride 4 and a 1x1 classifier.
pub(crate) fn on_efficientnet_lite(variant: LiteScaling, classes: usize) -> Graph {
    let mut graph = Graph::new();
    let LiteOutputs { low, high } = efficientnet_lite::encoder(&mut graph, "encoder.", variant, 16);

    let mean = graph.push("decoder.aspp.pool", Op::GlobalAvgPool, &[high]);
    let mean = pointwise(&mut graph, "decoder.aspp.image", 128, mean);
    let mean = graph.push("decoder.aspp.image.resize", HALF_PIXEL, &[mean, high]);
    let mut branches = vec![mean, pointwise(&mut graph, "decoder.aspp.point", 128, high)];
    for dilation in [6, 12, 18] {
        let name = format!("decoder.aspp.dilated{dilation}");
        branches.push(separable(&mut graph, &name, dilation, high));
    }
    let pyramid = graph.push("decoder.aspp.concat", Op::Concat, &branches);
    let pyramid = pointwise(&mut graph, "decoder.aspp.project", 128, pyramid);
    let pyramid = graph.push("decoder.aspp.dropout", DROPOUT, &[pyramid]);

    let low = pointwise(&mut graph, "decoder.low", 32, low);
    let pyramid = graph.push("decoder.resize", HALF_PIXEL, &[pyramid, low]);
    let joined = graph.push("decoder.concat", Op::Concat, &[low, pyramid]);
    let refined = separable(&mut graph, "decoder.refine1", 1, joined);
    let features = separable(&mut graph, "decoder.refine2", 1, refined);
    graph.tag(Tag::Features, features);
    let dropped = graph.push("decoder.dropout", DROPOUT, &[features]);
    let classifier = Op::Conv(Conv::new(classes, 1).bias());
    let logits = graph.push("decoder.classifier", classifier, &[dropped]);
    graph.tag(Tag::Logits, logits);
    graph
}

/// Adds a 1x1 convolution, batch normalization and ReLU.
fn pointwise(graph: &mut Graph, name: &str, out: usize, input: NodeId) -> NodeId {
    let names = ["conv", "norm", "relu"].map(|part| format!("{name}.{part}"));
    conv_norm_relu(graph, names, Conv::new(out, 1), input)
}

/// Adds depthwise 3x3 and pointwise to 128 channels, each with batch normalization and ReLU.
fn separable(graph: &mut Graph, name: &str, dilation: usize, input: NodeId) -> NodeId {
    let channels = graph.node(input).channels;
    let depthwise = Conv::new(channels, 3).dilation(dilation).groups(channels);
    let names =
        ["depthwise.conv", "depthwise.norm", "depthwise.relu"].map(|part| format!("{name}.{part}"));
    let spread = conv_norm_relu(graph, names, depthwise, input);
    pointwise(graph, &format!("{name}.pointwise"), 128, spread)
}
