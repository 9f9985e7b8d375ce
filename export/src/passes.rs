//! Graph passes before a network is written: affine operations are composed into one convolution.
//!
//! Batch normalization after a convolution is `scale (w x + b - mean) / sqrt(var + eps) + shift`,
//! a convolution again; a layer scale after a linear layer is one, too; so are batch normalization before a convolution without padding, and a 1x1
//! convolution after another one. All products are in 64-bit floats, so weights are rounded once.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use protoseg_models::analysis::Role;
use protoseg_models::graph::{Conv, Node, NodeId, Op, Rewrite};
use protoseg_models::weights::Tensor;

use crate::network::{Network, Weights};

/// Two nodes that can become one; nothing else reads the value between them.
#[derive(Debug, Clone, Copy)]
enum Pair {
    ConvNorm {
        conv: (NodeId, Conv),
        norm: NodeId,
        eps: f64,
    },
    NormConv {
        norm: NodeId,
        eps: f64,
        conv: (NodeId, Conv),
    },
    /// The second convolution is 1x1.
    ConvConv {
        first: (NodeId, Conv),
        second: (NodeId, Conv),
    },
}

impl Network {
    /// Folds batch normalizations into the convolutions before them. A convolution keeps its name
    /// and gets a bias; its value takes the name of the normalized one.
    pub fn fold_batch_norm(self) -> Result<Self> {
        self.compose(|pair| matches!(pair, Pair::ConvNorm { .. }))
    }

    /// Folds layer scales into the linear layers before them, whose values take their names.
    pub fn fold_layer_scale(mut self) -> Result<Self> {
        let readers = self.reader_counts();
        let mut folded = Vec::new();
        for (id, node) in self.graph.iter() {
            let before = node.inputs.first().copied().unwrap_or(id);
            let linear = self.graph.node(before);
            if readers[before.0] != 1
                || !matches!((&linear.op, &node.op), (Op::TokenLinear { .. }, Op::LayerScale))
            {
                continue;
            }
            let factors = take(&mut self.weights, &node.parameter_name(Role::LayerScale))?;
            for role in [Role::LinearWeight, Role::Bias] {
                let name = linear.parameter_name(role);
                let mut tensor = Arc::unwrap_or_clone(take(&mut self.weights, &name)?);
                let size = tensor.data.len() / factors.data.len();
                for (row, factor) in tensor.data.chunks_exact_mut(size).zip(&factors.data) {
                    row.iter_mut().for_each(|value| *value *= factor);
                }
                self.weights.insert(name, Arc::new(tensor));
            }
            folded.push((before, id));
        }
        let mut values = Vec::new();
        let graph = self.graph.filter_map(|id, node| {
            if folded.iter().any(|&(_, scale)| scale == id) {
                return Rewrite::Bypass(node.inputs[0]);
            }
            let scale = folded.iter().find(|&&(linear, _)| linear == id).map(|&(_, scale)| scale);
            values.push(self.values[scale.unwrap_or(id).0].clone());
            Rewrite::Keep(node.clone())
        });
        graph.check_weights(&self.weights).context("after folding layer scales")?;
        Ok(Self { graph, values, ..self })
    }

    /// Merges batch normalizations into the convolutions after them, and convolutions with 1x1
    /// convolutions after them where that saves multiplications: an inverted bottleneck is narrow
    /// between its blocks for a reason.
    pub fn merge_affine(self) -> Result<Self> {
        self.compose(|pair| !matches!(pair, Pair::ConvNorm { .. }))
    }

    /// Composes the first suitable pair until there is none.
    fn compose(mut self, suitable: fn(&Pair) -> bool) -> Result<Self> {
        while let Some(pair) = self.find_pair(suitable) {
            self = match pair {
                Pair::ConvNorm { conv, norm, eps } => self.norm_after(conv, norm, eps)?,
                Pair::NormConv { norm, eps, conv } => self.norm_before(norm, eps, conv)?,
                Pair::ConvConv { first, second } => self.conv_after(first, second)?,
            };
        }
        self.graph.check_weights(&self.weights).context("after composing affine operations")?;
        Ok(self)
    }

    fn find_pair(&self, suitable: fn(&Pair) -> bool) -> Option<Pair> {
        let readers = self.reader_counts();
        self.graph.iter().find_map(|(id, node)| {
            let before = *node.inputs.first().filter(|before| readers[before.0] == 1)?;
            let pair = match (&self.graph.node(before).op, &node.op) {
                (&Op::Conv(conv), &Op::BatchNorm { eps, .. }) => {
                    Pair::ConvNorm { conv: (before, conv), norm: id, eps }
                }
                (&Op::BatchNorm { eps, .. }, &Op::Conv(conv)) if conv.pads == [0; 4] => {
                    Pair::NormConv { norm: before, eps, conv: (id, conv) }
                }
                (&Op::Conv(first), &Op::Conv(second)) if self.saves(before, first, second) => {
                    Pair::ConvConv { first: (before, first), second: (id, second) }
                }
                _ => return None,
            };
            suitable(&pair).then_some(pair)
        })
    }

    /// Returns true if `second` is 1x1 and one convolution has no more multiplications for each
    /// position than the two.
    fn saves(&self, id: NodeId, first: Conv, second: Conv) -> bool {
        let pointwise = Conv { bias: second.bias, ..Conv::new(second.out, 1) };
        let channels = self.graph.node(self.graph.node(id).inputs[0]).channels;
        let inputs = channels * first.kernel * first.kernel;
        second == pointwise
            && first.groups == 1
            && second.out * inputs <= first.out * inputs + second.out * first.out
    }

    /// Composes `norm(conv(x))`, under the name of `conv` and the value name of `norm`.
    fn norm_after(mut self, (id, conv): (NodeId, Conv), norm: NodeId, eps: f64) -> Result<Self> {
        let name = self.graph.node(id).name.clone();
        let (slopes, shifts) = self.take_norm(norm, eps)?;
        let (mut kernels, mut bias) = take_conv(&mut self.weights, &name, conv.out)?;
        let size = kernels.data.len() / conv.out;
        for (channel, kernel) in kernels.data.chunks_exact_mut(size).enumerate() {
            for weight in kernel {
                *weight = (f64::from(*weight) * slopes[channel]) as f32;
            }
            bias[channel] = bias[channel] * slopes[channel] + shifts[channel];
        }
        put_conv(&mut self.weights, &name, kernels, &bias);
        Ok(self.replace_pair(norm, id, norm, conv))
    }

    /// Composes `conv(norm(x))`, under the names of `conv`.
    fn norm_before(mut self, norm: NodeId, eps: f64, (id, conv): (NodeId, Conv)) -> Result<Self> {
        let name = self.graph.node(id).name.clone();
        let (slopes, shifts) = self.take_norm(norm, eps)?;
        let (mut kernels, mut bias) = take_conv(&mut self.weights, &name, conv.out)?;
        let taps = conv.kernel * conv.kernel;
        let inputs = kernels.data.len() / conv.out / taps;
        for (out, kernel) in kernels.data.chunks_exact_mut(inputs * taps).enumerate() {
            let group = out / (conv.out / conv.groups);
            for (index, weight) in kernel.iter_mut().enumerate() {
                let channel = group * inputs + index / taps;
                bias[out] += f64::from(*weight) * shifts[channel];
                *weight = (f64::from(*weight) * slopes[channel]) as f32;
            }
        }
        put_conv(&mut self.weights, &name, kernels, &bias);
        Ok(self.replace_pair(norm, id, id, conv))
    }

    /// Composes `second(first(x))`, under the name of `first` and the value name of `second`.
    fn conv_after(
        mut self,
        (first_id, first): (NodeId, Conv),
        (second_id, second): (NodeId, Conv),
    ) -> Result<Self> {
        let [name, second_name] = [first_id, second_id].map(|id| self.graph.node(id).name.clone());
        let (mut kernels, shifts) = take_conv(&mut self.weights, &name, first.out)?;
        let (mix, mut bias) = take_conv(&mut self.weights, &second_name, second.out)?;
        let size = kernels.data.len() / first.out;
        let mut weights = Vec::with_capacity(second.out * size);
        for (out, row) in mix.data.chunks_exact(first.out).enumerate() {
            let product = |(&share, value): (&f32, f64)| f64::from(share) * value;
            bias[out] += row.iter().zip(shifts.iter().copied()).map(product).sum::<f64>();
            weights.extend((0..size).map(|index| {
                let column = kernels.data.iter().skip(index).step_by(size);
                row.iter().zip(column.map(|&weight| f64::from(weight))).map(product).sum::<f64>()
                    as f32
            }));
        }
        kernels.shape[0] = second.out;
        kernels.data = weights;
        put_conv(&mut self.weights, &name, kernels, &bias);
        Ok(self.replace_pair(second_id, first_id, second_id, Conv { out: second.out, ..first }))
    }

    /// Removes the parameters of a batch normalization; returns it as `slope x + shift` for each
    /// channel.
    fn take_norm(&mut self, norm: NodeId, eps: f64) -> Result<(Vec<f64>, Vec<f64>)> {
        let name = &self.graph.node(norm).name;
        let mut take = |part: &str| take(&mut self.weights, &format!("{name}.{part}"));
        let scale = take("weight")?;
        let shift = take("bias")?;
        let mean = take("running_mean")?;
        let variance = take("running_var")?;
        let mut slopes = Vec::with_capacity(variance.data.len());
        let mut shifts = Vec::with_capacity(variance.data.len());
        for (channel, &variance) in variance.data.iter().enumerate() {
            let variance = f64::from(variance);
            ensure!(
                variance + eps > 0.0,
                "`{name}` cannot be folded: the running variance of channel {channel} is \
                 {variance}, below zero"
            );
            let slope = f64::from(scale.data[channel]) / (variance + eps).sqrt();
            slopes.push(slope);
            shifts.push(f64::from(shift.data[channel]) - f64::from(mean.data[channel]) * slope);
        }
        Ok((slopes, shifts))
    }

    /// Removes a node, and makes `kept` the convolution `conv` with the value name of `value`.
    fn replace_pair(self, removed: NodeId, kept: NodeId, value: NodeId, conv: Conv) -> Self {
        let mut values = Vec::with_capacity(self.values.len());
        let graph = self.graph.filter_map(|id, node| {
            if id == removed {
                return Rewrite::Bypass(node.inputs[0]);
            }
            if id != kept {
                values.push(self.values[id.0].clone());
                return Rewrite::Keep(node.clone());
            }
            values.push(self.values[value.0].clone());
            let op = Op::Conv(Conv { bias: true, ..conv });
            Rewrite::Keep(Node { op, channels: conv.out, ..node.clone() })
        });
        Self { graph, values, ..self }
    }
}

fn take(weights: &mut Weights, name: &str) -> Result<Arc<Tensor>> {
    weights.remove(name).with_context(|| format!("tensor `{name}` is missing"))
}

/// Removes the kernels and the bias of a convolution; a missing bias is zero.
fn take_conv(weights: &mut Weights, name: &str, out: usize) -> Result<(Tensor, Vec<f64>)> {
    let kernels = take(weights, &format!("{name}.weight"))?;
    let bias = match weights.remove(&format!("{name}.bias")) {
        Some(bias) => bias.data.iter().map(|&value| f64::from(value)).collect(),
        None => vec![0.0; out],
    };
    Ok((Arc::unwrap_or_clone(kernels), bias))
}

fn put_conv(weights: &mut Weights, name: &str, kernels: Tensor, bias: &[f64]) {
    let bias = Tensor::from_fn(&[bias.len()], |channel| bias[channel] as f32);
    weights.insert(format!("{name}.weight"), Arc::new(kernels));
    weights.insert(format!("{name}.bias"), Arc::new(bias));
}

#[cfg(test)]
mod tests {
    use protoseg_models::arch::{Arch, Preset, vit};
    use protoseg_models::formula;
    use protoseg_models::graph::{Graph, Tag};
    use protoseg_models::random::Stream;

    use super::*;

    const NORM: Op = Op::BatchNorm { eps: 1e-3, momentum: 0.1 };

    /// Computes a chain of convolutions and batch normalizations on `[3, 6, 6]` by definition. An
    /// activation at its end is left out.
    fn run(Network { graph, weights, .. }: &Network, input: &[f64]) -> Vec<f64> {
        let mut values = input.to_vec();
        let mut side = 6;
        for node in &graph.nodes()[2..] {
            let part = |part: &str| {
                weights.get(&format!("{}.{part}", node.name)).map(|tensor| tensor.data.clone())
            };
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
                Op::Relu => {}
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
            let out = index / after / after;
            let y = index / after % after;
            let x = index % after;
            let mut sum = bias.map_or(0.0, |bias| f64::from(bias[out]));
            for (channel, tap) in (0..inside * conv.kernel * conv.kernel).map(|index| {
                (index / conv.kernel / conv.kernel, index % (conv.kernel * conv.kernel))
            }) {
                // Positions in the padding wrap around to large numbers.
                let row = (y + tap / conv.kernel).wrapping_sub(conv.pads[0]);
                let column = (x + tap % conv.kernel).wrapping_sub(conv.pads[1]);
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

    fn input() -> Vec<f64> {
        let stream = Stream::named("values");
        (0..108).map(|index| stream.signed_unit(index) * 2.0).collect()
    }

    fn assert_close(found: &[f64], expected: &[f64]) {
        let largest = expected.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6 * largest, "{found} is not {expected}");
        }
    }

    fn names(network: &Network) -> Vec<&str> {
        network.graph.nodes()[2..].iter().map(|node| node.name.as_str()).collect()
    }

    #[test]
    fn a_folded_convolution_computes_what_the_two_did() {
        for conv in [Conv::new(4, 3), Conv::new(4, 3).bias(), Conv::new(6, 3).groups(3)] {
            let network = chain(&[("conv", Op::Conv(conv)), ("norm", NORM), ("relu", Op::Relu)]);
            let folded = network.clone().fold_batch_norm().unwrap();
            assert_eq!(names(&folded), ["conv", "relu"]);
            assert_eq!(folded.values, ["input", "pixels", "norm", "relu"]);
            assert_eq!(folded.weights().keys().collect::<Vec<_>>(), ["conv.bias", "conv.weight"]);
            assert_close(&run(&folded, &input()), &run(&network, &input()));
        }
    }

    #[test]
    fn a_convolution_with_another_reader_is_not_folded() {
        let mut graph = Graph::new();
        let pixels =
            graph.push("pixels", Op::Normalize { mean: [0.0; 3], std: [1.0; 3] }, &[graph.input()]);
        let conv = graph.push("conv", Op::Conv(Conv::new(4, 3)), &[pixels]);
        let norm = graph.push("norm", NORM, &[conv]);
        let relu = graph.push("relu", Op::Relu, &[norm]);
        let sum = graph.push("sum", Op::Add, &[conv, relu]);
        let weights = formula::weights(&graph, None);
        for outputs in [vec![(relu, "out"), (conv, "conv")], vec![(sum, "out")]] {
            let network = Network::new(&graph, &weights, &outputs).unwrap();
            assert_eq!(network.clone().fold_batch_norm().unwrap(), network);
        }
    }

    #[test]
    fn a_negative_variance_is_refused_by_name() {
        let mut network = chain(&[("conv", Op::Conv(Conv::new(4, 3))), ("norm", NORM)]);
        let variance = network.weights.get_mut("norm.running_var").unwrap();
        Arc::make_mut(variance).data[2] = -1.0;
        assert_eq!(
            network.fold_batch_norm().unwrap_err().to_string(),
            "`norm` cannot be folded: the running variance of channel 2 is -1, below zero"
        );
    }

    #[test]
    fn a_merged_operation_computes_what_the_two_did() {
        let unpadded = |out: usize, kernel: usize| Conv::new(out, kernel).pads([0; 4]);
        // Operations, and the names of those that remain.
        type Case<'a> = (&'a [(&'a str, Op)], &'a [&'a str]);
        let cases: [Case<'_>; 8] = [
            (&[("a", Op::Conv(Conv::new(8, 3))), ("b", Op::Conv(Conv::new(4, 1).bias()))], &["a"]),
            (&[("a", Op::Conv(Conv::new(8, 1).bias())), ("b", Op::Conv(Conv::new(2, 1)))], &["a"]),
            (&[("n", NORM), ("c", Op::Conv(unpadded(4, 3)))], &["c"]),
            (&[("n", NORM), ("c", Op::Conv(unpadded(6, 3).groups(3).bias()))], &["c"]),
            (&[("m", NORM), ("n", NORM), ("c", Op::Conv(unpadded(4, 1)))], &["c"]),
            // Padding follows the normalization; a wider product, or one over all groups, costs
            // more.
            (&[("n", NORM), ("c", Op::Conv(Conv::new(4, 3)))], &["n", "c"]),
            (&[("a", Op::Conv(Conv::new(1, 1))), ("b", Op::Conv(Conv::new(9, 1)))], &["a", "b"]),
            (
                &[("a", Op::Conv(Conv::new(6, 3).groups(3))), ("b", Op::Conv(Conv::new(2, 1)))],
                &["a", "b"],
            ),
        ];
        for (operations, left) in cases {
            let network = chain(operations);
            let value = network.values.last().unwrap().clone();
            let merged = network.clone().merge_affine().unwrap();
            assert_eq!(names(&merged), left);
            assert_eq!(merged.values.last().unwrap(), &value);
            assert_close(&run(&merged, &input()), &run(&network, &input()));
        }
    }

    #[test]
    fn a_value_with_another_reader_is_kept() {
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
    fn merging_saves_nothing_in_any_preset() {
        for preset in Preset::ALL {
            // The other transformers differ in width and depth alone.
            if preset.vit().is_some_and(|scaling| scaling != vit::SMALL) {
                continue;
            }
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
