//! The form in plain Rust.

use std::ops::Range;

use super::decision::{confidence, greater, lesser, margin, power};
use super::{BlendedRow, LANES, LogitPlanes, PixelGroup, PixelRow, RowBlend, put};

/// See [`InstructionSet::blend_rows`](super::InstructionSet::blend_rows).
#[inline(always)]
pub(super) fn blend_rows(
    planes: LogitPlanes<'_>,
    between: RowBlend,
    columns: Range<usize>,
    mixed: &mut BlendedRow,
) {
    let RowBlend { rows: [upper, lower], weight } = between;
    let (width, stride) = (mixed.width, mixed.stride);
    let rows = planes.row(upper).zip(planes.row(lower));
    for (row, (upper, lower)) in mixed.data.chunks_exact_mut(stride).zip(rows) {
        let corners = upper[columns.clone()].iter().zip(&lower[columns.clone()]);
        for (score, (upper, lower)) in row[columns.clone()].iter_mut().zip(corners) {
            *score = upper + (lower - upper) * weight;
        }
        if columns.end == width {
            let last = row[width - 1];
            row[width..].fill(last);
        }
    }
}

/// See [`InstructionSet::fill_pixels`](super::InstructionSet::fill_pixels).
pub(super) fn fill_pixels(
    mixed: &BlendedRow,
    groups: &[PixelGroup],
    range: Range<usize>,
    scores: &mut Vec<[f32; LANES]>,
    pixels: &mut PixelRow<'_>,
) {
    let more = pixels.more();
    for index in range {
        let PixelGroup { base, left, weights, .. } = &groups[index];
        let mut labels = [0; LANES];
        let mut best = [f32::NEG_INFINITY; LANES];
        let mut second = best;
        scores.clear();
        for (class, row) in mixed.data.chunks_exact(mixed.stride).enumerate() {
            let row = &row[*base..];
            let mut found = [0.0; LANES];
            for lane in 0..LANES {
                let column = left[lane] as usize;
                found[lane] = row[column] + (row[column + 1] - row[column]) * weights[lane];
            }
            if more {
                scores.push(found);
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
            for found in scores.iter() {
                for lane in 0..LANES {
                    sum[lane] += power(found[lane] - best[lane]);
                }
            }
            put(row, index, sum.map(confidence));
        }
        if let Some(row) = &mut pixels.margin {
            put(row, index, std::array::from_fn(|lane| margin(best[lane], second[lane])));
        }
    }
}
