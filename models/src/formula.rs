//! Deterministic weights and images computed from their names: those of the committed reference
//! outputs, and random networks for tests.

use crate::analysis::{Parameter, Role};
use crate::graph::Graph;
use crate::random::Stream;
use crate::weights::{StateDict, Tensor};

/// Returns weights for every parameter of a graph, running statistics included.
///
/// With `u` the [`Stream::signed_unit`] of the parameter's name, convolutions are `u sqrt(6 /
/// fan_in)`, scales `0.5 + 0.5 |u|`, biases and running means `0.1 u`, running variances `0.5 +
/// |u|`, layer scales `0.1 + 0.4 |u|`, tokens and positions `u`. Without a seed these are the
/// weights of the reference outputs.
pub fn weights(graph: &Graph, seed: Option<u64>) -> StateDict {
    graph
        .parameters()
        .into_iter()
        .map(|parameter| (parameter.name.clone(), tensor(&parameter, seed)))
        .collect()
}

fn tensor(parameter: &Parameter, seed: Option<u64>) -> Tensor {
    let stream = Stream::named(&parameter.name);
    let stream = seed.map_or(stream, |seed| stream.child(seed));
    let fan_in: usize = parameter.shape[1..].iter().product();
    let bound = (6.0 / fan_in as f64).sqrt();
    Tensor::from_fn(&parameter.shape, |index| {
        let u = stream.signed_unit(index as u64);
        let value = match parameter.role {
            Role::ConvWeight | Role::LinearWeight => u * bound,
            Role::NormWeight => 0.5 + 0.5 * u.abs(),
            Role::Bias | Role::NormBias | Role::RunningMean => 0.1 * u,
            Role::RunningVar => 0.5 + u.abs(),
            Role::LayerScale => 0.1 + 0.4 * u.abs(),
            Role::ClassToken | Role::Registers | Role::Positions => u,
        };
        value as f32
    })
}

/// Returns the reference outputs' image of a size: RGB noise, `[height, width, 3]`.
pub fn image(height: usize, width: usize) -> Vec<u8> {
    let stream = Stream::named(&format!("image{height}x{width}"));
    let byte = |index: usize| ((stream.signed_unit(index as u64) + 1.0) * 128.0).floor() as u8;
    (0..height * width * 3).map(byte).collect()
}
