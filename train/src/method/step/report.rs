//! What a step reports.

use crate::method::objective::LossTerms;

/// What a step, or one of its micro-batches, reports.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// The terms of the objective, means over micro-batches.
    pub terms: LossTerms<f64>,
    /// Their weighted sum.
    pub loss: f64,
    /// The encoder's learning rate.
    pub learning_rate: f64,
    /// Share of the valid unlabelled pixels that were kept.
    pub kept_share: Option<f64>,
    /// Mean confidence of the teacher.
    pub confidence: Option<f64>,
    /// Micro-batches of which no unlabelled pixel was kept.
    pub dropped: u64,
}

impl StepReport {
    /// The report of a step from those of its micro-batches; none of none.
    pub fn mean(parts: &[Self]) -> Option<Self> {
        let (first, others) = parts.split_first()?;
        let mut report = first.clone();
        for part in others {
            report.add(part);
        }
        report.scale(1.0 / parts.len() as f64);
        Some(report)
    }

    /// Adds what another reports.
    pub fn add(&mut self, part: &Self) {
        self.terms.add(&part.terms, 1.0);
        self.loss += part.loss;
        self.dropped += part.dropped;
        for (sum, part) in
            [(&mut self.kept_share, part.kept_share), (&mut self.confidence, part.confidence)]
        {
            *sum = sum.zip(part).map_or(part, |(sum, part)| Some(sum + part));
        }
    }

    /// Sums to means; `dropped` stays a count.
    pub fn scale(&mut self, share: f64) {
        let sums = self.terms.clone();
        self.terms.add(&sums, share - 1.0);
        self.loss *= share;
        for sum in [&mut self.kept_share, &mut self.confidence] {
            *sum = sum.map(|sum| sum * share);
        }
    }
}
