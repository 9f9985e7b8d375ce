//! Checkpoint folder to ONNX bundle, without libtorch and without a runtime.
//!
//! A [`Network`] is what an ONNX file will hold: the part of a graph that its outputs need, with its weights. Passes take
//! one to another ([`Network::folded`]), [`emit::emit`] writes it, [`bundle::write`] does all of it for a checkpoint. For a
//! file in 8 bits, a [`Scheme`] says first what is rounded, from the ranges in the checkpoint's calibration.
//!
//! ```
//! use protoseg_export::{Network, emit::emit};
//! use protoseg_models::arch::{Arch, Preset};
//! use protoseg_models::{form::Form, formula, graph::Tag};
//!
//! let graph = Arch::new(Preset::DeepLabV3PlusEfficientNetLite0, 19)?.graph();
//! let logits = graph.tagged(Tag::Logits).unwrap();
//! let network = Network::new(&graph, &formula::weights(&graph, None), &[(logits, "logits")])?;
//! let file: Vec<u8> = emit(&network.folded()?, &Form::LOGITS, None)?.file.to_bytes();
//! assert!(file.len() > 10_000_000);
//! # Ok::<(), anyhow::Error>(())
//! ```
//!
//! **Invariant:** nothing here knows libtorch or ONNX Runtime; the same checkpoint gives the same `.onnx` bytes everywhere.

mod affine;
mod body;
mod builder;
pub mod bundle;
pub mod decision;
pub mod emit;
pub mod file;
mod files;
mod float16;
mod fold;
pub mod frame;
mod kernels;
mod network;
pub mod numbers;
pub mod onnx;
mod ports;
mod prototypes;
mod quantize;
mod quantized;
pub mod request;
mod scheme;
mod triton;

pub use network::{Network, Output, Weights};
pub use scheme::{FLOAT_ABOVE, Rounding, Scheme};
