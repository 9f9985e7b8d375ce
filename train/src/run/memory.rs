//! Memory of the process, and advice when it runs out.

use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Error, Result};

/// Parts of messages for failed allocations, of libtorch on the CPU and on a GPU, and of Rust's collections.
const OUT_OF_MEMORY: [&str; 5] = [
    "can't allocate memory",
    "out of memory",
    "not enough memory",
    "bad_alloc",
    "memory allocation failed",
];

/// Parts of a run, which need memory for different things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Reading of every listed file.
    Reading,
    /// Labels of a finished teacher.
    Labeling,
    /// Optimizer steps.
    Steps,
    /// Precise BatchNorm and first prototypes.
    WarmupEnd,
    /// Scores, and images of the report.
    Scoring,
    Calibration,
}

/// Phase of the process, for allocations that fail outside of any error.
static CURRENT: AtomicU8 = AtomicU8::new(Phase::Steps as u8);

/// Returns the phase that the process is in.
pub fn current_phase() -> Phase {
    let number = CURRENT.load(Ordering::Relaxed);
    Phase::ALL.into_iter().find(|&phase| phase as u8 == number).unwrap_or(Phase::Steps)
}

/// Runs a phase, in which memory that runs out is explained with its advice.
pub fn in_phase<T>(phase: Phase, run: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = CURRENT.swap(phase as u8, Ordering::Relaxed);
    let result = explain_out_of_memory(run(), phase);
    CURRENT.store(before, Ordering::Relaxed);
    result
}

impl Phase {
    const ALL: [Self; 6] = [
        Self::Reading,
        Self::Labeling,
        Self::Steps,
        Self::WarmupEnd,
        Self::Scoring,
        Self::Calibration,
    ];

    /// Words around a message: when memory ran out, and what to do.
    pub fn words(self) -> [&'static str; 2] {
        [self.during(), self.advice()]
    }

    /// Words that follow "not enough memory".
    fn during(self) -> &'static str {
        match self {
            Self::Reading => " while the images are read",
            Self::Labeling => " while the teacher labels the unlabeled images",
            Self::Steps => "",
            Self::WarmupEnd => " at the end of the warm-up",
            Self::Scoring => " while scoring",
            Self::Calibration => " while calibrating",
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::Reading => {
                "scale large images down, or read fewer at once with RAYON_NUM_THREADS=1 in the environment"
            }
            Self::Labeling => {
                "scale large unlabeled images down, or train a `teacher` with a `window`, which bounds its memory"
            }
            Self::Steps => {
                "lower `batch` and raise `accumulate` by the same factor, which keeps the crops per step, or lower `crop`"
            }
            Self::WarmupEnd => {
                "scale large labeled images down, or read fewer at once with RAYON_NUM_THREADS=1 in the environment; \
                 --resume repeats the end of the warm-up"
            }
            Self::Scoring => {
                "give a `window`, or a smaller one, such as `--set window=512:384`: it bounds the memory for images of \
                 any size, and --resume accepts it"
            }
            Self::Calibration => {
                "lower `calibration_images` (0 records none), or give a smaller `window`, such as \
                 `--set window=512:384`; --resume accepts both, and checkpoint/ holds the weights already"
            }
        }
    }
}

/// Memory ran out.
#[derive(Debug, thiserror::Error)]
#[error("not enough memory{}: {} ({cause})", phase.during(), phase.advice())]
pub struct OutOfMemory {
    phase: Phase,
    cause: String,
}

/// Returns the peak resident memory of the process in bytes; None where `/proc` does not tell.
pub fn peak() -> Option<u64> {
    status("VmHWM:")
}

/// Returns the resident memory of the process in bytes; None where `/proc` does not tell.
pub fn resident() -> Option<u64> {
    status("VmRSS:")
}

fn status(key: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Replaces out-of-memory errors by advice for a phase, unless an inner phase has done so.
pub fn explain_out_of_memory<T>(result: Result<T>, phase: Phase) -> Result<T> {
    result.map_err(|error| {
        if error.is::<OutOfMemory>() {
            return error;
        }
        let text = format!("{error:#}").to_lowercase();
        if OUT_OF_MEMORY.iter().any(|words| text.contains(words)) {
            let cause = error.root_cause().to_string();
            let cause = cause.lines().next().unwrap_or_default().to_owned();
            return Error::new(OutOfMemory { phase, cause });
        }
        error
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_out_of_memory_error_gives_the_advice_of_its_phase() {
        let error = || {
            anyhow::anyhow!(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"
            )
            .context("step 3 failed")
        };
        let explained = |phase| explain_out_of_memory::<()>(Err(error()), phase);
        let message = explained(Phase::Steps).unwrap_err().to_string();
        for word in ["`batch`", "`accumulate`", "`crop`", "you tried 9 bytes"] {
            assert!(message.contains(word), "{message}");
        }
        let inner = explained(Phase::Calibration);
        let message = explain_out_of_memory(inner, Phase::Steps).unwrap_err().to_string();
        assert!(message.contains("`calibration_images`") && message.contains("`window`"));
        assert!(!message.contains("`batch`"), "{message}");
        let other = explain_out_of_memory::<()>(Err(anyhow::anyhow!("no such file")), Phase::Steps)
            .unwrap_err()
            .to_string();
        assert_eq!(other, "no such file");
    }

    #[test]
    fn peak_memory_is_known() {
        assert!(peak() >= resident() && resident().unwrap() > 1 << 20);
    }
}
