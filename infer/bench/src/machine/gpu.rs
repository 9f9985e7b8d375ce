//! GPUs of NVIDIA, as their driver tells of them through NVML: what they are, and what they do while something is measured.

mod cuda;
mod nvml;
mod watch;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use self::cuda::CudaOrdinals;
pub use self::watch::{EnergySource, GpuMonitor, GpuSummary, MemoryScope};

/// The GPUs of a machine. Without a driver there are none, and a reason.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Gpus {
    /// Version of the driver.
    pub driver: Option<String>,
    /// The newest version of CUDA that the driver knows.
    pub cuda: Option<String>,
    /// In the driver's order, which is that of the PCI bus.
    pub gpus: Vec<Gpu>,
    /// How CUDA's numbers were told, or why they were not; none without GPUs.
    pub numbers: Option<String>,
    /// Why nothing is known.
    pub missing: Option<String>,
}

/// A GPU, as it was when this was asked. What the driver does not tell is none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Gpu {
    /// Its number in `cuda:N`; none where this process does not see it, or its number cannot be told.
    pub number: Option<usize>,
    /// What it is called.
    pub name: Option<String>,
    /// What tells it from all others.
    pub uuid: Option<String>,
    /// Where it is on the PCI bus.
    pub bus: Option<String>,
    /// Bytes of its memory.
    pub memory: Option<u64>,
    /// Bytes of it that are occupied, by whomever.
    pub memory_used: Option<u64>,
    /// Watts that it may take.
    pub power_limit: Option<f64>,
    /// Clock of the multiprocessors, in MHz.
    pub sm_mhz: Option<u32>,
    /// The most that it may be, in MHz.
    pub sm_max_mhz: Option<u32>,
    /// Clock of the memory, in MHz.
    pub memory_mhz: Option<u32>,
    /// The most that it may be, in MHz.
    pub memory_max_mhz: Option<u32>,
    /// Temperature in degrees Celsius.
    pub temperature: Option<u32>,
    /// What holds its clocks down, by NVML's names.
    pub throttled: BTreeSet<String>,
    /// Whether its memory corrects errors.
    pub ecc: Option<bool>,
    /// Whether it is divided into instances.
    pub mig: Option<bool>,
    /// Whether the driver keeps it ready while nobody uses it.
    pub persistence: Option<bool>,
}

/// Why a GPU cannot be watched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// There is no driver to ask.
    #[error("the driver of GPUs does not answer: {0}")]
    NoDriver(String),
    /// The driver does not know CUDA's numbers.
    #[error("which GPU cuda:{number} is cannot be told: {reason}")]
    Number {
        /// CUDA's number.
        number: usize,
        /// Why not.
        reason: String,
    },
}

/// What a GPU does at one moment. What the driver does not tell is none.
#[derive(Debug, Clone, Default, PartialEq)]
struct GpuSample {
    /// Watts.
    power: Option<f64>,
    /// Joules since the driver was loaded.
    energy: Option<f64>,
    sm_mhz: Option<u32>,
    temperature: Option<u32>,
    throttled: BTreeSet<String>,
    memory_used: Option<u64>,
    /// Bytes that this process occupies.
    memory_own: Option<u64>,
}

/// A driver that can be asked. GPUs are named by their place in its order.
trait Driver: Sync {
    /// All that is there, without CUDA's numbers.
    fn gpus(&self) -> Gpus;

    /// What one does now.
    fn read(&self, index: usize) -> GpuSample;
}

impl Gpus {
    /// What the driver of this machine tells now.
    pub fn now() -> Self {
        match nvml::driver() {
            Ok(driver) => Self::from_driver(driver, &CudaOrdinals::from_environment()),
            Err(missing) => Self { missing: Some(missing.clone()), ..Self::default() },
        }
    }

    fn from_driver(driver: &dyn Driver, numbers: &CudaOrdinals) -> Self {
        let mut found = driver.gpus();
        if found.gpus.is_empty() {
            found.missing = found.missing.or_else(|| Some("the driver knows no GPU".to_owned()));
            return found;
        }
        let how = numbers.give(&found.gpus).map(|(places, how)| {
            for (number, place) in places.into_iter().enumerate() {
                found.gpus[place].number = Some(number);
            }
            how
        });
        found.numbers = Some(how.unwrap_or_else(|reason| format!("not told: {reason}")));
        found
    }

    /// The place of `cuda:N`.
    fn place(&self, number: usize) -> Result<usize, GpuError> {
        if let Some(reason) = &self.missing {
            return Err(GpuError::NoDriver(reason.clone()));
        }
        self.gpus.iter().position(|gpu| gpu.number == Some(number)).ok_or_else(|| {
            GpuError::Number {
                number,
                reason: self.numbers.clone().unwrap_or_else(|| "no GPU has that number".to_owned()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A driver of as many GPUs as there are names.
    pub(super) struct Fake(pub(super) &'static [&'static str]);

    impl Driver for Fake {
        fn gpus(&self) -> Gpus {
            let gpu = |(index, name): (usize, &&str)| Gpu {
                name: Some((*name).to_owned()),
                uuid: Some(format!("GPU-{index}abc")),
                bus: Some(format!("00000000:0{index}:00.0")),
                ..Gpu::default()
            };
            let gpus = self.0.iter().enumerate().map(gpu).collect();
            Gpus { driver: Some("600.1".to_owned()), gpus, ..Gpus::default() }
        }

        fn read(&self, index: usize) -> GpuSample {
            GpuSample {
                power: Some(100.0 * (index + 1) as f64),
                temperature: Some(40),
                ..GpuSample::default()
            }
        }
    }

    #[test]
    fn numbers_are_those_of_cuda_or_it_is_said_why_not() {
        let numbers = |visible: Option<&str>| CudaOrdinals {
            visible: visible.map(str::to_owned),
            order: None,
        };
        let gpus = Gpus::from_driver(&Fake(&["L4", "L4"]), &numbers(Some("1,0")));
        assert_eq!(gpus.gpus.iter().map(|gpu| gpu.number).collect::<Vec<_>>(), [Some(1), Some(0)]);
        assert_eq!((gpus.place(0), gpus.place(1)), (Ok(1), Ok(0)));
        let message = gpus.place(2).unwrap_err().to_string();
        assert!(message.starts_with("which GPU cuda:2 is cannot be told: "), "{message}");
        let unlike = Gpus::from_driver(&Fake(&["L4", "T4"]), &numbers(None));
        assert!(unlike.gpus.iter().all(|gpu| gpu.number.is_none()), "{unlike:?}");
        assert!(unlike.numbers.as_ref().unwrap().starts_with("not told: "), "{unlike:?}");
        assert!(unlike.place(0).unwrap_err().to_string().contains("CUDA_DEVICE_ORDER"));
        let none = Gpus::from_driver(&Fake(&[]), &numbers(None));
        assert!(
            none.missing.is_some() && matches!(none.place(0), Err(GpuError::NoDriver(_))),
            "{none:?}"
        );
        let written = serde_json::to_string(&gpus).unwrap();
        assert_eq!(serde_json::from_str::<Gpus>(&written).unwrap(), gpus);
    }

    /// With a driver or without one.
    #[test]
    fn this_machine_tells_of_gpus_or_why_there_are_none() {
        let gpus = Gpus::now();
        assert_eq!(gpus.gpus.is_empty(), gpus.missing.is_some(), "{gpus:?}");
        assert_eq!(gpus.gpus.is_empty(), gpus.numbers.is_none(), "{gpus:?}");
    }
}
