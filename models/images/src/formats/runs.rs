//! Runs of equal labels, along the rows or down the columns of a map.

use crate::label_map::LabelMap;

/// Neighbours in reading order that have the same label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) label: u8,
    /// Place of the first in reading order.
    pub(super) start: usize,
    pub(super) length: usize,
}

/// The runs of labels in the order in which they are given.
pub(super) fn runs(labels: &[u8]) -> impl Iterator<Item = Run> {
    let mut start = 0;
    labels.chunk_by(u8::eq).map(move |equal| {
        let run = Run { label: equal[0], start, length: equal.len() };
        start += run.length;
        run
    })
}

/// Columns of a tile: a tile's bytes stay in the first cache while they are turned.
const TILE: usize = 64;

/// The labels column by column.
pub(super) fn columns(map: &LabelMap) -> Vec<u8> {
    let LabelMap { height, width, labels } = map;
    let mut turned = vec![0; labels.len()];
    for left in (0..*width).step_by(TILE) {
        let right = (left + TILE).min(*width);
        for (row, labels) in labels.chunks_exact(*width).enumerate() {
            for column in left..right {
                turned[column * height + row] = labels[column];
            }
        }
    }
    turned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_follow_each_other_and_columns_are_the_map_turned() {
        let found: Vec<_> =
            runs(&[7, 7, 1, 7]).map(|run| (run.label, run.start, run.length)).collect();
        assert_eq!(found, [(7, 0, 2), (1, 2, 1), (7, 3, 1)]);
        assert_eq!(runs(&[]).count(), 0);
        for (height, width) in [(3, 5), (2, 64), (70, 131), (1, 1), (0, 4), (4, 0)] {
            let labels = (0..height * width).map(|index| (index * 31 % 251) as u8).collect();
            let map = LabelMap { height, width, labels };
            let expected: Vec<u8> = (0..width)
                .flat_map(|column| (0..height).map(move |row| row * width + column))
                .map(|index| map.labels[index])
                .collect();
            assert_eq!(columns(&map), expected);
        }
    }
}
