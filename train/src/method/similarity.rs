//! Similarity of points to prototypes: cosines, logits, loss.

use anyhow::Result;
use protoseg_models::classes::IGNORE_INDEX;
use protoseg_models::prototypes::MIN_NORM;
use tch::{Kind, Tensor};

use crate::method::loss::cross_entropy;

/// Points with their cosines to all prototypes.
pub struct Similarity {
    /// `[points, channels]`
    features: Tensor,
    /// `[points, classes, per_class]`
    cosines: Tensor,
    /// `[points, classes]`: largest cosine of the class over the temperature, minus infinity for an inactive class.
    logits: Tensor,
    /// Mask of inactive classes `[classes]`; None where all are active.
    inactive: Option<Tensor>,
}

impl Similarity {
    /// Compares features `[points, channels]` with prototypes `[classes * per_class, channels]`; gradients flow to the
    /// features only, through the nearest prototype of each class.
    pub fn new(
        features: Tensor,
        prototypes: &Tensor,
        active: &[bool],
        temperature: f64,
    ) -> Result<Self> {
        let classes = active.len() as i64;
        let cosines = normalize_rows(&features)?
            .f_matmul(&normalize_rows(&prototypes.f_detach()?)?.f_tr()?)?;
        let cosines = cosines.f_view([features.size()[0], classes, -1])?;
        let (nearest, _) = cosines.f_max_dim(2, false)?;
        let mut logits = nearest.f_div_scalar(temperature)?;
        let inactive = if active.iter().all(|active| *active) {
            None
        } else {
            let inactive: Vec<bool> = active.iter().map(|active| !active).collect();
            let inactive = Tensor::f_from_slice(&inactive)?.f_to_device(logits.device())?;
            logits = logits.f_masked_fill(&inactive, f64::NEG_INFINITY)?;
            Some(inactive)
        };
        Ok(Self { features, cosines, logits, inactive })
    }

    /// Splits off the first `count` points.
    pub fn split(&self, count: i64) -> Result<[Self; 2]> {
        let part = |start: i64, count: i64| -> Result<Self> {
            Ok(Self {
                features: self.features.f_narrow(0, start, count)?,
                cosines: self.cosines.f_narrow(0, start, count)?,
                logits: self.logits.f_narrow(0, start, count)?,
                inactive: self.inactive.as_ref().map(Tensor::shallow_clone),
            })
        };
        Ok([part(0, count)?, part(count, self.features.size()[0] - count)?])
    }

    pub fn features(&self) -> &Tensor {
        &self.features
    }

    pub fn logits(&self) -> &Tensor {
        &self.logits
    }

    /// Returns the mean cross-entropy over points whose label i64 `[points]` is an active class; 0 without any.
    pub fn loss(&self, labels: &Tensor) -> Result<Tensor> {
        let Some(inactive) = &self.inactive else {
            return cross_entropy(&self.logits, labels, None);
        };
        if inactive.f_all()?.f_int64_value(&[])? != 0 {
            return Ok(self.features.f_narrow(0, 0, 0)?.f_sum(Kind::Float)?);
        }
        let class = labels.f_clamp(0, inactive.size()[0] - 1)?;
        let unseen = inactive.f_index_select(0, &class)?;
        cross_entropy(&self.logits, &labels.f_masked_fill(&unseen, i64::from(IGNORE_INDEX))?, None)
    }

    /// Returns m of the nearest prototype of their own class for the points at positions `chosen`, with their labels.
    pub fn nearest(&self, labels: &Tensor, chosen: &Tensor) -> Result<Tensor> {
        let cosines = self.cosines.f_index_select(0, chosen)?;
        let each = cosines.size()[2];
        let class = labels.f_view([-1, 1, 1])?.f_expand([-1, 1, each], false)?;
        Ok(cosines.f_gather(1, &class, false)?.f_squeeze_dim(1)?.f_argmax(1, false)?)
    }

    /// Returns the cosines of the points at positions `chosen`, with their labels, to the nearest prototype of their own class
    /// and of any other active class; -1 where there is none.
    pub fn own_and_other(&self, labels: &Tensor, chosen: &Tensor) -> Result<[Tensor; 2]> {
        let mut nearest =
            self.cosines.f_index_select(0, chosen)?.f_amax([2_i64].as_slice(), false)?;
        if let Some(inactive) = &self.inactive {
            nearest = nearest.f_masked_fill(inactive, -1.0)?;
        }
        let class = labels.f_unsqueeze(1)?;
        let own = nearest.f_gather(1, &class, false)?.f_squeeze_dim(1)?;
        let others = nearest.f_scatter_value(1, &class, -1.0)?;
        Ok([own, others.f_amax([1_i64].as_slice(), false)?])
    }
}

/// Normalizes rows `[rows, channels]` to length 1; a row of zeros stays zero.
pub fn normalize_rows(rows: &Tensor) -> Result<Tensor> {
    let length = rows.f_norm_scalaropt_dim(2.0, [1_i64].as_slice(), true)?;
    Ok(rows.f_div(&length.f_clamp_min(MIN_NORM)?)?)
}

#[cfg(test)]
mod tests;
