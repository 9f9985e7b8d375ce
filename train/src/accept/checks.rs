//! What must hold after steps on a device, each with its limit.

use std::path::Path;

use anyhow::{Context, Result};
use protoseg_models::checkpoint::{Checkpoint, CheckpointHeader};
use protoseg_models::graph::Tag;
use protoseg_models::weights::StateDict;
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::setting::AcceptSetup;
use super::trial::Trial;
use crate::config::options::Precision;
use crate::net::{self, ForwardMode, Net, from_torch};

/// Largest difference of a length from 1: 512 squares are summed in 32-bit floats, each with an error of 6e-8 of it.
const LENGTH: f64 = 1e-5;

/// Largest difference of logits over the largest of them, which is rounding of 32-bit floats summed in another order over a
/// hundred layers.
const LOGITS: f64 = 1e-4;

/// Largest distance of learnt weights from those on the CPU, over the way that these have come. A gradient that is missing
/// makes the distance as long as the way, one of any other direction, or of the wrong sign, longer, and one of half the size
/// half as long.
const WAY: f64 = 0.3;

/// Scenes and size of the picture that the logits are of.
const SCENE: u64 = 6;
const SIZE: [usize; 2] = [96, 160];

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckOutcome {
    /// What was measured is within its limit.
    Passed,
    /// It is not, or could not be measured.
    Failed,
    /// It is not held against a limit, for a reason that is given.
    NotRun,
}

/// One thing that must hold.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// What must hold.
    pub what: &'static str,
    /// Whether it does.
    pub outcome: CheckOutcome,
    /// What was measured; none where nothing could be.
    pub measured: Option<f64>,
    /// The most that passes.
    pub limit: Option<f64>,
    /// Why it failed, where a number does not say it.
    pub reason: Option<String>,
}

impl Check {
    /// Passes up to a limit; what is no number fails.
    pub(super) fn within(what: &'static str, measured: f64, limit: f64) -> Self {
        let outcome = if measured <= limit { CheckOutcome::Passed } else { CheckOutcome::Failed };
        let reason = measured.is_nan().then(|| "it is not a number".to_owned());
        Self {
            what,
            outcome,
            measured: Some(measured).filter(|value| value.is_finite()),
            limit: Some(limit),
            reason,
        }
    }

    /// Counts what is wrong, of which nothing passes; the first is named.
    fn none(what: &'static str, wrong: &[String]) -> Self {
        Self { reason: wrong.first().cloned(), ..Self::within(what, wrong.len() as f64, 0.0) }
    }

    /// What could not be done.
    pub(super) fn failed(what: &'static str, error: &anyhow::Error) -> Self {
        let reason = Some(protoseg_models::errors::error_chain(error.as_ref()));
        Self { what, outcome: CheckOutcome::Failed, measured: None, limit: None, reason }
    }
}

/// Largest relative difference of losses from those on the CPU in 32-bit floats.
///
/// 32 bits: logits differ by rounding, as [`LOGITS`] has it; pixels of which the teacher is in two minds, and the few steps in
/// which differences grow, get ten times that. bfloat16: a factor of a product errs by 2^-9 = 0.2 %, and a path through a
/// hundred convolutions adds up the squares of two such errors each: 3 %. Thrice that passes.
pub(super) fn loss_limit(precision: Precision) -> f64 {
    match precision {
        Precision::Float32 => 1e-3,
        Precision::Bfloat16 => 0.1,
    }
}

/// Whether weights go where they go on the CPU.
///
/// The last layer's gradients err as much as its inputs do. Those of all layers err more: batch normalisation over the few
/// values of small crops makes much of little differences, so that in a network that has learnt nothing those of 8 bits say
/// little.
pub(super) fn same_direction(
    setting: &AcceptSetup,
    precision: Precision,
    found: &StateDict,
    expected: &StateDict,
    start: &StateDict,
) -> Result<[Check; 2]> {
    let logits = setting.graph.tagged(Tag::Logits).context("the network has no logits")?;
    let last = format!("{}.", setting.graph.node(logits).name);
    let last_of = |weights: &StateDict| -> StateDict {
        let last = weights.iter().filter(|(name, _)| name.starts_with(&last));
        last.map(|(name, tensor)| (name.clone(), tensor.clone())).collect()
    };
    let last = distance(&last_of(found), &last_of(expected), &last_of(start))?;
    let all = distance(found, expected, start)?;
    let what = "all weights go where they go on the CPU";
    Ok([
        Check::within("the last layer goes where on the CPU", last, WAY),
        match precision {
            Precision::Float32 => Check::within(what, all, WAY),
            Precision::Bfloat16 => Check {
                outcome: CheckOutcome::NotRun,
                measured: Some(all).filter(|value| value.is_finite()),
                limit: None,
                reason: Some(
                    "gradients of 8 bits say little in a network that has learnt nothing"
                        .to_owned(),
                ),
                what,
            },
        },
    ])
}

/// The distance of some weights from others, over how far these have come from where both began.
fn distance(found: &StateDict, expected: &StateDict, start: &StateDict) -> Result<f64> {
    let apart = |left: &StateDict, right: &StateDict| -> Result<f64> {
        let mut sum = 0.0;
        for (name, left) in left {
            let right =
                right.get(name).with_context(|| format!("`{name}` is in one of two networks"))?;
            let pairs = left.data.iter().zip(&right.data);
            sum += pairs
                .map(|(left, right)| (f64::from(*left) - f64::from(*right)).powi(2))
                .sum::<f64>();
        }
        Ok(sum.sqrt())
    };
    Ok(apart(found, expected)? / apart(expected, start)?)
}

/// Numbers, places and lengths of what a trial has changed.
pub(super) fn state(trial: &Trial, device: Device) -> Result<Vec<Check>> {
    let (mut infinite, mut elsewhere) = (Vec::new(), Vec::new());
    for (name, tensor) in trial.tensors() {
        if tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
            infinite.push(format!("the {name} is not finite"));
        }
        if tensor.device() != device {
            elsewhere.push(format!("the {name} is on {:?}", tensor.device()));
        }
    }
    let prototypes = trial.learner.prototypes.as_ref().context("a trial has prototypes")?;
    let lengths = prototypes.values().f_norm_scalaropt_dim(2.0, [1_i64].as_slice(), false)?;
    // Of a class that no labelled pixel has, there is no prototype yet.
    let met: Vec<bool> = prototypes.counters().active;
    let each = lengths.size()[0] / met.len().max(1) as i64;
    let met = Tensor::f_from_slice(&met)?
        .f_repeat_interleave_self_int(each, 0, None)?
        .f_to_device(device)?;
    let apart =
        lengths.f_masked_select(&met)?.f_sub_scalar(1.0)?.f_abs()?.f_max()?.f_double_value(&[])?;
    Ok(vec![
        Check::none("every number is finite", &infinite),
        Check::none("everything is on the device", &elsewhere),
        Check::within("prototypes are of length 1", apart, LENGTH),
    ])
}

/// Writes a trial's teacher as a checkpoint, reads it, and compares its logits on the CPU with those on the device.
pub(super) fn checkpoint(trial: &Trial, setting: &AcceptSetup, folder: &Path) -> Result<Check> {
    let checkpoint = Checkpoint {
        header: CheckpointHeader::new("accept", setting.arch, setting.lists.classes.clone(), None),
        weights: trial.learner.teacher.state_dict()?,
        probe: Vec::new(),
        calibration: None,
        prototypes: None,
        metrics: None,
        config: String::new(),
    };
    checkpoint.write(folder)?;
    let read = Checkpoint::read(folder)?;
    let here = Net::new(setting.graph.clone(), &read.weights, Device::Cpu)?;
    let (found, expected) =
        (logits(&here)?, logits(&trial.learner.teacher.with_precision(Precision::Float32))?);
    let largest = expected.f_abs()?.f_max()?.f_double_value(&[])?;
    let apart = found.f_sub(&expected)?.f_abs()?.f_max()?.f_double_value(&[])?;
    Ok(Check::within("a checkpoint gives the same on the CPU", apart / largest, LOGITS))
}

/// The logits of a scene, in main memory.
fn logits(net: &Net) -> Result<Tensor> {
    let _guard = tch::no_grad_guard();
    let [height, width] = SIZE;
    let picture = net::images_to_tensor(
        &protoseg_synthetic::render_scene(SCENE, 0, height, width).image,
        SIZE,
        net.device(),
    )?;
    let logits = from_torch(&net.forward_tagged(&picture, ForwardMode::Eval, Tag::Logits)?)?;
    Ok(net::to_torch(&logits, Device::Cpu)?.f_to_kind(Kind::Double)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protoseg_models::weights;

    #[test]
    fn what_is_no_number_fails() {
        let outcome = |measured| Check::within("x", measured, 1.0).outcome;
        assert_eq!([1.0, 1.1, f64::INFINITY, f64::NAN].map(outcome)[0], CheckOutcome::Passed);
        assert!(
            [1.1, f64::INFINITY, f64::NAN]
                .iter()
                .all(|&measured| outcome(measured) == CheckOutcome::Failed)
        );
        assert_eq!(Check::none("x", &[]).outcome, CheckOutcome::Passed);
        let wrong = Check::none("x", &["the third is odd".to_owned()]);
        assert_eq!(
            (wrong.outcome, wrong.reason.as_deref()),
            (CheckOutcome::Failed, Some("the third is odd"))
        );
    }

    #[test]
    fn a_distance_is_over_the_way() {
        let of = |values: [f32; 2]| {
            StateDict::from([(
                "a".to_owned(),
                weights::Tensor { shape: vec![2], data: values.to_vec() },
            )])
        };
        let (start, expected) = (of([1.0, 1.0]), of([4.0, 5.0]));
        assert_eq!(distance(&expected, &expected, &start).unwrap(), 0.0);
        assert_eq!(distance(&start, &expected, &start).unwrap(), 1.0);
        assert_eq!(distance(&of([7.0, 9.0]), &expected, &start).unwrap(), 1.0);
        // Nothing has been learnt at all.
        assert!(distance(&start, &start, &start).unwrap().is_nan());
    }
}
