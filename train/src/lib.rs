//! Training of semantic segmentors on libtorch.
//!
//! [`fit::fit`] is a run from its [`config::Config`] to its checkpoint; [`net::Net`] runs the networks that
//! `protoseg_models` describes.
//!
//! **Invariant:** nothing here knows ONNX; what leaves is the checkpoint folder.

pub mod augment;
pub mod calibrate;
pub mod config;
pub mod evaluate;
pub mod fit;
pub mod init;
pub mod lists;
pub mod loader;
pub mod log;
pub mod loss;
pub mod net;
pub mod openmp;
pub mod optimizer;
pub mod pretrained;
pub mod probe;

pub mod state;
pub mod step;
pub mod teacher;
pub mod torch_file;
