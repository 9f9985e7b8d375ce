//! Time of a training step, part by part, and in alternation with the same step in PyTorch.
//!
//! `step [--threads N] [--pairs N] [TITLE]`; a part of a title selects its cases, `PROTOSEG_TORCH_PYTHON` names the Python
//! that runs the peer. `--test` only takes one step of a small case, without the peer.

mod parts;
mod peer;
#[path = "../../examples/sample_step/mod.rs"]
mod sample_step;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use parts::Parts;
use peer::Peer;
use protoseg_train::run::environment;
use sample_step::{STEP, SampleStep};

/// A step that is measured.
struct Case {
    title: &'static str,
    settings: &'static [&'static str],
    /// Steps measured part by part.
    steps: usize,
    /// Compares with PyTorch.
    paired: bool,
}

const CASES: [Case; 2] = [
    Case {
        title: "EfficientNet-Lite0, 4+4 crops of 256",
        settings: &["batch=4", "crop=256", "accumulate=1", "synthetic_size=[360, 480]", "cutmix=1"],
        steps: 10,
        paired: true,
    },
    Case {
        title: "ResNet-101, 1+1 crops of 257",
        settings: &[
            "network=deeplabv3plus-resnet101",
            "batch=1",
            "precise_bn_batches=0",
            "crop=257",
            "accumulate=1",
            "synthetic_size=[360, 480]",
            "cutmix=0",
            "warmup_steps=0",
        ],
        steps: 5,
        paired: false,
    },
];

/// The case of `--test`.
const TEST: Case = Case {
    title: "EfficientNet-Lite0, 2+2 crops of 96, once",
    settings: &["accumulate=1", "cutmix=1"],
    steps: 1,
    paired: false,
};

/// Unmeasured steps before the first measured one, which fill libtorch's caches.
const WARMUP_STEPS: usize = 2;

struct Arguments {
    threads: usize,
    pairs: usize,
    title: Option<String>,
    test: bool,
}

impl Arguments {
    fn read() -> Result<Self> {
        let cores = std::thread::available_parallelism().context("cannot count the cores")?.get();
        let mut read = Self { threads: cores, pairs: 20, title: None, test: false };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut number = || {
                words.next().and_then(|number| number.parse().ok()).context("a number is missing")
            };
            match word.as_str() {
                "--threads" => read.threads = number()?,
                "--pairs" => read.pairs = number()?,
                // cargo passes it to every bench.
                "--bench" => {}
                "--test" => read.test = true,
                _ if word.starts_with("--") => {
                    bail!("usage: step [--threads N] [--pairs N] [--test] [TITLE]")
                }
                _ => read.title = Some(word),
            }
        }
        Ok(read)
    }
}

fn main() -> Result<()> {
    environment::set_passive_waiting();
    let arguments = Arguments::read()?;
    tch::set_num_threads(i32::try_from(arguments.threads)?);
    let malloc: Vec<String> = std::env::vars()
        .filter(|(name, _)| name.starts_with("MALLOC_") || name == "GLIBC_TUNABLES")
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let allocator = if malloc.is_empty() { "default".to_owned() } else { malloc.join(" ") };
    say(&format!("threads: {}; allocator: {allocator}", arguments.threads));
    let wanted =
        |case: &&Case| arguments.title.as_ref().is_none_or(|title| case.title.contains(title));
    let cases: &[Case] = if arguments.test { &[TEST] } else { &CASES };
    for case in cases.iter().filter(wanted) {
        say(&format!("\n{}", case.title));
        let settings: Vec<String> =
            case.settings.iter().map(|setting| (*setting).to_owned()).collect();
        let sample = SampleStep::new(&settings)?;
        Parts::measure(&sample, case.steps)?.print();
        if case.paired && arguments.pairs > 0 {
            match Peer::python() {
                Some(python) => compare(&sample, &python, &arguments)?,
                None => {
                    say(
                        "not compared with PyTorch: PROTOSEG_TORCH_PYTHON names no Python that has it",
                    );
                }
            }
        }
    }
    Ok(())
}

/// Times the same step here and in PyTorch, in alternation.
fn compare(sample: &SampleStep, python: &std::ffi::OsStr, arguments: &Arguments) -> Result<()> {
    let mut learner = sample.learner()?;
    let batches = sample.batches()?;
    let folder = tempfile::tempdir()?;
    sample_step::files::write_inputs(folder.path(), sample, &learner, &batches)?;
    let mut peer = Peer::start(python, folder.path(), arguments.threads)?;
    let mut pair = || -> Result<[StepTime; 2]> {
        let start = Instant::now();
        let before = StepTime::processor("self")?;
        learner.step(&batches, STEP)?;
        let clock = start.elapsed();
        let ours = StepTime { clock, processor: StepTime::processor("self")? - before };
        let before = StepTime::processor(&peer.id())?;
        let clock = peer.step()?;
        Ok([ours, StepTime { clock, processor: StepTime::processor(&peer.id())? - before }])
    };
    for _ in 0..WARMUP_STEPS {
        pair()?;
    }
    say("pair  this, ms  PyTorch, ms  ratio  of processor time");
    let mut ratios = Vec::new();
    let mut processor_ratios = Vec::new();
    for number in 1..=arguments.pairs {
        let [ours, theirs] = pair()?;
        let ratio = ours.clock.as_secs_f64() / theirs.clock.as_secs_f64();
        let processor_ratio = ours.processor.as_secs_f64() / theirs.processor.as_secs_f64();
        let [ours, theirs] = [ours, theirs].map(|time| time.clock.as_millis());
        say(&format!("{number:4}  {ours:8}  {theirs:11}  {ratio:5.3}  {processor_ratio:5.3}"));
        ratios.push(ratio);
        processor_ratios.push(processor_ratio);
    }
    for (title, ratios) in
        [("ratio", &mut ratios), ("ratio of processor time", &mut processor_ratios)]
    {
        ratios.sort_by(f64::total_cmp);
        let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
        say(&format!("{title}: median {:.3}, {least:.3} to {most:.3}", median(ratios)));
    }
    Ok(())
}

/// Cost of a step.
struct StepTime {
    clock: Duration,
    /// Of all threads; less disturbed by other processes than the clock.
    processor: Duration,
}

impl StepTime {
    /// Returns the processor time of a process so far, in steps of 10 ms.
    fn processor(process: &str) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
        // The second field, a name in brackets, may hold spaces; user and system time are the fields 14 and 15.
        let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat has no name")?;
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
        Ok(Duration::from_millis(10 * ticks.sum::<Result<u64, _>>()?))
    }
}

/// Returns the median of sorted numbers.
fn median(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        (sorted[half - 1] + sorted[half]) / 2.0
    } else {
        sorted[half]
    }
}

#[expect(clippy::print_stdout, reason = "the figures are the result")]
fn say(line: &str) {
    println!("{line}");
}
