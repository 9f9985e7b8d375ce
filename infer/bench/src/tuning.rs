//! The fastest engine options for a model on a machine that keep its labels: `tuning.json` beside
//! the model.
//!
//! [`space`] lists what is tried, [`search`] chooses, [`runner`] measures.

pub mod runner;
pub mod search;
pub mod space;

use std::path::{Path, PathBuf};

use protoseg_infer::EngineConfig;
use protoseg_infer::config::ON;
use protoseg_infer::segmenter::fingerprint;
use protoseg_models::bundle::{BundleError, Manifest, TUNING, external_data};
use protoseg_models::digest;
use protoseg_models::errors::FileError;
use protoseg_models::versioned::{self, JsonError, Versioned};
use protoseg_models::window::Tiling;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::search::{Candidate, TuningDecision};
use crate::ab::AbComparison;
use crate::load::Scenario;
use crate::machine::MachineInfo;
use crate::machine::gpu::Gpu;
use crate::report::ImageSummary;
use crate::words::utc_time;

/// `tuning.json`: results for several machines, models and goals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "TuningFile", into = "TuningFile")]
pub struct Tuning {
    /// Version of the format.
    pub version: String,
    /// One per machine, model and kind of scenario.
    pub entries: Vec<TuningEntry>,
    /// Entries of the file that cannot be used; they are kept when it is written.
    pub refused: Vec<RefusedEntry>,
}

/// An entry that cannot be used, such as one with an option of another version.
#[derive(Debug, Clone, PartialEq)]
pub struct RefusedEntry {
    /// From 1 in the order of the file.
    pub number: usize,
    pub reason: String,
    entry: Value,
}

/// The form of a [`Tuning`] on disk.
#[derive(Serialize, Deserialize)]
struct TuningFile {
    version: String,
    entries: Vec<FileEntry>,
}

enum FileEntry {
    Usable(Box<TuningEntry>),
    /// With the reason.
    Refused(Value, String),
}

impl Serialize for FileEntry {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Usable(entry) => entry.serialize(serializer),
            Self::Refused(entry, _) => entry.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for FileEntry {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entry = Value::deserialize(deserializer)?;
        Ok(match TuningEntry::deserialize(&entry) {
            Ok(usable) => Self::Usable(Box::new(usable)),
            Err(error) => Self::Refused(entry, error.to_string()),
        })
    }
}

impl From<TuningFile> for Tuning {
    fn from(TuningFile { version, entries: listed }: TuningFile) -> Self {
        let (mut entries, mut refused) = (Vec::new(), Vec::new());
        for (index, entry) in listed.into_iter().enumerate() {
            match entry {
                FileEntry::Usable(entry) => entries.push(*entry),
                FileEntry::Refused(entry, reason) => {
                    refused.push(RefusedEntry { number: index + 1, reason, entry });
                }
            }
        }
        Self { version, entries, refused }
    }
}

impl From<Tuning> for TuningFile {
    fn from(Tuning { version, entries, refused }: Tuning) -> Self {
        let usable = entries.into_iter().map(|entry| FileEntry::Usable(Box::new(entry)));
        let refused =
            refused.into_iter().map(|refused| FileEntry::Refused(refused.entry, refused.reason));
        Self { version, entries: usable.chain(refused).collect() }
    }
}

/// Result for one machine, model and kind of scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TuningEntry {
    pub machine: MachineId,
    /// [`model_id`].
    pub model: String,
    pub scenario: Scenario,
    pub limits: TuningLimits,
    #[serde(rename = "pictures")]
    pub images: ImageSummary,
    /// The program that measured, and its version.
    pub program: String,
    /// Unix time in seconds.
    pub measured: u64,
    /// Empty where the default is fastest.
    pub choice: EngineConfig,
    pub decision: TuningDecision,
    /// The best of the search against the default; `None` where the search found nothing faster.
    pub comparison: Option<AbComparison>,
    /// In the order of the search.
    pub candidates: Vec<Candidate>,
}

/// Bounds on labels and latency.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TuningLimits {
    /// Least share of pixels with the reference's label, on the probe and on the images.
    pub least_agreement: f64,
    /// Largest 99th percentile of latency in milliseconds.
    pub p99_ms: Option<f64>,
    /// Least mean IoU in percent on labeled images. It judges instead of the agreement on the images,
    /// as other labels may be better ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub least_score: Option<f64>,
}

/// Share of pixels with the same label.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LabelAgreement {
    /// With the probe's reference, ties excepted; `None` without a probe.
    pub probe: Option<f64>,
    /// On the images, with the bundle's fp32 file in its own windows.
    #[serde(rename = "pictures")]
    pub images: f64,
    /// Mean IoU in percent on labeled images; `None` without them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
}

impl TuningLimits {
    /// Why labels do not agree well enough; `None` where they do. NaN never does.
    fn disagreement(&self, agreement: LabelAgreement) -> Option<String> {
        let least = self.least_agreement;
        let images = match (self.least_score, agreement.score) {
            (Some(least), Some(score)) if is_at_least(score, least) => None,
            (Some(least), Some(score)) => {
                return Some(format!(
                    "its mIoU on the labeled images is {score:.2} %, and must be {least:.2} %"
                ));
            }
            _ => Some(agreement.images),
        };
        let shares = [("the probe's", agreement.probe), ("the images'", images)];
        shares.into_iter().find_map(|(whose, share)| {
            let share = share.filter(|&share| !is_at_least(share, least))?;
            let [share, least] = [share, least].map(|share| 100.0 * share);
            Some(format!("{share:.3} % of {whose} labels agree, and {least} % must"))
        })
    }

    /// Why a 99th percentile is too long; `None` where it is not.
    fn lateness(&self, p99_ms: Option<f64>) -> Option<String> {
        let limit = self.p99_ms?;
        let p99 = p99_ms.filter(|&p99| !is_at_least(limit, p99))?;
        Some(format!("its 99th percentile is {p99:.1} ms, and may be {limit} ms"))
    }
}

/// Returns false where either is NaN.
fn is_at_least(found: f64, least: f64) -> bool {
    found >= least
}

/// Facts that decide how fast a model runs. An entry holds for a machine where all are equal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineId {
    pub processor: Option<String>,
    /// Cores that this process may use.
    pub cores: usize,
    pub vector_extensions: Vec<String>,
    /// Names of the NVIDIA GPUs that this process sees, by CUDA's numbers.
    pub gpus: Vec<String>,
    /// Build of ONNX Runtime; empty where it cannot be loaded.
    pub runtime: String,
}

impl MachineId {
    /// This machine; loads ONNX Runtime unless that has happened.
    pub fn now() -> Self {
        let MachineInfo { processor, runtime, gpus, .. } = MachineInfo::now();
        Self {
            processor: processor.name,
            cores: processor.cores,
            vector_extensions: processor.vector_extensions,
            gpus: gpu_names(&gpus.gpus),
            runtime: runtime.map(|runtime| runtime.build).unwrap_or_default(),
        }
    }
}

impl std::fmt::Display for MachineId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { processor, cores, vector_extensions, gpus, runtime } = self;
        let processor = processor.as_deref().unwrap_or("unknown processor");
        write!(formatter, "{processor}, {cores} usable cores, {}", vector_extensions.join(" "))?;
        for gpu in gpus {
            write!(formatter, ", {gpu}")?;
        }
        write!(formatter, ", ONNX Runtime {runtime}")
    }
}

/// Names of the GPUs with a CUDA number, by that; of all in the driver's order where none has one.
fn gpu_names(gpus: &[Gpu]) -> Vec<String> {
    let mut seen: Vec<&Gpu> = gpus.iter().filter(|gpu| gpu.number.is_some()).collect();
    seen.sort_by_key(|gpu| gpu.number);
    let all = if seen.is_empty() { gpus.iter().collect() } else { seen };
    all.into_iter()
        .map(|gpu| gpu.name.clone().unwrap_or_else(|| "a GPU without a name".to_owned()))
        .collect()
}

/// A model that cannot be identified.
#[derive(Debug, thiserror::Error)]
pub enum ModelIdError {
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    File(#[from] FileError),
}

/// Digest of all that a bundle's files compute, or a single file, and of its windows.
pub fn model_id(path: &Path) -> Result<String, ModelIdError> {
    if path.is_dir() {
        let manifest = Manifest::read(path)?.value;
        let mut lines: Vec<String> = manifest
            .files
            .iter()
            .map(|file| format!("{} {}", file.file, fingerprint(&manifest, file)))
            .collect();
        lines.push(Tiling::from(manifest.model.window).to_string());
        lines.extend(manifest.probe_sha256.clone());
        return Ok(digest::sha256_bytes(lines.join("\n").as_bytes()));
    }
    let sha256 = |path: &Path| digest::sha256_file(path).map_err(FileError::at(path));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let data = path.with_file_name(external_data(&name));
    let mut text = sha256(path)?;
    if data.is_file() {
        text = format!("{text}\n{}", sha256(&data)?);
    }
    Ok(digest::sha256_bytes(text.as_bytes()))
}

/// Command that runs a model as tuned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TuningPurpose {
    /// Throughput counts; results for single images are of no use.
    Label,
    /// Requests arrive by themselves: nearest are results with clients under a latency bound, then
    /// those for single images; offline results say nothing about latency.
    Serve,
}

/// Kind of scenario, by which the entries of one machine and model differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LoadShape {
    Offline,
    Clients,
    Single,
}

impl LoadShape {
    fn new(scenario: Scenario) -> Self {
        match scenario {
            Scenario::Offline => Self::Offline,
            Scenario::SingleStream => Self::Single,
            Scenario::Clients { .. } | Scenario::MultiStream { .. } | Scenario::Server { .. } => {
                Self::Clients
            }
        }
    }
}

impl TuningPurpose {
    /// Usable kinds, the best first.
    fn shapes(self) -> &'static [LoadShape] {
        match self {
            Self::Label => &[LoadShape::Offline, LoadShape::Clients],
            Self::Serve => &[LoadShape::Clients, LoadShape::Single, LoadShape::Offline],
        }
    }
}

impl Tuning {
    /// Version written, and the newest read.
    pub const VERSION: &str = "1.0";

    /// Reads a file; `None` where it does not exist.
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

    /// A tuning without entries.
    pub fn empty() -> Self {
        Self { version: Self::VERSION.to_owned(), entries: Vec::new(), refused: Vec::new() }
    }

    /// A sentence about the entries that cannot be used.
    pub fn refusals(&self, path: &Path) -> Option<String> {
        let reasons: Vec<String> = self
            .refused
            .iter()
            .map(|RefusedEntry { number, reason, .. }| format!("entry {number}: {reason}"))
            .collect();
        (!reasons.is_empty()).then(|| {
            format!(
                "{} has entries that this version cannot use, and uses the others ({}); remove them, or run `protoseg tune` \
                 again on their machine",
                path.display(),
                reasons.join("; ")
            )
        })
    }

    /// Writes the file atomically.
    pub fn write(&self, path: &Path) -> Result<(), JsonError> {
        versioned::write(path, self)
    }

    /// Adds an entry, which replaces an earlier one of the same machine, model and kind of
    /// scenario.
    pub fn put(&mut self, entry: TuningEntry) {
        self.entries.retain(|known| {
            !known.is_for(&entry.machine, &entry.model) || known.shape() != entry.shape()
        });
        self.entries.push(entry);
    }

    /// The entry of a machine and model for this kind of scenario.
    pub fn find(
        &self,
        machine: &MachineId,
        model: &str,
        scenario: Scenario,
    ) -> Option<&TuningEntry> {
        self.find_shape(machine, model, LoadShape::new(scenario))
    }

    /// The best entry of a machine and model for a purpose.
    pub fn best_for(
        &self,
        machine: &MachineId,
        model: &str,
        purpose: TuningPurpose,
    ) -> Option<&TuningEntry> {
        purpose.shapes().iter().find_map(|&shape| self.find_shape(machine, model, shape))
    }

    fn find_shape(
        &self,
        machine: &MachineId,
        model: &str,
        shape: LoadShape,
    ) -> Option<&TuningEntry> {
        self.entries.iter().find(|entry| entry.is_for(machine, model) && entry.shape() == shape)
    }
}

impl TuningEntry {
    fn is_for(&self, machine: &MachineId, model: &str) -> bool {
        self.machine == *machine && self.model == model
    }

    fn shape(&self) -> LoadShape {
        LoadShape::new(self.scenario)
    }

    /// The choice for a purpose, without `mode` where it was measured under another kind of
    /// scenario.
    pub fn choice_for(&self, purpose: TuningPurpose) -> EngineConfig {
        let mut choice = self.choice.clone();
        if purpose.shapes().first() != Some(&self.shape()) {
            choice.mode = None;
        }
        choice
    }

    /// Speed relative to the default, where the choice was found to be faster.
    pub fn speedup(&self) -> Option<f64> {
        let comparison =
            self.comparison.as_ref().filter(|_| self.decision == TuningDecision::Faster)?;
        Some(1.0 / comparison.ratio.ratio)
    }

    /// Date of the measurement, such as 2026-11-27 (UTC).
    pub fn date(&self) -> String {
        utc_time(self.measured, "%Y-%m-%d")
    }
}

/// The file `tuning.json` of a model: in the bundle, or beside a single file.
pub fn tuning_path(model: &Path) -> PathBuf {
    if model.is_dir() { model.join(TUNING) } else { model.with_file_name(TUNING) }
}

/// A choice as text: `precision int8, threads 4`.
pub fn describe(choice: &EngineConfig) -> String {
    let options: Vec<String> = choice
        .options()
        .into_iter()
        .map(|(name, value)| if value == ON { name.to_owned() } else { format!("{name} {value}") })
        .collect();
    if options.is_empty() { "the defaults".to_owned() } else { options.join(", ") }
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
            limits: TuningLimits { least_agreement: 0.99, p99_ms: None, least_score: None },
            images: ImageSummary { height: 32, width: 32, count: 1, source: "drawn".to_owned() },
            program: "protoseg".to_owned(),
            measured: 0,
            choice: config(choice),
            decision: TuningDecision::Faster,
            comparison: None,
            candidates: Vec::new(),
        }
    }

    #[test]
    fn entries_replace_those_of_the_same_kind() {
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
        assert!(tuning.find(&machine(2), "a", clients(4)).unwrap().choice.spin);
        let offline = tuning.find(&machine(2), "a", Scenario::Offline).unwrap();
        assert_eq!(offline.choice, EngineConfig::default());
        assert_eq!(tuning.find(&machine(3), "a", Scenario::Offline), None);
        assert_eq!(tuning.find(&machine(2), "c", Scenario::Offline), None);
        let text = serde_json::to_string(&tuning).unwrap();
        assert_eq!(
            versioned::parse::<Tuning>(Path::new("x"), &text, Tuning::VERSION).unwrap().value,
            tuning
        );
    }

    #[test]
    fn an_entry_with_an_unknown_option_is_refused_alone_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tuning.json");
        let mut tuning = Tuning::empty();
        tuning.put(entry(2, "a", Scenario::Offline, &[("threads", "3")]));
        tuning.put(entry(4, "a", Scenario::Offline, &[("spin", "on")]));
        tuning.write(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap().replace("threads", "warp");
        std::fs::write(&path, text).unwrap();

        let mut read = Tuning::read(&path).unwrap().unwrap();
        assert_eq!(read.entries, tuning.entries[1..]);
        let said = read.refusals(&path).unwrap();
        assert!(said.contains("entry 1: ") && said.contains("warp"), "{said}");
        read.put(entry(8, "a", Scenario::Offline, &[]));
        read.write(&path).unwrap();
        let again = Tuning::read(&path).unwrap().unwrap();
        assert_eq!((again.entries.len(), again.refused.len()), (2, 1));
        // Another version reads it again.
        let text = std::fs::read_to_string(&path).unwrap().replace("warp", "threads");
        std::fs::write(&path, text).unwrap();
        let other = Tuning::read(&path).unwrap().unwrap();
        assert_eq!((other.entries.len(), other.entries.last()), (3, tuning.entries.first()));
        assert_eq!(tuning.refusals(&path), None);
    }

    #[test]
    fn each_purpose_gets_its_entry() {
        let mode = [("mode", "throughput"), ("precision", "int8")];
        let all = [Scenario::SingleStream, Scenario::Clients { clients: 4 }, Scenario::Offline];
        // Existing entries; the one for labeling and the one for serving, each with whether it
        // keeps its mode.
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
                let choice =
                    found.map(|entry| (entry.scenario, entry.choice_for(user).mode.is_some()));
                assert_eq!(
                    choice,
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
    fn choices_are_described() {
        let choice = config(&[("threads", "4"), ("precision", "int8"), ("spin", "on")]);
        assert_eq!(describe(&choice), "precision int8, spin, threads 4");
        assert_eq!(describe(&EngineConfig::default()), "the defaults");
    }

    #[test]
    fn both_agreements_count_and_nan_never_agrees() {
        let limits = TuningLimits { least_agreement: 0.99, p99_ms: Some(50.0), least_score: None };
        let disagreement =
            |probe, images| limits.disagreement(LabelAgreement { probe, images, score: None });
        // A score judges in place of the images' labels, and not of the probe's.
        let scored = |probe, images, score| {
            let limits = TuningLimits { least_score: Some(48.0), ..limits };
            limits.disagreement(LabelAgreement { probe, images, score: Some(score) })
        };
        assert_eq!(scored(Some(1.0), 0.5, 48.0), None);
        assert!(scored(None, 1.0, 47.9).unwrap().contains("47.90 %, and must be 48.00 %"));
        assert!(scored(None, 1.0, f64::NAN).is_some());
        assert!(scored(Some(0.5), 1.0, 50.0).unwrap().contains("probe"));
        assert_eq!([disagreement(Some(0.99), 1.0), disagreement(None, 0.99)], [None, None]);
        assert!(disagreement(Some(0.5), 1.0).unwrap().contains("50.000 % of the probe's labels"));
        assert!(disagreement(Some(1.0), 0.5).unwrap().contains("50.000 % of the images' labels"));
        assert!(
            disagreement(Some(f64::NAN), 1.0).is_some() && disagreement(None, f64::NAN).is_some()
        );
        assert_eq!([limits.lateness(None), limits.lateness(Some(50.0))], [None, None]);
        assert!(limits.lateness(Some(50.1)).unwrap().contains("50.1 ms, and may be 50 ms"));
    }

    #[test]
    fn gpus_are_named_by_cuda_numbers() {
        let gpu =
            |name: &str, number| Gpu { name: Some(name.to_owned()), number, ..Gpu::default() };
        assert_eq!(
            gpu_names(&[gpu("hidden", None), gpu("second", Some(1)), gpu("first", Some(0))]),
            ["first", "second"]
        );
        assert_eq!(gpu_names(&[gpu("one", None), gpu("other", None)]), ["one", "other"]);
        assert!(gpu_names(&[]).is_empty());
    }

    #[test]
    fn model_ids_depend_on_all_files_and_the_windows() {
        let root = tempfile::tempdir().unwrap();
        let id_with = |change: &dyn Fn(&mut Manifest)| {
            let mut manifest = Manifest::read(Path::new("../tests/fixtures/colors")).unwrap().value;
            change(&mut manifest);
            manifest.write(root.path()).unwrap();
            model_id(root.path()).unwrap()
        };
        let own = id_with(&|_| ());
        assert_eq!(own, model_id(Path::new("../tests/fixtures/colors")).unwrap());
        // The name and the records of a check do not count.
        assert_eq!(own, id_with(&|manifest| "other".clone_into(&mut manifest.model.name)));
        assert_ne!(own, id_with(&|manifest| manifest.model.window = None));
        assert_ne!(own, id_with(&|manifest| manifest.files.push(manifest.files[0].clone())));
        assert_ne!(own, id_with(&|manifest| manifest.files[0].sha256 = "0".repeat(64)));
        let file = root.path().join("model.onnx");
        assert!(matches!(model_id(&file), Err(ModelIdError::File(_))));
        std::fs::write(&file, "one").unwrap();
        let one = model_id(&file).unwrap();
        std::fs::write(root.path().join("model.onnx.data"), "weights").unwrap();
        assert_ne!(one, model_id(&file).unwrap());
    }
}
