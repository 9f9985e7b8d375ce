//! Update rules of the weights. tch exposes no state of its own optimizers, which resuming needs.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use protoseg_models::weights::StateDict;
use tch::Tensor;

use crate::config::Config;
use crate::config::options::UpdateRule;
use crate::net::{Net, from_torch, to_torch};

/// Decay of AdamW's averages of gradients and of their squares, PyTorch's defaults.
const BETAS: [f64; 2] = [0.9, 0.999];
/// Added to the root of AdamW's average of squares.
const EPSILON: f64 = 1e-8;
/// End of the names of averages of squares in a saved state.
const SQUARES: &str = ".squares";

/// An update rule with its averages of gradients.
///
/// PyTorch's `SGD(momentum, weight_decay)` without dampening: `v <- momentum v + (g + decay p)`,
/// `p <- p - rate v`. PyTorch's `AdamW(weight_decay)`: `p <- p - rate decay p`, then `p <- p - rate
/// m' / (sqrt(s') + eps)` with averages m' of gradients and s' of their squares, free of the bias
/// of their start.
pub struct Optimizer {
    rule: UpdateRule,
    momentum: f64,
    weight_decay: f64,
    /// Momentum, or average of gradients, by parameter name; none before the first step.
    velocity: BTreeMap<String, Tensor>,
    /// Averages of squared gradients, of AdamW.
    squares: BTreeMap<String, Tensor>,
}

impl Optimizer {
    /// Returns the rule of a configuration, before its first step.
    pub fn new(config: &Config) -> Self {
        Self {
            rule: config.optimizer,
            momentum: config.momentum,
            weight_decay: config.weight_decay,
            velocity: BTreeMap::new(),
            squares: BTreeMap::new(),
        }
    }

    /// Moves every parameter against its gradient in step number `step`, counted from 0, at the
    /// learning rate of its name, and clears the gradients.
    pub fn step(&mut self, net: &Net, step: u64, rate: impl Fn(&str) -> f64) -> Result<()> {
        let _guard = tch::no_grad_guard();
        for (name, parameter) in net.trainable() {
            let mut gradient = parameter.f_grad()?;
            if !gradient.defined() {
                continue;
            }
            match self.rule {
                UpdateRule::Sgd => self.descend(name, parameter, &gradient, rate(name))?,
                UpdateRule::AdamW => self.adapt(name, parameter, &gradient, step, rate(name))?,
            }
            let _ = gradient.f_zero_()?;
        }
        Ok(())
    }

    fn descend(
        &mut self,
        name: &str,
        parameter: &Tensor,
        gradient: &Tensor,
        rate: f64,
    ) -> Result<()> {
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
        let _ = parameter.shallow_clone().f_sub_(&velocity.f_mul_scalar(rate)?)?;
        Ok(())
    }

    fn adapt(
        &mut self,
        name: &str,
        parameter: &Tensor,
        gradient: &Tensor,
        step: u64,
        rate: f64,
    ) -> Result<()> {
        for averages in [&mut self.velocity, &mut self.squares] {
            if !averages.contains_key(name) {
                averages.insert(name.to_owned(), gradient.f_zeros_like()?);
            }
        }
        let mean = self.velocity.get_mut(name).context("an average was made")?;
        let _ = mean.f_lerp_(gradient, 1.0 - BETAS[0])?;
        let squares = self.squares.get_mut(name).context("an average was made")?;
        let _ = squares.f_mul_scalar_(BETAS[1])?;
        let _ = squares.f_addcmul_(gradient, &gradient.f_mul_scalar(1.0 - BETAS[1])?)?;
        let [mean_share, square_share] = BETAS.map(|beta| 1.0 - beta.powf(step as f64 + 1.0));
        let root = squares.f_sqrt()?.f_div_scalar(square_share.sqrt())?.f_add_scalar(EPSILON)?;
        let mut parameter = parameter.shallow_clone();
        let _ = parameter.f_mul_scalar_(1.0 - rate * self.weight_decay)?;
        let push = mean.f_div(&root)?.f_mul_scalar(rate / mean_share)?;
        let _ = parameter.f_sub_(&push)?;
        Ok(())
    }

    /// Copies the averages by parameter name.
    pub fn state_dict(&self) -> Result<StateDict> {
        let squares =
            self.squares.iter().map(|(name, tensor)| (format!("{name}{SQUARES}"), tensor));
        let velocity = self.velocity.iter().map(|(name, tensor)| (name.clone(), tensor));
        velocity.chain(squares).map(|(name, tensor)| Ok((name, from_torch(tensor)?))).collect()
    }

    /// Restores averages saved by [`state_dict`](Self::state_dict), one of its shape for each
    /// trainable tensor.
    pub fn load(&mut self, state: &StateDict, net: &Net) -> Result<()> {
        let suffixes: &[&str] = match self.rule {
            UpdateRule::Sgd => &[""],
            UpdateRule::AdamW => &["", SQUARES],
        };
        let mut count = 0;
        for (name, tensor) in net.trainable() {
            for suffix in suffixes {
                let saved = state.get(&format!("{name}{suffix}"));
                let shape = saved
                    .map(|saved| saved.shape.iter().map(|&side| side as i64).collect::<Vec<_>>());
                ensure!(
                    shape == Some(tensor.size()),
                    "the momentum of `{name}` is missing or has another shape"
                );
                count += 1;
            }
        }
        ensure!(
            state.len() == count,
            "there are {} momentum buffers for {count} tensors",
            state.len()
        );
        self.velocity.clear();
        self.squares.clear();
        for (name, tensor) in state {
            let tensor = to_torch(tensor, net.device())?;
            match name.strip_suffix(SQUARES) {
                Some(name) => self.squares.insert(name.to_owned(), tensor),
                None => self.velocity.insert(name.clone(), tensor),
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protoseg_models::graph::{Conv, Graph, Op, Tag};
    use protoseg_models::weights;
    use tch::{Device, Kind};

    const START: [f32; 3] = [0.5, -1.0, 2.0];

    fn optimizer(settings: &[&str]) -> Optimizer {
        let settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
        Optimizer::new(
            &Config::parse(include_str!("../../configs/synthetic.toml"), &settings).unwrap(),
        )
    }

    /// Takes two steps of `sum(w x)` with gradients 1, 2 and 3 at the rate 0.05; returns the
    /// weights.
    fn two_steps(optimizer: &mut Optimizer) -> Vec<f32> {
        let mut graph = Graph::new();
        let pixels = graph.push(
            "normalize",
            Op::Normalize { mean: [0.0; 3], std: [1.0; 3] },
            &[graph.input()],
        );
        let output = graph.push("point", Op::Conv(Conv::new(1, 1)), &[pixels]);
        graph.tag(Tag::Logits, output);
        let weights = BTreeMap::from([(
            "point.weight".to_owned(),
            weights::Tensor { shape: vec![1, 3, 1, 1], data: START.to_vec() },
        )]);
        let net = Net::new(graph, &weights, Device::Cpu).unwrap();
        let image = Tensor::f_from_data_size(&[1, 2, 3], &[1, 1, 1, 3], Kind::Uint8).unwrap();
        for step in 0..2 {
            let output =
                net.forward_tagged(&image, crate::net::ForwardMode::Train, Tag::Logits).unwrap();
            output.f_sum(Kind::Float).unwrap().f_backward().unwrap();
            optimizer.step(&net, step, |_| 0.05).unwrap();
        }
        let state = optimizer.state_dict().unwrap();
        optimizer.load(&state, &net).unwrap();
        assert_eq!(optimizer.state_dict().unwrap(), state);
        assert!(optimizer.load(&StateDict::new(), &net).is_err());
        net.state_dict().unwrap()["point.weight"].data.clone()
    }

    fn assert_close(found: &[f32], expected: [f64; 3]) {
        for (found, expected) in found.iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-6, "{found} {expected}");
        }
    }

    #[test]
    fn two_steps_of_sgd_equal_the_formula_by_hand() {
        let (mut expected, mut velocity) = (START.map(f64::from), [0.0_f64; 3]);
        for _ in 0..2 {
            for (index, (value, velocity)) in expected.iter_mut().zip(&mut velocity).enumerate() {
                *velocity = 0.9 * *velocity + (index as f64 + 1.0) + 0.1 * *value;
                *value -= 0.05 * *velocity;
            }
        }
        assert_close(&two_steps(&mut optimizer(&["weight_decay=0.1"])), expected);
    }

    #[test]
    fn two_steps_of_adamw_equal_the_formula_by_hand() {
        // With a constant gradient both averages, without bias, are the gradient and its square.
        let mut expected = START.map(f64::from);
        for _ in 0..2 {
            for (index, value) in expected.iter_mut().enumerate() {
                let gradient = index as f64 + 1.0;
                *value -= 0.05 * 0.1 * *value;
                *value -= 0.05 * gradient / (gradient + 1e-8);
            }
        }
        let mut adamw = optimizer(&["weight_decay=0.1", "optimizer=adamw"]);
        assert_close(&two_steps(&mut adamw), expected);
    }
}
