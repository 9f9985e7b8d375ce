//! Output shapes, derived from the graph.

use crate::graph::{Graph, Node, Op};

/// A picture too small for a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a picture of {height}x{width} pixels is too small for the network: `{node}` would have no output"
)]
pub struct InputTooSmall {
    /// Height of the picture.
    pub height: usize,
    /// Width of the picture.
    pub width: usize,
    /// The first node without an output.
    pub node: String,
}

impl Graph {
    /// The shape of each node's output for pictures `[batch, height, width, 3]`, in node order: `[N, C, H, W]`, but for
    /// the input's `[N, H, W, 3]` and `[N, out]` of a linear layer.
    pub fn shapes(
        &self,
        batch: usize,
        height: usize,
        width: usize,
    ) -> Result<Vec<Vec<usize>>, InputTooSmall> {
        let mut sizes: Vec<[usize; 2]> = Vec::with_capacity(self.nodes().len());
        let mut shapes = Vec::with_capacity(self.nodes().len());
        for node in self.nodes() {
            let size = spatial(node, &sizes, [height, width]).ok_or_else(|| InputTooSmall {
                height,
                width,
                node: node.name.clone(),
            })?;
            shapes.push(match node.op {
                Op::Input => vec![batch, height, width, 3],
                Op::Linear { out } => vec![batch, out],
                _ => vec![batch, node.channels, size[0], size[1]],
            });
            sizes.push(size);
        }
        Ok(shapes)
    }
}

fn spatial(node: &Node, sizes: &[[usize; 2]], picture: [usize; 2]) -> Option<[usize; 2]> {
    let of = |index: usize| sizes[node.inputs[index].0];
    let size = match node.op {
        Op::Input => picture,
        Op::Conv(conv) => {
            let reach = conv.dilation * (conv.kernel - 1) + 1;
            let out = |length: usize, before: usize, after: usize| {
                (length + before + after).checked_sub(reach).map(|rest| rest / conv.stride + 1)
            };
            [out(of(0)[0], conv.pads[0], conv.pads[2])?, out(of(0)[1], conv.pads[1], conv.pads[3])?]
        }
        Op::MaxPool { kernel, stride, pad, ceil_mode } => {
            let out = |length: usize| pooled(length, kernel, stride, pad, ceil_mode);
            [out(of(0)[0])?, out(of(0)[1])?]
        }
        Op::GlobalAvgPool | Op::Linear { .. } => [1, 1],
        Op::Resize { .. } => of(1),
        Op::Normalize { .. }
        | Op::BatchNorm { .. }
        | Op::Relu
        | Op::Relu6
        | Op::Add
        | Op::Concat
        | Op::Dropout2d { .. } => of(0),
    };
    (size[0] > 0 && size[1] > 0).then_some(size)
}

/// PyTorch's rule: a partial last window counts in ceil mode, unless it would start in the padding behind the input.
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

    #[test]
    fn pooling_sizes_follow_pytorch() {
        // MaxPool2d(3, 2, 1, ceil_mode=True) maps 257 to 129, 112 to 57 and 4 to 3; without ceil mode 112 to 56.
        assert_eq!(pooled(257, 3, 2, 1, true), Some(129));
        assert_eq!(pooled(112, 3, 2, 1, true), Some(57));
        assert_eq!(pooled(4, 3, 2, 1, true), Some(3));
        assert_eq!(pooled(112, 3, 2, 1, false), Some(56));
        assert_eq!(pooled(1, 2, 2, 0, false), None);
    }
}
