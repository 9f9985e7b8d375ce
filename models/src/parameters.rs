//! Parameter names and shapes, derived from the graph.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use crate::graph::{Graph, Node, Op};
use crate::weights::Tensor;

/// What a parameter is, which decides how it starts and whether it learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Weights of a convolution, `[out, in / groups, kernel, kernel]`.
    ConvWeight,
    /// Weights of a linear layer, `[out, in]`.
    LinearWeight,
    /// What a convolution or linear layer adds, `[out]`.
    Bias,
    /// Scale of a batch normalisation, `[C]`.
    NormWeight,
    /// Shift of a batch normalisation, `[C]`.
    NormBias,
    /// Running mean, `[C]`; moved by the forward pass, not by gradients.
    RunningMean,
    /// Running variance, `[C]`; moved by the forward pass, not by gradients.
    RunningVar,
}

impl Role {
    /// Whether gradients move it; the others are buffers.
    pub fn learns(self) -> bool {
        !matches!(self, Self::RunningMean | Self::RunningVar)
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::ConvWeight | Self::LinearWeight | Self::NormWeight => "weight",
            Self::Bias | Self::NormBias => "bias",
            Self::RunningMean => "running_mean",
            Self::RunningVar => "running_var",
        }
    }
}

/// A parameter or buffer that a network needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its name in the state dict: node name, dot, and what it is.
    pub name: String,
    /// Size of each dimension.
    pub shape: Vec<usize>,
    /// What it is.
    pub role: Role,
}

/// Weights that do not fit their network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WeightMismatch {
    /// The network needs tensors that are not there.
    #[error("{} missing, first `{first}`", tensors(*count))]
    Missing {
        /// How many.
        count: usize,
        /// One of them.
        first: String,
    },
    /// There are tensors that the network does not know.
    #[error("{} unknown to the network, first `{first}`", tensors(*count))]
    Unknown {
        /// How many.
        count: usize,
        /// One of them.
        first: String,
    },
    /// A tensor of another shape.
    #[error("tensor `{name}` is {found:?}, where the network needs {expected:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// What the network needs.
        expected: Vec<usize>,
        /// What is there.
        found: Vec<usize>,
    },
    /// A tensor that holds a value which is no number.
    #[error("tensor `{name}` holds values that are not finite")]
    NotFinite {
        /// The tensor.
        name: String,
    },
}

fn tensors(count: usize) -> String {
    if count == 1 { "1 tensor is".to_owned() } else { format!("{count} tensors are") }
}

impl Graph {
    /// The parameters and buffers of a node.
    pub fn node_parameters(&self, node: &Node) -> Vec<Parameter> {
        let channels_in = || self.node(node.inputs[0]).channels;
        let of = |role: Role, shape: Vec<usize>| Parameter {
            name: format!("{}.{}", node.name, role.suffix()),
            shape,
            role,
        };
        match node.op {
            Op::Conv(conv) => {
                let weight = of(
                    Role::ConvWeight,
                    vec![conv.out, channels_in() / conv.groups, conv.kernel, conv.kernel],
                );
                let bias = conv.bias.then(|| of(Role::Bias, vec![conv.out]));
                std::iter::once(weight).chain(bias).collect()
            }
            Op::Linear { out } => {
                vec![of(Role::LinearWeight, vec![out, channels_in()]), of(Role::Bias, vec![out])]
            }
            Op::BatchNorm { .. } => {
                [Role::NormWeight, Role::NormBias, Role::RunningMean, Role::RunningVar]
                    .map(|role| of(role, vec![node.channels]))
                    .into()
            }
            Op::Input
            | Op::Normalize { .. }
            | Op::Relu
            | Op::Relu6
            | Op::MaxPool { .. }
            | Op::GlobalAvgPool
            | Op::Resize { .. }
            | Op::Add
            | Op::Concat
            | Op::Dropout2d { .. } => Vec::new(),
        }
    }

    /// All parameters and buffers, in node order.
    pub fn parameters(&self) -> Vec<Parameter> {
        self.nodes().iter().flat_map(|node| self.node_parameters(node)).collect()
    }

    /// How many numbers the network learns; running statistics do not count.
    pub fn parameter_count(&self) -> usize {
        let learned = self.parameters().into_iter().filter(|parameter| parameter.role.learns());
        learned.map(|parameter| parameter.shape.iter().product::<usize>()).sum()
    }

    /// Whether weights are just those that the network needs: no more, no fewer, of the right shapes, all finite.
    pub fn check_weights<T: Borrow<Tensor>>(
        &self,
        weights: &BTreeMap<String, T>,
    ) -> Result<(), WeightMismatch> {
        let parameters = self.parameters();
        let mut missing =
            parameters.iter().filter(|parameter| !weights.contains_key(&parameter.name));
        if let Some(first) = missing.next() {
            return Err(WeightMismatch::Missing {
                count: missing.count() + 1,
                first: first.name.clone(),
            });
        }
        let known: std::collections::BTreeSet<&str> =
            parameters.iter().map(|parameter| parameter.name.as_str()).collect();
        let mut unknown = weights.keys().filter(|name| !known.contains(name.as_str()));
        if let Some(first) = unknown.next() {
            return Err(WeightMismatch::Unknown {
                count: unknown.count() + 1,
                first: first.clone(),
            });
        }
        for parameter in &parameters {
            let found: &Tensor = weights[&parameter.name].borrow();
            if found.shape != parameter.shape {
                return Err(WeightMismatch::Shape {
                    name: parameter.name.clone(),
                    expected: parameter.shape.clone(),
                    found: found.shape.clone(),
                });
            }
            if !found.data.iter().all(|value| value.is_finite()) {
                return Err(WeightMismatch::NotFinite { name: parameter.name.clone() });
            }
        }
        Ok(())
    }
}
