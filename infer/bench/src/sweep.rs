//! Combinations of values of engine options.

use std::str::FromStr;

use protoseg_infer::EngineConfig;
use protoseg_infer::config::ConfigError;

/// An option with its values: `threads=1,2`. Values that contain commas are separated by `;`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sweep {
    name: String,
    values: Vec<String>,
}

impl FromStr for Sweep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || "write OPTION=VALUE,VALUE such as threads=1,2".to_owned();
        let (name, values) = text.split_once('=').ok_or_else(invalid)?;
        let separator = if values.contains(';') { ';' } else { ',' };
        let values: Vec<String> =
            values.split(separator).map(|value| value.trim().to_owned()).collect();
        if name.is_empty() || values.iter().any(String::is_empty) {
            return Err(invalid());
        }
        for (index, value) in values.iter().enumerate() {
            if values[..index].contains(value) {
                return Err(format!("{name} {value} is given twice"));
            }
        }
        Ok(Self { name: name.trim_start_matches('-').to_owned(), values })
    }
}

/// The first option that two of them set.
pub fn duplicate(sweeps: &[Sweep]) -> Option<&str> {
    let is_known = |(index, sweep): &(usize, &Sweep)| {
        sweeps[..*index].iter().any(|other| other.name == sweep.name)
    };
    sweeps.iter().enumerate().find(is_known).map(|(_, sweep)| sweep.name.as_str())
}

/// All combinations on top of `given`, each with the text that tells it from the others; the values
/// of the last sweep change fastest.
pub fn combinations(
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
    fn combinations_are_complete() {
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
        assert_eq!((duplicate(&again), duplicate(&again[..2])), (Some("threads"), None));
    }
}
