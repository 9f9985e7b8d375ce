//! What is tried, in which order.
//!
//! All combinations would be thousands, and one candidate takes seconds to minutes. So options are settled one stage after the
//! other, each on top of what the stages before found, in the order of what they can win and of what depends on what:
//! the number format changes the cost of every run by up to several times, and how many pixels are run at all follows from the
//! windows. Only then is it known how much work one run is, which decides how many cores or sessions pay for it, and with
//! these how many windows fill a run. Switches come last, as they win a few percent. What this misses are options that only
//! pay together; the last comparison with the default cannot be fooled by that, it only wins less.

use std::num::NonZeroUsize;

use protoseg_infer::EngineConfig;
use protoseg_infer::config::{Device, ExecutionMode};
use protoseg_models::variant::Precision;
use protoseg_models::window::{LogitGrid, Tiling, Window};

/// Windows at once: on a processor more than a few only take memory, a GPU is filled by more.
const BATCHES: [&[usize]; 2] = [&[2, 4], &[2, 4, 8]];

/// Sessions of a GPU that are tried beside two, the usual number.
const SESSIONS: [usize; 2] = [1, 3];

/// Strides of windows that are tried, in quarters of the window: each beyond the bundle's own leaves out windows.
const QUARTERS: [usize; 2] = [3, 4];

/// What is known of the model and the machine before anything is tried.
#[derive(Debug, Clone)]
pub struct SearchSpace {
    /// The number formats that are tried beside the one of the bundle's first file.
    pub precisions: Vec<Precision>,
    /// Windows of the bundle; none for whole pictures.
    pub window: Option<Window>,
    /// How its logits lie.
    pub grid: LogitGrid,
    /// Cores that this process may use.
    pub cores: usize,
    /// What cores are used for under this load where nobody says otherwise.
    pub usual: ExecutionMode,
    /// Whether several pictures are run at once.
    pub many: bool,
}

/// The stages for one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchPlan {
    /// The device as it comes.
    pub start: EngineConfig,
    /// Options that are settled one after the other.
    pub stages: Vec<SearchStage>,
}

/// Values of some options, of which one is kept or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchStage {
    /// What is settled.
    pub name: String,
    /// Each is set on top of what was found so far.
    pub changes: Vec<EngineConfig>,
    /// Whether it counts only where pictures are run in windows.
    pub of_windows: bool,
}

impl SearchSpace {
    /// What is tried on a device.
    pub fn plan(&self, device: Device) -> SearchPlan {
        let start =
            if device == Device::Cpu { EngineConfig::default() } else { EngineConfig::on(device) };
        let precisions = self.precisions.iter().map(|&precision| EngineConfig {
            precision: Some(precision),
            ..EngineConfig::default()
        });
        let mut stages =
            vec![stage("precision", precisions.collect()), stage("window", self.windows())];
        if device.is_gpu() {
            if self.many {
                let sessions = counts(&SESSIONS, |config, count| config.gpu_sessions = count);
                stages.push(stage("gpu-sessions", sessions));
            }
        } else {
            stages.push(stage("cores", self.cores_of(device)));
        }
        let batches = counts(BATCHES[usize::from(device.is_gpu())], |config, count| {
            config.batch = count;
        });
        stages.push(SearchStage { of_windows: true, ..stage("batch", batches) });
        let config = EngineConfig::default();
        let spin = ("spin", EngineConfig { spin: true, ..config.clone() });
        let tf32 = ("tf32", EngineConfig { tf32: true, ..config.clone() });
        let fp16 = ("trt-fp16", EngineConfig { trt_fp16: true, ..config.clone() });
        let graph = ("cuda-graph", EngineConfig { cuda_graph: true, ..config });
        let switches = match device {
            Device::Cpu => vec![spin],
            Device::Cuda(_) => vec![tf32, graph],
            Device::TensorRt(_) => vec![fp16, graph],
            Device::OpenVino => Vec::new(),
        };
        stages.extend(switches.into_iter().map(|(name, config)| stage(name, vec![config])));
        stages.retain(|stage| !stage.changes.is_empty());
        SearchPlan { start, stages }
    }

    /// Whole pictures, and fewer windows than the bundle's own.
    fn windows(&self) -> Vec<EngineConfig> {
        let Some(Window { size, stride: own }) = self.window else { return Vec::new() };
        let mut windows: Vec<Window> = Vec::new();
        for quarters in QUARTERS {
            let stride = size * quarters / 4 / self.grid.stride * self.grid.stride;
            let window = Window { size, stride };
            if stride > own && self.grid.check(window).is_ok() && !windows.contains(&window) {
                windows.push(window);
            }
        }
        let tilings = windows.into_iter().map(Tiling::Windows).chain([Tiling::Whole]);
        let config = |tiling| EngineConfig { window: Some(tiling), ..EngineConfig::default() };
        tilings.map(config).collect()
    }

    /// One session with some cores, and where pictures come side by side also a session for each of some cores: powers of
    /// two, and all.
    fn cores_of(&self, device: Device) -> Vec<EngineConfig> {
        let mut counts: Vec<usize> = std::iter::successors(Some(1), |count| Some(count * 2))
            .take_while(|&count| count < self.cores)
            .collect();
        counts.push(self.cores);
        let modes = [ExecutionMode::Latency, ExecutionMode::Throughput];
        let tried = |mode: &ExecutionMode| {
            *mode == ExecutionMode::Latency || (self.many && device == Device::Cpu)
        };
        let mut changes = Vec::new();
        for mode in modes.into_iter().filter(tried) {
            for &count in &counts {
                let mut config = EngineConfig::default();
                if mode != self.usual && device == Device::Cpu {
                    config.mode = Some(mode);
                }
                if count != self.cores {
                    config.threads = NonZeroUsize::new(count);
                }
                // One core is the same in either mode, and neither option is what there is already.
                let twice = mode == ExecutionMode::Throughput && count == 1;
                if config != EngineConfig::default() && !twice {
                    changes.push(config);
                }
            }
        }
        changes
    }
}

impl SearchStage {
    /// The candidates on top of what was found so far; none where the stage does not count.
    pub fn candidates(&self, found: &EngineConfig, window: Option<Window>) -> Vec<EngineConfig> {
        let whole = found.window.map_or(window.is_none(), |tiling| tiling == Tiling::Whole);
        if self.of_windows && whole {
            return Vec::new();
        }
        let on_top = |change: &EngineConfig| found.overlaid(change);
        self.changes.iter().map(on_top).filter(|candidate| candidate != found).collect()
    }
}

fn stage(name: &str, changes: Vec<EngineConfig>) -> SearchStage {
    SearchStage { name: name.to_owned(), changes, of_windows: false }
}

/// A configuration for each value of an option that counts something.
fn counts(
    values: &[usize],
    set: impl Fn(&mut EngineConfig, Option<NonZeroUsize>),
) -> Vec<EngineConfig> {
    let config = |&value: &usize| {
        let mut config = EngineConfig::default();
        set(&mut config, NonZeroUsize::new(value));
        config
    };
    values.iter().map(config).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tuning::describe;

    fn config(options: &[(&str, &str)]) -> EngineConfig {
        let mut config = EngineConfig::default();
        options.iter().for_each(|(name, value)| config.set(name, value).unwrap());
        config
    }

    fn space(cores: usize, many: bool) -> SearchSpace {
        SearchSpace {
            precisions: vec![Precision::Int8],
            window: Some(Window { size: 768, stride: 512 }),
            grid: LogitGrid { stride: 4, encoder_stride: 16, align_corners: false },
            cores,
            usual: if many { ExecutionMode::Throughput } else { ExecutionMode::Latency },
            many,
        }
    }

    fn told(plan: &SearchPlan) -> Vec<String> {
        let line = |stage: &SearchStage| {
            format!(
                "{}: {}",
                stage.name,
                stage.changes.iter().map(describe).collect::<Vec<_>>().join("; ")
            )
        };
        plan.stages.iter().map(line).collect()
    }

    #[test]
    fn a_processor_is_tried_in_stages() {
        let expected = [
            "precision: precision int8",
            "window: window 768:576; window 768:768; window whole",
            "cores: mode latency, threads 1; mode latency, threads 2; mode latency, threads 4; mode latency; threads 2; threads 4",
            "batch: batch 2; batch 4",
            "spin: spin",
        ];
        assert_eq!(told(&space(6, true).plan(Device::Cpu)), expected);
        let one = told(&space(6, false).plan(Device::Cpu));
        assert_eq!(one[2], "cores: threads 1; threads 2; threads 4");
        assert!(
            told(&space(1, true).plan(Device::Cpu)).iter().all(|line| !line.contains("threads"))
        );
        assert_eq!(space(6, true).plan(Device::Cpu).start, EngineConfig::default());
    }

    #[test]
    fn devices_have_their_own_switches() {
        let cuda = space(6, true).plan(Device::Cuda(1));
        assert_eq!(describe(&cuda.start), "device cuda:1");
        let expected = [
            "gpu-sessions: gpu-sessions 1; gpu-sessions 3",
            "batch: batch 2; batch 4; batch 8",
            "tf32: tf32",
            "cuda-graph: cuda-graph",
        ];
        assert_eq!(told(&cuda)[2..], expected);
        let tensorrt = told(&space(6, false).plan(Device::TensorRt(0)));
        assert_eq!(
            tensorrt[2..],
            ["batch: batch 2; batch 4; batch 8", "trt-fp16: trt-fp16", "cuda-graph: cuda-graph"]
        );
        let openvino = told(&space(2, true).plan(Device::OpenVino));
        assert_eq!(openvino[2..], ["cores: threads 1", "batch: batch 2; batch 4"]);
    }

    #[test]
    fn candidates_lie_on_top_of_what_was_found() {
        let plan = space(2, false).plan(Device::Cpu);
        let window = Some(Window { size: 768, stride: 512 });
        let found = config(&[("precision", "int8")]);
        let batch = plan.stages.iter().find(|stage| stage.of_windows).unwrap();
        let told = |found: &EngineConfig, window| {
            batch.candidates(found, window).iter().map(describe).collect::<Vec<_>>()
        };
        assert_eq!(told(&found, window), ["batch 2, precision int8", "batch 4, precision int8"]);
        // Whole pictures have no windows to fill a run with.
        assert!(
            told(&config(&[("window", "whole")]), window).is_empty()
                && told(&found, None).is_empty()
        );
        assert_eq!(told(&config(&[("window", "768:768")]), None).len(), 2);
        // What was found already is no candidate.
        assert!(plan.stages[0].candidates(&found, window).is_empty());
        // The bundle's own stride is the largest.
        let close =
            SearchSpace { window: Some(Window { size: 768, stride: 768 }), ..space(2, false) };
        assert_eq!(close.windows().iter().map(describe).collect::<Vec<_>>(), ["window whole"]);
        assert!(SearchSpace { window: None, ..space(2, false) }.windows().is_empty());
    }
}
