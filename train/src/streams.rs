//! Purposes of random draws: the second number of every stream's key after the seed, so that no two share a stream.

/// Order of the labelled pictures in a pass.
pub const ORDER: u64 = 1;
/// Size, flip and place of labelled crops.
pub const AUGMENT: u64 = 2;
/// Seeds of dropout.
pub const DROPOUT: u64 = 4;
/// Order of the unlabelled pictures in a pass.
pub const UNLABELED_ORDER: u64 = 5;
/// Size, flip and place of unlabelled crops.
pub const UNLABELED_AUGMENT: u64 = 6;
/// Colours of the strong view.
pub const PHOTOMETRIC: u64 = 7;
/// Boxes of CutMix.
pub const CUTMIX: u64 = 8;
/// Points of the prototype predictor.
pub const POINTS: u64 = 9;
/// Pixels that prototypes start from, and their first centres.
pub const PROTOTYPE_INIT: u64 = 10;
/// Crops over which running statistics are measured.
pub const PRECISE_BN: u64 = 11;
/// What tells prototypes apart that start from the same point.
pub const PROTOTYPE_NOISE: u64 = 12;
