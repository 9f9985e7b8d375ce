//! From a picture to its labels: bundle, runner, windows, stitching and upsampling together.

mod answer;
mod cut;
mod error;
mod frames;
mod how;
mod identity;
mod mosaic;
mod open;
mod profile;
mod times;
mod whole;
mod windows;

use std::num::NonZeroUsize;

use image::RgbImage;
use protoseg_models::bundle::Model;
use protoseg_models::variant::{ModelKind, Precision};
use protoseg_models::window::{Tiling, Window, WindowPlan};

use crate::crop;
use crate::session::{Device, Runner, RunnerOptions, timed};
use crate::upsample::{self, LogitGeometry, Outputs, Prediction};
use protoseg_images::label_map::LabelMap;

pub use self::answer::{ImageLogits, RawPrediction};
pub use self::cut::{TileCost, TileGrid, Tiler};
pub use self::error::SegmentError;
use self::frames::FrameFile;
pub use self::identity::fingerprint;
pub use self::mosaic::TileMerger;
pub use self::times::StageTimes;
use self::whole::InputSizes;

/// Most scores of a picture that are kept until it is upsampled: 32 MiB, as 19 classes have them of 7 megapixels.
const MOST_KEPT: usize = 8 << 20;

/// How a [`Segmenter`] works.
#[derive(Debug, Clone, Default)]
pub struct SegmenterOptions {
    /// In which pieces pictures are run; as the model's description says where nobody says otherwise.
    pub pieces: Option<Tiling>,
    /// Windows that are run at once; 1 where nobody says otherwise, as more bring nothing on a CPU.
    pub batch: Option<NonZeroUsize>,
    /// Number format of the bundle's file that is run; that of its first where nobody says otherwise.
    pub precision: Option<Precision>,
    /// Whether pictures of a size for which the bundle has a frame file go through that file; on GPUs where nobody says
    /// otherwise.
    pub frame_files: Option<bool>,
    /// How the ONNX file is run.
    pub runner: RunnerOptions,
}

/// A model that is ready to label pictures.
#[derive(Debug)]
pub struct Segmenter {
    model: Model,
    kind: ModelKind,
    sizes: InputSizes,
    runner: Runner,
    frames: Vec<FrameFile>,
    unknown_fields: Vec<String>,
    window: Option<Window>,
    batch: usize,
    times: StageTimes,
    pixels: Vec<u8>,
    fingerprint: String,
    file: String,
    precision: Option<Precision>,
}

impl Segmenter {
    /// What the model is.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Fields of the model's description that this version does not know, because a newer one wrote it; worth a warning.
    pub fn unknown_fields(&self) -> &[String] {
        &self.unknown_fields
    }

    /// SHA-256 of what the model computes: of its file, and of what the bundle says about it.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The name of the file that runs a picture, where labels are all that is wanted.
    pub fn file_name_for(&self, picture: &RgbImage) -> &str {
        let frame = self.frames.iter().find(|frame| frame.takes(picture, Outputs::default()));
        frame.map_or(&self.file, FrameFile::name)
    }

    /// The number format of its file; none of a file by itself, which may not tell.
    pub fn precision(&self) -> Option<Precision> {
        self.precision
    }

    /// Whether the model gives scores, and so tells how sure it is.
    pub fn has_logits(&self) -> bool {
        self.kind != ModelKind::Labels
    }

    /// Windows in which pictures are run; none for whole pictures.
    pub fn window(&self) -> Option<Window> {
        self.window
    }

    /// Time spent in the stages of all pictures so far.
    pub fn times(&self) -> StageTimes {
        self.times
    }

    /// What runs the network.
    pub fn device(&self) -> Device {
        self.runner.device()
    }

    /// Height and width of the only pictures that the model takes; none where it takes others too.
    pub fn only_size(&self) -> Option<[usize; 2]> {
        match self.sizes {
            InputSizes::One(size) if self.window.is_none() => Some(size),
            _ => None,
        }
    }

    /// Height and width of the pictures that frame files take.
    pub fn frame_sizes(&self) -> Vec<[usize; 2]> {
        self.frames.iter().map(FrameFile::size).collect()
    }

    /// In how many pieces a picture of `[height, width]` pixels is run, and how many pixels these have together for each pixel
    /// of the picture: more than one where windows overlap or reach beyond it.
    pub fn tiling(&self, [height, width]: [usize; 2]) -> Result<(usize, f64), SegmentError> {
        let pixels = height as f64 * width as f64;
        let (count, piece) = match self.window {
            Some(window) => {
                (WindowPlan::new(height, width, window, self.model.grid)?.count(), [window.size; 2])
            }
            None => (1, self.sizes.padded([height, width])?),
        };
        Ok((count, count as f64 * piece[0] as f64 * piece[1] as f64 / pixels))
    }

    /// Runs a black picture of the size in which pictures are run, or of 1024x1024 pixels where any size is: what a session
    /// allocates at its first run is then there. Returns how many pixels it has.
    pub fn warm_up(&mut self) -> Result<u64, SegmentError> {
        let window = self.window.map(|window| [window.size; 2]);
        let [height, width] = window.or(self.only_size()).unwrap_or([1024; 2]);
        self.predict_raw(&RgbImage::new(width as u32, height as u32))?;
        Ok(height as u64 * width as u64)
    }

    /// Labels a picture: the train id of every pixel.
    pub fn segment(&mut self, picture: &RgbImage) -> Result<LabelMap, SegmentError> {
        Ok(self.predict(picture, Outputs::default())?.into())
    }

    /// Labels a picture, with what else is wanted of every pixel; the same, bit for bit, as [`answer`](Self::predict_raw) and
    /// [`RawPrediction::predict`] give.
    ///
    /// Windows are run row after row, and pixels are decided as soon as no window to come covers them. So beside the
    /// picture and what is returned, this takes memory for the scores of one row of windows, however high the picture is.
    /// Models that give labels tell neither confidence nor margin. Where the bundle has a frame file of the picture's size and
    /// the options allow it, that is run, unless a margin is wanted, which it does not tell; then bits may differ.
    pub fn predict(
        &mut self,
        picture: &RgbImage,
        wanted: Outputs,
    ) -> Result<Prediction, SegmentError> {
        if let Some(frame) = self.frames.iter_mut().find(|frame| frame.takes(picture, wanted)) {
            return frame.predict(picture, wanted, &mut self.times);
        }
        match (self.kind, self.window) {
            (ModelKind::Labels, _) => Ok(self.whole_labels(picture)?.into()),
            (_, None) => {
                let logits = self.logits(picture)?;
                Ok(timed(&mut self.times.stitch, || {
                    upsample::predict(&logits.map, &logits.frame, wanted)
                }))
            }
            (_, Some(window)) => self.predict_windows(picture, window, wanted),
        }
    }

    /// What the model makes of a picture. What is left, [`RawPrediction::predict`], needs no model and may happen on another
    /// thread.
    pub fn predict_raw(&mut self, picture: &RgbImage) -> Result<RawPrediction, SegmentError> {
        match self.kind {
            ModelKind::Labels => Ok(RawPrediction::Final(self.whole_labels(picture)?.into())),
            ModelKind::Logits | ModelKind::Frame => {
                Ok(RawPrediction::Logits(self.logits(picture)?))
            }
        }
    }

    /// As [`answer`](Self::predict_raw) where the scores of a picture are few enough to be kept until another thread takes them,
    /// and as [`predict`](Self::predict) where they are not.
    pub fn predict_deferred(
        &mut self,
        picture: &RgbImage,
        wanted: Outputs,
    ) -> Result<RawPrediction, SegmentError> {
        if self.frames.iter().any(|frame| frame.takes(picture, wanted)) {
            return Ok(RawPrediction::Final(self.predict(picture, wanted)?));
        }
        let Some(window) = self.window else { return self.predict_raw(picture) };
        let [height, width] = size(picture)?;
        let [rows, columns] = WindowPlan::new(height, width, window, self.model.grid)?.logit_size();
        let scores = rows.saturating_mul(columns).saturating_mul(self.model.classes.count());
        if scores <= MOST_KEPT {
            self.predict_raw(picture)
        } else {
            Ok(RawPrediction::Final(self.predict(picture, wanted)?))
        }
    }

    /// Class scores of a picture before upsampling, of models that give them.
    pub fn logits(&mut self, picture: &RgbImage) -> Result<ImageLogits, SegmentError> {
        if self.kind == ModelKind::Labels {
            return Err(SegmentError::NoScores);
        }
        let size = size(picture)?;
        let (map, padded) = match self.window {
            None => self.whole(picture, size)?,
            Some(window) => {
                self.windows(picture, &WindowPlan::new(size[0], size[1], window, self.model.grid)?)?
            }
        };
        if !timed(&mut self.times.stitch, || map.is_finite()) {
            return Err(SegmentError::NotFinite);
        }
        Ok(ImageLogits { map, frame: self.frame(size, padded) })
    }

    /// How scores of a padded picture lie over it.
    fn frame(&self, [height, width]: [usize; 2], padded: [usize; 2]) -> LogitGeometry {
        LogitGeometry { height, width, padded, align_corners: self.model.grid.align_corners }
    }

    /// Fills the buffer with rectangles of a picture, `[n, height, width, 3]`, which must fit into memory.
    fn copy_tiles(
        &mut self,
        picture: &RgbImage,
        starts: &[[usize; 2]],
        size: [usize; 2],
    ) -> Result<(), SegmentError> {
        let Self { pixels, times, .. } = self;
        timed(&mut times.prepare, || {
            pixels.clear();
            let bytes =
                starts.len().saturating_mul(size[0]).saturating_mul(size[1]).saturating_mul(3);
            pixels.try_reserve_exact(bytes).map_err(|_| too_large(picture))?;
            starts.iter().for_each(|&start| crop::append_tile(picture, start, size, pixels));
            Ok(())
        })
    }
}

fn size(picture: &RgbImage) -> Result<[usize; 2], SegmentError> {
    let size = [picture.height() as usize, picture.width() as usize];
    if size.contains(&0) { Err(SegmentError::Empty) } else { Ok(size) }
}

fn too_large(picture: &RgbImage) -> SegmentError {
    SegmentError::TooLarge { height: picture.height() as usize, width: picture.width() as usize }
}
