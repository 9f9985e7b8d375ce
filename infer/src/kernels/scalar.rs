//! Kernels for any processor.

use std::ops::Range;

use super::arithmetic::{confidence, exponential, greater, lesser, margin};
use super::{BlendedRow, LANES, LogitPlanes, PixelGroup, PixelRow, RowBlend, put};

/// See [`InstructionSet::blend_rows`](super::InstructionSet::blend_rows).
#[inline(always)]
pub(super) fn blend_rows(
    planes: LogitPlanes<'_>,
    blend: RowBlend,
    columns: Range<usize>,
    blended: &mut BlendedRow,
) {
    let RowBlend { rows: [upper, lower], weight } = blend;
    let (width, stride) = (blended.width, blended.stride);
    let rows = planes.row(upper).zip(planes.row(lower));
    for (row, (upper, lower)) in blended.data.chunks_exact_mut(stride).zip(rows) {
        let corners = upper[columns.clone()].iter().zip(&lower[columns.clone()]);
        for (logit, (upper, lower)) in row[columns.clone()].iter_mut().zip(corners) {
            *logit = upper + (lower - upper) * weight;
        }
        if columns.end == width {
            let last = row[width - 1];
            row[width..].fill(last);
        }
    }
}

/// See [`InstructionSet::fill_pixels`](super::InstructionSet::fill_pixels).
pub(super) fn fill_pixels(
    blended: &BlendedRow,
    groups: &[PixelGroup],
    range: Range<usize>,
    logits: &mut Vec<[f32; LANES]>,
    pixels: &mut PixelRow<'_>,
) {
    let more = pixels.more();
    for index in range {
        let PixelGroup { base, left, weights, .. } = &groups[index];
        let mut labels = [0; LANES];
        let mut best = [f32::NEG_INFINITY; LANES];
        let mut second = best;
        logits.clear();
        for (class, row) in blended.data.chunks_exact(blended.stride).enumerate() {
            let row = &row[*base..];
            let mut found = [0.0; LANES];
            for lane in 0..LANES {
                let column = left[lane] as usize;
                found[lane] = row[column] + (row[column + 1] - row[column]) * weights[lane];
            }
            if more {
                logits.push(found);
                for lane in 0..LANES {
                    second[lane] = greater(lesser(best[lane], found[lane]), second[lane]);
                }
            }
            for lane in 0..LANES {
                labels[lane] = if found[lane] > best[lane] { class as u8 } else { labels[lane] };
                best[lane] = greater(found[lane], best[lane]);
            }
        }
        put(pixels.labels, index, labels);
        if let Some(row) = &mut pixels.confidence {
            let mut sum = [0.0; LANES];
            for found in logits.iter() {
                for lane in 0..LANES {
                    sum[lane] += exponential(found[lane] - best[lane]);
                }
            }
            put(row, index, sum.map(confidence));
        }
        if let Some(row) = &mut pixels.margin {
            put(row, index, std::array::from_fn(|lane| margin(best[lane], second[lane])));
        }
    }
}
