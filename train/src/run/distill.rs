//! Distillation: a finished network labels the unlabeled images before the first step.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use protoseg_images::labeled::{LabeledDataset, LabeledImage};
use protoseg_models::checkpoint::Checkpoint;
use protoseg_models::classes::ClassTable;
use protoseg_models::reading::ImageReading;
use protoseg_models::window::{LogitGrid, Window};
use tch::Device;

use crate::data::read;
use crate::data::teacher_labels::{LabeledByTeacher, TeacherLabels};
use crate::evaluate::{Predictor, Protocol};
use crate::interrupt::Interrupt;
use crate::net::Net;
use crate::progress::Progress;

/// A finished network that labels images.
pub struct FinishedTeacher {
    net: Net,
    protocol: Protocol,
    /// Words about it for the plan.
    pub description: String,
    pub labels: Arc<TeacherLabels>,
}

impl FinishedTeacher {
    /// Reads the checkpoint that `teacher` names; its classes must be those of the run. It labels in
    /// the windows that it was made for, and reads image files as the run does. Labels are kept in `labels`.
    pub fn open(
        checkpoint: &Path,
        classes: &ClassTable,
        reading: &ImageReading,
        labels: &Path,
        device: Device,
        interrupt: Interrupt,
    ) -> Result<Self> {
        ensure!(
            !checkpoint.join("manifest.json").is_file(),
            "`teacher`: {} is a bundle; give the checkpoint that it was exported from",
            checkpoint.display()
        );
        let Checkpoint { header, weights, .. } =
            Checkpoint::read(checkpoint).context("`teacher`")?;
        let digest = Checkpoint::weights_digest(checkpoint).context("`teacher`")?;
        ensure!(
            header.reading == *reading,
            "`teacher`: {} reads image files as `{}`, this run as `{}`; give the same `channels` and `range`",
            checkpoint.display(),
            serde_json::to_string(&header.reading)?,
            serde_json::to_string(reading)?
        );
        let names = |classes: &ClassTable| -> Vec<String> {
            classes.classes().iter().map(|class| class.name.clone()).collect()
        };
        let (theirs, ours) = (names(&header.classes), names(classes));
        if theirs != ours {
            bail!(
                "`teacher`: {} has the classes {}; this run has {}",
                checkpoint.display(),
                theirs.join(", "),
                ours.join(", ")
            );
        }
        let window: Option<Window> = header.window;
        let protocol = Protocol { grid: LogitGrid::from_arch(header.arch), window };
        let net = Net::new(header.arch.graph(), &weights, device)
            .with_context(|| format!("`teacher`: {}", checkpoint.display()))?
            .interruptible(interrupt);
        let description = format!("{} of {}", header.arch.preset(), checkpoint.display());
        let labels = TeacherLabels::new(labels, &format!("{digest} {window:?}"));
        Ok(Self { net, protocol, description, labels: Arc::new(labels) })
    }

    /// Labels an image.
    pub fn label(&self, sample: &LabeledImage) -> Result<LabeledByTeacher> {
        let predictor = Predictor::linear(&self.net, self.protocol);
        let [labels, confidence] =
            predictor.labels_and_confidence(sample.image.as_raw(), sample.size())?;
        Ok(LabeledByTeacher { labels, confidence })
    }

    /// Labels the images of a list that have no labels of this teacher yet.
    pub fn label_all(&self, images: &LabeledDataset, progress: &Progress) -> Result<()> {
        for index in 0..images.count() {
            self.net.interrupt().check()?;
            let sample = read::read(images, index)?;
            if !self.labels.has(&sample.image) {
                let found = self
                    .label(&sample)
                    .with_context(|| format!("the teacher cannot label {}", images.name(index)))?;
                self.labels.write(&sample.image, &found)?;
            }
            progress.done();
        }
        Ok(())
    }
}
