//! Training of semantic segmentors on libtorch.
//!
//! [`fit::fit`] is a run from its [`config::Config`] to its checkpoint; [`net::Net`] runs the networks that
//! `protoseg_models` describes.
//!
//! **Invariant:** nothing here knows ONNX; what leaves is the checkpoint folder.

pub mod accept;
pub mod calibrate;
pub mod config;
pub mod cuda_backend;
pub mod data;
pub mod evaluate;
pub mod method;
pub mod net;
pub mod pretrained;
pub mod probe;
pub mod report;
pub mod run;
pub mod streams;
pub mod torch_file;
