//! Stochastic gradient descent with momentum. tch exposes no state of its own optimizers, which resuming needs.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use protoseg_models::weights::StateDict;
use tch::Tensor;

use crate::net::{Net, from_torch, to_torch};

/// PyTorch's `SGD(momentum, weight_decay)` without dampening: `v <- momentum v + (g + decay p)`, `p <- p - rate v`.
pub struct Sgd {
    momentum: f64,
    weight_decay: f64,
    /// Momentum buffers by parameter name; none before the first step.
    velocity: BTreeMap<String, Tensor>,
}

impl Sgd {
    pub fn new(momentum: f64, weight_decay: f64) -> Self {
        Self { momentum, weight_decay, velocity: BTreeMap::new() }
    }

    /// Moves every parameter against its gradient, at the learning rate of its name, and clears the gradients.
    pub fn step(&mut self, net: &Net, rate: impl Fn(&str) -> f64) -> Result<()> {
        let _guard = tch::no_grad_guard();
        for (name, parameter) in net.trainable() {
            let mut gradient = parameter.f_grad()?;
            if !gradient.defined() {
                continue;
            }
            let push = gradient.f_add(&parameter.f_mul_scalar(self.weight_decay)?)?;
            let velocity = match self.velocity.get_mut(name) {
                Some(velocity) => {
                    let _ = velocity.f_mul_scalar_(self.momentum)?;
                    let _ = velocity.f_add_(&push)?;
                    velocity.shallow_clone()
                }
                None => {
                    self.velocity.insert(name.to_owned(), push.shallow_clone());
                    push
                }
            };
            let _ = parameter.shallow_clone().f_sub_(&velocity.f_mul_scalar(rate(name))?)?;
            let _ = gradient.f_zero_()?;
        }
        Ok(())
    }

    /// Copies the momentum buffers by parameter name.
    pub fn state_dict(&self) -> Result<StateDict> {
        self.velocity.iter().map(|(name, tensor)| Ok((name.clone(), from_torch(tensor)?))).collect()
    }

    /// Restores momentum buffers saved by [`state_dict`](Self::state_dict), one of its shape for each trainable tensor.
    pub fn load(&mut self, state: &StateDict, net: &Net) -> Result<()> {
        for (name, tensor) in net.trainable() {
            let shape = state
                .get(name)
                .map(|velocity| velocity.shape.iter().map(|&side| side as i64).collect::<Vec<_>>());
            ensure!(
                shape == Some(tensor.size()),
                "the momentum of `{name}` is missing or has another shape"
            );
        }
        let count = net.trainable().count();
        ensure!(
            state.len() == count,
            "there are {} momentum buffers for {count} tensors",
            state.len()
        );
        let velocity =
            state.iter().map(|(name, tensor)| Ok((name.clone(), to_torch(tensor, net.device())?)));
        self.velocity = velocity.collect::<Result<_>>()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protoseg_models::graph::{Conv, Graph, Op, Tag};
    use protoseg_models::weights;
    use tch::{Device, Kind};

    #[test]
    fn two_steps_equal_the_formula_by_hand() {
        let mut graph = Graph::new();
        let pixels = graph.push(
            "normalize",
            Op::Normalize { mean: [0.0; 3], std: [1.0; 3] },
            &[graph.input()],
        );
        let output = graph.push("point", Op::Conv(Conv::new(1, 1)), &[pixels]);
        graph.tag(Tag::Logits, output);
        let start = [0.5_f32, -1.0, 2.0];
        let weights = BTreeMap::from([(
            "point.weight".to_owned(),
            weights::Tensor { shape: vec![1, 3, 1, 1], data: start.to_vec() },
        )]);
        let net = Net::new(graph, &weights, Device::Cpu).unwrap();
        let image = Tensor::f_from_data_size(&[1, 2, 3], &[1, 1, 1, 3], Kind::Uint8).unwrap();
        let mut sgd = Sgd::new(0.9, 0.1);
        let (mut expected, mut velocity) = (start.map(f64::from), [0.0_f64; 3]);
        for _ in 0..2 {
            let output =
                net.forward_tagged(&image, crate::net::ForwardMode::Train, Tag::Logits).unwrap();
            output.f_sum(Kind::Float).unwrap().f_backward().unwrap();
            sgd.step(&net, |_| 0.05).unwrap();
            for (index, (value, velocity)) in expected.iter_mut().zip(&mut velocity).enumerate() {
                *velocity = 0.9 * *velocity + (index as f64 + 1.0) + 0.1 * *value;
                *value -= 0.05 * *velocity;
            }
        }
        let found = &net.state_dict().unwrap()["point.weight"].data;
        for (found, expected) in found.iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-6, "{found} {expected}");
        }
        let state = sgd.state_dict().unwrap();
        let mut other = Sgd::new(0.9, 0.1);
        other.load(&state, &net).unwrap();
        assert_eq!(other.state_dict().unwrap(), state);
    }
}
