//! Checkpoint folder to ONNX bundle, without libtorch and without a runtime.
//!
//! A [`Network`] is what an ONNX file will hold: the part of a graph that its outputs need, with its weights. Passes take
//! one to another ([`Network::fold_batch_norm`]), [`onnx::emit::emit`] writes it, [`bundle::write`] does all of it for a checkpoint. For a
//! file in 8 bits, a [`QuantizationPlan`] says first what is rounded, from the ranges in the checkpoint's calibration.
//!
//! ```
//! use protoseg_export::{Network, onnx::emit::emit};
//! use protoseg_models::arch::{Arch, Preset};
//! use protoseg_models::{variant::Variant, formula, graph::Tag};
//!
//! let graph = Arch::new(Preset::DeepLabV3PlusEfficientNetLite0, 19)?.graph();
//! let logits = graph.tagged(Tag::Logits).unwrap();
//! let network = Network::new(&graph, &formula::weights(&graph, None), &[(logits, "logits")])?;
//! let file: Vec<u8> = emit(&network.fold_batch_norm()?, &Variant::LOGITS, None)?.file.to_bytes();
//! assert!(file.len() > 10_000_000);
//! # Ok::<(), anyhow::Error>(())
//! ```
//!
//! **Invariant:** nothing here knows libtorch or ONNX Runtime; the same checkpoint gives the same `.onnx` bytes everywhere.

pub mod bundle;
mod network;
pub mod onnx;
pub mod options;
mod passes;
pub mod precision;
mod quantize;

pub use network::{Network, Output, Weights};
pub use quantize::plan::{DEFAULT_MAX_SENSITIVITY, QuantizationPlan, QuantizeConfig};
