//! ResNet encoders with deep stem, output stride 8 and multi-grid, as in U2PL's `resnet.py`.

use crate::graph::{Conv, Graph, NodeId, Op};

/// Mean and standard deviation of ImageNet's channels, in units of 0 to 255.
pub const IMAGENET: Op =
    Op::Normalize { mean: [123.675, 116.28, 103.53], std: [58.395, 57.12, 57.375] };

/// PyTorch's defaults.
const NORM: Op = Op::BatchNorm { eps: 1e-5, momentum: 0.1 };

/// Stage outputs for a decoder: 256, 1024 and 2048 channels at strides 4, 8 and 8.
pub(crate) struct ResNetOutputs {
    pub(crate) layer1: NodeId,
    pub(crate) layer3: NodeId,
    pub(crate) layer4: NodeId,
}

/// Adds an encoder with `blocks` bottlenecks in each stage, its names below `encoder.`.
pub(crate) fn encoder(graph: &mut Graph, blocks: [usize; 4]) -> ResNetOutputs {
    let mut last = graph.push("normalize", IMAGENET, &[graph.input()]);
    let stem = [
        (["encoder.conv1.0", "encoder.conv1.1", "encoder.conv1.2"], Conv::new(64, 3).stride(2)),
        (["encoder.conv1.3", "encoder.conv1.4", "encoder.conv1.5"], Conv::new(64, 3)),
        (["encoder.conv1.6", "encoder.bn1", "encoder.relu"], Conv::new(128, 3)),
    ];
    for (names, conv) in stem {
        last = conv_norm_relu(graph, names, conv, last);
    }
    let pool = Op::MaxPool { kernel: 3, stride: 2, pad: 1, ceil_mode: true };
    let pooled = graph.push("encoder.maxpool", pool, &[last]);

    let layer1 = stage(graph, "encoder.layer1", Conv::new(64, 3), &vec![1; blocks[0]], pooled);
    let strided = Conv::new(128, 3).stride(2);
    let layer2 = stage(graph, "encoder.layer2", strided, &vec![1; blocks[1]], layer1);
    // A stage whose stride became dilation starts with the dilation before it.
    let mut dilations = vec![2; blocks[2]];
    dilations[0] = 1;
    let layer3 = stage(graph, "encoder.layer3", Conv::new(256, 3), &dilations, layer2);
    // Multi-grid 2, 2, 4 times the dilation of 2 (first block) and 4.
    let dilations = &[2 * 2, 4 * 2, 4 * 4][..blocks[3]];
    let layer4 = stage(graph, "encoder.layer4", Conv::new(512, 3), dilations, layer3);
    ResNetOutputs { layer1, layer3, layer4 }
}

/// Adds a stage of bottlenecks with one dilation each; the first carries the stride of `middle`.
fn stage(
    graph: &mut Graph,
    name: &str,
    middle: Conv,
    dilations: &[usize],
    input: NodeId,
) -> NodeId {
    let mut last = input;
    for (index, &dilation) in dilations.iter().enumerate() {
        let stride = if index == 0 { middle.stride } else { 1 };
        let middle = middle.stride(stride).dilation(dilation);
        last = bottleneck(graph, &format!("{name}.{index}"), middle, index == 0, last);
    }
    last
}

/// Adds 1x1, 3x3 (`middle`, with stride and dilation) and 1x1 to four times the width, and the
/// shortcut.
fn bottleneck(graph: &mut Graph, name: &str, middle: Conv, project: bool, input: NodeId) -> NodeId {
    let part = |part: &str| format!("{name}.{part}");
    let names = |index: usize| {
        [format!("{name}.conv{index}"), format!("{name}.bn{index}"), format!("{name}.relu{index}")]
    };
    let reduced = conv_norm_relu(graph, names(1), Conv::new(middle.out, 1), input);
    let spread = conv_norm_relu(graph, names(2), middle, reduced);
    let wide = Conv::new(4 * middle.out, 1);
    let expanded = conv_norm(graph, [part("conv3"), part("bn3")], wide, spread);
    let shortcut = if project {
        let names = [part("downsample.0"), part("downsample.1")];
        conv_norm(graph, names, wide.stride(middle.stride), input)
    } else {
        input
    };
    let sum = graph.push(part("add"), Op::Add, &[expanded, shortcut]);
    graph.push(part("relu3"), Op::Relu, &[sum])
}

/// Adds a convolution, batch normalization and ReLU.
pub(crate) fn conv_norm_relu<S: Into<String>>(
    graph: &mut Graph,
    [conv_name, norm_name, relu_name]: [S; 3],
    conv: Conv,
    input: NodeId,
) -> NodeId {
    let normed = conv_norm(graph, [conv_name, norm_name], conv, input);
    graph.push(relu_name, Op::Relu, &[normed])
}

fn conv_norm<S: Into<String>>(
    graph: &mut Graph,
    [conv_name, norm_name]: [S; 2],
    conv: Conv,
    input: NodeId,
) -> NodeId {
    let convolved = graph.push(conv_name, Op::Conv(conv), &[input]);
    graph.push(norm_name, NORM, &[convolved])
}
