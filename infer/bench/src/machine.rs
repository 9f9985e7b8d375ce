//! Facts of this machine for reports: processor, GPUs, clocks, virtual machine, limits of the control group.

mod facts;
pub mod gpu;
mod processor;

pub use self::facts::MachineInfo;
pub use self::processor::Processor;

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
