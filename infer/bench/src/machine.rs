//! Facts of this machine for reports: processor, GPUs, clocks, virtual machine, container and
//! control-group limits.

pub mod gpu;
mod processor;

use std::path::Path;

use protoseg_infer::machine::{Memory, cgroup_quota, cores};
use protoseg_infer::session::{self, Runtime};
use serde::{Deserialize, Serialize};

use self::gpu::Gpus;
pub use self::processor::Processor;
use self::processor::vector_extensions;

/// The machine as this process finds it. Facts that the system does not report are `None`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MachineInfo {
    /// Version of protoseg.
    pub version: String,
    /// ONNX Runtime; `None` where it cannot be loaded.
    pub runtime: Option<Runtime>,
    pub processor: Processor,
    pub memory: Memory,
    /// Name of the operating system.
    pub system: Option<String>,
    /// Release of its kernel.
    pub kernel: Option<String>,
    pub virtual_machine: Option<String>,
    pub container: Option<String>,
    /// Load averages over 1, 5 and 15 minutes.
    pub load: Option<[f64; 3]>,
    pub gpus: Gpus,
}

impl MachineInfo {
    /// Current facts; loads ONNX Runtime unless that has happened.
    pub fn now() -> Self {
        let mut info = Self::from_root(Path::new("/"));
        info.runtime = session::runtime().ok();
        info.gpus = Gpus::now();
        info.processor.cores = cores();
        info.processor.vector_extensions.extend(vector_extensions().into_iter().map(str::to_owned));
        if info.container.is_none() && std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
            info.container = Some("kubernetes".to_owned());
        }
        info
    }

    /// Facts from the files below a root.
    fn from_root(root: &Path) -> Self {
        let read = |file: &str| std::fs::read_to_string(root.join(file)).ok();
        let own_groups = read("proc/self/cgroup").unwrap_or_default();
        let mounted = root.join("sys/fs/cgroup");
        let meminfo = read("proc/meminfo").unwrap_or_default();
        let quota = cgroup_quota(&own_groups, &mounted);
        let os_release = read("etc/os-release").or_else(|| read("usr/lib/os-release"));
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            runtime: None,
            processor: Processor { quota, ..Processor::from_root(root) },
            memory: Memory::parse(&meminfo, &own_groups, &mounted),
            system: os_release.and_then(|text| system_name(&text)),
            kernel: read("proc/sys/kernel/osrelease")
                .map(|text| text.trim().to_owned())
                .filter(|text| !text.is_empty()),
            virtual_machine: virtual_machine(root),
            container: container(root),
            load: read("proc/loadavg").and_then(|text| load_averages(&text)),
            gpus: Gpus::default(),
        }
    }
}

/// The name in a file `os-release`.
fn system_name(text: &str) -> Option<String> {
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let name = value("PRETTY_NAME").or_else(|| value("NAME"))?.trim().trim_matches(['"', '\'']);
    Some(name.to_owned()).filter(|name| !name.is_empty())
}

fn load_averages(text: &str) -> Option<[f64; 3]> {
    let mut numbers = text.split_whitespace().map(|number| number.parse().ok());
    Some([numbers.next()??, numbers.next()??, numbers.next()??])
}

/// Detects a hypervisor by the processor's flag on x86, Xen's file, or the board's maker. The maker
/// alone is no proof, as clouds rent whole machines too.
fn virtual_machine(root: &Path) -> Option<String> {
    let read =
        |file: &str| std::fs::read_to_string(root.join(file)).unwrap_or_default().trim().to_owned();
    let vendor = read("sys/class/dmi/id/sys_vendor");
    let product = read("sys/class/dmi/id/product_name");
    let board = format!("{vendor} {product}").trim().to_owned();
    let kind = read("sys/hypervisor/type");
    let is_flagged = read("proc/cpuinfo")
        .lines()
        .filter(|line| line.starts_with("flags"))
        .flat_map(str::split_whitespace)
        .any(|flag| flag == "hypervisor");
    let is_virtual_board = ["KVM", "QEMU", "VMware", "VirtualBox", "Virtual Machine"]
        .iter()
        .any(|name| board.contains(name));
    if !is_flagged && !is_virtual_board && kind.is_empty() {
        return None;
    }
    let name = [board, kind].into_iter().find(|name| !name.is_empty());
    Some(name.unwrap_or_else(|| "a hypervisor that gives no name".to_owned()))
}

fn container(root: &Path) -> Option<String> {
    let read = |file: &str| std::fs::read_to_string(root.join(file)).unwrap_or_default();
    let systemd = read("run/systemd/container").trim().to_owned();
    if !systemd.is_empty() {
        return Some(systemd);
    }
    let groups = read("proc/1/cgroup");
    let runtimes =
        [("kubepods", "kubernetes"), ("docker", "docker"), ("libpod", "podman"), ("lxc", "lxc")];
    let by_group = runtimes.into_iter().find(|(part, _)| groups.contains(part));
    let by_file = [("run/.containerenv", "podman"), (".dockerenv", "docker")]
        .into_iter()
        .find(|(file, _)| root.join(file).exists());
    by_group.or(by_file).map(|(_, name)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use protoseg_images::testing::tree;

    use super::*;

    #[test]
    fn facts_are_read_from_system_files() {
        let root = tree(&[
            ("proc/cpuinfo", "processor : 0\nmodel name : Xeon\nflags : fpu hypervisor avx2\n"),
            ("proc/meminfo", "MemTotal: 4000 kB\nMemAvailable: 3000 kB\n"),
            ("proc/self/cgroup", "0::/job\n"),
            ("proc/1/cgroup", "0::/kubepods/x\n"),
            ("proc/loadavg", "0.50 1.25 2.00 3/105 127\n"),
            ("proc/sys/kernel/osrelease", "6.1.0-x\n"),
            ("etc/os-release", "ID=debian\nNAME=\"Debian\"\nPRETTY_NAME=\"Debian 12\"\n"),
            ("sys/class/dmi/id/sys_vendor", "QEMU\n"),
            ("sys/class/dmi/id/product_name", "Standard PC\n"),
            ("sys/fs/cgroup/job/cpu.max", "250000 100000\n"),
            ("sys/fs/cgroup/job/memory.max", "2048000\n"),
        ])
        .unwrap();
        let info = MachineInfo::from_root(root.path());
        let text = |text: &str| Some(text.to_owned());
        assert_eq!((&info.system, &info.kernel), (&text("Debian 12"), &text("6.1.0-x")));
        assert_eq!(
            (&info.virtual_machine, &info.container),
            (&text("QEMU Standard PC"), &text("kubernetes"))
        );
        assert_eq!((info.load, info.processor.quota), (Some([0.5, 1.25, 2.0]), Some(2.5)));
        assert_eq!(
            info.memory,
            Memory { machine: Some(4_096_000), limit: Some(2_048_000), available: Some(2_048_000) }
        );
        let written = serde_json::to_string(&info).unwrap();
        assert_eq!(serde_json::from_str::<MachineInfo>(&written).unwrap(), info);
    }

    #[test]
    fn missing_facts_are_none() {
        let files = [
            "proc/cpuinfo",
            "proc/meminfo",
            "proc/self/cgroup",
            "proc/1/cgroup",
            "proc/loadavg",
            "etc/os-release",
        ];
        let empty: Vec<(&str, &str)> = files.into_iter().map(|file| (file, "")).collect();
        for root in [tree(&[]).unwrap(), tree(&empty).unwrap()] {
            let MachineInfo {
                processor,
                memory,
                system,
                kernel,
                virtual_machine,
                container,
                load,
                ..
            } = MachineInfo::from_root(root.path());
            assert_eq!((processor, memory, load), (Processor::default(), Memory::default(), None));
            assert_eq!([system, kernel, virtual_machine, container], [const { None }; 4]);
        }
    }

    #[test]
    fn containers_and_hypervisors_are_detected() {
        let found = |files: &[(&str, &str)]| {
            let root = tree(files).unwrap();
            (virtual_machine(root.path()), container(root.path()))
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(found(&[(".dockerenv", "")]), (None, text("docker")));
        assert_eq!(found(&[("run/.containerenv", "")]), (None, text("podman")));
        assert_eq!(
            found(&[("run/systemd/container", "systemd-nspawn\n")]),
            (None, text("systemd-nspawn"))
        );
        assert_eq!(found(&[("sys/hypervisor/type", "xen\n")]), (text("xen"), None));
        assert_eq!(
            found(&[("proc/cpuinfo", "flags\t: hypervisor\n")]).0,
            text("a hypervisor that gives no name")
        );
        assert_eq!(
            found(&[("sys/class/dmi/id/product_name", "KVM Virtual Machine")]).0,
            text("KVM Virtual Machine")
        );
        assert_eq!(found(&[("sys/class/dmi/id/sys_vendor", "Amazon EC2")]), (None, None));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_has_cores_and_a_kernel() {
        let info = MachineInfo::now();
        assert!(
            info.processor.cores >= 1 && info.processor.threads.is_none_or(|threads| threads >= 1),
            "{info:?}"
        );
        assert!(info.kernel.is_some() && info.memory.limit.is_some(), "{info:?}");
    }
}
