//! Staged search: each candidate is compared with the incumbent in interleaved blocks.
//!
//! Times taken one after the other would let the machine's drift choose, so a candidate is compared
//! with the incumbent alone and replaces it where it is faster by more than the effect of memory
//! layout. That measures the incumbent again for every candidate, and keeps only two models open at
//! once. Each step rests on few blocks and may be wrong; the final comparison of the best with the
//! default has enough for an interval, and where it shows no difference, the default stays.

use protoseg_infer::EngineConfig;
use protoseg_models::window::{Tiling, Window};
use serde::{Deserialize, Serialize};

use super::space::SearchPlan;
use super::{LabelAgreement, TuningLimits};
use crate::ab::{AbComparison, AbVerdict, LAYOUT_EFFECT};

/// Pairs of blocks that a candidate must win, of how many; one may meet other load. A candidate
/// that is no faster wins with probability 9/256.
const WON: [usize; 2] = [7, 8];

/// Comparison of a candidate with the incumbent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DuelResult {
    /// Median over pairs of blocks of the candidate's time over the incumbent's.
    pub ratio: f64,
    /// Pairs that the candidate won, and all pairs.
    pub won: [usize; 2],
    /// Median milliseconds of a query, offline of an image: incumbent, candidate.
    pub ms: [f64; 2],
    /// 99th percentiles of latency; `None` offline.
    pub p99_ms: [Option<f64>; 2],
}

/// Measures candidates.
pub trait CandidateRunner {
    /// Agreement of a candidate's labels, or why it does not run.
    fn agreement(&mut self, choice: &EngineConfig) -> Result<LabelAgreement, String>;

    /// Compares a candidate with the incumbent, or says why it does not run.
    fn duel(
        &mut self,
        incumbent: &EngineConfig,
        candidate: &EngineConfig,
    ) -> Result<DuelResult, String>;
}

/// A candidate with its results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Name of the search stage.
    pub stage: String,
    pub choice: EngineConfig,
    pub agreement: Option<LabelAgreement>,
    /// Median milliseconds of a query, offline of an image.
    pub ms: Option<f64>,
    /// Those of the incumbent in the same blocks.
    #[serde(alias = "leader_ms")]
    pub incumbent_ms: Option<f64>,
    /// Median over pairs of blocks of its time over the incumbent's.
    pub ratio: Option<f64>,
    /// 99th percentile of latency in milliseconds.
    pub p99_ms: Option<f64>,
    pub outcome: CandidateOutcome,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum CandidateOutcome {
    /// The search began with it.
    First,
    /// It replaced the incumbent.
    #[serde(alias = "leads")]
    Incumbent,
    /// Not faster than the incumbent by more than the effect of memory layout, or not in enough
    /// pairs.
    NotFaster,
    /// It does not run or keep to the limits.
    Dropped { why: String },
}

/// Result of the search.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchResult {
    /// In the order of the search; the first is the default.
    pub candidates: Vec<Candidate>,
    pub best: EngineConfig,
    /// True where `best` keeps to the limits, as far as the search measured.
    pub keeps: bool,
}

/// Reason of the choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TuningDecision {
    /// The best is faster than the default.
    Faster,
    /// The best keeps to the limits, and the default does not.
    DefaultUnfit,
    /// No candidate was faster than the default, which stays.
    NothingFaster,
    /// The final comparison did not show that the best is faster, so the default stays.
    NotShown,
    /// The best exceeded the limits in the final comparison, so the default stays.
    #[serde(alias = "leader-unfit")]
    IncumbentUnfit,
    /// Neither the default nor any candidate keeps to the limits.
    NothingFits,
}

impl TuningDecision {
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Faster => "it is faster than the default beyond doubt",
            Self::DefaultUnfit => "the default exceeds the limits, and this does not",
            Self::NothingFaster => "no candidate is faster than the default, so the default stays",
            Self::NotShown => {
                "the final comparison did not show that the best candidate is faster, so the default stays"
            }
            Self::IncumbentUnfit => {
                "the best candidate exceeded the limits in the final comparison, so the default stays"
            }
            Self::NothingFits => "the default and all candidates exceed the limits",
        }
    }

    /// Returns true where the best of the search is the choice.
    pub fn is_change(self) -> bool {
        matches!(self, Self::Faster | Self::DefaultUnfit)
    }
}

#[derive(Debug, Clone)]
struct Incumbent {
    choice: EngineConfig,
    agrees: bool,
    in_time: bool,
}

struct Search<'a, R> {
    limits: TuningLimits,
    runner: &'a mut R,
    observe: &'a mut dyn FnMut(&Candidate),
    candidates: Vec<Candidate>,
}

/// Searches the stages of one device after the other; `observe` sees each candidate with its
/// results. The first plan's start is the default, which must run; `window` are the bundle's own
/// windows.
pub fn search<R: CandidateRunner>(
    plans: &[SearchPlan],
    window: Option<Window>,
    limits: TuningLimits,
    runner: &mut R,
    observe: &mut dyn FnMut(&Candidate),
) -> Result<SearchResult, String> {
    let mut search = Search { limits, runner, observe, candidates: Vec::new() };
    let mut best: Option<Incumbent> = None;
    for plan in plans {
        let mut incumbent = match search.start(&plan.start) {
            Ok(incumbent) => incumbent,
            Err(why) if best.is_none() => return Err(why),
            Err(why) => {
                let outcome = CandidateOutcome::Dropped { why };
                search.record("device", &plan.start, None, None, outcome);
                continue;
            }
        };
        for stage in &plan.stages {
            // All candidates of a stage build on the incumbent before the stage.
            for candidate in stage.candidates(&incumbent.choice.clone(), window) {
                search.challenge(&stage.name, &mut incumbent, &candidate);
            }
        }
        best = Some(match best {
            None => incumbent,
            Some(mut best) => {
                search.challenge("device", &mut best, &incumbent.choice);
                best
            }
        });
    }
    let best = best.ok_or("there is no device to try")?;
    let keeps = best.agrees && best.in_time;
    Ok(SearchResult { candidates: search.candidates, best: best.choice, keeps })
}

impl<R: CandidateRunner> Search<'_, R> {
    fn start(&mut self, choice: &EngineConfig) -> Result<Incumbent, String> {
        let agreement = self.runner.agreement(choice)?;
        self.record("start", choice, Some(agreement), None, CandidateOutcome::First);
        let agrees = self.limits.disagreement(agreement).is_none();
        Ok(Incumbent { choice: choice.clone(), agrees, in_time: true })
    }

    fn challenge(&mut self, stage: &str, incumbent: &mut Incumbent, choice: &EngineConfig) {
        let mut agreement = None;
        match self.compare(incumbent, choice, &mut agreement) {
            Ok((duel, outcome)) => {
                if outcome == CandidateOutcome::Incumbent {
                    *incumbent = Incumbent { choice: choice.clone(), agrees: true, in_time: true };
                }
                self.record(stage, choice, agreement, Some(duel), outcome);
            }
            Err(why) => {
                let outcome = CandidateOutcome::Dropped { why };
                self.record(stage, choice, agreement, None, outcome);
            }
        }
    }

    /// Checks the labels of a candidate, and measures it only where they agree, or for whole images.
    fn compare(
        &mut self,
        incumbent: &mut Incumbent,
        choice: &EngineConfig,
        agreement: &mut Option<LabelAgreement>,
    ) -> Result<(DuelResult, CandidateOutcome), String> {
        let found = self.runner.agreement(choice)?;
        *agreement = Some(found);
        if let Some(why) = self.limits.disagreement(found) {
            // The time of whole images is worth knowing even so.
            if choice.window != Some(Tiling::Whole) {
                return Err(why);
            }
            let duel = self.runner.duel(&incumbent.choice, choice)?;
            return Ok((duel, CandidateOutcome::Dropped { why }));
        }
        let duel = self.runner.duel(&incumbent.choice, choice)?;
        incumbent.in_time = self.limits.lateness(duel.p99_ms[0]).is_none();
        let [won, pairs] = duel.won;
        let is_faster = duel.ratio < 1.0 / (1.0 + LAYOUT_EFFECT) && WON[1] * won >= WON[0] * pairs;
        let outcome = match self.limits.lateness(duel.p99_ms[1]) {
            Some(why) => CandidateOutcome::Dropped { why },
            None if is_faster || !incumbent.agrees || !incumbent.in_time => {
                CandidateOutcome::Incumbent
            }
            None => CandidateOutcome::NotFaster,
        };
        Ok((duel, outcome))
    }

    fn record(
        &mut self,
        stage: &str,
        choice: &EngineConfig,
        agreement: Option<LabelAgreement>,
        duel: Option<DuelResult>,
        outcome: CandidateOutcome,
    ) {
        let candidate = Candidate {
            stage: stage.to_owned(),
            choice: choice.clone(),
            agreement,
            ms: duel.map(|duel| duel.ms[1]),
            incumbent_ms: duel.map(|duel| duel.ms[0]),
            ratio: duel.map(|duel| duel.ratio),
            p99_ms: duel.and_then(|duel| duel.p99_ms[1]),
            outcome,
        };
        (self.observe)(&candidate);
        self.candidates.push(candidate);
    }
}

impl SearchResult {
    pub fn default_choice(&self) -> EngineConfig {
        self.candidates.first().map(|first| first.choice.clone()).unwrap_or_default()
    }

    /// The decision where the default is the best, so that there is nothing to compare; `None`
    /// elsewhere.
    pub fn decide_early(&self) -> Option<TuningDecision> {
        let decision =
            if self.keeps { TuningDecision::NothingFaster } else { TuningDecision::NothingFits };
        (self.best == self.default_choice()).then_some(decision)
    }

    /// The decision by the final comparison, of the default as A with the best as B, and the 99th
    /// percentiles of both.
    pub fn decide(
        &self,
        limits: TuningLimits,
        comparison: &AbComparison,
        p99_ms: [Option<f64>; 2],
    ) -> TuningDecision {
        let agreement = self.candidates.first().and_then(|first| first.agreement);
        let agrees = agreement.is_some_and(|agreement| limits.disagreement(agreement).is_none());
        let [default_in_time, best_in_time] = p99_ms.map(|p99| limits.lateness(p99).is_none());
        match (default_in_time && agrees, best_in_time && self.keeps) {
            (true, false) => TuningDecision::IncumbentUnfit,
            (false, false) => TuningDecision::NothingFits,
            (false, true) => TuningDecision::DefaultUnfit,
            (true, true) if comparison.verdict == AbVerdict::Faster => TuningDecision::Faster,
            (true, true) => TuningDecision::NotShown,
        }
    }
}

#[cfg(test)]
mod tests;
