//! 8-bit and 16-bit numbers: what is rounded, and how.

pub(crate) mod conv;
pub(crate) mod float16;
pub(crate) mod plan;
pub(crate) mod range;
