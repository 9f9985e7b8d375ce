//! Statistics of each class between two lines of the log: pseudo-label accuracy, pass rate of the confidence gate, cosines
//! to prototypes.

use anyhow::Result;
use protoseg_models::classes::{Class, ClassTable, IGNORE_INDEX};
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use crate::method::similarity::Similarity;

/// Rows of the counters.
#[derive(Clone, Copy)]
enum Row {
    PseudoLabels,
    /// Pseudo-labels where the truth is known.
    Judged,
    Correct,
    /// Sampled points of unlabeled images.
    Points,
    /// Those above the confidence gate.
    Passed,
    /// Sum of the cosines to the nearest prototype of the own class.
    OwnCosine,
    OtherCosine,
}

const ROWS: i64 = 7;

/// Sums `[rows, classes]` since the last line of the log, on the device of the run.
pub struct ClassCounters {
    /// Changed in place.
    sums: Tensor,
}

/// Statistics of one class; a share is None where nothing was counted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassStatistics {
    pub name: String,
    /// Share of all pseudo-labels that are of this class.
    pub pseudo_share: Option<f64>,
    /// Share of its pseudo-labels that are correct, where the truth is known.
    pub pseudo_accuracy: Option<f64>,
    /// Share of its points in unlabeled images that pass the confidence gate.
    pub gate_share: Option<f64>,
    /// Mean cosine of its points to the nearest of its prototypes.
    pub own_cosine: Option<f64>,
    /// Mean cosine of its points to the nearest prototype of another class.
    pub other_cosine: Option<f64>,
    /// Points assigned to each of its prototypes.
    pub hits: Vec<u64>,
}

impl ClassCounters {
    pub fn new(classes: usize, device: Device) -> Result<Self> {
        Ok(Self { sums: Tensor::f_zeros([ROWS, classes as i64], (Kind::Double, device))? })
    }

    pub fn classes(&self) -> usize {
        self.sums.size()[1] as usize
    }

    /// Counts the labels of each class.
    fn count(&self, row: Row, labels: &Tensor) -> Result<()> {
        let counted = labels.f_masked_select(&labels.f_ne(i64::from(IGNORE_INDEX))?)?;
        let counts = counted.f_bincount(None::<Tensor>, self.sums.size()[1])?;
        let _ = self.row(row)?.f_add_(&counts.f_to_kind(Kind::Double)?)?;
        Ok(())
    }

    fn row(&self, row: Row) -> Result<Tensor> {
        Ok(self.sums.f_select(0, row as i64)?)
    }

    /// Counts pseudo-labels i64 of valid pixels, and compares them with the truth u8 where that is not 255.
    pub fn pseudo_labels(&self, labels: &Tensor, valid: &Tensor, truth: &Tensor) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let ignore = i64::from(IGNORE_INDEX);
        let labels = labels.f_masked_fill(&valid.f_logical_not()?, ignore)?;
        self.count(Row::PseudoLabels, &labels)?;
        let judged = labels.f_masked_fill(&truth.f_eq(ignore)?, ignore)?;
        self.count(Row::Judged, &judged)?;
        self.count(Row::Correct, &judged.f_masked_fill(&judged.f_ne_tensor(truth)?, ignore)?)
    }

    /// Counts the pseudo-labels of points, before and after those below the confidence gate became 255.
    pub fn gate(&self, labels: &Tensor, passed: &Tensor) -> Result<()> {
        self.count(Row::Points, labels)?;
        self.count(Row::Passed, passed)
    }

    /// Adds the cosines of points to prototypes, by the labels of the points.
    pub fn cosines(&self, similarity: &Similarity, labels: &Tensor) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let chosen = labels.f_ne(i64::from(IGNORE_INDEX))?.f_nonzero()?.f_squeeze_dim(1)?;
        if chosen.numel() == 0 {
            return Ok(());
        }
        let labels = labels.f_index_select(0, &chosen)?;
        let [own, other] = similarity.own_and_other(&labels, &chosen)?;
        for (row, values) in [(Row::OwnCosine, own), (Row::OtherCosine, other)] {
            let _ = self.row(row)?.f_index_add_(0, &labels, &values.f_to_kind(Kind::Double)?)?;
        }
        Ok(())
    }

    /// Returns the statistics and starts over. `hits` are the points assigned to each prototype since the last call,
    /// row = class * prototypes per class + m; the cosines are means over them.
    pub fn take(&mut self, classes: &ClassTable, hits: &[u64]) -> Result<Vec<ClassStatistics>> {
        let sums: Vec<Vec<f64>> = Vec::try_from(self.sums.f_to_device(Device::Cpu)?)?;
        let _ = self.sums.f_zero_()?;
        let sum = |row: Row, class: usize| sums[row as usize][class];
        let share = |part: f64, whole: f64| (whole > 0.0).then(|| part / whole);
        let all: f64 = (0..classes.count()).map(|class| sum(Row::PseudoLabels, class)).sum();
        let each = hits.len() / classes.count().max(1);
        let statistics = |(index, class): (usize, &Class)| {
            let hits = hits.get(index * each..(index + 1) * each).unwrap_or_default().to_vec();
            let points = hits.iter().sum::<u64>() as f64;
            ClassStatistics {
                name: class.name.clone(),
                pseudo_share: share(sum(Row::PseudoLabels, index), all),
                pseudo_accuracy: share(sum(Row::Correct, index), sum(Row::Judged, index)),
                gate_share: share(sum(Row::Passed, index), sum(Row::Points, index)),
                own_cosine: share(sum(Row::OwnCosine, index), points),
                other_cosine: share(sum(Row::OtherCosine, index), points),
                hits,
            }
        };
        Ok(classes.classes().iter().enumerate().map(statistics).collect())
    }
}
