//! Memory of the process, and advice when it runs out.

use anyhow::{Error, Result};

/// Parts of libtorch's messages for failed allocations, on the CPU and on a GPU.
const OUT_OF_MEMORY: [&str; 3] = ["can't allocate memory", "out of memory", "not enough memory"];

/// Returns the peak resident memory of the process in bytes; None where `/proc` does not tell.
pub fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Replaces out-of-memory errors by advice.
pub fn explain_out_of_memory<T>(result: Result<T>) -> Result<T> {
    result.map_err(|error| {
        let text = format!("{error:#}").to_lowercase();
        if OUT_OF_MEMORY.iter().any(|words| text.contains(words)) {
            let cause = error.root_cause().to_string();
            return Error::msg(format!(
                "not enough memory: lower `batch` and raise `accumulate` by the same factor, which keeps the crops per \
                 step, or lower `crop` (libtorch: {})",
                cause.lines().next().unwrap_or_default()
            ));
        }
        error
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_out_of_memory_error_gives_advice() {
        let error = anyhow::anyhow!(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"
        )
        .context("step 3 failed");
        let message = explain_out_of_memory::<()>(Err(error)).unwrap_err().to_string();
        for word in ["`batch`", "`accumulate`", "`crop`", "you tried 9 bytes"] {
            assert!(message.contains(word), "{message}");
        }
        let other = explain_out_of_memory::<()>(Err(anyhow::anyhow!("no such file")))
            .unwrap_err()
            .to_string();
        assert_eq!(other, "no such file");
    }

    #[test]
    fn peak_memory_is_known() {
        assert!(peak().unwrap() > 1 << 20);
    }
}
