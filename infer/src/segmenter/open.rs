//! Opens the file of a bundle that runs pictures, or a file by itself.

use std::num::NonZeroUsize;
use std::path::Path;

use protoseg_models::bundle::{BundleError, Manifest, Model, ModelFile};
use protoseg_models::errors::FileError;
use protoseg_models::variant::ModelKind;
use protoseg_models::versioned::Versioned;
use protoseg_models::window::Tiling;

use super::frames::FrameFile;
use super::identity::{self, difference, fingerprint};
use super::whole::InputSizes;
use super::{SegmentError, Segmenter, SegmenterOptions, StageTimes, how};
use crate::session::{Runner, SessionError};

impl Segmenter {
    /// Opens a bundle folder, or a single ONNX file that `protoseg export` wrote.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, SegmentError> {
        Self::open_with(path.as_ref(), &SegmenterOptions::default())
    }

    /// The same with options. Of a bundle, the first file of the `logits` or `labels` kind that has the wanted precision is
    /// taken, once its digest has been checked.
    pub fn open_with(path: &Path, options: &SegmenterOptions) -> Result<Self, SegmentError> {
        if path.is_file() {
            if options.precision.is_some() {
                return Err(SegmentError::OnePrecision(path.into()));
            }
            let is_named_so =
                path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("onnx"));
            let runner = Runner::open(path, &options.runner).map_err(|error| match error {
                SessionError::Model { .. } if !is_named_so => SegmentError::NoOnnx(path.into()),
                error => error.into(),
            })?;
            let Versioned { value: model, unknown_fields } =
                runner.model()?.ok_or_else(|| SegmentError::NoMetadata(path.into()))?;
            let mut segmenter = Self::new(
                path,
                (model, unknown_fields),
                (ModelKind::Logits, InputSizes::Any),
                runner,
                options,
            )?;
            segmenter.fingerprint = identity::fingerprint_of_file(&segmenter.model, path)
                .map_err(|source| BundleError::File(FileError { path: path.into(), source }))?;
            return Ok(segmenter);
        }
        let Versioned { value: manifest, unknown_fields } = Manifest::read(path)?;
        let file = how::chosen(path, &manifest, options)?;
        let mut segmenter = Self::open_file(path, &manifest, file, options)?;
        segmenter.unknown_fields = unknown_fields;
        if options.frame_files.unwrap_or(options.runner.device.is_gpu()) {
            segmenter.frames = FrameFile::all(path, &manifest, file, options)?;
        }
        Ok(segmenter)
    }

    /// Opens one file of the `logits` kind of a bundle folder, whose manifest was read from there.
    pub fn open_file(
        folder: &Path,
        manifest: &Manifest,
        file: &ModelFile,
        options: &SegmenterOptions,
    ) -> Result<Self, SegmentError> {
        let runner = Self::runner(folder, manifest, file, options)?;
        let what = (file.variant.kind, InputSizes::from_file(file, manifest.model.grid));
        let mut segmenter =
            Self::new(folder, (manifest.model.clone(), Vec::new()), what, runner, options)?;
        segmenter.fingerprint = fingerprint(manifest, file);
        segmenter.file.clone_from(&file.file);
        segmenter.precision = Some(file.variant.precision);
        Ok(segmenter)
    }

    fn runner(
        folder: &Path,
        manifest: &Manifest,
        file: &ModelFile,
        options: &SegmenterOptions,
    ) -> Result<Runner, SegmentError> {
        let how = how::how(manifest, file, options)?;
        let runner = Runner::open_bundle_file(&manifest.verified(folder, file)?, file, &how)?;
        // Files that others wrote may say nothing of themselves.
        if file.adapter.is_none()
            && let Some(own) = runner.model()?
            && let Some(field) = difference(&manifest.model, &own.value)
        {
            return Err(SegmentError::Different {
                bundle: folder.into(),
                file: file.file.clone(),
                field,
            });
        }
        Ok(runner)
    }

    fn new(
        path: &Path,
        (model, unknown_fields): (Model, Vec<String>),
        (kind, sizes): (ModelKind, InputSizes),
        runner: Runner,
        options: &SegmenterOptions,
    ) -> Result<Self, SegmentError> {
        let expected = model.classes.count();
        let counted = runner.classes().filter(|_| kind == ModelKind::Logits);
        if let Some(found) = counted.filter(|&found| found != expected) {
            return Err(SegmentError::Classes { path: path.into(), found, expected });
        }
        let window = options.pieces.map_or(model.window, Tiling::window);
        if let Some(window) = window {
            if kind == ModelKind::Labels {
                return Err(SegmentError::LabelsInWindows);
            }
            sizes.padded([window.size; 2])?;
            model.grid.check(window)?;
        }
        let batch = options.batch.map_or(1, NonZeroUsize::get);
        let (times, pixels, fingerprint) = (StageTimes::default(), Vec::new(), String::new());
        let (frames, file) =
            (Vec::new(), path.file_name().unwrap_or_default().to_string_lossy().into_owned());
        Ok(Self {
            model,
            kind,
            sizes,
            runner,
            frames,
            unknown_fields,
            window,
            batch,
            times,
            pixels,
            fingerprint,
            file,
            precision: None,
        })
    }
}
