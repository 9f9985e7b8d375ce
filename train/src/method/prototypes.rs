//! Prototype predictor of PCR: several prototypes per class, compared with features by cosine.
//!
//! Prototypes are exponential moving averages of the features assigned to them; no gradient moves them.

use anyhow::Result;
use protoseg_models::classes::IGNORE_INDEX;
use protoseg_models::prototypes as published;
use protoseg_models::random::Stream;
use tch::{Device, Kind, Tensor};

use crate::config::Config;
use crate::config::options::{FeatureSource, PrototypeAverage};
use crate::method::similarity::{Similarity, normalize_rows};
use crate::net;
use crate::streams::PROTOTYPE_NOISE;

/// Size, relative to the prototype, of the noise that separates prototypes initialized at the same point.
const NOISE_SIZE: f64 = 0.01;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrototypeSettings {
    pub classes: usize,
    pub per_class: usize,
    /// Divisor of the cosines.
    pub temperature: f64,
    /// Decay of the moving average.
    pub momentum: f64,
    pub average: PrototypeAverage,
    /// Steps without an assignment after which a prototype is re-initialized; 0 for never.
    pub reseed_after: u64,
    /// Subtracts the running mean from features.
    pub centered: bool,
    pub seed: u64,
}

impl PrototypeSettings {
    pub fn from_config(config: &Config, classes: usize) -> Self {
        Self {
            classes,
            per_class: config.prototypes,
            temperature: config.temperature,
            momentum: config.prototype_momentum,
            average: config.average,
            reseed_after: config.reseed_after,
            centered: config.features == FeatureSource::Centered,
            seed: config.seed,
        }
    }
}

/// Prototypes with their counters.
pub struct Prototypes {
    settings: PrototypeSettings,
    /// `[classes * per_class, channels]`, row = class * per_class + m.
    values: Tensor,
    /// Running mean of the features `[channels]`; 0 unless `centered`.
    mean: Tensor,
    counters: PrototypeCounters,
}

/// Counters of classes and prototypes, also on disk.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PrototypeCounters {
    /// Classes seen so far; the others are left out of the softmax.
    pub active: Vec<bool>,
    /// For each prototype, steps since its last assignment in which its class had at least `per_class` points.
    #[serde(alias = "unhit")]
    pub steps_unassigned: Vec<u64>,
    /// For each prototype, points assigned so far.
    #[serde(alias = "hits")]
    pub assignments: Vec<u64>,
}

/// Sums of the points assigned in a step.
pub struct AssignmentSums {
    /// `[classes * per_class, channels]`
    sums: Tensor,
    /// Points of each prototype, i64 `[classes * per_class]`.
    counts: Tensor,
    /// Sum and number of all features, with `centered` only.
    total: Option<(Tensor, i64)>,
    /// Features and labels, in steps that may re-initialize a prototype only.
    points: Option<Vec<(Tensor, Tensor)>>,
}

impl Prototypes {
    /// Prototypes with values `[classes * per_class, channels]` and mean `[channels]`; classes that are not `active` are
    /// initialized by their first point.
    pub fn new(
        settings: PrototypeSettings,
        values: Tensor,
        mean: Tensor,
        active: Vec<bool>,
    ) -> Self {
        let count = settings.classes * settings.per_class;
        let counters = PrototypeCounters {
            active,
            steps_unassigned: vec![0; count],
            assignments: vec![0; count],
        };
        Self { settings, values, mean, counters }
    }

    pub fn from_saved(
        settings: PrototypeSettings,
        values: Tensor,
        mean: Tensor,
        counters: PrototypeCounters,
    ) -> Self {
        Self { settings, values, mean, counters }
    }

    /// Returns the values `[classes * per_class, channels]`.
    pub fn values(&self) -> &Tensor {
        &self.values
    }

    /// Returns the running mean of the features `[channels]`; 0 unless centered.
    pub fn mean(&self) -> &Tensor {
        &self.mean
    }

    /// Returns the prototypes as a checkpoint publishes them, on the output of a node.
    pub fn published(&self, node: &str) -> Result<published::Prototypes> {
        let values = net::from_torch(&self.values)?;
        let mean = net::from_torch(&self.mean)?;
        let channels = mean.data.len();
        let rows = values.data.chunks_exact(channels).map(<[f32]>::to_vec).collect::<Vec<_>>();
        let classes = rows.chunks_exact(self.settings.per_class).zip(&self.counters.active);
        Ok(published::Prototypes {
            version: published::Prototypes::VERSION.to_owned(),
            node: node.to_owned(),
            temperature: self.settings.temperature,
            mean: mean.data,
            classes: classes.map(|(own, active)| active.then(|| own.to_vec())).collect(),
        })
    }

    pub fn counters(&self) -> &PrototypeCounters {
        &self.counters
    }

    /// Compares features `[points, channels]` with every prototype.
    pub fn compare(&self, features: &Tensor) -> Result<Similarity> {
        let features = if self.settings.centered {
            features.f_sub(&self.mean)?
        } else {
            features.shallow_clone()
        };
        Similarity::new(features, &self.values, &self.counters.active, self.settings.temperature)
    }

    /// Returns the logits `[1, classes, h, w]` of a feature map `[1, channels, h, w]`, finite for upsampling.
    pub fn dense(&self, map: &Tensor) -> Result<Tensor> {
        let size = map.size();
        let rows = map.f_permute([0, 2, 3, 1])?.f_reshape([-1, size[1]])?;
        let logits =
            self.compare(&rows)?.logits().f_clamp_min(f64::from(published::NO_PROTOTYPE_LOGIT))?;
        Ok(logits.f_reshape([1, size[2], size[3], -1])?.f_permute([0, 3, 1, 2])?)
    }

    /// Returns empty sums for a step.
    pub fn begin_step(&self) -> Result<AssignmentSums> {
        let device = self.values.device();
        let reseeds = self.settings.reseed_after > 0
            && self
                .counters
                .steps_unassigned
                .iter()
                .any(|steps| steps + 1 >= self.settings.reseed_after);
        Ok(AssignmentSums {
            sums: self.values.f_zeros_like()?,
            counts: Tensor::f_zeros([self.values.size()[0]], (Kind::Int64, device))?,
            total: self.settings.centered.then(|| (self.mean.zeros_like(), 0)),
            points: reseeds.then(Vec::new),
        })
    }

    /// Assigns each point with a label i64 `[points]` other than [`IGNORE_INDEX`] to the nearest prototype of its class.
    pub fn accumulate(
        &self,
        sums: &mut AssignmentSums,
        similarity: &Similarity,
        labels: &Tensor,
    ) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let features = similarity.features().f_detach()?;
        let chosen = labels.f_ne(i64::from(IGNORE_INDEX))?.f_nonzero()?.f_squeeze_dim(1)?;
        if chosen.numel() == 0 {
            return Ok(());
        }
        let labels = labels.f_index_select(0, &chosen)?;
        let features = features.f_index_select(0, &chosen)?;
        if let Some((sum, count)) = &mut sums.total {
            // Relative to the present mean.
            *sum =
                sum.f_add(&features.f_sum_dim_intlist([0_i64].as_slice(), false, Kind::Float)?)?;
            *count += features.size()[0];
        }
        let nearest = similarity.nearest(&labels, &chosen)?;
        let prototype = labels.f_mul_scalar(self.settings.per_class as i64)?.f_add(&nearest)?;
        let directions = normalize_rows(&features)?;
        let added = if self.settings.average == PrototypeAverage::Normalized {
            &directions
        } else {
            &features
        };
        let _ = sums.sums.f_index_add_(0, &prototype, added)?;
        let _ = sums.counts.f_index_add_(0, &prototype, &prototype.f_ones_like()?)?;
        if let Some(points) = &mut sums.points {
            points.push((features, labels));
        }
        Ok(())
    }

    /// Moves prototypes towards the mean of their points, initializes those of newly seen classes, and re-initializes dead
    /// ones.
    pub fn update(&mut self, sums: AssignmentSums, step: u64) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let AssignmentSums { sums, counts, total, points } = sums;
        let mut hits = vec![0_i64; counts.numel()];
        let count = hits.len();
        counts.f_to_device(Device::Cpu)?.f_copy_data(&mut hits, count)?;
        let divisor = counts.f_clamp_min(1)?.f_to_kind(Kind::Float)?.f_unsqueeze(1)?;
        let means = sums.f_div(&divisor)?;
        let momentum = self.settings.momentum;
        let moved =
            self.values.f_mul_scalar(momentum)?.f_add(&means.f_mul_scalar(1.0 - momentum)?)?;
        let moved = self.normalize_if_configured(&moved)?;
        self.values = moved.f_where_self(&counts.f_gt(0)?.f_unsqueeze(1)?, &self.values)?;
        self.activate_classes(&sums, &hits, step)?;
        self.reinitialize_dead(&hits, &points.unwrap_or_default())?;
        if let Some((sum, count)) = total.filter(|(_, count)| *count > 0) {
            self.mean = self.mean.f_add(&sum.f_mul_scalar((1.0 - momentum) / count as f64)?)?;
        }
        for (total, hits) in self.counters.assignments.iter_mut().zip(hits) {
            *total += hits as u64;
        }
        Ok(())
    }

    fn normalize_if_configured(&self, values: &Tensor) -> Result<Tensor> {
        match self.settings.average {
            PrototypeAverage::Normalized => normalize_rows(values),
            PrototypeAverage::Raw => Ok(values.shallow_clone()),
        }
    }

    /// Initializes the prototypes of newly seen classes at the mean of the points, with noise.
    fn activate_classes(&mut self, sums: &Tensor, hits: &[i64], step: u64) -> Result<()> {
        let each = self.settings.per_class as i64;
        for class in 0..self.settings.classes {
            let count: i64 =
                hits[class * self.settings.per_class..][..self.settings.per_class].iter().sum();
            if self.counters.active[class] || count == 0 {
                continue;
            }
            let sum = sums.f_narrow(0, class as i64 * each, each)?;
            let mean = sum
                .f_sum_dim_intlist([0_i64].as_slice(), true, Kind::Float)?
                .f_div_scalar(count)?;
            let mean = self.normalize_if_configured(&mean)?.f_repeat([each, 1])?;
            let stream = Stream::keyed(&[self.settings.seed, PROTOTYPE_NOISE, step, class as u64]);
            let size = NOISE_SIZE * mean.f_norm()?.f_double_value(&[])? / (each as f64).sqrt();
            let noise: Vec<f32> = (0..mean.numel() as u64)
                .map(|index| (size * stream.normal(index)) as f32)
                .collect();
            let noise =
                Tensor::f_from_slice(&noise)?.f_view_as(&mean)?.f_to_device(mean.device())?;
            let values = self.normalize_if_configured(&mean.f_add(&noise)?)?;
            self.values.f_narrow(0, class as i64 * each, each)?.f_copy_(&values)?;
            self.counters.active[class] = true;
        }
        Ok(())
    }

    /// Moves each dead prototype to the point of its class that is farthest from the class's other prototypes.
    fn reinitialize_dead(&mut self, hits: &[i64], points: &[(Tensor, Tensor)]) -> Result<()> {
        if self.settings.reseed_after == 0 {
            return Ok(());
        }
        let each = self.settings.per_class;
        for class in 0..self.settings.classes {
            let place = class * each;
            let hits = &hits[place..][..each];
            let enough = hits.iter().sum::<i64>() >= each as i64;
            for (steps, &hits) in self.counters.steps_unassigned[place..].iter_mut().zip(hits) {
                *steps = if hits > 0 { 0 } else { *steps + u64::from(enough) };
            }
        }
        let dead: Vec<usize> = (0..hits.len())
            .filter(|&prototype| {
                self.counters.steps_unassigned[prototype] >= self.settings.reseed_after
            })
            .collect();
        if dead.is_empty() || points.is_empty() {
            return Ok(());
        }
        let features =
            Tensor::f_cat(&points.iter().map(|(features, _)| features).collect::<Vec<_>>(), 0)?;
        let labels =
            Tensor::f_cat(&points.iter().map(|(_, labels)| labels).collect::<Vec<_>>(), 0)?;
        for prototype in dead {
            let class = prototype / each;
            let own = labels.f_eq(class as i64)?.f_nonzero()?.f_squeeze_dim(1)?;
            if own.numel() == 0 {
                continue;
            }
            let own = features.f_index_select(0, &own)?;
            let others: Vec<i64> = (class * each..(class + 1) * each)
                .filter(|other| *other != prototype)
                .map(|other| other as i64)
                .collect();
            let farthest = if others.is_empty() {
                0
            } else {
                let others = Tensor::f_from_slice(&others)?.f_to_device(own.device())?;
                let others = normalize_rows(&self.values.f_index_select(0, &others)?)?;
                let closest = normalize_rows(&own)?
                    .f_matmul(&others.f_tr()?)?
                    .f_amax([1_i64].as_slice(), false)?;
                closest.f_argmin(0, false)?.f_int64_value(&[])?
            };
            let taken = self.normalize_if_configured(&own.f_narrow(0, farthest, 1)?)?;
            self.values.f_narrow(0, prototype as i64, 1)?.f_copy_(&taken)?;
            self.counters.steps_unassigned[prototype] = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
