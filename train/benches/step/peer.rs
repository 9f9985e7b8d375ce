//! The same step in PyTorch, in a process that keeps running.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../benches/peers/step.py");

pub(crate) struct Peer {
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    /// Returns the Python named by `PROTOSEG_TORCH_PYTHON`.
    pub(crate) fn python() -> Option<OsString> {
        std::env::var_os("PROTOSEG_TORCH_PYTHON")
    }

    /// Starts it on the step of a folder; it inherits the allocator and OpenMP settings of this process.
    pub(crate) fn start(python: &OsStr, folder: &Path, threads: usize) -> Result<Self> {
        let mut process = Command::new(python)
            .env_remove("LD_LIBRARY_PATH")
            .args([SCRIPT, "time"])
            .arg(folder)
            .args(["--channels-last", "--threads", &threads.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start PyTorch")?;
        let requests = process.stdin.take().context("the peer's input")?;
        let answers = BufReader::new(process.stdout.take().context("the peer's output")?);
        let mut peer = Self { process, requests, answers };
        ensure!(peer.answer()? == "ready", "PyTorch is not ready");
        Ok(peer)
    }

    /// Takes a step and returns its time by the peer's clock.
    pub(crate) fn step(&mut self) -> Result<Duration> {
        writeln!(self.requests, "step").context("the peer has exited")?;
        let milliseconds: f64 =
            self.answer()?.parse().context("the peer did not answer with a time")?;
        Ok(Duration::from_secs_f64(milliseconds / 1e3))
    }

    pub(crate) fn id(&self) -> String {
        self.process.id().to_string()
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line).context("the peer has exited")?;
        Ok(line.trim().to_owned())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Fails only where it has exited already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
