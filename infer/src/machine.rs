//! What this machine is, and what it lets this process use: cores, vector extensions, memory.

pub mod groups;
mod memory;

pub use self::memory::{Memory, peak_resident, reset_peak, resident};

/// Cores that this process may use: the standard library counts those that its affinity (and so a cpuset) leaves, and where
/// a quota of a control group of version 1 or 2 lies lower, that quota, rounded down; at least 1.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    /// A folder with files in it.
    pub(super) fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }
}
