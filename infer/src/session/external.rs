//! Files that somebody else made: what goes in and comes out of them, and runs through a [`Preprocess`].

use std::path::{Path, PathBuf};

use ort::session::{Session, SessionInputValue};
use ort::value::{Outlet, TensorElementType, TensorRef, ValueType};
use protoseg_models::adapter::Adapter;
use protoseg_models::bundle::{Dimension, ModelFile, TensorInfo};
use protoseg_models::weights::Tensor;

use super::engines::ModelSource;
use super::{Runner, SessionError, failure, gpu_lock, run_session, tensors};
use crate::config::EngineConfig;
use crate::preprocess::{InputTensor, Preprocess};
use crate::stage::{Stage, StageTimes};

/// An open ONNX file of which nothing is known but what it says of its inputs and outputs.
#[derive(Debug)]
pub struct ExternalModel {
    session: Session,
    path: PathBuf,
    config: EngineConfig,
}

/// Labels as a file gave them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelTensor {
    /// Size of each dimension.
    pub shape: Vec<usize>,
    /// Train ids; as many as the product of `shape`.
    pub data: Vec<u8>,
}

impl LabelTensor {
    /// Whether they are the labels `[1, height, width]` or `[1, 1, height, width]` of one picture.
    pub fn covers(&self, [height, width]: [usize; 2]) -> bool {
        self.shape == [1, height, width] || self.shape == [1, 1, height, width]
    }
}

impl ExternalModel {
    /// Opens any ONNX file.
    pub fn open(path: &Path, config: &EngineConfig) -> Result<Self, SessionError> {
        Ok(Self::from_session(path, config, super::commit(path, config, ModelSource::File)?))
    }

    /// Of a session of that file.
    pub(super) fn from_session(path: &Path, config: &EngineConfig, session: Session) -> Self {
        Self { session, path: path.into(), config: config.clone() }
    }

    /// What goes in.
    pub fn inputs(&self) -> Vec<TensorInfo> {
        self.session.inputs().iter().map(port).collect()
    }

    /// What comes out.
    pub fn outputs(&self) -> Vec<TensorInfo> {
        self.session.outputs().iter().map(port).collect()
    }

    /// Ready to run pictures.
    pub fn with_adapter(self, adapter: Adapter) -> Runner {
        let Self { session, path, config } = self;
        Runner::new(session, path, &config, adapter.output.clone(), Some(Preprocess::new(adapter)))
    }
}

impl Runner {
    /// Opens a file of a bundle, adopted or not.
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

    /// Runs pictures, RGB `[n, h, w, 3]` with `shape` = `[n, h, w]`, through an adopted file that gives labels below
    /// `classes`.
    pub fn run_labels(
        &mut self,
        images: &[u8],
        shape: [usize; 3],
        classes: usize,
    ) -> Result<LabelTensor, SessionError> {
        self.check(images, shape, &[&self.default_output])?;
        let (path, device, name) = (self.path.clone(), self.device, self.default_output.clone());
        let mut labels = LabelTensor { shape: Vec::new(), data: Vec::new() };
        let mut times = StageTimes::default();
        self.run_parts(images, shape, |session, input, count| {
            let names = [name.as_str()];
            let failed = |source| failure::run_error(&path, device, &source);
            let read = run_session(session, input, &names, |outputs| {
                times.timed(Stage::Download, || integers(outputs[0]))
            });
            let (found, data) = read.map_err(failed)?;
            let known = |label: i64| {
                let known = u8::try_from(label).ok().filter(|&label| usize::from(label) < classes);
                known.ok_or_else(|| SessionError::Label { path: path.clone(), label, classes })
            };
            let data = data
                .into_iter()
                .take(values_of(&found, count))
                .map(known)
                .collect::<Result<_, _>>()?;
            join(&mut labels.shape, &mut labels.data, found, data, count);
            Ok(())
        })?;
        self.times += times;
        Ok(labels)
    }

    /// Runs pictures through an adopted file, as many at once as it takes.
    pub(super) fn run_adapted(
        &mut self,
        images: &[u8],
        shape: [usize; 3],
        names: &[&str],
    ) -> Result<Vec<Tensor>, SessionError> {
        let (path, device) = (self.path.clone(), self.device);
        let mut joined = vec![Tensor { shape: Vec::new(), data: Vec::new() }; names.len()];
        let mut times = StageTimes::default();
        self.run_parts(images, shape, |session, input, count| {
            let parts = run_session(session, input, names, |outputs| {
                times.timed(Stage::Download, || tensors(outputs))
            });
            let parts = parts.map_err(|source| failure::run_error(&path, device, &source))?;
            for (joined, part) in joined.iter_mut().zip(parts) {
                join(&mut joined.shape, &mut joined.data, part.shape, part.data, count);
            }
            Ok(())
        })?;
        self.times += times;
        Ok(joined)
    }

    /// Hands pictures to the session in parts of as many as it takes at once, with how many of them are pictures.
    pub(super) fn run_parts(
        &mut self,
        images: &[u8],
        [count, height, width]: [usize; 3],
        mut run: impl FnMut(&mut Session, SessionInputValue<'_>, usize) -> Result<(), SessionError>,
    ) -> Result<(), SessionError> {
        let Self { session, path, feed, buffers, device, times, .. } = self;
        let Some(feed) = feed else { return Err(SessionError::NoLabels(path.clone())) };
        let picture = height * width * 3;
        let at_once = feed.adapter().batch.unwrap_or(count).max(1);
        for images in images.chunks((at_once * picture).max(1)) {
            let filled = times.timed(Stage::Preprocess, || feed.fill(images, [height, width]));
            let (pixels, shape) = filled.ok_or(SessionError::Memory { count, height, width })?;
            let input = match pixels {
                InputTensor::Floats(values) => {
                    TensorRef::from_array_view((shape, values)).map(SessionInputValue::from)
                }
                InputTensor::Bytes(values) => {
                    TensorRef::from_array_view((shape, values)).map(SessionInputValue::from)
                }
            };
            let input = input.map_err(|source| SessionError::Run { path: path.clone(), source })?;
            let builds = buffers.builds([at_once, height, width]);
            gpu_lock::with_gpu(*device, builds, || {
                run(session, input, images.len() / picture.max(1))
            })?;
        }
        Ok(())
    }
}

/// How many values of an output belong to the first `count` pictures.
fn values_of(shape: &[usize], count: usize) -> usize {
    shape.split_first().map_or(0, |(&all, rest)| all.min(count) * rest.iter().product::<usize>())
}

/// Puts what came of `count` more pictures behind what there is.
fn join<T>(
    shape: &mut Vec<usize>,
    data: &mut Vec<T>,
    mut part: Vec<usize>,
    mut more: Vec<T>,
    count: usize,
) {
    more.truncate(values_of(&part, count));
    if let Some(first) = part.first_mut() {
        *first = (*first).min(count) + shape.first().copied().unwrap_or(0);
    }
    *shape = part;
    if data.is_empty() { *data = more } else { data.append(&mut more) }
}

/// Labels of any type that labels come in.
fn integers(value: &ort::value::DynValue) -> ort::Result<(Vec<usize>, Vec<i64>)> {
    let (shape, data) = match value.dtype().tensor_type() {
        Some(TensorElementType::Uint8) => {
            let (shape, data) = value.try_extract_tensor::<u8>()?;
            (shape, data.iter().map(|&label| i64::from(label)).collect())
        }
        Some(TensorElementType::Int32) => {
            let (shape, data) = value.try_extract_tensor::<i32>()?;
            (shape, data.iter().map(|&label| i64::from(label)).collect())
        }
        _ => {
            let (shape, data) = value.try_extract_tensor::<i64>()?;
            (shape, data.to_vec())
        }
    };
    Ok((shape.iter().map(|&size| usize::try_from(size).unwrap_or(0)).collect(), data))
}

/// An input or output as the file declares it; one that is no tensor has no dimensions.
fn port(outlet: &Outlet) -> TensorInfo {
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
