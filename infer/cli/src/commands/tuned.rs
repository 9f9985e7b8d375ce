//! What `protoseg tune` found for this machine and a model, where a command runs it so.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use protoseg_bench::tuning::machine::{MachineId, model_id};
use protoseg_bench::tuning::{Tuning, TuningEntry, TuningPurpose, describe, tuning_path};
use protoseg_infer::EngineConfig;

/// Options that may be given beside a tuned choice: they bound what it takes or say where it keeps what it needs. Any other
/// makes a combination that nobody measured.
const BESIDE: [&str; 5] = ["memory", "gpu-memory", "trt-cache", "trt-workspace", "cpu-fallback"];

/// Whether a model is run as tuned.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TuningArgs {
    /// Run the model as `protoseg tune` found it fastest on this machine, by this file, or `off` [default: tuning.json beside
    /// the model, where it fits and no other option of the engine is given]
    #[arg(long, value_name = "FILE|off")]
    tuning: Option<PathBuf>,
}

/// How a model is run, and what is to be said of that.
#[derive(Debug, Clone)]
pub(crate) struct TunedEngine {
    pub(crate) engine: EngineConfig,
    /// Whether the options are those of a tuning.
    pub(crate) used: bool,
    /// For who wants to know.
    pub(crate) remark: Option<String>,
    /// For everybody.
    pub(crate) warning: Option<String>,
}

impl TuningArgs {
    /// Refuses a file that is not there.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        match self.named() {
            Some(path) if !path.is_file() => {
                bail!(
                    "{} is no file; name one that `protoseg tune --out FILE` wrote, or off",
                    path.display()
                )
            }
            _ => Ok(()),
        }
    }

    /// The file that was named, if one was.
    fn named(&self) -> Option<&Path> {
        self.tuning.as_deref().filter(|path| !is_off(path))
    }

    /// How a model is run: as tuned for this machine, or as given. What is wrong with a file that nobody named is a warning.
    pub(crate) fn resolve(
        &self,
        model: &Path,
        given: &EngineConfig,
        user: TuningPurpose,
    ) -> anyhow::Result<TunedEngine> {
        self.check()?;
        let plain = TunedEngine { engine: given.clone(), used: false, remark: None, warning: None };
        if self.tuning.as_deref().is_some_and(is_off) {
            return Ok(plain);
        }
        let path = self.named().map_or_else(|| tuning_path(model), Path::to_owned);
        let shown = path.display();
        let found = match Tuning::read(&path) {
            Ok(None) => return Ok(plain),
            Ok(Some(found)) => found,
            Err(error) if self.named().is_some() => return Err(error.into()),
            Err(error) => {
                let warning = format!(
                    "{error}; the model runs as it comes: delete the file, and run `protoseg tune` again"
                );
                return Ok(TunedEngine { warning: Some(warning), ..plain });
            }
        };
        // What is wrong with a model is said where it is opened.
        let Ok(fingerprint) = model_id(model) else { return Ok(plain) };
        let Some(entry) = found.best_for(&MachineId::now(), &fingerprint, user) else {
            let whom = match user {
                TuningPurpose::Label => "labelling",
                TuningPurpose::Serve => "serving",
            };
            let why = format!(
                "{shown} holds nothing for this machine, ONNX Runtime and model that {whom} goes by; `protoseg tune` finds it"
            );
            let (warning, remark) =
                if self.named().is_some() { (Some(why), None) } else { (None, Some(why)) };
            return Ok(TunedEngine { warning, remark, ..plain });
        };
        let choice = entry.choice_for(user);
        if let Some(name) = conflict(&choice, given) {
            ensure!(
                self.named().is_none(),
                "{shown} was found without --{name} (it says: {}); leave out one of --tuning and --{name}",
                describe(&choice)
            );
            let remark = format!(
                "tuned: not used, as --{name} was given ({shown} says: {})",
                describe(&choice)
            );
            return Ok(TunedEngine { remark: Some(remark), ..plain });
        }
        let engine = choice.overlaid(given);
        match engine.check().with_context(|| format!("{shown} asks for what cannot be; tune again"))
        {
            Ok(()) => Ok(TunedEngine {
                engine,
                used: choice != EngineConfig::default(),
                remark: Some(remark(entry, &choice)),
                warning: None,
            }),
            Err(error) if self.named().is_some() => Err(error),
            Err(error) => Ok(TunedEngine { warning: Some(format!("{error:#}")), ..plain }),
        }
    }
}

fn is_off(path: &Path) -> bool {
    path == Path::new("off")
}

/// The first option that was given, shapes a run and is not what the choice sets.
fn conflict(choice: &EngineConfig, given: &EngineConfig) -> Option<&'static str> {
    let choice = choice.options();
    let as_chosen = |name: &str, value: &str| match choice.get(name) {
        Some(chosen) => chosen == value,
        None => name == "device" && value == "cpu",
    };
    let shapes = given.options().into_iter().filter(|(name, _)| !BESIDE.contains(name));
    shapes.into_iter().find(|(name, value)| !as_chosen(name, value)).map(|(name, _)| name)
}

fn remark(entry: &TuningEntry, choice: &EngineConfig) -> String {
    let measured = match entry.times() {
        Some(times) => format!("{times:.1} times the default, measured {}", entry.day()),
        None => format!("measured {}", entry.day()),
    };
    let way_out =
        if *choice == EngineConfig::default() { "" } else { "; --tuning off runs it as it comes" };
    format!("tuned: {} ({measured}){way_out}", describe(choice))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> EngineConfig {
        let mut config = EngineConfig::default();
        for (name, value) in text.split_whitespace().filter_map(|pair| pair.split_once('=')) {
            config.set(name, value).unwrap();
        }
        config
    }

    #[test]
    fn what_is_given_wins_unless_it_says_the_same() {
        let choice = options("precision=int8 threads=4");
        for (given, expected) in [
            ("", None),
            ("threads=4", None),
            ("memory=6G trt-cache=x", None),
            ("device=cpu", None),
            ("threads=2", Some("threads")),
            ("window=whole", Some("window")),
            ("device=cuda:0 memory=1G", Some("device")),
        ] {
            assert_eq!(conflict(&choice, &options(given)), expected, "{given}");
        }
        let gpu = options("device=cuda:0");
        assert_eq!(conflict(&gpu, &options("device=cuda:0")), None);
        assert_eq!(conflict(&gpu, &options("device=cpu")), Some("device"));
    }
}
