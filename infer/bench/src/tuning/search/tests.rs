//! The search on synthetic times, whose best is known.

use std::collections::BTreeMap;

use super::*;
use crate::ab::{Block, Side, thue_morse_side};
use crate::load::Scenario;
use crate::tuning::space::SearchStage;

const LIMITS: TuningLimits =
    TuningLimits { least_agreement: 0.99, p99_ms: None, least_score: None };

/// A machine whose times are a product of factors of the options.
struct Fake {
    factors: BTreeMap<&'static str, f64>,
    agreement: BTreeMap<&'static str, f64>,
    /// Options that do not run.
    broken: Vec<&'static str>,
    /// Slowdown of the machine with every duel.
    drift: f64,
    /// Pairs of eight that the candidate wins.
    won: usize,
    duels: usize,
}

fn choice(text: &str) -> EngineConfig {
    let mut config = EngineConfig::default();
    for (name, value) in text.split_whitespace().filter_map(|part| part.split_once('=')) {
        config.set(name, value).unwrap();
    }
    config
}

impl Fake {
    fn new(factors: &[(&'static str, f64)]) -> Self {
        let factors = factors.iter().copied().collect();
        Self {
            factors,
            agreement: BTreeMap::new(),
            broken: Vec::new(),
            drift: 0.0,
            won: 8,
            duels: 0,
        }
    }

    fn values_of<'a>(
        &self,
        choice: &EngineConfig,
        values: &'a BTreeMap<&'static str, f64>,
    ) -> impl Iterator<Item = f64> + 'a {
        choice
            .options()
            .into_iter()
            .filter_map(|(name, value)| values.get(format!("{name}={value}").as_str()).copied())
    }

    fn ms(&self, choice: &EngineConfig) -> f64 {
        100.0 * self.values_of(choice, &self.factors).product::<f64>()
    }
}

impl CandidateRunner for Fake {
    fn agreement(&mut self, choice: &EngineConfig) -> Result<LabelAgreement, String> {
        if choice
            .options()
            .iter()
            .any(|(name, value)| self.broken.contains(&format!("{name}={value}").as_str()))
        {
            return Err("out of memory".to_owned());
        }
        let images = self.values_of(choice, &self.agreement).fold(1.0, f64::min);
        Ok(LabelAgreement { probe: None, images, score: None })
    }

    fn duel(
        &mut self,
        incumbent: &EngineConfig,
        candidate: &EngineConfig,
    ) -> Result<DuelResult, String> {
        self.duels += 1;
        let now = 1.0 + self.drift * self.duels as f64;
        let ms = [incumbent, candidate].map(|choice| now * self.ms(choice));
        Ok(DuelResult {
            ratio: ms[1] / ms[0],
            won: [self.won, 8],
            ms,
            p99_ms: ms.map(|ms| Some(2.0 * ms)),
        })
    }
}

fn plan(start: &str, stages: &[(&str, &[&str])]) -> SearchPlan {
    let stage = |(name, changes): &(&str, &[&str])| SearchStage {
        name: (*name).to_owned(),
        changes: changes.iter().map(|change| choice(change)).collect(),
        needs_windows: false,
    };
    SearchPlan { start: choice(start), stages: stages.iter().map(stage).collect() }
}

fn default_plan() -> SearchPlan {
    plan(
        "",
        &[
            ("precision", &["precision=fp16", "precision=int8"]),
            ("cores", &["threads=1", "threads=2", "threads=4"]),
            ("switch", &["spin=on"]),
        ],
    )
}

fn found(plans: &[SearchPlan], limits: TuningLimits, fake: &mut Fake) -> SearchResult {
    search(plans, None, limits, fake, &mut |_| ()).unwrap()
}

fn outcome<'a>(found: &'a SearchResult, of: &str) -> &'a CandidateOutcome {
    let candidate = found.candidates.iter().find(|candidate| candidate.choice == choice(of));
    &candidate.unwrap_or_else(|| panic!("{of} was not tried")).outcome
}

#[test]
fn the_best_is_found_despite_drift() {
    for drift in [0.0, 0.5] {
        let factors = [
            ("precision=fp16", 0.9),
            ("precision=int8", 0.5),
            ("threads=1", 2.0),
            ("threads=2", 0.7),
            ("threads=4", 1.2),
            ("spin=on", 0.95),
        ];
        let mut fake = Fake { drift, ..Fake::new(&factors) };
        let mut seen = 0;
        let found = search(&[default_plan()], None, LIMITS, &mut fake, &mut |_| seen += 1).unwrap();
        assert_eq!((&found.best, found.keeps), (&choice("precision=int8 threads=2 spin=on"), true));
        assert_eq!((found.candidates.len(), seen, fake.duels), (7, 7, 6));
        assert_eq!(outcome(&found, ""), &CandidateOutcome::First);
        assert_eq!(outcome(&found, "precision=fp16"), &CandidateOutcome::Incumbent);
        assert_eq!(outcome(&found, "precision=int8 threads=4"), &CandidateOutcome::NotFaster);
        assert_eq!(found.decide_early(), None);
    }
}

#[test]
fn differences_within_the_layout_effect_do_not_count() {
    for factor in [1.0, 1.5, 0.995] {
        let factors =
            ["precision=fp16", "precision=int8", "threads=1", "threads=2", "threads=4", "spin=on"]
                .map(|option| (option, factor));
        let found = found(&[default_plan()], LIMITS, &mut Fake::new(&factors));
        assert_eq!(
            (&found.best, found.decide_early()),
            (&EngineConfig::default(), Some(TuningDecision::NothingFaster))
        );
    }
}

#[test]
fn a_candidate_must_win_most_pairs() {
    for (won, best) in [(8, "spin=on"), (7, "spin=on"), (6, ""), (4, "")] {
        let mut fake = Fake { won, ..Fake::new(&[("spin=on", 0.9)]) };
        assert_eq!(
            found(&[plan("", &[("switch", &["spin=on"])])], LIMITS, &mut fake).best,
            choice(best),
            "{won}"
        );
    }
}

#[test]
fn candidates_with_wrong_labels_are_not_measured() {
    for (share, chosen) in [(0.9899, ""), (0.99, "precision=int8")] {
        let mut fake = Fake::new(&[("precision=int8", 0.1)]);
        fake.agreement.insert("precision=int8", share);
        let found = found(&[plan("", &[("precision", &["precision=int8"])])], LIMITS, &mut fake);
        assert_eq!(
            (&found.best, fake.duels),
            (&choice(chosen), usize::from(!chosen.is_empty())),
            "{share}"
        );
        if chosen.is_empty() {
            let CandidateOutcome::Dropped { why } = outcome(&found, "precision=int8") else {
                panic!("{found:?}")
            };
            assert!(why.contains("98.990 % of the images' labels agree, and 99 % must"), "{why}");
        }
    }
}

#[test]
fn candidates_that_do_not_run_are_dropped() {
    let mut fake = Fake {
        broken: vec!["precision=fp16", "threads=4"],
        ..Fake::new(&[("precision=fp16", 0.1), ("threads=2", 0.5), ("threads=4", 0.1)])
    };
    let found = found(&[default_plan()], LIMITS, &mut fake);
    assert_eq!(found.best, choice("threads=2"));
    let dropped = CandidateOutcome::Dropped { why: "out of memory".to_owned() };
    assert_eq!(
        (outcome(&found, "precision=fp16"), outcome(&found, "threads=4")),
        (&dropped, &dropped)
    );
    // The default must run, and another device need not.
    let mut fake = Fake { broken: vec!["device=cuda:0"], ..Fake::new(&[]) };
    let gpu = plan("device=cuda:0", &[]);
    assert_eq!(
        search(std::slice::from_ref(&gpu), None, LIMITS, &mut fake, &mut |_| ()),
        Err("out of memory".to_owned())
    );
    let both = search(&[plan("", &[]), gpu], None, LIMITS, &mut fake, &mut |_| ()).unwrap();
    assert_eq!((both.best, both.candidates.len()), (EngineConfig::default(), 2));
    assert!(search(&[], None, LIMITS, &mut fake, &mut |_| ()).is_err());
}

#[test]
fn the_best_of_each_device_are_compared() {
    let factors = [("device=cuda:0", 1.1), ("cuda-graph=on", 0.2), ("threads=2", 0.5)];
    let plans = [
        plan("", &[("cores", &["threads=2"])]),
        plan("device=cuda:0", &[("switch", &["cuda-graph=on"])]),
    ];
    let best = found(&plans, LIMITS, &mut Fake::new(&factors));
    assert_eq!(best.best, choice("device=cuda:0 cuda-graph=on"));
    assert_eq!(best.candidates.last().unwrap().stage, "device");
    let slow = found(
        &plans,
        LIMITS,
        &mut Fake::new(&[("device=cuda:0", 9.0), ("cuda-graph=on", 0.2), ("threads=2", 0.5)]),
    );
    assert_eq!(slow.best, choice("threads=2"));
}

#[test]
fn limits_count_before_speed() {
    // The fake 99th percentile is twice the median.
    let limits = |p99| TuningLimits { p99_ms: Some(p99), ..LIMITS };
    let factors = [("threads=2", 0.7), ("threads=4", 0.4)];
    let stages: &[(&str, &[&str])] = &[("cores", &["threads=2", "threads=4"])];
    let outcome_of = |p99| found(&[plan("", stages)], limits(p99), &mut Fake::new(&factors));
    assert_eq!((outcome_of(100.0).best, outcome_of(100.0).keeps), (choice("threads=4"), true));
    let none = outcome_of(70.0);
    assert_eq!((none.decide_early(), none.keeps), (Some(TuningDecision::NothingFits), false));
    assert!(
        matches!(outcome(&none, "threads=4"), CandidateOutcome::Dropped { why } if why.contains("is 80.0 ms, and may be 70 ms"))
    );
    // A slower candidate within the limits replaces a default that exceeds them.
    let mut wrong = Fake::new(&[("precision=fp16", 3.0)]);
    wrong.agreement.insert("precision=int8", 0.5);
    let plan = plan("precision=int8", &[("precision", &["precision=fp16"])]);
    let found = found(&[plan], LIMITS, &mut wrong);
    assert_eq!((found.best, found.keeps), (choice("precision=fp16"), true));
}

#[test]
fn the_final_comparison_decides() {
    let against = |factor: f64| {
        let ms = |side| if side == Side::B { 20.0 * factor } else { 20.0 };
        let blocks = (0..16)
            .map(|block| Block { side: thue_morse_side(block), ms: ms(thue_morse_side(block)) })
            .collect();
        AbComparison::from_blocks("default", "best", Scenario::Offline, blocks).unwrap()
    };
    let limits = TuningLimits { p99_ms: Some(50.0), ..LIMITS };
    let found = |agreement: f64, keeps: bool| SearchResult {
        candidates: vec![Candidate {
            stage: "start".to_owned(),
            choice: EngineConfig::default(),
            agreement: Some(LabelAgreement { probe: None, images: agreement, score: None }),
            ms: None,
            incumbent_ms: None,
            ratio: None,
            p99_ms: None,
            outcome: CandidateOutcome::First,
        }],
        best: choice("threads=2"),
        keeps,
    };
    let (fit, late) = (Some(40.0), Some(60.0));
    for (agreement, factor, p99, expected) in [
        (1.0, 0.5, [fit, fit], TuningDecision::Faster),
        (1.0, 1.0, [fit, fit], TuningDecision::NotShown),
        (1.0, 2.0, [fit, fit], TuningDecision::NotShown),
        (1.0, 0.5, [fit, late], TuningDecision::IncumbentUnfit),
        (1.0, 2.0, [late, fit], TuningDecision::DefaultUnfit),
        (0.5, 2.0, [fit, fit], TuningDecision::DefaultUnfit),
        (1.0, 0.5, [late, late], TuningDecision::NothingFits),
    ] {
        let decision = found(agreement, true).decide(limits, &against(factor), p99);
        assert_eq!(decision, expected, "{agreement} {factor} {p99:?}");
        assert_eq!(
            decision.is_change(),
            matches!(expected, TuningDecision::Faster | TuningDecision::DefaultUnfit)
        );
    }
    assert_eq!(
        found(1.0, false).decide(limits, &against(0.5), [fit, fit]),
        TuningDecision::IncumbentUnfit
    );
}
