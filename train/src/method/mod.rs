//! The training method (paper, sections 3.1 to 3.4): losses, teacher, pseudo-labels, prototypes.

pub mod class_counters;
pub mod cutmix;
pub mod kmeans;
pub mod loss;
pub mod objective;
pub mod optimizer;
pub mod points;
pub mod precise_bn;
pub mod prototype_init;
pub mod prototypes;
pub mod pseudo_labels;
pub mod schedule;
pub mod similarity;
pub mod step;
pub mod targets;
pub mod teacher;
