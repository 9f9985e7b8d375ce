//! Weights by name, and their `.safetensors` files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::atomic;
use crate::errors::FileError;

/// A dense tensor of 32-bit floats in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Size of each dimension; empty for a scalar.
    pub shape: Vec<usize>,
    /// Values; their number is the product of `shape`.
    pub data: Vec<f32>,
}

impl Tensor {
    /// Returns a tensor whose values are a function of their flat index.
    pub fn from_fn(shape: &[usize], value: impl FnMut(usize) -> f32) -> Self {
        Self { shape: shape.to_vec(), data: (0..shape.iter().product()).map(value).collect() }
    }
}

/// Tensors by their published names, such as `encoder.layer1.0.conv1.weight`.
pub type StateDict = BTreeMap<String, Tensor>;

/// A tensor file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// An I/O error.
    #[error(transparent)]
    File(#[from] FileError),
    /// A malformed safetensors file; most often a download or copy was cut short.
    #[error("{} is not a complete .safetensors file ({source}); fetch or copy it again", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// The fault.
        source: safetensors::SafeTensorError,
    },
    /// A tensor of another type or shape.
    #[error("{}: {reason}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The fault, and the way out.
        reason: String,
    },
}

/// Reads the tensors of a `.safetensors` file but PyTorch's unused `num_batches_tracked` counters.
pub fn read(path: &Path) -> Result<StateDict, WeightsError> {
    let bytes = std::fs::read(path).map_err(FileError::at(path))?;
    let file = SafeTensors::deserialize(&bytes).map_err(broken(path))?;
    let mut weights = StateDict::new();
    for (name, view) in file.iter() {
        match view.dtype() {
            Dtype::F32 => {
                let tensor = Tensor { shape: view.shape().to_vec(), data: floats(view.data()) };
                weights.insert(name.to_owned(), tensor);
            }
            Dtype::I64 if name.ends_with(".num_batches_tracked") => {}
            dtype => {
                let reason = format!(
                    "tensor `{name}` has type {dtype:?}; only F32 is supported: convert the file \
                     to float32"
                );
                return Err(WeightsError::Tensor { path: path.into(), reason });
            }
        }
    }
    Ok(weights)
}

/// Writes a `.safetensors` file atomically; equal weights give equal bytes.
pub fn write(
    path: &Path,
    weights: &StateDict,
    metadata: &BTreeMap<String, String>,
) -> Result<(), WeightsError> {
    let buffers: Vec<Vec<u8>> = weights.values().map(|tensor| bytes(&tensor.data)).collect();
    let views: Result<Vec<_>, _> = weights
        .iter()
        .zip(&buffers)
        .map(|((name, tensor), data)| {
            let view = TensorView::new(Dtype::F32, tensor.shape.clone(), data)?;
            Ok((name.as_str(), view))
        })
        .collect();
    let file = views.and_then(|views| serialize(views, metadata)).map_err(broken(path))?;
    Ok(atomic::write(path, &file).map_err(FileError::at(path))?)
}

pub(crate) fn broken(path: &Path) -> impl Fn(safetensors::SafeTensorError) -> WeightsError {
    move |source| WeightsError::Broken { path: path.into(), source }
}

/// Serializes tensors. All metadata is one JSON entry, because the order in which the crate writes
/// several entries changes from run to run.
pub(crate) fn serialize(
    views: Vec<(&str, TensorView<'_>)>,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, safetensors::SafeTensorError> {
    let metadata = (!metadata.is_empty()).then(|| {
        let json = serde_json::to_string(metadata).unwrap_or_default();
        std::collections::HashMap::from([("protoseg".to_owned(), json)])
    });
    safetensors::serialize(views, metadata)
}

/// Decodes little-endian floats.
pub(crate) fn floats(data: &[u8]) -> Vec<f32> {
    data.as_chunks::<4>().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect()
}

/// Encodes floats as little-endian bytes.
pub(crate) fn bytes(data: &[f32]) -> Vec<u8> {
    data.iter().flat_map(|value| value.to_le_bytes()).collect()
}
