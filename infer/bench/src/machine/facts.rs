//! What a measurement must say of the machine that it was made on.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Processor;
use super::gpu::Gpus;
use super::processor::vector_extensions;
use protoseg_infer::machine::{Memory, cores, groups};
use protoseg_infer::session::{self, Runtime};

/// The machine as this process finds it. What the system does not tell is none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MachineInfo {
    /// Version of protoseg.
    pub version: String,
    /// ONNX Runtime; none where it cannot be loaded.
    pub runtime: Option<Runtime>,
    /// The processor.
    pub processor: Processor,
    /// Memory when this was asked.
    pub memory: Memory,
    /// The operating system.
    pub system: Option<String>,
    /// Release of its kernel.
    pub kernel: Option<String>,
    /// What makes the machine a virtual one.
    pub virtual_machine: Option<String>,
    /// What holds this process in a container.
    pub container: Option<String>,
    /// Threads that ran or waited to run when this was asked, on average over the last minute, 5 and 15 minutes.
    pub load: Option<[f64; 3]>,
    /// GPUs of NVIDIA when this was asked.
    pub gpus: Gpus,
}

impl MachineInfo {
    /// What holds now; loads ONNX Runtime, if that has not happened yet.
    pub fn now() -> Self {
        let mut facts = Self::from_root(Path::new("/"));
        facts.runtime = session::runtime().ok();
        facts.gpus = Gpus::now();
        facts.processor.cores = cores();
        facts
            .processor
            .vector_extensions
            .extend(vector_extensions().into_iter().map(str::to_owned));
        if facts.container.is_none() && std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
            facts.container = Some("kubernetes".to_owned());
        }
        facts
    }

    /// What the files below a root tell.
    fn from_root(root: &Path) -> Self {
        let read = |file: &str| std::fs::read_to_string(root.join(file)).ok();
        let line = |file: &str| Some(read(file)?.trim().to_owned()).filter(|text| !text.is_empty());
        let (own, mounted) =
            (read("proc/self/cgroup").unwrap_or_default(), root.join("sys/fs/cgroup"));
        let quota = groups::quota(&own, &mounted);
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            runtime: None,
            processor: Processor { quota, ..Processor::from_root(root) },
            memory: Memory::parse(&read("proc/meminfo").unwrap_or_default(), &own, &mounted),
            system: read("etc/os-release")
                .or_else(|| read("usr/lib/os-release"))
                .and_then(|text| system(&text)),
            kernel: line("proc/sys/kernel/osrelease"),
            virtual_machine: virtual_machine(root),
            container: container(root),
            load: read("proc/loadavg").and_then(|text| load(&text)),
            gpus: Gpus::default(),
        }
    }
}

/// The name in a file `os-release`.
fn system(text: &str) -> Option<String> {
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let name = value("PRETTY_NAME").or_else(|| value("NAME"))?.trim().trim_matches(['"', '\'']);
    Some(name.to_owned()).filter(|name| !name.is_empty())
}

fn load(text: &str) -> Option<[f64; 3]> {
    let mut numbers = text.split_whitespace().map(|number| number.parse().ok());
    Some([numbers.next()??, numbers.next()??, numbers.next()??])
}

/// What a hypervisor makes itself known by: a flag of the processor on x86, a file of Xen, the board's maker. A maker alone
/// tells nothing, as clouds rent whole machines too.
fn virtual_machine(root: &Path) -> Option<String> {
    let read = |file: &str| std::fs::read_to_string(root.join(file)).unwrap_or_default();
    let board = ["sys_vendor", "product_name"]
        .map(|file| read(&format!("sys/class/dmi/id/{file}")).trim().to_owned());
    let board = board.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    let kind = read("sys/hypervisor/type").trim().to_owned();
    let information = read("proc/cpuinfo");
    let mut flags = information
        .lines()
        .filter(|line| line.starts_with("flags"))
        .flat_map(str::split_whitespace);
    let virtual_board = ["KVM", "QEMU", "VMware", "VirtualBox", "Virtual Machine"]
        .iter()
        .any(|name| board.contains(name));
    let told = flags.any(|flag| flag == "hypervisor") || !kind.is_empty() || virtual_board;
    let names = [board, kind].into_iter().find(|name| !name.is_empty());
    told.then(|| names.unwrap_or_else(|| "a hypervisor that gives no name".to_owned()))
}

/// What containers leave where they begin.
fn container(root: &Path) -> Option<String> {
    let there = |file: &str| root.join(file).exists();
    let named = std::fs::read_to_string(root.join("run/systemd/container"))
        .unwrap_or_default()
        .trim()
        .to_owned();
    let groups = std::fs::read_to_string(root.join("proc/1/cgroup")).unwrap_or_default();
    let grouped =
        [("kubepods", "kubernetes"), ("docker", "docker"), ("libpod", "podman"), ("lxc", "lxc")];
    if !named.is_empty() {
        Some(named)
    } else if let Some((_, name)) = grouped.into_iter().find(|(part, _)| groups.contains(part)) {
        Some(name.to_owned())
    } else if there("run/.containerenv") {
        Some("podman".to_owned())
    } else {
        there(".dockerenv").then(|| "docker".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::tree;
    use super::*;

    #[test]
    fn a_machine_tells_what_it_is() {
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
        ]);
        let facts = MachineInfo::from_root(root.path());
        let text = |text: &str| Some(text.to_owned());
        assert_eq!((&facts.system, &facts.kernel), (&text("Debian 12"), &text("6.1.0-x")));
        assert_eq!(
            (&facts.virtual_machine, &facts.container),
            (&text("QEMU Standard PC"), &text("kubernetes"))
        );
        assert_eq!((facts.load, facts.processor.quota), (Some([0.5, 1.25, 2.0]), Some(2.5)));
        assert_eq!(
            facts.memory,
            Memory { machine: Some(4_096_000), limit: Some(2_048_000), available: Some(2_048_000) }
        );
        let written = serde_json::to_string(&facts).unwrap();
        assert_eq!(serde_json::from_str::<MachineInfo>(&written).unwrap(), facts);
    }

    #[test]
    fn what_is_not_told_is_none() {
        let files = [
            "proc/cpuinfo",
            "proc/meminfo",
            "proc/self/cgroup",
            "proc/1/cgroup",
            "proc/loadavg",
            "etc/os-release",
        ];
        let empty: Vec<(&str, &str)> = files.into_iter().map(|file| (file, "")).collect();
        for root in [tree(&[]), tree(&empty)] {
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
    fn containers_and_hypervisors_are_known_by_what_they_leave() {
        let found = |files: &[(&str, &str)]| {
            let root = tree(files);
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
        let facts = MachineInfo::now();
        assert!(
            facts.processor.cores >= 1
                && facts.processor.threads.is_none_or(|threads| threads >= 1),
            "{facts:?}"
        );
        assert!(facts.kernel.is_some() && facts.memory.limit.is_some(), "{facts:?}");
    }
}
