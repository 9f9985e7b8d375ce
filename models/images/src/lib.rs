//! Pictures and label maps as files: what training and inference must read and write alike.
//!
//! [`picture`] decodes to RGB, [`label_map`] reads and writes ids, [`labelled`] goes through the labelled pictures of a data
//! set.
//!
//! **Invariant:** nothing here knows a network or a runtime.

#![warn(missing_docs)]

pub mod formats;
mod jpeg;
pub mod label_map;
pub mod labelled;
pub mod picture;
