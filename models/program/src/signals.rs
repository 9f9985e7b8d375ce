//! SIGTERM, SIGHUP and Ctrl-C: the first stops gracefully, the second at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// Signals received so far.
#[derive(Debug)]
pub struct StopSignals {
    /// True after the first signal.
    pub stop: Arc<AtomicBool>,
    number: Arc<AtomicUsize>,
}

/// Signal handlers that the system refuses.
#[derive(Debug, thiserror::Error)]
#[error("cannot install signal handlers: {0}")]
pub struct SignalError(#[from] io::Error);

impl StopSignals {
    /// Installs the handlers.
    pub fn catch() -> Result<Self, SignalError> {
        let signals = Self { stop: Arc::default(), number: Arc::default() };
        let hangup = if is_ignored(SIGHUP) { None } else { Some(SIGHUP) };
        for number in [SIGTERM, SIGINT].into_iter().chain(hangup) {
            // The default action comes first: only the second signal finds the flag set.
            flag::register_conditional_default(number, Arc::clone(&signals.stop))?;
            flag::register_usize(number, Arc::clone(&signals.number), number as usize)?;
            flag::register(number, Arc::clone(&signals.stop))?;
        }
        Ok(signals)
    }

    /// True after the first signal.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Exit status of the received signal: 143, 130 or 129.
    pub fn status(&self) -> u8 {
        128 + self.number.load(Ordering::Relaxed) as u8
    }
}

/// Returns true if the parent process ignores a signal, as `nohup` does; false without procfs.
fn is_ignored(number: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (number - 1) & 1 == 1)
}
