//! `fidelity = "pcr"`: behavior of the code that the paper builds on, as values of eight keys.

use anyhow::{Result, bail};
use toml::{Table, Value};

/// Keys and values that `fidelity = "pcr"` stands for.
pub const PCR: [(&str, &str); 8] = [
    ("pad_label", "zero"),
    ("teacher_statistics", "batch"),
    ("copy_teacher_each_step", "true"),
    ("points", "shared"),
    ("average", "raw"),
    ("reseed_after", "0"),
    ("unlabeled_scale", "all"),
    ("photometric", "false"),
];

/// Sets the keys of the preset; refuses a key with another value.
pub fn apply(table: &mut Table) -> Result<()> {
    if table.get("fidelity").and_then(Value::as_str) != Some("pcr") {
        return Ok(());
    }
    for (key, value) in PCR {
        let wanted = value.parse::<Value>().unwrap_or_else(|_| Value::String(value.to_owned()));
        match table.get(key) {
            Some(given) if *given != wanted => bail!(
                "`fidelity = \"pcr\"` means `{key} = {wanted}`, but `{key}` is {given}; remove one \
                 of the two"
            ),
            _ => table.insert(key.to_owned(), wanted),
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::super::options::{
        PadLabel, PointSampling, PrototypeAverage, TeacherStatistics, UnlabeledScale,
    };
    use super::*;

    /// Contradicts the preset in each key.
    const OTHERWISE: [&str; 8] = [
        "pad_label=ignore",
        "teacher_statistics=average",
        "copy_teacher_each_step=false",
        "points=per-image",
        "average=normalized",
        "reseed_after=200",
        "unlabeled_scale=valid",
        "photometric=true",
    ];

    fn parse(settings: &[&str]) -> Result<Config> {
        let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        Config::parse(include_str!("../../configs/synthetic.toml"), &settings)
    }

    #[test]
    fn fidelity_sets_its_eight_options_and_no_other() {
        let [plain, faithful] = [&OTHERWISE[..], &["fidelity=pcr"]]
            .map(|settings| serde_json::to_value(parse(settings).unwrap()).unwrap());
        for (key, value) in faithful.as_object().unwrap() {
            let named = OTHERWISE.iter().any(|otherwise| otherwise.starts_with(&format!("{key}=")));
            assert_eq!(*value != plain[key], named || key == "fidelity", "{key} is {value}");
        }
        let config = parse(&["fidelity=pcr"]).unwrap();
        assert_eq!(
            (config.pad_label, config.teacher_statistics),
            (PadLabel::Zero, TeacherStatistics::Batch)
        );
        assert_eq!((config.copy_teacher_each_step, config.points), (true, PointSampling::Shared));
        assert_eq!((config.average, config.reseed_after), (PrototypeAverage::Raw, 0));
        assert_eq!((config.unlabeled_scale, config.photometric), (UnlabeledScale::All, false));
    }

    #[test]
    fn contradicting_keys_are_refused_by_name_and_agreeing_ones_accepted() {
        for ((key, value), otherwise) in PCR.into_iter().zip(OTHERWISE) {
            let error = format!("{:#}", parse(&["fidelity=pcr", otherwise]).unwrap_err());
            let (_, given) = otherwise.split_once('=').unwrap();
            assert!(
                error.contains(&format!("`{key}` is ")) && error.contains(given),
                "{otherwise}: {error}"
            );
            let agreeing = parse(&["fidelity=pcr", &format!("{key}={value}")]).unwrap();
            assert_eq!(agreeing, parse(&["fidelity=pcr"]).unwrap(), "{key}");
        }
        assert!(parse(&["fidelity=other"]).unwrap_err().to_string().contains("other"));
    }
}
