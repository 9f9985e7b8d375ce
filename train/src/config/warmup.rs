//! Keys that determine the supervised warm-up: runs that agree in them can share it.

use anyhow::Result;
use serde_json::Value;

use super::Config;
use super::options::TrainingMode;

/// Keys without effect until the teacher is made.
pub(super) const IRRELEVANT_TO_WARMUP: [&str; 40] = [
    "name",
    "unlabeled",
    "unlabeled_truth",
    "validation",
    "synthetic_unlabeled",
    "synthetic_validation",
    "window",
    "mode",
    "teacher",
    "teacher_decay",
    "teacher_statistics",
    "copy_teacher_each_step",
    "precise_bn_batches",
    "cutmix",
    "cutmix_features",
    "photometric",
    "unlabeled_weight",
    "unlabeled_ramp",
    "entropy_drop",
    "entropy_drop_per_class",
    "unlabeled_gate",
    "unlabeled_class_weights",
    "unlabeled_scale",
    "restart_learning_rate",
    "prototypes",
    "temperature",
    "prototype_momentum",
    "prototype_gate",
    "gate_loss",
    "prototype_weight",
    "prototype_unlabeled_weight",
    "prototype_ramp",
    "points",
    "point_cells",
    "points_per_class",
    "features",
    "average",
    "reseed_after",
    "calibration_images",
    "dumped_images",
];

impl Config {
    /// Keys and values that determine the warm-up. Where `epochs` sets the number of steps, it
    /// depends on the number of unlabeled images too.
    pub fn warmup_keys(&self) -> Result<Value> {
        let mut keys = serde_json::to_value(self)?;
        if let Value::Object(keys) = &mut keys {
            let counted = ["unlabeled", "synthetic_unlabeled"];
            keys.retain(|key, _| {
                !IRRELEVANT_TO_WARMUP.contains(&key.as_str())
                    || self.epochs > 0 && counted.contains(&key.as_str())
            });
        }
        Ok(keys)
    }

    /// Configuration of the warm-up alone, the same for all runs that share it.
    pub fn for_warmup(&self) -> Result<Self> {
        let mut keys = self.warmup_keys()?;
        keys["name"] = Value::String(format!("{} warm-up", self.name));
        keys["mode"] = serde_json::to_value(TrainingMode::Supervised)?;
        Ok(serde_json::from_value(keys)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before(settings: &[&str]) -> Value {
        let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        Config::parse(include_str!("../../configs/synthetic.toml"), &settings)
            .unwrap()
            .warmup_keys()
            .unwrap()
    }

    #[test]
    fn runs_share_a_warm_up_unless_it_would_differ() {
        assert_eq!(before(&["mode=prototype", "temperature=0.2"]), before(&["mode=supervised"]));
        for setting in [
            "seed=9",
            "steps=999",
            "learning_rate=0.5",
            "class_weights=none",
            "crop=96",
            "pad_label=zero",
        ] {
            assert_ne!(before(&[setting]), before(&[]), "{setting}");
        }
    }

    #[test]
    fn every_key_is_one_of_the_configuration() {
        let config = Config::parse(include_str!("../../configs/synthetic.toml"), &[]).unwrap();
        let keys = serde_json::to_value(config).unwrap();
        for key in IRRELEVANT_TO_WARMUP {
            assert!(keys.get(key).is_some(), "{key}");
        }
    }
}
