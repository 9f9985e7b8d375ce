//! What a network costs and how far it sees, derived from the graph.

use crate::graph::{Graph, NodeId, Op};
use crate::shape::InputTooSmall;

impl Graph {
    /// Multiply-adds of convolutions and linear layers for one picture of a size.
    pub fn multiply_adds(&self, height: usize, width: usize) -> Result<u64, InputTooSmall> {
        let shapes = self.shapes(1, height, width)?;
        let cost = |(node, shape): (&crate::graph::Node, &Vec<usize>)| {
            let weights: usize = self
                .node_parameters(node)
                .iter()
                .filter(|parameter| parameter.shape.len() > 1)
                .map(|parameter| parameter.shape.iter().product::<usize>())
                .sum();
            let positions = shape.get(2..).map_or(1, |size| size.iter().product::<usize>());
            weights as u64 * positions as u64
        };
        Ok(self.nodes().iter().zip(&shapes).map(cost).sum())
    }

    /// Pixels of the picture per step of each node's output, in node order. A resize takes the stride of what it is made
    /// like; a global pool keeps that of its input.
    pub fn strides(&self) -> Vec<usize> {
        let mut strides: Vec<usize> = Vec::with_capacity(self.nodes().len());
        for node in self.nodes() {
            let of = |index: usize| strides[node.inputs[index].0];
            strides.push(match node.op {
                Op::Input => 1,
                Op::Conv(conv) => of(0) * conv.stride,
                Op::MaxPool { stride, .. } => of(0) * stride,
                Op::Resize { .. } => of(1),
                _ => of(0),
            });
        }
        strides
    }

    /// Pixels of the picture per step of a node's output.
    pub fn stride_of(&self, id: NodeId) -> usize {
        self.strides()[id.0]
    }

    /// The coarsest stride in the graph: the encoder's output stride.
    pub fn encoder_stride(&self) -> usize {
        self.strides().into_iter().max().unwrap_or(1)
    }

    /// Height and width in pixels that an output position of a node sees; `None` where a global pool lets it see everything.
    pub fn receptive_field(&self, id: NodeId) -> Option<usize> {
        let strides = self.strides();
        let mut fields: Vec<Option<usize>> = Vec::with_capacity(id.0 + 1);
        for node in &self.nodes()[..=id.0] {
            let widest = node
                .inputs
                .iter()
                .map(|input| fields[input.0])
                .try_fold(1, |widest, field| Some(widest.max(field?)));
            let step = node.inputs.first().map_or(1, |input| strides[input.0]);
            fields.push(match node.op {
                Op::GlobalAvgPool => None,
                Op::Conv(conv) => {
                    widest.map(|field| field + conv.dilation * (conv.kernel - 1) * step)
                }
                Op::MaxPool { kernel, .. } => widest.map(|field| field + (kernel - 1) * step),
                // Two source positions enter each output position.
                Op::Resize { .. } => widest.map(|field| field + step),
                _ => widest,
            });
        }
        fields.last().copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use crate::arch::{Arch, Preset};
    use crate::graph::Tag;

    #[test]
    fn receptive_fields_and_costs_equal_those_counted_by_hand() {
        let graph = Arch::new(Preset::DeepLabV3PlusResNet50, 21).unwrap().graph();
        let field = |name: &str| graph.receptive_field(graph.find(name).unwrap());
        // 3x3 at step 1, two 3x3 at step 2, pooling of 3 at step 2; then three 3x3 at step 4.
        assert_eq!((field("encoder.conv1.0"), field("encoder.maxpool")), (Some(3), Some(15)));
        assert_eq!(field("encoder.layer1.2.relu3"), Some(15 + 3 * 8));
        assert_eq!(graph.receptive_field(graph.tagged(Tag::Logits).unwrap()), None);
        // The stem on 64x64 pixels: 27 x 64 + 9 x 64 x 64 + 9 x 64 x 128 weights at 32x32 positions.
        let stem = graph.keep(&[graph.find("encoder.conv1.6").unwrap()]);
        assert_eq!(
            stem.multiply_adds(64, 64).unwrap(),
            (27 * 64 + 9 * 64 * 64 + 9 * 64 * 128) * 32 * 32
        );
    }
}
