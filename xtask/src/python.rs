//! Python's pip, which fetches the wheels: found, called, and its failures explained.

use std::fs;
use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, anyhow, bail};

use crate::host;

/// A Python 3 that has pip.
pub(crate) struct Python {
    program: PathBuf,
}

impl Python {
    /// The one on the path.
    pub(crate) fn find() -> Result<Self> {
        Self::check(PathBuf::from("python3"))
    }

    fn check(program: PathBuf) -> Result<Self> {
        let python = Self { program };
        match python.pip().arg("--version").output() {
            Ok(output) if output.status.success() => Ok(python),
            Ok(output) => {
                let words = String::from_utf8_lossy(&output.stderr);
                bail!(
                    "python3 is here but its pip does not work ({}): `apt-get install python3-pip` provides it",
                    words.lines().last().unwrap_or("it says nothing").trim()
                )
            }
            Err(error) => {
                bail!(
                    "python3 was not found ({error}): `apt-get install python3 python3-pip` provides it"
                )
            }
        }
    }

    /// Its version as "3.11.7".
    pub(crate) fn version(&self) -> Result<String> {
        let output = self.command().arg("--version").output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().trim_start_matches("Python ").to_owned())
    }

    /// A call of it.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env_remove("LD_LIBRARY_PATH");
        command
    }

    /// Downloads one wheel per requirement into `folder`, whatever Python this is: wheels for CPython 3.11 on x86-64
    /// Linux, of which only the native libraries are used.
    pub(crate) fn download(&self, requirements: &str, folder: &Path) -> Result<()> {
        let mut command = self.pip();
        command.args(["download", "--no-deps", "--only-binary=:all:", "--python-version", "3.11"]);
        // pip takes a platform by its letter: glibc 2.28 does not stand for those before it.
        for minor in (17..=28).rev() {
            command.args(["--platform", &format!("manylinux_2_{minor}_x86_64")]);
        }
        command.args(["--platform", "manylinux2014_x86_64", "--dest"]).arg(folder);
        run_pip(command, requirements, folder)
    }

    /// Installs the requirements and what they need into `folder`, for this Python, to be named in `PYTHONPATH`.
    pub(crate) fn install(&self, requirements: &str, folder: &Path) -> Result<()> {
        let mut command = self.pip();
        command.args(["install", "--only-binary=:all:", "--target"]).arg(folder);
        run_pip(command, requirements, folder)
    }

    fn pip(&self) -> Command {
        let mut command = self.command();
        command.args(["-m", "pip", "--no-input", "--disable-pip-version-check", "--no-cache-dir"]);
        // Settings of the user's that contradict the options above.
        command.env("PIP_REQUIRE_VIRTUALENV", "0").env("PIP_USER", "0");
        command
    }
}

/// Runs pip with its temporary files in `folder`, as /tmp may be a small file system; shows its progress to a person.
fn run_pip(mut command: Command, requirements: &str, folder: &Path) -> Result<()> {
    let list = folder.join("requirements.txt");
    let temporary = folder.join("temporary");
    fs::create_dir_all(&temporary).map_err(|error| host::explain(&error, &temporary))?;
    fs::write(&list, requirements).map_err(|error| host::explain(&error, &list))?;
    command.arg("--requirement").arg(&list).env("TMPDIR", &temporary);
    command.stdout(if stderr().is_terminal() { Stdio::from(stderr()) } else { Stdio::null() });
    let output = command.output()?;
    if !output.status.success() {
        return Err(diagnose(&String::from_utf8_lossy(&output.stderr)));
    }
    fs::remove_dir_all(&temporary).map_err(|error| host::explain(&error, &temporary))
}

/// What pip's error output means, and how to mend it.
fn diagnose(words: &str) -> anyhow::Error {
    let has_any = |signs: &[&str]| signs.iter().any(|sign| words.contains(sign));
    let last = words.lines().rev().find(|line| line.starts_with("ERROR:")).or(words.lines().last());
    let last = last.unwrap_or("it says nothing").trim_start_matches("ERROR:").trim();
    if has_any(&["No space left on device", "Disk quota exceeded"]) {
        anyhow!("the disk is full: setup needs 2 GB (8 GB with CUDA); free some and run again")
    } else if has_any(&["DO NOT MATCH THE HASHES"]) {
        anyhow!(
            "the package index served a file that is not the pinned one (its sha256 differs): run again, and if that \
             does not help, check the proxy or mirror that pip uses"
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
            "pip could not reach its package index, or the download broke off: check the network (or name a mirror in \
             PIP_INDEX_URL) and run again; pip says: {last}"
        )
    } else if has_any(&["No matching distribution", "no such option"]) {
        anyhow!(
            "pip did not find what it was asked for; a pip older than 20.3 cannot: `python3 -m pip install --upgrade \
             pip` brings a newer one; pip says: {last}"
        )
    } else {
        anyhow!("pip failed: {last}")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A stand-in for Python: a shell script. Another process puts it in place: a file that this one has open for
    /// writing while another test starts a program cannot be executed for a moment.
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
    fn failures_of_pip_are_told_apart() {
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
        assert!(other.contains("its sha256 differs"), "{other}");

        let unknown = failure("echo 'ERROR: No matching distribution found for a==1' >&2; exit 1");
        assert!(unknown.contains("pip install --upgrade pip"), "{unknown}");

        assert_eq!(failure("exit 1"), "pip failed: it says nothing");
    }
}
