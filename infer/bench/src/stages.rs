//! Where the time of queries goes, on average.

use super::report::{SampleColumns, ScenarioResult};

/// Mean share of one stage.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Share {
    /// The stage; `other` for what no stage accounts for.
    pub(super) name: String,
    /// Mean of a query in milliseconds.
    pub(super) ms: f64,
    /// Of all stages and what they do not account for.
    pub(super) share: f64,
}

/// The stages of a point in their order, and what of its mean latency they do not account for; nothing where no stage was
/// timed.
pub(super) fn shares(point: &ScenarioResult) -> Vec<Share> {
    let means: Vec<(&str, f64)> = point
        .samples
        .stages
        .iter()
        .filter_map(|stage| Some((stage.name.as_str(), mean(&stage.ms)?)))
        .collect();
    let timed: f64 = means.iter().map(|(_, ms)| ms).sum();
    let other = point.latency.as_ref().map_or(0.0, |latency| (latency.mean_ms - timed).max(0.0));
    let all = timed + other;
    if all <= 0.0 || means.is_empty() {
        return Vec::new();
    }
    // What rounding and the timer's own time leave is not worth a name.
    let other = (other > 0.001 * all).then_some(("other", other));
    means
        .into_iter()
        .chain(other)
        .map(|(name, ms)| Share { name: name.to_owned(), ms, share: ms / all })
        .collect()
}

/// Mean of a stage of that name in milliseconds; 0 where there is none.
pub(super) fn mean_of(samples: &SampleColumns, name: &str) -> f64 {
    samples
        .stages
        .iter()
        .find(|stage| stage.name == name)
        .and_then(|stage| mean(&stage.ms))
        .unwrap_or(0.0)
}

fn mean(ms: &[f64]) -> Option<f64> {
    (!ms.is_empty())
        .then(|| ms.iter().sum::<f64>() / ms.len() as f64)
        .filter(|mean| mean.is_finite())
}

#[cfg(test)]
mod tests {
    use super::super::report::{Latency, StageColumn};
    use super::super::sample;
    use super::*;

    /// A point of these stages, whose queries take so long on average.
    fn point(stages: &[(&str, &[f64])], mean_ms: f64) -> ScenarioResult {
        let stage =
            |(name, ms): &(&str, &[f64])| StageColumn { name: (*name).to_owned(), ms: ms.to_vec() };
        let mut point = sample::report().runs[0].points[0].clone();
        point.samples.stages = stages.iter().map(stage).collect();
        point.latency =
            Some(Latency { mean_ms, min_ms: mean_ms, max_ms: mean_ms, percentiles: Vec::new() });
        point
    }

    fn told(point: &ScenarioResult) -> Vec<(String, f64, f64)> {
        shares(point).into_iter().map(|share| (share.name, share.ms, share.share)).collect()
    }

    #[test]
    fn what_no_stage_accounts_for_has_a_share() {
        let halves = point(&[("decode", &[1.0, 3.0]), ("compute", &[4.0, 8.0])], 16.0);
        let named = |name: &str, ms, share| (name.to_owned(), ms, share);
        assert_eq!(
            told(&halves),
            [named("decode", 2.0, 0.125), named("compute", 6.0, 0.375), named("other", 8.0, 0.5)]
        );
        let overlapping = point(&[("decode", &[2.0]), ("compute", &[6.0])], 5.0);
        assert_eq!(told(&overlapping), [named("decode", 2.0, 0.25), named("compute", 6.0, 0.75)]);
    }

    #[test]
    fn untimed_queries_have_no_shares() {
        for stages in [&[][..], &[("compute", &[][..])], &[("compute", &[f64::NAN])]] {
            assert_eq!(told(&point(stages, 5.0)), []);
        }
    }
}
