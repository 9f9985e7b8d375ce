//! Which GPU is `cuda:N`. NVML numbers all GPUs of a machine by the PCI bus; CUDA those that a
//! process may see, in an order of its own:
//! <https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/environment-variables.html>.

use super::Gpu;

/// Environment variables that decide CUDA's numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct CudaOrdinals {
    /// `CUDA_VISIBLE_DEVICES`.
    pub(super) visible: Option<String>,
    /// `CUDA_DEVICE_ORDER`.
    pub(super) order: Option<String>,
}

impl CudaOrdinals {
    pub(super) fn from_environment() -> Self {
        let variable =
            |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        Self { visible: variable("CUDA_VISIBLE_DEVICES"), order: variable("CUDA_DEVICE_ORDER") }
    }

    /// The driver's indices of `cuda:0`, `cuda:1` and so on, and how they are known; or why they
    /// are not.
    pub(super) fn indices(&self, gpus: &[Gpu]) -> Result<(Vec<usize>, String), String> {
        if gpus.iter().any(|gpu| gpu.mig == Some(true)) {
            return Err(
                "a GPU is divided into instances (MIG), which CUDA numbers instead".to_owned()
            );
        }
        let order = self.all_in_order(gpus);
        let Some(visible) = &self.visible else {
            return order.map(|(indices, how)| (indices, how.to_owned()));
        };
        let mut indices = Vec::new();
        let mut how = "by the UUIDs of CUDA_VISIBLE_DEVICES".to_owned();
        for entry in visible.split(',').map(str::trim) {
            let index = if entry.starts_with("GPU-") {
                // A unique prefix is enough.
                let mut named = (0..gpus.len()).filter(|&index| {
                    gpus[index].uuid.as_ref().is_some_and(|uuid| uuid.starts_with(entry))
                });
                named.next().filter(|_| named.next().is_none())
            } else if entry.starts_with("MIG-") {
                return Err("CUDA_VISIBLE_DEVICES names instances of GPUs (MIG)".to_owned());
            } else {
                let (order, source) = order.as_ref().map_err(Clone::clone)?;
                how = format!("by CUDA_VISIBLE_DEVICES, {source}");
                entry.parse().ok().and_then(|number: usize| order.get(number).copied())
            };
            // CUDA ignores an entry that names no GPU and all that follow.
            let Some(index) = index else { break };
            if indices.contains(&index) {
                return Err("CUDA_VISIBLE_DEVICES names a GPU twice".to_owned());
            }
            indices.push(index);
        }
        Ok((indices, how))
    }

    /// The driver's indices of all GPUs in CUDA's order.
    fn all_in_order(&self, gpus: &[Gpu]) -> Result<(Vec<usize>, &'static str), String> {
        let mut indices: Vec<usize> = (0..gpus.len()).collect();
        if gpus.len() == 1 {
            return Ok((indices, "there is only one GPU"));
        }
        let by_bus = self.order.as_deref() == Some("PCI_BUS_ID");
        let is_uniform = gpus.iter().all(|gpu| gpu.name.is_some() && gpu.name == gpus[0].name);
        if !by_bus && !is_uniform {
            return Err("the GPUs differ, and CUDA puts the fastest first; set \
                        CUDA_DEVICE_ORDER=PCI_BUS_ID"
                .to_owned());
        }
        if gpus.iter().any(|gpu| gpu.bus.is_none()) {
            return Err("the driver does not report all addresses on the PCI bus".to_owned());
        }
        // Addresses have a fixed number of digits, so they sort as numbers do.
        indices.sort_by(|&one, &other| gpus[one].bus.cmp(&gpus[other].bus));
        let how = if by_bus {
            "in the order of the PCI bus, as CUDA_DEVICE_ORDER says"
        } else {
            "assumed to be in the order of the PCI bus, as all GPUs are alike"
        };
        Ok((indices, how))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpus(names: &[&str]) -> Vec<Gpu> {
        let gpu = |(index, name): (usize, &&str)| Gpu {
            name: Some((*name).to_owned()),
            uuid: Some(format!("GPU-{}{index}", if index < 2 { "a" } else { "b" })),
            bus: Some(format!("00000000:{:02X}:00.0", 0xF0 - index * 0x10)),
            ..Gpu::default()
        };
        names.iter().enumerate().map(gpu).collect()
    }

    fn indices(
        names: &[&str],
        visible: Option<&str>,
        order: Option<&str>,
    ) -> Result<Vec<usize>, String> {
        let ordinals =
            CudaOrdinals { visible: visible.map(str::to_owned), order: order.map(str::to_owned) };
        ordinals.indices(&gpus(names)).map(|(indices, _)| indices)
    }

    #[test]
    fn without_a_list_the_order_decides() {
        let (alike, unlike) = (["L4"; 3], ["L4", "T4", "L4"]);
        assert_eq!(indices(&["L4"], None, None), Ok(vec![0]));
        // This driver lists the bus backwards.
        assert_eq!(indices(&alike, None, None), Ok(vec![2, 1, 0]));
        assert_eq!(indices(&unlike, None, Some("PCI_BUS_ID")), Ok(vec![2, 1, 0]));
        assert!(indices(&unlike, None, None).unwrap_err().contains("CUDA_DEVICE_ORDER"));
        assert!(indices(&unlike, None, Some("FASTEST_FIRST")).is_err());
        let mut divided = gpus(&["L4"]);
        divided[0].mig = Some(true);
        assert!(CudaOrdinals::default().indices(&divided).unwrap_err().contains("MIG"));
        let mut hidden = gpus(&alike);
        hidden[1].bus = None;
        assert!(CudaOrdinals::default().indices(&hidden).unwrap_err().contains("PCI bus"));
    }

    #[test]
    fn visible_devices_select_gpus() {
        let alike = ["L4"; 3];
        assert_eq!(indices(&alike, Some("2, 0"), None), Ok(vec![0, 2]));
        assert_eq!(indices(&alike, Some("0,7,1"), None), Ok(vec![2]));
        for none in ["", "-1", "NoDevFiles", "-1,0"] {
            assert_eq!(indices(&alike, Some(none), None), Ok(Vec::new()), "{none}");
        }
        // UUIDs need no order; an ambiguous prefix names none.
        let unlike = ["L4", "T4", "L4"];
        assert_eq!(indices(&unlike, Some("GPU-b2,GPU-a0"), None), Ok(vec![2, 0]));
        assert_eq!(indices(&unlike, Some("GPU-b,GPU-a"), None), Ok(vec![2]));
        assert!(indices(&unlike, Some("GPU-b,0"), None).unwrap_err().contains("CUDA_DEVICE_ORDER"));
        assert!(indices(&alike, Some("0,0"), None).unwrap_err().contains("twice"));
        assert!(indices(&alike, Some("MIG-7"), None).unwrap_err().contains("MIG"));
        let how = CudaOrdinals { visible: Some("GPU-a0".to_owned()), order: None }
            .indices(&gpus(&unlike))
            .unwrap()
            .1;
        assert!(how.contains("UUIDs"), "{how}");
    }
}
