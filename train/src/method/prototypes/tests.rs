//! Prototypes against an implementation by loops in f64, and small cases by hand.

mod loops;

use super::*;
use loops::{Loops, Points, cosine, dot, rows, tensor, unit};

const IGNORED: i64 = IGNORE_INDEX as i64;
const CHANNELS: usize = 6;
const SETTINGS: PrototypeSettings = PrototypeSettings {
    classes: 4,
    per_class: 3,
    temperature: 0.1,
    momentum: 0.9,
    average: PrototypeAverage::Normalized,
    reseed_after: 4,
    centered: false,
    seed: 5,
};

/// Takes a step: compares and accumulates each micro-batch, then updates.
fn step(prototypes: &mut Prototypes, batches: &[Points], number: u64) {
    let mut sums = prototypes.begin_step().unwrap();
    for (features, labels) in batches {
        let similarity = prototypes.compare(&tensor(features).set_requires_grad(true)).unwrap();
        prototypes.accumulate(&mut sums, &similarity, &Tensor::from_slice(labels)).unwrap();
    }
    prototypes.update(sums, number).unwrap();
    assert!(!prototypes.values().requires_grad() && !prototypes.mean().requires_grad());
}

fn random(stream: Stream, middle: &[f64], size: f64) -> Vec<f64> {
    let noisy =
        |(index, value): (u64, &f64)| f64::from((value + size * stream.signed_unit(index)) as f32);
    (0..).zip(middle).map(noisy).collect()
}

fn middle(class: u64) -> Vec<f64> {
    random(Stream::keyed(&[77, class]), &[0.3; CHANNELS], 1.0)
}

/// Two micro-batches. Class 3 appears late, class 0 is absent once, class 2 sometimes has fewer points than prototypes, and
/// in one step every point is ignored.
fn batches(number: u64) -> [Points; 2] {
    [0, 1].map(|part| {
        let stream = Stream::keyed(&[number, part]);
        let label = |point: u64| match stream.below(point, 5) as i64 {
            3 if number < 6 => IGNORED,
            0 if number == 9 => IGNORED,
            2 if number.is_multiple_of(3) && (part, point) != (1, 2) => IGNORED,
            _ if number == 12 => IGNORED,
            4 => IGNORED,
            label => label,
        };
        let labels: Vec<i64> = (0..25).map(label).collect();
        let feature = |(point, &label): (u64, &i64)| {
            let stream = stream.child(point);
            let length = stream.range(50, 0.3, 3.0);
            random(
                stream,
                &middle(label as u64).iter().map(|value| length * value).collect::<Vec<_>>(),
                length,
            )
        };
        ((0..).zip(&labels).map(feature).collect(), labels)
    })
}

/// Prototypes near the middle of their class, but the first of each class, which no point is near. Class 3 is not active.
fn start(settings: PrototypeSettings) -> Prototypes {
    let row = |prototype: u64| {
        let middle = middle(prototype / 3)
            .into_iter()
            .map(|value| if prototype.is_multiple_of(3) { -value } else { value });
        random(Stream::keyed(&[99, prototype]), &middle.collect::<Vec<_>>(), 0.5)
    };
    let values: Vec<Vec<f64>> = (0..12).map(row).collect();
    let values = if settings.average == PrototypeAverage::Raw {
        tensor(&values)
    } else {
        normalize_rows(&tensor(&values)).unwrap()
    };
    let mean = vec![random(
        Stream::keyed(&[98]),
        &[0.0; CHANNELS],
        if settings.centered { 0.2 } else { 0.0 },
    )];
    Prototypes::new(settings, values, tensor(&mean).squeeze_dim(0), vec![true, true, true, false])
}

fn all_settings() -> impl Iterator<Item = PrototypeSettings> {
    [
        (PrototypeAverage::Normalized, false, 4),
        (PrototypeAverage::Raw, false, 4),
        (PrototypeAverage::Normalized, true, 3),
        (PrototypeAverage::Raw, true, 0),
    ]
    .into_iter()
    .map(|(average, centered, reseed_after)| PrototypeSettings {
        average,
        centered,
        reseed_after,
        ..SETTINGS
    })
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    rows(&tensor.unsqueeze(0)).remove(0)
}

#[test]
fn thirty_steps_equal_loops() {
    for settings in all_settings() {
        let mut prototypes = start(settings);
        let mut loops = Loops {
            settings,
            values: rows(prototypes.values()),
            mean: numbers(prototypes.mean()),
            counters: prototypes.counters().clone(),
        };
        let mut reseeded = 0;
        for number in 0..30 {
            let before = rows(prototypes.values());
            step(&mut prototypes, &batches(number), number);
            let after = rows(prototypes.values());
            let [moved, reinitialized] = loops.step(&batches(number), &after);
            for prototype in (0..12).filter(|prototype| !moved.contains(prototype)) {
                assert_eq!(after[prototype], before[prototype], "moved without a hit");
            }
            let found = after.iter().flatten().zip(loops.values.iter().flatten());
            for (found, expected) in found.chain(numbers(prototypes.mean()).iter().zip(&loops.mean))
            {
                assert!(
                    (found - expected).abs() < 1e-5,
                    "{settings:?}, step {number}: {found} {expected}"
                );
            }
            assert_eq!(*prototypes.counters(), loops.counters, "step {number}");
            assert_eq!(prototypes.counters().active[3], number >= 6);
            reseeded += reinitialized.len();
        }
        assert_eq!(reseeded > 2, settings.reseed_after > 0, "{reseeded} were re-initialized");
    }
}

#[test]
fn saving_and_restoring_changes_nothing() {
    for settings in all_settings() {
        let (mut whole, mut stopped) = (start(settings), start(settings));
        for number in 0..20 {
            step(&mut whole, &batches(number), number);
            let counters =
                serde_json::from_str(&serde_json::to_string(&stopped.counters()).unwrap()).unwrap();
            stopped = Prototypes::from_saved(
                settings,
                stopped.values().copy(),
                stopped.mean().copy(),
                counters,
            );
            step(&mut stopped, &batches(number), number);
        }
        assert_eq!(rows(whole.values()), rows(stopped.values()));
        assert_eq!(
            (numbers(whole.mean()), whole.counters()),
            (numbers(stopped.mean()), stopped.counters())
        );
    }
}

/// Two classes of two prototypes in three dimensions.
fn small(settings: PrototypeSettings, values: [[f64; 3]; 4], active: [bool; 2]) -> Prototypes {
    let settings = PrototypeSettings { classes: 2, per_class: 2, ..settings };
    Prototypes::new(
        settings,
        tensor(&values.map(Vec::from)),
        Tensor::zeros([3], (Kind::Float, Device::Cpu)),
        active.into(),
    )
}

fn points<const N: usize>(points: [([f64; 3], i64); N]) -> [Points; 1] {
    [(points.map(|(feature, _)| feature.to_vec()).into(), points.map(|(_, label)| label).into())]
}

const AXES: [[f64; 3]; 4] = [[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];

#[test]
fn a_class_enters_the_softmax_with_all_its_prototypes_at_its_first_point() {
    for average in [PrototypeAverage::Normalized, PrototypeAverage::Raw] {
        let mut prototypes = small(PrototypeSettings { average, ..SETTINGS }, AXES, [true, false]);
        let feature = tensor(&[vec![0.1, 2.0, 0.3]]);
        let loss = |prototypes: &Prototypes, label: i64| {
            prototypes
                .compare(&feature)
                .unwrap()
                .loss(&Tensor::from_slice(&[label]))
                .unwrap()
                .double_value(&[])
        };
        assert_eq!(rows(prototypes.compare(&feature).unwrap().logits())[0][1], f64::NEG_INFINITY);
        assert_eq!([loss(&prototypes, 0), loss(&prototypes, 1)], [0.0; 2]);
        step(&mut prototypes, &points([([1.0, 2.0, 0.0], 0), ([0.0, 1.0, 0.0], IGNORED)]), 3);
        assert_eq!(prototypes.counters().active, [true, false]);
        step(
            &mut prototypes,
            &points([([0.0, 2.0, 0.2], 1), ([0.2, 4.0, 0.4], 1), ([1.0, 0.0, 0.0], 0)]),
            4,
        );
        assert_eq!(prototypes.counters().active, [true, true]);
        assert!(loss(&prototypes, 0) > 5.0 && loss(&prototypes, 1) < 0.01);
        let values = rows(prototypes.values());
        let length = if average == PrototypeAverage::Raw { 3.02 } else { 1.0 };
        for value in &values[2..] {
            assert!(
                cosine(value, &[0.1, 3.0, 0.3]) > 0.99
                    && (dot(value, value).sqrt() / length - 1.0).abs() < 0.05
            );
        }
        assert_ne!(values[2], values[3]);
    }
}

#[test]
fn a_dead_prototype_moves_to_the_point_of_its_class_farthest_from_the_others() {
    let three = [
        ([1.0, 0.0, 0.2], 0),
        ([3.0, 3.0, 0.0], 0),
        ([-9.0, 0.0, 5.0], IGNORED),
        ([0.0, 1.0, 0.0], 1),
    ];
    for (average, taken) in [
        (PrototypeAverage::Normalized, unit(&[1.0, 1.0, 0.0])),
        (PrototypeAverage::Raw, vec![3.0, 3.0, 0.0]),
    ] {
        let mut prototypes =
            small(PrototypeSettings { average, reseed_after: 3, ..SETTINGS }, AXES, [true; 2]);
        // Steps in which the class has fewer points than prototypes do not count; class 1 never has two.
        for (number, one_only) in [false, true, false, true, true].into_iter().enumerate() {
            let points = if one_only {
                points([three[0], three[2]]).to_vec()
            } else {
                points(three).to_vec()
            };
            step(&mut prototypes, &points, number as u64);
            assert_eq!(rows(prototypes.values())[1], [-1.0, 0.0, 0.0]);
        }
        assert_eq!(prototypes.counters().steps_unassigned, [0, 2, 0, 0]);
        step(&mut prototypes, &points(three), 5);
        for (found, expected) in rows(prototypes.values())[1].iter().zip(taken) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
        assert_eq!(prototypes.counters().steps_unassigned, [0; 4]);
        assert_eq!(prototypes.counters().assignments, [9, 0, 3, 0]);

        let mut never =
            small(PrototypeSettings { average, reseed_after: 0, ..SETTINGS }, AXES, [true; 2]);
        (0..300).for_each(|number| step(&mut never, &points(three), number));
        assert_eq!(rows(never.values())[1], [-1.0, 0.0, 0.0]);
    }
}

#[test]
fn a_map_is_compared_pixel_by_pixel_with_features_centered_if_configured() {
    for settings in all_settings() {
        let (prototypes, features) = (start(settings), batches(1)[0].0[..15].to_vec());
        let map = tensor(&features).view([3, 5, CHANNELS as i64]).permute([2, 0, 1]).unsqueeze(0);
        let dense = rows(
            &prototypes.dense(&map).unwrap().squeeze_dim(0).permute([1, 2, 0]).reshape([15, 4]),
        );
        let (values, mean) = (rows(prototypes.values()), numbers(prototypes.mean()));
        for (feature, logits) in features.iter().zip(dense) {
            let feature: Vec<f64> =
                feature.iter().zip(&mean).map(|(value, mean)| value - mean).collect();
            for class in 0..3 {
                let closest = values[3 * class..][..3]
                    .iter()
                    .map(|value| cosine(&feature, value))
                    .fold(-1.0, f64::max);
                assert!((logits[class] - closest / 0.1).abs() < 1e-5);
            }
            // The finite stand-in for minus infinity of a class without prototypes.
            assert_eq!(logits[3], f64::from(published::NO_PROTOTYPE_LOGIT));
        }
    }
}
