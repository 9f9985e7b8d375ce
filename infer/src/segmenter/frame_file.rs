//! Frame files of a bundle: one run gives the labels of an image of its size, with windows and
//! upsampling inside.

use std::path::{Path, PathBuf};

use protoseg_models::bundle::{Manifest, ModelFile};
use protoseg_models::variant::{FrameSpec, ModelKind};
use protoseg_models::window::Tiling;

use super::{SegmentError, array, file_config, timed_run};
use crate::config::EngineConfig;
use crate::session::{self, Profile, Runner};
use crate::stage::StageTimes;
use crate::upsample::{Outputs, Prediction};

/// A frame file of a bundle. Opened when the first image of its size comes.
#[derive(Debug)]
pub(super) struct FrameFile {
    spec: FrameSpec,
    path: PathBuf,
    config: EngineConfig,
    runner: Option<Runner>,
}

impl FrameFile {
    /// The frame files in the precision and windows in which the file `main` is run.
    pub(super) fn all(
        folder: &Path,
        manifest: &Manifest,
        main: &ModelFile,
        config: &EngineConfig,
    ) -> Result<Vec<Self>, SegmentError> {
        let tiling = config.window.unwrap_or(Tiling::from(manifest.model.window));
        let mut files = Vec::new();
        for file in &manifest.files {
            let fits = file.variant.kind == ModelKind::Frame
                && file.variant.precision == main.variant.precision;
            if let Some(spec) = file.variant.frame.filter(|spec| fits && spec.tiling == tiling) {
                let mut config = file_config(manifest, file, config)?;
                config.input_size = Some([spec.height, spec.width]);
                let path = manifest.verified(folder, file)?;
                files.push(Self { spec, path, config, runner: None });
            }
        }
        Ok(files)
    }

    pub(super) fn takes(&self, size: [usize; 2], outputs: Outputs) -> bool {
        !outputs.margin && !outputs.logits && size == self.size()
    }

    pub(super) fn name(&self) -> &str {
        self.path.file_name().and_then(std::ffi::OsStr::to_str).unwrap_or_default()
    }

    pub(super) fn size(&self) -> [usize; 2] {
        [self.spec.height, self.spec.width]
    }

    pub(super) fn profile(&self) -> Result<Profile, SegmentError> {
        let shape = [1, self.spec.height, self.spec.width];
        Ok(session::profile(&self.path, None, &self.config, shape)?)
    }

    pub(super) fn predict(
        &mut self,
        pixels: &[u8],
        outputs: Outputs,
        times: &mut StageTimes,
    ) -> Result<Prediction, SegmentError> {
        let runner = match self.runner.take() {
            Some(runner) => runner,
            None => Runner::open(&self.path, &self.config)?,
        };
        let runner = self.runner.insert(runner);
        let FrameSpec { height, width, .. } = self.spec;
        let [labels, confidence] =
            timed_run(times, runner, |runner| runner.run_frames(pixels, [1, height, width]))?;
        let confidence = array(height, width, confidence)?;
        let prediction = Prediction::from_labels(array(height, width, labels)?);
        Ok(Prediction { confidence: outputs.confidence.then_some(confidence), ..prediction })
    }
}
