//! What a choice must keep to: right labels, and answers in time.

use serde::{Deserialize, Serialize};

/// What a choice must keep to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TuningLimits {
    /// Least share of pixels with the reference's label, on the probe and on the pictures.
    pub least_agreement: f64,
    /// What the 99th percentile of latency may be at most, in milliseconds.
    pub p99_ms: Option<f64>,
}

/// How far labels agree.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LabelAgreement {
    /// Share of the probe's pixels with the reference's label, but for ties; none where there is no probe.
    pub probe: Option<f64>,
    /// Share of the pictures' pixels with the label of the bundle's 32-bit file in its own windows.
    pub pictures: f64,
}

impl TuningLimits {
    /// Why labels do not agree well enough; none where they do.
    pub(super) fn disagreement(&self, agreement: LabelAgreement) -> Option<String> {
        let least = self.least_agreement;
        [("the probe's", agreement.probe), ("the pictures'", Some(agreement.pictures))]
            .into_iter()
            .find_map(|(whose, share)| {
                let share = share.filter(|&share| !is_at_least(share, least))?;
                Some(format!(
                    "{:.3} % of {whose} labels agree, and {} % must",
                    100.0 * share,
                    100.0 * least
                ))
            })
    }

    /// Why a latency is too long; none where it is not.
    pub(super) fn lateness(&self, p99_ms: Option<f64>) -> Option<String> {
        let limit = self.p99_ms?;
        let p99 = p99_ms.filter(|&p99| !is_at_least(limit, p99))?;
        Some(format!("its 99th percentile is {p99:.1} ms, and may be {limit} ms"))
    }
}

/// False too where one is no number.
fn is_at_least(found: f64, least: f64) -> bool {
    found >= least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_agreements_count_and_what_is_no_number_is_not_enough() {
        let limits = TuningLimits { least_agreement: 0.99, p99_ms: Some(50.0) };
        let said = |probe, pictures| limits.disagreement(LabelAgreement { probe, pictures });
        assert_eq!([said(Some(0.99), 1.0), said(None, 0.99)], [None, None]);
        assert!(said(Some(0.5), 1.0).unwrap().contains("50.000 % of the probe's labels"));
        assert!(said(Some(1.0), 0.5).unwrap().contains("50.000 % of the pictures' labels"));
        assert!(said(Some(f64::NAN), 1.0).is_some() && said(None, f64::NAN).is_some());
        assert_eq!([limits.lateness(None), limits.lateness(Some(50.0))], [None, None]);
        assert!(limits.lateness(Some(50.1)).unwrap().contains("50.1 ms, and may be 50 ms"));
    }
}
