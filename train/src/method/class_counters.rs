//! What is counted class by class between two lines of the log: how good pseudo labels are, what the gate lets through,
//! how far points lie from prototypes.

use anyhow::Result;
use protoseg_models::classes::{ClassTable, IGNORE_INDEX};
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use crate::method::similarity::Similarity;

/// Sums of one class, in the order of a tally's columns.
const COLUMNS: [&str; 7] = ["pseudo", "judged", "right", "points", "passed", "own", "other"];

/// Sums since the last line, `[columns, classes]`.
pub struct ClassCounters {
    sums: Tensor,
}

/// What a line of the log says of a class; shares are none where there was nothing to take a share of.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassStatistics {
    /// The class.
    pub name: String,
    /// Share of the pseudo labels that are this class.
    pub pseudo_share: Option<f64>,
    /// Share of these that are right, where the truth is known.
    pub pseudo_accuracy: Option<f64>,
    /// Share of its unlabelled points above the confidence gate.
    pub gate_share: Option<f64>,
    /// Mean cosine of its points with the nearest of its prototypes.
    pub own_cosine: Option<f64>,
    /// Mean cosine of its points with the nearest prototype of another class.
    pub other_cosine: Option<f64>,
    /// Points that each of its prototypes got.
    pub hits: Vec<u64>,
}

impl ClassCounters {
    /// An empty tally.
    pub fn new(classes: usize, device: Device) -> Result<Self> {
        Ok(Self {
            sums: Tensor::f_zeros([COLUMNS.len() as i64, classes as i64], (Kind::Double, device))?,
        })
    }

    /// Adds 1 to a column of the class of each label that is not [`IGNORE_INDEX`].
    fn count(&mut self, column: &str, labels: &Tensor) -> Result<()> {
        let counted = labels.f_masked_select(&labels.f_ne(i64::from(IGNORE_INDEX))?)?;
        let counts = counted.f_bincount(None::<Tensor>, self.sums.size()[1])?;
        let _ = self.column(column)?.f_add_(&counts.f_to_kind(Kind::Double)?)?;
        Ok(())
    }

    fn column(&self, name: &str) -> Result<Tensor> {
        let place = COLUMNS.iter().position(|column| *column == name).unwrap_or_default();
        Ok(self.sums.f_select(0, place as i64)?)
    }

    /// Pseudo labels i64 of valid pixels, with the truth u8 where it is known and 255 elsewhere.
    pub fn pseudo_labels(&mut self, labels: &Tensor, valid: &Tensor, truth: &Tensor) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let ignore = i64::from(IGNORE_INDEX);
        let labels = labels.f_masked_fill(&valid.f_logical_not()?, ignore)?;
        self.count("pseudo", &labels)?;
        let judged = labels.f_masked_fill(&truth.f_eq(ignore)?, ignore)?;
        self.count("judged", &judged)?;
        self.count("right", &judged.f_masked_fill(&judged.f_ne_tensor(truth)?, ignore)?)
    }

    /// Unlabelled points with their pseudo labels, and the same with 255 where the gate holds them back.
    pub fn gate(&mut self, labels: &Tensor, passed: &Tensor) -> Result<()> {
        self.count("points", labels)?;
        self.count("passed", passed)
    }

    /// Points compared with prototypes, by their labels.
    pub fn cosines(&mut self, compared: &Similarity, labels: &Tensor) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let chosen = labels.f_ne(i64::from(IGNORE_INDEX))?.f_nonzero()?.f_squeeze_dim(1)?;
        if chosen.numel() == 0 {
            return Ok(());
        }
        let labels = labels.f_index_select(0, &chosen)?;
        let [own, other] = compared.own_and_other(&labels, &chosen)?;
        for (column, values) in [("own", own), ("other", other)] {
            let _ =
                self.column(column)?.f_index_add_(0, &labels, &values.f_to_kind(Kind::Double)?)?;
        }
        Ok(())
    }

    /// What the line says; `hits` are the points of each prototype since the last line, class by class, which the cosines
    /// are means over.
    pub fn finish(&self, classes: &ClassTable, hits: &[u64]) -> Result<Vec<ClassStatistics>> {
        let sums: Vec<Vec<f64>> = Vec::try_from(self.sums.f_to_device(Device::Cpu)?)?;
        let of = |column: &str, class: usize| {
            sums[COLUMNS.iter().position(|name| *name == column).unwrap_or(0)][class]
        };
        let share = |part: f64, whole: f64| (whole > 0.0).then(|| part / whole);
        let all: f64 = (0..classes.count()).map(|class| of("pseudo", class)).sum();
        let each = hits.len() / classes.count().max(1);
        let class = |(index, class): (usize, &protoseg_models::classes::Class)| {
            let hits = hits.get(index * each..(index + 1) * each).unwrap_or_default().to_vec();
            let points = hits.iter().sum::<u64>() as f64;
            ClassStatistics {
                name: class.name.clone(),
                pseudo_share: share(of("pseudo", index), all),
                pseudo_accuracy: share(of("right", index), of("judged", index)),
                gate_share: share(of("passed", index), of("points", index)),
                own_cosine: share(of("own", index), points),
                other_cosine: share(of("other", index), points),
                hits,
            }
        };
        Ok(classes.classes().iter().enumerate().map(class).collect())
    }
}
