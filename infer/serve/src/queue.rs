//! Which pieces of which pictures run next: first come, first served among pictures alike, and small ones before large ones
//! for a while.
//!
//! A picture that comes when `c` pixels have been handed out, and has `s` itself, has its turn at `c + s`; the earliest turn
//! goes first. Small pictures so overtake a large one that came before them, until they have had as many pixels as it has;
//! then it runs, and those that come meanwhile wait for it once.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

/// What one run of the network takes at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimit {
    /// Tiling.
    pub windows: usize,
    /// Pixels of all pieces together; a single piece may have more.
    pub pixels: u64,
}

/// Windows that a GPU runs at once where nobody says otherwise; more fill it no better, and wait for each other.
const GPU_PIECES: usize = 8;

/// Pixels that a run takes where nobody says otherwise.
const PIXELS: u64 = 8_000_000;

impl BatchLimit {
    /// What a run takes where nobody says more than how many pieces.
    pub fn default_for(pieces: Option<NonZeroUsize>, gpu: bool) -> Self {
        let pieces = pieces.map_or(if gpu { GPU_PIECES } else { 1 }, NonZeroUsize::get);
        Self { windows: pieces, pixels: PIXELS }
    }
}

/// Pictures that wait, with the pieces of them that have not been handed out.
#[derive(Debug)]
pub(super) struct FairQueue<J> {
    waiting: BTreeMap<(u64, u64), QueueEntry<J>>,
    handed_out: u64,
    came: u64,
}

#[derive(Debug)]
struct QueueEntry<J> {
    job: J,
    next: usize,
    shape: JobShape,
}

/// What a picture asks of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct JobShape {
    /// How many pieces.
    pub(super) count: usize,
    /// Height and width of each.
    pub(super) piece: [usize; 2],
    /// Whether they run beside nothing else.
    pub(super) alone: bool,
}

impl JobShape {
    fn piece_pixels(self) -> u64 {
        (self.piece[0] as u64).saturating_mul(self.piece[1] as u64)
    }

    /// Pixels of pieces from one on.
    fn pixels_from(self, next: usize) -> u64 {
        self.piece_pixels().saturating_mul((self.count - next) as u64)
    }
}

impl<J: Clone> FairQueue<J> {
    pub(super) fn new() -> Self {
        Self { waiting: BTreeMap::new(), handed_out: 0, came: 0 }
    }

    /// Puts a picture in.
    pub(super) fn push(&mut self, job: J, shape: JobShape) {
        let turn = self.handed_out.saturating_add(shape.pixels_from(0));
        self.waiting.insert((turn, self.came), QueueEntry { job, next: 0, shape });
        self.came += 1;
    }

    /// Pixels of the pieces that would run before a picture's last, if nothing came after it: its own among them.
    pub(super) fn pixels_until(&self, pixels: u64) -> u64 {
        let turn = self.handed_out.saturating_add(pixels);
        let before = self.waiting.iter().filter(|((other, _), _)| *other <= turn);
        before
            .map(|(_, entry)| entry.shape.pixels_from(entry.next))
            .fold(pixels, u64::saturating_add)
    }

    /// Drops pictures that nobody waits for any more.
    pub(super) fn remove_if(&mut self, gone: impl Fn(&J) -> bool) {
        self.waiting.retain(|_, entry| !gone(&entry.job));
    }

    /// Whose turn is next.
    pub(super) fn first(&self) -> Option<&J> {
        self.waiting.first_key_value().map(|(_, entry)| &entry.job)
    }

    /// How many pieces wait, and how many pixels they have.
    pub(super) fn waiting(&self) -> (usize, u64) {
        let entries = || self.waiting.values();
        let pieces = entries().map(|entry| entry.shape.count - entry.next).sum();
        (
            pieces,
            entries().map(|entry| entry.shape.pixels_from(entry.next)).fold(0, u64::saturating_add),
        )
    }

    /// The pieces of one size that run next, as many as one run takes. None where nothing waits.
    pub(super) fn take_batch(&mut self, limit: BatchLimit) -> Vec<(J, usize)> {
        let mut batch: Vec<(J, usize)> = Vec::new();
        let mut pixels = 0_u64;
        let mut first: Option<JobShape> = None;
        let mut done = Vec::new();
        for (&turn, entry) in &mut self.waiting {
            let shape = entry.shape;
            if first.is_some_and(|first| first.piece != shape.piece || first.alone || shape.alone) {
                continue;
            }
            let most = if shape.alone { 1 } else { limit.windows.max(1) };
            while entry.next < shape.count
                && batch.len() < most
                && (batch.is_empty() || pixels.saturating_add(shape.piece_pixels()) <= limit.pixels)
            {
                batch.push((entry.job.clone(), entry.next));
                entry.next += 1;
                pixels = pixels.saturating_add(shape.piece_pixels());
                first = Some(shape);
            }
            if entry.next == shape.count {
                done.push(turn);
            } else {
                break;
            }
            if batch.len() >= most {
                break;
            }
        }
        for turn in done {
            self.waiting.remove(&turn);
        }
        self.handed_out = self.handed_out.saturating_add(pixels);
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn windows(count: usize) -> JobShape {
        JobShape { count, piece: [10, 10], alone: false }
    }

    const ONE: BatchLimit = BatchLimit { windows: 1, pixels: 1 << 20 };

    fn order(queue: &mut FairQueue<char>, limit: BatchLimit) -> Vec<String> {
        let batch = |queue: &mut FairQueue<char>| {
            let batch = queue.take_batch(limit);
            batch.iter().map(|(job, index)| format!("{job}{index}")).collect::<Vec<_>>().join(" ")
        };
        std::iter::from_fn(|| Some(batch(queue)).filter(|batch| !batch.is_empty())).collect()
    }

    #[test]
    fn pictures_alike_are_served_as_they_come_and_fill_batches_together() {
        let mut queue = FairQueue::new();
        for job in ['a', 'b', 'c'] {
            queue.push(job, windows(2));
        }
        assert_eq!(queue.waiting(), (6, 600));
        assert_eq!(
            order(&mut queue, BatchLimit { windows: 4, pixels: 1 << 20 }),
            ["a0 a1 b0 b1", "c0 c1"]
        );
        assert_eq!(queue.waiting(), (0, 0));
        for job in ['a', 'b'] {
            queue.push(job, windows(3));
        }
        // By pixels three fit; of a picture that is larger than all that, one piece does.
        assert_eq!(
            order(&mut queue, BatchLimit { windows: 4, pixels: 399 }),
            ["a0 a1 a2", "b0 b1 b2"]
        );
        queue.push('x', windows(2));
        assert_eq!(order(&mut queue, BatchLimit { windows: 4, pixels: 5 }), ["x0", "x1"]);
    }

    #[test]
    fn small_pictures_overtake_a_large_one_and_never_for_longer_than_its_own_size() {
        let mut queue = FairQueue::new();
        queue.push('L', windows(5));
        // What is told of a small one's wait does not hold the large one.
        assert_eq!((queue.pixels_until(100), queue.pixels_until(600)), (100, 1100));
        let mut served = String::new();
        // A small picture comes before every run.
        for _ in 0..14 {
            queue.push('s', windows(1));
            for (job, _) in queue.take_batch(ONE) {
                served.push(job);
            }
        }
        // Five of the large one's own size pass it; then it is its turn.
        assert_eq!(served, "ssssLLLLLsssss");
    }

    #[test]
    fn sizes_do_not_mix_and_who_left_costs_nothing() {
        let mut queue = FairQueue::new();
        queue.push('a', windows(1));
        queue.push('w', JobShape { count: 1, piece: [10, 12], alone: false });
        queue.push('f', JobShape { count: 1, piece: [10, 10], alone: true });
        queue.push('b', windows(1));
        queue.push('c', windows(1));
        let four = BatchLimit { windows: 4, pixels: 1 << 20 };
        queue.remove_if(|job| *job == 'b');
        assert_eq!(queue.take_batch(four), [('a', 0), ('c', 0)]);
        assert_eq!(queue.waiting().0, 2);
        assert_eq!(order(&mut queue, four), ["f0", "w0"]);
        queue.push('d', windows(3));
        queue.remove_if(|_| true);
        assert!(queue.take_batch(four).is_empty());
        assert_eq!(queue.waiting(), (0, 0));
    }
}
