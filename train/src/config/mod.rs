//! How a run is made: one flat TOML file, every key of which can be set on the command line too.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use protoseg_models::arch::{Arch, Preset};
use protoseg_models::window::{LogitGrid, Window};
use serde::{Deserialize, Serialize};

/// Which pictures and labels are read, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Data {
    /// CamVid, eleven classes.
    Camvid,
    /// The official tree of Cityscapes, 19 classes; `labelIds` files are mapped on load.
    Cityscapes,
    /// Pascal VOC 2012, 21 classes.
    Voc,
    /// A folder of one's own, with `images/`, `labels/` and `classes.txt`.
    Folder,
    /// Street scenes that the program draws; nothing is read.
    Synthetic,
}

/// What is trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Labelled pictures only.
    Supervised,
}

/// How much a class counts in the loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassWeights {
    /// Every pixel the same.
    None,
    /// 1 / ln(1.02 + share of the labelled pixels) (Paszke et al., ENet, 2016).
    Enet,
}

/// The configuration of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What the model is called.
    pub name: String,

    /// Which pictures and labels.
    pub data: Data,
    /// Folder of the data set.
    #[serde(default)]
    pub root: Option<PathBuf>,
    /// List of labelled pictures, relative to the root.
    #[serde(default)]
    pub labeled: Option<PathBuf>,
    /// List of pictures to score on, relative to the root; nothing is scored where none is named.
    #[serde(default)]
    pub validation: Option<PathBuf>,
    /// For drawn scenes: how many are labelled.
    #[serde(default = "defaults::synthetic_labeled")]
    pub synthetic_labeled: usize,
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

    /// What is trained on.
    pub mode: Mode,
    /// Optimiser steps.
    pub steps: u64,
    /// Steps before the moving average of the weights starts.
    pub warmup_steps: u64,
    /// Pictures a step.
    pub batch: usize,
    /// Height and width of the crops.
    pub crop: usize,
    /// Learning rate of the encoder at the start.
    pub learning_rate: f64,
    /// Learning rate of everything else over the encoder's.
    pub head_multiplier: f64,
    /// Of the optimiser.
    #[serde(default = "defaults::momentum")]
    pub momentum: f64,
    /// L2 penalty on every parameter.
    pub weight_decay: f64,
    /// How much a class counts.
    #[serde(default = "defaults::class_weights")]
    pub class_weights: ClassWeights,
    /// Largest share of the old average that a step leaves in the moving average.
    #[serde(default = "defaults::teacher_decay")]
    pub teacher_decay: f64,
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
    #[serde(default = "defaults::calibration_pictures")]
    pub calibration_pictures: usize,
}

mod defaults {
    use super::ClassWeights;

    pub(super) fn synthetic_labeled() -> usize {
        200
    }
    pub(super) fn synthetic_validation() -> usize {
        24
    }
    pub(super) fn synthetic_size() -> [usize; 2] {
        [256, 512]
    }
    pub(super) fn momentum() -> f64 {
        0.9
    }
    pub(super) fn class_weights() -> ClassWeights {
        ClassWeights::None
    }
    pub(super) fn teacher_decay() -> f64 {
        0.99
    }
    pub(super) fn log_every() -> u64 {
        20
    }
    pub(super) fn save_every() -> u64 {
        50
    }
    pub(super) fn calibration_pictures() -> usize {
        8
    }
}

impl Config {
    /// Reads a TOML file, then `key=value` settings over it. Values are TOML; what is none counts as a string.
    pub fn read(path: &Path, settings: &[String]) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text, settings)
            .with_context(|| format!("{} with its settings is no configuration", path.display()))
    }

    /// The same from a text.
    pub fn parse(text: &str, settings: &[String]) -> Result<Self> {
        let mut table: toml::Table = toml::from_str(text).map_err(|error| anyhow!("{}", one_line(&error)))?;
        for setting in settings {
            let (key, value) =
                setting.split_once('=').with_context(|| format!("`--set {setting}`: write `--set key=value`"))?;
            let value = match toml::from_str::<toml::Table>(&format!("value = {value}")) {
                Ok(mut parsed) => parsed.remove("value").with_context(|| format!("`--set {setting}` has no value"))?,
                Err(_) => toml::Value::String(value.to_owned()),
            };
            table.insert(key.trim().to_owned(), value);
        }
        // The first line says what is wrong; the rest draws it.
        let config: Self = table.try_into().map_err(|error: toml::de::Error| anyhow!("{}", one_line(&error)))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        ensure!(self.batch >= 2, "`batch` is {}: batch normalisation needs at least 2 pictures a step", self.batch);
        ensure!(self.batch <= 1024, "`batch` is {}: at most 1024 pictures a step are possible", self.batch);
        ensure!((32..=4096).contains(&self.crop), "`crop` is {}: crops have 32 to 4096 pixels a side", self.crop);
        ensure!(self.steps >= 1, "`steps` is 0");
        ensure!(
            self.warmup_steps <= self.steps,
            "`warmup_steps` ({}) is more than `steps` ({})",
            self.warmup_steps,
            self.steps
        );
        ensure!(self.log_every >= 1 && self.save_every >= 1, "`log_every` and `save_every` are at least 1");
        for (key, value, low, high) in [
            ("learning_rate", self.learning_rate, 0.0, 10.0),
            ("head_multiplier", self.head_multiplier, 0.0, 1000.0),
            ("momentum", self.momentum, 0.0, 0.9999),
            ("weight_decay", self.weight_decay, 0.0, 1.0),
            ("teacher_decay", self.teacher_decay, 0.0, 0.99999),
        ] {
            ensure!((low..=high).contains(&value), "`{key}` is {value}: between {low} and {high} is possible");
        }
        ensure!(
            self.synthetic_size.iter().all(|&side| (32..=8192).contains(&side)),
            "`synthetic_size`: sides of 32 to 8192 pixels"
        );
        if self.data == Data::Synthetic {
            let counts = [self.synthetic_labeled, self.synthetic_validation];
            let fits = counts[0] >= 1 && counts.iter().all(|&count| count <= 1_000_000);
            ensure!(fits, "`synthetic_labeled` and `synthetic_validation` are {counts:?}: 1 to a million are possible");
        } else {
            ensure!(self.labeled.is_some(), "`labeled` names no list of labelled pictures");
            ensure!(
                self.root.is_some(),
                "`root` names no folder for the data set; write it into the file or give `--set root=DIR`"
            );
        }
        if let Some(window) = self.window {
            let grid = LogitGrid::of(Arch::new(self.network, 2)?);
            if let Err(error) = grid.check(window) {
                bail!("`window`: {error}");
            }
        }
        Ok(())
    }
}

/// What a TOML error says, without its drawing of the place.
fn one_line(error: &toml::de::Error) -> String {
    let text = error.to_string();
    let key = text.lines().find_map(|line| line.trim().strip_prefix("in `")).map(|key| format!(" (in `{key})"));
    format!("{}{}", error.message(), key.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = include_str!("../configs/synthetic.toml");

    #[test]
    fn settings_replace_what_the_file_says() {
        let settings = ["steps=7", "warmup_steps=3", "name=other", "synthetic_size=[64, 96]"].map(str::to_owned);
        let config = Config::parse(TEXT, &settings).unwrap();
        assert_eq!((config.steps, config.name.as_str(), config.synthetic_size), (7, "other", [64, 96]));
    }

    #[test]
    fn mistakes_are_named() {
        for (setting, says) in [
            ("stepz=3", "stepz"),
            ("batch=1", "`batch` is 1"),
            ("crop=8", "`crop` is 8"),
            ("learning_rate=-1", "`learning_rate` is -1"),
            ("data=camvid", "`labeled`"),
            ("network=alexnet", "alexnet"),
            ("window={size=769, stride=512}", "768"),
            ("steps", "key=value"),
        ] {
            let error = Config::parse(TEXT, &[setting.to_owned()]).unwrap_err();
            assert!(format!("{error:#}").contains(says), "{setting}: {error:#}");
        }
    }

    #[test]
    fn every_configuration_in_the_folder_is_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            Config::read(&path, &["root=somewhere".to_owned()]).unwrap_or_else(|error| panic!("{error:#}"));
        }
    }
}
