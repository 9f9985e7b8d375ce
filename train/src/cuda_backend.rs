//! The device of a run. `libtorch_cuda.so` is opened at run time, so that one program runs with and without CUDA.
#![expect(unsafe_code, reason = "opening a shared library runs its initializers")]

use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use tch::Device;

const LIBRARY: &str = "libtorch_cuda.so";

/// `cpu`, `cuda` for the first GPU, or `cuda:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceName(Device);

impl FromStr for DeviceName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let number = match name {
            "cpu" => return Ok(Self(Device::Cpu)),
            "cuda" => Some(0),
            other => other.strip_prefix("cuda:").and_then(|number| number.parse().ok()),
        };
        number
            .map(|number| Self(Device::Cuda(number)))
            .ok_or_else(|| "write cpu, cuda or cuda:N".to_owned())
    }
}

impl DeviceName {
    pub fn is_cuda(self) -> bool {
        self.0.is_cuda()
    }

    /// Makes the device usable; must precede every other call of libtorch.
    pub fn open(self) -> Result<Device> {
        let Device::Cuda(number) = self.0 else { return Ok(self.0) };
        // SAFETY: the initializers of libtorch's library only register its kernels, and it is never closed.
        let library = unsafe { Library::open(Some(LIBRARY), RTLD_NOW | RTLD_GLOBAL) };
        let library = library.with_context(|| {
            format!("cannot open {LIBRARY} of libtorch 2.11.0, which --device cuda needs: run `cargo xtask setup --cuda` to fetch it")
        })?;
        std::mem::forget(library);
        let count = tch::Cuda::device_count();
        ensure!(count > 0, "libtorch finds no NVIDIA GPU, or no driver for it");
        if number as i64 >= count {
            bail!("--device cuda:{number}: this machine has {count} GPUs, numbered from 0");
        }
        Ok(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names_are_parsed() {
        let read = |name: &str| name.parse::<DeviceName>().ok().map(|name| name.0);
        assert_eq!(read("cpu"), Some(Device::Cpu));
        assert_eq!(read("cuda"), Some(Device::Cuda(0)));
        assert_eq!(read("cuda:3"), Some(Device::Cuda(3)));
        assert_eq!([read("gpu"), read("cuda:"), read("cuda:-1")], [None; 3]);
    }
}
