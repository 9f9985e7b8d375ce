//! Training data: lists, cached images, augmentation, micro-batches.

pub mod augment;
pub mod cache;
pub mod census;
pub mod label_check;
pub mod lists;
pub mod loader;
pub mod photometric;
pub mod read;
pub mod stored_path;
pub mod teacher_labels;
