//! The end of the warm-up: precise BatchNorm, the first teacher and the first prototypes.

use anyhow::Result;
use protoseg_models::window::LogitGrid;

use crate::config::options::TrainingMode;
use crate::data::lists::Lists;
use crate::data::loader::{BatchBuilder, ImageCaches};
use crate::interrupt::Interrupt;
use crate::method::prototypes::PrototypeSettings;
use crate::method::step::Learner;
use crate::method::{precise_bn, prototype_init, teacher};
use crate::progress::Progress;

/// Data that the end of a warm-up looks at.
pub struct WarmupEnd<'a> {
    pub builder: &'a BatchBuilder,
    pub caches: &'a ImageCaches,
    pub lists: &'a Lists,
    pub grid: LogitGrid,
    /// Interrupted, the learner's statistics are spoiled: its state must have been saved before.
    pub interrupt: Interrupt,
}

impl WarmupEnd<'_> {
    /// Recomputes the student's BatchNorm statistics, copies the teacher from it and initializes the prototypes. `progress`
    /// starts the progress of a part from its verb, its unit and their number.
    pub fn run(
        &self,
        learner: &mut Learner,
        progress: impl Fn(&str, &'static str, usize) -> Progress,
    ) -> Result<()> {
        let config = learner.config;
        let batches = config.precise_bn_batches;
        precise_bn::update_statistics(
            &learner.student,
            self.builder,
            &self.caches.labeled,
            batches,
            &self.interrupt,
            &progress("batch statistics:", "batches", batches as usize),
        )?;
        teacher::update_ema(&learner.teacher, &learner.student, 0.0, true)?;
        if config.mode == TrainingMode::Prototype {
            let net = learner
                .teacher
                .with_precision(config.precision)
                .interruptible(self.interrupt.clone());
            learner.prototypes = Some(prototype_init::initialize(
                &net,
                prototype_init::feature_node(learner.student.graph(), config.features)?,
                &self.lists.labeled,
                PrototypeSettings::from_config(config, learner.classes()),
                self.grid,
                &progress("first prototypes:", "parts", 2 * self.lists.labeled.count()),
            )?);
        }
        learner.teacher_ready = true;
        Ok(())
    }
}
