//! Segment boundaries of a label map: labels are ambiguous there, and rounding shows there first.

/// Marks the pixels of a label map `[height, width]` that lie within `reach` pixels, along rows,
/// columns and diagonals, of a pixel with another label.
///
/// ```
/// use protoseg_models::boundary::near_boundary;
///
/// assert_eq!(near_boundary(&[4, 4, 4, 7, 7], 5, 1), [false, false, true, true, false]);
/// ```
pub fn near_boundary(labels: &[u8], width: usize, reach: usize) -> Vec<bool> {
    if width == 0 {
        return Vec::new();
    }
    // A square holds one label if its minimum equals its maximum; both filters are separable.
    let smallest = filter(labels, width, reach, u8::min);
    let largest = filter(labels, width, reach, u8::max);
    smallest.iter().zip(&largest).map(|(smallest, largest)| smallest != largest).collect()
}

fn filter(labels: &[u8], width: usize, reach: usize, choose: fn(u8, u8) -> u8) -> Vec<u8> {
    let height = labels.len() / width;
    let mut across = labels.to_vec();
    for (row, chosen) in labels.chunks_exact(width).zip(across.chunks_exact_mut(width)) {
        for (column, chosen) in chosen.iter_mut().enumerate() {
            let around = &row[column.saturating_sub(reach)..(column + reach + 1).min(width)];
            *chosen = around.iter().copied().fold(*chosen, choose);
        }
    }
    let mut down = across.clone();
    for (row, chosen) in down.chunks_exact_mut(width).enumerate() {
        for other in row.saturating_sub(reach)..(row + reach + 1).min(height) {
            for (chosen, &label) in chosen.iter_mut().zip(&across[other * width..][..width]) {
                *chosen = choose(*chosen, label);
            }
        }
    }
    down
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    #[test]
    fn boundaries_are_those_that_a_search_around_every_pixel_finds() {
        let height = 23;
        let width = 17_usize;
        let stream = Stream::keyed(&[19]);
        // Blocks of five pixels, so that some pixels are far from every boundary.
        let label = |index: usize| {
            stream.below((index / width / 5 * 4 + index % width / 5) as u64, 3) as u8
        };
        let labels: Vec<u8> = (0..height * width).map(label).collect();
        for reach in [0, 1, 3, 40] {
            let found = near_boundary(&labels, width, reach);
            for (index, &found) in found.iter().enumerate() {
                let (row, column) = (index / width, index % width);
                let expected = (0..labels.len()).any(|other| {
                    let rows = (other / width).abs_diff(row);
                    let columns = (other % width).abs_diff(column);
                    rows.max(columns) <= reach && labels[other] != labels[index]
                });
                assert_eq!(found, expected, "reach {reach}, row {row}, column {column}");
            }
        }
        assert_eq!(near_boundary(&[], 0, 3), [false; 0]);
        assert!(near_boundary(&[5; 12], 4, 3).iter().all(|&near| !near));
    }
}
