//! ONNX Runtime: finds its library, opens ONNX files and runs them. The only module that names
//! `ort`.

mod device;
mod error;
mod gpu;
mod labels;
mod profile;
mod provider;
mod values;

use std::fs::File;
use std::io::Read;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{OutputSelector, RunOptions, Session, SessionInputValue};
use ort::value::{DynValue, Outlet, TensorElementType, ValueType};
use protoseg_models::adapter::Adapter;
use protoseg_models::bundle::{Dimension, METADATA_KEY, Model, ModelFile, TensorInfo};
use protoseg_models::errors::error_chain;
use protoseg_models::interface::LabelValues;
use protoseg_models::versioned::{self, Versioned};
use protoseg_models::weights::Tensor;

pub use self::device::{DevicePeak, Runtime, runtime};
pub use self::error::SessionError;
use self::error::{open_error, run_error};
use self::gpu::{Buffers, with_gpu};
pub use self::labels::LabelTensor;
pub(crate) use self::labels::listed;
use self::labels::train_ids;
pub use self::profile::{Operator, Profile, profile};
use self::provider::{EngineCache, ModelSource};
pub(crate) use self::values::class_planes;
pub use self::values::{RawOutput, RawValues};
use self::values::{append, floats, input_value, raw, raw_outputs, tensors};
use crate::config::{Device, EngineConfig};
use crate::machine::cores;
use crate::preprocess::Preprocess;
use crate::stage::{Stage, StageTimes};

/// Environment variable that names the library of ONNX Runtime.
pub const LIBRARY_VARIABLE: &str = "ORT_DYLIB_PATH";

/// Name of the output that holds logits.
const LOGITS: &str = "logits";

/// Names of the outputs of files of the `frame` kind.
const FRAME_OUTPUTS: [&str; 2] = ["labels", "confidence"];

/// Run option that numbers CUDA graphs; runs of number -1 are not captured.
const GRAPH_KEY: &str = "gpu_graph_id";

/// An open ONNX file, owned by one thread: images in, logits out; of the `frame` kind and of
/// imported files of the `labels` kind, labels.
#[derive(Debug)]
pub struct Runner {
    session: Session,
    path: PathBuf,
    config: EngineConfig,
    device: Device,
    default_output: String,
    /// Preprocessing of an imported file.
    preprocess: Option<Preprocess>,
    buffers: Buffers,
    times: StageTimes,
}

impl Runner {
    /// Opens an ONNX file on the first device of a configuration.
    pub fn open(path: &Path, config: &EngineConfig) -> Result<Self, SessionError> {
        Self::with_image_input(path, config, open_session(path, config, ModelSource::File, None)?)
    }

    /// Opens a file of a bundle, imported or not.
    pub fn open_bundle_file(
        path: &Path,
        file: &ModelFile,
        config: &EngineConfig,
    ) -> Result<Self, SessionError> {
        match &file.adapter {
            None => Self::open(path, config),
            Some(adapter) => Ok(ExternalModel::open(path, config)?.with_adapter(adapter.clone())),
        }
    }

    /// Opens an ONNX file from its bytes; `name` is for messages.
    pub fn from_bytes(
        name: &str,
        bytes: &[u8],
        config: &EngineConfig,
    ) -> Result<Self, SessionError> {
        let path = Path::new(name);
        let session = open_session(path, config, ModelSource::Bytes(bytes), None)?;
        Self::with_image_input(path, config, session)
    }

    fn with_image_input(
        path: &Path,
        config: &EngineConfig,
        session: Session,
    ) -> Result<Self, SessionError> {
        let takes_images = match session.inputs() {
            [input] => {
                let shape = input.dtype().tensor_shape();
                shape.is_some_and(|shape| shape.len() == 4 && shape[3] == 3)
                    && input.dtype().tensor_type() == Some(TensorElementType::Uint8)
            }
            _ => false,
        };
        if !takes_images {
            let inputs = session.inputs().iter();
            let inputs = inputs.map(|input| format!("`{}` {}", input.name(), input.dtype()));
            return Err(SessionError::Invalid(format!(
                "{} takes {}, not 8-bit images [N, H, W, 3]; a file that `protoseg export` did not write must become a bundle \
                 first: see `protoseg import --help`",
                path.display(),
                inputs.collect::<Vec<_>>().join(", ")
            )));
        }
        let outputs = session.outputs();
        let named = outputs.iter().find(|output| output.name() == LOGITS);
        let output = named.or(outputs.first());
        let output = output.map(|output| output.name().to_owned()).unwrap_or_default();
        Ok(Self::new(session, path.into(), config, output, None))
    }

    fn new(
        session: Session,
        path: PathBuf,
        config: &EngineConfig,
        default_output: String,
        preprocess: Option<Preprocess>,
    ) -> Self {
        let device = config.first_device();
        Self {
            session,
            path,
            config: config.clone(),
            device,
            default_output,
            preprocess,
            buffers: Buffers::new(device, config.cuda_graph),
            times: StageTimes::default(),
        }
    }

    /// Returns the device.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Time by stage since the file was opened, beside compute.
    pub fn times(&self) -> StageTimes {
        self.times
    }

    /// Reads the description of the model from the file's metadata; None where another program
    /// wrote the file.
    pub fn model(&self) -> Result<Option<Versioned<Model>>, SessionError> {
        let failed = |source| SessionError::Model { path: self.path.clone(), source };
        let Some(text) = self.session.metadata().map_err(failed)?.custom(METADATA_KEY) else {
            return Ok(None);
        };
        Ok(Some(versioned::parse(&self.path, &text, Model::VERSION)?))
    }

    /// Returns the number of classes that the file declares for its logits; None where it leaves
    /// that open.
    pub fn classes(&self) -> Option<usize> {
        // Of imported files the trial has counted them, wherever they lie.
        if self.preprocess.as_ref().is_some_and(|known| !known.adapter().interface.is_default()) {
            return None;
        }
        let output =
            self.session.outputs().iter().find(|output| output.name() == self.default_output)?;
        usize::try_from(*output.dtype().tensor_shape()?.get(1)?).ok()
    }

    /// Names of all outputs.
    pub fn outputs(&self) -> impl Iterator<Item = &str> {
        self.session.outputs().iter().map(Outlet::name)
    }

    /// Runs images, RGB `[n, h, w, 3]` with `shape` = `[n, h, w]`, and returns their logits `[n,
    /// classes, h', w']`.
    pub fn run(&mut self, images: &[u8], shape: [usize; 3]) -> Result<Tensor, SessionError> {
        let name = self.default_output.clone();
        let Some(adapter) = self.preprocess.as_ref().map(Preprocess::adapter) else {
            let logits = self.run_outputs(images, shape, &[&name])?.pop();
            return logits.ok_or_else(|| self.no_output(&name));
        };
        let interface = adapter.interface.clone();
        self.check(images, shape, &[&name])?;
        let mut all = Tensor { shape: Vec::new(), data: Vec::new() };
        let copy = |outputs: &[&DynValue]| raw(outputs[0]);
        self.run_adapted(images, shape, &[&name], copy, |output, count| {
            let part = class_planes(output, &interface);
            append(&mut all.shape, &mut all.data, part.shape, part.data, count);
            Ok(())
        })?;
        Ok(all)
    }

    /// Runs images once through an imported file, and returns the named outputs as they came. If
    /// the file takes more images at once, the last ones are blank.
    pub fn run_raw(
        &mut self,
        images: &[u8],
        shape: [usize; 3],
        names: &[&str],
    ) -> Result<Vec<RawOutput>, SessionError> {
        self.check(images, shape, names)?;
        let mut all = Vec::new();
        self.run_adapted(images, shape, names, raw_outputs, |outputs, _| {
            all = outputs;
            Ok(())
        })?;
        Ok(all)
    }

    /// Takes images as another description says.
    pub(crate) fn adapt(&mut self, adapter: Adapter) {
        self.default_output.clone_from(&adapter.output);
        self.preprocess = Some(Preprocess::new(adapter));
    }

    /// Runs images as [`run`](Self::run) does, and lends their logits with the size of each
    /// dimension.
    pub fn run_with_logits<R>(
        &mut self,
        images: &[u8],
        shape: [usize; 3],
        take: impl FnOnce(&[usize], &[f32]) -> R,
    ) -> Result<R, SessionError> {
        // Outputs of a GPU are copied, so that the GPU lock is free while they are read.
        if self.preprocess.is_some() || self.device.is_gpu() {
            let Tensor { shape, data } = self.run(images, shape)?;
            return Ok(take(&shape, &data));
        }
        let name = self.default_output.clone();
        self.check(images, shape, &[&name])?;
        self.run_bound(images, shape, &[&name], |outputs| {
            let (shape, data) = floats(outputs[0])?;
            Ok(take(&shape, data))
        })
    }

    /// Runs images as [`run`](Self::run) does, and returns the named outputs in order. All must be
    /// of 32-bit floats.
    pub fn run_outputs(
        &mut self,
        images: &[u8],
        shape: [usize; 3],
        names: &[&str],
    ) -> Result<Vec<Tensor>, SessionError> {
        self.check(images, shape, names)?;
        if self.preprocess.is_none() {
            return self.run_and_copy(images, shape, names, tensors);
        }
        let mut all = vec![Tensor { shape: Vec::new(), data: Vec::new() }; names.len()];
        self.run_adapted(images, shape, names, tensors, |parts, count| {
            for (all, part) in all.iter_mut().zip(parts) {
                append(&mut all.shape, &mut all.data, part.shape, part.data, count);
            }
            Ok(())
        })?;
        Ok(all)
    }

    /// Runs images with a file of the `frame` kind, and returns their labels and confidence, each
    /// `[n, h, w]`, the latter in steps of 1/255.
    pub fn run_frames(
        &mut self,
        images: &[u8],
        shape: [usize; 3],
    ) -> Result<[Vec<u8>; 2], SessionError> {
        let mut outputs = self.run_bytes(images, shape, &FRAME_OUTPUTS)?.into_iter();
        Ok([(); 2].map(|()| outputs.next().unwrap_or_default()))
    }

    /// Runs images as [`run`](Self::run) does, and returns the named outputs in order. All must be
    /// of bytes.
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

    /// Runs images, RGB `[n, h, w, 3]` with `shape` = `[n, h, w]`, through an imported file that
    /// gives labels of `classes` classes.
    pub fn run_labels(
        &mut self,
        images: &[u8],
        shape: [usize; 3],
        classes: usize,
    ) -> Result<LabelTensor, SessionError> {
        let (path, name) = (self.path.clone(), self.default_output.clone());
        let interface = self.preprocess.as_ref().map(|known| known.adapter().interface.clone());
        let interface = interface.unwrap_or_default();
        // Files of older manifests have no values without a class.
        let values = interface
            .labels
            .unwrap_or_else(|| LabelValues { void: Vec::new(), ..LabelValues::positions(classes) });
        self.check(images, shape, &[&name])?;
        let mut all = LabelTensor { shape: Vec::new(), data: Vec::new() };
        let copy = |outputs: &[&DynValue]| raw(outputs[0]);
        self.run_adapted(images, shape, &[&name], copy, |output, count| {
            let part = train_ids(&path, output, interface.output, &values)?;
            append(&mut all.shape, &mut all.data, part.shape, part.data, count);
            Ok(())
        })?;
        Ok(all)
    }

    /// Checks the number of pixels and the names of outputs.
    fn check(
        &self,
        images: &[u8],
        [count, height, width]: [usize; 3],
        names: &[&str],
    ) -> Result<(), SessionError> {
        let expected = count.saturating_mul(height).saturating_mul(width).saturating_mul(3);
        if images.len() != expected {
            let found = images.len();
            let message = format!("{found} bytes of pixels where {expected} are expected");
            return Err(SessionError::Invalid(message));
        }
        match names.iter().find(|name| !self.outputs().any(|known| known == **name)) {
            Some(name) => Err(self.no_output(name)),
            None => Ok(()),
        }
    }

    fn no_output(&self, name: &str) -> SessionError {
        let known = self.outputs().collect::<Vec<_>>().join(", ");
        let path = self.path.display();
        SessionError::Invalid(format!("{path} has no output `{name}`; it has {known}"))
    }

    /// Runs images and copies the named outputs.
    fn run_and_copy<T>(
        &mut self,
        images: &[u8],
        shape: [usize; 3],
        names: &[&str],
        copy: impl FnOnce(&[&DynValue]) -> ort::Result<T>,
    ) -> Result<T, SessionError> {
        let mut times = StageTimes::default();
        let copied = self.run_bound(images, shape, names, |outputs| {
            times.timed(Stage::Download, || copy(outputs))
        });
        self.times += times;
        copied
    }

    /// Runs images through an imported file, as many at once as it takes, and hands over the
    /// outputs of each part with the number of images in it.
    fn run_adapted<T>(
        &mut self,
        images: &[u8],
        [count, height, width]: [usize; 3],
        names: &[&str],
        copy: impl Fn(&[&DynValue]) -> ort::Result<T>,
        mut take: impl FnMut(T, usize) -> Result<(), SessionError>,
    ) -> Result<(), SessionError> {
        let Self { session, path, preprocess, buffers, device, times, .. } = self;
        let Some(preprocess) = preprocess else {
            let message = format!("{} gives no labels of its own, only logits", path.display());
            return Err(SessionError::Invalid(message));
        };
        let image_bytes = (height * width * 3).max(1);
        let batch = preprocess.adapter().batch.unwrap_or(count).max(1);
        for images in images.chunks(batch * image_bytes) {
            let filled =
                times.timed(Stage::Preprocess, || preprocess.fill(images, [height, width]));
            let (pixels, shape) = filled.ok_or_else(|| too_large([count, height, width]))?;
            let input = input_value(pixels, shape);
            let builds = buffers.builds([batch, height, width]);
            let outputs = with_gpu(*device, builds, || {
                run_session(session, input?, names, |outputs| {
                    times.timed(Stage::Download, || copy(outputs))
                })
            });
            let outputs = outputs.map_err(|source| run_error(path, *device, &source))?;
            take(outputs, images.len() / image_bytes)?;
        }
        Ok(())
    }

    /// Runs black images for the outputs that are used of such a file, without reading them.
    fn run_unread(&mut self, images: &[u8], shape: [usize; 3]) -> Result<(), SessionError> {
        let frame = FRAME_OUTPUTS.iter().all(|name| self.outputs().any(|known| known == *name));
        let default = self.default_output.clone();
        let names = if frame { FRAME_OUTPUTS.to_vec() } else { vec![default.as_str()] };
        if self.preprocess.is_none() {
            return self.run_bound(images, shape, &names, |_| Ok(()));
        }
        self.run_adapted(images, shape, &names, |_| Ok(()), |(), _| Ok(()))
    }
}

/// An open ONNX file of any origin, known by its inputs and outputs alone.
#[derive(Debug)]
pub struct ExternalModel {
    session: Session,
    path: PathBuf,
    config: EngineConfig,
}

impl ExternalModel {
    /// Opens any ONNX file.
    pub fn open(path: &Path, config: &EngineConfig) -> Result<Self, SessionError> {
        let session = open_session(path, config, ModelSource::File, None)?;
        Ok(Self { session, path: path.into(), config: config.clone() })
    }

    /// Returns the inputs.
    pub fn inputs(&self) -> Vec<TensorInfo> {
        self.session.inputs().iter().map(tensor_info).collect()
    }

    /// Returns the outputs.
    pub fn outputs(&self) -> Vec<TensorInfo> {
        self.session.outputs().iter().map(tensor_info).collect()
    }

    /// Makes it ready to be adapted.
    pub(crate) fn into_runner(self) -> Runner {
        let Self { session, path, config } = self;
        Runner::new(session, path, &config, String::new(), None)
    }

    /// Makes it ready to run images.
    pub fn with_adapter(self, adapter: Adapter) -> Runner {
        let Self { session, path, config } = self;
        let output = adapter.output.clone();
        Runner::new(session, path, &config, output, Some(Preprocess::new(adapter)))
    }
}

/// Loads ONNX Runtime, if that has not happened yet.
pub fn load_runtime() -> Result<(), SessionError> {
    environment().map(|_| ())
}

/// The environment of this process. ONNX Runtime allows one, and it must outlive every session.
fn environment() -> Result<&'static Environment, SessionError> {
    static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();
    static STARTING: Mutex<()> = Mutex::new(());
    let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = ENVIRONMENT.get() {
        return Ok(environment);
    }
    let environment = load_library(&find_library()?)?;
    Ok(ENVIRONMENT.get_or_init(|| environment))
}

/// Finds the library of ONNX Runtime: the one that the environment variable names, else beside the
/// program or in `../lib`, else a bare name, which the system's loader looks up.
fn find_library() -> Result<PathBuf, SessionError> {
    let name =
        format!("{}onnxruntime{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    if let Some(named) = std::env::var_os(LIBRARY_VARIABLE).filter(|named| !named.is_empty()) {
        let path = std::path::absolute(&named).unwrap_or_else(|_| named.into());
        if path.exists() {
            return Ok(path);
        }
        let reason = format!("ONNX Runtime is missing: there is no file {}", path.display());
        return Err(SessionError::Library { reason });
    }
    // `ort` asks for the program's path too, and panics where the system does not tell it.
    let Ok(program) = std::env::current_exe() else {
        return Err(nowhere(&name, "the program does not know where it lies"));
    };
    let folder = program.parent().unwrap_or(Path::new("/"));
    let near = [folder.join(&name), folder.join("../lib").join(&name)];
    Ok(near.into_iter().find(|path| path.exists()).unwrap_or_else(|| name.into()))
}

fn nowhere(name: &str, reason: &str) -> SessionError {
    let reason = format!(
        "ONNX Runtime is missing: {LIBRARY_VARIABLE} is not set, and {name} is neither beside the program, nor in ../lib, nor \
         known to the system ({reason})"
    );
    SessionError::Library { reason }
}

fn load_library(path: &Path) -> Result<Environment, SessionError> {
    use ort::LoadDynamicError as Load;

    let shown = path.display();
    let unusable = |reason: String| {
        let reason = format!("{shown} cannot be loaded as ONNX Runtime ({reason})");
        SessionError::Library { reason }
    };
    if is_truncated_elf(path) {
        return Err(unusable("the file is cut short".to_owned()));
    }
    let builder = ort::init_from(path).map_err(|error| match error {
        Load::Dlopen { error, .. } if path.is_relative() => {
            nowhere(&shown.to_string(), &error_chain(&error))
        }
        Load::Dlopen { error, .. } => unusable(error_chain(&error)),
        Load::BadVersion { version_str: version, .. } => SessionError::Library {
            reason: format!("{shown} is ONNX Runtime {version}, which is too old"),
        },
        error @ (Load::MissingApi { .. } | Load::InvalidVersionString) => {
            unusable(error.to_string())
        }
    })?;
    let environment = builder.with_name("protoseg").with_telemetry(false).build();
    let environment = environment.map_err(SessionError::Start)?;
    // Failures come back as errors too; ONNX Runtime's own lines would stand beside ours.
    environment.set_log_level(LogLevel::Fatal);
    Ok(environment)
}

/// True where a 64-bit ELF file ends before its section header table, its last part, does: the
/// loader maps it all the same, and the process is killed by SIGBUS once it touches the missing
/// pages.
fn is_truncated_elf(path: &Path) -> bool {
    let mut header = [0; 64];
    let read = File::open(path).and_then(|mut file| {
        file.read_exact(&mut header)?;
        Ok(file.metadata()?.len())
    });
    let Ok(length) = read else { return false };
    let number = |offset: usize, bytes: usize| {
        let bytes = header[offset..][..bytes].iter().rev();
        bytes.fold(0_u64, |number, &byte| number << 8 | u64::from(byte))
    };
    let (start, size, count) = (number(0x28, 8), number(0x3A, 2), number(0x3C, 2));
    header.starts_with(b"\x7FELF\x02\x01") && start.saturating_add(size * count) > length
}

/// Opens a session; `path` is for messages where it is not what is opened. With `record` the
/// session writes a profile into a file whose name begins with that path.
fn open_session(
    path: &Path,
    config: &EngineConfig,
    source: ModelSource<'_>,
    record: Option<&Path>,
) -> Result<Session, SessionError> {
    let environment = environment()?;
    let device = config.first_device();
    let failed = |source: ort::Error| open_error(path, device, &source);
    // TensorRT builds engines here where the file leaves no size open.
    with_gpu(device, matches!(device, Device::TensorRt(_)), || {
        let engines = EngineCache::open(source, path, config)?;
        let threads = config.threads.map_or_else(cores, NonZeroUsize::get);
        let level = if config.unoptimized {
            GraphOptimizationLevel::Disable
        } else {
            GraphOptimizationLevel::All
        };
        // Spinning threads take the cores from decoding and stitching; memory patterns pay only
        // where sizes repeat.
        let builder = || {
            Ok(Session::builder(environment)?
                .with_optimization_level(level)?
                .with_intra_threads(threads)?
                .with_inter_threads(1)?
                .with_intra_op_spinning(config.spin)?
                .with_inter_op_spinning(false)?
                .with_memory_pattern(false)?)
        };
        let mut builder = builder().map_err(failed)?;
        if let Some(record) = record {
            builder = builder.with_profiling(record).map_err(|error| failed(error.into()))?;
        }
        let mut builder = provider::place(builder, config, engines)?;
        let session = match source {
            ModelSource::File => builder.commit_from_file(path),
            ModelSource::Bytes(bytes) => builder.commit_from_memory(bytes),
        };
        session.map_err(failed)
    })
}

/// Runs a session on its one input, and reads the named outputs in order.
fn run_session<T>(
    session: &mut Session,
    input: SessionInputValue<'_>,
    names: &[&str],
    read: impl FnOnce(&[&DynValue]) -> ort::Result<T>,
) -> ort::Result<T> {
    let selector =
        names.iter().fold(OutputSelector::no_default(), |selector, name| selector.with(*name));
    let mut options = RunOptions::new()?.with_outputs(selector);
    // These outputs lie elsewhere in each run, so that no graph can be replayed.
    options.set(GRAPH_KEY, "-1")?;
    let outputs = session.run_with_options([input], &options)?;
    read(&names.iter().map(|name| &outputs[*name]).collect::<Vec<_>>())
}

fn too_large([count, height, width]: [usize; 3]) -> SessionError {
    SessionError::Invalid(format!(
        "{count} images of {width}x{height} pixels do not fit into memory as floats"
    ))
}

/// An input or output as the file declares it; one that is not a tensor has no dimensions.
fn tensor_info(outlet: &Outlet) -> TensorInfo {
    let name = outlet.name().to_owned();
    let ValueType::Tensor { ty, shape, dimension_symbols } = outlet.dtype() else {
        return TensorInfo { name, element: outlet.dtype().to_string(), shape: Vec::new() };
    };
    let dimension = |(index, size): (usize, &i64)| match usize::try_from(*size) {
        Ok(size) => Dimension::Fixed(size),
        Err(_) => {
            let symbol = dimension_symbols.get(index).filter(|symbol| !symbol.is_empty());
            Dimension::Named(symbol.cloned().unwrap_or_else(|| "?".to_owned()))
        }
    };
    // The names of the ONNX standard.
    let element = format!("{ty:?}").to_lowercase();
    TensorInfo { name, element, shape: shape.iter().enumerate().map(dimension).collect() }
}
