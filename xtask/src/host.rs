//! What this machine is and has: platform, NVIDIA driver, disk space, and its errors said so that one can mend them.

use std::io::{Error, ErrorKind};
use std::path::Path;
use std::process::Command;

use anyhow::{Result, anyhow, ensure};

/// Whether the pinned wheels run here.
pub(crate) fn is_supported() -> bool {
    cfg!(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))
}

/// Whether an NVIDIA driver is installed.
pub(crate) fn has_nvidia_driver() -> bool {
    Path::new("/proc/driver/nvidia/version").exists()
        || Command::new("ldconfig")
            .arg("-p")
            .output()
            .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("libcuda.so.1"))
        || Path::new("/usr/lib/wsl/lib/libcuda.so.1").exists()
}

/// An error unless the file system of `folder` has this much room. Says nothing where `df` cannot tell.
pub(crate) fn ensure_free_space(folder: &Path, megabytes: u64) -> Result<()> {
    let Ok(output) = Command::new("df").arg("-Pk").arg(folder).output() else { return Ok(()) };
    let Some(free) = available_megabytes(&String::from_utf8_lossy(&output.stdout)) else {
        return Ok(());
    };
    ensure!(
        free >= megabytes,
        "{} has {free} MB of free disk space and setup needs {megabytes} MB for a while: free some and run again",
        folder.display()
    );
    Ok(())
}

/// The fourth column, in kB, of the line after the head of `df -Pk`.
fn available_megabytes(output: &str) -> Option<u64> {
    let kilobytes: u64 = output.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()?;
    Some(kilobytes / 1024)
}

/// An input or output error at `path` in one sentence with how to mend it.
pub(crate) fn explain(error: &Error, path: &Path) -> anyhow::Error {
    let path = path.display();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            anyhow!(
                "the disk is full at {path}: setup needs 2 GB (8 GB with CUDA); free some and run again"
            )
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            anyhow!(
                "{path} cannot be written ({error}): make the repository writable for this user and run again"
            )
        }
        _ => anyhow!("{path}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_df() {
        let output = "Filesystem     1024-blocks     Used Available Capacity Mounted on\n\
                      /dev/vda         264212084 24183516  71102372      26% /\n";
        assert_eq!(available_megabytes(output), Some(69435));
        assert_eq!(available_megabytes("df: nothing"), None);
    }

    #[test]
    fn too_little_space_names_both_numbers() {
        let error = ensure_free_space(Path::new("/"), u64::MAX).unwrap_err().to_string();
        assert!(
            error.contains("of free disk space and setup needs 18446744073709551615 MB"),
            "{error}"
        );
        ensure_free_space(Path::new("/"), 0).unwrap();
    }

    #[test]
    fn errors_say_how_to_mend_them() {
        let path = Path::new("/x");
        let full = explain(&Error::from(ErrorKind::StorageFull), path).to_string();
        assert!(full.starts_with("the disk is full at /x: setup needs"), "{full}");
        let denied = explain(&Error::from(ErrorKind::PermissionDenied), path).to_string();
        assert!(denied.contains("make the repository writable"), "{denied}");
    }
}
