//! Ids of random streams: the second number of a stream's key after the seed, so that no two purposes share a stream.

/// Order of the labeled images in a pass.
pub const ORDER: u64 = 1;
/// Scale, flip and position of labeled crops.
pub const AUGMENT: u64 = 2;
/// Seeds of dropout.
pub const DROPOUT: u64 = 4;
/// Order of the unlabeled images in a pass.
pub const UNLABELED_ORDER: u64 = 5;
/// Scale, flip and position of unlabeled crops.
pub const UNLABELED_AUGMENT: u64 = 6;
/// Colors of the strong view.
pub const PHOTOMETRIC: u64 = 7;
/// CutMix boxes.
pub const CUTMIX: u64 = 8;
/// Points of the prototype losses.
pub const POINTS: u64 = 9;
/// Points and seeds of the k-means that initializes prototypes.
pub const PROTOTYPE_INIT: u64 = 10;
/// Crops of precise BatchNorm.
pub const PRECISE_BN: u64 = 11;
/// Noise that separates prototypes initialized at the same point.
pub const PROTOTYPE_NOISE: u64 = 12;
/// Colors of labeled crops.
pub const LABELED_PHOTOMETRIC: u64 = 13;
/// Scale, flip and position of crops that come again (`crops_per_image`).
pub const CROP_OF_IMAGE: u64 = 14;
