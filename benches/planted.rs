//! Whether `protoseg bench --against` finds a slow-down that was planted, and none where there is none: one bundle twice, where
//! every query of one side spins for a tenth of its own time longer, or not. `cargo bench --bench planted -- BUNDLE [SESSIONS
//! [PAIRS]]` prints the tally of so many sessions each way, and fails where one is missed or more than one in twenty is made up.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it found")]

use std::path::Path;
use std::time::{Duration, Instant};

use protoseg_bench::ab;
use protoseg_bench::ab::{AbComparison, AbVerdict};
use protoseg_bench::images::BenchImages;
use protoseg_bench::in_process::{InProcessTarget, OpenOptions};
use protoseg_bench::load::Scenario;
use protoseg_bench::load::StopAfter;
use protoseg_bench::load::{RequestError, RequestStages, Target};
use protoseg_bench::measure::{Measurement, WarmUpPolicy};
use protoseg_bench::stability::StabilityRule;
use protoseg_infer::EngineConfig;
use protoseg_models::window::Tiling;

/// How much longer the slower side takes.
const PLANTED: f64 = 0.1;

/// Pictures that are run whole, a few in every block: height and width.
const SIZE: [usize; 2] = [128, 256];

/// Seconds for which each side of a session is measured.
const SECONDS: u64 = 8;

const SCENARIO: Scenario = Scenario::SingleStream;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let Some(bundle) = words.first() else {
        println!(
            "planted: skipped, as no bundle is named; cargo bench --bench planted -- runs/demo/bundle"
        );
        return Ok(());
    };
    let sessions: usize = words.get(1).map_or(Ok(20), |word| word.parse())?;
    let pairs: usize = words.get(2).map_or(Ok(20), |word| word.parse())?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut tally = [0, 0];
    for session in 0..sessions {
        for (found, by) in tally.iter_mut().zip([PLANTED, 0.0]) {
            let against = runtime.block_on(session_of(Path::new(bundle), by, pairs))?;
            println!("{session}: {:.0} % planted, {against}", 100.0 * by);
            *found += usize::from(against.verdict != AbVerdict::NoDifference);
        }
    }
    let [found, made_up] = tally;
    println!("found {found} of {sessions}, made up {made_up} of {sessions}");
    if found < sessions || made_up * 20 > sessions {
        return Err("the planted slow-down was missed, or one was found that is not there".into());
    }
    Ok(())
}

/// A model whose queries take longer.
struct Slowed {
    model: InProcessTarget,
    by: f64,
}

impl Target for Slowed {
    async fn request(&self, picture: usize) -> Result<RequestStages, RequestError> {
        let start = Instant::now();
        let answer = self.model.request(picture).await;
        let end = start + start.elapsed().mul_f64(1.0 + self.by);
        while Instant::now() < end {
            std::hint::spin_loop();
        }
        answer
    }
}

/// Opens a bundle twice, and measures the two in turns.
async fn session_of(
    bundle: &Path,
    by: f64,
    pairs: usize,
) -> Result<AbComparison, Box<dyn std::error::Error>> {
    let images = BenchImages::synthetic(8, SIZE, 0)?;
    let config = EngineConfig { window: Some(Tiling::Whole), ..EngineConfig::default() };
    let how = OpenOptions { config, ..OpenOptions::default() };
    let open = |by| {
        Ok::<_, Box<dyn std::error::Error>>(Slowed {
            model: InProcessTarget::open(bundle, SCENARIO, &images, &how)?,
            by,
        })
    };
    let (one, other) = (open(0.0)?, open(by)?);
    let measure = Measurement {
        scenario: SCENARIO,
        warm_up: WarmUpPolicy::Stable(StabilityRule {
            seconds: 0.5,
            queries: 3,
            ..StabilityRule::default()
        }),
        until: StopAfter::Time(Duration::from_secs(SECONDS), 3),
        seed: 0,
        pixels: images.mean_pixels(),
    };
    Ok(ab::measure(&measure, [("once", &one), ("again", &other)], pairs).await?.1)
}
