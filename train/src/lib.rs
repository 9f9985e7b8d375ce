//! Training of semantic segmentors on libtorch.
//!
//! [`run::fit::fit`] trains from a [`config::Config`] to a checkpoint. Below it: [`run`] (loop, files, resuming) calls
//! [`method`] (the paper: losses, teacher, prototypes), which reads batches of [`data`]; [`net::Net`] interprets the network
//! graphs of `protoseg_models` on libtorch.
//!
//! **Architecture invariant:** nothing here knows ONNX; the only output for other programs is the checkpoint folder.

pub mod accept;
pub mod calibrate;
pub mod config;
pub mod cuda_backend;
pub mod data;
pub mod evaluate;
pub mod interrupt;
pub mod method;
pub mod net;
pub mod pretrained;
pub mod probe;
pub mod progress;
pub mod report;
pub mod run;
pub mod streams;
pub mod tiles;
pub mod torch_file;
