//! What scenes promise: the same bytes anywhere, any size, every class, and no shortcut by colour.

use super::*;

const CLASSES: usize = 19;

fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[test]
fn the_same_arguments_give_the_same_bytes_on_every_machine() {
    let scene = render(7, 3, 48, 96);
    assert_eq!((hash(&scene.image), hash(&scene.labels)), (0, 0));
    assert_eq!(scene, render(7, 3, 48, 96));
}

#[test]
fn another_seed_or_index_gives_another_scene() {
    let scene = render(7, 3, 48, 96);
    for other in [render(8, 3, 48, 96), render(7, 4, 48, 96)] {
        let same = scene.image.iter().zip(&other.image).filter(|(one, other)| one == other).count();
        assert!(same < scene.image.len() / 4, "{same} of {} bytes agree", scene.image.len());
        assert_ne!(scene.labels, other.labels);
    }
}

#[test]
fn any_size_is_drawn() {
    for (height, width) in [(1, 1), (3, 5), (5, 3), (1, 64), (64, 1), (37, 41), (17, 300), (128, 7), (97, 193)] {
        for index in 0..6 {
            let scene = render(11, index, height, width);
            assert_eq!((scene.height, scene.width), (height, width));
            assert_eq!((scene.image.len(), scene.labels.len()), (3 * height * width, height * width));
            assert!(scene.labels.iter().all(|&label| label < 19 || label == 255));
        }
    }
}

#[test]
fn every_class_occurs_and_little_is_ignored() {
    let mut counts = [0_usize; 256];
    for index in 0..64 {
        render(2, index, 64, 128).labels.iter().for_each(|&label| counts[usize::from(label)] += 1);
    }
    assert!(counts[..CLASSES].iter().all(|&count| count > 200), "{:?}", &counts[..CLASSES]);
    assert!(counts[255] * 25 < 64 * 64 * 128, "{} pixels are ignored", counts[255]);
}

#[test]
fn a_scene_is_the_same_at_another_size() {
    for index in 0..8 {
        let (small, large) = (render(5, index, 96, 192), render(5, index, 192, 384));
        let agree = |pixel: &usize| small.labels[*pixel] == large.labels[(pixel / 192) * 2 * 384 + (pixel % 192) * 2];
        let share = (0..96 * 192).filter(agree).count() as f64 / (96.0 * 192.0);
        assert!(share >= 0.9, "scene {index}: {share:.3} of the labels agree");
    }
}

/// Fits one-hot labels by least squares on some scenes; the mean intersection over union on others.
fn linear_rule(features: impl Fn(&Scene, usize) -> Vec<f64>) -> f64 {
    let scenes = |range: std::ops::Range<u64>| range.map(|index| render(3, index, 96, 192));
    let size = features(&render(3, 0, 1, 1), 0).len();
    let mut rows = vec![vec![0.0; size + CLASSES]; size];
    for scene in scenes(0..24) {
        for (pixel, &label) in scene.labels.iter().enumerate().filter(|(_, label)| **label != 255) {
            let point = features(&scene, pixel);
            for (row, &value) in rows.iter_mut().zip(&point) {
                row.iter_mut().zip(&point).for_each(|(cell, other)| *cell += value * other);
                row[size + usize::from(label)] += value;
            }
        }
    }
    let weights = solve(rows);
    let mut confusion = [[0_usize; CLASSES]; CLASSES];
    for scene in scenes(24..36) {
        for (pixel, &label) in scene.labels.iter().enumerate().filter(|(_, label)| **label != 255) {
            let point = features(&scene, pixel);
            let score = |class: usize| weights.iter().zip(&point).map(|(row, value)| row[class] * value).sum::<f64>();
            let best = (0..CLASSES).max_by(|&one, &other| score(one).total_cmp(&score(other)));
            confusion[usize::from(label)][best.expect("there are classes")] += 1;
        }
    }
    let of_class = |class: usize| {
        let truth: usize = confusion[class].iter().sum();
        let said: usize = confusion.iter().map(|row| row[class]).sum();
        confusion[class][class] as f64 / (truth + said - confusion[class][class]).max(1) as f64
    };
    (0..CLASSES).map(of_class).sum::<f64>() / CLASSES as f64
}

/// Solves the normal equations, right-hand sides appended to their rows, by elimination with pivots.
fn solve(mut rows: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let size = rows.len();
    for column in 0..size {
        let largest = |one: &usize, other: &usize| rows[*one][column].abs().total_cmp(&rows[*other][column].abs());
        let pivot = (column..size).max_by(largest).expect("there are rows left");
        rows.swap(column, pivot);
        let scaled: Vec<f64> = rows[column].iter().map(|value| value / rows[column][column]).collect();
        for (_, row) in rows.iter_mut().enumerate().filter(|(index, _)| *index != column) {
            let factor = row[column];
            row.iter_mut().zip(&scaled).for_each(|(value, taken)| *value -= factor * taken);
        }
        rows[column] = scaled;
    }
    rows.into_iter().map(|row| row[size..].to_vec()).collect()
}

#[test]
fn no_linear_rule_of_colour_and_place_tells_the_classes_apart() {
    let colour = |scene: &Scene, pixel: usize| {
        let channels = scene.image[3 * pixel..3 * pixel + 3].iter().map(|&byte| f64::from(byte) / 255.0);
        channels.chain([1.0]).collect::<Vec<f64>>()
    };
    let placed = |scene: &Scene, pixel: usize| {
        let x = (pixel % scene.width) as f64 / scene.width as f64;
        let y = (pixel / scene.width) as f64 / scene.height as f64;
        [colour(scene, pixel), vec![x, y]].concat()
    };
    let (by_colour, by_colour_and_place) = (linear_rule(colour), linear_rule(placed));
    eprintln!("mean IoU by colour {by_colour:.3}, by colour and place {by_colour_and_place:.3}");
    assert!(by_colour < 0.15 && by_colour_and_place < 0.25, "{by_colour:.3} {by_colour_and_place:.3}");
}
