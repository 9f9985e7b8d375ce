//! What a key is where the file does not name it.

use super::options::{
    ClassWeights, FeatureSource, PadLabel, PointSampling, Precision, PrototypeAverage,
    SupervisedLoss, TeacherStatistics, UnlabeledScale,
};

pub(super) fn synthetic_labeled() -> usize {
    200
}
pub(super) fn synthetic_unlabeled() -> usize {
    400
}
pub(super) fn synthetic_validation() -> usize {
    24
}
pub(super) fn synthetic_size() -> [usize; 2] {
    [256, 512]
}
pub(super) fn one() -> usize {
    1
}
pub(super) fn weight() -> f64 {
    1.0
}
pub(super) fn momentum() -> f64 {
    0.9
}
pub(super) fn class_weights() -> ClassWeights {
    ClassWeights::None
}
pub(super) fn criterion() -> SupervisedLoss {
    SupervisedLoss::CrossEntropy
}
pub(super) fn ohem_threshold() -> f64 {
    0.7
}
pub(super) fn ohem_kept() -> f64 {
    0.19
}
pub(super) fn pad_label() -> PadLabel {
    PadLabel::Ignore
}
pub(super) fn precision() -> Precision {
    Precision::Float32
}
pub(super) fn teacher_decay() -> f64 {
    0.99
}
pub(super) fn teacher_statistics() -> TeacherStatistics {
    TeacherStatistics::Average
}
pub(super) fn precise_bn_batches() -> u64 {
    25
}
pub(super) fn cutmix() -> f64 {
    0.5
}
pub(super) fn entropy_drop() -> f64 {
    20.0
}
pub(super) fn unlabeled_scale() -> UnlabeledScale {
    UnlabeledScale::Valid
}
pub(super) fn prototypes() -> usize {
    4
}
pub(super) fn temperature() -> f64 {
    0.1
}
pub(super) fn prototype_momentum() -> f64 {
    0.99
}
pub(super) fn gate() -> f64 {
    0.8
}
pub(super) fn points() -> PointSampling {
    PointSampling::PerImage
}
pub(super) fn point_cells() -> usize {
    32
}
pub(super) fn points_per_class() -> usize {
    64
}
pub(super) fn features() -> FeatureSource {
    FeatureSource::Plain
}
pub(super) fn average() -> PrototypeAverage {
    PrototypeAverage::Normalized
}
pub(super) fn reseed_after() -> u64 {
    200
}
pub(super) fn log_every() -> u64 {
    20
}
pub(super) fn save_every() -> u64 {
    50
}
pub(super) fn calibration_images() -> usize {
    8
}
