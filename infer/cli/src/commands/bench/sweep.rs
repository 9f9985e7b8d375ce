//! Every combination of values of some options of the engine.

use std::str::FromStr;

use protoseg_infer::EngineConfig;
use protoseg_infer::config::ConfigError;

/// An option with the values that are tried: `threads=1,2`. Values that hold commas themselves are parted by `;`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sweep {
    name: String,
    values: Vec<String>,
}

impl FromStr for Sweep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write OPTION=VALUE,VALUE such as threads=1,2".to_owned();
        let (name, values) = text.split_once('=').ok_or_else(wrong)?;
        let between = if values.contains(';') { ';' } else { ',' };
        let values: Vec<String> =
            values.split(between).map(|value| value.trim().to_owned()).collect();
        if name.is_empty() || values.iter().any(String::is_empty) {
            return Err(wrong());
        }
        if let Some(twice) =
            values.iter().enumerate().find(|(place, value)| values[..*place].contains(value))
        {
            return Err(format!("{name} {} stands there twice", twice.1));
        }
        Ok(Self { name: name.trim_start_matches('-').to_owned(), values })
    }
}

/// An option that more than one of them sets.
pub(super) fn twice(sweeps: &[Sweep]) -> Option<&str> {
    let known = |place: usize, name: &str| sweeps[..place].iter().any(|other| other.name == name);
    sweeps
        .iter()
        .enumerate()
        .find(|(place, sweep)| known(*place, &sweep.name))
        .map(|(_, sweep)| sweep.name.as_str())
}

/// All combinations, on top of what was given for all; the last sweep's values change fastest. Each comes with what tells it
/// from the others.
pub(super) fn combinations(
    given: &EngineConfig,
    sweeps: &[Sweep],
) -> Result<Vec<(EngineConfig, String)>, ConfigError> {
    let mut all = vec![(given.clone(), String::new())];
    for sweep in sweeps {
        let mut more = Vec::new();
        for (config, name) in &all {
            for value in &sweep.values {
                let mut config = config.clone();
                config.set(&sweep.name, value)?;
                let separator = if name.is_empty() { "" } else { ", " };
                more.push((config, format!("{name}{separator}{} {value}", sweep.name)));
            }
        }
        all = more;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    #[test]
    fn every_combination_comes_once() {
        let threads = NonZeroUsize::new(9);
        let given = EngineConfig { spin: true, threads, ..EngineConfig::default() };
        let sweeps: Vec<Sweep> = ["threads=1,2", "--device=cuda:0,1;cpu"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        let all = combinations(&given, &sweeps).unwrap();
        let names: Vec<&str> = all.iter().map(|(_, name)| name.as_str()).collect();
        let expected = [
            "threads 1, device cuda:0,1",
            "threads 1, device cpu",
            "threads 2, device cuda:0,1",
            "threads 2, device cpu",
        ];
        assert_eq!(names, expected);
        assert!(all.iter().all(|(config, _)| config.spin));
        let options = all[3].0.options();
        assert_eq!((options["threads"].as_str(), options["device"].as_str()), ("2", "cpu"));
        assert_eq!(combinations(&given, &[]).unwrap(), [(given.clone(), String::new())]);
        let unknown = ["thread=1".parse().unwrap()];
        assert!(combinations(&given, &unknown).is_err());
        for text in ["threads", "=1", "threads=", "threads=1,,2", "threads=1,2,1"] {
            assert!(text.parse::<Sweep>().is_err(), "{text}");
        }
        let again: Vec<Sweep> =
            ["threads=1", "batch=2", "--threads=2"].map(|text| text.parse().unwrap()).into();
        assert_eq!((twice(&again), twice(&again[..2])), (Some("threads"), None));
    }
}
