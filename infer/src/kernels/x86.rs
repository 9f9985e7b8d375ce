//! Kernels for AVX2: the scalar operations, eight at a time and in the same order, so that the bits
//! are the same. Products and sums are not fused, which would round once less.

#![expect(
    unsafe_code,
    reason = "vector instructions, which `InstructionSet` uses only where the processor has them"
)]

use std::arch::x86_64::{
    __m256, __m256i, _CMP_GT_OQ, _mm256_add_epi32, _mm256_add_ps, _mm256_and_si256,
    _mm256_castps_si256, _mm256_castsi256_ps, _mm256_cmp_ps, _mm256_cvttps_epi32, _mm256_div_ps,
    _mm256_loadu_ps, _mm256_loadu_si256, _mm256_max_epi32, _mm256_max_ps, _mm256_min_ps,
    _mm256_mul_ps, _mm256_permutevar8x32_ps, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps,
    _mm256_setzero_si256, _mm256_slli_epi32, _mm256_storeu_ps, _mm256_storeu_si256, _mm256_sub_ps,
};
use std::ops::Range;

use super::arithmetic::{self, LN_2, LOG2_E, MARGIN_STEPS, MIN_EXPONENT, SERIES, WHOLE};
use super::{BlendedRow, Corners, LANES, LogitPlanes, PixelGroup, PixelRow, RowBlend, put, scalar};

/// See [`InstructionSet::corners`](super::InstructionSet::corners).
pub(super) fn corners(planes: LogitPlanes<'_>, row: usize, corners: &mut Corners) {
    #[target_feature(enable = "avx2")]
    fn inner(planes: LogitPlanes<'_>, row: usize, corners: &mut Corners) {
        arithmetic::corners(planes, row, corners);
    }
    // SAFETY: `InstructionSet::Avx2` is made only where the processor has AVX2.
    unsafe { inner(planes, row, corners) }
}

/// See [`InstructionSet::blend_rows`](super::InstructionSet::blend_rows).
pub(super) fn blend_rows(
    planes: LogitPlanes<'_>,
    blend: RowBlend,
    columns: Range<usize>,
    blended: &mut BlendedRow,
) {
    #[target_feature(enable = "avx2")]
    fn inner(
        planes: LogitPlanes<'_>,
        blend: RowBlend,
        columns: Range<usize>,
        blended: &mut BlendedRow,
    ) {
        scalar::blend_rows(planes, blend, columns, blended);
    }
    // SAFETY: `InstructionSet::Avx2` is made only where the processor has AVX2.
    unsafe { inner(planes, blend, columns, blended) }
}

/// See [`InstructionSet::fill_pixels`](super::InstructionSet::fill_pixels). No group spans more
/// than eight columns.
pub(super) fn fill_pixels(
    blended: &BlendedRow,
    groups: &[PixelGroup],
    range: Range<usize>,
    logits: &mut Vec<[f32; LANES]>,
    pixels: &mut PixelRow<'_>,
) {
    // SAFETY: `InstructionSet::Avx2` is made only where the processor has AVX2.
    unsafe {
        if pixels.more() {
            predict_all(blended, groups, range, logits, pixels);
        } else {
            predict_labels(blended, groups, range, pixels.labels);
        }
    }
}

#[target_feature(enable = "avx2")]
fn predict_labels(
    blended: &BlendedRow,
    groups: &[PixelGroup],
    range: Range<usize>,
    labels: &mut [u8],
) {
    for index in range {
        let between = Columns::new(&groups[index]);
        let mut best = _mm256_set1_ps(f32::NEG_INFINITY);
        let mut winner = _mm256_setzero_si256();
        for (class, row) in (0..).zip(blended.data.chunks_exact(blended.stride)) {
            let logit = between.logits(row);
            winner = later(winner, class, logit, best);
            best = _mm256_max_ps(logit, best);
        }
        put(labels, index, bytes(winner));
    }
}

#[target_feature(enable = "avx2")]
fn predict_all(
    blended: &BlendedRow,
    groups: &[PixelGroup],
    range: Range<usize>,
    logits: &mut Vec<[f32; LANES]>,
    pixels: &mut PixelRow<'_>,
) {
    logits.resize(blended.data.len() / blended.stride, [0.0; LANES]);
    for index in range {
        let between = Columns::new(&groups[index]);
        let mut best = _mm256_set1_ps(f32::NEG_INFINITY);
        let mut second = best;
        let mut winner = _mm256_setzero_si256();
        for ((class, row), kept) in
            (0..).zip(blended.data.chunks_exact(blended.stride)).zip(logits.iter_mut())
        {
            let logit = between.logits(row);
            // SAFETY: eight floats are written to eight floats.
            unsafe { _mm256_storeu_ps(kept.as_mut_ptr(), logit) };
            second = _mm256_max_ps(_mm256_min_ps(best, logit), second);
            winner = later(winner, class, logit, best);
            best = _mm256_max_ps(logit, best);
        }
        put(pixels.labels, index, bytes(winner));
        if let Some(row) = &mut pixels.confidence {
            let mut sum = _mm256_setzero_ps();
            for kept in logits.iter() {
                sum = _mm256_add_ps(sum, exponential(_mm256_sub_ps(load(kept), best)));
            }
            let share =
                _mm256_add_ps(_mm256_div_ps(_mm256_set1_ps(255.0), sum), _mm256_set1_ps(0.5));
            put(row, index, bytes(_mm256_cvttps_epi32(share)));
        }
        if let Some(row) = &mut pixels.margin {
            let lead = _mm256_mul_ps(_mm256_sub_ps(best, second), _mm256_set1_ps(MARGIN_STEPS));
            let steps =
                _mm256_min_ps(_mm256_add_ps(lead, _mm256_set1_ps(0.5)), _mm256_set1_ps(255.0));
            put(row, index, bytes(_mm256_cvttps_epi32(steps)));
        }
    }
}

/// The columns of logits between which a group's pixels lie.
struct Columns {
    base: usize,
    left: __m256i,
    weights: __m256,
}

impl Columns {
    #[target_feature(enable = "avx2")]
    fn new(group: &PixelGroup) -> Self {
        // SAFETY: eight 32-bit integers are read from as many.
        let left = unsafe { _mm256_loadu_si256(group.left.as_ptr().cast()) };
        Self { base: group.base, left, weights: load(&group.weights) }
    }

    /// Blends a class's row.
    #[target_feature(enable = "avx2")]
    fn logits(&self, row: &[f32]) -> __m256 {
        let near = &row[self.base..self.base + LANES + 1];
        // SAFETY: of nine floats, the first eight and the last eight are read.
        let (here, next) =
            unsafe { (_mm256_loadu_ps(near.as_ptr()), _mm256_loadu_ps(near.as_ptr().add(1))) };
        let here = _mm256_permutevar8x32_ps(here, self.left);
        let next = _mm256_permutevar8x32_ps(next, self.left);
        _mm256_add_ps(here, _mm256_mul_ps(_mm256_sub_ps(next, here), self.weights))
    }
}

/// Updates the winning class where the logit is above the best so far: classes come in order, so
/// the winner is the largest.
#[target_feature(enable = "avx2")]
fn later(winner: __m256i, class: i32, logit: __m256, best: __m256) -> __m256i {
    let above = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_GT_OQ>(logit, best));
    _mm256_max_epi32(winner, _mm256_and_si256(above, _mm256_set1_epi32(class)))
}

/// See [`arithmetic::exponential`].
#[target_feature(enable = "avx2")]
fn exponential(x: __m256) -> __m256 {
    let x = _mm256_max_ps(x, _mm256_set1_ps(MIN_EXPONENT));
    let shifted = _mm256_add_ps(_mm256_mul_ps(x, _mm256_set1_ps(LOG2_E)), _mm256_set1_ps(WHOLE));
    let whole = _mm256_sub_ps(shifted, _mm256_set1_ps(WHOLE));
    let high = _mm256_mul_ps(whole, _mm256_set1_ps(LN_2[0]));
    let low = _mm256_mul_ps(whole, _mm256_set1_ps(LN_2[1]));
    let rest = _mm256_sub_ps(_mm256_sub_ps(x, high), low);
    let mut sum = _mm256_set1_ps(SERIES[0]);
    for &factor in &SERIES[1..] {
        sum = _mm256_add_ps(_mm256_mul_ps(sum, rest), _mm256_set1_ps(factor));
    }
    let exponent = _mm256_slli_epi32::<23>(_mm256_castps_si256(shifted));
    let scale = _mm256_add_epi32(exponent, _mm256_castps_si256(_mm256_set1_ps(1.0)));
    _mm256_mul_ps(sum, _mm256_castsi256_ps(scale))
}

#[target_feature(enable = "avx2")]
fn load(eight: &[f32; LANES]) -> __m256 {
    // SAFETY: eight floats are read from eight floats.
    unsafe { _mm256_loadu_ps(eight.as_ptr()) }
}

/// The low bytes of eight integers.
#[target_feature(enable = "avx2")]
fn bytes(numbers: __m256i) -> [u8; LANES] {
    let mut all = [0_i32; LANES];
    // SAFETY: eight 32-bit integers are written to as many.
    unsafe { _mm256_storeu_si256(all.as_mut_ptr().cast(), numbers) };
    all.map(|number| number as u8)
}
