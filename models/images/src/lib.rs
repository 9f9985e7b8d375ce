//! Pictures and label maps as files: what training and inference must read and write alike.
//!
//! [`image_file`] decodes to RGB, [`label_map`] reads and writes ids, [`labeled`] goes through the labelled pictures of a data
//! set.
//!
//! **Invariant:** nothing here knows a network or a runtime.

#![warn(missing_docs)]

pub mod dataset;
#[cfg(feature = "annotations")]
pub mod formats;
pub mod image_file;
mod jpeg;
pub mod label_map;
pub mod labeled;
