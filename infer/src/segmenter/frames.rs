//! Pictures of a size for which the bundle has a frame file: one run gives their labels, windows and upsampling inside.

use std::path::{Path, PathBuf};

use image::RgbImage;
use protoseg_models::bundle::{Manifest, ModelFile};
use protoseg_models::variant::{FrameSpec, ModelKind};
use protoseg_models::window::Tiling;

use super::how::how;
use super::{SegmentError, SegmenterOptions, StageTimes};
use crate::session::{self, Profile, Runner, RunnerOptions};
use crate::upsample::{Outputs, Prediction};

/// A frame file, opened when the first picture of its size comes.
#[derive(Debug)]
pub(super) struct FrameFile {
    form: FrameSpec,
    path: PathBuf,
    options: RunnerOptions,
    runner: Option<Runner>,
}

impl FrameFile {
    /// The frame files of a bundle that cut frames as its file `main` is going to be run, in the same number format.
    pub(super) fn all(
        folder: &Path,
        manifest: &Manifest,
        main: &ModelFile,
        options: &SegmenterOptions,
    ) -> Result<Vec<Self>, SegmentError> {
        let pieces = options.pieces.unwrap_or(Tiling::from(manifest.model.window));
        let mut files = Vec::new();
        for file in &manifest.files {
            let fits = file.variant.kind == ModelKind::Frame
                && file.variant.precision == main.variant.precision;
            if let Some(form) = file.variant.frame.filter(|form| fits && form.tiling == pieces) {
                let options = RunnerOptions {
                    size: Some([form.height, form.width]),
                    ..how(manifest, file, options)?
                };
                files.push(Self {
                    form,
                    path: manifest.verified(folder, file)?,
                    options,
                    runner: None,
                });
            }
        }
        Ok(files)
    }

    /// Whether it takes a picture, and tells what is wanted of it.
    pub(super) fn takes(&self, picture: &RgbImage, wanted: Outputs) -> bool {
        !wanted.margin
            && [picture.height() as usize, picture.width() as usize]
                == [self.form.height, self.form.width]
    }

    /// The file's name.
    pub(super) fn name(&self) -> &str {
        self.path.file_name().and_then(std::ffi::OsStr::to_str).unwrap_or_default()
    }

    /// What runs its operators.
    pub(super) fn profile(&self) -> Result<Profile, SegmentError> {
        Ok(session::profile(
            &self.path,
            None,
            &self.options,
            [1, self.form.height, self.form.width],
        )?)
    }

    /// Height and width of the pictures that it takes.
    pub(super) fn size(&self) -> [usize; 2] {
        [self.form.height, self.form.width]
    }

    /// Runs a picture that it takes.
    pub(super) fn predict(
        &mut self,
        picture: &RgbImage,
        wanted: Outputs,
        times: &mut StageTimes,
    ) -> Result<Prediction, SegmentError> {
        let runner = match self.runner.take() {
            Some(runner) => runner,
            None => Runner::open(&self.path, &self.options)?,
        };
        let runner = self.runner.insert(runner);
        let FrameSpec { height, width, .. } = self.form;
        let [labels, confidence] =
            times.run(runner, |runner| runner.run_frames(picture.as_raw(), [1, height, width]))?;
        if [labels.len(), confidence.len()] != [height * width; 2] {
            return Err(SegmentError::Shape {
                found: vec![labels.len()],
                expected: [1, 1, height, width],
            });
        }
        Ok(Prediction {
            height,
            width,
            labels,
            confidence: wanted.confidence.then_some(confidence),
            margin: None,
        })
    }
}
