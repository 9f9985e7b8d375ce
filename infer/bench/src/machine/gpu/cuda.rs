//! Which GPU is `cuda:N`. NVML numbers all GPUs of a machine in the order of the PCI bus; CUDA those that a process may see, in
//! an order of its own: <https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/environment-variables.html>.

use super::Gpu;

/// What the environment says about CUDA's numbers.
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

    /// The places of `cuda:0`, `cuda:1` and so on, and how that is known; or why it is not.
    pub(super) fn give(&self, gpus: &[Gpu]) -> Result<(Vec<usize>, String), String> {
        if gpus.iter().any(|gpu| gpu.mig == Some(true)) {
            return Err(
                "a GPU is divided into instances (MIG), which CUDA numbers instead".to_owned()
            );
        }
        let order = self.order(gpus);
        let Some(visible) = &self.visible else {
            return order.map(|(places, how)| (places, how.to_owned()));
        };
        let mut places = Vec::new();
        let mut how = "by the UUIDs of CUDA_VISIBLE_DEVICES";
        for entry in visible.split(',').map(str::trim) {
            let place = if entry.starts_with("GPU-") {
                // A beginning is enough where only one GPU has it.
                let mut named = (0..gpus.len()).filter(|&place| {
                    gpus[place].uuid.as_ref().is_some_and(|uuid| uuid.starts_with(entry))
                });
                named.next().filter(|_| named.next().is_none())
            } else if entry.starts_with("MIG-") {
                return Err("CUDA_VISIBLE_DEVICES names instances of GPUs (MIG)".to_owned());
            } else {
                let (order, known) = order.as_ref().map_err(Clone::clone)?;
                how = known;
                entry.parse().ok().and_then(|number: usize| order.get(number).copied())
            };
            // Of an entry that names no GPU and of all after it, CUDA sees nothing.
            let Some(place) = place else { break };
            if places.contains(&place) {
                return Err("CUDA_VISIBLE_DEVICES names a GPU twice".to_owned());
            }
            places.push(place);
        }
        let how = if how.starts_with("by the UUIDs") {
            how.to_owned()
        } else {
            format!("by CUDA_VISIBLE_DEVICES, {how}")
        };
        Ok((places, how))
    }

    /// The places of all GPUs in CUDA's order.
    fn order(&self, gpus: &[Gpu]) -> Result<(Vec<usize>, &'static str), String> {
        let mut places: Vec<usize> = (0..gpus.len()).collect();
        if gpus.len() == 1 {
            return Ok((places, "there is only one GPU"));
        }
        let by_bus = self.order.as_deref() == Some("PCI_BUS_ID");
        let alike = gpus.iter().all(|gpu| gpu.name.is_some() && gpu.name == gpus[0].name);
        if !by_bus && !alike {
            return Err("the GPUs differ, and CUDA puts the fastest first; set CUDA_DEVICE_ORDER=PCI_BUS_ID".to_owned());
        }
        if gpus.iter().any(|gpu| gpu.bus.is_none()) {
            return Err("the driver does not tell the places of all GPUs on the PCI bus".to_owned());
        }
        // Written with as many digits each, so that they sort as numbers do.
        places.sort_by(|&one, &other| gpus[one].bus.cmp(&gpus[other].bus));
        let how = if by_bus {
            "in the order of the PCI bus, as CUDA_DEVICE_ORDER says"
        } else {
            "taken to be in the order of the PCI bus, as all GPUs are alike"
        };
        Ok((places, how))
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

    fn places(
        names: &[&str],
        visible: Option<&str>,
        order: Option<&str>,
    ) -> Result<Vec<usize>, String> {
        let numbers =
            CudaOrdinals { visible: visible.map(str::to_owned), order: order.map(str::to_owned) };
        numbers.give(&gpus(names)).map(|(places, _)| places)
    }

    #[test]
    fn without_a_list_the_order_decides() {
        let (alike, unlike) = (["L4"; 3], ["L4", "T4", "L4"]);
        assert_eq!(places(&["L4"], None, None), Ok(vec![0]));
        // The driver of these lists the bus backwards.
        assert_eq!(places(&alike, None, None), Ok(vec![2, 1, 0]));
        assert_eq!(places(&unlike, None, Some("PCI_BUS_ID")), Ok(vec![2, 1, 0]));
        assert!(places(&unlike, None, None).unwrap_err().contains("CUDA_DEVICE_ORDER"));
        assert!(places(&unlike, None, Some("FASTEST_FIRST")).is_err());
        let mut divided = gpus(&["L4"]);
        divided[0].mig = Some(true);
        assert!(CudaOrdinals::default().give(&divided).unwrap_err().contains("MIG"));
        let mut hidden = gpus(&alike);
        hidden[1].bus = None;
        assert!(CudaOrdinals::default().give(&hidden).unwrap_err().contains("PCI bus"));
    }

    #[test]
    fn a_list_names_what_is_seen() {
        let alike = ["L4"; 3];
        assert_eq!(places(&alike, Some("2, 0"), None), Ok(vec![0, 2]));
        assert_eq!(places(&alike, Some("0,7,1"), None), Ok(vec![2]));
        for none in ["", "-1", "NoDevFiles", "-1,0"] {
            assert_eq!(places(&alike, Some(none), None), Ok(Vec::new()), "{none}");
        }
        // UUIDs need no order; a beginning that two have names none.
        let unlike = ["L4", "T4", "L4"];
        assert_eq!(places(&unlike, Some("GPU-b2,GPU-a0"), None), Ok(vec![2, 0]));
        assert_eq!(places(&unlike, Some("GPU-b,GPU-a"), None), Ok(vec![2]));
        assert!(places(&unlike, Some("GPU-b,0"), None).unwrap_err().contains("CUDA_DEVICE_ORDER"));
        assert!(places(&alike, Some("0,0"), None).unwrap_err().contains("twice"));
        assert!(places(&alike, Some("MIG-7"), None).unwrap_err().contains("MIG"));
        let how = CudaOrdinals { visible: Some("GPU-a0".to_owned()), order: None }
            .give(&gpus(&unlike))
            .unwrap()
            .1;
        assert!(how.contains("UUIDs"), "{how}");
    }
}
