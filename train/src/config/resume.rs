//! Keys of a configuration that may change before a run is resumed.

use anyhow::Result;
use serde_json::Value;

use super::Config;

/// Keys without effect on any weight, with what they do have an effect on. A state is resumed with other values of them.
pub const CHANGE_NO_WEIGHT: [(&str, &str); 13] = [
    ("name", "a name in files and scores"),
    ("root", "the place of the data set, whose lists, classes and files must be the same"),
    ("validation", "images that are scored, never trained on"),
    ("synthetic_validation", "scenes that are scored, never trained on"),
    ("unlabeled_truth", "labels that are scored and logged, never trained on"),
    ("allow_absent_classes", "a check before the first step"),
    ("skip_broken", "no effect once a run has begun: its state names the images that are left out"),
    (
        "window",
        "geometry of scoring and labeling; training crops and first prototypes do not depend on it",
    ),
    ("eval_every", "moments of scores"),
    ("log_every", "moments of lines in the log"),
    ("save_every", "moments of saved states"),
    ("calibration_images", "ranges for int8 export, recorded after the last step"),
    ("dumped_images", "pseudo-labels written to look at"),
];

/// Names the keys that keep a state of one configuration from being resumed with another, with both values; empty if none
/// does.
pub fn blocking_changes(saved: &Config, given: &Config) -> Result<String> {
    let blocking = |config: &Config| -> Result<Value> {
        let mut keys = serde_json::to_value(config)?;
        if let Value::Object(keys) = &mut keys {
            keys.retain(|key, _| CHANGE_NO_WEIGHT.iter().all(|(free, _)| free != key));
        }
        Ok(keys)
    };
    Ok(changes(&blocking(saved)?, &blocking(given)?))
}

/// Lists the keys of two JSON objects that differ, with both values.
pub(crate) fn changes(old: &Value, new: &Value) -> String {
    let keys = new.as_object().into_iter().flatten();
    let changed = keys.filter(|(key, value)| old.get(key.as_str()) != Some(value));
    let named: Vec<String> = changed
        .map(|(key, value)| format!("`{key}` was {}, is {value}", old[key.as_str()]))
        .collect();
    named.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(settings: &[&str]) -> Config {
        let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        Config::parse(include_str!("../../configs/synthetic.toml"), &settings).unwrap()
    }

    #[test]
    fn only_keys_that_change_weights_block_a_resume_and_are_named() {
        let free = [
            "name=other",
            "root=elsewhere",
            "validation=val.txt",
            "synthetic_validation=3",
            "unlabeled_truth=truth.txt",
            "allow_absent_classes=true",
            "skip_broken=true",
            "window={size=256, stride=192}",
            "eval_every=7",
            "log_every=9",
            "save_every=11",
            "calibration_images=0",
            "dumped_images=2",
        ];
        for (setting, (key, _)) in free.into_iter().zip(CHANGE_NO_WEIGHT) {
            assert!(setting.starts_with(&format!("{key}=")), "{setting}");
            assert_ne!(parse(&[setting]), parse(&[]), "{setting}");
            assert_eq!(blocking_changes(&parse(&[]), &parse(&[setting])).unwrap(), "", "{setting}");
        }
        let changed = blocking_changes(&parse(&[]), &parse(&["crop=96", "seed=5", "name=b"]));
        let changed = changed.unwrap();
        assert!(changed.contains("`crop` was 224, is 96") && changed.contains("`seed`"));
        assert!(!changed.contains("name"), "{changed}");
    }

    /// Every other key has an effect on weights, or names the data that it is known by.
    #[test]
    fn every_key_is_known_to_change_weights_or_not_to() {
        let changing = "data labeled unlabeled channels range synthetic_labeled synthetic_unlabeled \
             synthetic_size network auxiliary pretrained pretrained_stem mode steps warmup_steps epochs warmup_epochs \
             batch accumulate crop crops_per_image precision learning_rate learning_rate_for head_multiplier \
             restart_learning_rate momentum weight_decay criterion ohem_threshold ohem_kept dice_weight \
             class_weights pad_label flip flip_pairs scale photometric labeled_photometric brightness \
             contrast saturation hue grayscale blur fidelity teacher_decay teacher_statistics \
             copy_teacher_each_step precise_bn_batches cutmix cutmix_features unlabeled_weight unlabeled_ramp \
             entropy_drop entropy_drop_per_class unlabeled_gate unlabeled_class_weights \
             unlabeled_scale prototypes temperature prototype_momentum prototype_gate gate_loss \
             prototype_weight prototype_unlabeled_weight prototype_ramp points point_cells \
             points_per_class features average reseed_after seed head patch_pixels registers \
             optimizer freeze_encoder feature_cache_gb teacher";
        let changing = changing.split_whitespace();
        let mut known: Vec<&str> =
            changing.chain(CHANGE_NO_WEIGHT.iter().map(|(key, _)| *key)).collect();
        known.sort_unstable();
        let config = serde_json::to_value(Config::default()).unwrap();
        let mut keys: Vec<&str> = config.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, known);
    }
}
