//! Weights by name, and their `.safetensors` file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::atomic;

/// A dense tensor of 32-bit floats, last dimension fastest.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Size of each dimension; empty for a scalar.
    pub shape: Vec<usize>,
    /// The values; as many as the product of `shape`.
    pub data: Vec<f32>,
}

impl Tensor {
    /// A tensor of a shape whose values come from their flat index.
    pub fn from_fn(shape: &[usize], value: impl FnMut(usize) -> f32) -> Self {
        Self { shape: shape.to_vec(), data: (0..shape.iter().product()).map(value).collect() }
    }
}

/// Tensors by their published names, such as `encoder.layer1.0.conv1.weight`.
pub type StateDict = BTreeMap<String, Tensor>;

/// Why a weights file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no valid safetensors file; most often its download or copy was cut short.
    #[error("{} is not a complete .safetensors file ({source}); fetch or copy it again", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        source: safetensors::SafeTensorError,
    },
    /// A case of a probe whose parts do not belong together.
    #[error("{}: picture, scores and labels of the case {name} do not fit each other, or are not finite; make it again", path.display())]
    Case {
        /// The file.
        path: PathBuf,
        /// The case.
        name: String,
    },
    /// A tensor is of a type that is not read.
    #[error("{}: tensor `{name}` is of type {dtype:?}; only F32 is read: convert the file to float32", path.display())]
    Type {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type.
        dtype: Dtype,
    },
}

/// Reads the tensors of a `.safetensors` file. PyTorch's counters `num_batches_tracked`, which nothing reads, are passed over.
pub fn read(path: &Path) -> Result<StateDict, WeightsError> {
    let bytes =
        std::fs::read(path).map_err(|source| WeightsError::Io { path: path.into(), source })?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|source| WeightsError::Broken { path: path.into(), source })?;
    let mut weights = StateDict::new();
    for (name, view) in file.iter() {
        match view.dtype() {
            Dtype::F32 => {
                weights.insert(
                    name.to_owned(),
                    Tensor { shape: view.shape().to_vec(), data: floats(view.data()) },
                );
            }
            Dtype::I64 if name.ends_with(".num_batches_tracked") => {}
            dtype => {
                return Err(WeightsError::Type { path: path.into(), name: name.to_owned(), dtype });
            }
        }
    }
    Ok(weights)
}

/// Writes a `.safetensors` file whole or not at all; the same weights give the same bytes.
pub fn write(
    path: &Path,
    weights: &StateDict,
    metadata: &BTreeMap<String, String>,
) -> Result<(), WeightsError> {
    let buffers: Vec<(&str, &[usize], Vec<u8>)> = weights
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor.shape.as_slice(), bytes(&tensor.data)))
        .collect();
    let views: Result<Vec<_>, _> = buffers
        .iter()
        .map(|(name, shape, data)| {
            TensorView::new(Dtype::F32, shape.to_vec(), data).map(|view| (*name, view))
        })
        .collect();
    let file = views
        .and_then(|views| serialize(views, metadata))
        .map_err(|source| WeightsError::Broken { path: path.into(), source })?;
    atomic::write(path, &file).map_err(|source| WeightsError::Io { path: path.into(), source })
}

/// A safetensors file in memory. Metadata of one entry at the most keeps its bytes the same from run to run, as the
/// format's crate orders them by hash; several facts go into one entry as JSON.
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

/// Little-endian floats of a byte buffer.
pub(crate) fn floats(data: &[u8]) -> Vec<f32> {
    data.as_chunks::<4>().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect()
}

/// Little-endian bytes of floats.
pub(crate) fn bytes(data: &[f32]) -> Vec<u8> {
    data.iter().flat_map(|value| value.to_le_bytes()).collect()
}
