//! Looks at a GPU again and again while something runs on it, and says what it took.

use std::collections::BTreeSet;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::cuda::CudaOrdinals;
use super::{Driver, GpuError, GpuSample, Gpus, nvml};

/// Between two looks: the driver renews what it tells of power about ten times a second.
const EVERY: Duration = Duration::from_millis(50);

/// What a GPU did while it was watched. What the driver does not tell is none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GpuSummary {
    /// How long that was.
    pub seconds: f64,
    /// How often it was looked at.
    pub looks: usize,
    /// Energy that it took, of all that ran on it.
    pub joules: Option<f64>,
    /// How that is known.
    pub energy_source: Option<EnergySource>,
    /// Power on average.
    pub watts: Option<f64>,
    /// The slowest clock of the multiprocessors, in MHz.
    pub min_sm_mhz: Option<u32>,
    /// The fastest.
    pub max_sm_mhz: Option<u32>,
    /// The highest temperature, in degrees Celsius.
    pub max_temperature: Option<u32>,
    /// All that held its clocks down at a time, by NVML's names.
    pub throttled: BTreeSet<String>,
    /// The most bytes of its memory that were occupied.
    pub peak_memory: Option<u64>,
    /// By whom.
    pub memory_of: Option<MemoryScope>,
}

/// How energy is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EnergySource {
    /// The GPU counts it.
    Counter,
    /// Power, taken to change evenly between two looks.
    Power,
}

/// Whose memory was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemoryScope {
    /// This process's.
    Process,
    /// Everybody's, as the driver does not tell them apart here.
    Device,
}

/// A thread that watches a GPU; dropped, it ends.
#[derive(Debug)]
pub struct GpuMonitor {
    thread: JoinHandle<GpuSummary>,
    stop: Sender<()>,
}

impl GpuMonitor {
    /// Begins to watch `cuda:N`.
    pub fn start(number: u16) -> Result<Self, GpuError> {
        let driver = nvml::driver().map_err(|reason| GpuError::NoDriver(reason.clone()))?;
        let place =
            Gpus::from_driver(driver, &CudaOrdinals::from_environment()).place(number.into())?;
        Self::spawn(driver, place, EVERY)
    }

    fn spawn(driver: &'static dyn Driver, place: usize, every: Duration) -> Result<Self, GpuError> {
        let (stop, stopped) = channel();
        // The first look is here, so that nothing of what follows is missed.
        let start = Instant::now();
        let mut tally = GpuTotals::new(driver.read(place));
        let watch = move || {
            loop {
                let next = stopped.recv_timeout(every);
                tally.add(start.elapsed(), driver.read(place));
                if next != Err(RecvTimeoutError::Timeout) {
                    return tally.finish();
                }
            }
        };
        let thread = std::thread::Builder::new().name(format!("watch of GPU {place}")).spawn(watch);
        let thread = thread
            .map_err(|error| GpuError::NoDriver(format!("no thread can be started: {error}")))?;
        Ok(Self { thread, stop })
    }

    /// Ends it, after a last look.
    pub fn stop(self) -> GpuSummary {
        drop(self.stop);
        self.thread.join().unwrap_or_default()
    }
}

/// Looks, taken together.
#[derive(Debug)]
struct GpuTotals {
    first: Option<f64>,
    last: GpuSample,
    at: Duration,
    /// Joules by power; none once it was not told.
    integral: Option<f64>,
    most_own: Option<u64>,
    most_used: Option<u64>,
    summary: GpuSummary,
}

impl GpuTotals {
    fn new(reading: GpuSample) -> Self {
        let integral = reading.power.map(|_| 0.0);
        let mut tally = Self {
            first: reading.energy,
            last: GpuSample::default(),
            at: Duration::ZERO,
            integral,
            most_own: None,
            most_used: None,
            summary: GpuSummary::default(),
        };
        tally.see(reading);
        tally
    }

    fn add(&mut self, at: Duration, reading: GpuSample) {
        let passed = at.saturating_sub(self.at).as_secs_f64();
        self.integral = match (self.integral, self.last.power, reading.power) {
            (Some(joules), Some(before), Some(now)) => Some(joules + passed * (before + now) / 2.0),
            _ => None,
        };
        self.at = at;
        self.see(reading);
    }

    fn see(&mut self, reading: GpuSample) {
        let summary = &mut self.summary;
        summary.looks += 1;
        summary.min_sm_mhz = summary.min_sm_mhz.into_iter().chain(reading.sm_mhz).min();
        // None is less than any.
        summary.max_sm_mhz = summary.max_sm_mhz.max(reading.sm_mhz);
        summary.max_temperature = summary.max_temperature.max(reading.temperature);
        self.most_own = self.most_own.max(reading.memory_own);
        self.most_used = self.most_used.max(reading.memory_used);
        summary.throttled.extend(reading.throttled.iter().cloned());
        self.last = reading;
    }

    fn finish(self) -> GpuSummary {
        let seconds = self.at.as_secs_f64();
        // A counter that runs backwards began anew, with its driver.
        let counted = self
            .first
            .zip(self.last.energy)
            .map(|(first, last)| last - first)
            .filter(|&joules| joules >= 0.0);
        let (joules, energy_source) = match (counted, self.integral) {
            (Some(joules), _) => (Some(joules), Some(EnergySource::Counter)),
            (None, Some(joules)) => (Some(joules), Some(EnergySource::Power)),
            (None, None) => (None, None),
        };
        let (peak_memory, memory_of) = match (self.most_own, self.most_used) {
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

    /// A look at a GPU whose power grows by 10 W in a second from 100 W on.
    fn look(second: u64) -> GpuSample {
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

    fn summary(look: impl Fn(u64) -> GpuSample) -> GpuSummary {
        let mut tally = GpuTotals::new(look(0));
        (1..=4).for_each(|second| tally.add(Duration::from_secs(second), look(second)));
        tally.finish()
    }

    #[test]
    fn power_that_grows_evenly_gives_the_energy_that_is_counted() {
        // 100 t + 5 t t after 4 seconds.
        let counted = summary(look);
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
            summary(|second| GpuSample { energy: None, memory_own: None, ..look(second) });
        assert_eq!(
            (measured.joules, measured.energy_source),
            (Some(480.0), Some(EnergySource::Power))
        );
        assert_eq!(
            (measured.peak_memory, measured.memory_of),
            (Some(904), Some(MemoryScope::Device))
        );
        // A counter that began anew is not believed.
        let reset =
            summary(|second| GpuSample { energy: Some(9.0 - second as f64), ..look(second) });
        assert_eq!((reset.joules, reset.energy_source), (Some(480.0), Some(EnergySource::Power)));
    }

    #[test]
    fn what_is_not_told_throughout_is_none() {
        let partly = summary(|second| GpuSample {
            power: Some(9.0).filter(|_| second != 2),
            energy: None,
            ..look(second)
        });
        assert_eq!((partly.joules, partly.watts, partly.energy_source), (None, None, None));
        let nothing = summary(|_| GpuSample::default());
        assert_eq!(nothing, GpuSummary { seconds: 4.0, looks: 5, ..GpuSummary::default() });
        let written = serde_json::to_string(&summary(look)).unwrap();
        assert_eq!(serde_json::from_str::<GpuSummary>(&written).unwrap(), summary(look));
    }

    #[test]
    fn a_watch_looks_until_it_is_stopped() {
        static DRIVER: Fake = Fake(&["L4", "L4"]);
        let watch = GpuMonitor::spawn(&DRIVER, 1, Duration::from_millis(1)).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        let found = watch.stop();
        assert!(found.looks >= 3 && found.seconds >= 0.02, "{found:?}");
        // Power is the same at all times.
        let joules = found.joules.unwrap();
        assert!((joules - 200.0 * found.seconds).abs() < 1e-9 * joules, "{found:?}");
        assert_eq!(found.max_temperature, Some(40));
        // One that nobody stops ends too.
        drop(GpuMonitor::spawn(&DRIVER, 0, Duration::from_secs(3600)).unwrap());
    }

    #[test]
    fn a_number_that_no_gpu_has_is_refused() {
        let message = GpuMonitor::start(u16::MAX).unwrap_err().to_string();
        assert!(
            message.starts_with("the driver of GPUs") || message.contains("cuda:65535"),
            "{message}"
        );
    }
}
