//! Spherical k-means with k-means++ seeding (Arthur and Vassilvitskii, 2007), on 1 - cosine.

use protoseg_models::random::Stream;

use crate::config::options::PrototypeAverage;

/// Rounds of assignment and averaging.
const ROUNDS: usize = 20;
/// Relative size of the noise that separates copies where there are fewer points than centers.
const NOISE: f32 = 0.01;

/// Clusters points `[points, dimensions]` into `count` centers by cosine. With fewer points than centers, the rest are
/// copies with noise of 0.01. Centers have length 1 for [`PrototypeAverage::Normalized`].
pub fn cluster(
    points: &[f32],
    dimensions: usize,
    count: usize,
    average: PrototypeAverage,
    stream: Stream,
) -> Vec<f32> {
    let directions: Vec<f32> = points.chunks_exact(dimensions).flat_map(normalized).collect();
    let number = directions.len() / dimensions;
    if number < count {
        return copies(points, dimensions, count, average, stream);
    }
    let chosen = seeds(&directions, dimensions, count, stream);
    let row = |values: &[f32], index: usize| values[index * dimensions..][..dimensions].to_vec();
    let source = if average == PrototypeAverage::Raw { points } else { &directions };
    let mut centers: Vec<Vec<f32>> = chosen.into_iter().map(|index| row(source, index)).collect();
    let mut assigned = vec![usize::MAX; number];
    for _ in 0..ROUNDS {
        let found = assign(&directions, dimensions, &centers);
        if found.iter().map(|(center, _)| *center).eq(assigned.iter().copied()) {
            break;
        }
        assigned = found.iter().map(|(center, _)| *center).collect();
        fill_empty(&mut assigned, &found, count);
        centers = averages(source, dimensions, &assigned, count);
        if average == PrototypeAverage::Normalized {
            centers = centers.iter().map(|center| normalized(center).collect()).collect();
        }
    }
    centers.concat()
}

/// Returns the nearest center of every point and their cosine; the first of equally near ones.
pub fn assign(directions: &[f32], dimensions: usize, centers: &[Vec<f32>]) -> Vec<(usize, f32)> {
    let centers: Vec<Vec<f32>> =
        centers.iter().map(|center| normalized(center).collect()).collect();
    let closest = |point: &[f32]| {
        let cosines = centers.iter().map(|center| dot(point, center)).enumerate();
        cosines.fold((0, f32::NEG_INFINITY), |best, next| if next.1 > best.1 { next } else { best })
    };
    directions.chunks_exact(dimensions).map(closest).collect()
}

/// k-means++ seeding: the first seed is uniform, each further one has a probability in proportion to 1 - cosine to the
/// nearest seed before it, which on the sphere is half the squared distance.
fn seeds(directions: &[f32], dimensions: usize, count: usize, stream: Stream) -> Vec<usize> {
    let number = directions.len() / dimensions;
    let mut chosen = vec![stream.below(0, number)];
    let mut distances = vec![f64::INFINITY; number];
    while chosen.len() < count {
        let latest = chosen.last().copied().unwrap_or_default();
        let latest = &directions[latest * dimensions..][..dimensions];
        for (distance, point) in distances.iter_mut().zip(directions.chunks_exact(dimensions)) {
            *distance = distance.min(f64::from(1.0 - dot(point, latest)).max(0.0));
        }
        let total: f64 = distances.iter().sum();
        let mut left = stream.unit(chosen.len() as u64) * total;
        let drawn = distances.iter().position(|distance| {
            left -= distance;
            left < 0.0
        });
        // All points coincide with seeds, or rounding has used up the sum: any point will do.
        chosen.push(
            drawn.unwrap_or_else(|| stream.below(count as u64 + chosen.len() as u64, number)),
        );
    }
    chosen
}

/// Gives each empty center the point that is farthest from its own center.
fn fill_empty(assigned: &mut [usize], found: &[(usize, f32)], count: usize) {
    for center in 0..count {
        if assigned.contains(&center) {
            continue;
        }
        let mut sizes = vec![0_usize; count];
        for &other in assigned.iter() {
            sizes[other] += 1;
        }
        let movable = (0..found.len()).filter(|&point| sizes[assigned[point]] > 1);
        if let Some(farthest) =
            movable.min_by(|&left, &right| found[left].1.total_cmp(&found[right].1))
        {
            assigned[farthest] = center;
        }
    }
}

fn averages(points: &[f32], dimensions: usize, assigned: &[usize], count: usize) -> Vec<Vec<f32>> {
    let mut sums = vec![vec![0.0_f64; dimensions]; count];
    let mut sizes = vec![0.0_f64; count];
    for (point, &center) in points.chunks_exact(dimensions).zip(assigned) {
        sizes[center] += 1.0;
        for (sum, &value) in sums[center].iter_mut().zip(point) {
            *sum += f64::from(value);
        }
    }
    let divide = |(sum, size): (Vec<f64>, f64)| {
        sum.into_iter().map(|sum| (sum / size.max(1.0)) as f32).collect()
    };
    sums.into_iter().zip(sizes).map(divide).collect()
}

fn copies(
    points: &[f32],
    dimensions: usize,
    count: usize,
    average: PrototypeAverage,
    stream: Stream,
) -> Vec<f32> {
    let points: Vec<&[f32]> = points.chunks_exact(dimensions).collect();
    if points.is_empty() {
        let drawn: Vec<f32> =
            (0..count * dimensions).map(|index| stream.normal(index as u64) as f32).collect();
        return drawn.chunks_exact(dimensions).flat_map(normalized).collect();
    }
    let copy = |index: usize| -> Vec<f32> {
        let noisy = |values: Vec<f32>| -> Vec<f32> {
            let scale = length(&values) * if index < points.len() { 0.0 } else { NOISE };
            let draw =
                |place: usize| scale * stream.normal((index * dimensions + place) as u64) as f32;
            values.iter().enumerate().map(|(place, value)| value + draw(place)).collect()
        };
        let point = points[index % points.len()];
        match average {
            PrototypeAverage::Raw => noisy(point.to_vec()),
            PrototypeAverage::Normalized => {
                normalized(&noisy(normalized(point).collect())).collect()
            }
        }
    };
    (0..count).flat_map(copy).collect()
}

fn dot(left: &[f32], right: &[f32]) -> f32 {
    left.iter().zip(right).map(|(left, right)| left * right).sum()
}

fn length(values: &[f32]) -> f32 {
    dot(values, values).sqrt()
}

fn normalized(values: &[f32]) -> impl Iterator<Item = f32> + '_ {
    let length = length(values).max(1e-12);
    values.iter().map(move |value| value / length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(points: &[f32], dimensions: usize, centers: &[Vec<f32>]) -> f64 {
        let directions: Vec<f32> = points.chunks_exact(dimensions).flat_map(normalized).collect();
        assign(&directions, dimensions, centers)
            .iter()
            .map(|(_, cosine)| f64::from(1.0 - cosine))
            .sum()
    }

    /// The best of several seeds against all assignments of eight points to two or three centers.
    #[test]
    fn small_cases_reach_the_optimum() {
        let dimensions = 3;
        for case in 0..6 {
            let stream = Stream::keyed(&[case]);
            let points: Vec<f32> =
                (0..8 * dimensions as u64).map(|index| stream.normal(index) as f32).collect();
            let directions: Vec<f32> =
                points.chunks_exact(dimensions).flat_map(normalized).collect();
            for count in [2_usize, 3] {
                let best = (0..count.pow(8)).map(|code| {
                    let assigned: Vec<usize> =
                        (0..8).map(|point| code / count.pow(point) % count).collect();
                    cost(&points, dimensions, &averages(&directions, dimensions, &assigned, count))
                });
                let best = best.fold(f64::INFINITY, f64::min);
                let found = (0..60).map(|seed| {
                    let found = cluster(
                        &points,
                        dimensions,
                        count,
                        PrototypeAverage::Normalized,
                        Stream::keyed(&[case, seed]),
                    );
                    cost(
                        &points,
                        dimensions,
                        &found.chunks(dimensions).map(<[f32]>::to_vec).collect::<Vec<_>>(),
                    )
                });
                let found = found.fold(f64::INFINITY, f64::min);
                assert!(
                    found <= best + 1e-5,
                    "case {case}, {count} centers: {found} against {best}"
                );
            }
        }
    }

    #[test]
    fn raw_centers_are_means_of_unnormalized_points() {
        let points = [4.0_f32, 0.0, 2.0, 0.2, 0.0, 1.0, 0.1, 3.0];
        let mut found = cluster(&points, 2, 2, PrototypeAverage::Raw, Stream::keyed(&[1]));
        if found[0] < found[2] {
            found.rotate_left(2);
        }
        for (found, expected) in found.iter().zip([3.0, 0.1, 0.05, 2.0]) {
            assert!((found - expected).abs() < 1e-6, "{found}");
        }
        let unit = cluster(&points, 2, 2, PrototypeAverage::Normalized, Stream::keyed(&[1]));
        assert!(unit.chunks(2).all(|center| (length(center) - 1.0).abs() < 1e-5));
    }

    #[test]
    fn too_few_points_are_copied_with_noise() {
        let found = cluster(&[3.0, 4.0], 2, 3, PrototypeAverage::Normalized, Stream::keyed(&[2]));
        assert!((found[0] - 0.6).abs() < 1e-6 && (found[1] - 0.8).abs() < 1e-6);
        for copy in found.chunks(2).skip(1) {
            let cosine = dot(copy, &found[..2]);
            assert!(cosine > 0.99 && cosine < 1.0 && (length(copy) - 1.0).abs() < 1e-5, "{copy:?}");
        }
        let nothing = cluster(&[], 2, 3, PrototypeAverage::Normalized, Stream::keyed(&[2]));
        assert!(
            nothing.len() == 6
                && nothing.chunks(2).all(|center| (length(center) - 1.0).abs() < 1e-5)
        );
        let same =
            cluster(&[1.0, 0.0].repeat(5), 2, 3, PrototypeAverage::Normalized, Stream::keyed(&[2]));
        assert!(same.chunks(2).all(|center| center == [1.0, 0.0]));
    }
}
