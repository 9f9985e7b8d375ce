//! ResNet encoders with the deep stem, output stride 8 and multi-grid of the paper's line of work (U2PL `resnet.py`).

use crate::graph::{Conv, Graph, NodeId, Op};

/// Means and deviations of ImageNet's channels, in units of 0 to 255.
pub const IMAGENET: Op =
    Op::Normalize { mean: [123.675, 116.28, 103.53], std: [58.395, 57.12, 57.375] };

/// PyTorch's defaults.
const NORM: Op = Op::BatchNorm { eps: 1e-5, momentum: 0.1 };

/// Outputs of the stages that a decoder reads: 256, 1024 and 2048 channels at strides 4, 8 and 8.
pub(crate) struct ResNetOutputs {
    pub(crate) layer1: NodeId,
    pub(crate) layer3: NodeId,
    pub(crate) layer4: NodeId,
}

/// Adds an encoder of `blocks` bottlenecks a stage, with parameter names below `encoder.`.
pub(crate) fn encoder(graph: &mut Graph, blocks: [usize; 4]) -> ResNetOutputs {
    let pixels = graph.push("normalize", IMAGENET, &[graph.input()]);
    let stem = conv_norm_relu(
        graph,
        ["encoder.conv1.0", "encoder.conv1.1", "encoder.conv1.2"],
        Conv::new(64, 3).stride(2),
        pixels,
    );
    let stem = conv_norm_relu(
        graph,
        ["encoder.conv1.3", "encoder.conv1.4", "encoder.conv1.5"],
        Conv::new(64, 3),
        stem,
    );
    let stem = conv_norm_relu(
        graph,
        ["encoder.conv1.6", "encoder.bn1", "encoder.relu"],
        Conv::new(128, 3),
        stem,
    );
    let pool = Op::MaxPool { kernel: 3, stride: 2, pad: 1, ceil_mode: true };
    let pooled = graph.push("encoder.maxpool", pool, &[stem]);

    let layer1 = stage(
        graph,
        "encoder.layer1",
        ResNetStage { width: 64, stride: 1, dilations: vec![1; blocks[0]] },
        pooled,
    );
    let layer2 = stage(
        graph,
        "encoder.layer2",
        ResNetStage { width: 128, stride: 2, dilations: vec![1; blocks[1]] },
        layer1,
    );
    // A stage whose stride became dilation enters at the dilation before it.
    let dilations = std::iter::once(1).chain(std::iter::repeat_n(2, blocks[2] - 1)).collect();
    let layer3 =
        stage(graph, "encoder.layer3", ResNetStage { width: 256, stride: 1, dilations }, layer2);
    // Multi-grid 2, 2, 4 times the dilation of 2 (first block) and 4.
    let dilations = [2, 4, 4]
        .iter()
        .zip([2, 2, 4])
        .map(|(dilation, grid)| dilation * grid)
        .take(blocks[3])
        .collect();
    let layer4 =
        stage(graph, "encoder.layer4", ResNetStage { width: 512, stride: 1, dilations }, layer3);
    ResNetOutputs { layer1, layer3, layer4 }
}

struct ResNetStage {
    width: usize,
    stride: usize,
    /// Of the 3x3 convolution, one a block.
    dilations: Vec<usize>,
}

fn stage(graph: &mut Graph, name: &str, stage: ResNetStage, input: NodeId) -> NodeId {
    let ResNetStage { width, stride, dilations } = stage;
    dilations.iter().enumerate().fold(input, |input, (index, &dilation)| {
        let name = format!("{name}.{index}");
        let stride = if index == 0 { stride } else { 1 };
        bottleneck(
            graph,
            &name,
            Conv::new(width, 3).stride(stride).dilation(dilation),
            index == 0,
            input,
        )
    })
}

/// 1x1, 3x3 (which carries stride and dilation), 1x1 to four times the width, and the shortcut.
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
        conv_norm(
            graph,
            [part("downsample.0"), part("downsample.1")],
            wide.stride(middle.stride),
            input,
        )
    } else {
        input
    };
    let sum = graph.push(part("add"), Op::Add, &[expanded, shortcut]);
    graph.push(part("relu3"), Op::Relu, &[sum])
}

/// Convolution, batch normalisation and ReLU under three names.
pub(crate) fn conv_norm_relu<S: Into<String>>(
    graph: &mut Graph,
    names: [S; 3],
    conv: Conv,
    input: NodeId,
) -> NodeId {
    let [conv_name, norm_name, relu_name] = names;
    let normed = conv_norm(graph, [conv_name, norm_name], conv, input);
    graph.push(relu_name, Op::Relu, &[normed])
}

fn conv_norm<S: Into<String>>(
    graph: &mut Graph,
    names: [S; 2],
    conv: Conv,
    input: NodeId,
) -> NodeId {
    let [conv_name, norm_name] = names;
    let convolved = graph.push(conv_name, Op::Conv(conv), &[input]);
    graph.push(norm_name, NORM, &[convolved])
}
