//! NVIDIA GPUs as their driver reports them through NVML, and their state during a measurement.

mod cuda;
mod monitor;
mod nvml;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use self::cuda::CudaOrdinals;
pub use self::monitor::{EnergySource, GpuMonitor, GpuSummary, MemoryScope};

/// GPUs of a machine; without a driver none, and a reason.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Gpus {
    /// Version of the driver.
    pub driver: Option<String>,
    /// Newest version of CUDA that the driver supports.
    pub cuda: Option<String>,
    /// In the driver's order, which is that of the PCI bus.
    pub gpus: Vec<Gpu>,
    /// How CUDA's numbers are known, or why they are not; `None` without GPUs.
    pub numbers: Option<String>,
    /// Why nothing is known.
    pub missing: Option<String>,
}

/// A GPU. Facts that the driver does not report are `None`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Gpu {
    /// N of `cuda:N`; `None` where this process does not see it, or its number is unknown.
    pub number: Option<usize>,
    pub name: Option<String>,
    pub uuid: Option<String>,
    /// Address on the PCI bus.
    pub bus: Option<String>,
    /// In bytes.
    pub memory: Option<u64>,
    /// In bytes, of all processes.
    pub memory_used: Option<u64>,
    /// In watts.
    pub power_limit: Option<f64>,
    /// Clock of the multiprocessors.
    pub sm_mhz: Option<u32>,
    pub sm_max_mhz: Option<u32>,
    pub memory_mhz: Option<u32>,
    pub memory_max_mhz: Option<u32>,
    /// In degrees Celsius.
    pub temperature: Option<u32>,
    /// Reasons for lowered clocks, by NVML's names.
    pub throttled: BTreeSet<String>,
    pub ecc: Option<bool>,
    pub mig: Option<bool>,
    /// Persistence mode.
    pub persistence: Option<bool>,
}

/// A GPU that cannot be monitored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    #[error("the GPU driver does not answer: {0}")]
    NoDriver(String),
    #[error("cuda:{number} is not known to the driver: {reason}")]
    Number { number: usize, reason: String },
}

/// State of a GPU. Values that the driver does not report are `None`.
#[derive(Debug, Clone, Default, PartialEq)]
struct GpuSample {
    /// In watts.
    power: Option<f64>,
    /// In joules since the driver was loaded.
    energy: Option<f64>,
    sm_mhz: Option<u32>,
    temperature: Option<u32>,
    throttled: BTreeSet<String>,
    memory_used: Option<u64>,
    /// In bytes, of this process.
    memory_own: Option<u64>,
}

/// A GPU driver. GPUs are indexed in its order.
trait Driver: Sync {
    /// All GPUs, without CUDA's numbers.
    fn gpus(&self) -> Gpus;

    fn sample(&self, index: usize) -> GpuSample;
}

impl Gpus {
    /// Current state of this machine's GPUs.
    pub fn now() -> Self {
        match nvml::driver() {
            Ok(driver) => Self::from_driver(driver, &CudaOrdinals::from_environment()),
            Err(missing) => Self { missing: Some(missing.clone()), ..Self::default() },
        }
    }

    fn from_driver(driver: &dyn Driver, ordinals: &CudaOrdinals) -> Self {
        let mut gpus = driver.gpus();
        if gpus.gpus.is_empty() {
            gpus.missing.get_or_insert_with(|| "the driver knows no GPU".to_owned());
            return gpus;
        }
        gpus.numbers = Some(match ordinals.indices(&gpus.gpus) {
            Ok((indices, how)) => {
                for (number, index) in indices.into_iter().enumerate() {
                    gpus.gpus[index].number = Some(number);
                }
                how
            }
            Err(reason) => format!("unknown: {reason}"),
        });
        gpus
    }

    /// The driver's index of `cuda:N`.
    fn index(&self, number: usize) -> Result<usize, GpuError> {
        if let Some(reason) = &self.missing {
            return Err(GpuError::NoDriver(reason.clone()));
        }
        self.gpus.iter().position(|gpu| gpu.number == Some(number)).ok_or_else(|| {
            let reason = self.numbers.clone();
            GpuError::Number {
                number,
                reason: reason.unwrap_or_else(|| "no GPU has that number".to_owned()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A driver with a GPU for each name.
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

        fn sample(&self, index: usize) -> GpuSample {
            GpuSample {
                power: Some(100.0 * (index + 1) as f64),
                temperature: Some(40),
                ..GpuSample::default()
            }
        }
    }

    #[test]
    fn numbers_are_those_of_cuda_or_unknown() {
        let ordinals = |visible: Option<&str>| CudaOrdinals {
            visible: visible.map(str::to_owned),
            order: None,
        };
        let gpus = Gpus::from_driver(&Fake(&["L4", "L4"]), &ordinals(Some("1,0")));
        assert_eq!(gpus.gpus.iter().map(|gpu| gpu.number).collect::<Vec<_>>(), [Some(1), Some(0)]);
        assert_eq!((gpus.index(0), gpus.index(1)), (Ok(1), Ok(0)));
        let message = gpus.index(2).unwrap_err().to_string();
        assert!(message.starts_with("cuda:2 is not known to the driver: "), "{message}");
        let unlike = Gpus::from_driver(&Fake(&["L4", "T4"]), &ordinals(None));
        assert!(unlike.gpus.iter().all(|gpu| gpu.number.is_none()), "{unlike:?}");
        assert!(unlike.numbers.as_ref().unwrap().starts_with("unknown: "), "{unlike:?}");
        assert!(unlike.index(0).unwrap_err().to_string().contains("CUDA_DEVICE_ORDER"));
        let none = Gpus::from_driver(&Fake(&[]), &ordinals(None));
        assert!(
            none.missing.is_some() && matches!(none.index(0), Err(GpuError::NoDriver(_))),
            "{none:?}"
        );
        let written = serde_json::to_string(&gpus).unwrap();
        assert_eq!(serde_json::from_str::<Gpus>(&written).unwrap(), gpus);
    }

    /// With a driver or without one.
    #[test]
    fn this_machine_has_gpus_or_a_reason_for_none() {
        let gpus = Gpus::now();
        assert_eq!(gpus.gpus.is_empty(), gpus.missing.is_some(), "{gpus:?}");
        assert_eq!(gpus.gpus.is_empty(), gpus.numbers.is_none(), "{gpus:?}");
    }
}
