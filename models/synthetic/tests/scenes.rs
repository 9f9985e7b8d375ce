//! Properties of synthetic scenes: fixed bytes, any size, every class, and classes that no linear
//! rule of color separates.

use protoseg_models::digest::{fnv1a64, sha256_bytes};
use protoseg_synthetic::{Scene, render_scene};

const CLASSES: usize = 19;

/// Seeds, first and last index, height and width of the scenes of one line of the golden file.
type Group = ([u64; 3], [usize; 2]);

/// Many small scenes, so that rare content occurs, and a few of ordinary size.
fn groups() -> Vec<Group> {
    let mut groups = Vec::new();
    for seed in [0, 1, 2, 3, 5, 7, 11] {
        for size in [[48, 96], [97, 193], [163, 227]] {
            groups.extend((0..32).step_by(4).map(|first| ([seed, first, first + 4], size)));
        }
        groups.push(([seed, 0, 4], [512, 1024]));
    }
    groups.push(([2, 0, 4], [128, 192]));
    groups
}

fn golden_line(([seed, first, end], [height, width]): Group) -> String {
    let mut image = Vec::new();
    let mut labels = Vec::new();
    for index in first..end {
        let scene = render_scene(seed, index, height, width);
        image.extend(scene.image);
        labels.extend(scene.labels);
    }
    let (image, labels) = (sha256_bytes(&image), sha256_bytes(&labels));
    format!("{seed} {first}..{end} {height}x{width} {image} {labels}")
}

/// Lines: seed, indices, size, SHA-256 of the images, SHA-256 of the labels.
#[test]
fn the_same_arguments_give_the_same_bytes_on_every_machine() {
    let groups = groups();
    let (first, second) = groups.split_at(groups.len() / 2);
    let lines = |groups: &[Group]| groups.iter().copied().map(golden_line).collect::<Vec<_>>();
    let found = std::thread::scope(|scope| {
        let first = scope.spawn(|| lines(first));
        let second = lines(second);
        [first.join().expect("scenes are rendered"), second].concat()
    });
    let expected: Vec<&str> = include_str!("golden.txt").lines().collect();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, expected);
    }
    // FNV-1a of image and labels.
    let scene = render_scene(7, 3, 48, 96);
    assert_eq!(
        [fnv1a64(&scene.image), fnv1a64(&scene.labels)],
        [15_842_149_419_122_185_427, 14_391_054_417_416_970_712]
    );
    assert_eq!(scene, render_scene(7, 3, 48, 96));
}

#[test]
fn another_seed_or_index_gives_another_scene() {
    let scene = render_scene(7, 3, 48, 96);
    for other in [render_scene(8, 3, 48, 96), render_scene(7, 4, 48, 96)] {
        let same = scene.image.iter().zip(&other.image).filter(|(one, other)| one == other).count();
        assert!(same < scene.image.len() / 4, "{same} of {} bytes agree", scene.image.len());
        assert_ne!(scene.labels, other.labels);
    }
}

#[test]
fn any_size_is_rendered() {
    for (height, width) in
        [(1, 1), (3, 5), (5, 3), (1, 64), (64, 1), (37, 41), (17, 300), (128, 7), (97, 193)]
    {
        for index in 0..6 {
            let scene = render_scene(11, index, height, width);
            assert_eq!((scene.height, scene.width), (height, width));
            assert_eq!(
                (scene.image.len(), scene.labels.len()),
                (3 * height * width, height * width)
            );
            assert!(scene.labels.iter().all(|&label| label < 19 || label == 255));
        }
    }
}

#[test]
fn every_class_occurs_and_little_is_ignored() {
    let mut counts = [0_usize; 256];
    for index in 0..64 {
        render_scene(2, index, 64, 128)
            .labels
            .iter()
            .for_each(|&label| counts[usize::from(label)] += 1);
    }
    assert!(counts[..CLASSES].iter().all(|&count| count > 200), "{:?}", &counts[..CLASSES]);
    assert!(counts[255] * 25 < 64 * 64 * 128, "{} pixels are ignored", counts[255]);
}

#[test]
fn a_scene_is_the_same_at_another_size() {
    for index in 0..8 {
        let (small, large) = (render_scene(5, index, 64, 128), render_scene(5, index, 128, 256));
        let agree = |pixel: &usize| {
            small.labels[*pixel] == large.labels[(pixel / 128) * 2 * 256 + (pixel % 128) * 2]
        };
        let share = (0..64 * 128).filter(agree).count() as f64 / (64.0 * 128.0);
        assert!(share >= 0.9, "scene {index}: {share:.3} of the labels agree");
    }
}

/// Red, green, blue, 1 and position of a pixel.
fn features(scene: &Scene, pixel: usize) -> [f64; 6] {
    let [red, green, blue] =
        [0, 1, 2].map(|channel| f64::from(scene.image[3 * pixel + channel]) / 255.0);
    let (x, y) = (pixel % scene.width, pixel / scene.width);
    [red, green, blue, 1.0, x as f64 / scene.width as f64, y as f64 / scene.height as f64]
}

fn labeled(scene: &Scene) -> impl Iterator<Item = ([f64; 6], usize)> {
    let counted = scene.labels.iter().enumerate().filter(|(_, label)| **label != 255);
    counted.map(|(pixel, &label)| (features(scene, pixel), usize::from(label)))
}

/// Fits one-hot labels to the first `size` features by least squares; returns the mean intersection
/// over union on other scenes.
fn linear_rule(seen: &[Scene], unseen: &[Scene], size: usize) -> f64 {
    let mut rows = vec![vec![0.0; size + CLASSES]; size];
    for (point, label) in seen.iter().flat_map(labeled) {
        for (row, value) in rows.iter_mut().zip(point) {
            for (cell, other) in row[..size].iter_mut().zip(point) {
                *cell += value * other;
            }
            row[size + label] += value;
        }
    }
    let weights = solve(rows);
    let mut confusion = [[0_usize; CLASSES]; CLASSES];
    for (point, label) in unseen.iter().flat_map(labeled) {
        let mut best = (f64::MIN, 0);
        for class in 0..CLASSES {
            let score: f64 = weights.iter().zip(point).map(|(row, value)| row[class] * value).sum();
            if score > best.0 {
                best = (score, class);
            }
        }
        confusion[label][best.1] += 1;
    }
    let of_class = |class: usize| {
        let truth: usize = confusion[class].iter().sum();
        let said: usize = confusion.iter().map(|row| row[class]).sum();
        confusion[class][class] as f64 / (truth + said - confusion[class][class]).max(1) as f64
    };
    (0..CLASSES).map(of_class).sum::<f64>() / CLASSES as f64
}

/// Solves the normal equations, right-hand sides appended to their rows, by elimination with
/// pivots.
fn solve(mut rows: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let size = rows.len();
    for column in 0..size {
        let largest = |one: &usize, other: &usize| {
            rows[*one][column].abs().total_cmp(&rows[*other][column].abs())
        };
        let pivot = (column..size).max_by(largest).expect("there are rows left");
        rows.swap(column, pivot);
        let scaled: Vec<f64> =
            rows[column].iter().map(|value| value / rows[column][column]).collect();
        for row in &mut rows {
            let factor = row[column];
            row.iter_mut().zip(&scaled).for_each(|(value, taken)| *value -= factor * taken);
        }
        rows[column] = scaled;
    }
    rows.into_iter().map(|row| row[size..].to_vec()).collect()
}

#[test]
fn no_linear_rule_of_color_and_place_tells_the_classes_apart() {
    let scenes: Vec<Scene> = (0..36).map(|index| render_scene(3, index, 96, 192)).collect();
    let (seen, unseen) = scenes.split_at(24);
    let (by_color, by_color_and_place) =
        (linear_rule(seen, unseen, 4), linear_rule(seen, unseen, 6));
    eprintln!("mean IoU by color {by_color:.3}, by color and place {by_color_and_place:.3}");
    assert!(by_color < 0.15 && by_color_and_place < 0.25, "{by_color:.3} {by_color_and_place:.3}");
}
