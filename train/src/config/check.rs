//! What a configuration may say.

use anyhow::{Result, bail, ensure};
use protoseg_models::arch::Arch;
use protoseg_models::window::LogitGrid;

use super::Config;
use super::options::{DataSource, TrainingMode};

impl Config {
    /// Refuses numbers that cannot be, naming the key.
    pub(super) fn check(&self) -> Result<()> {
        self.check_schedule()?;
        self.check_ranges()?;
        self.check_data()?;
        if let Some(window) = self.window {
            let grid = LogitGrid::from_arch(Arch::new(self.network, 2)?);
            if let Err(error) = grid.check(window) {
                bail!("`window`: {error}");
            }
        }
        Ok(())
    }

    fn check_schedule(&self) -> Result<()> {
        ensure!(
            (32..=4096).contains(&self.crop),
            "`crop` is {}: crops have 32 to 4096 pixels a side",
            self.crop
        );
        ensure!(
            (1..=1024).contains(&self.batch),
            "`batch` is {}: 1 to 1024 crops are possible",
            self.batch
        );
        let alone = self.batch == 1;
        ensure!(
            !alone
                || self.mode != TrainingMode::Supervised
                    && self.cutmix == 0.0
                    && self.warmup_steps + self.warmup_epochs == 0
                    && self.precise_bn_batches == 0,
            "`batch` is 1: batch normalisation needs at least 2 pictures in the warm-up, in supervised training and where \
             statistics are measured anew (`precise_bn_batches = 0` turns that off), and CutMix at least 2 unlabelled ones \
             (`cutmix = 0` turns it off)"
        );
        ensure!(
            (1..=1024).contains(&self.accumulate),
            "`accumulate` is {}: 1 to 1024 are possible",
            self.accumulate
        );
        ensure!(
            (self.steps > 0) != (self.epochs > 0),
            "`steps` is {} and `epochs` is {}: give one of the two",
            self.steps,
            self.epochs
        );
        ensure!(
            self.warmup_steps <= self.steps && self.warmup_epochs <= self.epochs,
            "the warm-up (`warmup_steps` {}, `warmup_epochs` {}) is longer than the run (`steps` {}, `epochs` {})",
            self.warmup_steps,
            self.warmup_epochs,
            self.steps,
            self.epochs
        );
        ensure!(
            self.log_every >= 1 && self.save_every >= 1,
            "`log_every` and `save_every` are at least 1"
        );
        Ok(())
    }

    fn check_ranges(&self) -> Result<()> {
        for (key, value, low, high) in [
            ("learning_rate", self.learning_rate, 0.0, 10.0),
            ("head_multiplier", self.head_multiplier, 0.0, 1000.0),
            ("momentum", self.momentum, 0.0, 0.9999),
            ("weight_decay", self.weight_decay, 0.0, 1.0),
            ("ohem_threshold", self.ohem_threshold, 0.0, 1.0),
            ("ohem_kept", self.ohem_kept, 0.0, 1.0),
            ("teacher_decay", self.teacher_decay, 0.0, 0.99999),
            ("cutmix", self.cutmix, 0.0, 1.0),
            ("unlabeled_weight", self.unlabeled_weight, 0.0, 1000.0),
            ("unlabeled_ramp", self.unlabeled_ramp, 0.0, 1.0),
            ("entropy_drop", self.entropy_drop, 0.0, 100.0),
            ("unlabeled_gate", self.unlabeled_gate, 0.0, 1.0),
            ("prototypes", self.prototypes as f64, 1.0, 64.0),
            ("temperature", self.temperature, 0.001, 100.0),
            ("prototype_momentum", self.prototype_momentum, 0.0, 1.0),
            ("gate", self.prototype_gate, 0.0, 1.0),
            ("prototype_weight", self.prototype_weight, 0.0, 1000.0),
            ("prototype_unlabeled_weight", self.prototype_unlabeled_weight, 0.0, 1000.0),
            ("prototype_ramp", self.prototype_ramp, 0.0, 1.0),
            ("point_cells", self.point_cells as f64, 1.0, self.crop as f64),
            ("points_per_class", self.points_per_class as f64, 1.0, 65536.0),
        ] {
            ensure!(
                (low..=high).contains(&value),
                "`{key}` is {value}: between {low} and {high} is possible"
            );
        }
        ensure!(
            self.learning_rate_for != Some(0),
            "`learning_rate_for` is 0: name the labelled crops of a step"
        );
        Ok(())
    }

    fn check_data(&self) -> Result<()> {
        ensure!(
            self.synthetic_size.iter().all(|&side| (32..=8192).contains(&side)),
            "`synthetic_size`: sides of 32 to 8192 pixels"
        );
        let needs_unlabeled = self.mode != TrainingMode::Supervised;
        if self.data == DataSource::Synthetic {
            let counts =
                [self.synthetic_labeled, self.synthetic_unlabeled, self.synthetic_validation];
            let fits = counts[0] >= 1 && counts.iter().all(|&count| count <= 1_000_000);
            ensure!(
                fits && (counts[1] >= 1 || !needs_unlabeled),
                "`synthetic_labeled`, `synthetic_unlabeled` and `synthetic_validation` are {counts:?}: 1 to a million are \
                 possible"
            );
        } else {
            ensure!(self.labeled.is_some(), "`labeled` names no list of labelled pictures");
            ensure!(
                self.unlabeled.is_some() || !needs_unlabeled,
                "`unlabeled` names no list of pictures; `mode = \"supervised\"` needs none"
            );
            ensure!(
                self.root.is_some(),
                "`root` names no folder for the data set; write it into the file or give `--set root=DIR`"
            );
        }
        Ok(())
    }
}
