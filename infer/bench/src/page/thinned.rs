//! Which of thousands of samples a chart shows.

use protoseg_pages::scale::is_plottable;

/// What a chart may show of samples in a row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Thinned {
    /// The samples that are shown, in their order.
    pub(super) points: Vec<(f64, f64)>,
    /// How many samples in a row they were taken from: of so many the fastest, the middle one and the slowest. 1 where all are
    /// shown.
    pub(super) each: usize,
    /// The middle one of longer stretches, where there are enough samples for a line.
    pub(super) middle: Vec<(f64, f64)>,
}

/// How many stretches a chart's samples are thinned to, where a page shows the samples of so many points.
pub(super) fn room(points: usize) -> usize {
    (3000 / points.max(1)).clamp(20, 150)
}

/// Thins samples, given as when and how long, to at most three of each of `room` stretches. What is no number is left out.
pub(super) fn samples(samples: &[(f64, f64)], room: usize) -> Thinned {
    let known: Vec<(f64, f64)> =
        samples.iter().copied().filter(|(x, y)| is_plottable(x) && is_plottable(y)).collect();
    let each = if known.len() <= 3 * room { 1 } else { known.len().div_ceil(room.max(1)) };
    let points =
        if each == 1 { known.clone() } else { known.chunks(each).flat_map(extremes).collect() };
    let stretch = known.len().div_ceil(LINE);
    let middle = if stretch < 3 { Vec::new() } else { known.chunks(stretch).map(middle).collect() };
    Thinned { points, each, middle }
}

/// Points of the line through the middle.
const LINE: usize = 24;

/// The fastest, the middle and the slowest, in the order in which they were sent.
fn extremes(stretch: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut ranks: Vec<usize> = (0..stretch.len()).collect();
    ranks.sort_by(|&left, &right| stretch[left].1.total_cmp(&stretch[right].1));
    let mut shown = vec![ranks[0], ranks[ranks.len() / 2], ranks[ranks.len() - 1]];
    shown.sort_unstable();
    shown.dedup();
    shown.into_iter().map(|index| stretch[index]).collect()
}

/// Where a stretch is, and its middle sample.
fn middle(stretch: &[(f64, f64)]) -> (f64, f64) {
    let mut ms: Vec<f64> = stretch.iter().map(|(_, ms)| *ms).collect();
    ms.sort_by(f64::total_cmp);
    (stretch.iter().map(|(when, _)| when).sum::<f64>() / stretch.len() as f64, ms[ms.len() / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_of_thousands_is_shown() {
        let all: Vec<(f64, f64)> = (0..10_000_u32)
            .map(|index| {
                (f64::from(index), if index == 7777 { 900.0 } else { f64::from(index % 13) })
            })
            .collect();
        let thinned = samples(&all, 100);
        assert!(
            thinned.points.len() <= 300
                && thinned.points.contains(&(7777.0, 900.0))
                && thinned.each == 100
        );
        assert!(
            thinned.points.iter().all(|point| all.contains(point)) && thinned.points.is_sorted()
        );
        assert_eq!(
            thinned.points.iter().filter(|(_, ms)| *ms == 0.0).count(),
            100,
            "the fastest of each"
        );
        assert!(
            thinned.middle.len() <= LINE && thinned.middle.iter().all(|(_, ms)| *ms == 6.0),
            "{:?}",
            thinned.middle
        );
    }

    #[test]
    fn few_samples_are_all_shown() {
        let few = [(0.0, 1.0), (1.0, f64::NAN), (2.0, 3.0)];
        assert_eq!(
            samples(&few, 20),
            Thinned { points: vec![(0.0, 1.0), (2.0, 3.0)], each: 1, middle: Vec::new() }
        );
        assert_eq!(samples(&[], 20).points, []);
    }
}
