//! `--tuning`: engine options that `protoseg tune` found for this machine and a model.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use protoseg_bench::tuning::{
    MachineId, Tuning, TuningEntry, TuningPurpose, describe, model_id, tuning_path,
};
use protoseg_infer::EngineConfig;

/// Options that may be given beside a tuned choice, as they only limit memory or name places. Any
/// other makes a combination that was not measured.
const COMPATIBLE: [&str; 5] =
    ["memory", "gpu-memory", "trt-cache", "trt-workspace", "cpu-fallback"];

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TuningArgs {
    /// Run the model as `protoseg tune` found it fastest on this machine, by this file, or `off`
    /// [default: tuning.json beside the model, where it matches and no other engine option is
    /// given]
    #[arg(long, value_name = "FILE|off")]
    tuning: Option<PathBuf>,
}

/// Engine options of a model, and where they come from.
#[derive(Debug, Clone)]
pub(crate) struct TunedEngine {
    pub(crate) engine: EngineConfig,
    /// The options are those of a tuning.
    pub(crate) used: bool,
    /// Shown with --verbose, or where a tuning is used.
    pub(crate) remark: Option<String>,
    pub(crate) warning: Option<String>,
}

impl TunedEngine {
    fn untuned(given: &EngineConfig) -> Self {
        Self { engine: given.clone(), used: false, remark: None, warning: None }
    }
}

impl TuningArgs {
    /// Refuses a file that does not exist.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if let Some(path) = self.file() {
            ensure!(
                path.is_file(),
                "{} is not a file; name one that `protoseg tune --out FILE` wrote, or off",
                path.display()
            );
        }
        Ok(())
    }

    fn is_off(&self) -> bool {
        self.tuning.as_deref() == Some(Path::new("off"))
    }

    /// The given file.
    fn file(&self) -> Option<&Path> {
        self.tuning.as_deref().filter(|_| !self.is_off())
    }

    /// The options of the tuning for this machine and model, or the given ones. Faults of a file
    /// that was not given are warnings.
    pub(crate) fn resolve(
        &self,
        model: &Path,
        given: &EngineConfig,
        purpose: TuningPurpose,
    ) -> anyhow::Result<TunedEngine> {
        self.check()?;
        let untuned = TunedEngine::untuned(given);
        if self.is_off() {
            return Ok(untuned);
        }
        let path = self.file().map_or_else(|| tuning_path(model), Path::to_owned);
        let tuning = match Tuning::read(&path) {
            Ok(None) => return Ok(untuned),
            Ok(Some(tuning)) => tuning,
            Err(error) if self.file().is_some() => return Err(error.into()),
            Err(error) => {
                let warning = format!(
                    "{error}; the model runs with its defaults: delete the file, and run `protoseg tune` again"
                );
                return Ok(TunedEngine { warning: Some(warning), ..untuned });
            }
        };
        let refusals = tuning.refusals(&path);
        let chosen = self.choose(&tuning, &path, model, given, purpose)?;
        let warnings: Vec<String> = refusals.into_iter().chain(chosen.warning).collect();
        let warning = (!warnings.is_empty()).then(|| warnings.join("; "));
        Ok(TunedEngine { warning, ..chosen })
    }

    fn choose(
        &self,
        tuning: &Tuning,
        path: &Path,
        model: &Path,
        given: &EngineConfig,
        purpose: TuningPurpose,
    ) -> anyhow::Result<TunedEngine> {
        let untuned = || TunedEngine::untuned(given);
        let (is_named, shown) = (self.file().is_some(), path.display());
        // A faulty model is reported where it is opened.
        let Ok(model) = model_id(model) else { return Ok(untuned()) };
        let Some(entry) = tuning.best_for(&MachineId::now(), &model, purpose) else {
            let purpose = match purpose {
                TuningPurpose::Label => "labeling",
                TuningPurpose::Serve => "serving",
            };
            let reason = format!(
                "{shown} holds nothing for this machine, ONNX Runtime and model that {purpose} can use; run `protoseg tune`"
            );
            return Ok(if is_named {
                TunedEngine { warning: Some(reason), ..untuned() }
            } else {
                TunedEngine { remark: Some(reason), ..untuned() }
            });
        };
        let choice = entry.choice_for(purpose);
        let described = describe(&choice);
        if let Some(name) = find_conflict(&choice, given) {
            ensure!(
                !is_named,
                "{shown} was measured without --{name} (it says: {described}); leave out one of --tuning and --{name}"
            );
            let remark =
                format!("tuned: not used, as --{name} was given ({shown} says: {described})");
            return Ok(TunedEngine { remark: Some(remark), ..untuned() });
        }
        let engine = choice.overlaid(given);
        let checked = engine
            .check()
            .with_context(|| format!("{shown} has options that are not supported; tune again"));
        match checked {
            Ok(()) => Ok(TunedEngine {
                engine,
                used: choice != EngineConfig::default(),
                remark: Some(remark(entry, &choice)),
                warning: None,
            }),
            Err(error) if is_named => Err(error),
            Err(error) => Ok(TunedEngine { warning: Some(format!("{error:#}")), ..untuned() }),
        }
    }
}

/// The first given option that differs from the choice and is not compatible with every choice.
fn find_conflict(choice: &EngineConfig, given: &EngineConfig) -> Option<&'static str> {
    let choice = choice.options();
    let is_chosen = |name: &str, value: &str| match choice.get(name) {
        Some(chosen) => chosen == value,
        None => name == "device" && value == "cpu",
    };
    given
        .options()
        .into_iter()
        .find(|(name, value)| !COMPATIBLE.contains(name) && !is_chosen(name, value))
        .map(|(name, _)| name)
}

fn remark(entry: &TuningEntry, choice: &EngineConfig) -> String {
    let speedup =
        entry.speedup().map_or_else(String::new, |times| format!("{times:.1} times the default, "));
    let way_out = if *choice == EngineConfig::default() {
        ""
    } else {
        "; --tuning off runs it with its defaults"
    };
    format!("tuned: {} ({speedup}measured {}){way_out}", describe(choice), entry.date())
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
    fn given_options_conflict_unless_they_equal_the_choice() {
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
            assert_eq!(find_conflict(&choice, &options(given)), expected, "{given}");
        }
        let gpu = options("device=cuda:0");
        assert_eq!(find_conflict(&gpu, &options("device=cuda:0")), None);
        assert_eq!(find_conflict(&gpu, &options("device=cpu")), Some("device"));
    }
}
