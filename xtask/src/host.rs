//! Host requirements: platform, NVIDIA driver, C and C++ compilers, disk space.

use std::io::{Error, ErrorKind};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail, ensure};

/// Returns true if the pinned wheels run on this platform.
pub(crate) fn is_supported() -> bool {
    cfg!(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))
}

pub(crate) fn has_nvidia_driver() -> bool {
    Path::new("/proc/driver/nvidia/version").exists()
        || Command::new("ldconfig")
            .arg("-p")
            .output()
            .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("libcuda.so.1"))
        || Path::new("/usr/lib/wsl/lib/libcuda.so.1").exists()
}

/// Checks the free space of the file system of `folder`; passes if `df` does not tell.
pub(crate) fn ensure_free_space(folder: &Path, megabytes: u64) -> Result<()> {
    let Ok(output) = Command::new("df").arg("-Pk").arg(folder).output() else { return Ok(()) };
    let Some(free) = available_megabytes(&String::from_utf8_lossy(&output.stdout)) else {
        return Ok(());
    };
    ensure!(
        free >= megabytes,
        "{} has {free} MB of free disk space, but setup needs {megabytes} MB temporarily; free some and run again",
        folder.display()
    );
    Ok(())
}

/// Parses the fourth column, in kB, of the second line of `df -Pk`.
fn available_megabytes(output: &str) -> Option<u64> {
    let kilobytes: u64 = output.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()?;
    Some(kilobytes / 1024)
}

/// Explains an I/O error at `path` and its remedy, for `map_err`.
pub(crate) fn explain(path: &Path) -> impl Fn(Error) -> anyhow::Error {
    let path = path.display().to_string();
    move |error| match error.kind() {
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

/// Checks the C++ compiler that torch-sys calls.
pub(crate) fn ensure_cxx() -> Result<()> {
    if let Ok(chosen) = std::env::var("CXX") {
        ensure!(
            runs(&chosen),
            "CXX is set to {chosen:?}, which does not run; set it to a C++ compiler or unset it"
        );
        return Ok(());
    }
    if runs("c++") {
        return Ok(());
    }
    match ["g++", "clang++"].into_iter().find(|other| runs(other)) {
        Some(other) => {
            bail!("the C++ compiler is called {other}, not c++; run `export CXX={other}` first")
        }
        None => {
            bail!("torch-sys needs a C++ compiler and none was found; run `apt-get install g++`")
        }
    }
}

/// Links an empty shared library `name` in `folder` that depends on the given libraries there.
pub(crate) fn link_stub(folder: &Path, name: &str, libraries: &[&str]) -> Result<()> {
    let chosen = std::env::var("CC").ok();
    let compiler = chosen
        .iter()
        .map(String::as_str)
        .chain(["cc", "gcc", "clang"])
        .find(|compiler| runs(compiler))
        .context(
            "linking libtorch.so needs a C compiler and none was found; run `apt-get install gcc`",
        )?;
    let output = split(compiler)
        .current_dir(folder)
        .args(["-shared", "-x", "c", "/dev/null", "-o", name, "-Wl,--no-as-needed", "-L."])
        .args(libraries.iter().map(|library| format!("-l{library}")))
        .output()
        .with_context(|| format!("calling {compiler}"))?;
    ensure!(
        output.status.success(),
        "{compiler} failed to link {name}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

fn runs(compiler: &str) -> bool {
    split(compiler)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Splits a compiler such as `ccache g++` into program and arguments.
fn split(compiler: &str) -> Command {
    let mut words = compiler.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    command
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
            error.contains("of free disk space, but setup needs 18446744073709551615 MB"),
            "{error}"
        );
        ensure_free_space(Path::new("/"), 0).unwrap();
    }

    #[test]
    fn errors_name_a_remedy() {
        let explain = explain(Path::new("/x"));
        let full = explain(Error::from(ErrorKind::StorageFull)).to_string();
        assert!(full.starts_with("the disk is full at /x: setup needs"), "{full}");
        let denied = explain(Error::from(ErrorKind::PermissionDenied)).to_string();
        assert!(denied.contains("make the repository writable"), "{denied}");
    }

    #[test]
    fn a_compiler_may_have_arguments() {
        assert!(runs("env true"));
        assert!(!runs("env false"));
        assert!(!runs("no-such-compiler"));
        assert!(!runs(""));
    }
}
