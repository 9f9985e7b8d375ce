//! What was found, as a person reads it.

use std::path::Path;

use protoseg_bench::tuning::search::{Candidate, CandidateOutcome};
use protoseg_bench::tuning::{TuningEntry, describe};

/// A candidate that has just been examined, as a line.
pub(super) fn progress(candidate: &Candidate) -> String {
    format!("{}: {}: {}", candidate.stage, describe(&candidate.choice), became(candidate))
}

/// The table of candidates.
pub(super) fn candidates(entry: &TuningEntry) -> Vec<String> {
    let heads =
        ["stage", "ms", "leader's", "p99 ms", "probe", "pictures", "options: what became of them"];
    let number = |number: Option<f64>| {
        number.map_or_else(|| "-".to_owned(), |number| format!("{number:.3}"))
    };
    let percent = |share: Option<f64>| {
        share.map_or_else(|| "-".to_owned(), |share| format!("{:.3} %", 100.0 * share))
    };
    let row = |candidate: &Candidate| {
        let Candidate { stage, choice, agreement, ms, incumbent_ms, p99_ms, .. } = candidate;
        [
            stage.clone(),
            number(*ms),
            number(*incumbent_ms),
            number(*p99_ms),
            percent(agreement.and_then(|agreement| agreement.probe)),
            percent(agreement.map(|agreement| agreement.pictures)),
            format!("{}: {}", describe(choice), became(candidate)),
        ]
    };
    let rows: Vec<[String; 7]> =
        std::iter::once(heads.map(str::to_owned)).chain(entry.candidates.iter().map(row)).collect();
    let widths: Vec<usize> = (0..7)
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let line = |row: &[String; 7]| {
        let figures: String = row[1..6]
            .iter()
            .zip(&widths[1..6])
            .map(|(text, width)| format!("  {text:>width$}"))
            .collect();
        format!("{:<width$}{figures}  {}", row[0], row[6], width = widths[0])
    };
    let meaning = "ms: medians of blocks. % of time: the middle of the ratios of blocks in turns, which tells more on a machine \
                   that drifts.";
    rows.iter().map(line).chain([meaning.to_owned(), String::new()]).collect()
}

/// The choice, and why.
pub(super) fn answer(entry: &TuningEntry, place: &Path) -> Vec<String> {
    let line = |name: &str, text: &str| format!("{name:<11}{text}");
    let mut lines =
        vec![line("choice", &describe(&entry.choice)), line("because", entry.decision.sentence())];
    if let Some(times) = entry.times() {
        lines.push(line("speed", &format!("{times:.2} times the default")));
    }
    if let Some(comparison) = &entry.comparison {
        lines.push(line("compared", &comparison.to_string()));
    }
    let p99 = entry
        .limits
        .p99_ms
        .map_or_else(String::new, |p99| format!(", 99 of 100 answers within {p99} ms"));
    lines.push(line(
        "limits",
        &format!("{} % of labels agree{p99}", 100.0 * entry.limits.least_agreement),
    ));
    let (scenario, pictures) = (entry.scenario, &entry.pictures);
    let size = format!(
        "pictures {}, {}x{} ({})",
        pictures.count, pictures.height, pictures.width, pictures.source
    );
    lines.push(line("measured", &format!("{}, {scenario}, {size}", entry.day())));
    lines.push(line("machine", &entry.machine.to_string()));
    lines.push(line("file", &place.display().to_string()));
    lines
}

fn became(candidate: &Candidate) -> String {
    let ratio = candidate
        .ratio
        .map_or_else(String::new, |ratio| format!(", {:+.1} % of time", 100.0 * (ratio - 1.0)));
    match &candidate.outcome {
        CandidateOutcome::First => "where it begins".to_owned(),
        CandidateOutcome::Incumbent => format!("leads{ratio}"),
        CandidateOutcome::NotFaster => format!("not faster{ratio}"),
        CandidateOutcome::Dropped { why } => format!("dropped: {why}"),
    }
}
