//! Checks of the steps on a device, each with its limit.

use std::path::Path;

use anyhow::{Context, Result};
use protoseg_models::checkpoint::Checkpoint;
use protoseg_models::graph::Tag;
use protoseg_models::weights::StateDict;
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::report::Losses;
use super::setup::AcceptSetup;
use crate::config::options::Precision;
use crate::method::step::Learner;
use crate::net::{self, ForwardMode, Net, from_torch};
use crate::run::checkpoint;

/// Largest deviation of a length from 1: a float32 sum of 512 squares, each with a relative error
/// of 6e-8.
const LENGTH_LIMIT: f64 = 1e-5;

/// Largest difference of logits over the largest logit: float32 rounding in another order of sums,
/// over a hundred layers.
const LOGIT_LIMIT: f64 = 1e-4;

/// Largest distance between the updated weights of device and CPU, over the length of the CPU's
/// update. A missing gradient gives 1, one of half the size 0.5, one in another direction more than
/// 1.
const UPDATE_LIMIT: f64 = 0.3;

/// Series and size of the synthetic scene whose logits are compared.
const SCENE_SERIES: u64 = 6;
const SCENE_SIZE: [usize; 2] = [96, 160];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckOutcome {
    Passed,
    /// Above the limit, or not measurable.
    Failed,
    /// Measured at most, for a reason that is given.
    NotRun,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// The condition that is checked.
    pub what: &'static str,
    pub outcome: CheckOutcome,
    pub measured: Option<f64>,
    /// Largest value that passes.
    pub limit: Option<f64>,
    /// Explanation where the numbers do not suffice.
    pub reason: Option<String>,
}

impl Check {
    /// Passes up to and including the limit; NaN fails.
    pub(super) fn within(what: &'static str, measured: f64, limit: f64) -> Self {
        Self {
            what,
            outcome: if measured <= limit { CheckOutcome::Passed } else { CheckOutcome::Failed },
            measured: Some(measured).filter(|value| value.is_finite()),
            limit: Some(limit),
            reason: measured.is_nan().then(|| "not a number".to_owned()),
        }
    }

    /// Passes if there are no violations; names the first.
    fn no_violations(what: &'static str, violations: &[String]) -> Self {
        let reason = violations.first().cloned();
        Self { reason, ..Self::within(what, violations.len() as f64, 0.0) }
    }

    pub(super) fn failed(what: &'static str, error: &anyhow::Error) -> Self {
        let reason = Some(protoseg_models::errors::error_chain(error.as_ref()));
        Self { what, outcome: CheckOutcome::Failed, measured: None, limit: None, reason }
    }
}

/// Compares losses with those on the CPU in float32.
///
/// In float32, logits differ by rounding ([`LOGIT_LIMIT`]); the limit is ten times that for pixels
/// with a close call in the pseudo-labels and for the growth of differences over the steps. In
/// bfloat16, a factor of a product has an error of 2^-9 = 0.2 %, and a path through a hundred
/// convolutions adds up the squares of two such errors each: 3 %; the limit is three times that.
pub(super) fn losses(losses: &[Losses], precision: Precision) -> Check {
    let limit = match precision {
        Precision::Float32 => 1e-3,
        Precision::Bfloat16 => 0.1,
    };
    let deviations = losses.iter().map(|losses| (losses.device / losses.reference - 1.0).abs());
    // The total order puts NaN above every number.
    let largest = deviations.max_by(f64::total_cmp).unwrap_or(f64::NAN);
    Check::within("losses equal those on the CPU", largest, limit)
}

/// Compares the updates of the weights with those on the CPU.
///
/// Gradients of the last layer have the relative error of its inputs. Those of all layers have a
/// larger one: batch normalization over the few values of small crops amplifies differences, so
/// that in an untrained network the gradients of bfloat16 are not comparable.
pub(super) fn updates(
    setup: &AcceptSetup,
    precision: Precision,
    device: &StateDict,
    reference: &StateDict,
    initial: &StateDict,
) -> Result<[Check; 2]> {
    let logits = setup.graph.tagged(Tag::Logits).context("the network has no logits")?;
    let last_layer = format!("{}.", setup.graph.node(logits).name);
    let last = update_distance(device, reference, initial, &last_layer)?;
    let all = update_distance(device, reference, initial, "")?;
    let mut all_check =
        Check::within("updates of all weights equal those on the CPU", all, UPDATE_LIMIT);
    if precision == Precision::Bfloat16 {
        all_check.outcome = CheckOutcome::NotRun;
        all_check.limit = None;
        all_check.reason =
            Some("bfloat16 gradients of an untrained network are not comparable".to_owned());
    }
    Ok([
        Check::within("updates of the last layer equal those on the CPU", last, UPDATE_LIMIT),
        all_check,
    ])
}

/// L2 distance of the weights under a prefix from the reference, over the distance of the reference
/// from the initial ones.
fn update_distance(
    device: &StateDict,
    reference: &StateDict,
    initial: &StateDict,
    prefix: &str,
) -> Result<f64> {
    let mut from_reference = 0.0;
    let mut update = 0.0;
    for (name, reference) in reference.iter().filter(|(name, _)| name.starts_with(prefix)) {
        let missing = || format!("`{name}` is missing in one of the networks");
        let device = &device.get(name).with_context(missing)?.data;
        let initial = &initial.get(name).with_context(missing)?.data;
        let squared_distance = |other: &[f32]| -> f64 {
            let pairs = reference.data.iter().zip(other);
            pairs.map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
        };
        from_reference += squared_distance(device);
        update += squared_distance(initial);
    }
    Ok(from_reference.sqrt() / update.sqrt())
}

/// Checks values, devices and prototype lengths after the steps.
pub(super) fn tensors(learner: &Learner, device: Device) -> Result<[Check; 3]> {
    let prototypes = learner.prototypes.as_ref().context("the learner has no prototypes")?;
    let student = learner.student.tensors().iter().map(|(name, tensor)| ("student", name, tensor));
    let teacher = learner.teacher.tensors().iter().map(|(name, tensor)| ("teacher", name, tensor));
    let mut not_finite = Vec::new();
    let mut elsewhere = Vec::new();
    let mut inspect = |name: String, tensor: &Tensor| -> Result<()> {
        if tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
            not_finite.push(format!("{name} is not finite"));
        }
        if tensor.device() != device {
            elsewhere.push(format!("{name} is on {:?}", tensor.device()));
        }
        Ok(())
    };
    for (network, name, tensor) in student.chain(teacher) {
        inspect(format!("{name} of the {network}"), tensor)?;
    }
    inspect("the tensor of prototypes".to_owned(), prototypes.values())?;
    let lengths = prototypes.values().f_norm_scalaropt_dim(2.0, [1_i64].as_slice(), false)?;
    // Classes without a labeled pixel have no prototypes yet.
    let active = &prototypes.counters().active;
    let per_class = lengths.size()[0] / active.len().max(1) as i64;
    let active = Tensor::f_from_slice(active)?
        .f_repeat_interleave_self_int(per_class, 0, None)?
        .f_to_device(device)?;
    let deviation = lengths
        .f_masked_select(&active)?
        .f_sub_scalar(1.0)?
        .f_abs()?
        .f_max()?
        .f_double_value(&[])?;
    Ok([
        Check::no_violations("all tensors are finite", &not_finite),
        Check::no_violations("all tensors are on the device", &elsewhere),
        Check::within("prototypes have unit length", deviation, LENGTH_LIMIT),
    ])
}

/// Writes the teacher as a checkpoint, reads it, and compares its logits on the CPU with those on
/// the device.
pub(super) fn checkpoint(learner: &Learner, setup: &AcceptSetup, folder: &Path) -> Result<Check> {
    let checkpoint = checkpoint::from_learner(learner, setup.arch, &setup.lists.classes, None)?;
    checkpoint.write(folder)?;
    let read = Checkpoint::read(folder)?;
    let found = scene_logits(&Net::new(setup.graph.clone(), &read.weights, Device::Cpu)?)?;
    let expected = scene_logits(&learner.teacher.with_precision(Precision::Float32))?;
    let largest = expected.f_abs()?.f_max()?.f_double_value(&[])?;
    let difference = found.f_sub(&expected)?.f_abs()?.f_max()?.f_double_value(&[])?;
    Ok(Check::within(
        "a checkpoint gives the same logits on the CPU",
        difference / largest,
        LOGIT_LIMIT,
    ))
}

/// Logits of a scene, copied to the CPU.
fn scene_logits(net: &Net) -> Result<Tensor> {
    let _guard = tch::no_grad_guard();
    let [height, width] = SCENE_SIZE;
    let scene = protoseg_synthetic::render_scene(SCENE_SERIES, 0, height, width);
    let image = net::images_to_tensor(&scene.image, SCENE_SIZE, net.device())?;
    let logits = from_torch(&net.forward_tagged(&image, ForwardMode::Eval, Tag::Logits)?)?;
    Ok(net::to_torch(&logits, Device::Cpu)?.f_to_kind(Kind::Double)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protoseg_models::weights;

    #[test]
    fn values_above_the_limit_and_nan_fail() {
        let outcome = |measured| Check::within("x", measured, 1.0).outcome;
        assert_eq!(outcome(1.0), CheckOutcome::Passed);
        for measured in [1.1, f64::INFINITY, f64::NAN] {
            assert_eq!(outcome(measured), CheckOutcome::Failed);
        }
        assert_eq!(Check::no_violations("x", &[]).outcome, CheckOutcome::Passed);
        let violated = Check::no_violations("x", &["the third is odd".to_owned()]);
        assert_eq!(
            (violated.outcome, violated.reason.as_deref()),
            (CheckOutcome::Failed, Some("the third is odd"))
        );
    }

    #[test]
    fn a_loss_that_is_not_a_number_fails() {
        let outcome = |device: [f64; 2]| {
            let losses = device.map(|device| Losses { device, reference: 2.0 });
            super::losses(&losses, Precision::Float32).outcome
        };
        assert_eq!(outcome([2.0, 2.001]), CheckOutcome::Passed);
        assert_eq!(outcome([f64::NAN, 2.0]), CheckOutcome::Failed);
        assert_eq!(super::losses(&[], Precision::Float32).outcome, CheckOutcome::Failed);
    }

    #[test]
    fn update_distances_are_relative_to_the_reference_update() {
        let weights = |values: [f32; 2]| {
            let tensor = weights::Tensor { shape: vec![2], data: values.to_vec() };
            StateDict::from([("a".to_owned(), tensor)])
        };
        let distance = |device: &StateDict, reference: &StateDict, initial: &StateDict| {
            update_distance(device, reference, initial, "").unwrap()
        };
        let (initial, reference) = (weights([1.0, 1.0]), weights([4.0, 5.0]));
        assert_eq!(distance(&reference, &reference, &initial), 0.0);
        assert_eq!(distance(&initial, &reference, &initial), 1.0);
        assert_eq!(distance(&weights([7.0, 9.0]), &reference, &initial), 1.0);
        // Without any update, the ratio is not a number.
        assert!(distance(&initial, &initial, &initial).is_nan());
    }
}
