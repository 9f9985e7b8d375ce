//! The training method, prototype-based consistency regularization (PCR; Xu et al., NeurIPS 2022, arXiv 2210.04388):
//! losses, teacher, pseudo-labels, prototypes.

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
