//! Which execution provider runs which operators of a file, once ONNX Runtime has optimized it:
//! from its own profile of a run
//! (<https://onnxruntime.ai/docs/performance/tune-performance/profiling-tools.html>).

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use protoseg_models::adapter::Adapter;
use serde::{Deserialize, Serialize};

use super::provider::ModelSource;
use super::{ExternalModel, Runner, SessionError, open_session, run_error, too_large};
use crate::config::EngineConfig;
use crate::preprocess::Preprocess;

/// Most operators of [`Profile::operators`].
const MAX_OPERATORS: usize = 10;

/// Profile of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Nodes of each execution provider, by its name. Fused nodes count as one, as does a subgraph
    /// that a provider takes over, as TensorRT does; nodes that ONNX Runtime inserts, such as
    /// copies between devices, count too.
    pub nodes: BTreeMap<String, usize>,
    /// The ten operators that took most of the run, the most expensive first; empty on GPUs, where
    /// nodes return before their work is done.
    pub operators: Vec<Operator>,
}

/// All nodes of one operator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Operator {
    /// Its name in ONNX, or in ONNX Runtime where that fused some.
    pub name: String,
    /// Number of nodes.
    pub nodes: usize,
    /// Their share of the time of all nodes, from 0 to 1.
    pub share: f64,
}

/// An event of the record.
#[derive(Debug, Deserialize)]
struct ProfileEvent {
    cat: String,
    #[serde(default)]
    name: String,
    /// Microseconds.
    #[serde(default)]
    dur: u64,
    #[serde(default)]
    args: ProfileArguments,
}

#[derive(Debug, Default, Deserialize)]
struct ProfileArguments {
    #[serde(default)]
    provider: String,
    #[serde(default)]
    op_name: String,
    /// Distinguishes nodes without a name.
    #[serde(default)]
    node_index: String,
}

impl Runner {
    /// Opens the file once more and profiles a run of black images `[n, h, w]`. Meanwhile this
    /// takes the memory of a second session, and on TensorRT without a cache the time to build its
    /// engines again. Does not work for files that were opened from bytes.
    pub fn profile(&self, shape: [usize; 3]) -> Result<Profile, SessionError> {
        profile(&self.path, self.preprocess.as_ref().map(Preprocess::adapter), &self.config, shape)
    }
}

/// Profiles a file that is not open; `adapter` is that of an imported file.
pub fn profile(
    path: &Path,
    adapter: Option<&Adapter>,
    config: &EngineConfig,
    shape: [usize; 3],
) -> Result<Profile, SessionError> {
    profile_in(&std::env::temp_dir(), path, adapter, config, shape)
}

fn profile_in(
    temporary: &Path,
    path: &Path,
    adapter: Option<&Adapter>,
    config: &EngineConfig,
    shape: [usize; 3],
) -> Result<Profile, SessionError> {
    let failed = |source| SessionError::Io {
        context: format!("a run of {} cannot be profiled", path.display()),
        source,
        help: "; make room in the folder for temporary files (TMPDIR)",
    };
    // Removed with everything in it whatever happens, also with the record that a failed session
    // leaves when it is closed.
    let folder = tempfile::Builder::new()
        .prefix("protoseg-profile-")
        .tempdir_in(temporary)
        .map_err(failed)?;
    let record = folder.path().join("run");
    let session = open_session(path, config, ModelSource::File, Some(&record))?;
    let mut runner = match adapter {
        None => Runner::with_image_input(path, config, session)?,
        Some(adapter) => {
            let (path, config) = (path.into(), config.clone());
            ExternalModel { session, path, config }.with_adapter(adapter.clone())
        }
    };
    // The first run sets up memory; the second counts.
    let bytes = shape.into_iter().fold(3, usize::saturating_mul);
    let mut pixels = Vec::new();
    pixels.try_reserve_exact(bytes).map_err(|_| too_large(shape))?;
    pixels.resize(bytes, 0);
    runner.run_unread(&pixels, shape)?;
    runner.run_unread(&pixels, shape)?;
    let device = config.first_device();
    let record = runner.session.end_profiling();
    let record = record.map_err(|source| run_error(path, device, &source))?;
    let record = std::fs::read_to_string(record).map_err(failed)?;
    let mut profile = parse_record(&record).map_err(|source| failed(source.into()))?;
    if device.is_gpu() {
        profile.operators.clear();
    }
    Ok(profile)
}

fn parse_record(record: &str) -> serde_json::Result<Profile> {
    let events: Vec<ProfileEvent> = serde_json::from_str(record)?;
    // The last run of each node counts.
    let mut last: HashMap<(&str, &str), &ProfileEvent> = HashMap::new();
    for event in
        events.iter().filter(|event| event.cat == "Node" && !event.args.provider.is_empty())
    {
        last.insert((&event.args.node_index, &event.name), event);
    }
    let mut profile = Profile::default();
    let mut kinds: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for event in last.values() {
        *profile.nodes.entry(event.args.provider.clone()).or_default() += 1;
        let (nodes, took) = kinds.entry(&event.args.op_name).or_default();
        *nodes += 1;
        *took += event.dur;
    }
    let all = kinds.values().map(|(_, took)| took).sum::<u64>().max(1) as f64;
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, (_, took))| std::cmp::Reverse(*took));
    let operator = |(name, (nodes, took)): (&str, (usize, u64))| Operator {
        name: name.to_owned(),
        nodes,
        share: took as f64 / all,
    };
    profile.operators = kinds.into_iter().take(MAX_OPERATORS).map(operator).collect();
    Ok(profile)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use protoseg_models::adapter::{ChannelOrder, Layout};

    use super::*;
    use crate::config::Device;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
    }

    /// File names in a folder.
    fn names(folder: &Path) -> Vec<std::ffi::OsString> {
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    fn event(name: &str, operator: &str, provider: &str, index: usize, took: u64) -> String {
        format!(
            r#"{{"cat":"Node","pid":1,"tid":2,"dur":{took},"ts":3,"ph":"X","name":"{name}_kernel_time","args":{{"op_name":"{operator}","provider":"{provider}","node_index":"{index}","input_type_shape":[{{"float":[1,2]}}]}}}}"#
        )
    }

    #[test]
    fn nodes_count_once_and_by_their_last_run() {
        let (cpu, gpu) = ("CPUExecutionProvider", "CUDAExecutionProvider");
        let events = [
            r#"{"cat":"Session","dur":9000,"name":"model_run","args":{}}"#.to_owned(),
            event("conv", "Conv", gpu, 0, 900),
            // Nodes without a name.
            event("", "Relu", gpu, 1, 5),
            event("", "Relu", gpu, 2, 5),
            event("resize", "Resize", cpu, 3, 1),
            r#"{"cat":"Node","dur":7,"name":"conv_fence_before","args":{"op_name":"Conv"}}"#
                .to_owned(),
            event("conv", "Conv", gpu, 0, 60),
            event("", "Relu", gpu, 1, 15),
            event("", "Relu", gpu, 2, 5),
            event("resize", "Resize", cpu, 3, 20),
        ];
        let profile = parse_record(&format!("[{}]", events.join(",\n"))).unwrap();
        assert_eq!(profile.nodes, BTreeMap::from([(cpu.to_owned(), 1), (gpu.to_owned(), 3)]));
        let operators: Vec<_> = profile
            .operators
            .iter()
            .map(|operator| (operator.name.as_str(), operator.nodes, operator.share))
            .collect();
        assert_eq!(operators, [("Conv", 1, 0.6), ("Relu", 2, 0.2), ("Resize", 1, 0.2)]);
        assert_eq!(parse_record("[]").unwrap(), Profile::default());
        assert!(parse_record("").is_err() && parse_record("{}").is_err());
    }

    #[test]
    fn every_node_runs_on_the_cpu_and_no_file_stays() {
        let (temporary, here) = (tempfile::tempdir().unwrap(), names(Path::new(".")));
        let profiled = |name: &str, adapter: Option<&Adapter>, unoptimized: bool, shape| {
            let config = EngineConfig { unoptimized, ..EngineConfig::default() };
            let profile = profile_in(temporary.path(), &fixture(name), adapter, &config, shape);
            assert!(names(temporary.path()).is_empty() && names(Path::new(".")) == here, "{name}");
            profile
        };
        let count = |profile: &Profile| {
            assert_eq!(
                profile.nodes.keys().collect::<Vec<_>>(),
                ["CPUExecutionProvider"],
                "{profile:?}"
            );
            profile.nodes["CPUExecutionProvider"]
        };
        // Transpose, Cast, Mul, AveragePool and Conv.
        let stands = profiled("colors/model.onnx", None, true, [2, 96, 64]).unwrap();
        assert_eq!((count(&stands), stands.operators.len()), (5, 5));
        assert!(stands.operators.iter().all(|operator| operator.nodes == 1));
        let shares: f64 = stands.operators.iter().map(|operator| operator.share).sum();
        assert!(
            (shares - 1.0).abs() < 1e-9
                && stands.operators.is_sorted_by(|one, other| one.share >= other.share)
        );
        assert!(
            stands.operators.iter().any(|operator| operator.name == "AveragePool"),
            "{stands:?}"
        );
        let optimized = profiled("colors/model.onnx", None, false, [1, 96, 64]).unwrap();
        // Nodes that change the layout for a faster kernel count too.
        let layout = |operator: &&Operator| operator.name.starts_with("Reorder");
        let added: usize =
            optimized.operators.iter().filter(layout).map(|operator| operator.nodes).sum();
        assert!((1..=5 + added).contains(&count(&optimized)), "{optimized:?}");
        // A frame file, and a file that takes floats.
        assert!(count(&profiled("gate/frame.onnx", None, false, [1, 64, 96]).unwrap()) > 1);
        let (layout, order) = (Layout::Nchw, ChannelOrder::Rgb);
        let output =
            ExternalModel::open(&fixture("adopt/float-nchw.onnx"), &EngineConfig::default())
                .unwrap()
                .outputs();
        let adapter = Adapter {
            layout,
            order,
            normalization: Some(
                protoseg_models::adapter::Normalization::new(1.0, [0.0; 3], [1.0; 3]).unwrap(),
            ),
            batch: None,
            size: None,
            output: output[0].name.clone(),
            interface: protoseg_models::interface::Interface::default(),
        };
        assert!(
            count(&profiled("adopt/float-nchw.onnx", Some(&adapter), false, [1, 32, 64]).unwrap())
                >= 1
        );
        // A file that fails while it is opened, and one while it runs.
        assert!(matches!(
            profiled("colors/manifest.json", None, false, [1, 32, 32]),
            Err(SessionError::Model { .. })
        ));
        assert!(matches!(
            profiled("gate/frame.onnx", None, false, [1, 32, 32]),
            Err(SessionError::Run { .. })
        ));
        let gone = profile_in(
            &temporary.path().join("gone"),
            &fixture("colors/model.onnx"),
            None,
            &EngineConfig::default(),
            [1; 3],
        );
        assert!(gone.unwrap_err().to_string().contains("TMPDIR"));
        let config = EngineConfig::on(Device::Cuda(0));
        let elsewhere =
            profile_in(temporary.path(), &fixture("colors/model.onnx"), None, &config, [1, 32, 32]);
        assert!(elsewhere.is_err() || elsewhere.is_ok_and(|profile| profile.operators.is_empty()));
    }
}
