//! From a picture to its labels: bundle, runner, windows, stitching and upsampling together.

mod answer;
mod error;
mod frames;
mod whole;

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::{Duration, Instant};

use image::RgbImage;
use protoseg_models::bundle::{Manifest, Model, ModelFile};
use protoseg_models::form::Kind;
use protoseg_models::versioned::Read;
use protoseg_models::window::{Pieces, Window, WindowPlan};

use crate::crop;
use crate::session::{Device, Runner, RunnerOptions};
use crate::stitch::{LogitMap, Stitcher};
use crate::upsample::Frame;
use protoseg_pictures::label_map::LabelMap;

pub use self::answer::{Answer, Decided, FrameLogits, Wanted};
pub use self::error::SegmentError;
use self::frames::FrameFile;
use self::whole::Sizes;

/// How a [`Segmenter`] works.
#[derive(Debug, Clone, Copy, Default)]
pub struct SegmenterOptions {
    /// In which pieces pictures are run; as the model's description says where nobody says otherwise.
    pub pieces: Option<Pieces>,
    /// Windows that are run at once; 1 where nobody says otherwise, as more bring nothing on a CPU.
    pub batch: Option<NonZeroUsize>,
    /// Whether pictures of a size for which the bundle has a frame file go through that file; on GPUs where nobody says
    /// otherwise.
    pub frame_files: Option<bool>,
    /// How the ONNX file is run.
    pub runner: RunnerOptions,
}

/// Time spent since a [`Segmenter`] was opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    /// In the network.
    pub run: Duration,
    /// Putting windows together.
    pub stitch: Duration,
}

impl Times {
    /// What was spent since an earlier time.
    pub(crate) fn since(self, before: Self) -> Self {
        Self { run: self.run - before.run, stitch: self.stitch - before.stitch }
    }
}

/// A model that is ready to label pictures.
#[derive(Debug)]
pub struct Segmenter {
    model: Model,
    kind: Kind,
    sizes: Sizes,
    runner: Runner,
    frames: Vec<FrameFile>,
    passed_over: Vec<String>,
    window: Option<Window>,
    batch: usize,
    times: Times,
    pixels: Vec<u8>,
}

impl Segmenter {
    /// Opens a bundle folder, or a single ONNX file that `protoseg export` wrote.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, SegmentError> {
        Self::open_with(path.as_ref(), &SegmenterOptions::default())
    }

    /// The same with options. Of a bundle, the first file of the `logits` or `labels` kind is taken, once its digest has been checked.
    pub fn open_with(path: &Path, options: &SegmenterOptions) -> Result<Self, SegmentError> {
        if path.is_file() {
            let runner = Runner::open(path, &options.runner)?;
            let model = runner.model()?.ok_or_else(|| SegmentError::NoMetadata(path.into()))?;
            return Self::new(path, (model.value, model.passed_over), (Kind::Logits, Sizes::Any), runner, options);
        }
        let Read { value: manifest, passed_over } = Manifest::read(path)?;
        let file = manifest.files.iter().find(|file| file.form.kind != Kind::Frame);
        let file = file.ok_or_else(|| SegmentError::NoLogits(path.into()))?;
        let mut segmenter = Self::open_file(path, &manifest, file, options)?;
        segmenter.passed_over = passed_over;
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
        let what = (file.form.kind, Sizes::of(file, manifest.model.grid));
        Self::new(folder, (manifest.model.clone(), Vec::new()), what, runner, options)
    }

    fn runner(
        folder: &Path,
        manifest: &Manifest,
        file: &ModelFile,
        options: &SegmenterOptions,
    ) -> Result<Runner, SegmentError> {
        let mut how = options.runner;
        // On a CPU sizes that are known beforehand bring nothing.
        if how.device != Device::Cpu && how.size.is_none() {
            let window = options.pieces.map_or(manifest.model.window, Pieces::window);
            how.size = window.map(|window| [window.size; 2]);
        }
        let runner = Runner::open_listed(&manifest.verified(folder, file)?, file, &how)?;
        // Files that others wrote may say nothing of themselves.
        if file.adapter.is_none()
            && let Some(own) = runner.model()?
            && let Some(field) = difference(&manifest.model, &own.value)
        {
            return Err(SegmentError::Different { bundle: folder.into(), file: file.file.clone(), field });
        }
        Ok(runner)
    }

    fn new(
        path: &Path,
        (model, passed_over): (Model, Vec<String>),
        (kind, sizes): (Kind, Sizes),
        runner: Runner,
        options: &SegmenterOptions,
    ) -> Result<Self, SegmentError> {
        let expected = model.classes.count();
        let counted = runner.classes().filter(|_| kind == Kind::Logits);
        if let Some(found) = counted.filter(|&found| found != expected) {
            return Err(SegmentError::Classes { path: path.into(), found, expected });
        }
        let window = options.pieces.map_or(model.window, Pieces::window);
        if let Some(window) = window {
            if kind == Kind::Labels {
                return Err(SegmentError::LabelsInWindows);
            }
            sizes.padded([window.size; 2])?;
            model.grid.check(window)?;
        }
        let batch = options.batch.map_or(1, NonZeroUsize::get);
        let (times, pixels) = (Times::default(), Vec::new());
        let frames = Vec::new();
        Ok(Self { model, kind, sizes, runner, frames, passed_over, window, batch, times, pixels })
    }

    /// What the model is.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Fields of the model's description that this version does not know, because a newer one wrote it; worth a warning.
    pub fn passed_over(&self) -> &[String] {
        &self.passed_over
    }

    /// Windows in which pictures are run; none for whole pictures.
    pub fn window(&self) -> Option<Window> {
        self.window
    }

    /// Time spent in the stages of [`logits`](Self::logits) so far.
    pub fn times(&self) -> Times {
        self.times
    }

    /// What runs the network.
    pub fn device(&self) -> Device {
        self.runner.device()
    }

    /// Height and width of the only pictures that the model takes; none where it takes others too.
    pub fn only_size(&self) -> Option<[usize; 2]> {
        match self.sizes {
            Sizes::One(size) if self.window.is_none() => Some(size),
            _ => None,
        }
    }

    /// Runs a black picture of the size in which pictures are run, or of 1024x1024 pixels where any size is: what a session
    /// allocates at its first run is then there.
    pub fn warm_up(&mut self) -> Result<(), SegmentError> {
        let window = self.window.map(|window| [window.size; 2]);
        let [height, width] = window.or(self.only_size()).unwrap_or([1024; 2]);
        self.answer(&RgbImage::new(width as u32, height as u32)).map(drop)
    }

    /// Labels a picture: the train id of every pixel.
    pub fn segment(&mut self, picture: &RgbImage) -> Result<LabelMap, SegmentError> {
        Ok(self.answer(picture)?.labels())
    }

    /// What the model makes of a picture. What is left, [`Answer::labels`], needs no model and may happen on another
    /// thread.
    pub fn answer(&mut self, picture: &RgbImage) -> Result<Answer, SegmentError> {
        if let Some(frame) = self.frames.iter_mut().find(|frame| frame.takes(picture)) {
            return frame.answer(picture, &mut self.times);
        }
        match self.kind {
            Kind::Labels => Ok(Answer::Labels(self.whole_labels(picture)?)),
            Kind::Logits | Kind::Frame => Ok(Answer::Logits(self.logits(picture)?)),
        }
    }

    /// Class scores of a picture before upsampling, of models that give them.
    pub fn logits(&mut self, picture: &RgbImage) -> Result<FrameLogits, SegmentError> {
        if self.kind == Kind::Labels {
            return Err(SegmentError::NoScores);
        }
        let size = size(picture)?;
        let (map, padded) = match self.window {
            None => self.whole(picture, size)?,
            Some(window) => self.windows(picture, &WindowPlan::new(size[0], size[1], window, self.model.grid)?)?,
        };
        if !map.is_finite() {
            return Err(SegmentError::NotFinite);
        }
        let [height, width] = size;
        Ok(FrameLogits { map, frame: Frame { height, width, padded, align_corners: self.model.grid.align_corners } })
    }

    /// Empties the buffer for rectangles of a picture, which must then fit into memory.
    fn make_room(&mut self, picture: &RgbImage, count: usize, size: [usize; 2]) -> Result<(), SegmentError> {
        self.pixels.clear();
        let bytes = count.saturating_mul(size[0]).saturating_mul(size[1]).saturating_mul(3);
        self.pixels.try_reserve_exact(bytes).map_err(|_| too_large(picture))
    }

    fn windows(&mut self, picture: &RgbImage, plan: &WindowPlan) -> Result<(LogitMap, [usize; 2]), SegmentError> {
        let (size, side) = (plan.window.size, plan.window_logits());
        let classes = self.model.classes.count();
        let starts: Vec<[usize; 2]> = plan.starts().collect();
        let mut stitcher = Stitcher::new(plan, classes).ok_or_else(|| too_large(picture))?;
        for starts in starts.chunks(self.batch) {
            self.make_room(picture, starts.len(), [size; 2])?;
            for &start in starts {
                crop::append(picture, start, [size; 2], &mut self.pixels);
            }
            let start = Instant::now();
            let scores = self.runner.run(&self.pixels, [starts.len(), size, size])?;
            let ran = Instant::now();
            let expected = [starts.len(), classes, side, side];
            if scores.shape != expected {
                return Err(SegmentError::Shape { found: scores.shape, expected });
            }
            stitcher.add(&scores.data);
            self.times.run += ran - start;
            self.times.stitch += ran.elapsed();
        }
        let start = Instant::now();
        let map = stitcher.finish();
        self.times.stitch += start.elapsed();
        Ok((map, [plan.rows.padded, plan.columns.padded]))
    }
}

fn size(picture: &RgbImage) -> Result<[usize; 2], SegmentError> {
    let size = [picture.height() as usize, picture.width() as usize];
    if size.contains(&0) { Err(SegmentError::Empty) } else { Ok(size) }
}

fn too_large(picture: &RgbImage) -> SegmentError {
    SegmentError::TooLarge { height: picture.height() as usize, width: picture.width() as usize }
}

/// The first fact in which two descriptions of one model differ. Its name and its windows are a matter of taste.
fn difference(manifest: &Model, own: &Model) -> Option<&'static str> {
    let facts = [
        ("version", manifest.version == own.version),
        ("classes", manifest.classes == own.classes),
        ("grid", manifest.grid == own.grid),
        ("arch", manifest.arch == own.arch),
        ("weights_sha256", manifest.weights_sha256 == own.weights_sha256),
    ];
    facts.into_iter().find(|(_, equal)| !equal).map(|(field, _)| field)
}
