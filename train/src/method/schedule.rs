//! Schedule of a run: steps, warm-up, learning rate.

use anyhow::{Context, Result, ensure};

use crate::config::Config;
use crate::config::options::TrainingMode;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Optimizer steps of the run, warm-up included.
    pub steps: u64,
    /// Steps before the teacher is first copied from the student.
    pub warmup: u64,
    /// Steps of one pass over the unlabeled images, or the labeled ones where there are no others; at least 1.
    pub steps_per_epoch: u64,
    /// Initial learning rate, scaled to the batch.
    pub base_learning_rate: f64,
    restart: bool,
}

impl Schedule {
    /// Schedule of a run on lists of these lengths; an incomplete last step of an epoch does not count.
    pub fn new(config: &Config, labeled: usize, unlabeled: Option<usize>) -> Result<Self> {
        let crops = config.batch * config.accumulate;
        let steps_per_epoch = (unlabeled.unwrap_or(labeled) / crops) as u64;
        ensure!(
            config.epochs == 0 || steps_per_epoch > 0,
            "`epochs` counts passes over {} images, fewer than the {crops} of a step: set `steps` instead",
            unlabeled.unwrap_or(labeled)
        );
        let scale = config.learning_rate_for.map_or(1.0, |meant| crops as f64 / meant as f64);
        let total =
            |steps: u64, epochs: u64| epochs.checked_mul(steps_per_epoch)?.checked_add(steps);
        let steps = total(config.steps, config.epochs)
            .with_context(|| format!("`epochs` is {}", config.epochs))?;
        Ok(Self {
            steps,
            warmup: total(config.warmup_steps, config.warmup_epochs).unwrap_or(steps),
            steps_per_epoch: steps_per_epoch.max(1),
            base_learning_rate: config.learning_rate * scale,
            restart: config.restart_learning_rate,
        })
    }

    /// Returns the learning rate of a step, `base (1 - step / steps)^0.9`, restarted after the warm-up if so configured.
    pub fn learning_rate(&self, step: u64) -> f64 {
        let (step, steps) = if self.restart && step >= self.warmup {
            (step - self.warmup, self.steps - self.warmup)
        } else {
            (step, self.steps)
        };
        self.base_learning_rate * (1.0 - step as f64 / steps as f64).max(0.0).powf(0.9)
    }

    /// Returns the share of the steps after the warm-up that precede a step.
    pub fn progress(&self, step: u64) -> f64 {
        step.saturating_sub(self.warmup) as f64 / (self.steps - self.warmup).max(1) as f64
    }

    /// Returns the first step with unlabeled images.
    pub fn unlabeled_from(&self, mode: TrainingMode) -> Option<u64> {
        (mode != TrainingMode::Supervised).then_some(self.warmup)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(settings: &[&str], unlabeled: Option<usize>) -> Result<Schedule> {
        let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        Schedule::new(
            &Config::parse(include_str!("../../configs/synthetic.toml"), &settings).unwrap(),
            30,
            unlabeled,
        )
    }

    #[test]
    fn the_learning_rate_falls_to_zero() {
        let plain =
            schedule(&["steps=100", "warmup_steps=40", "learning_rate=0.02"], None).unwrap();
        assert_eq!([0, 100].map(|step| plain.learning_rate(step)), [0.02, 0.0]);
        assert!((plain.learning_rate(50) - 0.02 * 0.5_f64.powf(0.9)).abs() < 1e-12);
        assert_eq!([0, 40, 70, 100].map(|step| plain.progress(step)), [0.0, 0.0, 0.5, 1.0]);
        let restarted = schedule(
            &["steps=100", "warmup_steps=40", "learning_rate=0.02", "restart_learning_rate=true"],
            None,
        )
        .unwrap();
        assert_eq!(restarted.learning_rate(20), plain.learning_rate(20));
        assert_eq!(restarted.learning_rate(40), 0.02);
        assert!((restarted.learning_rate(70) - 0.02 * 0.5_f64.powf(0.9)).abs() < 1e-12);
    }

    #[test]
    fn epochs_are_passes_over_the_unlabeled_images() {
        let epochs = [
            "steps=0",
            "warmup_steps=0",
            "epochs=80",
            "warmup_epochs=1",
            "batch=2",
            "accumulate=8",
        ];
        let voc = schedule(&epochs, Some(10490)).unwrap();
        assert_eq!((voc.steps, voc.warmup, voc.steps_per_epoch), (80 * 655, 655, 655));
        assert_eq!(schedule(&epochs, None).unwrap().steps, 80);
        assert!(schedule(&epochs, Some(15)).unwrap_err().to_string().contains("fewer than the 16"));
    }

    #[test]
    fn the_learning_rate_scales_with_the_batch() {
        let rate = |settings: &[&str]| schedule(settings, None).unwrap().base_learning_rate;
        let base = ["learning_rate=0.01", "learning_rate_for=16", "batch=4"];
        assert_eq!(rate(&[&base[..], &["accumulate=4"]].concat()), 0.01);
        assert_eq!(rate(&[&base[..], &["accumulate=2"]].concat()), 0.005);
    }
}
