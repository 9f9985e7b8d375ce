//! What this machine lets this process use: cores, vector extensions, memory.

use std::path::Path;

/// Cores that this process may use: the standard library counts those that its affinity (and so a cpuset) leaves, and where
/// a quota of a control group of version 1 or 2 lies lower, that quota, rounded down; at least 1.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The processor's name, where the system says.
pub fn processor() -> Option<String> {
    let information = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let name = information.lines().find_map(|line| line.strip_prefix("model name"))?;
    Some(name.trim_start_matches([' ', '\t', ':']).to_owned())
}

/// Vector extensions of the processor that matter for convolutions, by their usual names.
pub fn vector_extensions() -> Vec<&'static str> {
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

/// Memory in bytes, as far as the system says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Memory {
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
        Self::of(&machine, &groups, Path::new("/sys/fs/cgroup"))
    }

    fn of(machine: &str, groups: &str, mounted: &Path) -> Self {
        let kibibytes = |name: &str| {
            let line = machine.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim_start_matches(':').trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
        };
        let mut memory = Self { limit: kibibytes("MemTotal"), available: kibibytes("MemAvailable") };
        for line in groups.lines() {
            let mut parts = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
            let (top, files) = match controllers {
                "" => (mounted.to_owned(), ["memory.max", "memory.current", "inactive_file"]),
                names if names.split(',').any(|name| name == "memory") => {
                    (mounted.join("memory"), ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"])
                }
                _ => continue,
            };
            // Every group above has a say too; inside a container its own may be what is mounted.
            let own = top.join(path.trim_start_matches('/'));
            for group in own.ancestors().take_while(|group| group.starts_with(&top)) {
                memory.narrow(group, files);
            }
        }
        memory
    }

    /// Takes the limit of a control group into account. A cache of files gives way, so it does not count as used.
    fn narrow(&mut self, group: &Path, [limit, used, cache]: [&str; 3]) {
        let number = |file: &str| std::fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
        let Some(limit) = number(limit).filter(|&limit| self.limit.is_none_or(|known| limit < known)) else { return };
        self.limit = Some(limit);
        let statistics = std::fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
        let cached = statistics.lines().find_map(|line| line.strip_prefix(cache)?.trim().parse().ok()).unwrap_or(0);
        let left = limit.saturating_sub(number(used).unwrap_or(0).saturating_sub(cached));
        self.available = Some(self.available.map_or(left, |available| available.min(left)));
    }
}

/// Bytes of memory that this process occupies now.
pub fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: &str = "MemTotal:       16000 kB\nMemFree:  100 kB\nMemAvailable:    8000 kB\n";

    fn groups(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_least_limit_counts() {
        let none = groups(&[]);
        let of = |own: &str, root: &tempfile::TempDir| {
            let Memory { limit, available } = Memory::of(MACHINE, own, root.path());
            (limit.unwrap() / 1024, available.unwrap() / 1024)
        };
        assert_eq!(of("0::/a/b\n", &none), (16000, 8000));
        // A gigabyte of limits above, less in the group in the middle; half of what that uses is cache.
        let second = groups(&[
            ("memory.max", "max\n"),
            ("a/memory.max", "4096000\n"),
            ("a/memory.current", "2048000\n"),
            ("a/memory.stat", "anon 5\ninactive_file 1024000\n"),
            ("a/b/memory.max", "max\n"),
        ]);
        assert_eq!(of("0::/a/b\n", &second), (4000, 3000));
        // The path is that outside of the container; the container's own group is mounted at the top.
        let first = groups(&[
            ("memory/memory.limit_in_bytes", "2048000\n"),
            ("memory/memory.usage_in_bytes", "1024000\n"),
            ("memory/memory.stat", "cache 5\ntotal_inactive_file 0\n"),
        ]);
        assert_eq!(of("4:memory:/docker/77\n3:cpuset:/\n0::/\n", &first), (2000, 1000));
        // What version 1 writes where there is no limit.
        let unlimited = groups(&[("memory/memory.limit_in_bytes", "9223372036854771712\n")]);
        assert_eq!(of("4:memory:/\n", &unlimited), (16000, 8000));
        assert_eq!(Memory::of("", "", none.path()), Memory::default());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_occupies_memory() {
        assert!(resident().is_some_and(|bytes| bytes > 100_000));
        assert!(Memory::now().limit.is_some_and(|limit| limit > resident().unwrap()));
        assert!(cores() >= 1);
    }
}
