//! Inner loops of upsampling: scalar code, and AVX2 code that gives the same bits.
//!
//! A row of pixels is made in two steps. The logits of all classes are blended between two rows,
//! where they are few; then groups of eight pixels are blended between two columns each, and only
//! labels, confidence and margin are kept.

mod arithmetic;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::ops::Range;

pub(crate) use self::arithmetic::{Corners, MARGIN_STEPS};

/// Pixels per group.
pub(crate) const LANES: usize = 8;

/// Columns of logits that a group may span in AVX2 code.
const REACH: u32 = 8;

/// Neighboring pixels of a row, and the columns of logits between which they lie.
#[derive(Debug, Clone)]
pub(crate) struct PixelGroup {
    /// First column that a pixel needs.
    pub(crate) base: usize,
    /// Last column that a pixel needs.
    pub(crate) last: usize,
    /// Column before each pixel, relative to `base`; the next one is behind it.
    pub(crate) left: [u32; LANES],
    /// Weight of the column behind each pixel, from 0 to 1.
    pub(crate) weights: [f32; LANES],
}

/// Borrowed logits `[classes, rows, width]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogitPlanes<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) width: usize,
}

impl<'a> LogitPlanes<'a> {
    /// Returns one row of every class.
    pub(crate) fn row(self, row: usize) -> impl Iterator<Item = &'a [f32]> {
        self.data
            .chunks_exact(self.rows * self.width)
            .map(move |plane| &plane[row * self.width..][..self.width])
    }
}

/// The logits of every class, blended between two rows.
#[derive(Debug)]
pub(crate) struct BlendedRow {
    /// `[classes, stride]`: the row, then its last logit repeated, so that there is always a next
    /// column.
    data: Vec<f32>,
    stride: usize,
    width: usize,
}

impl BlendedRow {
    pub(crate) fn new(classes: usize, width: usize) -> Self {
        // An odd number of cache lines, so that the classes of one column do not share a cache set.
        let lines = (width + LANES + 1).div_ceil(16) | 1;
        Self { data: vec![0.0; classes * lines * 16], stride: lines * 16, width }
    }
}

/// Two rows of logits, and the weight of the second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowBlend {
    pub(crate) rows: [usize; 2],
    pub(crate) weight: f32,
}

/// Output planes of a row of pixels.
#[derive(Debug)]
pub(crate) struct PixelRow<'a> {
    pub(crate) labels: &'a mut [u8],
    pub(crate) confidence: Option<&'a mut [u8]>,
    pub(crate) margin: Option<&'a mut [u8]>,
}

/// Instructions of the kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InstructionSet {
    /// Code for any processor.
    Scalar,
    /// AVX2; constructed by [`InstructionSet::all`] alone, and only where the processor has it.
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl InstructionSet {
    /// Sets that this processor supports, the fastest last.
    pub(crate) fn all() -> Vec<Self> {
        let mut sets = vec![Self::Scalar];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            sets.push(Self::Avx2);
        }
        sets
    }

    /// The fastest supported set.
    pub(crate) fn best() -> Self {
        Self::all().last().copied().unwrap_or(Self::Scalar)
    }

    /// Predicts every position of a row of logits.
    pub(crate) fn corners(self, planes: LogitPlanes<'_>, row: usize, corners: &mut Corners) {
        match self {
            Self::Scalar => arithmetic::corners(planes, row, corners),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => x86::corners(planes, row, corners),
        }
    }

    /// Blends two rows of logits in a range of columns that is not empty.
    pub(crate) fn blend_rows(
        self,
        planes: LogitPlanes<'_>,
        blend: RowBlend,
        columns: Range<usize>,
        blended: &mut BlendedRow,
    ) {
        match self {
            Self::Scalar => scalar::blend_rows(planes, blend, columns, blended),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => x86::blend_rows(planes, blend, columns, blended),
        }
    }

    /// Predicts the pixels of some groups of a row, whose columns have been blended. `logits` is
    /// scratch space.
    pub(crate) fn fill_pixels(
        self,
        blended: &BlendedRow,
        groups: &[PixelGroup],
        range: Range<usize>,
        logits: &mut Vec<[f32; LANES]>,
        pixels: &mut PixelRow<'_>,
    ) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2
                if groups[range.clone()]
                    .iter()
                    .all(|group| group.left.iter().all(|&left| left < REACH)) =>
            {
                x86::fill_pixels(blended, groups, range, logits, pixels);
            }
            _ => scalar::fill_pixels(blended, groups, range, logits, pixels),
        }
    }
}

impl PixelRow<'_> {
    /// True where more than labels is asked for.
    fn more(&self) -> bool {
        self.confidence.is_some() || self.margin.is_some()
    }
}

/// Writes the bytes of a group; the last group of a row may be shorter.
#[inline(always)]
pub(crate) fn put(row: &mut [u8], group: usize, found: [u8; LANES]) {
    let row = &mut row[group * LANES..];
    match row.first_chunk_mut() {
        Some(eight) => *eight = found,
        None => row.copy_from_slice(&found[..row.len()]),
    }
}
