//! Images whose pixels and labels do not fit into the memory for one image: which they are, and the
//! run of one after the other, by rows of windows from disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use indicatif::ProgressBar;
use protoseg_images::image_file::{DecodeError, ImageFile, ImageFileError, MAX_PIXELS};
use protoseg_images::image_rows::RowFile;
use protoseg_images::notes::NoteCollector;
use protoseg_infer::config::ExecutionMode;
use protoseg_infer::pipeline::{BYTES_PER_PIXEL, Pipeline, PipelineReport, install, thread_pool};
use protoseg_infer::{EngineConfig, Segmenter, StageTimes};

use super::super::format::OutputFormats;
use super::super::inputs::InputImage;
use super::super::progress;
use super::LabelArgs;
use super::output_dir::fingerprint;
use super::record::{self, ResultRecorder};
use super::row_run::{RowError, RowRun};

/// Default memory for the pixels and labels of one image.
const DEFAULT_IMAGE_MEMORY: u64 = MAX_PIXELS * BYTES_PER_PIXEL;

/// Command that makes a file which is read by rows.
const MAKE_TILES: &str = "gdal_translate -co TILED=YES -co COMPRESS=DEFLATE IN OUT.tif";

/// Images that are labeled by rows, and the reasons against it.
pub(super) struct LargeImages<'a> {
    arguments: &'a LabelArgs,
    /// Memory for one image, where it is given.
    memory: Option<u64>,
    /// Limit of pixels, where it is given.
    max_pixels: Option<u64>,
    formats: &'a OutputFormats,
    /// The reason why the model cannot run images by rows.
    model: Option<&'static str>,
    /// Indices of those that were found.
    found: Mutex<Vec<usize>>,
    /// Errors of those that cannot be labeled by rows, by index.
    refused: Mutex<BTreeMap<usize, anyhow::Error>>,
}

/// End of the run of the large images.
#[derive(Default)]
pub(super) struct LargeRun {
    pub(super) labeled: usize,
    pub(super) failed: Vec<(usize, anyhow::Error)>,
    interrupted: bool,
    times: StageTimes,
    elapsed: Duration,
}

/// Surroundings of the run.
pub(super) struct LargeSetting<'a> {
    pub(super) engine: &'a EngineConfig,
    pub(super) record: &'a ResultRecorder<'a>,
    pub(super) notes: &'a NoteCollector,
    pub(super) stop: &'a AtomicBool,
}

impl<'a> LargeImages<'a> {
    pub(super) fn new(
        arguments: &'a LabelArgs,
        formats: &'a OutputFormats,
        segmenter: &Segmenter,
    ) -> Self {
        let model = if !segmenter.has_logits() {
            Some("this model gives labels, which cannot be joined from windows; cut it into parts")
        } else if segmenter.windows().is_none() {
            Some("this model runs images whole; choose windows, such as --window 512:384")
        } else {
            None
        };
        let (memory, max_pixels) = (arguments.image_memory, arguments.run.max_pixels);
        let (found, refused) = (Mutex::default(), Mutex::default());
        Self { arguments, memory, max_pixels, formats, model, found, refused }
    }

    /// Keeps an image for later, and out of the bar, if it is to be labeled by rows. Where it cannot
    /// be, [`read`](Self::read) says so.
    pub(super) fn keep(&self, index: usize, path: &Path, bar: &ProgressBar) -> bool {
        match self.by_rows(path) {
            Ok(file) => {
                let is_large = file.is_some();
                lock(&self.found).extend(is_large.then_some(index));
                bar.dec_length(u64::from(is_large));
                is_large
            }
            Err(error) => {
                lock(&self.refused).insert(index, error);
                false
            }
        }
    }

    /// Opens an image that is labeled by rows; None where it is labeled at once.
    fn by_rows(&self, path: &Path) -> anyhow::Result<Option<RowFile>> {
        let Some(file) = RowFile::open(path)? else { return Ok(None) };
        let ([height, width], pixels) = (file.size(), file.pixels());
        if self.fits(pixels) {
            return Ok(None);
        }
        if let Some(limit) = self.max_pixels.filter(|&limit| pixels > limit) {
            let (width, height) = (width as u32, height as u32);
            let source = DecodeError::TooLarge { width, height, limit };
            return Err(ImageFileError::Decode { path: path.into(), source }.into());
        }
        let Some(reason) = self.reason(&file)? else { return Ok(Some(file)) };
        if self.memory.is_none() && pixels <= self.max_pixels.unwrap_or(MAX_PIXELS) {
            return Ok(None);
        }
        bail!(self.too_large([height, width], &reason))
    }

    /// True where an image of so many pixels is labeled at once.
    fn fits(&self, pixels: u64) -> bool {
        pixels.saturating_mul(BYTES_PER_PIXEL) <= self.memory.unwrap_or(DEFAULT_IMAGE_MEMORY)
    }

    /// The reason why an image cannot be labeled by rows, and what to do.
    fn reason(&self, file: &RowFile) -> anyhow::Result<Option<String>> {
        if let Some(formats) = self.formats.whole_image_formats() {
            return Ok(Some(format!(
                "--format {formats} needs all of its pixels; label it in a run of its own with ids, \
                 geotiff, labelids, color, confidence or margin"
            )));
        }
        if let Some(model) = self.model {
            return Ok(Some(model.to_owned()));
        }
        let obstacle = file.obstacle()?;
        Ok(obstacle.map(|obstacle| format!("{obstacle}; make tiles of it, `{MAKE_TILES}`")))
    }

    fn too_large(&self, [height, width]: [usize; 2], reason: &str) -> String {
        let pixels = height as u64 * width as u64;
        let megabytes = |bytes: u64| bytes.div_ceil(1_000_000);
        let needed = megabytes(pixels.saturating_mul(BYTES_PER_PIXEL));
        let memory = megabytes(self.memory.unwrap_or(DEFAULT_IMAGE_MEMORY));
        let raise = if self.max_pixels.unwrap_or(MAX_PIXELS) < pixels {
            format!("--image-memory {needed}M --max-pixels {pixels}")
        } else {
            format!("--image-memory {needed}M")
        };
        format!(
            "{width}x{height} pixels take {needed} MB at once, more than {memory} MB \
             (--image-memory), and it cannot be labeled by rows: {reason}, or give it the memory: \
             {raise}"
        )
    }

    /// Reads an image that was not kept for later, as it is labeled at once.
    pub(super) fn read(&self, index: usize, path: &Path) -> anyhow::Result<ImageFile> {
        if let Some(error) = lock(&self.refused).remove(&index) {
            return Err(error);
        }
        let limit = self.max_pixels.unwrap_or(MAX_PIXELS);
        let file = ImageFile::read(path, limit).map_err(|error| match &error {
            ImageFileError::Decode { source: DecodeError::TooLarge { .. }, .. }
                if self.max_pixels.is_none() =>
            {
                anyhow!("{error}; a TIFF in tiles is labeled by rows of windows, `{MAKE_TILES}`")
            }
            _ => error.into(),
        })?;
        if self.memory.is_some() && !self.fits(file.pixels()) {
            bail!(self.too_large(file.size(), &one_piece()));
        }
        Ok(file)
    }

    /// Labels the images that were kept, unless the run of the others ended early, and adds the work
    /// to its report.
    pub(super) fn run_after(
        self,
        report: &mut PipelineReport<anyhow::Error>,
        pipeline: &mut Pipeline,
        setting: &LargeSetting<'_>,
        input: impl Fn(usize) -> &'a InputImage,
    ) -> anyhow::Result<LargeRun> {
        if report.stopped.is_some() || report.interrupted {
            return Ok(LargeRun::default());
        }
        let ended = self.run(pipeline, setting, input)?;
        report.add_work(ended.times, ended.elapsed);
        report.interrupted = ended.interrupted;
        Ok(ended)
    }

    /// Labels one image after the other with all threads. An error ends the run.
    fn run(
        self,
        pipeline: &mut Pipeline,
        setting: &LargeSetting<'_>,
        input: impl Fn(usize) -> &'a InputImage,
    ) -> anyhow::Result<LargeRun> {
        let mut indices = std::mem::take(&mut *lock(&self.found));
        indices.sort_unstable();
        let mut ended = LargeRun::default();
        if indices.is_empty() {
            return Ok(ended);
        }
        let start = Instant::now();
        // Sessions of a core each leave the others idle.
        let mut alone = None;
        pipeline.keep_one();
        let pipeline = if pipeline.setup().mode == ExecutionMode::Throughput {
            let mode = Some(ExecutionMode::Latency);
            let engine = EngineConfig { mode, ..setting.engine.clone() };
            alone.insert(self.arguments.run.open_with(&engine, 1)?)
        } else {
            pipeline
        };
        let pool = thread_pool(pipeline.setup().threads);
        let segmenter = pipeline.keep_one();
        for index in indices {
            let input = input(index);
            let times = &mut ended.times;
            let done = install(pool.as_ref(), || self.label(segmenter, setting, input, times));
            match done {
                Ok(()) => ended.labeled += 1,
                Err(RowError::Interrupted) => {
                    ended.interrupted = true;
                    break;
                }
                Err(RowError::Lasting(error)) => return Err(error),
                Err(RowError::Image(error)) => {
                    let bar = ProgressBar::hidden();
                    progress::show_error(&bar, &input.path, &error);
                    setting.record.record_failure(input, &error);
                    ended.failed.push((index, error));
                }
            }
        }
        ended.elapsed = start.elapsed();
        Ok(ended)
    }

    fn label(
        &self,
        segmenter: &mut Segmenter,
        setting: &LargeSetting<'_>,
        input: &InputImage,
        times: &mut StageTimes,
    ) -> Result<(), RowError> {
        if setting.stop.load(Ordering::Relaxed) {
            return Err(RowError::Interrupted);
        }
        // Taken before reading, so that a concurrent write counts as a change.
        let by_content = self.arguments.verify_inputs;
        let fingerprint = fingerprint(&input.path, by_content, self.formats.needs_place())
            .with_context(|| input.path.display().to_string())
            .map_err(RowError::Image)?;
        let file = self.by_rows(&input.path).map_err(RowError::Image)?;
        let file = file.ok_or_else(|| anyhow!("the file was changed during the run"));
        let run = RowRun {
            formats: self.formats,
            record: setting.record,
            stop: setting.stop,
            verbose: self.arguments.run.verbose,
            input,
        };
        let before = segmenter.times();
        let done = file.map_err(RowError::Image).and_then(|file| run.label(segmenter, file, times));
        *times += segmenter.times() - before;
        let done = done?;
        setting.notes.add(&input.path.display().to_string(), &done.notes);
        let placed =
            setting.record.place_files(input, fingerprint, done.files, done.pixels_by_class);
        placed.map_err(|error| output_error(setting.record, input, error))
    }
}

/// Locks what stays usable where a thread panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reason of formats that are read in one piece.
fn one_piece() -> String {
    format!("files of its format are read in one piece; make a TIFF in tiles, `{MAKE_TILES}`")
}

/// The error of a result that cannot be written, which ends the run unless the image's name is the
/// cause.
pub(super) fn output_error(
    record: &ResultRecorder<'_>,
    input: &InputImage,
    error: anyhow::Error,
) -> RowError {
    if record::is_name_error(&error) {
        RowError::Image(record::name_error(input, error))
    } else {
        RowError::Lasting(record.unwritten(input, error))
    }
}
