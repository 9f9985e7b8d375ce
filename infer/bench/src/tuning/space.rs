//! Search space of `protoseg tune`: options in stages.
//!
//! All combinations would be thousands, and one candidate takes seconds to minutes. So options are
//! chosen in stages, each on top of the results before, in the order of their gain and of what
//! depends on what: precision and windows decide how much work a run is, that decides the use of
//! the cores or the number of sessions, and these decide how many windows fill a run. Switches come
//! last, as they win a few percent. Options that pay only together may be missed.

use std::num::NonZeroUsize;

use protoseg_infer::EngineConfig;
use protoseg_infer::config::{Device, ExecutionMode};
use protoseg_models::variant::Precision;
use protoseg_models::window::{LogitGrid, Tiling, Window};

/// Windows per run: more only take memory on a CPU, and fill a GPU.
const CPU_BATCHES: [usize; 2] = [2, 4];
const GPU_BATCHES: [usize; 3] = [2, 4, 8];

/// Sessions per GPU beside the default of 2.
const GPU_SESSIONS: [usize; 2] = [1, 3];

/// Strides in quarters of the window size.
const STRIDE_QUARTERS: [usize; 2] = [3, 4];

/// Facts of model and machine that the search space depends on.
#[derive(Debug, Clone)]
pub struct SearchSpace {
    /// Beside that of the bundle's first file.
    pub precisions: Vec<Precision>,
    /// Windows of the bundle; `None` for whole images.
    pub window: Option<Window>,
    pub grid: LogitGrid,
    /// Cores that this process may use.
    pub cores: usize,
    /// Default use of the cores under this scenario.
    pub default_mode: ExecutionMode,
    /// Several images are run at once.
    pub concurrent: bool,
}

/// Stages for one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchPlan {
    /// The device's default.
    pub start: EngineConfig,
    pub stages: Vec<SearchStage>,
}

/// Alternatives of which at most one is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchStage {
    pub name: String,
    /// Each is set on top of the incumbent.
    pub changes: Vec<EngineConfig>,
    /// Only where images are run in windows.
    pub needs_windows: bool,
}

impl SearchSpace {
    pub fn plan(&self, device: Device) -> SearchPlan {
        let set = |set: &dyn Fn(&mut EngineConfig)| {
            let mut config = EngineConfig::default();
            set(&mut config);
            config
        };
        let precisions: Vec<EngineConfig> = self
            .precisions
            .iter()
            .map(|&precision| set(&|config| config.precision = Some(precision)))
            .collect();
        let sessions =
            GPU_SESSIONS.map(|count| set(&|config| config.gpu_sessions = NonZeroUsize::new(count)));
        let batches: &[usize] = if device.is_gpu() { &GPU_BATCHES } else { &CPU_BATCHES };
        let batches: Vec<EngineConfig> = batches
            .iter()
            .map(|&count| set(&|config| config.batch = NonZeroUsize::new(count)))
            .collect();
        let spin = || stage("spin", vec![set(&|config| config.spin = true)]);
        let tf32 = || stage("tf32", vec![set(&|config| config.tf32 = true)]);
        let trt_fp16 = || stage("trt-fp16", vec![set(&|config| config.trt_fp16 = true)]);
        let cuda_graph = || stage("cuda-graph", vec![set(&|config| config.cuda_graph = true)]);

        let mut stages = vec![stage("precision", precisions), stage("window", self.windows())];
        if !device.is_gpu() {
            stages.push(stage("cores", self.core_counts(device)));
        } else if self.concurrent {
            stages.push(stage("gpu-sessions", sessions.to_vec()));
        }
        stages.push(SearchStage { needs_windows: true, ..stage("batch", batches) });
        match device {
            Device::Cpu => stages.push(spin()),
            Device::Cuda(_) => stages.extend([tf32(), cuda_graph()]),
            Device::TensorRt(_) => stages.extend([trt_fp16(), cuda_graph()]),
            Device::OpenVino => {}
        }
        stages.retain(|stage| !stage.changes.is_empty());
        let start = match device {
            Device::Cpu => EngineConfig::default(),
            device => EngineConfig::on(device),
        };
        SearchPlan { start, stages }
    }

    /// Larger strides than the bundle's own, and whole images.
    fn windows(&self) -> Vec<EngineConfig> {
        let Some(Window { size, stride: own }) = self.window else { return Vec::new() };
        let mut tilings = Vec::new();
        for quarters in STRIDE_QUARTERS {
            let stride = size * quarters / 4 / self.grid.stride * self.grid.stride;
            let window = Window { size, stride };
            let tiling = Tiling::Windows(window);
            if stride > own && self.grid.check(window).is_ok() && !tilings.contains(&tiling) {
                tilings.push(tiling);
            }
        }
        tilings.push(Tiling::Whole);
        let config = |tiling| EngineConfig { window: Some(tiling), ..EngineConfig::default() };
        tilings.into_iter().map(config).collect()
    }

    /// One session with some of the cores and, where images are concurrent, a session for each of
    /// them: powers of two, and all.
    fn core_counts(&self, device: Device) -> Vec<EngineConfig> {
        let mut counts: Vec<usize> = std::iter::successors(Some(1), |count| Some(count * 2))
            .take_while(|&count| count < self.cores)
            .collect();
        counts.push(self.cores);
        let modes: &[ExecutionMode] = if self.concurrent && device == Device::Cpu {
            &[ExecutionMode::Latency, ExecutionMode::Throughput]
        } else {
            &[ExecutionMode::Latency]
        };
        let mut changes = Vec::new();
        for &mode in modes {
            for &count in &counts {
                let mut config = EngineConfig::default();
                if mode != self.default_mode && device == Device::Cpu {
                    config.mode = Some(mode);
                }
                if count != self.cores {
                    config.threads = NonZeroUsize::new(count);
                }
                // One core is the same in either mode.
                let is_duplicate = mode == ExecutionMode::Throughput && count == 1;
                if config != EngineConfig::default() && !is_duplicate {
                    changes.push(config);
                }
            }
        }
        changes
    }
}

impl SearchStage {
    /// The changes on top of the incumbent; none where the stage needs windows and there are none.
    pub fn candidates(
        &self,
        incumbent: &EngineConfig,
        window: Option<Window>,
    ) -> Vec<EngineConfig> {
        let is_whole = incumbent.window.map_or(window.is_none(), |tiling| tiling == Tiling::Whole);
        if self.needs_windows && is_whole {
            return Vec::new();
        }
        let candidates = self.changes.iter().map(|change| incumbent.overlaid(change));
        candidates.filter(|candidate| candidate != incumbent).collect()
    }
}

fn stage(name: &str, changes: Vec<EngineConfig>) -> SearchStage {
    SearchStage { name: name.to_owned(), changes, needs_windows: false }
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

    fn space(cores: usize, concurrent: bool) -> SearchSpace {
        SearchSpace {
            precisions: vec![Precision::Int8],
            window: Some(Window { size: 768, stride: 512 }),
            grid: LogitGrid { stride: 4, encoder_stride: 16, align_corners: false },
            cores,
            default_mode: if concurrent {
                ExecutionMode::Throughput
            } else {
                ExecutionMode::Latency
            },
            concurrent,
        }
    }

    fn lines(plan: &SearchPlan) -> Vec<String> {
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
    fn cpu_plans_have_these_stages() {
        let expected = [
            "precision: precision int8",
            "window: window 768:576; window 768:768; window whole",
            "cores: mode latency, threads 1; mode latency, threads 2; mode latency, threads 4; mode latency; threads 2; threads 4",
            "batch: batch 2; batch 4",
            "spin: spin",
        ];
        assert_eq!(lines(&space(6, true).plan(Device::Cpu)), expected);
        let one = lines(&space(6, false).plan(Device::Cpu));
        assert_eq!(one[2], "cores: threads 1; threads 2; threads 4");
        assert!(
            lines(&space(1, true).plan(Device::Cpu)).iter().all(|line| !line.contains("threads"))
        );
        assert_eq!(space(6, true).plan(Device::Cpu).start, EngineConfig::default());
    }

    #[test]
    fn device_plans_have_their_own_switches() {
        let cuda = space(6, true).plan(Device::Cuda(1));
        assert_eq!(describe(&cuda.start), "device cuda:1");
        let expected = [
            "gpu-sessions: gpu-sessions 1; gpu-sessions 3",
            "batch: batch 2; batch 4; batch 8",
            "tf32: tf32",
            "cuda-graph: cuda-graph",
        ];
        assert_eq!(lines(&cuda)[2..], expected);
        let tensorrt = lines(&space(6, false).plan(Device::TensorRt(0)));
        assert_eq!(
            tensorrt[2..],
            ["batch: batch 2; batch 4; batch 8", "trt-fp16: trt-fp16", "cuda-graph: cuda-graph"]
        );
        let openvino = lines(&space(2, true).plan(Device::OpenVino));
        assert_eq!(openvino[2..], ["cores: threads 1", "batch: batch 2; batch 4"]);
    }

    #[test]
    fn candidates_build_on_the_incumbent() {
        let plan = space(2, false).plan(Device::Cpu);
        let window = Some(Window { size: 768, stride: 512 });
        let found = config(&[("precision", "int8")]);
        let batch = plan.stages.iter().find(|stage| stage.needs_windows).unwrap();
        let told = |found: &EngineConfig, window| {
            batch.candidates(found, window).iter().map(describe).collect::<Vec<_>>()
        };
        assert_eq!(told(&found, window), ["batch 2, precision int8", "batch 4, precision int8"]);
        // Whole images have no windows per run.
        assert!(
            told(&config(&[("window", "whole")]), window).is_empty()
                && told(&found, None).is_empty()
        );
        assert_eq!(told(&config(&[("window", "768:768")]), None).len(), 2);
        // The incumbent is not a candidate.
        assert!(plan.stages[0].candidates(&found, window).is_empty());
        // The bundle's own stride is already the largest.
        let close =
            SearchSpace { window: Some(Window { size: 768, stride: 768 }), ..space(2, false) };
        assert_eq!(close.windows().iter().map(describe).collect::<Vec<_>>(), ["window whole"]);
        assert!(SearchSpace { window: None, ..space(2, false) }.windows().is_empty());
    }
}
