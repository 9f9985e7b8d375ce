//! Control groups of Linux, version 1 and 2: which ones have a say about this process.

use std::path::{Path, PathBuf};

/// Which interface a group has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CgroupVersion {
    First,
    Second,
}

/// The groups that limit what a controller (`memory`, `cpu`) gives a process, from its own upward: `own` is the process's
/// `/proc/self/cgroup`, `mounted` where the groups lie.
pub(super) fn above(own: &str, mounted: &Path, controller: &str) -> Vec<(CgroupVersion, PathBuf)> {
    let mut groups = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let (version, top) = match controllers {
            "" => (CgroupVersion::Second, mounted.to_owned()),
            names if names.split(',').any(|name| name == controller) => {
                (CgroupVersion::First, mounted.join(controller))
            }
            _ => continue,
        };
        // Every group above has a say too; inside a container its own may be what is mounted.
        let own = top.join(path.trim_start_matches('/'));
        let inside = own.ancestors().take_while(|group| group.starts_with(&top));
        groups.extend(inside.map(|group| (version, group.to_owned())));
    }
    groups
}

/// Cores' worth of time that the least quota of its groups leaves a process; none where none has one.
pub fn quota(own: &str, mounted: &Path) -> Option<f64> {
    let quota = |(version, group): (CgroupVersion, PathBuf)| {
        let read = |file: &str| std::fs::read_to_string(group.join(file)).ok();
        let (quota, period) = match version {
            CgroupVersion::First => (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?),
            CgroupVersion::Second => {
                let both = read("cpu.max")?;
                let (quota, period) = both.trim().split_once(' ')?;
                (quota.to_owned(), period.to_owned())
            }
        };
        // Without a quota, the one of version 1 is -1, and that of version 2 a word.
        let [quota, period] = [quota, period]
            .map(|number| number.trim().parse::<u64>().ok().filter(|&number| number > 0));
        Some(quota? as f64 / period? as f64)
    };
    above(own, mounted, "cpu").into_iter().filter_map(quota).min_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::super::tests::tree;
    use super::*;

    #[test]
    fn the_least_quota_counts() {
        let second = tree(&[
            ("cpu.max", "400000 100000\n"),
            ("a/cpu.max", "150000 100000\n"),
            ("a/b/cpu.max", "max 100000\n"),
        ]);
        assert_eq!(quota("0::/a/b\n", second.path()), Some(1.5));
        assert_eq!(quota("0::/\n", second.path()), Some(4.0));
        let first =
            tree(&[("cpu/cpu.cfs_quota_us", "50000\n"), ("cpu/cpu.cfs_period_us", "100000\n")]);
        assert_eq!(quota("5:cpuset:/\n4:cpu,cpuacct:/docker/77\n0::/\n", first.path()), Some(0.5));
        let free = tree(&[
            ("cpu/cpu.cfs_quota_us", "-1\n"),
            ("cpu/cpu.cfs_period_us", "100000\n"),
            ("cpu.max", "max 100000\n"),
        ]);
        assert_eq!(quota("4:cpu:/\n0::/\n", free.path()), None);
        let broken = tree(&[("cpu.max", "many\n"), ("a/cpu.max", ""), ("b/cpu.max", "100000 0\n")]);
        for own in ["0::/a\n", "0::/b\n", "0::/c\n", "", "nonsense", "1:cpu"] {
            assert_eq!(quota(own, broken.path()), None, "{own}");
        }
    }
}
