//! Training of semantic segmentors on libtorch.
//!
//! [`fit::fit`] is a run from its [`config::Config`] to its checkpoint; [`net::Net`] runs the networks that
//! `protoseg_models` describes.
//!
//! **Invariant:** nothing here knows ONNX; what leaves is the checkpoint folder.

pub mod ablate;
pub mod accept;
pub mod augment;
pub mod calibrate;
pub mod compared;
pub mod config;
pub mod cuda_backend;
pub mod cutmix;
pub mod draws;
pub mod environment;
pub mod evaluate;
pub mod first_prototypes;
pub mod fit;
pub mod gallery;
pub mod init;
pub mod kmeans;
pub mod lists;
pub mod loader;
pub mod log;
pub mod loss;
pub mod memory;
pub mod net;
pub mod objective;
pub mod openmp;
pub mod optimizer;
pub mod photometric;
pub mod plan;
pub mod points;
pub mod pretrained;
pub mod probe;
pub mod prototypes;
pub mod provenance;
pub mod pseudo;
pub mod report;
mod run_folder;
pub mod schedule;
pub mod scoring;
pub mod settle;
pub mod shelf;
pub mod state;
pub mod step;
pub mod stop;
pub mod survey;
pub mod tally;
pub mod teacher;
pub mod tensorboard;
pub mod torch_file;
