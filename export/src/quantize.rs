//! Quantization: the plan of what is rounded, ranges, 8-bit kernels, and the limits of fp16.

pub(crate) mod conv;
pub(crate) mod float16;
pub(crate) mod linear;
pub(crate) mod plan;
pub(crate) mod range;
