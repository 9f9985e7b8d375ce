//! Validation: ranges from the schema of [`Config`], and combinations of keys.

use anyhow::{Result, bail, ensure};
use protoseg_models::window::LogitGrid;

use super::options::{DataSource, TeacherStatistics, TrainingMode, TransformerHead};
use super::{Config, reference};

impl Config {
    /// Refuses values out of range and keys that contradict each other, by name.
    pub(super) fn check(&self) -> Result<()> {
        self.check_ranges()?;
        self.check_network()?;
        self.check_schedule()?;
        self.check_teacher()?;
        self.check_data()?;
        self.check_augmentation()?;
        if let Some(window) = self.window {
            let grid = LogitGrid::from_arch(self.arch(2)?);
            if let Err(error) = grid.check(window) {
                bail!("`window`: {error}");
            }
        }
        Ok(())
    }

    fn check_ranges(&self) -> Result<()> {
        let values = serde_json::to_value(self)?;
        for (key, property) in reference::properties() {
            let value = &values[&key];
            let is_number = matches!(property["type"].as_str(), Some("number" | "integer"));
            if !is_number && !value.is_number() {
                continue;
            }
            // NaN and infinity are null in JSON.
            let number = value.as_f64().unwrap_or(f64::NAN);
            let low = property["minimum"].as_f64().unwrap_or(f64::MIN);
            let high = property["maximum"].as_f64().unwrap_or(f64::MAX);
            ensure!(
                (low..=high).contains(&number),
                "`{key}` is {number}; it must be {}",
                reference::range_text(&property).unwrap_or_else(|| "a finite number".to_owned())
            );
        }
        let sides = self.crop.sides();
        if let Some(side) = sides.into_iter().find(|side| !(32..=4096).contains(side)) {
            bail!("`crop` is {side}; it must be between 32 and 4096");
        }
        ensure!(
            self.point_cells <= self.crop.shorter(),
            "`point_cells` is {}; it must be at most `crop`, which is {}",
            self.point_cells,
            self.crop.shorter()
        );
        Ok(())
    }

    fn check_network(&self) -> Result<()> {
        let arch = self.arch(2)?;
        let [height, width] = self.crop.sides();
        let off_grid =
            [height, width].into_iter().find(|side| !side.is_multiple_of(arch.encoder_stride()));
        ensure!(
            self.network.vit().is_none() || off_grid.is_none(),
            "`crop` is {}; {} needs a multiple of `patch_pixels`, which is {}",
            off_grid.unwrap_or_default(),
            self.network,
            self.patch_pixels
        );
        ensure!(
            !self.freeze_encoder || self.pretrained.is_some(),
            "`freeze_encoder` would keep random weights: give `pretrained`"
        );
        let has_stem = self.head == TransformerHead::PyramidLite0;
        ensure!(
            has_stem || self.pretrained_stem.is_none(),
            "`pretrained_stem` has no effect with this head; set `head = \"pyramid-lite0\"`"
        );
        ensure!(
            !has_stem || !self.freeze_encoder || self.pretrained_stem.is_some(),
            "`freeze_encoder` would keep a random stem: give `pretrained_stem`, such as `.runtime/weights/efficientnet-lite0.pth`"
        );
        let stride = arch.encoder_stride();
        ensure!(
            !self.cutmix_features || self.freeze_encoder,
            "`cutmix_features` mixes the outputs of a frozen encoder: set `freeze_encoder = true`"
        );
        ensure!(
            !self.cutmix_features || self.crop.sides().iter().all(|side| side % stride == 0),
            "`cutmix_features` needs a `crop` in multiples of {stride} pixels, the encoder's grid; it is {}",
            self.crop
        );
        Ok(())
    }

    fn check_schedule(&self) -> Result<()> {
        let single_crop_works = self.mode != TrainingMode::Supervised
            && self.cutmix == 0.0
            && self.warmup_steps + self.warmup_epochs == 0
            && self.precise_bn_batches == 0;
        ensure!(
            self.batch > 1 || single_crop_works,
            "`batch` is 1: batch normalization needs at least 2 crops in supervised steps and in \
             precise BatchNorm (`precise_bn_batches = 0` turns it off), and CutMix at least 2 \
             unlabeled crops (`cutmix = 0` turns it off)"
        );
        ensure!(
            (self.steps > 0) != (self.epochs > 0),
            "`steps` is {} and `epochs` is {}: give one of the two",
            self.steps,
            self.epochs
        );
        ensure!(
            self.warmup_steps <= self.steps && self.warmup_epochs <= self.epochs,
            "the warm-up (`warmup_steps` {}, `warmup_epochs` {}) is longer than the run \
             (`steps` {}, `epochs` {})",
            self.warmup_steps,
            self.warmup_epochs,
            self.steps,
            self.epochs
        );
        Ok(())
    }

    fn check_teacher(&self) -> Result<()> {
        let mode = self.mode;
        ensure!(
            self.teacher.is_some() || mode != TrainingMode::Distill,
            "`teacher` is missing: `mode = \"distill\"` learns from the labels of a finished network; name its checkpoint folder"
        );
        ensure!(
            self.teacher.is_none()
                || matches!(mode, TrainingMode::Distill | TrainingMode::Prototype),
            "`teacher` has no effect in this mode; set `mode = \"distill\"` or `mode = \"prototype\"`"
        );
        ensure!(
            self.teacher.is_none() || self.teacher_statistics == TeacherStatistics::Average,
            "`teacher_statistics = \"batch\"` has no effect with `teacher`, which labels each image once; remove one of the two"
        );
        Ok(())
    }

    fn check_augmentation(&self) -> Result<()> {
        let [low, high] = self.scale;
        ensure!(
            0.1 <= low && low <= high && high <= 10.0,
            "`scale` is [{low}, {high}]; it must be the smallest and the largest scale, between 0.1 \
             and 10, such as [0.5, 2.0]"
        );
        ensure!(
            self.flip || self.flip_pairs.is_empty(),
            "`flip_pairs` has no effect with `flip = false`; remove one of the two"
        );
        let names: Vec<&String> = self.flip_pairs.iter().flatten().collect();
        if let Some(twice) =
            names.iter().enumerate().find(|(index, name)| names[..*index].contains(name))
        {
            bail!("`flip_pairs` names `{}` twice; a class has one counterpart", twice.1);
        }
        Ok(())
    }

    fn check_data(&self) -> Result<()> {
        ensure!(
            self.synthetic_size.iter().all(|side| (32..=8192).contains(side)),
            "`synthetic_size` is {:?}; each side must be between 32 and 8192 pixels",
            self.synthetic_size
        );
        let needs_unlabeled = self.mode != TrainingMode::Supervised;
        if self.data == DataSource::Synthetic {
            ensure!(self.synthetic_labeled > 0, "`synthetic_labeled` is 0; give at least 1");
            ensure!(
                self.synthetic_unlabeled > 0 || !needs_unlabeled,
                "`synthetic_unlabeled` is 0; give at least 1, or `mode = \"supervised\"`"
            );
            return Ok(());
        }
        ensure!(self.labeled.is_some(), "`labeled` is missing: give the list of labeled images");
        ensure!(
            self.unlabeled.is_some() || !needs_unlabeled,
            "`unlabeled` is missing: give the list of unlabeled images, or `mode = \"supervised\"`"
        );
        ensure!(
            self.root.is_some(),
            "`root` is missing: add the data set's folder to the file, or give `--set root=DIR`"
        );
        Ok(())
    }
}
