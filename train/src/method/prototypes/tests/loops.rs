//! The prototypes as loops in f64.

use super::super::{PrototypeAverage, PrototypeCounters, PrototypeSettings};
use super::{CHANNELS, IGNORED};
use tch::{Kind, Tensor};

/// Features and labels of a micro-batch.
pub(super) type Points = (Vec<Vec<f64>>, Vec<i64>);

pub(super) fn tensor(rows: &[Vec<f64>]) -> Tensor {
    Tensor::from_slice2(rows).to_kind(Kind::Float)
}

pub(super) fn rows(tensor: &Tensor) -> Vec<Vec<f64>> {
    Vec::try_from(tensor.to_kind(Kind::Double)).unwrap()
}

pub(super) fn dot(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(left, right)| left * right).sum()
}

pub(super) fn cosine(left: &[f64], right: &[f64]) -> f64 {
    dot(left, right) / (dot(left, left) * dot(right, right)).sqrt()
}

pub(super) fn unit(row: &[f64]) -> Vec<f64> {
    row.iter().map(|value| value / dot(row, row).sqrt()).collect()
}

fn mean(rows: &[Vec<f64>]) -> Vec<f64> {
    let count = rows.len() as f64;
    (0..CHANNELS).map(|channel| rows.iter().map(|row| row[channel]).sum::<f64>() / count).collect()
}

/// Expected prototypes.
pub(super) struct Loops {
    pub(super) settings: PrototypeSettings,
    pub(super) values: Vec<Vec<f64>>,
    pub(super) mean: Vec<f64>,
    pub(super) counters: PrototypeCounters,
}

impl Loops {
    fn kept(&self, row: &[f64]) -> Vec<f64> {
        if self.settings.average == PrototypeAverage::Normalized { unit(row) } else { row.to_vec() }
    }

    /// Takes a step and returns the prototypes that it has moved, and those of them that were re-initialized. New classes take
    /// their values from `found`, which must lie near the mean of their points and differ from each other.
    pub(super) fn step(&mut self, batches: &[Points], found: &[Vec<f64>]) -> [Vec<usize>; 2] {
        let PrototypeSettings { classes, per_class: each, momentum, reseed_after, .. } =
            self.settings;
        let all: Vec<Vec<f64>> =
            batches.iter().flat_map(|(features, _)| features).cloned().collect();
        let centered: Vec<Vec<f64>> = all
            .iter()
            .map(|row| row.iter().zip(&self.mean).map(|(value, mean)| value - mean).collect())
            .collect();
        let labels: Vec<i64> = batches.iter().flat_map(|(_, labels)| labels).copied().collect();
        let mut own: Vec<Vec<Vec<f64>>> = vec![Vec::new(); classes * each];
        let mut of_class: Vec<Vec<Vec<f64>>> = vec![Vec::new(); classes];
        for (row, &label) in centered.iter().zip(&labels).filter(|(_, label)| **label != IGNORED) {
            let place = label as usize * each;
            let closest = |row: &Vec<f64>, number: usize| cosine(row, &self.values[place + number]);
            let nearest = (0..each)
                .max_by(|&left, &right| closest(row, left).total_cmp(&closest(row, right)))
                .unwrap();
            own[place + nearest].push(row.clone());
            of_class[label as usize].push(row.clone());
        }
        let mut moved: Vec<usize> =
            (0..own.len()).filter(|&prototype| !own[prototype].is_empty()).collect();
        for &prototype in &moved {
            let points: Vec<Vec<f64>> = own[prototype].iter().map(|row| self.kept(row)).collect();
            let target = mean(&points);
            let old = &self.values[prototype];
            let sum: Vec<f64> =
                (0..CHANNELS).map(|c| momentum * old[c] + (1.0 - momentum) * target[c]).collect();
            self.values[prototype] = self.kept(&sum);
            self.counters.assignments[prototype] += points.len() as u64;
        }
        for class in 0..classes {
            if self.counters.active[class] || of_class[class].is_empty() {
                continue;
            }
            let points: Vec<Vec<f64>> = of_class[class].iter().map(|row| self.kept(row)).collect();
            let start = self.kept(&mean(&points));
            let begun = &found[class * each..][..each];
            for value in begun {
                let apart: Vec<f64> =
                    value.iter().zip(&start).map(|(value, start)| value - start).collect();
                let apart = (dot(&apart, &apart) / dot(&start, &start)).sqrt();
                assert!(
                    (1e-4..0.1).contains(&apart),
                    "starts {apart} away from the mean of its points"
                );
            }
            assert!(begun[0] != begun[1] && begun[1] != begun[2] && begun[0] != begun[2]);
            self.values[class * each..][..each].clone_from_slice(begun);
            self.counters.active[class] = true;
            moved.extend(class * each..(class + 1) * each);
        }
        let mut reinitialized = Vec::new();
        for (prototype, points) in own.iter().enumerate() {
            let (class, steps_unassigned) =
                (prototype / each, &mut self.counters.steps_unassigned[prototype]);
            if reseed_after == 0 || !points.is_empty() {
                *steps_unassigned = 0;
            } else if of_class[class].len() >= each {
                *steps_unassigned += 1;
            }
            if reseed_after > 0 && *steps_unassigned >= reseed_after {
                reinitialized.push(prototype);
            }
        }
        for &prototype in &reinitialized {
            let class = prototype / each;
            let others: Vec<usize> =
                (class * each..(class + 1) * each).filter(|other| *other != prototype).collect();
            let closest = |row: &Vec<f64>| {
                others
                    .iter()
                    .map(|&other| cosine(row, &self.values[other]))
                    .fold(f64::NEG_INFINITY, f64::max)
            };
            let farthest = of_class[class]
                .iter()
                .min_by(|left, right| closest(left).total_cmp(&closest(right)));
            self.values[prototype] = self.kept(farthest.unwrap());
            self.counters.steps_unassigned[prototype] = 0;
            moved.push(prototype);
        }
        if self.settings.centered && labels.iter().any(|label| *label != IGNORED) {
            let counted = all.into_iter().zip(&labels).filter(|(_, label)| **label != IGNORED);
            let target = mean(&counted.map(|(row, _)| row).collect::<Vec<_>>());
            self.mean = (0..CHANNELS)
                .map(|c| momentum * self.mean[c] + (1.0 - momentum) * target[c])
                .collect();
        }
        [moved, reinitialized]
    }
}
