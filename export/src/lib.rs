//! Exports a checkpoint folder as an ONNX bundle, without libtorch and without a runtime.
//!
//! A [`Network`] is the content of an ONNX file: the part of a graph that its outputs need, with
//! its weights. Passes rewrite it ([`Network::fold_batch_norm`]), [`onnx::emit::emit`] writes it,
//! and [`bundle::write`] does everything for a checkpoint. An 8-bit file follows a
//! [`QuantizationPlan`], made from the ranges in the checkpoint's calibration.
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
//! **Invariant:** nothing here depends on libtorch or ONNX Runtime, and a checkpoint gives the same
//! `.onnx` bytes on every machine.

mod bicubic;
pub mod bundle;
mod network;
pub mod onnx;
pub mod options;
mod passes;
mod quantize;

pub use network::{Network, Output, PixelOutput, Weights};
pub use quantize::plan::{DEFAULT_MAX_SENSITIVITY, QuantizationPlan, QuantizeConfig};
