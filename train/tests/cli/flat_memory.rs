//! Resident memory over a long run.

use std::process::Stdio;
use std::time::Duration;

use crate::support::{command, folder};

/// Tolerated growth, as allocators return memory late.
const NOISE: u64 = 16 << 20;

fn resident(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[test]
fn resident_memory_is_flat_over_300_steps_after_the_50th() {
    let (_folder, path) = folder();
    let settings = ["steps=1000", "warmup_steps=10", "mode=prototype", "save_every=100", "crop=48"];
    let mut child = command(&path("run"), &settings, &["--stop-after", "350"])
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // (step, resident bytes) during the run.
    let mut seen: Vec<(u64, u64)> = Vec::new();
    while child.try_wait().unwrap().is_none() {
        let log = std::fs::read_to_string(path("run/log.jsonl")).unwrap_or_default();
        let step = log.matches("\"event\":\"step\"").count() as u64;
        seen.extend(resident(child.id()).map(|resident| (step, resident)));
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(child.wait().unwrap().success());
    let highest = |from: u64, to: u64| {
        seen.iter()
            .filter(|(step, _)| (from..to).contains(step))
            .map(|(_, resident)| *resident)
            .max()
            .unwrap()
    };
    let (early, late) = (highest(50, 150), highest(250, 351));
    assert!(late <= early + NOISE, "{} MB early, {} MB late", early >> 20, late >> 20);
}
