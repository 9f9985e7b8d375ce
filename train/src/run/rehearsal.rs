//! Rehearsal of everything beside the steps on the largest images, so that the plan knows its time and memory.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context, Result};
use protoseg_images::labeled::LabeledDataset;
use rayon::prelude::*;

use crate::calibrate::Calibrator;
use crate::config::options::{Precision, TrainingMode};
use crate::data::census::{Census, ListFacts};
use crate::data::lists::Lists;
use crate::data::read;
use crate::evaluate::{LogitsNotFinite, Predictor, Protocol};
use crate::interrupt::Interrupt;
use crate::method::prototype_init::{POINTS, feature_node, features_at};
use crate::method::step::Learner;
use crate::run::memory::{self, Phase, in_phase};
use crate::run::sample_images::SHOWN;
use crate::tiles;

/// Expected seconds of everything beside the steps.
#[derive(Debug, Clone, Copy, Default)]
pub struct PhaseCosts {
    /// One scoring of every list, with the images of the report.
    pub scoring: f64,
    /// First prototypes, without batch statistics.
    pub prototypes: f64,
    pub calibration: f64,
    /// Expected peak memory in bytes.
    pub memory: Option<u64>,
}

/// Memory beside that of one pass which free blocks between those in use take, once passes and steps have alternated for a
/// while: a quarter, from peaks on images of 2 megapixels.
const FRAGMENTED: u64 = 4;
/// Most that such blocks take: the allocator gives blocks of more than 32 MB back to the system at once, and on larger images
/// nearly all are. From peaks on images of 12 megapixels.
const FRAGMENTED_AT_MOST: u64 = 192 << 20;
/// Memory that free blocks take beside the peak of a few steps, once many have been taken. From peaks on images of 0.3
/// megapixels.
const BETWEEN_STEPS: u64 = 48 << 20;

/// Runs the rehearsal of a phase; `memory` becomes the peak that is to be expected of the phase, if that is higher.
fn rehearse(
    phase: Phase,
    memory: &mut Option<u64>,
    run: impl FnOnce() -> Result<f64>,
) -> Result<f64> {
    let (resident, before) = (memory::resident(), memory::peak());
    let seconds = in_phase(phase, run)?;
    let after = memory::peak();
    let expected = match (resident, before, after) {
        (Some(resident), Some(before), Some(after)) if after > before => {
            let pass = after.saturating_sub(resident);
            Some(after + (pass / FRAGMENTED).min(FRAGMENTED_AT_MOST))
        }
        _ => after,
    };
    *memory = (*memory).max(expected);
    Ok(seconds)
}

/// A learner that may be spoiled, and the images of its run.
pub struct Rehearsal<'a> {
    pub trial: &'a Learner<'a>,
    pub lists: &'a Lists,
    pub census: &'a Census,
    pub protocol: Protocol,
    pub interrupt: Interrupt,
}

impl Rehearsal<'_> {
    /// Takes a part of each phase on the largest image that it meets; what follows is time from the share of pixels, and the
    /// peak memory of the process.
    pub fn measure(&self) -> Result<PhaseCosts> {
        // Saving copies the networks and the momentum to main memory.
        let Learner { student, teacher, optimizer, .. } = self.trial;
        drop(black_box([student.state_dict()?, teacher.state_dict()?, optimizer.state_dict()?]));
        let mut memory = memory::peak();
        Ok(PhaseCosts {
            scoring: rehearse(Phase::Scoring, &mut memory, || self.scoring())?,
            prototypes: rehearse(Phase::WarmupEnd, &mut memory, || self.prototypes())?,
            calibration: rehearse(Phase::Calibration, &mut memory, || self.calibration())?,
            memory: memory.map(|peak| peak + BETWEEN_STEPS),
        })
    }

    fn scoring(&self) -> Result<f64> {
        let Lists { unlabeled, unlabeled_truth, validation, .. } = self.lists;
        let shown = self.trial.config.dumped_images;
        let validation = validation.as_ref().zip(self.census.validation.as_ref());
        let unlabeled = unlabeled.as_deref().zip(self.census.unlabeled.as_ref());
        let unlabeled = unlabeled.filter(|_| unlabeled_truth.is_some() || shown > 0);
        let Some((images, index)) = largest([validation, unlabeled]) else { return Ok(0.0) };
        let sample = read::read(images, index)?;
        let net = self.trial.teacher.with_precision(Precision::Float32);
        let net = net.interruptible(self.interrupt.clone());
        let (pixels, size) = (sample.image.as_raw().as_slice(), sample.size());
        let started = Instant::now();
        unless_diverged(Predictor::linear(&net, self.protocol).labels(pixels, size))?;
        let linear = started.elapsed().as_secs_f64();
        let started = Instant::now();
        let mut head = 0.0;
        if let Some(prototypes) = &self.trial.prototypes {
            let node = feature_node(net.graph(), self.trial.config.features)?;
            let predictor = Predictor::prototypes(&net, node, prototypes, self.protocol);
            unless_diverged(predictor.labels(pixels, size))?;
            head = started.elapsed().as_secs_f64();
        }
        let area = |[height, width]: [usize; 2]| (height * width) as f64;
        let total = |list: Option<(&LabeledDataset, &ListFacts)>| -> f64 {
            list.map_or(0.0, |(_, facts)| facts.sizes.iter().copied().map(area).sum())
        };
        let scored = if unlabeled_truth.is_some() { total(unlabeled) } else { 0.0 };
        let count = validation.map_or(0, |(images, _)| images.count());
        let report = (2 * SHOWN).min(count) as f64 / count.max(1) as f64 * total(validation);
        // Teacher and student.
        let share = 1.0 / area(size);
        Ok(share * ((2.0 * linear + head) * (total(validation) + scored) + linear * report))
    }

    fn prototypes(&self) -> Result<f64> {
        let config = self.trial.config;
        if config.mode != TrainingMode::Prototype {
            return Ok(0.0);
        }
        let facts = &self.census.labeled;
        let index = facts.largest().context("there are no labeled images")?;
        // The first of two passes reads images on every core.
        let threads = rayon::current_num_threads().min(facts.sizes.len());
        let started = Instant::now();
        let read = |_| read::read(&self.lists.labeled, index);
        let mut samples = (0..threads).into_par_iter().map(read).collect::<Result<Vec<_>>>()?;
        let reading = started.elapsed().as_secs_f64() / threads as f64;
        let sample = samples.swap_remove(0);
        drop(samples);
        let net = self.trial.teacher.with_precision(config.precision);
        let net = net.interruptible(self.interrupt.clone());
        let node = feature_node(net.graph(), config.features)?;
        let points = POINTS * net.graph().node(node).channels * self.trial.classes();
        let points = black_box(vec![1.0_f32; points]);
        let started = Instant::now();
        // A single point is in a single window.
        features_at(&net, node, self.protocol.grid, &sample, &[vec![0]])?;
        let seconds = started.elapsed().as_secs_f64();
        drop(points);
        let tile = |size: [usize; 2]| -> Result<[f64; 2]> {
            Ok(match tiles::plan(size, None, self.protocol.grid)? {
                Some(plan) => {
                    [plan.count() as f64, plan.tile_size().iter().product::<usize>() as f64]
                }
                None => [1.0, (size[0] * size[1]) as f64],
            })
        };
        let [_, area] = tile(sample.size())?;
        let mut sum = 0.0;
        for &size in &facts.sizes {
            let [count, own] = tile(size)?;
            sum += count * own / area * seconds;
        }
        Ok(sum + 2.0 * reading * facts.sizes.len() as f64)
    }

    fn calibration(&self) -> Result<f64> {
        let count = self.trial.config.calibration_images;
        let facts = &self.census.labeled;
        let Some(index) = facts.largest().filter(|_| count > 0) else { return Ok(0.0) };
        let net = self.trial.teacher.with_precision(Precision::Float32);
        let net = net.interruptible(self.interrupt.clone());
        let calibrator =
            Calibrator { net: &net, images: &self.lists.labeled, protocol: self.protocol };
        let started = Instant::now();
        let pixels = calibrator.rehearse(index)?;
        let per_pixel = started.elapsed().as_secs_f64() / pixels as f64;
        let started = Instant::now();
        let nodes = calibrator.rehearse_sensitivities()?;
        // On average half of the network follows a node.
        let sensitivities = 0.5 * nodes as f64 * started.elapsed().as_secs_f64();
        let mut seconds = sensitivities;
        for index in calibrator.chosen(count) {
            seconds += per_pixel * calibrator.pixels(facts.sizes[index])? as f64;
        }
        Ok(seconds)
    }
}

/// Returns the largest image of some lists.
fn largest<'a, const N: usize>(
    lists: [Option<(&'a LabeledDataset, &'a ListFacts)>; N],
) -> Option<(&'a LabeledDataset, usize)> {
    let largest = |(images, facts): (&'a LabeledDataset, &'a ListFacts)| {
        let index = facts.largest()?;
        Some((facts.sizes[index].iter().product::<usize>(), images, index))
    };
    let found = lists.into_iter().flatten().filter_map(largest);
    let (_, images, index) = found.max_by_key(|&(pixels, ..)| pixels)?;
    Some((images, index))
}

/// Takes a network that diverged in the trial steps: they may be wilder than the run's first ones,
/// and its values do not matter for time and memory.
fn unless_diverged(labels: Result<Vec<u8>>) -> Result<()> {
    match labels {
        Err(error) if !error.is::<LogitsNotFinite>() => Err(error),
        _ => Ok(()),
    }
}
