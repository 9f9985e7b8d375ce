//! Every combination of values of some options of the engine.

use std::str::FromStr;

use crate::commands::engine_options::EngineOptionMap;

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
    given: &EngineOptionMap,
    sweeps: &[Sweep],
) -> Vec<(EngineOptionMap, String)> {
    let mut all = vec![(given.clone(), String::new())];
    for sweep in sweeps {
        let with = |(options, name): &(EngineOptionMap, String), value: &String| {
            let mut options = options.clone();
            options.insert(sweep.name.clone(), value.clone());
            let name = [name.as_str(), &format!("{} {value}", sweep.name)]
                .join(if name.is_empty() { "" } else { ", " });
            (options, name)
        };
        all = all
            .iter()
            .flat_map(|one| sweep.values.iter().map(move |value| with(one, value)))
            .collect();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_comes_once() {
        let given = EngineOptionMap::from([
            ("spin".to_owned(), "on".to_owned()),
            ("threads".to_owned(), "9".to_owned()),
        ]);
        let sweeps: Vec<Sweep> = ["threads=1,2", "--device=cuda:0,1;cpu"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        let all = combinations(&given, &sweeps);
        let names: Vec<&str> = all.iter().map(|(_, name)| name.as_str()).collect();
        let expected = [
            "threads 1, device cuda:0,1",
            "threads 1, device cpu",
            "threads 2, device cuda:0,1",
            "threads 2, device cpu",
        ];
        assert_eq!(names, expected);
        assert!(all.iter().all(|(options, _)| options["spin"] == "on"));
        assert_eq!((all[3].0["threads"].as_str(), all[3].0["device"].as_str()), ("2", "cpu"));
        assert_eq!(combinations(&given, &[]), [(given, String::new())]);
        for text in ["threads", "=1", "threads=", "threads=1,,2", "threads=1,2,1"] {
            assert!(text.parse::<Sweep>().is_err(), "{text}");
        }
        let again: Vec<Sweep> =
            ["threads=1", "batch=2", "--threads=2"].map(|text| text.parse().unwrap()).into();
        assert_eq!((twice(&again), twice(&again[..2])), (Some("threads"), None));
    }
}
