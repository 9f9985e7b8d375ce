//! NVML, the library of NVIDIA's driver, which is loaded on first use.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{
    Device, Nvml, cuda_driver_version_major as major, cuda_driver_version_minor as minor,
};
use protoseg_models::errors::error_chain;

use super::{Driver, Gpu, GpuSample, Gpus};

/// The driver of this machine, or why it is unavailable.
pub(super) fn driver() -> Result<&'static dyn Driver, &'static String> {
    static NVML: OnceLock<Result<Nvml, String>> = OnceLock::new();
    let nvml = NVML.get_or_init(|| {
        Nvml::init().map_err(|error| match error {
            NvmlError::LibloadingError(error) => {
                format!("the driver's library cannot be loaded: {}", error_chain(&error))
            }
            error => error_chain(&error),
        })
    });
    nvml.as_ref().map(|nvml| nvml as &dyn Driver)
}

impl Driver for Nvml {
    fn gpus(&self) -> Gpus {
        let cuda = self.sys_cuda_driver_version().ok();
        let count = self.device_count();
        let missing = count.as_ref().err().map(|error| error_chain(error));
        // A GPU that fell off the bus keeps its index.
        let gpu =
            |index| self.device_by_index(index).map(|device| gpu(&device)).unwrap_or_default();
        Gpus {
            driver: self.sys_driver_version().ok(),
            cuda: cuda.map(|version| format!("{}.{}", major(version), minor(version))),
            gpus: (0..count.unwrap_or(0)).map(gpu).collect(),
            numbers: None,
            missing,
        }
    }

    fn sample(&self, index: usize) -> GpuSample {
        let device = u32::try_from(index).ok().and_then(|index| self.device_by_index(index).ok());
        let Some(device) = device else { return GpuSample::default() };
        let processes = device.running_compute_processes().unwrap_or_default();
        let own = processes.into_iter().find(|process| process.pid == std::process::id());
        let memory_own = own.and_then(|process| match process.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => Some(bytes),
            UsedGpuMemory::Unavailable => None,
        });
        GpuSample {
            power: device.power_usage().ok().map(from_milli),
            energy: device.total_energy_consumption().ok().map(|mj| mj as f64 / 1000.0),
            sm_mhz: device.clock_info(Clock::SM).ok(),
            temperature: device.temperature(TemperatureSensor::Gpu).ok(),
            throttled: throttled(&device),
            memory_used: device.memory_info().ok().map(|memory| memory.used),
            memory_own,
        }
    }
}

fn gpu(device: &Device<'_>) -> Gpu {
    let memory = device.memory_info().ok();
    Gpu {
        number: None,
        name: device.name().ok(),
        uuid: device.uuid().ok(),
        bus: device.pci_info().ok().map(|pci| pci.bus_id),
        memory: memory.as_ref().map(|memory| memory.total),
        memory_used: memory.map(|memory| memory.used),
        power_limit: device.enforced_power_limit().ok().map(from_milli),
        sm_mhz: device.clock_info(Clock::SM).ok(),
        sm_max_mhz: device.max_clock_info(Clock::SM).ok(),
        memory_mhz: device.clock_info(Clock::Memory).ok(),
        memory_max_mhz: device.max_clock_info(Clock::Memory).ok(),
        temperature: device.temperature(TemperatureSensor::Gpu).ok(),
        throttled: throttled(device),
        ecc: device.is_ecc_enabled().ok().map(|state| state.currently_enabled),
        mig: device.mig_mode().ok().map(|mode| mode.current == 1),
        persistence: device.is_in_persistent_mode().ok(),
    }
}

fn from_milli(value: u32) -> f64 {
    f64::from(value) / 1000.0
}

fn throttled(device: &Device<'_>) -> BTreeSet<String> {
    device.current_throttle_reasons().map(names).unwrap_or_default()
}

/// Names of throttle reasons; an idle GPU is not throttled.
fn names(reasons: ThrottleReasons) -> BTreeSet<String> {
    let throttling = reasons.difference(ThrottleReasons::GPU_IDLE | ThrottleReasons::NONE);
    throttling.iter_names().map(|(name, _)| name.to_lowercase().replace('_', "-")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_gpu_is_not_throttled() {
        assert_eq!(names(ThrottleReasons::GPU_IDLE), BTreeSet::new());
        let held = names(
            ThrottleReasons::GPU_IDLE
                | ThrottleReasons::SW_POWER_CAP
                | ThrottleReasons::HW_THERMAL_SLOWDOWN,
        );
        assert_eq!(held.into_iter().collect::<Vec<_>>(), ["hw-thermal-slowdown", "sw-power-cap"]);
    }
}
