//! The runtime: the only module that names `ort`. It finds ONNX Runtime, opens ONNX files and runs them.

mod binding;
mod engines;
mod error;
mod external;
mod failure;
mod gpu_lock;
mod library;
mod open;
mod peak;
mod profile;
mod provider;
mod runtime_info;

use std::path::{Path, PathBuf};

use ort::session::{OutputSelector, RunOptions, Session, SessionInputValue};
use ort::value::{DynValue, Outlet, TensorElementType};
use protoseg_models::bundle::{METADATA_KEY, Model};
use protoseg_models::versioned::{self, Versioned};
use protoseg_models::weights::Tensor;

use self::binding::Buffers;
use self::engines::ModelSource;
pub use self::error::SessionError;
pub use self::external::{ExternalModel, LabelTensor};
use self::library::environment;
use self::open::{commit, commit_with};
pub use self::peak::DevicePeak;
pub use self::profile::{Operator, Profile, profile};
pub use self::runtime_info::{Runtime, runtime};
use crate::config::{Device, EngineConfig};
use crate::preprocess::Preprocess;
use crate::stage::{Stage, StageTimes};

/// Environment variable that names the library of ONNX Runtime.
pub const LIBRARY_VARIABLE: &str = "ORT_DYLIB_PATH";

/// Name of the output that holds class scores.
const LOGITS: &str = "logits";

/// Names of the outputs of files of the `frame` kind.
const FRAME_OUTPUTS: [&str; 2] = ["labels", "confidence"];

/// Entry of a run's options that numbers recordings of GPU launches; a run of number -1 is not recorded.
const GRAPH_KEY: &str = "gpu_graph_id";

/// An open ONNX file, owned by one thread: pictures in, class scores out; of the `frame` kind and of adopted files of the
/// `labels` kind, labels.
#[derive(Debug)]
pub struct Runner {
    session: Session,
    path: PathBuf,
    config: EngineConfig,
    device: Device,
    default_output: String,
    /// What turns pictures into what an adopted file takes.
    feed: Option<Preprocess>,
    buffers: Buffers,
    times: StageTimes,
}

impl Runner {
    /// Opens an ONNX file.
    pub fn open(path: &Path, config: &EngineConfig) -> Result<Self, SessionError> {
        Self::with_image_input(path, config, commit(path, config, ModelSource::File)?)
    }

    /// The same from the bytes of a file; `name` is for messages.
    pub fn from_bytes(
        name: &str,
        bytes: &[u8],
        config: &EngineConfig,
    ) -> Result<Self, SessionError> {
        let path = Path::new(name);
        Self::with_image_input(path, config, commit(path, config, ModelSource::Bytes(bytes))?)
    }

    fn with_image_input(
        path: &Path,
        config: &EngineConfig,
        session: Session,
    ) -> Result<Self, SessionError> {
        let takes_pictures = match session.inputs() {
            [input] => {
                let shape = input
                    .dtype()
                    .tensor_shape()
                    .is_some_and(|shape| shape.len() == 4 && shape[3] == 3);
                shape && input.dtype().tensor_type() == Some(TensorElementType::Uint8)
            }
            _ => false,
        };
        if !takes_pictures {
            let inputs: Vec<String> = session
                .inputs()
                .iter()
                .map(|input| format!("`{}` {}", input.name(), input.dtype()))
                .collect();
            return Err(SessionError::Input { path: path.into(), found: inputs.join(", ") });
        }
        let default_output =
            session.outputs().first().map(|output| output.name().to_owned()).unwrap_or_default();
        let named = session.outputs().iter().any(|output| output.name() == LOGITS);
        let default_output = if named { LOGITS.to_owned() } else { default_output };
        Ok(Self::new(session, path.into(), config, default_output, None))
    }

    fn new(
        session: Session,
        path: PathBuf,
        config: &EngineConfig,
        default_output: String,
        feed: Option<Preprocess>,
    ) -> Self {
        let device = config.first_device();
        Self {
            session,
            path,
            config: config.clone(),
            device,
            default_output,
            feed,
            buffers: Buffers::new(device, config.cuda_graph),
            times: StageTimes::default(),
        }
    }

    /// What runs it.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Time by stage since the file was opened, beside compute.
    pub fn times(&self) -> StageTimes {
        self.times
    }

    /// What the file's metadata says about its model; none where the file is not one of protoseg's.
    pub fn model(&self) -> Result<Option<Versioned<Model>>, SessionError> {
        let failed = |source| SessionError::Model { path: self.path.clone(), source };
        let Some(text) = self.session.metadata().map_err(failed)?.custom(METADATA_KEY) else {
            return Ok(None);
        };
        Ok(Some(versioned::parse(&self.path, &text, Model::VERSION)?))
    }

    /// How many classes the file says that its scores have; none where it leaves that open.
    pub fn classes(&self) -> Option<usize> {
        let output =
            self.session.outputs().iter().find(|output| output.name() == self.default_output)?;
        usize::try_from(*output.dtype().tensor_shape()?.get(1)?).ok()
    }

    /// Names of all outputs.
    pub fn outputs(&self) -> impl Iterator<Item = &str> {
        self.session.outputs().iter().map(Outlet::name)
    }

    /// Runs pictures, RGB `[n, h, w, 3]` with `shape` = `[n, h, w]`, and returns their class scores `[n, classes, h', w']`.
    pub fn run(&mut self, images: &[u8], shape: [usize; 3]) -> Result<Tensor, SessionError> {
        let name = self.default_output.clone();
        let scores = self.run_outputs(images, shape, &[&name])?.pop();
        scores.ok_or_else(|| SessionError::Output {
            path: self.path.clone(),
            name,
            known: "none".to_owned(),
        })
    }

    /// Runs pictures as [`run`](Self::run) does, and lends their class scores with the size of each dimension.
    pub fn run_with_logits<R>(
        &mut self,
        images: &[u8],
        shape: [usize; 3],
        take: impl FnOnce(&[usize], &[f32]) -> R,
    ) -> Result<R, SessionError> {
        // What comes of a GPU is copied, so that a session's turn on it is over when it is looked at.
        if self.feed.is_some() || self.device.is_gpu() {
            let Tensor { shape, data } = self.run(images, shape)?;
            return Ok(take(&shape, &data));
        }
        let name = self.default_output.clone();
        self.check(images, shape, &[&name])?;
        self.run_as(images, shape, &[&name], |outputs| {
            let (shape, data) = floats(outputs[0])?;
            Ok(take(&shape, data))
        })
    }

    /// Runs pictures as [`run`](Self::run) does and returns the named outputs, in order. All must be of 32-bit floats.
    pub fn run_outputs(
        &mut self,
        images: &[u8],
        shape: [usize; 3],
        names: &[&str],
    ) -> Result<Vec<Tensor>, SessionError> {
        self.check(images, shape, names)?;
        if self.feed.is_some() {
            return self.run_adapted(images, shape, names);
        }
        self.run_and_copy(images, shape, names, tensors)
    }

    /// Runs frames with a file of the `frame` kind, as [`run`](Self::run) runs pictures: labels and confidence, each
    /// `[n, h, w]`, the latter in steps of 1/255.
    pub fn run_frames(
        &mut self,
        images: &[u8],
        shape: [usize; 3],
    ) -> Result<[Vec<u8>; 2], SessionError> {
        let mut outputs = self.run_bytes(images, shape, &FRAME_OUTPUTS)?.into_iter();
        Ok([(); 2].map(|()| outputs.next().unwrap_or_default()))
    }

    /// Runs pictures as [`run`](Self::run) does and returns the named outputs, in order. All must be of bytes.
    pub fn run_bytes(
        &mut self,
        images: &[u8],
        shape: [usize; 3],
        names: &[&str],
    ) -> Result<Vec<Vec<u8>>, SessionError> {
        self.check(images, shape, names)?;
        self.run_and_copy(images, shape, names, |outputs| {
            outputs.iter().map(|output| Ok(output.try_extract_tensor::<u8>()?.1.to_vec())).collect()
        })
    }

    /// As [`run_as`](Self::run_as), for reading that is nothing but copying.
    fn run_and_copy<T>(
        &mut self,
        images: &[u8],
        shape: [usize; 3],
        names: &[&str],
        copy: impl FnOnce(&[&DynValue]) -> ort::Result<T>,
    ) -> Result<T, SessionError> {
        let mut took = StageTimes::default();
        let copied = self
            .run_as(images, shape, names, |outputs| took.timed(Stage::Download, || copy(outputs)));
        self.times += took;
        copied
    }

    fn run_as<T>(
        &mut self,
        images: &[u8],
        shape: [usize; 3],
        names: &[&str],
        read: impl FnOnce(&[&DynValue]) -> ort::Result<T>,
    ) -> Result<T, SessionError> {
        let ran = self.run_or_bind(images, shape, names, read);
        ran.map_err(|source| failure::run_error(&self.path, self.device, &source))
    }

    /// Whether the pixels are as many as said, and the outputs those that there are.
    fn check(
        &self,
        images: &[u8],
        [count, height, width]: [usize; 3],
        names: &[&str],
    ) -> Result<(), SessionError> {
        let expected = count.saturating_mul(height).saturating_mul(width).saturating_mul(3);
        if images.len() != expected {
            return Err(SessionError::Length { found: images.len(), expected });
        }
        if let Some(name) = names.iter().find(|name| !self.outputs().any(|known| known == **name)) {
            let known = self.outputs().collect::<Vec<_>>().join(", ");
            return Err(SessionError::Output {
                path: self.path.clone(),
                name: (*name).to_owned(),
                known,
            });
        }
        Ok(())
    }
}

/// Runs a session on its one input, and reads the named outputs, in order.
fn run_session<T>(
    session: &mut Session,
    input: SessionInputValue<'_>,
    names: &[&str],
    read: impl FnOnce(&[&DynValue]) -> ort::Result<T>,
) -> ort::Result<T> {
    let selector =
        names.iter().fold(OutputSelector::no_default(), |selector, name| selector.with(*name));
    let mut options = RunOptions::new()?.with_outputs(selector);
    // Where these outputs lie changes from run to run, so that nothing can be replayed.
    options.set(GRAPH_KEY, "-1")?;
    let outputs = session.run_with_options([input], &options)?;
    read(&names.iter().map(|name| &outputs[*name]).collect::<Vec<_>>())
}

/// Outputs as they came; all of 32-bit floats.
fn tensors(outputs: &[&DynValue]) -> ort::Result<Vec<Tensor>> {
    let tensor = |output: &&DynValue| {
        let (shape, data) = floats(output)?;
        Ok(Tensor { shape, data: data.to_vec() })
    };
    outputs.iter().map(tensor).collect()
}

/// The sizes and values of a tensor of 32-bit floats.
fn floats(output: &DynValue) -> ort::Result<(Vec<usize>, &[f32])> {
    let (shape, data) = output.try_extract_tensor::<f32>()?;
    Ok((shape.iter().map(|&size| usize::try_from(size).unwrap_or(0)).collect(), data))
}

/// Loads ONNX Runtime, if that has not happened yet: an early answer to whether there is one.
pub fn load_runtime() -> Result<(), SessionError> {
    environment().map(|_| ())
}

/// Some messages of ONNX Runtime end in empty lines.
fn on_one_line(error: &ort::Error) -> ort::Error {
    let words: Vec<&str> = error.message().split_whitespace().collect();
    ort::Error::new_with_code(error.code(), words.join(" "))
}
