//! Connected pieces of each class: pixels of one label that touch, also by their corners.

use super::{Run, runs};

/// Runs of pixels with a class, each with the number of its piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pieces {
    /// In order of their first pixels; none goes past the end of a line.
    pub(super) runs: Vec<(Run, usize)>,
    /// In order of their first pixels.
    pub(super) pieces: Vec<Piece>,
}

/// A connected piece of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) label: u8,
    /// Number of its pixels.
    pub(super) area: usize,
}

/// Finds the pieces of the labels for which `kept` holds, in lines of `length` pixels (rows, or
/// columns of a transposed map). Joins runs of neighboring lines by union-find.
pub(super) fn find(labels: &[u8], length: usize, kept: impl Fn(u8) -> bool) -> Pieces {
    let mut all: Vec<Run> = Vec::new();
    let mut parents: Vec<usize> = Vec::new();
    let mut above = 0..0;
    for (line, labels) in labels.chunks(length.max(1)).enumerate() {
        let first = all.len();
        let start = line * length;
        all.extend(
            runs(labels)
                .filter(|run| kept(run.label))
                .map(|run| Run { start: start + run.start, ..run }),
        );
        parents.extend(first..all.len());
        let mut candidate = above.start;
        for index in first..all.len() {
            // Positions one line up.
            let (left, right) =
                (all[index].start - length.min(start), all[index].end() - length.min(start));
            while candidate < above.end && all[candidate].end() < left {
                candidate += 1;
            }
            let mut other = candidate;
            while other < above.end && all[other].start <= right {
                if all[other].label == all[index].label {
                    join(&mut parents, other, index);
                }
                other += 1;
            }
        }
        above = first..all.len();
    }
    let mut numbers = vec![usize::MAX; all.len()];
    let mut pieces: Vec<Piece> = Vec::new();
    let mut numbered = Vec::with_capacity(all.len());
    for (index, run) in all.into_iter().enumerate() {
        let root = root(&mut parents, index);
        if numbers[root] == usize::MAX {
            numbers[root] = pieces.len();
            pieces.push(Piece { label: run.label, area: 0 });
        }
        pieces[numbers[root]].area += run.length;
        numbered.push((run, numbers[root]));
    }
    Pieces { runs: numbered, pieces }
}

/// The representative of a run's set, with halved paths.
fn root(parents: &mut [usize], mut index: usize) -> usize {
    while parents[index] != index {
        parents[index] = parents[parents[index]];
        index = parents[index];
    }
    index
}

fn join(parents: &mut [usize], one: usize, other: usize) {
    let (one, other) = (root(parents, one), root(parents, other));
    // The smaller index, so that chains stay short along the scan.
    parents[one.max(other)] = one.min(other);
}

#[cfg(test)]
mod tests {
    use super::*;
    use protoseg_models::random::Stream;

    /// Piece of each pixel by flooding, in order of the first pixels; None without one.
    fn flooded(labels: &[u8], width: usize) -> Vec<Option<usize>> {
        let mut found = vec![None; labels.len()];
        let mut count = 0;
        for first in 0..labels.len() {
            if labels[first] == 255 || found[first].is_some() {
                continue;
            }
            let mut open = vec![first];
            found[first] = Some(count);
            while let Some(at) = open.pop() {
                for other in 0..labels.len() {
                    let near = |a: usize, b: usize| a.abs_diff(b) <= 1;
                    let touches =
                        near(at / width, other / width) && near(at % width, other % width);
                    if touches && labels[other] == labels[at] && found[other].is_none() {
                        found[other] = Some(count);
                        open.push(other);
                    }
                }
            }
            count += 1;
        }
        found
    }

    #[test]
    fn pieces_are_those_of_flooding() {
        for (seed, height, width, kinds) in
            [(1, 9, 13, 2), (2, 16, 7, 3), (3, 1, 20, 2), (4, 20, 1, 2), (5, 12, 12, 4)]
        {
            let stream = Stream::keyed(&[seed]);
            let draw = |at| match stream.below(at, kinds) as u8 {
                0 => 255,
                label => label,
            };
            let labels: Vec<u8> = (0..(height * width) as u64).map(draw).collect();
            let Pieces { runs, pieces } = find(&labels, width, |label| label != 255);
            let mut painted = vec![None; labels.len()];
            let mut areas = vec![0; pieces.len()];
            for (run, piece) in runs {
                painted[run.start..run.end()].fill(Some(piece));
                areas[piece] += run.length;
            }
            assert_eq!(painted, flooded(&labels, width), "{height}x{width}");
            assert!(pieces.iter().zip(areas).all(|(piece, area)| piece.area == area));
        }
        assert_eq!(find(&[], 0, |_| true).pieces, []);
    }
}
