//! Memory: of the machine, of control groups, and what this process occupies of it.

use std::path::Path;

use super::groups::{self, CgroupVersion};

/// Memory in bytes, as far as the system says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Memory {
    /// What the machine has.
    pub machine: Option<u64>,
    /// The most that this process may use: the machine's, or the least limit of its control groups.
    pub limit: Option<u64>,
    /// What is left of that.
    pub available: Option<u64>,
}

impl Memory {
    /// What holds now.
    pub fn now() -> Self {
        let machine = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self::parse(&machine, &groups, Path::new("/sys/fs/cgroup"))
    }

    /// From the texts of `/proc/meminfo` and `/proc/self/cgroup`, and the folder of control groups.
    pub fn parse(machine: &str, groups: &str, mounted: &Path) -> Self {
        let total = bytes(machine, "MemTotal:");
        let mut memory =
            Self { machine: total, limit: total, available: bytes(machine, "MemAvailable:") };
        for (version, group) in groups::above(groups, mounted, "memory") {
            memory.narrow(
                &group,
                match version {
                    CgroupVersion::First => {
                        ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"]
                    }
                    CgroupVersion::Second => ["memory.max", "memory.current", "inactive_file"],
                },
            );
        }
        memory
    }

    /// Takes the limit of a control group into account. A cache of files gives way, so it does not count as used.
    fn narrow(&mut self, group: &Path, [limit, used, cache]: [&str; 3]) {
        let number =
            |file: &str| std::fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
        let Some(limit) =
            number(limit).filter(|&limit| self.limit.is_none_or(|known| limit < known))
        else {
            return;
        };
        self.limit = Some(limit);
        let statistics = std::fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
        let cached = statistics
            .lines()
            .find_map(|line| line.strip_prefix(cache)?.trim().parse().ok())
            .unwrap_or(0);
        let left = limit.saturating_sub(number(used).unwrap_or(0).saturating_sub(cached));
        self.available = Some(self.available.map_or(left, |available| available.min(left)));
    }
}

/// Bytes of memory that this process occupies now.
pub fn resident() -> Option<u64> {
    bytes(&std::fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// The most bytes of memory that this process occupied at a time, since it began or since [`reset_peak`].
pub fn peak_resident() -> Option<u64> {
    bytes(&std::fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// Lets [`peak_resident`] begin anew from what is occupied now. False where the system does not allow that: then the peak goes
/// on from where it was.
pub fn reset_peak() -> bool {
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// A number of kB in a file of `/proc`, in bytes.
fn bytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::super::tests::tree;
    use super::*;

    const MACHINE: &str = "MemTotal:       16000 kB\nMemFree:  100 kB\nMemAvailable:    8000 kB\n";

    #[test]
    fn the_least_limit_counts() {
        let none = tree(&[]);
        let of = |own: &str, root: &tempfile::TempDir| {
            let Memory { machine, limit, available } = Memory::parse(MACHINE, own, root.path());
            assert_eq!(machine, Some(16000 * 1024));
            (limit.unwrap() / 1024, available.unwrap() / 1024)
        };
        assert_eq!(of("0::/a/b\n", &none), (16000, 8000));
        // A gigabyte of limits above, less in the group in the middle; half of what that uses is cache.
        let second = tree(&[
            ("memory.max", "max\n"),
            ("a/memory.max", "4096000\n"),
            ("a/memory.current", "2048000\n"),
            ("a/memory.stat", "anon 5\ninactive_file 1024000\n"),
            ("a/b/memory.max", "max\n"),
        ]);
        assert_eq!(of("0::/a/b\n", &second), (4000, 3000));
        // The path is that outside of the container; the container's own group is mounted at the top.
        let first = tree(&[
            ("memory/memory.limit_in_bytes", "2048000\n"),
            ("memory/memory.usage_in_bytes", "1024000\n"),
            ("memory/memory.stat", "cache 5\ntotal_inactive_file 0\n"),
        ]);
        assert_eq!(of("4:memory:/docker/77\n3:cpuset:/\n0::/\n", &first), (2000, 1000));
        // What version 1 writes where there is no limit.
        let unlimited = tree(&[("memory/memory.limit_in_bytes", "9223372036854771712\n")]);
        assert_eq!(of("4:memory:/\n", &unlimited), (16000, 8000));
        assert_eq!(Memory::parse("", "", none.path()), Memory::default());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_occupies_memory() {
        assert!(resident().is_some_and(|bytes| bytes > 100_000));
        assert!(Memory::now().limit.is_some_and(|limit| limit > resident().unwrap()));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_peak_stays_until_it_is_reset() {
        // More than all other tests of this process occupy together.
        const SPIKE: usize = 256 << 20;
        let before = resident().unwrap();
        let spike = vec![1_u8; SPIKE];
        assert!(spike.iter().step_by(4096).all(|&byte| byte == 1));
        drop(spike);
        let peak = peak_resident().unwrap();
        assert!(peak >= before.max(SPIKE as u64), "{peak} after {before}");
        if reset_peak() {
            assert!(peak_resident().unwrap() < peak);
        } else {
            assert!(peak_resident().unwrap() >= peak);
        }
    }
}
