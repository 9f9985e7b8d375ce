//! What came of a run, and where its time went: how busy each stage's threads were, and what would make it faster.

use std::time::Duration;

use serde::Serialize;

/// Share of the time from which on threads count as fully at work.
const BUSY: f64 = 0.5;

/// What came of a run.
#[derive(Debug)]
pub struct PipelineReport<E> {
    /// How many items went through all stages.
    pub done: usize,
    /// The items that failed, by index, and why.
    pub failed: Vec<(usize, E)>,
    /// The error that ended the run early, if one did.
    pub stopped: Option<E>,
    /// Whether the stop signal came before every item was begun.
    pub interrupted: bool,
    /// Work by stage.
    pub stages: StageReport,
    /// Time that passed.
    pub elapsed: Duration,
}

/// Work in one stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct StageWork {
    /// Seconds of work, of all threads together.
    pub seconds: f64,
    /// Threads that do it, among other things.
    pub threads: usize,
    /// Those seconds over what these threads had, from 0 to 1.
    pub busy: f64,
}

/// Work in each stage. Stages overlap, so that their seconds may exceed the time that passed.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct StageReport {
    /// Reading and decoding pictures, by the readers.
    pub decode: StageWork,
    /// The network, by the owners of the sessions.
    pub run: StageWork,
    /// Putting windows together, by the owners of the sessions.
    pub stitch: StageWork,
    /// Upsampling and choosing labels, by the writers.
    pub decide: StageWork,
    /// What is done with the labels, by the writers.
    pub encode: StageWork,
    /// What holds the run up, as a sentence.
    pub bottleneck: String,
}

/// Seconds of each stage, while they are counted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seconds {
    pub(super) decode: f64,
    pub(super) run: f64,
    pub(super) stitch: f64,
    pub(super) decide: f64,
    pub(super) encode: f64,
}

/// How many threads take part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Threads {
    pub(super) readers: usize,
    pub(super) owners: usize,
    pub(super) writers: usize,
}

impl StageReport {
    pub(super) fn new(seconds: Seconds, threads: Threads, elapsed: Duration) -> Self {
        let stage = |seconds: f64, threads: usize| {
            let had = elapsed.as_secs_f64() * threads as f64;
            StageWork {
                seconds,
                threads,
                busy: if had > 0.0 { (seconds / had).min(1.0) } else { 0.0 },
            }
        };
        let mut stages = Self {
            decode: stage(seconds.decode, threads.readers),
            run: stage(seconds.run, threads.owners),
            stitch: stage(seconds.stitch, threads.owners),
            decide: stage(seconds.decide, threads.writers),
            encode: stage(seconds.encode, threads.writers),
            bottleneck: String::new(),
        };
        stages.bottleneck = stages.sentence();
        stages
    }

    /// The threads that are busiest, by the work that takes most of their time, and what would relieve them.
    fn sentence(&self) -> String {
        let Self { decode, run, stitch, decide, encode, .. } = self;
        let groups: [&[Named<'_>]; 3] = [
            &[(decode, DECODE)],
            &[(run, RUN), (stitch, STITCH)],
            &[(decide, DECIDE), (encode, ENCODE)],
        ];
        let share = |group: &[Named<'_>]| group.iter().map(|(stage, _)| stage.busy).sum::<f64>();
        let busiest = groups.into_iter().max_by(|one, other| share(one).total_cmp(&share(other)));
        let most = busiest.filter(|group| share(group) >= BUSY).and_then(|group| {
            group.iter().max_by(|(one, _), (other, _)| one.busy.total_cmp(&other.busy))
        });
        match most {
            Some((stage, [what, help])) => {
                format!("{what} is busy {:.0} % of the time: {help}", 100.0 * stage.busy)
            }
            None => "nothing is busy half of the time: too few pictures to keep all stages at work"
                .to_owned(),
        }
    }
}

/// A stage, what it is called, and what would relieve it.
type Named<'a> = (&'a StageWork, [&'static str; 2]);

const DECODE: [&str; 2] =
    ["reading pictures", "a faster disk, more cores or smaller files would help"];
const RUN: [&str; 2] = ["the network", "more cores, a faster device or fewer windows would help"];
const STITCH: [&str; 2] = ["putting windows together", "more cores or fewer windows would help"];
const DECIDE: [&str; 2] = ["upsampling", "more cores or smaller pictures would help"];
const ENCODE: [&str; 2] =
    ["writing results", "a faster disk, more cores or fewer formats would help"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_threads_hold_the_run_up() {
        let threads = Threads { readers: 2, owners: 1, writers: 4 };
        let ten = Duration::from_secs(10);
        let network = Seconds { decode: 4.0, run: 9.7, stitch: 0.2, decide: 3.0, encode: 6.0 };
        let stages = StageReport::new(network, threads, ten);
        assert_eq!((stages.decode.busy, stages.run.busy, stages.encode.busy), (0.2, 0.97, 0.15));
        assert!(
            stages.bottleneck.starts_with("the network is busy 97 % of the time: more cores"),
            "{stages:?}"
        );
        // Together the writers' two kinds of work outweigh the network; of the two, encoding is more.
        let writers = Seconds { run: 6.0, decide: 12.0, encode: 20.0, ..network };
        let stages = StageReport::new(writers, threads, ten);
        assert!(stages.bottleneck.starts_with("writing results is busy 50 % "), "{stages:?}");
        let stages = StageReport::new(Seconds { run: 3.0, ..Seconds::default() }, threads, ten);
        assert!(stages.bottleneck.starts_with("nothing is busy"), "{stages:?}");
        assert_eq!(StageReport::new(network, threads, Duration::ZERO).run.busy, 0.0);
    }
}
