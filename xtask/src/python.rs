//! Calls of pip, and explanations of its failures.

use std::fs;
use std::io::{ErrorKind, IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, anyhow, bail};

use crate::host;

/// A Python 3 that has pip.
pub(crate) struct Python {
    program: PathBuf,
}

impl Python {
    /// Finds `python3` on the path.
    pub(crate) fn find() -> Result<Self> {
        Self::check(PathBuf::from("python3"))
    }

    fn check(program: PathBuf) -> Result<Self> {
        let python = Self { program };
        match python.pip().arg("--version").output() {
            Ok(output) if output.status.success() => Ok(python),
            Ok(output) => {
                let errors = String::from_utf8_lossy(&output.stderr);
                bail!(
                    "pip of python3 does not work ({}); run `apt-get install python3-pip`",
                    errors.lines().last().unwrap_or("no error output").trim()
                )
            }
            Err(error) => {
                bail!("python3 was not found ({error}); run `apt-get install python3 python3-pip`")
            }
        }
    }

    /// Returns the version, such as "3.11.7".
    pub(crate) fn version(&self) -> Result<String> {
        let output = self.command().arg("--version").output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().trim_start_matches("Python ").to_owned())
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env_remove("LD_LIBRARY_PATH");
        command
    }

    /// Downloads one wheel per requirement into `folder`: for CPython 3.11 on x86-64 Linux,
    /// whatever this Python is, since only native libraries are used.
    pub(crate) fn download(&self, requirements: &str, folder: &Path) -> Result<()> {
        let mut command = self.pip();
        command.args(["download", "--no-deps", "--only-binary=:all:", "--python-version", "3.11"]);
        // pip matches platforms exactly: manylinux_2_28 does not include older ones.
        for minor in (17..=28).rev() {
            command.args(["--platform", &format!("manylinux_2_{minor}_x86_64")]);
        }
        command.args(["--platform", "manylinux2014_x86_64", "--dest"]).arg(folder);
        run_pip(command, requirements, folder)
    }

    /// Installs requirements and their dependencies into `folder`, for `PYTHONPATH` of this Python.
    pub(crate) fn install(&self, requirements: &str, folder: &Path) -> Result<()> {
        let mut command = self.pip();
        command.args(["install", "--only-binary=:all:", "--target"]).arg(folder);
        run_pip(command, requirements, folder)?;
        // cityscapesscripts requires this copy of a module, which would hide that of Python itself.
        match fs::remove_file(folder.join("typing.py")) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(host::explain(folder)(error)),
            _ => Ok(()),
        }
    }

    fn pip(&self) -> Command {
        let mut command = self.command();
        command.args(["-m", "pip", "--no-input", "--disable-pip-version-check", "--no-cache-dir"]);
        // Overrides user settings that contradict the options above.
        command.env("PIP_REQUIRE_VIRTUALENV", "0").env("PIP_USER", "0");
        command
    }
}

/// Runs pip with temporary files in `folder`, since /tmp may be small; shows progress on a
/// terminal.
fn run_pip(mut command: Command, requirements: &str, folder: &Path) -> Result<()> {
    let list = folder.join("requirements.txt");
    let temporary = folder.join("temporary");
    fs::create_dir_all(&temporary).map_err(host::explain(&temporary))?;
    fs::write(&list, requirements).map_err(host::explain(&list))?;
    command.arg("--requirement").arg(&list).env("TMPDIR", &temporary);
    command.stdout(if stderr().is_terminal() { Stdio::from(stderr()) } else { Stdio::null() });
    let output = command.output()?;
    if !output.status.success() {
        return Err(diagnose(&String::from_utf8_lossy(&output.stderr)));
    }
    fs::remove_dir_all(&temporary).map_err(host::explain(&temporary))
}

/// Explains the error output of pip and its remedy.
fn diagnose(output: &str) -> anyhow::Error {
    let has_any = |signs: &[&str]| signs.iter().any(|sign| output.contains(sign));
    let last =
        output.lines().rev().find(|line| line.starts_with("ERROR:")).or(output.lines().last());
    let last = last.unwrap_or("no error output").trim_start_matches("ERROR:").trim();
    if has_any(&["No space left on device", "Disk quota exceeded"]) {
        anyhow!("the disk is full: setup needs 2 GB (8 GB with CUDA); free some and run again")
    } else if has_any(&["DO NOT MATCH THE HASHES"]) {
        anyhow!(
            "the package index served a file whose sha256 differs from the pinned one; run again, and if it persists, \
             check the proxy or mirror of pip"
        )
    } else if has_any(&[
        "Connection",
        "Retrying",
        "Max retries",
        "timed out",
        "IncompleteRead",
        "SSLError",
    ]) {
        anyhow!(
            "pip could not reach its package index, or the download was interrupted; check the network (or set \
             PIP_INDEX_URL to a mirror) and run again; pip says: {last}"
        )
    } else if has_any(&["No matching distribution", "no such option"]) {
        anyhow!(
            "pip found no matching package, as pip before 20.3 does; run `python3 -m pip install --upgrade pip` and \
             try again; pip says: {last}"
        )
    } else {
        anyhow!("pip failed: {last}")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Writes a shell script in place of Python. `install` creates the file: if this process did, a
    /// concurrent fork could keep it open for writing, and it could not be executed (ETXTBSY).
    pub(crate) fn fake_python(folder: &Path, script: &str) -> Python {
        let (text, program) = (folder.join("script"), folder.join("python3"));
        fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
        assert!(
            Command::new("install")
                .args(["-m", "755"])
                .args([&text, &program])
                .status()
                .unwrap()
                .success()
        );
        Python { program }
    }

    fn failure(script: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let python = fake_python(folder.path(), script);
        python.download("a==1", &folder.path().join("download")).unwrap_err().to_string()
    }

    #[test]
    fn no_python_or_no_pip_names_the_package_to_install() {
        let folder = tempfile::tempdir().unwrap();
        let error = Python::check(folder.path().join("python3")).err().unwrap().to_string();
        assert!(error.starts_with("python3 was not found"), "{error}");
        assert!(error.contains("apt-get install python3 python3-pip"), "{error}");

        let python =
            fake_python(folder.path(), "echo '/usr/bin/python3: No module named pip' >&2; exit 1");
        let error = Python::check(python.program).err().unwrap().to_string();
        assert!(error.contains("No module named pip"), "{error}");
        assert!(error.contains("apt-get install python3-pip"), "{error}");
    }

    #[test]
    fn failures_of_pip_are_distinguished() {
        let offline = failure(
            "echo 'WARNING: Retrying (Retry(total=4)) after connection broken by NewConnectionError' >&2
             echo 'ERROR: No matching distribution found for a==1' >&2; exit 1",
        );
        assert!(offline.starts_with("pip could not reach its package index"), "{offline}");
        assert!(
            offline.ends_with("pip says: No matching distribution found for a==1"),
            "{offline}"
        );

        let full = failure(
            "echo 'ERROR: Could not install: [Errno 28] No space left on device' >&2; exit 1",
        );
        assert!(full.starts_with("the disk is full"), "{full}");

        let other =
            failure("echo 'ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM …' >&2; exit 1");
        assert!(other.contains("whose sha256 differs"), "{other}");

        let unknown = failure("echo 'ERROR: No matching distribution found for a==1' >&2; exit 1");
        assert!(unknown.contains("pip install --upgrade pip"), "{unknown}");

        assert_eq!(failure("exit 1"), "pip failed: no error output");
    }
}
