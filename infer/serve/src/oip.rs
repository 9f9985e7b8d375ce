//! The Open Inference Protocol, version 2, without its wire: what models take and give, what a request asks, and its answer.
//!
//! A model `street` takes `image`, UINT8 `[n, height, width, 3]` RGB, and gives `labels` and `confidence`, UINT8
//! `[n, height, width]`, and `logits`, FP32 `[n, classes, h, w]` before upsampling, where the server allows that. Under
//! `street.encoded` the same model takes `image`, BYTES `[n]`: picture files of equal size.

mod call;
mod tensor;

use serde::Serialize;

pub use self::call::{InferRequest, InferResponse, InputImages, OutputKind, run};
pub use self::tensor::{Datatype, InputTensor, TensorData};
use super::ServiceError;
use super::registry::{ENCODED_SUFFIX, LoadedModel, ModelRegistry};

/// Name of the server in its metadata.
pub const SERVER: &str = "protoseg";

/// What is served beyond the protocol itself.
pub const EXTENSIONS: [&str; 2] = ["binary_tensor_data", "model_repository"];

/// What the server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerMetadata {
    /// `protoseg`.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// What it serves beyond the protocol.
    pub extensions: [&'static str; 2],
}

impl Default for ServerMetadata {
    fn default() -> Self {
        Self { name: SERVER, version: env!("CARGO_PKG_VERSION"), extensions: EXTENSIONS }
    }
}

/// A tensor that goes in or comes out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TensorMetadata {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub datatype: Datatype,
    /// Its dimensions; -1 for those that vary.
    pub shape: Vec<i64>,
}

/// What a model is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelMetadata {
    /// Its name.
    pub name: String,
    /// The one version that is loaded.
    pub versions: Vec<String>,
    /// The format of its file.
    pub platform: &'static str,
    /// What goes in.
    pub inputs: Vec<TensorMetadata>,
    /// What comes out where a request names no outputs.
    pub outputs: Vec<TensorMetadata>,
}

/// A name of the protocol: a model, and whether pictures come encoded.
#[derive(Debug, Clone)]
pub struct ModelRef {
    /// The model.
    pub served: std::sync::Arc<LoadedModel>,
    /// Whether it is named as taking encoded pictures.
    pub encoded: bool,
}

impl ModelRef {
    /// Finds a model by a name of the protocol.
    pub fn find(
        models: &ModelRegistry,
        name: &str,
        version: Option<&str>,
    ) -> Result<Self, ServiceError> {
        // A model may itself be called so.
        match models.get(name, version) {
            Err(ServiceError::NotFound(why)) => match name.strip_suffix(ENCODED_SUFFIX) {
                Some(stem) => Ok(Self { served: models.get(stem, version)?, encoded: true }),
                None => Err(ServiceError::NotFound(why)),
            },
            found => Ok(Self { served: found?, encoded: false }),
        }
    }

    /// Whether a model of that name can be asked.
    pub fn is_ready(
        models: &ModelRegistry,
        name: &str,
        version: Option<&str>,
    ) -> Result<bool, ServiceError> {
        match Self::find(models, name, version) {
            Ok(named) => Ok(named.served.scheduler.is_healthy()),
            Err(ServiceError::Unavailable(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Its name.
    pub fn name(&self) -> String {
        if self.encoded {
            format!("{}{ENCODED_SUFFIX}", self.served.name)
        } else {
            self.served.name.clone()
        }
    }

    /// What it is.
    pub fn metadata(&self) -> ModelMetadata {
        let served = &self.served;
        let side = |side: usize| i64::try_from(side).unwrap_or(-1);
        let [height, width] = served.only_size().map_or([-1; 2], |size| size.map(side));
        let input = if self.encoded {
            TensorMetadata { name: "image", datatype: Datatype::Bytes, shape: vec![-1] }
        } else {
            TensorMetadata {
                name: "image",
                datatype: Datatype::Uint8,
                shape: vec![-1, height, width, 3],
            }
        };
        let output = |output: OutputKind| {
            let shape = match output {
                OutputKind::Labels | OutputKind::Confidence => vec![-1, height, width],
                OutputKind::Logits => vec![-1, side(served.model.classes.count()), -1, -1],
            };
            TensorMetadata { name: output.name(), datatype: output.datatype(), shape }
        };
        ModelMetadata {
            name: self.name(),
            versions: vec![served.version.clone()],
            platform: "onnx_onnxv1",
            inputs: vec![input],
            outputs: OutputKind::available(served).into_iter().map(output).collect(),
        }
    }
}
