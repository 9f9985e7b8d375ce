//! SIGTERM and Ctrl-C: the first ends the work in good order, the second at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::Context;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// What has come since it was made.
#[derive(Debug)]
pub(crate) struct Signals {
    /// True from the first on.
    pub(crate) stop: Arc<AtomicBool>,
    number: Arc<AtomicUsize>,
}

impl Signals {
    /// Catches from now on.
    pub(crate) fn catch() -> anyhow::Result<Self> {
        let signals = Self { stop: Arc::default(), number: Arc::default() };
        for number in [SIGTERM, SIGINT] {
            // In this order: the first signal only sets what the second finds set.
            flag::register_conditional_default(number, Arc::clone(&signals.stop))
                .and_then(|_| flag::register_usize(number, Arc::clone(&signals.number), number as usize))
                .and_then(|_| flag::register(number, Arc::clone(&signals.stop)))
                .context("cannot catch signals")?;
        }
        Ok(signals)
    }

    /// The exit status that says which came: 143 or 130.
    pub(crate) fn status(&self) -> u8 {
        128 + self.number.load(Ordering::Relaxed) as u8
    }
}
