//! The ONNX file: messages, nodes, signatures, streaming writer.

mod builder;
pub mod emit;
pub mod file;
pub mod frame;
mod nodes;
mod pixel_outputs;
pub mod proto;
mod prototype_confidence;
mod qdq;
mod signature;
pub(crate) use signature::LOGITS;
