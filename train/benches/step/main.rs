//! What a step of training takes, part by part, and against the same step in PyTorch.
//!
//! `step [--threads N] [--pairs N] [TITLE]`, of which a part is enough; the peer runs in the Python that `PROTOSEG_TORCH_PYTHON` names.
//! `--test` takes one step of the first case at a small crop, without a peer: it shows that the bench works and measures nothing.

mod parts;
mod peer;
#[path = "../../examples/sample_step/mod.rs"]
mod sample_step;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use parts::Parts;
use peer::Peer;
use protoseg_train::run::openmp;
use sample_step::SampleStep;

/// A step that is measured.
struct Case {
    title: &'static str,
    settings: &'static [&'static str],
    /// Steps that are measured part by part.
    steps: usize,
    /// Whether PyTorch takes it too.
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

/// What `--test` takes instead.
const TEST: Case = Case {
    title: "EfficientNet-Lite0, 2+2 crops of 96, once",
    settings: &["accumulate=1", "cutmix=1"],
    steps: 1,
    paired: false,
};

/// Steps before the first that counts: libtorch's caches are cold.
const UNCOUNTED: usize = 2;

struct Arguments {
    threads: usize,
    pairs: usize,
    /// The words of a title that are looked for.
    only: Option<String>,
    /// Whether it is only to be seen that the bench works.
    test: bool,
}

impl Arguments {
    fn read() -> Result<Self> {
        let cores = std::thread::available_parallelism().context("cannot count the cores")?.get();
        let mut read = Self { threads: cores, pairs: 20, only: None, test: false };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut number = || {
                words.next().and_then(|number| number.parse().ok()).context("a number is missing")
            };
            match word.as_str() {
                "--threads" => read.threads = number()?,
                "--pairs" => read.pairs = number()?,
                // What cargo says to every bench.
                "--bench" => {}
                "--test" => read.test = true,
                _ if word.starts_with("--") => {
                    bail!("usage: step [--threads N] [--pairs N] [--test] [TITLE]")
                }
                _ => read.only = Some(word),
            }
        }
        Ok(read)
    }
}

fn main() -> Result<()> {
    openmp::set_passive_waiting();
    let arguments = Arguments::read()?;
    tch::set_num_threads(i32::try_from(arguments.threads)?);
    let malloc = std::env::vars()
        .filter(|(name, _)| name.starts_with("MALLOC_") || name == "GLIBC_TUNABLES");
    let malloc: Vec<String> = malloc.map(|(name, value)| format!("{name}={value}")).collect();
    say(&format!(
        "threads: {}; allocator: {}",
        arguments.threads,
        if malloc.is_empty() { "as it is".to_owned() } else { malloc.join(" ") }
    ));
    let wanted = |case: &&Case| {
        arguments.only.as_ref().is_none_or(|only| case.title.contains(only.as_str()))
    };
    let cases: &[Case] = if arguments.test { &[TEST] } else { &CASES };
    for case in cases.iter().filter(wanted) {
        say(&format!("\n{}", case.title));
        let settings: Vec<String> =
            case.settings.iter().map(|setting| (*setting).to_owned()).collect();
        let setting = SampleStep::new(&settings)?;
        Parts::measure(&setting, case.steps)?.print();
        if case.paired && arguments.pairs > 0 {
            match Peer::python() {
                Some(python) => race(&setting, &python, &arguments)?,
                None => {
                    say("PyTorch was not timed: PROTOSEG_TORCH_PYTHON names no Python that has it")
                }
            }
        }
    }
    Ok(())
}

/// Lets both take the same step in turn.
fn race(setting: &SampleStep, python: &std::ffi::OsStr, arguments: &Arguments) -> Result<()> {
    let (mut state, batches) = (setting.state()?, setting.batches()?);
    let folder = tempfile::tempdir()?;
    sample_step::files::write_inputs(folder.path(), setting, &state, &batches)?;
    let mut peer = Peer::start(python, folder.path(), arguments.threads)?;
    let mut pair = || -> Result<[Taken; 2]> {
        let (start, before) = (Instant::now(), Taken::processor("self")?);
        setting.step(&mut state, &batches)?;
        let ours = Taken { clock: start.elapsed(), processor: Taken::processor("self")? - before };
        let before = Taken::processor(&peer.id())?;
        Ok([ours, Taken { clock: peer.step()?, processor: Taken::processor(&peer.id())? - before }])
    };
    for _ in 0..UNCOUNTED {
        pair()?;
    }
    say("pair  this, ms  PyTorch, ms  ratio  of processor time");
    let mut ratios = [Vec::new(), Vec::new()];
    for number in 1..=arguments.pairs {
        let [ours, theirs] = pair()?;
        let ratio = ours.clock.as_secs_f64() / theirs.clock.as_secs_f64();
        let of_processor = ours.processor.as_secs_f64() / theirs.processor.as_secs_f64();
        let [ours, theirs] = [ours, theirs].map(|taken| taken.clock.as_millis());
        say(&format!("{number:4}  {ours:8}  {theirs:11}  {ratio:5.3}  {of_processor:5.3}"));
        ratios[0].push(ratio);
        ratios[1].push(of_processor);
    }
    for (title, ratios) in ["ratio", "ratio of processor time"].into_iter().zip(&mut ratios) {
        ratios.sort_by(f64::total_cmp);
        let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
        say(&format!("{title}: median {:.3}, {least:.3} to {most:.3}", median(ratios)));
    }
    Ok(())
}

/// What a step takes.
struct Taken {
    clock: Duration,
    /// Of all threads: on a machine that is shared, it says more than the clock.
    processor: Duration,
}

impl Taken {
    /// Processor time of a process so far, in steps of 10 ms.
    fn processor(process: &str) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
        // The second field, a name in brackets, may hold spaces; times of user and system are the 14th and the 15th.
        let (_, fields) = stat.rsplit_once(')').context("/proc is not as it should be")?;
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
        Ok(Duration::from_millis(10 * ticks.sum::<Result<u64, _>>()?))
    }
}

/// Of sorted numbers.
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
