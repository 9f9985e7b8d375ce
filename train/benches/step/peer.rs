//! PyTorch, which takes the same step in a process that stays.

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
    /// The Python that has PyTorch, where one is named.
    pub(crate) fn python() -> Option<OsString> {
        std::env::var_os("PROTOSEG_TORCH_PYTHON")
    }

    /// Starts it with the step of a folder; it inherits how this process allocates and how its threads wait.
    pub(crate) fn start(python: &OsStr, folder: &Path, threads: usize) -> Result<Self> {
        let mut process = Command::new(python)
            .env_remove("LD_LIBRARY_PATH")
            .args([SCRIPT, "time"])
            .arg(folder)
            .args(["--channels-last", "--threads", &threads.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("PyTorch could not be started")?;
        let requests = process.stdin.take().context("the peer's input")?;
        let answers = BufReader::new(process.stdout.take().context("the peer's output")?);
        let mut peer = Self { process, requests, answers };
        ensure!(peer.answer()? == "ready", "PyTorch is not ready");
        Ok(peer)
    }

    /// Lets it take a step; how long that took by its own clock.
    pub(crate) fn step(&mut self) -> Result<Duration> {
        writeln!(self.requests, "step").context("the peer has left")?;
        let milliseconds: f64 =
            self.answer()?.parse().context("the peer did not answer with a time")?;
        Ok(Duration::from_secs_f64(milliseconds / 1e3))
    }

    /// Its process id.
    pub(crate) fn id(&self) -> String {
        self.process.id().to_string()
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line).context("the peer has left")?;
        Ok(line.trim().to_owned())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have left by itself; either way it must not stay.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
