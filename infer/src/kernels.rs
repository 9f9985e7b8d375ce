//! The inner loops of upsampling: plain Rust everywhere, and a form for AVX2 that gives the same bits.
//!
//! A row of pixels is made in two steps. All classes' scores are mixed between two rows of logits, where they are few; then
//! pixels are looked at in groups of eight, each mixed between two columns, and only what is decided of them is kept.

mod decision;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::ops::Range;

pub(crate) use self::decision::Corners;

/// Pixels of a group.
pub(crate) const LANES: usize = 8;

/// Scores that a group may reach over in the AVX2 form.
const REACH: u32 = 8;

/// Neighbouring pixels of a row, and the columns of scores between which they lie.
#[derive(Debug, Clone)]
pub(crate) struct PixelGroup {
    /// First column that any of the pixels needs.
    pub(crate) base: usize,
    /// Last column that any of them needs.
    pub(crate) last: usize,
    /// The column before each pixel, from `base` on; the one behind it is the next.
    pub(crate) left: [u32; LANES],
    /// How near each is to the column behind it, from 0 to 1.
    pub(crate) weights: [f32; LANES],
}

/// Class scores `[classes, rows, width]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogitPlanes<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) width: usize,
}

impl<'a> LogitPlanes<'a> {
    /// One row of every class.
    fn row(self, row: usize) -> impl Iterator<Item = &'a [f32]> {
        self.data
            .chunks_exact(self.rows * self.width)
            .map(move |plane| &plane[row * self.width..][..self.width])
    }
}

/// A row of scores of every class, between two rows of logits.
#[derive(Debug)]
pub(crate) struct BlendedRow {
    /// `[classes, stride]`: the row, then its last score over and over, so that there is always a next column.
    data: Vec<f32>,
    stride: usize,
    width: usize,
}

impl BlendedRow {
    pub(crate) fn new(classes: usize, width: usize) -> Self {
        // An odd number of cache lines, so that the classes' scores of one column do not fall on each other in the cache.
        let lines = (width + LANES + 1).div_ceil(16) | 1;
        Self { data: vec![0.0; classes * lines * 16], stride: lines * 16, width }
    }
}

/// What lies between two rows of logits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowBlend {
    pub(crate) rows: [usize; 2],
    pub(crate) weight: f32,
}

/// A row of pixels to be filled.
#[derive(Debug)]
pub(crate) struct PixelRow<'a> {
    pub(crate) labels: &'a mut [u8],
    pub(crate) confidence: Option<&'a mut [u8]>,
    pub(crate) margin: Option<&'a mut [u8]>,
}

/// Which instructions are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InstructionSet {
    /// What the compiler makes for any processor.
    Scalar,
    /// AVX2. Made by [`InstructionSet::all`] alone, and only where the processor has it.
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl InstructionSet {
    /// The forms that this processor can run, the best one last.
    pub(crate) fn all() -> Vec<Self> {
        let mut forms = vec![Self::Scalar];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            forms.push(Self::Avx2);
        }
        forms
    }

    /// The best form.
    pub(crate) fn best() -> Self {
        Self::all().last().copied().unwrap_or(Self::Scalar)
    }

    /// Decides every score of a row of logits.
    pub(crate) fn corners(self, planes: LogitPlanes<'_>, row: usize, corners: &mut Corners) {
        match self {
            Self::Scalar => decision::corners(planes, row, corners),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => x86::corners(planes, row, corners),
        }
    }

    /// Mixes two rows of logits, in a range of columns that is not empty.
    pub(crate) fn blend_rows(
        self,
        planes: LogitPlanes<'_>,
        between: RowBlend,
        columns: Range<usize>,
        mixed: &mut BlendedRow,
    ) {
        match self {
            Self::Scalar => scalar::blend_rows(planes, between, columns, mixed),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => x86::blend_rows(planes, between, columns, mixed),
        }
    }

    /// Decides the pixels of some of a row's groups, in whose columns the scores have been mixed. `scores` is working space.
    pub(crate) fn fill_pixels(
        self,
        mixed: &BlendedRow,
        groups: &[PixelGroup],
        range: Range<usize>,
        scores: &mut Vec<[f32; LANES]>,
        pixels: &mut PixelRow<'_>,
    ) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2
                if groups[range.clone()]
                    .iter()
                    .all(|group| group.left.iter().all(|&left| left < REACH)) =>
            {
                x86::fill_pixels(mixed, groups, range, scores, pixels);
            }
            _ => scalar::fill_pixels(mixed, groups, range, scores, pixels),
        }
    }
}

impl PixelRow<'_> {
    /// Whether more than labels is wanted.
    fn more(&self) -> bool {
        self.confidence.is_some() || self.margin.is_some()
    }
}

/// Writes what was found of a group; the last group of a row may be cut short.
#[inline(always)]
pub(crate) fn put(row: &mut [u8], group: usize, found: [u8; LANES]) {
    let row = &mut row[group * LANES..];
    match row.first_chunk_mut() {
        Some(eight) => *eight = found,
        None => row.copy_from_slice(&found[..row.len()]),
    }
}
