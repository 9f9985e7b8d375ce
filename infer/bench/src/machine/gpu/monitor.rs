//! Samples a GPU during a measurement: energy, clocks, temperature, memory.

use std::collections::BTreeSet;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::cuda::CudaOrdinals;
use super::{Driver, GpuError, GpuSample, Gpus, nvml};

/// Sampling interval: the driver updates its power reading about ten times a second.
const INTERVAL: Duration = Duration::from_millis(50);

/// Summary of a GPU's samples. Values that the driver does not report are `None`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GpuSummary {
    pub seconds: f64,
    /// Number of samples.
    pub looks: usize,
    /// Energy of the whole GPU, including other processes.
    pub joules: Option<f64>,
    pub energy_source: Option<EnergySource>,
    /// Mean power.
    pub watts: Option<f64>,
    /// Slowest clock of the multiprocessors.
    pub min_sm_mhz: Option<u32>,
    pub max_sm_mhz: Option<u32>,
    /// In degrees Celsius.
    pub max_temperature: Option<u32>,
    /// All reasons for lowered clocks, by NVML's names.
    pub throttled: BTreeSet<String>,
    /// In bytes.
    pub peak_memory: Option<u64>,
    pub memory_of: Option<MemoryScope>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EnergySource {
    /// The GPU's energy counter.
    Counter,
    /// Integral of sampled power (trapezoidal rule).
    Power,
}

/// Processes whose memory was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemoryScope {
    Process,
    /// All processes, where the driver does not distinguish them.
    Device,
}

/// A sampling thread, which ends when this is dropped.
#[derive(Debug)]
pub struct GpuMonitor {
    thread: JoinHandle<GpuSummary>,
    stop: Sender<()>,
}

impl GpuMonitor {
    /// Starts to sample `cuda:N`.
    pub fn start(number: u16) -> Result<Self, GpuError> {
        let driver = nvml::driver().map_err(|reason| GpuError::NoDriver(reason.clone()))?;
        let gpus = Gpus::from_driver(driver, &CudaOrdinals::from_environment());
        Self::spawn(driver, gpus.index(number.into())?, INTERVAL)
    }

    fn spawn(
        driver: &'static dyn Driver,
        index: usize,
        interval: Duration,
    ) -> Result<Self, GpuError> {
        let (stop, stopped) = channel();
        // The first sample is taken before this returns.
        let start = Instant::now();
        let mut totals = GpuTotals::new(driver.sample(index));
        let run = move || {
            loop {
                let next = stopped.recv_timeout(interval);
                totals.add(start.elapsed(), driver.sample(index));
                if next != Err(RecvTimeoutError::Timeout) {
                    return totals.finish();
                }
            }
        };
        let thread = std::thread::Builder::new().name(format!("monitor of GPU {index}")).spawn(run);
        let thread = thread
            .map_err(|error| GpuError::NoDriver(format!("cannot start a thread: {error}")))?;
        Ok(Self { thread, stop })
    }

    /// Ends after a last sample.
    pub fn stop(self) -> GpuSummary {
        drop(self.stop);
        self.thread.join().unwrap_or_default()
    }
}

/// Running totals of samples.
#[derive(Debug)]
struct GpuTotals {
    /// Energy counter at the first sample.
    first_energy: Option<f64>,
    last: GpuSample,
    last_at: Duration,
    /// Integral of power; `None` from the first sample without power on.
    joules: Option<f64>,
    peak_own: Option<u64>,
    peak_used: Option<u64>,
    summary: GpuSummary,
}

impl GpuTotals {
    fn new(sample: GpuSample) -> Self {
        let mut totals = Self {
            first_energy: sample.energy,
            last: GpuSample::default(),
            last_at: Duration::ZERO,
            joules: sample.power.map(|_| 0.0),
            peak_own: None,
            peak_used: None,
            summary: GpuSummary::default(),
        };
        totals.include(sample);
        totals
    }

    fn add(&mut self, at: Duration, sample: GpuSample) {
        let passed = at.saturating_sub(self.last_at).as_secs_f64();
        self.joules = match (self.joules, self.last.power, sample.power) {
            (Some(joules), Some(before), Some(now)) => Some(joules + passed * (before + now) / 2.0),
            _ => None,
        };
        self.last_at = at;
        self.include(sample);
    }

    fn include(&mut self, sample: GpuSample) {
        let summary = &mut self.summary;
        summary.looks += 1;
        summary.min_sm_mhz = summary.min_sm_mhz.into_iter().chain(sample.sm_mhz).min();
        // `None` is less than any value.
        summary.max_sm_mhz = summary.max_sm_mhz.max(sample.sm_mhz);
        summary.max_temperature = summary.max_temperature.max(sample.temperature);
        self.peak_own = self.peak_own.max(sample.memory_own);
        self.peak_used = self.peak_used.max(sample.memory_used);
        summary.throttled.extend(sample.throttled.iter().cloned());
        self.last = sample;
    }

    fn finish(self) -> GpuSummary {
        let seconds = self.last_at.as_secs_f64();
        // A counter that runs backwards was reset with its driver.
        let counted = self
            .first_energy
            .zip(self.last.energy)
            .map(|(first, last)| last - first)
            .filter(|&joules| joules >= 0.0);
        let (joules, energy_source) = match (counted, self.joules) {
            (Some(joules), _) => (Some(joules), Some(EnergySource::Counter)),
            (None, Some(joules)) => (Some(joules), Some(EnergySource::Power)),
            (None, None) => (None, None),
        };
        let (peak_memory, memory_of) = match (self.peak_own, self.peak_used) {
            (Some(bytes), _) => (Some(bytes), Some(MemoryScope::Process)),
            (None, Some(bytes)) => (Some(bytes), Some(MemoryScope::Device)),
            (None, None) => (None, None),
        };
        let watts = joules.filter(|_| seconds > 0.0).map(|joules| joules / seconds);
        GpuSummary { seconds, joules, energy_source, watts, peak_memory, memory_of, ..self.summary }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Fake;
    use super::*;

    /// A sample of a GPU whose power grows by 10 W a second from 100 W on.
    fn sample(second: u64) -> GpuSample {
        let seconds = second as f64;
        GpuSample {
            power: Some(100.0 + 10.0 * seconds),
            energy: Some(5000.0 + 100.0 * seconds + 5.0 * seconds * seconds),
            sm_mhz: Some(1500 - 100 * second as u32),
            temperature: Some([50, 70, 60][second as usize % 3]),
            throttled: BTreeSet::from([format!("reason {}", second % 2)]),
            memory_used: Some(900 + second),
            memory_own: (second == 1).then_some(300),
        }
    }

    fn summary(sample: impl Fn(u64) -> GpuSample) -> GpuSummary {
        let mut totals = GpuTotals::new(sample(0));
        (1..=4).for_each(|second| totals.add(Duration::from_secs(second), sample(second)));
        totals.finish()
    }

    #[test]
    fn integrated_power_equals_the_energy_counter() {
        // 100 t + 5 t t after 4 seconds.
        let counted = summary(sample);
        assert_eq!(
            (counted.joules, counted.watts, counted.seconds, counted.looks),
            (Some(480.0), Some(120.0), 4.0, 5)
        );
        assert_eq!(counted.energy_source, Some(EnergySource::Counter));
        assert_eq!(
            [counted.min_sm_mhz, counted.max_sm_mhz, counted.max_temperature],
            [1100, 1500, 70].map(Some)
        );
        assert_eq!(counted.throttled.len(), 2);
        assert_eq!(
            (counted.peak_memory, counted.memory_of),
            (Some(300), Some(MemoryScope::Process))
        );
        let measured =
            summary(|second| GpuSample { energy: None, memory_own: None, ..sample(second) });
        assert_eq!(
            (measured.joules, measured.energy_source),
            (Some(480.0), Some(EnergySource::Power))
        );
        assert_eq!(
            (measured.peak_memory, measured.memory_of),
            (Some(904), Some(MemoryScope::Device))
        );
        // A counter that was reset does not count.
        let reset =
            summary(|second| GpuSample { energy: Some(9.0 - second as f64), ..sample(second) });
        assert_eq!((reset.joules, reset.energy_source), (Some(480.0), Some(EnergySource::Power)));
    }

    #[test]
    fn partly_missing_values_are_none() {
        let partly = summary(|second| GpuSample {
            power: Some(9.0).filter(|_| second != 2),
            energy: None,
            ..sample(second)
        });
        assert_eq!((partly.joules, partly.watts, partly.energy_source), (None, None, None));
        let nothing = summary(|_| GpuSample::default());
        assert_eq!(nothing, GpuSummary { seconds: 4.0, looks: 5, ..GpuSummary::default() });
        let written = serde_json::to_string(&summary(sample)).unwrap();
        assert_eq!(serde_json::from_str::<GpuSummary>(&written).unwrap(), summary(sample));
    }

    #[test]
    fn a_monitor_samples_until_it_is_stopped() {
        static DRIVER: Fake = Fake(&["L4", "L4"]);
        let monitor = GpuMonitor::spawn(&DRIVER, 1, Duration::from_millis(1)).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        let found = monitor.stop();
        assert!(found.looks >= 3 && found.seconds >= 0.02, "{found:?}");
        // Power is the same at all times.
        let joules = found.joules.unwrap();
        assert!((joules - 200.0 * found.seconds).abs() < 1e-9 * joules, "{found:?}");
        assert_eq!(found.max_temperature, Some(40));
        // A dropped one ends too.
        drop(GpuMonitor::spawn(&DRIVER, 0, Duration::from_secs(3600)).unwrap());
    }

    #[test]
    fn unknown_numbers_are_refused() {
        let message = GpuMonitor::start(u16::MAX).unwrap_err().to_string();
        assert!(
            message.starts_with("the GPU driver") || message.contains("cuda:65535"),
            "{message}"
        );
    }
}
