//! A mask as COCO's run-length counts, in their compressed form: letters that hold five bits each.

use super::runs::Run;

/// The counts of a mask that is given run by run, down the columns; with its area and its box.
#[derive(Debug)]
pub(super) struct CocoRle {
    height: usize,
    /// The letters.
    text: String,
    /// The last count but one, and the last.
    last: [i64; 2],
    /// How many there are.
    count: usize,
    /// Pixels that are counted.
    end: usize,
    /// Pixels of the mask.
    pub(super) area: usize,
    /// First and last row and column of the mask.
    rows: [usize; 2],
    columns: [usize; 2],
}

impl CocoRle {
    /// Of an empty mask.
    pub(super) fn new(height: usize) -> Self {
        let none = [usize::MAX, 0];
        Self {
            height,
            text: String::new(),
            last: [0; 2],
            count: 0,
            end: 0,
            area: 0,
            rows: none,
            columns: none,
        }
    }

    /// Adds a run of the mask; runs come in order.
    pub(super) fn push(&mut self, run: Run) {
        self.add(run.start - self.end);
        self.add(run.length);
        self.end = run.start + run.length;
        self.area += run.length;
        let last = self.end - 1;
        let columns = [run.start / self.height, last / self.height];
        let rows = if columns[0] == columns[1] {
            [run.start, last].map(|at| at % self.height)
        } else {
            [0, self.height - 1]
        };
        let widen =
            |[first, last]: [usize; 2], more: [usize; 2]| [first.min(more[0]), last.max(more[1])];
        (self.rows, self.columns) = (widen(self.rows, rows), widen(self.columns, columns));
    }

    /// The letters for a map of so many pixels.
    pub(super) fn finish(mut self, pixels: usize) -> String {
        if self.end < pixels {
            self.add(pixels - self.end);
        }
        self.text
    }

    /// Left, top, width and height.
    pub(super) fn bounds(&self) -> [usize; 4] {
        let extent = |[first, last]: [usize; 2]| last + 1 - first;
        [self.columns[0], self.rows[0], extent(self.columns), extent(self.rows)]
    }

    /// From the fourth on, a count is told by its difference from the last but one. Five bits a letter, the lowest first; a
    /// sixth says that more follow.
    fn add(&mut self, count: usize) {
        let count = count as i64;
        let mut rest = if self.count > 2 { count - self.last[0] } else { count };
        self.last = [self.last[1], count];
        self.count += 1;
        loop {
            let bits = (rest & 0x1f) as u8;
            rest >>= 5;
            let ends = rest == if bits & 0x10 == 0 { 0 } else { -1 };
            self.text.push(char::from(48 + if ends { bits } else { bits | 0x20 }));
            if ends {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written from pycocotools' description of its letters, in the other direction.
    pub(super) fn decode(text: &str) -> Vec<i64> {
        let mut counts: Vec<i64> = Vec::new();
        let mut letters = text.bytes();
        while let Some(first) = letters.next() {
            let (mut value, mut shift, mut letter) = (0_i64, 0, first - 48);
            loop {
                value |= i64::from(letter & 0x1f) << shift;
                shift += 5;
                if letter & 0x20 == 0 {
                    break;
                }
                letter = letters.next().unwrap() - 48;
            }
            if letter & 0x10 != 0 {
                value -= 1 << shift;
            }
            counts.push(if counts.len() > 2 { value + counts[counts.len() - 2] } else { value });
        }
        counts
    }

    #[test]
    fn counts_alternate_and_survive_their_letters() {
        let mut counts = CocoRle::new(10);
        for (start, length) in [(0, 3), (12, 2), (25, 100_000), (100_040, 1)] {
            counts.push(Run { label: 0, start, length });
        }
        assert_eq!((counts.area, counts.bounds()), (100_006, [0, 0, 10_005, 10]));
        let text = counts.finish(200_000);
        assert_eq!(decode(&text), [0, 3, 9, 2, 11, 100_000, 15, 1, 99_959]);
    }

    #[test]
    fn the_box_of_short_runs_is_tight() {
        let mut counts = CocoRle::new(10);
        counts.push(Run { label: 0, start: 34, length: 2 });
        counts.push(Run { label: 0, start: 53, length: 1 });
        assert_eq!(counts.bounds(), [3, 3, 3, 3]);
        assert_eq!(decode(&counts.finish(54)), [34, 2, 17, 1]);
    }
}
