//! Batch normalisation taken into the convolution before it, in 64-bit floats.
//!
//! `scale (w x + b - mean) / sqrt(var + eps) + shift` is a convolution again, so the file has one operation where the
//! trainer has two, and its weights are rounded once.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use protoseg_models::graph::{Conv, Node, NodeId, Op, Rewrite};
use protoseg_models::weights::Tensor;

use crate::network::{Network, Weights};

impl Network {
    /// The same network with each batch normalisation folded into its convolution, wherever nothing else reads that. The
    /// convolution keeps its name and gets a bias; its value is called as the batch normalisation's was.
    pub fn fold_batch_norm(self) -> Result<Self> {
        let norms = self.foldable();
        let Self { graph, mut weights, values, outputs, pixel_outputs, prototype_head } = self;
        for (&conv, &norm) in &norms {
            if let Op::BatchNorm { eps, .. } = graph.node(norm).op {
                fold(&mut weights, &graph.node(conv).name, &graph.node(norm).name, eps)
                    .with_context(|| format!("`{}` cannot be folded", graph.node(norm).name))?;
            }
        }
        let mut folded_values = Vec::with_capacity(values.len());
        let folded = graph.filter_map(|id, node| match (&node.op, norms.get(&id)) {
            (Op::BatchNorm { .. }, _) if norms.get(&node.inputs[0]) == Some(&id) => {
                Rewrite::Bypass(node.inputs[0])
            }
            (&Op::Conv(conv), Some(norm)) => {
                folded_values.push(values[norm.0].clone());
                Rewrite::Keep(Node { op: Op::Conv(Conv { bias: true, ..conv }), ..node.clone() })
            }
            _ => {
                folded_values.push(values[id.0].clone());
                Rewrite::Keep(node.clone())
            }
        });
        folded.check_weights(&weights).context("after folding batch normalisation")?;
        Ok(Self {
            graph: folded,
            weights,
            values: folded_values,
            outputs,
            pixel_outputs,
            prototype_head,
        })
    }

    /// Convolutions, each with the batch normalisation that alone reads it.
    fn foldable(&self) -> BTreeMap<NodeId, NodeId> {
        let readers = self.reader_counts();
        let pair = |(norm, node): (NodeId, &Node)| {
            let conv = *node.inputs.first()?;
            let pair = (&self.graph.node(conv).op, &node.op);
            (matches!(pair, (Op::Conv(_), Op::BatchNorm { .. })) && readers[conv.0] == 1)
                .then_some((conv, norm))
        };
        self.graph.iter().filter_map(pair).collect()
    }
}

/// Takes the tensors of a batch normalisation out of the weights; as `slope x + shift`, for each channel.
pub(crate) fn slopes_and_shifts(
    weights: &mut Weights,
    norm: &str,
    eps: f64,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let mut take = |part: &str| {
        let name = format!("{norm}.{part}");
        weights.remove(&name).with_context(|| format!("tensor `{name}` is missing"))
    };
    let (scale, shift, mean, variance) =
        (take("weight")?, take("bias")?, take("running_mean")?, take("running_var")?);
    let (mut slopes, mut shifts) = (Vec::new(), Vec::new());
    for (channel, &variance) in variance.data.iter().enumerate() {
        let variance = f64::from(variance);
        ensure!(
            variance + eps > 0.0,
            "the running variance of channel {channel} is {variance}, below zero"
        );
        let slope = f64::from(scale.data[channel]) / (variance + eps).sqrt();
        slopes.push(slope);
        shifts.push(f64::from(shift.data[channel]) - f64::from(mean.data[channel]) * slope);
    }
    Ok((slopes, shifts))
}

/// Replaces the tensors of a convolution and its batch normalisation by those of one convolution.
fn fold(weights: &mut Weights, conv: &str, norm: &str, eps: f64) -> Result<()> {
    let (slopes, shifts) = slopes_and_shifts(weights, norm, eps)?;
    let bias = weights
        .remove(&format!("{conv}.bias"))
        .map_or(vec![0.0; slopes.len()], |bias| bias.data.clone());
    let name = format!("{conv}.weight");
    let kernels = Arc::make_mut(
        weights.get_mut(&name).with_context(|| format!("tensor `{name}` is missing"))?,
    );
    let size = kernels.data.len() / slopes.len();
    for (kernel, slope) in kernels.data.chunks_mut(size).zip(&slopes) {
        for weight in kernel {
            *weight = (f64::from(*weight) * slope) as f32;
        }
    }
    let bias = bias.iter().zip(slopes.iter().zip(shifts));
    let bias: Vec<f32> =
        bias.map(|(&bias, (slope, shift))| (f64::from(bias) * slope + shift) as f32).collect();
    weights
        .insert(format!("{conv}.bias"), Arc::new(Tensor { shape: vec![bias.len()], data: bias }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use protoseg_models::formula;
    use protoseg_models::graph::Graph;
    use protoseg_models::random::Stream;
    use protoseg_models::weights::StateDict;

    use super::*;

    const NORM: Op = Op::BatchNorm { eps: 1e-3, momentum: 0.1 };

    fn graph(conv: Conv) -> Graph {
        let mut graph = Graph::new();
        let pixels = graph.push(
            "normalize",
            Op::Normalize { mean: [0.0; 3], std: [1.0; 3] },
            &[graph.input()],
        );
        let convolved = graph.push("conv", Op::Conv(conv), &[pixels]);
        let normed = graph.push("norm", NORM, &[convolved]);
        graph.push("relu", Op::Relu, &[normed]);
        graph
    }

    fn shared(weights: &StateDict) -> Weights {
        weights.iter().map(|(name, tensor)| (name.clone(), Arc::new(tensor.clone()))).collect()
    }

    /// `[3, 5, 5]` to `[out, 5, 5]` by the definition, a 3x3 kernel and one zero around.
    fn convolve(conv: Conv, weights: &Weights, input: &[f64]) -> Vec<f64> {
        let bias = weights.get("conv.bias");
        let (per_group, out_per_group) = (3 / conv.groups, conv.out / conv.groups);
        let at = |out: usize, y: usize, x: usize| {
            let mut sum = bias.map_or(0.0, |bias| f64::from(bias.data[out]));
            for (channel, dy, dx) in
                (0..per_group * 9).map(|index| (index / 9, index / 3 % 3, index % 3))
            {
                let (row, column) = (y + dy, x + dx);
                if (1..=5).contains(&row) && (1..=5).contains(&column) {
                    let source = out / out_per_group * per_group + channel;
                    let weight =
                        weights["conv.weight"].data[(out * per_group + channel) * 9 + dy * 3 + dx];
                    sum += f64::from(weight) * input[(source * 5 + row - 1) * 5 + column - 1];
                }
            }
            sum
        };
        (0..conv.out * 25).map(|index| at(index / 25, index / 5 % 5, index % 5)).collect()
    }

    #[test]
    fn a_folded_convolution_computes_what_the_two_did() {
        let stream = Stream::named("picture");
        let input: Vec<f64> = (0..75).map(|index| stream.signed_unit(index) * 3.0).collect();
        for conv in [Conv::new(4, 3), Conv::new(4, 3).bias(), Conv::new(6, 3).groups(3)] {
            let graph = graph(conv);
            let weights = formula::weights(&graph, Some(7));
            let relu = graph.find("relu").unwrap();
            let folded = Network::new(&graph, &weights, &[(relu, "out")])
                .unwrap()
                .fold_batch_norm()
                .unwrap();
            let names: Vec<&str> =
                folded.graph().nodes().iter().map(|node| node.name.as_str()).collect();
            assert_eq!(names, ["input", "normalize", "conv", "relu"]);
            assert_eq!(folded.values, ["input", "normalize", "norm", "relu"]);
            assert_eq!(folded.weights().keys().collect::<Vec<_>>(), ["conv.bias", "conv.weight"]);

            let of = |part: &str, channel: usize| {
                f64::from(weights[&format!("norm.{part}")].data[channel])
            };
            let norm = |(index, value): (usize, f64)| {
                let channel = index / 25;
                let unit = (value - of("running_mean", channel))
                    / (of("running_var", channel) + 1e-3).sqrt();
                unit * of("weight", channel) + of("bias", channel)
            };
            let expected: Vec<f64> = convolve(conv, &shared(&weights), &input)
                .into_iter()
                .enumerate()
                .map(norm)
                .collect();
            let found = convolve(conv, folded.weights(), &input);
            let largest = expected.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-6 * largest, "{found} is not {expected}");
            }
        }
    }

    #[test]
    fn a_convolution_with_another_reader_stays() {
        let mut graph = graph(Conv::new(4, 3));
        let node = |graph: &Graph, name: &str| graph.find(name).unwrap();
        let weights = formula::weights(&graph, None);
        let asked = [(node(&graph, "relu"), "out"), (node(&graph, "conv"), "conv")];
        let network = Network::new(&graph, &weights, &asked).unwrap();
        assert_eq!(network.clone().fold_batch_norm().unwrap(), network);
        let both = [node(&graph, "conv"), node(&graph, "relu")];
        let sum = graph.push("sum", Op::Add, &both);
        let network = Network::new(&graph, &weights, &[(sum, "out")]).unwrap();
        assert_eq!(network.clone().fold_batch_norm().unwrap(), network);
    }

    #[test]
    fn a_variance_below_zero_is_refused_by_name() {
        let graph = graph(Conv::new(4, 3));
        let mut weights = formula::weights(&graph, None);
        weights.get_mut("norm.running_var").unwrap().data[2] = -1.0;
        let network =
            Network::new(&graph, &weights, &[(graph.find("relu").unwrap(), "out")]).unwrap();
        let error = format!("{:#}", network.fold_batch_norm().unwrap_err());
        assert_eq!(
            error,
            "`norm` cannot be folded: the running variance of channel 2 is -1, below zero"
        );
    }
}
