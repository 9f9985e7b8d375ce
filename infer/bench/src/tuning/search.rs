//! The choice among candidates: a staged search in which each is held against the best so far.
//!
//! Two subjects measured in turns meet one machine, where figures that were taken one after the other would let its drift
//! choose. So a candidate is compared with the leader alone, in blocks in turns, and takes the lead where it is faster by more
//! than memory layout makes of one program. That takes the leader's time again for every candidate, and only two of them are
//! open at once, however many there are. Each lead follows from few blocks and may be wrong; the last comparison, of the choice
//! with the default, has blocks enough for an interval, and where it shows no difference, the default stays.

use protoseg_models::window::Window;
use serde::{Deserialize, Serialize};

use super::limits::{LabelAgreement, TuningLimits};
use super::space::SearchPlan;
use crate::ab::{AbComparison, AbVerdict, LAYOUT_EFFECT};
use protoseg_infer::EngineConfig;

/// Pairs of blocks that a candidate must win to take the lead, of so many: of eight, one may meet other load. One that is no
/// faster at all wins seven or more in 9 of 256 searches, so that the choice does not fill up with options that do nothing.
const WON: [usize; 2] = [7, 8];

/// A candidate held against the leader.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DuelResult {
    /// The candidate's time over the leader's: the median over pairs of blocks.
    pub ratio: f64,
    /// In how many pairs the candidate was the faster one, and of how many.
    pub won: [usize; 2],
    /// Median milliseconds of the leader and of the candidate: of a query, or offline of a picture.
    pub ms: [f64; 2],
    /// The 99th percentile of their latency in milliseconds; none where all pictures are there from the start.
    pub p99_ms: [Option<f64>; 2],
}

/// Finds out about candidates.
pub trait CandidateRunner {
    /// How far a candidate's labels agree, or why it gives none.
    fn agreement(&mut self, choice: &EngineConfig) -> Result<LabelAgreement, String>;

    /// Holds a candidate against the leader, or says why it cannot be run.
    fn duel(
        &mut self,
        leader: &EngineConfig,
        candidate: &EngineConfig,
    ) -> Result<DuelResult, String>;
}

/// What was tried, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// What was to be settled.
    pub stage: String,
    /// The options.
    pub choice: EngineConfig,
    /// How far its labels agree.
    pub agreement: Option<LabelAgreement>,
    /// Median milliseconds of a query, offline of a picture.
    pub ms: Option<f64>,
    /// Those of the leader in the same minutes.
    #[serde(alias = "leader_ms")]
    pub incumbent_ms: Option<f64>,
    /// Its time over the leader's: the median over pairs of blocks.
    pub ratio: Option<f64>,
    /// The 99th percentile of its latency in milliseconds.
    pub p99_ms: Option<f64>,
    /// What became of it.
    pub outcome: CandidateOutcome,
}

/// What became of a candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum CandidateOutcome {
    /// The search began with it.
    First,
    /// It took the lead.
    #[serde(alias = "leads")]
    Incumbent,
    /// It was not faster than the leader, by no more than memory layout may make, or not often enough.
    NotFaster,
    /// It may not be chosen.
    Dropped {
        /// Why.
        why: String,
    },
}

/// What the search found.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchResult {
    /// All that was tried, in order; the first is the default.
    pub candidates: Vec<Candidate>,
    /// What leads.
    pub best: EngineConfig,
    /// Whether that keeps to the limits, as far as the search measured.
    pub keeps: bool,
}

/// Why the choice is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TuningDecision {
    /// It is faster than the default beyond doubt.
    Faster,
    /// The default does not keep to the limits, and this does.
    DefaultUnfit,
    /// Nothing that was tried took the lead from the default, which stays.
    NothingFaster,
    /// The last comparison did not show that what led is faster, so the default stays.
    NotShown,
    /// What led did not keep to the limits in the last comparison, so the default stays.
    #[serde(alias = "leader-unfit")]
    IncumbentUnfit,
    /// Nothing keeps to the limits, the default neither.
    NothingFits,
}

impl TuningDecision {
    /// Why, as a sentence.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Faster => "it is faster than the default beyond doubt",
            Self::DefaultUnfit => "the default does not keep to the limits, and this does",
            Self::NothingFaster => {
                "nothing that was tried is faster than the default, so the default stays"
            }
            Self::NotShown => {
                "that it is faster was not shown by the last comparison, so the default stays"
            }
            Self::IncumbentUnfit => {
                "what led did not keep to the limits in the last comparison, so the default stays"
            }
            Self::NothingFits => {
                "nothing that was tried keeps to the limits, and the default does not either"
            }
        }
    }

    /// Whether what led is the choice.
    pub fn is_change(self) -> bool {
        matches!(self, Self::Faster | Self::DefaultUnfit)
    }
}

/// The leader of a search, and whether it keeps to the limits.
#[derive(Debug, Clone)]
struct Incumbent {
    choice: EngineConfig,
    agrees: bool,
    in_time: bool,
}

struct Search<'a, E> {
    limits: TuningLimits,
    examiner: &'a mut E,
    observe: &'a mut dyn FnMut(&Candidate),
    candidates: Vec<Candidate>,
}

/// Goes through the stages of one device after the other; `observe` sees each candidate when it has been examined. The first
/// plan's start is the default, which must run; `window` are the bundle's own windows.
pub fn search<E: CandidateRunner>(
    plans: &[SearchPlan],
    window: Option<Window>,
    limits: TuningLimits,
    examiner: &mut E,
    observe: &mut dyn FnMut(&Candidate),
) -> Result<SearchResult, String> {
    let mut search = Search { limits, examiner, observe, candidates: Vec::new() };
    let mut best: Option<Incumbent> = None;
    for plan in plans {
        let mut leader = match search.start(&plan.start) {
            Ok(leader) => leader,
            Err(why) if best.is_none() => return Err(why),
            Err(why) => {
                search.note("device", &plan.start, None, None, CandidateOutcome::Dropped { why });
                continue;
            }
        };
        for stage in &plan.stages {
            // Every candidate is what was found before the stage with one change.
            for candidate in stage.candidates(&leader.choice.clone(), window) {
                search.challenge(&stage.name, &mut leader, &candidate);
            }
        }
        best = Some(match best {
            None => leader,
            Some(mut best) => {
                search.challenge("device", &mut best, &leader.choice);
                best
            }
        });
    }
    let Some(leader) = best else { return Err("there is no device to try".to_owned()) };
    let keeps = leader.agrees && leader.in_time;
    Ok(SearchResult { candidates: search.candidates, best: leader.choice, keeps })
}

impl<E: CandidateRunner> Search<'_, E> {
    fn start(&mut self, choice: &EngineConfig) -> Result<Incumbent, String> {
        let agreement = self.examiner.agreement(choice)?;
        self.note("start", choice, Some(agreement), None, CandidateOutcome::First);
        let agrees = self.limits.disagreement(agreement).is_none();
        Ok(Incumbent { choice: choice.clone(), agrees, in_time: true })
    }

    fn challenge(&mut self, stage: &str, leader: &mut Incumbent, choice: &EngineConfig) {
        let agreement = match self.examiner.agreement(choice) {
            Ok(agreement) => agreement,
            Err(why) => {
                return self.note(stage, choice, None, None, CandidateOutcome::Dropped { why });
            }
        };
        // What may not be chosen need not be measured.
        if let Some(why) = self.limits.disagreement(agreement) {
            return self.note(
                stage,
                choice,
                Some(agreement),
                None,
                CandidateOutcome::Dropped { why },
            );
        }
        let duel = match self.examiner.duel(&leader.choice, choice) {
            Ok(duel) => duel,
            Err(why) => {
                return self.note(
                    stage,
                    choice,
                    Some(agreement),
                    None,
                    CandidateOutcome::Dropped { why },
                );
            }
        };
        leader.in_time = self.limits.lateness(duel.p99_ms[0]).is_none();
        let [won, pairs] = duel.won;
        let faster = duel.ratio < 1.0 / (1.0 + LAYOUT_EFFECT) && WON[1] * won >= WON[0] * pairs;
        let outcome = match self.limits.lateness(duel.p99_ms[1]) {
            Some(why) => CandidateOutcome::Dropped { why },
            None if faster || !leader.agrees || !leader.in_time => CandidateOutcome::Incumbent,
            None => CandidateOutcome::NotFaster,
        };
        if outcome == CandidateOutcome::Incumbent {
            *leader = Incumbent { choice: choice.clone(), agrees: true, in_time: true };
        }
        self.note(stage, choice, Some(agreement), Some(duel), outcome);
    }

    fn note(
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
    /// The default.
    pub fn default_choice(&self) -> EngineConfig {
        self.candidates.first().map(|first| first.choice.clone()).unwrap_or_default()
    }

    /// What follows where nothing took the lead, so that there is nothing to compare with the default; none where something
    /// did.
    pub fn decide_early(&self) -> Option<TuningDecision> {
        let decision =
            if self.keeps { TuningDecision::NothingFaster } else { TuningDecision::NothingFits };
        (self.best == self.default_choice()).then_some(decision)
    }

    /// What follows from the last comparison, of the default as A with what leads as B, and the 99th percentiles of both.
    pub fn decide(
        &self,
        limits: TuningLimits,
        against: &AbComparison,
        p99_ms: [Option<f64>; 2],
    ) -> TuningDecision {
        let agreement = self.candidates.first().and_then(|first| first.agreement);
        let agrees = agreement.is_some_and(|agreement| limits.disagreement(agreement).is_none());
        let [default_fits, leader_fits] = p99_ms.map(|p99| limits.lateness(p99).is_none());
        match (default_fits && agrees, leader_fits && self.keeps) {
            (true, false) => TuningDecision::IncumbentUnfit,
            (false, false) => TuningDecision::NothingFits,
            (false, true) => TuningDecision::DefaultUnfit,
            (true, true) if against.verdict == AbVerdict::Faster => TuningDecision::Faster,
            (true, true) => TuningDecision::NotShown,
        }
    }
}

#[cfg(test)]
mod tests;
