//! Fair queueing by virtual finish time (Demers, Keshav, Shenker 1989), where the cost of an image
//! is the pixels of its tiles.
//!
//! An image of cost `s` that arrives when `c` pixels have been handed out has the finish time `c +
//! s`, and the earliest goes first. Small images overtake a large one until they have had as many
//! pixels as it has; then it runs, and those that arrive meanwhile wait for it once.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

/// Largest batch of windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimit {
    pub windows: usize,
    /// Of all windows together; a single window may have more.
    pub pixels: u64,
}

/// Default batch on a GPU: more windows fill it no better, and wait for each other.
const GPU_WINDOWS: usize = 8;

const DEFAULT_PIXELS: u64 = 8_000_000;

impl BatchLimit {
    /// Returns the limit for a number of windows, by default 8 on a GPU and 1 on a CPU.
    pub fn default_for(windows: Option<NonZeroUsize>, gpu: bool) -> Self {
        let default = if gpu { GPU_WINDOWS } else { 1 };
        Self { windows: windows.map_or(default, NonZeroUsize::get), pixels: DEFAULT_PIXELS }
    }
}

/// Images in the queue, with their tiles that have not been handed out.
#[derive(Debug)]
pub(super) struct FairQueue<J> {
    /// By finish time, then by arrival.
    entries: BTreeMap<(u64, u64), QueueEntry<J>>,
    /// Pixels handed out so far: the virtual time.
    handed_out: u64,
    arrived: u64,
}

#[derive(Debug)]
struct QueueEntry<J> {
    job: J,
    next: usize,
    shape: JobShape,
}

/// Tiles of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct JobShape {
    pub(super) count: usize,
    /// Height and width.
    pub(super) tile: [usize; 2],
    /// Not to be batched with others.
    pub(super) alone: bool,
}

impl JobShape {
    fn tile_pixels(self) -> u64 {
        (self.tile[0] as u64).saturating_mul(self.tile[1] as u64)
    }

    fn pixels_from(self, next: usize) -> u64 {
        self.tile_pixels().saturating_mul((self.count - next) as u64)
    }
}

impl<J: Clone> FairQueue<J> {
    pub(super) fn new() -> Self {
        Self { entries: BTreeMap::new(), handed_out: 0, arrived: 0 }
    }

    pub(super) fn push(&mut self, job: J, shape: JobShape) {
        let finish = self.handed_out.saturating_add(shape.pixels_from(0));
        self.entries.insert((finish, self.arrived), QueueEntry { job, next: 0, shape });
        self.arrived += 1;
    }

    /// Returns the pixels that would run until an image of so many is done, if nothing arrived
    /// after it.
    pub(super) fn pixels_until(&self, pixels: u64) -> u64 {
        let finish = self.handed_out.saturating_add(pixels);
        self.entries
            .range(..=(finish, u64::MAX))
            .map(|(_, entry)| entry.shape.pixels_from(entry.next))
            .fold(pixels, u64::saturating_add)
    }

    pub(super) fn remove_if(&mut self, remove: impl Fn(&J) -> bool) {
        self.entries.retain(|_, entry| !remove(&entry.job));
    }

    pub(super) fn first(&self) -> Option<&J> {
        self.entries.first_key_value().map(|(_, entry)| &entry.job)
    }

    /// Returns the number of tiles in the queue, and their pixels.
    pub(super) fn waiting(&self) -> (usize, u64) {
        self.entries.values().fold((0, 0), |(tiles, pixels), QueueEntry { shape, next, .. }| {
            (tiles + shape.count - next, pixels.saturating_add(shape.pixels_from(*next)))
        })
    }

    /// Takes the next batch of tiles of one size; empty where nothing waits.
    pub(super) fn take_batch(&mut self, limit: BatchLimit) -> Vec<(J, usize)> {
        let mut batch: Vec<(J, usize)> = Vec::new();
        let mut pixels = 0_u64;
        let mut first: Option<JobShape> = None;
        let mut done = Vec::new();
        for (&key, entry) in &mut self.entries {
            let shape = entry.shape;
            if first.is_some_and(|first| first.tile != shape.tile || first.alone || shape.alone) {
                continue;
            }
            let max_windows = if shape.alone { 1 } else { limit.windows.max(1) };
            while entry.next < shape.count
                && batch.len() < max_windows
                && (batch.is_empty() || pixels.saturating_add(shape.tile_pixels()) <= limit.pixels)
            {
                batch.push((entry.job.clone(), entry.next));
                entry.next += 1;
                pixels = pixels.saturating_add(shape.tile_pixels());
                first = Some(shape);
            }
            if entry.next < shape.count {
                break;
            }
            done.push(key);
            if batch.len() >= max_windows {
                break;
            }
        }
        for key in done {
            self.entries.remove(&key);
        }
        self.handed_out = self.handed_out.saturating_add(pixels);
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn windows(count: usize) -> JobShape {
        JobShape { count, tile: [10, 10], alone: false }
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
    fn equal_images_are_served_in_order_and_share_batches() {
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
        // Three fit by pixels; of larger tiles, one is taken.
        assert_eq!(
            order(&mut queue, BatchLimit { windows: 4, pixels: 399 }),
            ["a0 a1 a2", "b0 b1 b2"]
        );
        queue.push('x', windows(2));
        assert_eq!(order(&mut queue, BatchLimit { windows: 4, pixels: 5 }), ["x0", "x1"]);
    }

    #[test]
    fn small_images_overtake_a_large_one_by_at_most_its_own_pixels() {
        let mut queue = FairQueue::new();
        queue.push('L', windows(5));
        // The wait of a small image does not include the large one.
        assert_eq!((queue.pixels_until(100), queue.pixels_until(600)), (100, 1100));
        let mut served = String::new();
        // A small image arrives before every batch.
        for _ in 0..14 {
            queue.push('s', windows(1));
            for (job, _) in queue.take_batch(ONE) {
                served.push(job);
            }
        }
        // Five images' worth of pixels pass the large one, then it runs.
        assert_eq!(served, "ssssLLLLLsssss");
    }

    #[test]
    fn sizes_do_not_mix_and_removed_jobs_cost_nothing() {
        let mut queue = FairQueue::new();
        queue.push('a', windows(1));
        queue.push('w', JobShape { count: 1, tile: [10, 12], alone: false });
        queue.push('f', JobShape { count: 1, tile: [10, 10], alone: true });
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
