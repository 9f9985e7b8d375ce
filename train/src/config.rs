//! How a run is made: one flat TOML file, every key of which can be set on the command line too.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use protoseg_models::arch::Preset;
use protoseg_models::window::Window;
use serde::{Deserialize, Serialize};

mod check;
mod defaults;
pub mod fidelity;
pub mod options;
mod warmup;

use options::{
    ClassWeights, DataSource, FeatureSource, Fidelity, PadLabel, PointSampling, Precision,
    PrototypeAverage, SupervisedLoss, TeacherStatistics, TrainingMode, UnlabeledScale,
};

/// The configuration of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What the model is called.
    pub name: String,

    /// Which pictures and labels.
    pub data: DataSource,
    /// Folder of the data set.
    #[serde(default)]
    pub root: Option<PathBuf>,
    /// List of labelled pictures, relative to the root.
    #[serde(default)]
    pub labeled: Option<PathBuf>,
    /// List of pictures without labels, relative to the root; a second column counts nothing.
    #[serde(default)]
    pub unlabeled: Option<PathBuf>,
    /// List of pictures with labels, relative to the root, by which the teacher's labels of unlabelled pictures are judged
    /// in the log and in a score of their own; nothing is learnt from it.
    #[serde(default)]
    pub unlabeled_truth: Option<PathBuf>,
    /// List of pictures to score on, relative to the root; nothing is scored where none is named.
    #[serde(default)]
    pub validation: Option<PathBuf>,
    /// For drawn scenes: how many are labelled.
    #[serde(default = "defaults::synthetic_labeled")]
    pub synthetic_labeled: usize,
    /// For drawn scenes: how many are not.
    #[serde(default = "defaults::synthetic_unlabeled")]
    pub synthetic_unlabeled: usize,
    /// For drawn scenes: how many are scored on.
    #[serde(default = "defaults::synthetic_validation")]
    pub synthetic_validation: usize,
    /// For drawn scenes: height and width.
    #[serde(default = "defaults::synthetic_size")]
    pub synthetic_size: [usize; 2],

    /// The network.
    pub network: Preset,
    /// Whether the ResNets' auxiliary head is trained along, at weight 0.4.
    #[serde(default)]
    pub auxiliary: bool,
    /// Weights to start from, `.safetensors` or `.pth`: a whole network's, or an encoder's.
    #[serde(default)]
    pub pretrained: Option<PathBuf>,
    /// Size and stride of windows in which pictures are scored and labelled; whole pictures where none is given.
    #[serde(default)]
    pub window: Option<Window>,

    /// What is trained on after the warm-up.
    pub mode: TrainingMode,
    /// Habits of a published line of code to follow to the letter.
    #[serde(default)]
    pub fidelity: Option<Fidelity>,
    /// Optimiser steps; `epochs` says them otherwise.
    #[serde(default)]
    pub steps: u64,
    /// Steps of supervised training before the teacher is made.
    #[serde(default)]
    pub warmup_steps: u64,
    /// Passes over the unlabelled pictures, or over the labelled ones where there are no others.
    #[serde(default)]
    pub epochs: u64,
    /// Passes before the teacher is made.
    #[serde(default)]
    pub warmup_epochs: u64,
    /// Labelled crops of a micro-batch, and as many unlabelled ones after the warm-up.
    pub batch: usize,
    /// Micro-batches of an optimiser step; each has batch statistics, CutMix and thresholds of its own.
    #[serde(default = "defaults::one")]
    pub accumulate: usize,
    /// Height and width of the crops.
    pub crop: usize,
    /// Numbers of convolutions.
    #[serde(default = "defaults::precision")]
    pub precision: Precision,
    /// Learning rate of the encoder at the start.
    pub learning_rate: f64,
    /// Labelled crops a step that the learning rate is meant for: with others it is scaled in proportion.
    #[serde(default)]
    pub learning_rate_for: Option<usize>,
    /// Learning rate of everything else over the encoder's.
    pub head_multiplier: f64,
    /// Whether the learning rate starts anew after the warm-up and falls over the steps that are left.
    #[serde(default)]
    #[serde(alias = "restart")]
    pub restart_learning_rate: bool,
    /// Of the optimiser.
    #[serde(default = "defaults::momentum")]
    pub momentum: f64,
    /// L2 penalty on every parameter.
    pub weight_decay: f64,
    /// Loss on labelled pixels.
    #[serde(default = "defaults::criterion")]
    pub criterion: SupervisedLoss,
    /// OHEM: pixels whose class has at most this probability are hard.
    #[serde(default = "defaults::ohem_threshold")]
    pub ohem_threshold: f64,
    /// OHEM: share of the pixels that are kept at least.
    #[serde(default = "defaults::ohem_kept")]
    pub ohem_kept: f64,
    /// How much a class counts.
    #[serde(default = "defaults::class_weights")]
    pub class_weights: ClassWeights,
    /// Label of what lies outside a picture.
    #[serde(default = "defaults::pad_label")]
    pub pad_label: PadLabel,

    /// Largest share of the old average that a step leaves in the moving average.
    #[serde(default = "defaults::teacher_decay")]
    pub teacher_decay: f64,
    /// Where the teacher's batch normalisation statistics come from.
    #[serde(default = "defaults::teacher_statistics")]
    pub teacher_statistics: TeacherStatistics,
    /// Whether the teacher is the student itself during the first pass over the unlabelled pictures.
    #[serde(default)]
    pub copy_teacher_each_step: bool,
    /// Batches over which running statistics are measured anew before the teacher is made; 0 leaves them as trained.
    #[serde(default = "defaults::precise_bn_batches")]
    #[serde(alias = "settle_batches")]
    pub precise_bn_batches: u64,

    /// Chance that a micro-batch of unlabelled pictures is mixed.
    #[serde(default = "defaults::cutmix")]
    pub cutmix: f64,
    /// Whether the student sees unlabelled pictures in changed colours, too.
    #[serde(default)]
    pub photometric: bool,
    /// Weight of the unlabelled loss.
    #[serde(default = "defaults::weight")]
    pub unlabeled_weight: f64,
    /// Share of the steps after the warm-up over which that weight rises from 0.
    #[serde(default)]
    pub unlabeled_ramp: f64,
    /// Percent of the valid unlabelled pixels of a micro-batch, those of highest entropy, that are dropped at first; falls
    /// to 0 at the end.
    #[serde(default = "defaults::entropy_drop")]
    pub entropy_drop: f64,
    /// Whether that share is taken of each predicted class.
    #[serde(default)]
    pub entropy_drop_per_class: bool,
    /// Unlabelled pixels of at most this confidence are dropped.
    #[serde(default)]
    pub unlabeled_gate: f64,
    /// Whether classes count in the unlabelled loss as they do in the labelled one.
    #[serde(default)]
    pub unlabeled_class_weights: bool,
    /// Which pixels the unlabelled loss is scaled by.
    #[serde(default = "defaults::unlabeled_scale")]
    pub unlabeled_scale: UnlabeledScale,

    /// Prototypes of a class.
    #[serde(default = "defaults::prototypes")]
    pub prototypes: usize,
    /// Cosines are divided by it.
    #[serde(default = "defaults::temperature")]
    pub temperature: f64,
    /// Share of a prototype that an update leaves.
    #[serde(default = "defaults::prototype_momentum")]
    pub prototype_momentum: f64,
    /// Unlabelled points of at most this confidence do not move prototypes.
    #[serde(default = "defaults::gate")]
    #[serde(alias = "gate")]
    pub prototype_gate: f64,
    /// Whether they are left out of the prototype loss too.
    #[serde(default)]
    pub gate_loss: bool,
    /// Weight of the prototype losses.
    #[serde(default = "defaults::weight")]
    pub prototype_weight: f64,
    /// Weight of the unlabelled one of them over the labelled one.
    #[serde(default = "defaults::weight")]
    pub prototype_unlabeled_weight: f64,
    /// Share of the steps after the warm-up over which that rises from 0.
    #[serde(default)]
    pub prototype_ramp: f64,
    /// How points are drawn.
    #[serde(default = "defaults::points")]
    pub points: PointSampling,
    /// Cells across and down of which each gives a point.
    #[serde(default = "defaults::point_cells")]
    pub point_cells: usize,
    /// Points of each class and picture, where they are balanced.
    #[serde(default = "defaults::points_per_class")]
    #[serde(alias = "points_a_class")]
    pub points_per_class: usize,
    /// Which features are compared.
    #[serde(default = "defaults::features")]
    pub features: FeatureSource,
    /// What a prototype is the average of.
    #[serde(default = "defaults::average")]
    pub average: PrototypeAverage,
    /// Steps without a hit after which a prototype is set anew; 0 for never.
    #[serde(default = "defaults::reseed_after")]
    pub reseed_after: u64,

    /// Every random draw follows from it.
    #[serde(default)]
    pub seed: u64,

    /// Steps between scores on the validation list; only the last step is scored where it is 0.
    #[serde(default)]
    pub eval_every: u64,
    /// Steps between lines in the log.
    #[serde(default = "defaults::log_every")]
    pub log_every: u64,
    /// Steps between saves of what resuming needs.
    #[serde(default = "defaults::save_every")]
    pub save_every: u64,
    /// Pictures whose values are recorded for 8-bit export; 0 for none.
    #[serde(default = "defaults::calibration_images")]
    #[serde(alias = "calibration_pictures")]
    pub calibration_images: usize,
    /// Unlabelled pictures whose labels by the teacher are written with every score; 0 for none.
    #[serde(default)]
    #[serde(alias = "dumped_pictures")]
    pub dumped_images: usize,
}

impl Config {
    /// Reads a TOML file, then `key=value` settings over it. Values are TOML; what is none counts as a string.
    pub fn read(path: &Path, settings: &[String]) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text, settings)
            .with_context(|| format!("{} with its settings is no configuration", path.display()))
    }

    /// The same from a text.
    pub fn parse(text: &str, settings: &[String]) -> Result<Self> {
        let mut table: toml::Table =
            toml::from_str(text).map_err(|error| anyhow!("{}", one_line(&error)))?;
        for (old, current) in RENAMED {
            if let Some(value) = table.remove(old)
                && table.insert(current.to_owned(), value).is_some()
            {
                bail!("`{old}` is the old name of `{current}`; leave one of the two out");
            }
        }
        for setting in settings {
            let (key, value) = setting
                .split_once('=')
                .with_context(|| format!("`--set {setting}`: write `--set key=value`"))?;
            let value = match toml::from_str::<toml::Table>(&format!("value = {value}")) {
                Ok(mut parsed) => parsed
                    .remove("value")
                    .with_context(|| format!("`--set {setting}` has no value"))?,
                Err(_) => toml::Value::String(value.to_owned()),
            };
            table.insert(current_name(key.trim()).to_owned(), value);
        }
        fidelity::apply(&mut table)?;
        // The first line says what is wrong; the rest draws it.
        let config: Self =
            table.try_into().map_err(|error: toml::de::Error| anyhow!("{}", one_line(&error)))?;
        config.check()?;
        Ok(config)
    }
}

/// Keys under their old names, which files and `--set` may still use.
const RENAMED: [(&str, &str); 6] = [
    ("restart", "restart_learning_rate"),
    ("settle_batches", "precise_bn_batches"),
    ("gate", "prototype_gate"),
    ("points_a_class", "points_per_class"),
    ("calibration_pictures", "calibration_images"),
    ("dumped_pictures", "dumped_images"),
];

/// The name that a key has now.
fn current_name(key: &str) -> &str {
    RENAMED.iter().find(|(old, _)| *old == key).map_or(key, |(_, current)| current)
}

/// What a TOML error says, without its drawing of the place.
fn one_line(error: &toml::de::Error) -> String {
    let text = error.to_string();
    let key = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("in `"))
        .map(|key| format!(" (in `{key})"));
    format!("{}{}", error.message(), key.unwrap_or_default())
}

#[cfg(test)]
mod tests;
