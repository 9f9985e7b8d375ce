//! Keys of a configuration that may change before a run is resumed.

use anyhow::Result;
use serde_json::Value;

use super::Config;

/// Keys without effect on any weight, with what they do have an effect on. A state is resumed with other values of them.
pub const CHANGE_NO_WEIGHT: [(&str, &str); 11] = [
    ("name", "a name in files and scores"),
    ("validation", "images that are scored, never trained on"),
    ("synthetic_validation", "scenes that are scored, never trained on"),
    ("unlabeled_truth", "labels that are scored and logged, never trained on"),
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
            "validation=val.txt",
            "synthetic_validation=3",
            "unlabeled_truth=truth.txt",
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
}
