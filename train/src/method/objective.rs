//! The objective of PCR: `L = L_lin^l + 0.4 L_aux^l + w_u L_lin^u + w_p (L_proto^l + r L_proto^u)`.

use anyhow::{Result, bail};
use tch::Tensor;

use crate::config::Config;

/// Weight of the auxiliary loss (`aux_loss.loss_weight` of the paper's code).
const AUXILIARY_WEIGHT: f64 = 0.4;

/// Terms of the objective; None for those that a step does not have.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct LossTerms<T> {
    /// `L_lin^l`: linear head, labeled pixels.
    pub labeled: T,
    /// `L_aux^l`: auxiliary head, labeled pixels.
    pub auxiliary: Option<T>,
    /// `L_lin^u`: linear head, pseudo-labeled pixels.
    pub unlabeled: Option<T>,
    /// `L_proto^l`: prototype predictor, labeled points.
    pub prototype_labeled: Option<T>,
    /// `L_proto^u`: prototype predictor, pseudo-labeled points.
    pub prototype_unlabeled: Option<T>,
}

/// Weights of the terms at a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossWeights {
    /// `w_u`
    pub unlabeled: f64,
    /// `w_p`
    pub prototype: f64,
    /// `r`, relative to the labeled prototype loss.
    pub prototype_unlabeled: f64,
}

impl LossWeights {
    /// Returns the weights at `progress` in [0, 1] of the steps after the warm-up.
    pub fn at_progress(config: &Config, progress: f64) -> Self {
        let ramp = |share: f64| if progress < share { progress / share } else { 1.0 };
        Self {
            unlabeled: config.unlabeled_weight * ramp(config.unlabeled_ramp),
            prototype: config.prototype_weight,
            prototype_unlabeled: config.prototype_unlabeled_weight * ramp(config.prototype_ramp),
        }
    }
}

impl<T> LossTerms<T> {
    /// Returns the supervised term alone.
    pub fn supervised(labeled: T) -> Self {
        Self {
            labeled,
            auxiliary: None,
            unlabeled: None,
            prototype_labeled: None,
            prototype_unlabeled: None,
        }
    }

    /// Iterates over the terms with their names in the log.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &T)> {
        let terms = [
            ("labeled", Some(&self.labeled)),
            ("auxiliary", self.auxiliary.as_ref()),
            ("unlabeled", self.unlabeled.as_ref()),
            ("prototype_labeled", self.prototype_labeled.as_ref()),
            ("prototype_unlabeled", self.prototype_unlabeled.as_ref()),
        ];
        terms.into_iter().filter_map(|(name, term)| Some((name, term?)))
    }
}

impl LossTerms<Tensor> {
    /// Returns the weighted sum.
    pub fn total(&self, weights: LossWeights) -> Result<Tensor> {
        let mut total = self.labeled.shallow_clone();
        for (term, weight) in [
            (&self.auxiliary, AUXILIARY_WEIGHT),
            (&self.unlabeled, weights.unlabeled),
            (&self.prototype_labeled, weights.prototype),
            (&self.prototype_unlabeled, weights.prototype * weights.prototype_unlabeled),
        ] {
            if let Some(term) = term {
                total = total.f_add(&term.f_mul_scalar(weight)?)?;
            }
        }
        Ok(total)
    }

    /// Reads the values, each of which must be finite.
    pub fn values(&self) -> Result<LossTerms<f64>> {
        let value = |name: &str, term: &Tensor| -> Result<f64> {
            let value = term.f_double_value(&[])?;
            if !value.is_finite() {
                bail!(
                    "the term `{name}` of the loss is {value}: lower `learning_rate` or `head_multiplier`"
                );
            }
            Ok(value)
        };
        let optional = |name: &str, term: &Option<Tensor>| {
            term.as_ref().map(|term| value(name, term)).transpose()
        };
        Ok(LossTerms {
            labeled: value("labeled", &self.labeled)?,
            auxiliary: optional("auxiliary", &self.auxiliary)?,
            unlabeled: optional("unlabeled", &self.unlabeled)?,
            prototype_labeled: optional("prototype_labeled", &self.prototype_labeled)?,
            prototype_unlabeled: optional("prototype_unlabeled", &self.prototype_unlabeled)?,
        })
    }
}

impl LossTerms<f64> {
    /// Adds the terms of another, times `share`.
    pub fn add(&mut self, other: &Self, share: f64) {
        self.labeled += other.labeled * share;
        for (sum, term) in [
            (&mut self.auxiliary, other.auxiliary),
            (&mut self.unlabeled, other.unlabeled),
            (&mut self.prototype_labeled, other.prototype_labeled),
            (&mut self.prototype_unlabeled, other.prototype_unlabeled),
        ] {
            if let Some(term) = term {
                *sum = Some(sum.unwrap_or(0.0) + term * share);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(settings: &[&str]) -> Config {
        let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        Config::parse(include_str!("../../configs/synthetic.toml"), &settings).unwrap()
    }

    #[test]
    fn the_total_is_the_weighted_sum() {
        let scalar = |value: f64| Tensor::from(value);
        let terms = LossTerms {
            labeled: scalar(1.0),
            auxiliary: Some(scalar(10.0)),
            unlabeled: Some(scalar(100.0)),
            prototype_labeled: Some(scalar(1000.0)),
            prototype_unlabeled: Some(scalar(10_000.0)),
        };
        let weights = LossWeights { unlabeled: 0.5, prototype: 2.0, prototype_unlabeled: 0.1 };
        assert!((terms.total(weights).unwrap().double_value(&[]) - 4055.0).abs() < 1e-9);
        let alone = LossTerms::supervised(scalar(3.0));
        assert_eq!(alone.total(weights).unwrap().double_value(&[]), 3.0);
        assert_eq!(terms.named().count(), 5);
        let broken =
            LossTerms { unlabeled: Some(scalar(f64::NAN)), ..LossTerms::supervised(scalar(3.0)) };
        assert!(broken.values().unwrap_err().to_string().contains("`unlabeled`"));
    }

    #[test]
    fn weights_ramp_up_linearly() {
        let plain = LossWeights::at_progress(&config(&[]), 0.0);
        assert_eq!((plain.unlabeled, plain.prototype, plain.prototype_unlabeled), (1.0, 1.0, 1.0));
        let settings = [
            "unlabeled_weight=0.6",
            "unlabeled_ramp=0.5",
            "prototype_ramp=0.2",
            "prototype_weight=0.3",
        ];
        let ramped = |progress| {
            let weights = LossWeights::at_progress(&config(&settings), progress);
            [weights.unlabeled, weights.prototype, weights.prototype_unlabeled]
        };
        assert_eq!(ramped(0.0), [0.0, 0.3, 0.0]);
        assert_eq!(ramped(0.25), [0.3, 0.3, 1.0]);
        assert_eq!(ramped(1.0), [0.6, 0.3, 1.0]);
    }
}
