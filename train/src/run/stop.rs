//! Early end of a run: `--stop-after`, `--max-minutes`, SIGINT, SIGTERM.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::interrupt::Interrupt;

/// Reason for an early end; the state has been saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// `--stop-after`
    Step,
    /// `--max-minutes`
    Time,
    /// Number of the signal.
    Signal(u8),
}

impl StopReason {
    /// Returns the exit status: 0 after a step limit, 3 after a time limit, 128 + number after a signal.
    pub fn exit_status(self) -> u8 {
        match self {
            Self::Step => 0,
            Self::Time => 3,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// Watches for signals and the time limit.
#[derive(Debug, Clone)]
pub struct StopMonitor {
    signal: Arc<AtomicUsize>,
    deadline: Option<Instant>,
}

impl StopMonitor {
    /// Catches SIGTERM and SIGINT from now on, of which a second one ends the program at once; `limit` counts from now.
    pub fn start(limit: Option<Duration>) -> Result<Self> {
        let signal = Arc::new(AtomicUsize::new(0));
        let again = Arc::new(AtomicBool::new(false));
        for number in [SIGTERM, SIGINT] {
            // In this order, the first signal only sets the flags and the second finds them set.
            flag::register_conditional_default(number, Arc::clone(&again))
                .and_then(|_| flag::register(number, Arc::clone(&again)))
                .and_then(|_| flag::register_usize(number, Arc::clone(&signal), number as usize))
                .context("cannot catch signals")?;
        }
        Ok(Self { signal, deadline: limit.and_then(|limit| Instant::now().checked_add(limit)) })
    }

    /// Never stops; for runs inside another program.
    pub fn idle() -> Self {
        Self { signal: Arc::default(), deadline: None }
    }

    /// Interrupts computations once there is a reason to stop.
    pub fn interrupt(&self) -> Interrupt {
        let monitor = self.clone();
        Interrupt::when(move || monitor.due().is_some())
    }

    /// Returns the reason to stop now.
    pub fn due(&self) -> Option<StopReason> {
        match self.signal.load(Ordering::Relaxed) {
            0 => self
                .deadline
                .filter(|deadline| Instant::now() >= *deadline)
                .map(|_| StopReason::Time),
            signal => Some(StopReason::Signal(signal as u8)),
        }
    }
}
