//! The fastest way to run a model on a machine that still gives right labels: what `protoseg tune` found, with all that speaks
//! for it, in a file beside the model. [`space`] says what is tried, [`search`] chooses within [`limits`], [`machine`] tells for whom it holds.

mod day;
pub mod limits;
pub mod machine;
pub mod search;
pub mod space;

use std::path::{Path, PathBuf};

use protoseg_infer::EngineConfig;
use protoseg_infer::config::ON;
use protoseg_models::bundle::TUNING;
use protoseg_models::errors::FileError;
use protoseg_models::versioned::{self, JsonError, Versioned};
use serde::{Deserialize, Serialize};

use self::day::day;
use self::limits::TuningLimits;
use self::machine::MachineId;
use self::search::{Candidate, TuningDecision};
use crate::ab::AbComparison;
use crate::load::Scenario;
use crate::report::ImageSummary;

/// `tuning.json`: what was found, for several machines, models and goals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tuning {
    /// Version of the format.
    pub version: String,
    /// One for each machine, model and way of asking.
    pub entries: Vec<TuningEntry>,
}

/// What was found for one machine, model and way of asking.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TuningEntry {
    /// The machine that it holds for.
    pub machine: MachineId,
    /// The model that it holds for, by [`machine::model_id`].
    pub model: String,
    /// How the model was asked, which is what it was tuned for.
    pub scenario: Scenario,
    /// What a choice had to keep to.
    pub limits: TuningLimits,
    /// The pictures that were asked about.
    pub pictures: ImageSummary,
    /// The program that measured, and its version.
    pub program: String,
    /// When it began, in seconds since 1970 (UTC).
    pub measured: u64,
    /// How the model is to be run; empty where it runs best as it comes.
    pub choice: EngineConfig,
    /// Why.
    pub decision: TuningDecision,
    /// The choice of the search against the default, in blocks in turns; none where the search found nothing faster.
    pub comparison: Option<AbComparison>,
    /// All that was tried, in order.
    pub candidates: Vec<Candidate>,
}

/// Who runs a model, and so which of several entries suits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TuningPurpose {
    /// Many pictures that are all there: most in an hour counts. Nothing is known from tuning for one picture at a time.
    Label,
    /// Requests that come by themselves: what was measured with several clients under a bound of latency is nearest, then
    /// what answers one request soonest; what was measured over many pictures says nothing of how long one waits.
    Serve,
}

/// The shape of a scenario: entries of one machine and model differ in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LoadShape {
    Offline,
    Clients,
    Single,
}

impl TuningPurpose {
    /// From what suits best to what still does.
    fn kinds(self) -> &'static [LoadShape] {
        match self {
            Self::Label => &[LoadShape::Offline, LoadShape::Clients],
            Self::Serve => &[LoadShape::Clients, LoadShape::Single, LoadShape::Offline],
        }
    }
}

impl Tuning {
    /// Version written, and the newest read.
    pub const VERSION: &str = "1.0";

    /// Reads a file; none where there is none.
    pub fn read(path: &Path) -> Result<Option<Self>, JsonError> {
        match versioned::read(path, Self::VERSION) {
            Ok(Versioned { value, .. }) => Ok(Some(value)),
            Err(JsonError::File(FileError { source, .. }))
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// One without entries.
    pub fn empty() -> Self {
        Self { version: Self::VERSION.to_owned(), entries: Vec::new() }
    }

    /// Writes a file, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), JsonError> {
        versioned::write(path, self)
    }

    /// Puts an entry in, in place of what an earlier tuning found for the same machine, model and way of asking.
    pub fn put(&mut self, entry: TuningEntry) {
        self.entries.retain(|known| {
            !known.is_for(&entry.machine, &entry.model) || known.kind() != entry.kind()
        });
        self.entries.push(entry);
    }

    /// What was found for a machine and a model under scenarios of one kind.
    pub fn found(
        &self,
        machine: &MachineId,
        model: &str,
        scenario: Scenario,
    ) -> Option<&TuningEntry> {
        self.entries
            .iter()
            .find(|entry| entry.is_for(machine, model) && entry.kind() == kind(scenario))
    }

    /// The entry that suits best.
    pub fn best_for(
        &self,
        machine: &MachineId,
        model: &str,
        user: TuningPurpose,
    ) -> Option<&TuningEntry> {
        let fits = |kind: &LoadShape| {
            self.entries.iter().find(|entry| entry.is_for(machine, model) && entry.kind() == *kind)
        };
        user.kinds().iter().find_map(fits)
    }
}

impl TuningEntry {
    fn is_for(&self, machine: &MachineId, model: &str) -> bool {
        self.machine == *machine && self.model == model
    }

    fn kind(&self) -> LoadShape {
        kind(self.scenario)
    }

    /// The choice for somebody. What cores are used for is left to them where it was measured under another load than
    /// theirs.
    pub fn choice_for(&self, user: TuningPurpose) -> EngineConfig {
        let mut choice = self.choice.clone();
        if user.kinds().first() != Some(&self.kind()) {
            choice.mode = None;
        }
        choice
    }

    /// How many times as fast as the default the choice is, where it was found to be faster.
    pub fn times(&self) -> Option<f64> {
        let comparison =
            self.comparison.as_ref().filter(|_| self.decision == TuningDecision::Faster)?;
        Some(1.0 / comparison.ratio.ratio)
    }

    /// The day on which it was measured, such as 2026-11-27 (UTC).
    pub fn day(&self) -> String {
        day(self.measured)
    }
}

fn kind(scenario: Scenario) -> LoadShape {
    match scenario {
        Scenario::Offline => LoadShape::Offline,
        Scenario::SingleStream => LoadShape::Single,
        Scenario::Clients { .. } | Scenario::MultiStream { .. } | Scenario::Server { .. } => {
            LoadShape::Clients
        }
    }
}

/// Where tunings of a model lie: in the bundle's folder, or in that of a single file.
pub fn tuning_path(model: &Path) -> PathBuf {
    if model.is_dir() { model.join(TUNING) } else { model.with_file_name(TUNING) }
}

/// A choice as a person reads it: `precision int8, threads 4`.
pub fn describe(choice: &EngineConfig) -> String {
    let options = choice.options();
    if options.is_empty() {
        return "as it comes".to_owned();
    }
    let option = |(name, value): (&&str, &String)| match value.as_str() {
        ON => (*name).to_owned(),
        value => format!("{name} {value}"),
    };
    options.iter().map(option).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use protoseg_models::variant::Precision;

    use super::*;

    fn machine(cores: usize) -> MachineId {
        let processor = Some("a processor".to_owned());
        MachineId {
            processor,
            cores,
            vector_extensions: Vec::new(),
            gpus: Vec::new(),
            runtime: "1.30".to_owned(),
        }
    }

    fn config(options: &[(&str, &str)]) -> EngineConfig {
        let mut config = EngineConfig::default();
        options.iter().for_each(|(name, value)| config.set(name, value).unwrap());
        config
    }

    fn entry(
        cores: usize,
        model: &str,
        scenario: Scenario,
        choice: &[(&str, &str)],
    ) -> TuningEntry {
        TuningEntry {
            machine: machine(cores),
            model: model.to_owned(),
            scenario,
            limits: TuningLimits { least_agreement: 0.99, p99_ms: None },
            pictures: ImageSummary { height: 32, width: 32, count: 1, source: "drawn".to_owned() },
            program: "protoseg".to_owned(),
            measured: 0,
            choice: config(choice),
            decision: TuningDecision::Faster,
            comparison: None,
            candidates: Vec::new(),
        }
    }

    #[test]
    fn an_entry_replaces_only_its_own() {
        let mut tuning = Tuning::empty();
        let clients = |clients| Scenario::Clients { clients };
        for (cores, model, scenario) in [
            (2, "a", Scenario::Offline),
            (2, "a", Scenario::SingleStream),
            (2, "a", clients(4)),
            (4, "a", Scenario::Offline),
            (2, "b", Scenario::Offline),
        ] {
            tuning.put(entry(cores, model, scenario, &[]));
        }
        assert_eq!(tuning.entries.len(), 5);
        tuning.put(entry(2, "a", clients(8), &[("spin", "on")]));
        assert_eq!(tuning.entries.len(), 5);
        assert!(tuning.found(&machine(2), "a", clients(4)).unwrap().choice.spin);
        let offline = tuning.found(&machine(2), "a", Scenario::Offline).unwrap();
        assert_eq!(offline.choice, EngineConfig::default());
        assert_eq!(tuning.found(&machine(3), "a", Scenario::Offline), None);
        assert_eq!(tuning.found(&machine(2), "c", Scenario::Offline), None);
        let text = serde_json::to_string(&tuning).unwrap();
        assert_eq!(
            versioned::parse::<Tuning>(Path::new("x"), &text, Tuning::VERSION).unwrap().value,
            tuning
        );
    }

    #[test]
    fn each_user_gets_what_was_measured_for_it() {
        let mode = [("mode", "throughput"), ("precision", "int8")];
        let all = [Scenario::SingleStream, Scenario::Clients { clients: 4 }, Scenario::Offline];
        // Which of these there are, which one labels, which one serves, and whether each keeps its mode.
        let table = [
            (&all[..], Some((2, true)), Some((1, true))),
            (&all[..2], Some((1, false)), Some((1, true))),
            (&all[..1], None, Some((0, false))),
            (&all[2..], Some((2, true)), Some((2, false))),
            (&[], None, None),
        ];
        for (there, label, serve) in table {
            let mut tuning = Tuning::empty();
            there.iter().for_each(|&scenario| tuning.put(entry(2, "a", scenario, &mode)));
            for (user, expected) in [(TuningPurpose::Label, label), (TuningPurpose::Serve, serve)] {
                let found = tuning.best_for(&machine(2), "a", user);
                let told =
                    found.map(|entry| (entry.scenario, entry.choice_for(user).mode.is_some()));
                assert_eq!(
                    told,
                    expected.map(|(index, mode)| (all[index], mode)),
                    "{user:?} of {there:?}"
                );
                assert!(
                    found.is_none_or(
                        |entry| entry.choice_for(user).precision == Some(Precision::Int8)
                    )
                );
            }
            assert_eq!(tuning.best_for(&machine(3), "a", TuningPurpose::Label), None);
        }
    }

    #[test]
    fn choices_read_as_sentences() {
        let choice = config(&[("threads", "4"), ("precision", "int8"), ("spin", "on")]);
        assert_eq!(describe(&choice), "precision int8, spin, threads 4");
        assert_eq!(describe(&EngineConfig::default()), "as it comes");
    }
}
