//! The machine as this process may use it: cores, memory and the limits of control groups.

use std::path::{Path, PathBuf};

/// Cores that this process may use: those that its affinity leaves, or the CPU quota of a control
/// group (version 1 or 2) where that is lower, rounded down; at least 1.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Memory in bytes, as far as the system says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Memory {
    /// Memory of the machine.
    pub machine: Option<u64>,
    /// Most memory that this process may use: the machine's, or the least limit of its control
    /// groups.
    pub limit: Option<u64>,
    /// What is left of the limit.
    pub available: Option<u64>,
}

impl Memory {
    /// Reads the current state.
    pub fn now() -> Self {
        let machine = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self::parse(&machine, &groups, Path::new("/sys/fs/cgroup"))
    }

    /// Parses `/proc/meminfo` and `/proc/self/cgroup`, and reads the groups below `mounted`.
    pub fn parse(machine: &str, groups: &str, mounted: &Path) -> Self {
        let total = bytes(machine, "MemTotal:");
        let mut memory =
            Self { machine: total, limit: total, available: bytes(machine, "MemAvailable:") };
        for (version, group) in cgroups(groups, mounted, "memory") {
            let files = match version {
                CgroupVersion::V1 => {
                    ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"]
                }
                CgroupVersion::V2 => ["memory.max", "memory.current", "inactive_file"],
            };
            memory.narrow(&group, files);
        }
        memory
    }

    /// Applies the limit of a control group. File cache can be reclaimed, so it does not count as
    /// used.
    fn narrow(&mut self, group: &Path, [limit, used, cache]: [&str; 3]) {
        let number =
            |file: &str| std::fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
        let lower = |limit: &u64| self.limit.is_none_or(|known| *limit < known);
        let Some(limit) = number(limit).filter(lower) else { return };
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

/// Resident memory of this process in bytes.
pub fn resident() -> Option<u64> {
    bytes(&std::fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// Peak resident memory of this process in bytes, since it started or since [`reset_peak`].
pub fn peak_resident() -> Option<u64> {
    bytes(&std::fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// Resets [`peak_resident`] to the current value. Returns false where the system does not allow
/// that.
pub fn reset_peak() -> bool {
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// A number of kB in a file of `/proc`, in bytes.
fn bytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CgroupVersion {
    V1,
    V2,
}

/// Control groups that limit what a controller (`memory`, `cpu`) gives a process, from its own
/// upward: `own` is the process's `/proc/self/cgroup`, `mounted` the folder of all groups.
fn cgroups(own: &str, mounted: &Path, controller: &str) -> Vec<(CgroupVersion, PathBuf)> {
    let mut groups = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let (version, top) = match controllers {
            "" => (CgroupVersion::V2, mounted.to_owned()),
            names if names.split(',').any(|name| name == controller) => {
                (CgroupVersion::V1, mounted.join(controller))
            }
            _ => continue,
        };
        // Groups above limit too; inside a container its own may be what is mounted.
        let own = top.join(path.trim_start_matches('/'));
        let inside = own.ancestors().take_while(|group| group.starts_with(&top));
        groups.extend(inside.map(|group| (version, group.to_owned())));
    }
    groups
}

/// Least CPU quota of a process's control groups, in cores; None without a quota.
pub fn cgroup_quota(own: &str, mounted: &Path) -> Option<f64> {
    let quota = |(version, group): (CgroupVersion, PathBuf)| {
        let read = |file: &str| std::fs::read_to_string(group.join(file)).ok();
        let (quota, period) = match version {
            CgroupVersion::V1 => (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?),
            CgroupVersion::V2 => {
                let both = read("cpu.max")?;
                let (quota, period) = both.trim().split_once(' ')?;
                (quota.to_owned(), period.to_owned())
            }
        };
        // Without a quota, version 1 has -1 and version 2 the word `max`.
        let [quota, period] = [quota, period]
            .map(|number| number.trim().parse::<u64>().ok().filter(|&number| number > 0));
        Some(quota? as f64 / period? as f64)
    };
    cgroups(own, mounted, "cpu").into_iter().filter_map(quota).min_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use protoseg_images::testing::tree;

    use super::*;

    #[test]
    fn the_least_quota_counts() {
        let second = tree(&[
            ("cpu.max", "400000 100000\n"),
            ("a/cpu.max", "150000 100000\n"),
            ("a/b/cpu.max", "max 100000\n"),
        ])
        .unwrap();
        assert_eq!(cgroup_quota("0::/a/b\n", second.path()), Some(1.5));
        assert_eq!(cgroup_quota("0::/\n", second.path()), Some(4.0));
        let first =
            tree(&[("cpu/cpu.cfs_quota_us", "50000\n"), ("cpu/cpu.cfs_period_us", "100000\n")])
                .unwrap();
        assert_eq!(
            cgroup_quota("5:cpuset:/\n4:cpu,cpuacct:/docker/77\n0::/\n", first.path()),
            Some(0.5)
        );
        let free = tree(&[
            ("cpu/cpu.cfs_quota_us", "-1\n"),
            ("cpu/cpu.cfs_period_us", "100000\n"),
            ("cpu.max", "max 100000\n"),
        ])
        .unwrap();
        assert_eq!(cgroup_quota("4:cpu:/\n0::/\n", free.path()), None);
        let broken =
            tree(&[("cpu.max", "many\n"), ("a/cpu.max", ""), ("b/cpu.max", "100000 0\n")]).unwrap();
        for own in ["0::/a\n", "0::/b\n", "0::/c\n", "", "nonsense", "1:cpu"] {
            assert_eq!(cgroup_quota(own, broken.path()), None, "{own}");
        }
    }

    const MACHINE: &str = "MemTotal:       16000 kB\nMemFree:  100 kB\nMemAvailable:    8000 kB\n";

    #[test]
    fn the_least_limit_counts() {
        let none = tree(&[]).unwrap();
        let parse = |own: &str, root: &tempfile::TempDir| {
            let Memory { machine, limit, available } = Memory::parse(MACHINE, own, root.path());
            assert_eq!(machine, Some(16000 * 1024));
            (limit.unwrap() / 1024, available.unwrap() / 1024)
        };
        assert_eq!(parse("0::/a/b\n", &none), (16000, 8000));
        // A gigabyte of limits above, less in the group in the middle; half of what that uses is
        // cache.
        let second = tree(&[
            ("memory.max", "max\n"),
            ("a/memory.max", "4096000\n"),
            ("a/memory.current", "2048000\n"),
            ("a/memory.stat", "anon 5\ninactive_file 1024000\n"),
            ("a/b/memory.max", "max\n"),
        ])
        .unwrap();
        assert_eq!(parse("0::/a/b\n", &second), (4000, 3000));
        // The path is that outside the container; the container's own group is mounted at the top.
        let first = tree(&[
            ("memory/memory.limit_in_bytes", "2048000\n"),
            ("memory/memory.usage_in_bytes", "1024000\n"),
            ("memory/memory.stat", "cache 5\ntotal_inactive_file 0\n"),
        ])
        .unwrap();
        assert_eq!(parse("4:memory:/docker/77\n3:cpuset:/\n0::/\n", &first), (2000, 1000));
        // Version 1 without a limit.
        let unlimited = tree(&[("memory/memory.limit_in_bytes", "9223372036854771712\n")]).unwrap();
        assert_eq!(parse("4:memory:/\n", &unlimited), (16000, 8000));
        assert_eq!(Memory::parse("", "", none.path()), Memory::default());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_resident_memory() {
        assert!(resident().is_some_and(|bytes| bytes > 100_000));
        assert!(Memory::now().limit.is_some_and(|limit| limit > resident().unwrap()));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_peak_stays_until_it_is_reset() {
        // More than all other tests of this process take together.
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
