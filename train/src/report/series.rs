//! What a line of a chart shows, thinned where the log has more points than there is room for.

use protoseg_pages::scale::is_plottable;

/// One point of a line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Point {
    pub(super) step: f64,
    /// Mean, least and greatest of the values that the point stands for; none is a gap.
    pub(super) value: Option<[f64; 3]>,
}

/// One line of a chart.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Series {
    pub(super) name: String,
    /// Index into the page's colours.
    pub(super) color: usize,
    pub(super) points: Vec<Point>,
    /// Whether points stand for several values.
    pub(super) thinned: bool,
}

impl Series {
    /// A line of at most `most` points; `None` where no value is there. Values that are no numbers are gaps.
    pub(super) fn new(
        name: &str,
        color: usize,
        values: &[(u64, Option<f64>)],
        most: usize,
    ) -> Option<Self> {
        let size = values.len().div_ceil(most.max(1)).max(1);
        let points: Vec<Point> = values.chunks(size).map(point).collect();
        let any = points.iter().any(|point| point.value.is_some());
        any.then(|| Self { name: name.to_owned(), color, points, thinned: size > 1 })
    }

    /// The stretches without gaps: step, then mean, least and greatest value.
    pub(super) fn stretches(&self) -> Vec<Vec<(f64, [f64; 3])>> {
        let stretches = self.points.split(|point| point.value.is_none());
        let known = |point: &Point| point.value.map(|value| (point.step, value));
        stretches
            .map(|points| points.iter().filter_map(known).collect())
            .filter(|points: &Vec<_>| !points.is_empty())
            .collect()
    }
}

/// What neighbouring values come to.
fn point(values: &[(u64, Option<f64>)]) -> Point {
    let step =
        values.iter().map(|(step, _)| *step as f64).sum::<f64>() / values.len().max(1) as f64;
    let known: Vec<f64> =
        values.iter().filter_map(|(_, value)| *value).filter(is_plottable).collect();
    let least = known.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = known.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mean = known.iter().sum::<f64>() / known.len() as f64;
    Point { step: step.round(), value: (!known.is_empty()).then_some([mean, least, greatest]) }
}

/// How many points each line may have where a section shows `lines` of them, so that the page stays small.
pub(super) fn room_for(lines: usize) -> usize {
    (12_000 / lines.max(1)).clamp(20, 150)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_series_are_thinned_to_means_and_extremes() {
        let values: Vec<(u64, Option<f64>)> =
            (0..10).map(|step| (step, Some(step as f64))).collect();
        let series = Series::new("a", 0, &values, 4).unwrap();
        assert!(series.thinned);
        let means: Vec<_> = series.points.iter().map(|point| (point.step, point.value)).collect();
        assert_eq!(means[0], (1.0, Some([1.0, 0.0, 2.0])));
        assert_eq!(means[3], (9.0, Some([9.0, 9.0, 9.0])));
        assert!(!Series::new("a", 0, &values, 10).unwrap().thinned);
    }

    #[test]
    fn what_is_no_number_leaves_a_gap() {
        let values = [
            (1, Some(1.0)),
            (2, None),
            (3, Some(f64::NAN)),
            (4, Some(1e300)),
            (5, Some(5.0)),
            (6, Some(6.0)),
        ];
        let series = Series::new("a", 0, &values, 10).unwrap();
        let steps: Vec<Vec<f64>> = series
            .stretches()
            .iter()
            .map(|stretch| stretch.iter().map(|(step, _)| *step).collect())
            .collect();
        assert_eq!(steps, [vec![1.0], vec![5.0, 6.0]]);
        assert_eq!(Series::new("a", 0, &values[1..4], 10), None);
        assert_eq!(Series::new("a", 0, &[], 10), None);
    }
}
