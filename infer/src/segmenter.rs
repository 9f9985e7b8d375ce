//! The segmenter: a model with its windows, stitching and upsampling, from an image to a label for
//! every pixel.

mod error;
mod fingerprint;
mod fit;
mod frame_file;
mod image_view;
mod resample;
mod rolling;
mod sizes;
mod tiles;
mod windows;

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Instant;

use image::RgbImage;
use ndarray::{Array2, Array4};
use protoseg_models::bundle::{BundleError, Manifest, Model, ModelFile};
use protoseg_models::errors::FileError;
use protoseg_models::interface::{Interface, ScoreKind};
use protoseg_models::variant::{ModelKind, Precision};
use protoseg_models::versioned::Versioned;
use protoseg_models::window::{ShortSides, Tiling, Window, WindowPlan};

pub use self::error::SegmentError;
pub use self::fingerprint::fingerprint;
use self::fingerprint::{fingerprint_as_read, fingerprint_of_file, first_difference};
use self::fit::Painter;
use self::frame_file::FrameFile;
pub use self::image_view::ImageView;
use self::rolling::{Predicted, RollingMerger};
use self::sizes::InputSizes;
pub use self::tiles::{TileCost, TileGrid, TileMerger, Tiler};
use self::windows::FrameWindows;
pub use self::windows::RowStream;
use crate::config::{Device, EngineConfig};
use crate::session::{Profile, Runner, SessionError};
use crate::stage::{Stage, StageTimes};
use crate::stitch::{LogitMap, Stitcher};
use crate::upsample::{self, LogitGeometry, Outputs, Prediction, ScoreScale};

/// Most logits of an image that are kept until another thread upsamples them: 32 MiB, those of 19
/// classes over 7 megapixels.
const MAX_DEFERRED_LOGITS: usize = 8 << 20;

/// A model that is ready to label images.
#[derive(Debug)]
pub struct Segmenter {
    model: Model,
    kind: ModelKind,
    sizes: InputSizes,
    painter: Painter,
    runner: Runner,
    frames: Vec<FrameFile>,
    unknown_fields: Vec<String>,
    /// Windows along height and width.
    windows: Option<[Window; 2]>,
    short_sides: ShortSides,
    scores: ScoreScale,
    batch: usize,
    times: StageTimes,
    /// Pixels of tiles or of a padded image.
    pixels: Vec<u8>,
    fingerprint: String,
    file: String,
    precision: Option<Precision>,
}

impl Segmenter {
    /// Opens a bundle folder, or a single ONNX file that `protoseg export` wrote.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, SegmentError> {
        Self::open_with(path, &EngineConfig::default())
    }

    /// Opens with a configuration, on its first device. Of a bundle, the first file of the `logits`
    /// or `labels` kind in the chosen precision is taken, once its digest has been checked.
    pub fn open_with(path: impl AsRef<Path>, config: &EngineConfig) -> Result<Self, SegmentError> {
        let path = path.as_ref();
        if path.is_file() {
            return Self::open_single(path, config);
        }
        let Versioned { value: manifest, unknown_fields } = Manifest::read(path)?;
        let file = choose_file(path, &manifest, config)?;
        let mut segmenter = Self::open_file(path, &manifest, file, config)?;
        segmenter.unknown_fields = unknown_fields;
        if config.frame_files.unwrap_or(config.first_device().is_gpu()) {
            segmenter.frames = FrameFile::all(path, &manifest, file, config)?;
        }
        Ok(segmenter)
    }

    /// Opens one file of the `logits` or `labels` kind of a bundle folder, whose manifest was read
    /// from there.
    pub fn open_file(
        folder: &Path,
        manifest: &Manifest,
        file: &ModelFile,
        config: &EngineConfig,
    ) -> Result<Self, SegmentError> {
        let runner_config = file_config(manifest, file, config)?;
        let path = manifest.verified(folder, file)?;
        let runner = Runner::open_bundle_file(&path, file, &runner_config)?;
        // Imported files may say nothing of themselves.
        if file.adapter.is_none()
            && let Some(own) = runner.model()?
            && let Some(field) = first_difference(&manifest.model, &own.value)
        {
            let (bundle, file) = (folder.into(), file.file.clone());
            return Err(SegmentError::Different { bundle, file, field });
        }
        let sizes = InputSizes::from_file(file, manifest.model.grid);
        let model = manifest.model.clone();
        let interface =
            file.adapter.as_ref().map(|adapter| adapter.interface.clone()).unwrap_or_default();
        let shape = ModelShape { kind: file.variant.kind, sizes, interface };
        let mut segmenter = Self::new(folder, model, shape, runner, config)?;
        segmenter.fingerprint = fingerprint_as_read(fingerprint(manifest, file), &segmenter.model);
        segmenter.file.clone_from(&file.file);
        segmenter.precision = Some(file.variant.precision);
        Ok(segmenter)
    }

    fn open_single(path: &Path, config: &EngineConfig) -> Result<Self, SegmentError> {
        if config.precision.is_some() {
            return Err(SegmentError::SinglePrecision(path.into()));
        }
        let is_named_onnx =
            path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("onnx"));
        let runner = Runner::open(path, config).map_err(|error| match error {
            SessionError::Model { .. } if !is_named_onnx => SegmentError::NotOnnx(path.into()),
            error => error.into(),
        })?;
        let Versioned { value: model, unknown_fields } =
            runner.model()?.ok_or_else(|| SegmentError::NoMetadata(path.into()))?;
        let fingerprint = fingerprint_of_file(&model, path)
            .map_err(|source| BundleError::File(FileError { path: path.into(), source }))?;
        let (kind, sizes) = (ModelKind::Logits, InputSizes::Any);
        let shape = ModelShape { kind, sizes, interface: Interface::default() };
        let segmenter = Self::new(path, model, shape, runner, config)?;
        let fingerprint = fingerprint_as_read(fingerprint, &segmenter.model);
        Ok(Self { unknown_fields, fingerprint, ..segmenter })
    }

    fn new(
        path: &Path,
        mut model: Model,
        ModelShape { kind, sizes, interface }: ModelShape,
        runner: Runner,
        config: &EngineConfig,
    ) -> Result<Self, SegmentError> {
        model.reading = model.reading.overlaid(config.reading);
        let expected = model.classes.count();
        let counted = runner.classes().filter(|_| kind == ModelKind::Logits);
        if let Some(found) = counted.filter(|&found| found != expected) {
            return Err(SegmentError::Classes { path: path.into(), found, expected });
        }
        let painter = Painter::new(&interface);
        let both = |window: Window| [window; 2];
        let windows = match config.window {
            Some(tiling) => tiling.window().map(both),
            None => model.window.map(both).or(interface.windows),
        };
        if let Some([down, right]) = windows {
            if kind == ModelKind::Labels {
                return Err(SegmentError::LabelsInWindows);
            }
            if interface.covers {
                return Err(SegmentError::CoversInWindows);
            }
            sizes.check_tile([down.size, right.size])?;
            model.grid.check(down)?;
            model.grid.check(right)?;
        }
        Ok(Self {
            model,
            kind,
            sizes,
            painter,
            runner,
            frames: Vec::new(),
            unknown_fields: Vec::new(),
            windows,
            short_sides: sizes.short_sides(config.input_size.is_some()),
            scores: ScoreScale { kind: interface.scores, bias: interface.bias() },
            batch: config.batch.map_or(1, NonZeroUsize::get),
            times: StageTimes::default(),
            pixels: Vec::new(),
            fingerprint: String::new(),
            file: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            precision: None,
        })
    }

    /// Returns the model's description, with the reading of images that the configuration chose.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Fields of the model's description that a newer version wrote and this one does not know;
    /// worth a warning.
    pub fn unknown_fields(&self) -> &[String] {
        &self.unknown_fields
    }

    /// SHA-256 over everything that decides labels: the model's file, and the bundle's description
    /// of it.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Returns the name of the file that runs an image `[height, width]` for these outputs.
    pub fn file_name_for(&self, size: [usize; 2], outputs: Outputs) -> &str {
        let frame = self.frames.iter().find(|frame| frame.takes(size, outputs));
        frame.map_or(&self.file, FrameFile::name)
    }

    /// Precision of the file; None for a single file, which does not tell.
    pub fn precision(&self) -> Option<Precision> {
        self.precision
    }

    /// True where the model gives logits, and so confidence and margin.
    pub fn has_logits(&self) -> bool {
        self.kind != ModelKind::Labels
    }

    /// Says why the model has no confidence; None where it has.
    pub fn lacks_confidence(&self) -> Option<&'static str> {
        match (self.kind, self.scores.kind) {
            (ModelKind::Labels, _) => Some("this model gives labels without logits"),
            (_, ScoreKind::Unscaled) => Some(
                "this model's scores are neither logits nor probabilities (`unscaled` in its manifest)",
            ),
            _ => None,
        }
    }

    /// Square windows in which images are run; None for whole images and oblong windows.
    pub fn window(&self) -> Option<Window> {
        self.windows.filter(|[down, right]| down == right).map(|[window, _]| window)
    }

    /// Windows along height and width in which images are run; None for whole images.
    pub fn windows(&self) -> Option<[Window; 2]> {
        self.windows
    }

    /// Returns how images get through the network: `512:384` or, of oblong windows, `512x1024:384x768`
    /// (size and stride, height first), `whole`, or the size that they are scaled to.
    pub fn protocol(&self) -> String {
        match self.windows {
            Some([down, right]) if down == right => Tiling::Windows(down).to_string(),
            Some([down, right]) => {
                format!("{}x{}:{}x{}", down.size, right.size, down.stride, right.stride)
            }
            None => self.sizes.describe(),
        }
    }

    /// Time by stage since the segmenter was opened.
    pub fn times(&self) -> StageTimes {
        self.times
    }

    /// Returns the device that runs the network.
    pub fn device(&self) -> Device {
        self.runner.device()
    }

    /// `[height, width]` of the only images that the model takes; None where it takes others too.
    pub fn only_size(&self) -> Option<[usize; 2]> {
        match self.sizes {
            InputSizes::One(size) if self.windows.is_none() => Some(size),
            _ => None,
        }
    }

    /// `[height, width]` of the images that frame files take.
    pub fn frame_sizes(&self) -> Vec<[usize; 2]> {
        self.frames.iter().map(FrameFile::size).collect()
    }

    /// Returns the number of tiles of an image `[height, width]`, and their pixels over the
    /// image's: more than 1 where windows overlap or reach beyond it.
    pub fn tiling(&self, [height, width]: [usize; 2]) -> Result<(usize, f64), SegmentError> {
        let pixels = height as f64 * width as f64;
        let (count, tile) = match self.plan([height, width])? {
            Some(plan) => (plan.count(), plan.tile_size()),
            None => (1, self.sizes.padded([height, width])?),
        };
        Ok((count, count as f64 * tile[0] as f64 * tile[1] as f64 / pixels))
    }

    /// Runs a black image of the size of a tile, or of 1024x1024 pixels where any size is run, so
    /// that the session allocates what its first run needs. Returns the number of pixels.
    pub fn warm_up(&mut self) -> Result<u64, SegmentError> {
        let tile = self.windows.map(|[down, right]| [down.size, right.size]);
        let [height, width] = tile.unwrap_or(self.sizes.usual([1024; 2]));
        self.predict_raw(&(&RgbImage::new(width as u32, height as u32)).into())?;
        Ok(height as u64 * width as u64)
    }

    /// Predicts the train id of every pixel, and the other outputs that are asked for.
    ///
    /// Windows are run row by row, and pixels are predicted as soon as no window to come covers
    /// them. So beside the image and the prediction this takes memory for the logits of a window and
    /// of the rows by which windows overlap, however high the image is; with [`Outputs::logits`] for
    /// all logits. Where the
    /// bundle has a frame file of the image's size and the configuration allows it, that is run,
    /// unless margin or logits are asked for, which it does not give; then bits may differ.
    pub fn predict<'a>(
        &mut self,
        image: impl Into<ImageView<'a>>,
        outputs: Outputs,
    ) -> Result<Prediction, SegmentError> {
        let image = image.into();
        let size = image.checked_size()?;
        if let Some(frame) = self.frames.iter_mut().find(|frame| frame.takes(size, outputs)) {
            return frame.predict(image.pixels(), outputs, &mut self.times);
        }
        match (self.kind, self.plan(size)?) {
            (ModelKind::Labels, _) => self.predict_labels(&image),
            (_, Some(plan)) if !outputs.logits => self.predict_rolling(&image, &plan, outputs),
            _ => {
                let logits = self.logits(&image)?;
                Ok(self.times.timed(Stage::Stitch, || logits.predict(outputs)))
            }
        }
    }

    /// Runs the model on an image. What is left, [`RawPrediction::predict`], may happen on another
    /// thread.
    fn predict_raw(&mut self, image: &ImageView<'_>) -> Result<RawPrediction, SegmentError> {
        match self.kind {
            ModelKind::Labels => Ok(RawPrediction::Final(self.predict_labels(image)?)),
            ModelKind::Logits | ModelKind::Frame => Ok(RawPrediction::Logits(self.logits(image)?)),
        }
    }

    /// Leaves upsampling to another thread where an image's logits are few enough to be kept until
    /// then; otherwise the same as [`predict`](Self::predict), with the same bits.
    pub(crate) fn predict_deferred(
        &mut self,
        image: &RgbImage,
        outputs: Outputs,
    ) -> Result<RawPrediction, SegmentError> {
        let image = ImageView::from(image);
        let [height, width] = image.checked_size()?;
        if self.frames.iter().any(|frame| frame.takes([height, width], outputs)) {
            return Ok(RawPrediction::Final(self.predict(image, outputs)?));
        }
        let Some(plan) = self.plan([height, width])? else { return self.predict_raw(&image) };
        let [rows, columns] = plan.logit_size();
        let count = rows.saturating_mul(columns).saturating_mul(self.model.classes.count());
        if count <= MAX_DEFERRED_LOGITS {
            self.predict_raw(&image)
        } else {
            Ok(RawPrediction::Final(self.predict(image, outputs)?))
        }
    }

    /// Returns the logits of an image before upsampling.
    pub(crate) fn logits(&mut self, image: &ImageView<'_>) -> Result<ImageLogits, SegmentError> {
        if self.kind == ModelKind::Labels {
            return Err(SegmentError::NoLogits);
        }
        let size = image.checked_size()?;
        let (map, padded) = match self.plan(size)? {
            None => self.whole_logits(image)?,
            Some(plan) => self.stitched_logits(image, &plan)?,
        };
        if !self.times.timed(Stage::Stitch, || map.is_finite()) {
            return Err(SegmentError::NotFinite);
        }
        Ok(ImageLogits { map, frame: self.geometry(size, padded)? })
    }

    /// Logits of an image in one piece, and the padded size that they span.
    fn whole_logits(
        &mut self,
        image: &ImageView<'_>,
    ) -> Result<(LogitMap, [usize; 2]), SegmentError> {
        let padded = self.pad(image)?;
        let shape = [1, padded[0], padded[1]];
        let logits = self.run(image, padded, |runner, pixels| runner.run(pixels, shape))?;
        let classes = self.model.classes.count();
        match logits.shape[..] {
            [1, found, height, width] if found == classes && height * width > 0 => {
                Ok((LogitMap { classes, height, width, data: logits.data }, padded))
            }
            _ => Err(SegmentError::Shape { found: logits.shape, expected: [1, classes, 0, 0] }),
        }
    }

    /// Labels of an image in one piece, by a file that gives labels.
    fn predict_labels(&mut self, image: &ImageView<'_>) -> Result<Prediction, SegmentError> {
        let [height, width] = image.checked_size()?;
        let padded = self.pad(image)?;
        let (shape, classes) = ([1, padded[0], padded[1]], self.model.classes.count());
        let found =
            self.run(image, padded, |runner, pixels| runner.run_labels(pixels, shape, classes))?;
        let frame = self.geometry([height, width], padded)?;
        let labels = self.times.timed(Stage::Stitch, || match found.shape[..] {
            [1, rows, columns] => frame.spread_labels(&found.data, [rows, columns]),
            _ => None,
        });
        let labels = labels.ok_or_else(|| {
            let expected = [1, 1, padded[0], padded[1]];
            SegmentError::Shape { found: found.shape, expected }
        })?;
        Ok(Prediction::from_labels(array(height, width, labels)?))
    }

    /// Logits of an image in windows, and the padded size that they span.
    fn stitched_logits(
        &mut self,
        image: &ImageView<'_>,
        plan: &WindowPlan,
    ) -> Result<(LogitMap, [usize; 2]), SegmentError> {
        let classes = self.model.classes.count();
        let stitcher = self.times.timed(Stage::Stitch, || Stitcher::new(plan, classes));
        let mut stitcher = stitcher.ok_or_else(|| too_large(image))?;
        let take = |logits: &[f32]| {
            stitcher.add(logits);
            Ok(())
        };
        self.run_windows(plan, &mut FrameWindows { image, take })?;
        let map = self.times.timed(Stage::Stitch, || stitcher.finish());
        Ok((map, plan.padded()))
    }

    /// Predicts pixels as soon as their logits are complete.
    fn predict_rolling(
        &mut self,
        image: &ImageView<'_>,
        plan: &WindowPlan,
        outputs: Outputs,
    ) -> Result<Prediction, SegmentError> {
        let frame = self.geometry(image.size(), plan.padded())?;
        let classes = self.model.classes.count();
        let merger = self.times.timed(Stage::Stitch, || {
            RollingMerger::new(plan, classes, &frame, outputs, Predicted::Frame)
        });
        let mut merger = merger.ok_or_else(|| too_large(image))?;
        let take = |logits: &[f32]| merger.add(logits);
        self.run_windows(plan, &mut FrameWindows { image, take })?;
        Ok(merger.into_prediction())
    }

    /// Runs tiles of any images, RGB `[n, h, w, 3]` with `shape` = `[n, h, w]`, and returns their
    /// logits `[n, classes, h', w']`.
    pub fn run_tiles(
        &mut self,
        pixels: &[u8],
        shape: [usize; 3],
    ) -> Result<Array4<f32>, SegmentError> {
        let logits =
            timed_run(&mut self.times, &mut self.runner, |runner| runner.run(pixels, shape))?;
        let expected = [shape[0], self.model.classes.count(), 0, 0];
        match logits.shape[..] {
            [count, classes, height, width] if count == shape[0] => {
                let array = Array4::from_shape_vec((count, classes, height, width), logits.data);
                array.map_err(|_| SegmentError::Shape { found: logits.shape, expected })
            }
            _ => Err(SegmentError::Shape { found: logits.shape, expected }),
        }
    }

    /// Returns how images are split into tiles for [`run_tiles`](Self::run_tiles).
    pub fn tiler(&self) -> Tiler {
        Tiler {
            kind: self.kind,
            sizes: self.sizes,
            painter: self.painter,
            windows: self.windows,
            grid: self.model.grid,
            blend: self.model.blend,
            short_sides: self.short_sides,
            classes: self.model.classes.count(),
            scores: self.scores,
            frames: self.frame_sizes(),
        }
    }

    /// Profiles the operators of the file that images `[height, width]` go through where no margin
    /// is asked for; [`Runner::profile`] says at which cost.
    pub fn profile(&self, size: [usize; 2]) -> Result<Profile, SegmentError> {
        if let Some(frame) = self.frames.iter().find(|frame| frame.size() == size) {
            return frame.profile();
        }
        let (count, [height, width]) = match self.plan(size)? {
            Some(plan) => (plan.count().min(self.batch), plan.tile_size()),
            None => (1, self.sizes.padded(size)?),
        };
        Ok(self.runner.profile([count, height, width])?)
    }

    /// Places windows over an image `[height, width]`; None where it is run whole.
    fn plan(&self, size: [usize; 2]) -> Result<Option<WindowPlan>, SegmentError> {
        self.tiler().window_plan(size)
    }

    /// Returns how the logits of a padded image lie over it.
    fn geometry(
        &self,
        size: [usize; 2],
        padded: [usize; 2],
    ) -> Result<LogitGeometry, SegmentError> {
        let placement = match self.windows {
            Some(_) => None,
            None => self.sizes.placement(size, self.painter.bars.corner)?,
        };
        let align_corners = self.model.grid.align_corners;
        let scores = self.scores;
        Ok(LogitGeometry { placement, scores, ..LogitGeometry::new(size, padded, align_corners) })
    }

    /// Runs an image that [`pad`](Self::pad) has prepared.
    fn run<R>(
        &mut self,
        image: &ImageView<'_>,
        padded: [usize; 2],
        work: impl FnOnce(&mut Runner, &[u8]) -> Result<R, SessionError>,
    ) -> Result<R, SessionError> {
        let Self { runner, times, pixels, .. } = self;
        let pixels = if padded == image.size() { image.pixels() } else { pixels };
        timed_run(times, runner, |runner| work(runner, pixels))
    }

    /// Puts the padded image into the buffer, if it needs padding, and returns its size.
    fn pad(&mut self, image: &ImageView<'_>) -> Result<[usize; 2], SegmentError> {
        let padded = self.sizes.padded(image.checked_size()?)?;
        if let Some(placement) = self.sizes.placement(image.size(), self.painter.bars.corner)? {
            let Self { pixels, times, painter, .. } = self;
            times.timed(Stage::Preprocess, || {
                pixels.clear();
                painter.append(image, placement, pixels);
            });
        } else if padded != image.size() {
            let append = |start, pixels: &mut Vec<u8>| image.append_tile(start, padded, pixels);
            self.fill_tiles(&[[0, 0]], padded, append).ok_or_else(|| too_large(image))?;
        }
        Ok(padded)
    }

    /// Fills the buffer with tiles of an image, `[n, height, width, 3]`, which a function appends.
    /// None where they do not fit into memory.
    fn fill_tiles(
        &mut self,
        starts: &[[usize; 2]],
        [height, width]: [usize; 2],
        append: impl Fn([usize; 2], &mut Vec<u8>),
    ) -> Option<()> {
        let Self { pixels, times, .. } = self;
        times.timed(Stage::Preprocess, || {
            pixels.clear();
            let bytes = starts.len().saturating_mul(height).saturating_mul(width).saturating_mul(3);
            pixels.try_reserve_exact(bytes).ok()?;
            starts.iter().for_each(|&start| append(start, pixels));
            Some(())
        })
    }
}

fn too_large(image: &ImageView<'_>) -> SegmentError {
    let [height, width] = image.size();
    SegmentError::TooLarge { height, width }
}

fn array(height: usize, width: usize, values: Vec<u8>) -> Result<Array2<u8>, SegmentError> {
    let found = vec![values.len()];
    let array = Array2::from_shape_vec((height, width), values);
    array.map_err(|_| SegmentError::Shape { found, expected: [1, 1, height, width] })
}

/// Runs the network and adds the time of its stages: what the runner does not account for is
/// compute.
fn timed_run<R>(
    times: &mut StageTimes,
    runner: &mut Runner,
    work: impl FnOnce(&mut Runner) -> R,
) -> R {
    let (start, before) = (Instant::now(), runner.times());
    let result = work(runner);
    let mut spent = runner.times() - before;
    spent[Stage::Compute] = start.elapsed().saturating_sub(spent.total());
    *times += spent;
    result
}

/// Logits of an image before upsampling, and how they lie over it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ImageLogits {
    pub(crate) map: LogitMap,
    pub(crate) frame: LogitGeometry,
}

impl ImageLogits {
    pub(crate) fn predict(self, outputs: Outputs) -> Prediction {
        upsample::predict_owned(self.map, &self.frame, outputs)
    }
}

/// Output of the model, from which the prediction follows without it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RawPrediction {
    Logits(ImageLogits),
    /// Predicted already: by a file that gives labels, by a frame file, or because the image is
    /// large.
    Final(Prediction),
}

impl RawPrediction {
    pub(crate) fn predict(self, outputs: Outputs) -> Prediction {
        match self {
            Self::Logits(logits) => logits.predict(outputs),
            Self::Final(prediction) => prediction,
        }
    }
}

/// Kind and interface of the file that a segmenter runs.
struct ModelShape {
    kind: ModelKind,
    sizes: InputSizes,
    interface: Interface,
}

/// Chooses the file that runs windows or whole images. Where several have the chosen precision,
/// TensorRT gets the one whose 8-bit activations are signed, as it needs them, and other devices
/// the other.
fn choose_file<'a>(
    path: &Path,
    manifest: &'a Manifest,
    config: &EngineConfig,
) -> Result<&'a ModelFile, SegmentError> {
    let files = || manifest.files.iter().filter(|file| file.variant.kind != ModelKind::Frame);
    let Some(precision) = config.precision else {
        return files().next().ok_or_else(|| SegmentError::NoModelFile(path.into()));
    };
    let signed = matches!(config.first_device(), Device::TensorRt(_));
    let fits = |file: &&ModelFile| file.variant.precision == precision;
    let suits = |file: &&ModelFile| {
        file.variant
            .quantization
            .as_ref()
            .is_none_or(|quantization| quantization.symmetric == signed)
    };
    let file = files().filter(fits).find(suits).or_else(|| files().find(fits));
    file.ok_or_else(|| {
        let known: Vec<&str> = files().map(|file| file.variant.precision.name()).collect();
        SegmentError::NoPrecision { path: path.into(), precision, known: known.join(", ") }
    })
}

/// Completes a configuration by what the manifest says of a file: the size of its windows, and
/// whether it computes in 8 bits.
fn file_config(
    manifest: &Manifest,
    file: &ModelFile,
    config: &EngineConfig,
) -> Result<EngineConfig, SegmentError> {
    let mut config = config.clone();
    // On a CPU sizes that are known beforehand bring nothing.
    if config.first_device() != Device::Cpu && config.input_size.is_none() {
        let window = config.window.map_or(manifest.model.window, Tiling::window);
        let only = file.adapter.as_ref().and_then(|adapter| adapter.size);
        config.input_size = window.map(|window| [window.size; 2]).or(only);
    }
    let int8 = file.variant.precision == Precision::Int8;
    if config.trt_int8 && !int8 {
        return Err(SegmentError::NotQuantized(file.file.clone()));
    }
    config.trt_int8 = int8;
    Ok(config)
}
