//! A training run: loop, scores, files, resuming.

pub mod ablate;
pub mod environment;
pub mod fit;
mod folder;
pub mod init;
pub mod log;
pub mod memory;
pub mod openmp;
pub mod plan;
pub mod provenance;
pub mod sample_images;
pub mod scoring;
pub mod state;
pub mod stop;
pub mod tensorboard;
