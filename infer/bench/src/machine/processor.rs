//! Facts of the processor from `/proc/cpuinfo` and sysfs.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The processor. Facts that the system does not report are `None`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Processor {
    /// All names where cores are of several kinds.
    pub name: Option<String>,
    /// Logical cores that this process may use.
    pub cores: usize,
    /// Extensions that matter for convolutions, by their usual names.
    pub vector_extensions: Vec<String>,
    pub sockets: Option<usize>,
    /// Of all sockets.
    pub physical_cores: Option<usize>,
    /// Of all cores.
    pub threads: Option<usize>,
    /// Time in cores that the quota of the control group allows.
    pub quota: Option<f64>,
    /// Frequency governor of the first core.
    pub governor: Option<String>,
    /// Current frequency of the first core in MHz.
    pub mhz: Option<f64>,
    /// Maximum frequency of the first core in MHz.
    pub max_mhz: Option<f64>,
}

/// Features in `/proc/cpuinfo` on ARM, and their usual names.
const ARM: [(&str, &str); 5] =
    [("asimd", "neon"), ("asimddp", "dotprod"), ("i8mm", "i8mm"), ("sve", "sve"), ("sve2", "sve2")];

impl Processor {
    /// Facts from the files below a root, without those of this process.
    pub(super) fn from_root(root: &Path) -> Self {
        let read = |file: &str| std::fs::read_to_string(root.join(file)).ok();
        let scaling = |file: &str| read(&format!("sys/devices/system/cpu/cpu0/cpufreq/{file}"));
        let mhz = |file: &str| {
            let kilohertz: f64 = scaling(file)?.trim().parse().ok()?;
            Some(kilohertz / 1000.0)
        };
        let info = Self::from_cpuinfo(&read("proc/cpuinfo").unwrap_or_default());
        let governor = scaling("scaling_governor").map(|name| name.trim().to_owned());
        Self {
            governor: governor.filter(|name| !name.is_empty()),
            mhz: mhz("scaling_cur_freq").or(info.mhz),
            max_mhz: mhz("cpuinfo_max_freq"),
            ..info
        }
    }

    fn from_cpuinfo(cpuinfo: &str) -> Self {
        fn fields<'a>(text: &'a str, name: &'static str) -> impl Iterator<Item = &'a str> {
            text.lines().filter_map(move |line| {
                let (key, value) = line.split_once(':')?;
                (key.trim() == name).then_some(value.trim())
            })
        }
        let all = |name| fields(cpuinfo, name);
        let distinct: BTreeSet<&str> = all("model name").filter(|name| !name.is_empty()).collect();
        let mut names: Vec<String> = distinct.into_iter().map(str::to_owned).collect();
        if names.is_empty() {
            // 64-bit ARM reports numbers that stand in the manuals of the designers.
            let parts: BTreeSet<(&str, &str)> =
                all("CPU implementer").zip(all("CPU part")).collect();
            names.extend(
                parts
                    .into_iter()
                    .map(|(designer, part)| format!("ARM core {part} of designer {designer}")),
            );
        }
        let sockets: BTreeSet<&str> = all("physical id").collect();
        // A paragraph for each thread names its socket and its core in that.
        let cores: BTreeSet<(&str, &str)> = cpuinfo
            .split("\n\n")
            .filter_map(|thread| {
                let socket = fields(thread, "physical id").next()?;
                Some((socket, fields(thread, "core id").next()?))
            })
            .collect();
        let threads = all("processor").filter(|number| number.parse::<usize>().is_ok()).count();
        let features: BTreeSet<&str> = all("Features").flat_map(str::split_whitespace).collect();
        let extensions = ARM.into_iter().filter(|(feature, _)| features.contains(feature));
        let nonzero = |count: usize| Some(count).filter(|&count| count > 0);
        Self {
            name: Some(names.join(" + ")).filter(|names| !names.is_empty()),
            vector_extensions: extensions.map(|(_, name)| name.to_owned()).collect(),
            sockets: nonzero(sockets.len()),
            physical_cores: nonzero(cores.len()),
            threads: nonzero(threads),
            mhz: all("cpu MHz").next().and_then(|mhz| mhz.parse().ok()),
            ..Self::default()
        }
    }
}

/// Extensions that the standard library detects, by their usual names.
pub(super) fn vector_extensions() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    let known = [
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("fma", std::arch::is_x86_feature_detected!("fma")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
        ("avx512vnni", std::arch::is_x86_feature_detected!("avx512vnni")),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let known = [];
    known.into_iter().filter_map(|(name, there): (&str, bool)| there.then_some(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use protoseg_images::testing::tree;

    /// `/proc/cpuinfo` on x86 of these threads: name, socket and core.
    fn threads(all: &[(&str, usize, usize)]) -> String {
        let block = |(number, (name, package, core)): (usize, &(&str, usize, usize))| {
            format!(
                "processor\t: {number}\nmodel name\t: {name}\ncpu MHz\t\t: 1200.5\nphysical id\t: {package}\ncore id\t\t: {core}\n\n"
            )
        };
        all.iter().enumerate().map(block).collect()
    }

    #[test]
    fn sockets_cores_and_threads_are_counted() {
        let counts = |processor: &Processor| {
            [processor.sockets, processor.physical_cores, processor.threads]
        };
        // Core numbers repeat in the second socket.
        let two: Vec<_> = (0..8).map(|thread| ("Xeon", thread / 4, thread / 2 % 2)).collect();
        let two = Processor::from_cpuinfo(&threads(&two));
        assert_eq!(
            (counts(&two), two.name.as_deref(), two.mhz),
            ([2, 4, 8].map(Some), Some("Xeon"), Some(1200.5))
        );
        // Two threads on each large core, one on each small one.
        let hybrid = Processor::from_cpuinfo(&threads(&[
            ("i5", 0, 0),
            ("i5", 0, 0),
            ("i5", 0, 4),
            ("i5", 0, 8),
            ("i5", 0, 9),
        ]));
        assert_eq!(counts(&hybrid), [1, 4, 5].map(Some));
    }

    #[test]
    fn arm_cores_are_named_by_number() {
        let block = |number: usize, part: &str| {
            format!(
                "processor\t: {number}\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd asimddp crc32 sve\nCPU implementer\t: 0x41\nCPU part\t: {part}\n\n"
            )
        };
        let arm = Processor::from_cpuinfo(
            &[block(0, "0xd05"), block(1, "0xd05"), block(2, "0xd0b")].concat(),
        );
        let name = "ARM core 0xd05 of designer 0x41 + ARM core 0xd0b of designer 0x41";
        assert_eq!(
            (arm.name.as_deref(), arm.threads, arm.physical_cores),
            (Some(name), Some(3), None)
        );
        assert_eq!(arm.vector_extensions, ["neon", "dotprod", "sve"]);
        // 32-bit ARM has a line `Processor` with the name beside the numbered ones.
        let old = Processor::from_cpuinfo(
            "Processor\t: ARMv7 rev 4\nprocessor\t: 0\nprocessor\t: 1\n\nmodel name\t: ARMv7 rev 4 (v7l)\n",
        );
        assert_eq!((old.name.as_deref(), old.threads), (Some("ARMv7 rev 4 (v7l)"), Some(2)));
    }

    #[test]
    fn frequencies_are_those_of_the_first_core() {
        let root = tree(&[
            ("proc/cpuinfo", &threads(&[("Xeon", 0, 0)])),
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n"),
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "2500000\n"),
            ("sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq", "3700000\n"),
        ])
        .unwrap();
        let found = Processor::from_root(root.path());
        assert_eq!(
            (found.governor.as_deref(), found.mhz, found.max_mhz),
            (Some("performance"), Some(2500.0), Some(3700.0))
        );
        assert_eq!(Processor::from_root(tree(&[]).unwrap().path()), Processor::default());
        let empty = tree(&[
            ("proc/cpuinfo", ""),
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "\n"),
        ])
        .unwrap();
        assert_eq!(Processor::from_root(empty.path()), Processor::default());
        let nonsense = tree(&[(
            "proc/cpuinfo",
            ":\n: :\nmodel name\nmodel name:\nprocessor: x\ncpu MHz: fast\n\n\n\n",
        )])
        .unwrap();
        assert_eq!(Processor::from_root(nonsense.path()), Processor::default());
    }
}
