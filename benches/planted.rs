//! Power and false alarms of `protoseg bench --against`: one bundle twice, where each query of one
//! side spins for 10 % of its own time, or not. `cargo bench --bench planted -- BUNDLE [SESSIONS
//! [PAIRS]]` fails where a slowdown is missed or more than 5 % of the sessions without one report a
//! difference.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

use std::path::Path;
use std::time::{Duration, Instant};

use protoseg_bench::ab::{self, AbComparison, AbVerdict};
use protoseg_bench::images::BenchImages;
use protoseg_bench::in_process::{InProcessTarget, OpenOptions};
use protoseg_bench::load::{RequestError, RequestStages, Scenario, StopAfter, Target};
use protoseg_bench::measure::{Measurement, WarmUpPolicy};
use protoseg_bench::stability::StabilityRule;
use protoseg_infer::EngineConfig;
use protoseg_models::window::Tiling;

/// Slowdown of the slower side.
const SLOWDOWN: f64 = 0.1;

/// Height and width of the images, which are run whole.
const SIZE: [usize; 2] = [128, 256];

/// Time of each side of a session.
const TIME: Duration = Duration::from_secs(8);

const SCENARIO: Scenario = Scenario::SingleStream;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let Some(bundle) = words.first() else {
        println!(
            "planted: skipped without a bundle; cargo bench --bench planted -- runs/demo/bundle"
        );
        return Ok(());
    };
    let sessions: usize = words.get(1).map_or(Ok(20), |word| word.parse())?;
    let pairs: usize = words.get(2).map_or(Ok(20), |word| word.parse())?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut detected = 0;
    let mut false_alarms = 0;
    for session in 0..sessions {
        for (count, slowdown) in [(&mut detected, SLOWDOWN), (&mut false_alarms, 0.0)] {
            let comparison = runtime.block_on(compare(Path::new(bundle), slowdown, pairs))?;
            println!("{session}: slowdown {:.0} %, {comparison}", 100.0 * slowdown);
            *count += usize::from(comparison.verdict != AbVerdict::NoDifference);
        }
    }
    println!("detected {detected} of {sessions}, false alarms {false_alarms} of {sessions}");
    if detected < sessions || false_alarms * 20 > sessions {
        return Err("a slowdown was missed, or there are too many false alarms".into());
    }
    Ok(())
}

/// A model that spins after each query.
struct Slowed {
    model: InProcessTarget,
    slowdown: f64,
}

impl Target for Slowed {
    async fn request(&self, image: usize) -> Result<RequestStages, RequestError> {
        let start = Instant::now();
        let answer = self.model.request(image).await;
        let end = start + start.elapsed().mul_f64(1.0 + self.slowdown);
        while Instant::now() < end {
            std::hint::spin_loop();
        }
        answer
    }
}

/// Opens a bundle twice, and compares the two in interleaved blocks.
async fn compare(
    bundle: &Path,
    slowdown: f64,
    pairs: usize,
) -> Result<AbComparison, Box<dyn std::error::Error>> {
    let images = BenchImages::synthetic(8, SIZE, 0)?;
    let config = EngineConfig { window: Some(Tiling::Whole), ..EngineConfig::default() };
    let options = OpenOptions { config, ..OpenOptions::default() };
    let open = || InProcessTarget::open(bundle, SCENARIO, &images, &options);
    let one = Slowed { model: open()?, slowdown: 0.0 };
    let other = Slowed { model: open()?, slowdown };
    let rule = StabilityRule { seconds: 0.5, queries: 3, ..StabilityRule::default() };
    let measurement = Measurement {
        scenario: SCENARIO,
        warm_up: WarmUpPolicy::Stable(rule),
        until: StopAfter::Time(TIME, 3),
        seed: 0,
        pixels: images.mean_pixels(),
    };
    Ok(ab::measure(&measurement, [("once", &one), ("again", &other)], pairs).await?.1)
}
