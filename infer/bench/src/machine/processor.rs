//! The processor: what it is, as the system tells it, and what of it this process may use.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The processor, as far as the system tells.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Processor {
    /// Its name; of cores of several kinds, all names.
    pub name: Option<String>,
    /// Cores that this process may use, of those that the system calls threads.
    pub cores: usize,
    /// Vector extensions that matter for convolutions, by their usual names.
    pub vector_extensions: Vec<String>,
    /// Packages on the board.
    pub sockets: Option<usize>,
    /// Cores of all packages.
    pub physical_cores: Option<usize>,
    /// Threads of all cores.
    pub threads: Option<usize>,
    /// Cores' worth of time that a quota of control groups leaves this process; none without a quota.
    pub quota: Option<f64>,
    /// What sets the frequency of the first core.
    pub governor: Option<String>,
    /// Frequency of the first core now, in MHz.
    pub mhz: Option<f64>,
    /// The most that it may have, in MHz.
    pub max_mhz: Option<f64>,
}

/// Words of `/proc/cpuinfo` on ARM, and what they are usually called.
const ARM: [(&str, &str); 5] =
    [("asimd", "neon"), ("asimddp", "dotprod"), ("i8mm", "i8mm"), ("sve", "sve"), ("sve2", "sve2")];

impl Processor {
    /// What the files below a root tell, but for what this process may use.
    pub(super) fn from_root(root: &Path) -> Self {
        let read = |file: &str| std::fs::read_to_string(root.join(file)).ok();
        let frequency = |file: &str| {
            let kilohertz: f64 = read(&format!("sys/devices/system/cpu/cpu0/cpufreq/{file}"))?
                .trim()
                .parse()
                .ok()?;
            Some(kilohertz / 1000.0)
        };
        let information = Self::told(&read("proc/cpuinfo").unwrap_or_default());
        let governor = read("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
            .map(|name| name.trim().to_owned());
        Self {
            governor: governor.filter(|name| !name.is_empty()),
            mhz: frequency("scaling_cur_freq").or(information.mhz),
            max_mhz: frequency("cpuinfo_max_freq"),
            ..information
        }
    }

    /// What `/proc/cpuinfo` tells.
    fn told(information: &str) -> Self {
        let fields = |name: &'static str| {
            information.lines().filter_map(move |line| {
                let (key, value) = line.split_once(':')?;
                (key.trim() == name).then_some(value.trim())
            })
        };
        let named: BTreeSet<&str> = fields("model name").filter(|name| !name.is_empty()).collect();
        let mut names: Vec<String> = named.into_iter().map(str::to_owned).collect();
        if names.is_empty() {
            // 64-bit ARM tells numbers, which stand in the manuals of its designers.
            let kinds = fields("CPU implementer").zip(fields("CPU part"));
            let kinds: BTreeSet<(&str, &str)> = kinds.collect();
            names.extend(
                kinds
                    .into_iter()
                    .map(|(designer, part)| format!("ARM core {part} of designer {designer}")),
            );
        }
        // A block for each thread: its package, and its core in that.
        let packages: BTreeSet<&str> = fields("physical id").collect();
        let blocks = information.split("\n\n").filter_map(|block| {
            let field = |name: &str| {
                let fields = block.lines().filter_map(|line| line.split_once(':'));
                fields
                    .into_iter()
                    .find(|(key, _)| key.trim() == name)
                    .map(|(_, value)| value.trim())
            };
            Some((field("physical id")?, field("core id")?))
        });
        let cores: BTreeSet<(&str, &str)> = blocks.collect();
        let some = |count: usize| Some(count).filter(|&count| count > 0);
        let words: BTreeSet<&str> = fields("Features").flat_map(str::split_whitespace).collect();
        let known = ARM.into_iter().filter(|(word, _)| words.contains(word));
        Self {
            name: Some(names.join(" + ")).filter(|names| !names.is_empty()),
            vector_extensions: known.map(|(_, name)| name.to_owned()).collect(),
            sockets: some(packages.len()),
            physical_cores: some(cores.len()),
            threads: some(
                fields("processor").filter(|number| number.parse::<usize>().is_ok()).count(),
            ),
            mhz: fields("cpu MHz").next().and_then(|mhz| mhz.parse().ok()),
            ..Self::default()
        }
    }
}

/// Vector extensions of the processor that the standard library tells of, by their usual names.
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
    use super::super::tests::tree;
    use super::*;

    /// Blocks of `/proc/cpuinfo` on x86: name, package and core of each thread.
    fn threads(all: &[(&str, usize, usize)]) -> String {
        let block = |(number, (name, package, core)): (usize, &(&str, usize, usize))| {
            format!(
                "processor\t: {number}\nmodel name\t: {name}\ncpu MHz\t\t: 1200.5\nphysical id\t: {package}\ncore id\t\t: {core}\n\n"
            )
        };
        all.iter().enumerate().map(block).collect()
    }

    #[test]
    fn packages_cores_and_threads_are_counted() {
        let counts = |processor: &Processor| {
            [processor.sockets, processor.physical_cores, processor.threads]
        };
        // Core numbers repeat in the second package.
        let two: Vec<_> = (0..8).map(|thread| ("Xeon", thread / 4, thread / 2 % 2)).collect();
        let two = Processor::told(&threads(&two));
        assert_eq!(
            (counts(&two), two.name.as_deref(), two.mhz),
            ([2, 4, 8].map(Some), Some("Xeon"), Some(1200.5))
        );
        // Two threads on each large core, one on each small one.
        let hybrid = Processor::told(&threads(&[
            ("i5", 0, 0),
            ("i5", 0, 0),
            ("i5", 0, 4),
            ("i5", 0, 8),
            ("i5", 0, 9),
        ]));
        assert_eq!(counts(&hybrid), [1, 4, 5].map(Some));
    }

    #[test]
    fn arm_tells_numbers() {
        let block = |number: usize, part: &str| {
            format!(
                "processor\t: {number}\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd asimddp crc32 sve\nCPU implementer\t: 0x41\nCPU part\t: {part}\n\n"
            )
        };
        let arm =
            Processor::told(&[block(0, "0xd05"), block(1, "0xd05"), block(2, "0xd0b")].concat());
        let name = "ARM core 0xd05 of designer 0x41 + ARM core 0xd0b of designer 0x41";
        assert_eq!(
            (arm.name.as_deref(), arm.threads, arm.physical_cores),
            (Some(name), Some(3), None)
        );
        assert_eq!(arm.vector_extensions, ["neon", "dotprod", "sve"]);
        // 32-bit ARM names its threads and, with a capital, what they are.
        let old = Processor::told(
            "Processor\t: ARMv7 rev 4\nprocessor\t: 0\nprocessor\t: 1\n\nmodel name\t: ARMv7 rev 4 (v7l)\n",
        );
        assert_eq!((old.name.as_deref(), old.threads), (Some("ARMv7 rev 4 (v7l)"), Some(2)));
    }

    #[test]
    fn frequencies_are_those_of_the_first_core_and_what_is_missing_is_none() {
        let root = tree(&[
            ("proc/cpuinfo", &threads(&[("Xeon", 0, 0)])),
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n"),
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "2500000\n"),
            ("sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq", "3700000\n"),
        ]);
        let found = Processor::from_root(root.path());
        assert_eq!(
            (found.governor.as_deref(), found.mhz, found.max_mhz),
            (Some("performance"), Some(2500.0), Some(3700.0))
        );
        assert_eq!(Processor::from_root(tree(&[]).path()), Processor::default());
        let empty = tree(&[
            ("proc/cpuinfo", ""),
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "\n"),
        ]);
        assert_eq!(Processor::from_root(empty.path()), Processor::default());
        let nonsense = tree(&[(
            "proc/cpuinfo",
            ":\n: :\nmodel name\nmodel name:\nprocessor: x\ncpu MHz: fast\n\n\n\n",
        )]);
        assert_eq!(Processor::from_root(nonsense.path()), Processor::default());
    }
}
