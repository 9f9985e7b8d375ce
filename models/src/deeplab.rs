//! DeepLabV3+ decoders: the paper's on ResNets (U2PL `decoder.py`) and a separable one on EfficientNet-Lite.

use crate::efficientnet_lite::{self, LiteOutputs, LiteScaling};
use crate::graph::{Conv, Graph, NodeId, Op, Tag};
use crate::resnet::{self, ResNetOutputs, conv_norm_relu};

/// Share of channels that every dropout of both decoders drops in training.
const DROPOUT: Op = Op::Dropout2d { p: 0.1 };

/// The ResNets resize with aligned corners, the Lites with half-pixel centres.
const ALIGNED: Op = Op::Resize { align_corners: true };
const HALF_PIXEL: Op = Op::Resize { align_corners: false };

/// The paper's network on a ResNet of `blocks` bottlenecks a stage, features of 512 channels at stride 4.
pub(crate) fn on_resnet(blocks: [usize; 4], classes: usize, auxiliary: bool) -> Graph {
    let mut graph = Graph::new();
    let ResNetOutputs { layer1, layer3, layer4 } = resnet::encoder(&mut graph, blocks);
    let pyramid = pyramid(&mut graph, layer4);
    let pyramid = conv_norm_relu(
        &mut graph,
        ["decoder.head.0", "decoder.head.1", "decoder.head.2"],
        Conv::new(256, 3),
        pyramid,
    );
    let pyramid = graph.push("decoder.head.3", DROPOUT, &[pyramid]);
    let names = ["decoder.low_conv.0", "decoder.low_conv.1", "decoder.low_conv.2"];
    let low = conv_norm_relu(&mut graph, names, Conv::new(256, 1).bias(), layer1);
    let pyramid = graph.push("decoder.resize", ALIGNED, &[pyramid, low]);
    let features = graph.push("decoder.concat", Op::Concat, &[low, pyramid]);
    graph.tag(Tag::Features, features);

    let logits = ["decoder.classifier.0", "decoder.classifier.4"].into_iter().zip([0, 4]).fold(
        features,
        |input, (name, first)| {
            let names = [
                name.to_owned(),
                format!("decoder.classifier.{}", first + 1),
                format!("decoder.classifier.{}", first + 2),
            ];
            let mapped = conv_norm_relu(&mut graph, names, Conv::new(256, 3).bias(), input);
            graph.push(format!("decoder.classifier.{}", first + 3), DROPOUT, &[mapped])
        },
    );
    let logits =
        graph.push("decoder.classifier.8", Op::Conv(Conv::new(classes, 1).bias()), &[logits]);
    graph.tag(Tag::Logits, logits);

    if auxiliary {
        let names = ["auxor.aux.0", "auxor.aux.1", "auxor.aux.2"];
        let mapped = conv_norm_relu(&mut graph, names, Conv::new(256, 3).bias(), layer3);
        let dropped = graph.push("auxor.aux.3", DROPOUT, &[mapped]);
        let aux = graph.push("auxor.aux.4", Op::Conv(Conv::new(classes, 1).bias()), &[dropped]);
        graph.tag(Tag::Aux, aux);
    }
    graph
}

/// Atrous spatial pyramid pooling: image mean, 1x1, and three dilated 3x3, 256 channels each.
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

/// A separable DeepLabV3+ on EfficientNet-Lite at encoder stride 16, features of 128 channels at stride 4 and a 1x1
/// classifier.
pub(crate) fn on_efficientnet_lite(variant: LiteScaling, classes: usize) -> Graph {
    let mut graph = Graph::new();
    let LiteOutputs { low, high } = efficientnet_lite::encoder(&mut graph, "encoder.", variant, 16);

    let mean = graph.push("decoder.aspp.pool", Op::GlobalAvgPool, &[high]);
    let mean = pointwise(&mut graph, "decoder.aspp.image", 128, mean);
    let mean = graph.push("decoder.aspp.image.resize", HALF_PIXEL, &[mean, high]);
    let mut branches = vec![mean, pointwise(&mut graph, "decoder.aspp.point", 128, high)];
    for dilation in [6, 12, 18] {
        branches.push(separable(
            &mut graph,
            &format!("decoder.aspp.dilated{dilation}"),
            dilation,
            high,
        ));
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
    let logits =
        graph.push("decoder.classifier", Op::Conv(Conv::new(classes, 1).bias()), &[dropped]);
    graph.tag(Tag::Logits, logits);
    graph
}

/// 1x1 convolution, batch normalisation, ReLU.
fn pointwise(graph: &mut Graph, name: &str, out: usize, input: NodeId) -> NodeId {
    let names = ["conv", "norm", "relu"].map(|part| format!("{name}.{part}"));
    conv_norm_relu(graph, names, Conv::new(out, 1), input)
}

/// Depthwise 3x3 and pointwise to 128 channels, each with batch normalisation; ReLU at both ends.
fn separable(graph: &mut Graph, name: &str, dilation: usize, input: NodeId) -> NodeId {
    let channels = graph.node(input).channels;
    let depthwise = Conv::new(channels, 3).dilation(dilation).groups(channels);
    let names =
        ["depthwise.conv", "depthwise.norm", "depthwise.relu"].map(|part| format!("{name}.{part}"));
    let spread = conv_norm_relu(graph, names, depthwise, input);
    pointwise(graph, &format!("{name}.pointwise"), 128, spread)
}
