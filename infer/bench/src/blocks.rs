//! Two subjects in turns, block by block, so that whatever else the machine does meets both.

use super::ab::{AbComparison, AbError, Block, Side, abba_side};
use super::load::{LoadGenerator, LoadResult, QuerySample, StopAfter};
use super::measure::{Measurement, MeasurementError, WarmedUp};
use super::report::ScenarioResult;
use super::scenario::Scenario;
use super::statistics;
use super::target::Target;

/// Why two subjects cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum AbMeasurementError {
    /// One of them could not be measured.
    #[error(transparent)]
    Measurement(#[from] MeasurementError),
    /// Their figures are no figures.
    #[error(transparent)]
    AbComparison(#[from] AbError),
}

/// One of two subjects.
struct SideState<'a, T> {
    target: &'a T,
    warm: WarmedUp,
    until: StopAfter,
    taken: LoadResult,
    asked: usize,
}

/// Measures two targets under one scenario in so many pairs of blocks. The time or the number of queries of a measurement is
/// shared by the blocks of one side.
pub async fn measure<T: Target>(
    measure: &Measurement,
    [a, b]: [(&str, &T); 2],
    pairs: usize,
) -> Result<([ScenarioResult; 2], AbComparison), AbMeasurementError> {
    let share = Measurement { until: share(measure.until, pairs), ..*measure };
    let mut sides = Vec::new();
    for (_, target) in [a, b] {
        let warm = measure.warm_up(target).await?;
        let (until, asked) = (share.sized(&warm), warm.pictures);
        sides.push(SideState { target, warm, until, taken: LoadResult::default(), asked });
    }
    let mut blocks = Vec::new();
    for index in 0..2 * pairs {
        let turn = abba_side(index);
        let side = &mut sides[usize::from(turn == Side::B)];
        let taken = side.block(measure).await;
        if let Some(ms) = figure(&taken, measure.scenario) {
            blocks.push(Block { side: turn, ms });
        }
        side.add(taken);
        if side.taken.failed > 0 {
            break;
        }
    }
    let first_error = sides.iter().find_map(|side| side.taken.first_error.clone());
    let point = |side: &SideState<'_, T>| {
        let point = measure.point(&side.warm, &side.taken);
        // One that failed ends the turns, before the other may have had its first.
        point.map_err(|error| first_error.clone().map_or(error, MeasurementError::NoAnswer))
    };
    let points = [point(&sides[0])?, point(&sides[1])?];
    Ok((points, AbComparison::from_blocks(a.0, b.0, measure.scenario, blocks)?))
}

impl<T: Target> SideState<'_, T> {
    async fn block(&mut self, measure: &Measurement) -> LoadResult {
        let load = LoadGenerator {
            scenario: measure.scenario,
            until: self.until,
            first: self.asked,
            seed: measure.seed,
        };
        let taken = load.run(self.target).await;
        self.asked += (taken.samples.len() + taken.failed) * measure.scenario.images_per_query();
        taken
    }

    /// Adds the samples of a block, at moments as if this side's blocks had followed each other: the other's time in between
    /// would make of the same rate a lower one, as often as the turns happen to lie.
    fn add(&mut self, taken: LoadResult) {
        let begun = self.taken.elapsed;
        self.taken.elapsed += taken.elapsed;
        self.taken.failed += taken.failed;
        self.taken.first_error = self.taken.first_error.take().or(taken.first_error);
        let samples = taken.samples.into_iter();
        self.taken
            .samples
            .extend(samples.map(|sample| QuerySample { due: sample.due + begun, ..sample }));
    }
}

/// What one block of one side gets of a measurement.
fn share(until: StopAfter, pairs: usize) -> StopAfter {
    match until {
        StopAfter::Queries(queries) => StopAfter::Queries(queries.div_ceil(pairs)),
        StopAfter::Time(time, least) => StopAfter::Time(time / pairs as u32, least.div_ceil(pairs)),
    }
}

/// The figure of a block in milliseconds: its median latency, or where all pictures are there from the start, the time for
/// each.
fn figure(taken: &LoadResult, scenario: Scenario) -> Option<f64> {
    if taken.samples.is_empty() {
        return None;
    }
    if scenario == Scenario::Offline {
        return Some(taken.elapsed.as_secs_f64() * 1e3 / taken.samples.len() as f64);
    }
    let latencies: Vec<f64> =
        taken.samples.iter().map(|sample| sample.latency.as_secs_f64() * 1e3).collect();
    statistics::median(&latencies)
}
