//! Affine operations one after the other, made one in 64-bit floats.
//!
//! A batch normalisation before a convolution without padding, and a 1x1 convolution behind another, are a convolution
//! again. Two convolutions are joined only where the one does not multiply more than the two did: an inverted bottleneck is
//! narrow between its blocks for a reason.

use std::sync::Arc;

use anyhow::{Context, Result};
use protoseg_models::graph::{Conv, Node, NodeId, Op, Rewrite};
use protoseg_models::weights::Tensor;

use crate::network::{Network, Weights};
use crate::passes::fold::slopes_and_shifts;

/// Two nodes that become one.
#[derive(Debug, Clone, Copy)]
enum Pair {
    /// A batch normalisation that only a convolution without padding reads.
    NormConv { norm: NodeId, conv: NodeId },
    /// A convolution that only a 1x1 convolution reads.
    ConvConv { first: NodeId, second: NodeId },
}

impl Network {
    /// The same network with neighbouring affine operations joined, wherever nothing else reads what lies between them.
    pub fn merge_affine(mut self) -> Result<Self> {
        while let Some(pair) = self.pair() {
            self = match pair {
                Pair::NormConv { norm, conv } => self.norm_into(norm, conv)?,
                Pair::ConvConv { first, second } => self.conv_into(first, second)?,
            };
        }
        Ok(self)
    }

    fn pair(&self) -> Option<Pair> {
        let readers = self.reader_counts();
        self.graph.iter().find_map(|(id, node)| {
            let Op::Conv(second) = node.op else { return None };
            let before = *node.inputs.first().filter(|before| readers[before.0] == 1)?;
            match self.graph.node(before).op {
                Op::BatchNorm { .. } if second.pads == [0; 4] => {
                    Some(Pair::NormConv { norm: before, conv: id })
                }
                Op::Conv(first) if is_mix(second) && self.pays(before, first, second) => {
                    Some(Pair::ConvConv { first: before, second: id })
                }
                _ => None,
            }
        })
    }

    /// Whether one convolution multiplies no more than the two, for each place of their value.
    fn pays(&self, id: NodeId, first: Conv, second: Conv) -> bool {
        let channels = self.graph.node(self.graph.node(id).inputs[0]).channels;
        let of_each = channels * first.kernel * first.kernel;
        first.groups == 1 && second.out * of_each <= first.out * of_each + second.out * first.out
    }

    /// `conv(norm(x))` as one convolution, under the names of `conv`.
    fn norm_into(mut self, norm: NodeId, conv: NodeId) -> Result<Self> {
        let (Op::BatchNorm { eps, .. }, Op::Conv(shape)) =
            (&self.graph.node(norm).op, &self.graph.node(conv).op)
        else {
            return Ok(self);
        };
        let (eps, shape) = (*eps, *shape);
        let name = self.graph.node(conv).name.clone();
        let (slopes, shifts) =
            slopes_and_shifts(&mut self.weights, &self.graph.node(norm).name, eps)?;
        let (mut kernels, mut bias) = take(&mut self.weights, &name, shape.out)?;
        let taps = shape.kernel * shape.kernel;
        let inside = kernels.data.len() / shape.out / taps;
        let mut weights = Vec::with_capacity(kernels.data.len());
        for (out, kernel) in kernels.data.chunks_exact(inside * taps).enumerate() {
            let group = out / (shape.out / shape.groups);
            for (index, &weight) in kernel.iter().enumerate() {
                let channel = group * inside + index / taps;
                weights.push((f64::from(weight) * slopes[channel]) as f32);
                bias[out] += f64::from(weight) * shifts[channel];
            }
        }
        kernels.data = weights;
        put(&mut self.weights, &name, kernels, &bias);
        self.without(norm, conv, conv, Conv { bias: true, ..shape })
    }

    /// `second(first(x))` as one convolution, under the names of `first`; its value is called as the second's was.
    fn conv_into(mut self, first: NodeId, second: NodeId) -> Result<Self> {
        let (Op::Conv(shape), Op::Conv(mix)) =
            (&self.graph.node(first).op, &self.graph.node(second).op)
        else {
            return Ok(self);
        };
        let (shape, mix) = (*shape, *mix);
        let [name, mixing] = [first, second].map(|id| self.graph.node(id).name.clone());
        let (mut kernels, shifts) = take(&mut self.weights, &name, shape.out)?;
        let (mixed, mut bias) = take(&mut self.weights, &mixing, mix.out)?;
        let size = kernels.data.len() / shape.out;
        let mut weights = Vec::with_capacity(mix.out * size);
        for (out, row) in mixed.data.chunks_exact(shape.out).enumerate() {
            bias[out] += row
                .iter()
                .zip(&shifts)
                .map(|(&share, shift)| f64::from(share) * shift)
                .sum::<f64>();
            let weight = |index: usize| -> f64 {
                let column = kernels.data.iter().skip(index).step_by(size);
                row.iter()
                    .zip(column)
                    .map(|(&share, &weight)| f64::from(share) * f64::from(weight))
                    .sum()
            };
            weights.extend((0..size).map(|index| weight(index) as f32));
        }
        kernels.shape[0] = mix.out;
        kernels.data = weights;
        put(&mut self.weights, &name, kernels, &bias);
        self.without(second, first, second, Conv { out: mix.out, bias: true, ..shape })
    }

    /// The network without a node, of which `kept` does the work from now on as `conv`. The value of `kept` is called as
    /// `value`'s was.
    fn without(self, gone: NodeId, kept: NodeId, value: NodeId, conv: Conv) -> Result<Self> {
        let Self { graph, weights, values, outputs, pixel_outputs, prototype_head } = self;
        let mut names = Vec::with_capacity(values.len());
        let graph = graph.filter_map(|id, node| {
            if id == gone {
                return Rewrite::Bypass(node.inputs[0]);
            }
            names.push(values[if id == kept { value } else { id }.0].clone());
            if id != kept {
                return Rewrite::Keep(node.clone());
            }
            Rewrite::Keep(Node { op: Op::Conv(conv), channels: conv.out, ..node.clone() })
        });
        graph.check_weights(&weights).context("after joining affine operations")?;
        Ok(Self { graph, weights, values: names, outputs, pixel_outputs, prototype_head })
    }
}

/// Whether a convolution mixes the channels of each place and does nothing else.
fn is_mix(conv: Conv) -> bool {
    conv.kernel == 1 && conv.stride == 1 && conv.pads == [0; 4] && conv.groups == 1
}

/// Takes the kernels of a convolution out of the weights, and its bias, zeros where it has none.
fn take(weights: &mut Weights, name: &str, out: usize) -> Result<(Tensor, Vec<f64>)> {
    let kernels = weights
        .remove(&format!("{name}.weight"))
        .with_context(|| format!("`{name}` has no weights"))?;
    let bias = weights.remove(&format!("{name}.bias"));
    let bias = bias
        .map_or(vec![0.0; out], |bias| bias.data.iter().map(|&value| f64::from(value)).collect());
    Ok((Arc::unwrap_or_clone(kernels), bias))
}

fn put(weights: &mut Weights, name: &str, kernels: Tensor, bias: &[f64]) {
    let bias =
        Tensor { shape: vec![bias.len()], data: bias.iter().map(|&value| value as f32).collect() };
    weights.insert(format!("{name}.weight"), Arc::new(kernels));
    weights.insert(format!("{name}.bias"), Arc::new(bias));
}

#[cfg(test)]
mod tests {
    use protoseg_models::arch::{Arch, Preset};
    use protoseg_models::formula;
    use protoseg_models::graph::{Graph, Tag};
    use protoseg_models::random::Stream;

    use super::*;

    const NORM: Op = Op::BatchNorm { eps: 1e-3, momentum: 0.1 };

    /// What a chain of convolutions and batch normalisations makes of `[3, 6, 6]`, by the definition: values and side.
    fn run(graph: &Graph, weights: &Weights, input: &[f64]) -> Vec<f64> {
        let (mut values, mut side) = (input.to_vec(), 6);
        let of = |name: String| weights.get(&name).map(|tensor| tensor.data.clone());
        for node in &graph.nodes()[2..] {
            let part = |part: &str| of(format!("{}.{part}", node.name));
            match node.op {
                Op::Conv(conv) => {
                    (values, side) = convolve(
                        conv,
                        &part("weight").unwrap(),
                        part("bias").as_deref(),
                        &values,
                        side,
                    );
                }
                Op::BatchNorm { eps, .. } => {
                    let [scale, shift, mean, variance] =
                        ["weight", "bias", "running_mean", "running_var"]
                            .map(|name| part(name).unwrap());
                    for (index, value) in values.iter_mut().enumerate() {
                        let channel = index / (side * side);
                        let deviation = (f64::from(variance[channel]) + eps).sqrt();
                        *value = (*value - f64::from(mean[channel])) / deviation
                            * f64::from(scale[channel])
                            + f64::from(shift[channel]);
                    }
                }
                _ => panic!("{} is not affine", node.name),
            }
        }
        values
    }

    /// A convolution of stride 1 and dilation 1.
    fn convolve(
        conv: Conv,
        weights: &[f32],
        bias: Option<&[f32]>,
        input: &[f64],
        side: usize,
    ) -> (Vec<f64>, usize) {
        let after = side + 2 * conv.pads[0] + 1 - conv.kernel;
        let inside = input.len() / side / side / conv.groups;
        let mut values = Vec::new();
        for index in 0..conv.out * after * after {
            let (out, y, x) = (index / after / after, index / after % after, index % after);
            let mut sum = bias.map_or(0.0, |bias| f64::from(bias[out]));
            for (channel, tap) in (0..inside * conv.kernel * conv.kernel).map(|index| {
                (index / conv.kernel / conv.kernel, index % (conv.kernel * conv.kernel))
            }) {
                let (row, column) = (y + tap / conv.kernel, x + tap % conv.kernel);
                let (Some(row), Some(column)) =
                    (row.checked_sub(conv.pads[0]), column.checked_sub(conv.pads[1]))
                else {
                    continue;
                };
                if row < side && column < side {
                    let source = out / (conv.out / conv.groups) * inside + channel;
                    let weight =
                        weights[(out * inside + channel) * conv.kernel * conv.kernel + tap];
                    sum += f64::from(weight) * input[(source * side + row) * side + column];
                }
            }
            values.push(sum);
        }
        (values, after)
    }

    fn chain(operations: &[(&str, Op)]) -> Network {
        let mut graph = Graph::new();
        let mut last =
            graph.push("pixels", Op::Normalize { mean: [0.0; 3], std: [1.0; 3] }, &[graph.input()]);
        for (name, op) in operations {
            last = graph.push(*name, op.clone(), &[last]);
        }
        let weights = formula::weights(&graph, Some(5));
        Network::new(&graph, &weights, &[(last, "out")]).unwrap()
    }

    fn names(network: &Network) -> Vec<&str> {
        network.graph.nodes()[2..].iter().map(|node| node.name.as_str()).collect()
    }

    #[test]
    fn joined_operations_compute_what_they_did_one_by_one() {
        let unpadded = |out: usize, kernel: usize| Conv::new(out, kernel).pads([0; 4]);
        let stream = Stream::named("values");
        let input: Vec<f64> = (0..108).map(|index| stream.signed_unit(index) * 2.0).collect();
        // What there is, and the names of what is left.
        type Case<'a> = (&'a [(&'a str, Op)], &'a [&'a str]);
        let cases: [Case<'_>; 8] = [
            (&[("a", Op::Conv(Conv::new(8, 3))), ("b", Op::Conv(Conv::new(4, 1).bias()))], &["a"]),
            (&[("a", Op::Conv(Conv::new(8, 1).bias())), ("b", Op::Conv(Conv::new(2, 1)))], &["a"]),
            (&[("n", NORM), ("c", Op::Conv(unpadded(4, 3)))], &["c"]),
            (&[("n", NORM), ("c", Op::Conv(unpadded(6, 3).groups(3).bias()))], &["c"]),
            (&[("m", NORM), ("n", NORM), ("c", Op::Conv(unpadded(4, 1)))], &["c"]),
            // Padding stands behind the normalisation; a wider product, or one over all groups, costs more.
            (&[("n", NORM), ("c", Op::Conv(Conv::new(4, 3)))], &["n", "c"]),
            (&[("a", Op::Conv(Conv::new(1, 1))), ("b", Op::Conv(Conv::new(9, 1)))], &["a", "b"]),
            (
                &[("a", Op::Conv(Conv::new(6, 3).groups(3))), ("b", Op::Conv(Conv::new(2, 1)))],
                &["a", "b"],
            ),
        ];
        for (operations, left) in cases {
            let network = chain(operations);
            let expected = run(&network.graph, &network.weights, &input);
            let value = network.value(NodeId(network.graph.nodes().len() - 1)).to_owned();
            let joined = network.merge_affine().unwrap();
            assert_eq!(names(&joined), left);
            assert_eq!(joined.value(NodeId(joined.graph.nodes().len() - 1)), value);
            let found = run(&joined.graph, &joined.weights, &input);
            let largest = expected.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                assert!(
                    (found - expected).abs() < 1e-6 * largest,
                    "{left:?}: {found} is not {expected}"
                );
            }
        }
    }

    #[test]
    fn what_others_read_stays() {
        let mut graph = Graph::new();
        let pixels =
            graph.push("pixels", Op::Normalize { mean: [0.0; 3], std: [1.0; 3] }, &[graph.input()]);
        let first = graph.push("a", Op::Conv(Conv::new(8, 1)), &[pixels]);
        let second = graph.push("b", Op::Conv(Conv::new(2, 1)), &[first]);
        let weights = formula::weights(&graph, None);
        let network =
            Network::new(&graph, &weights, &[(second, "out"), (first, "middle")]).unwrap();
        assert_eq!(network.clone().merge_affine().unwrap(), network);
    }

    #[test]
    fn no_preset_has_anything_to_join_that_pays() {
        for preset in Preset::ALL {
            let graph = Arch::new(preset, 19).unwrap().graph();
            let logits = graph.tagged(Tag::Logits).unwrap();
            let network =
                Network::new(&graph, &formula::weights(&graph, None), &[(logits, "logits")])
                    .unwrap();
            let folded = network.fold_batch_norm().unwrap();
            assert_eq!(names(&folded.clone().merge_affine().unwrap()), names(&folded), "{preset}");
        }
    }
}
