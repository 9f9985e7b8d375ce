//! Cosines, logits and losses against loops in f64, and gradients against finite differences.

use super::*;
use protoseg_models::random::Stream;

const CLASSES: usize = 4;
const EACH: usize = 3;
const CHANNELS: usize = 5;
const POINTS: usize = 40;
const TEMPERATURE: f64 = 0.1;
const IGNORED: i64 = IGNORE_INDEX as i64;

/// Random points with labels, and random prototypes.
struct Case {
    points: Vec<Vec<f64>>,
    prototypes: Vec<Vec<f64>>,
    active: [bool; CLASSES],
    labels: Vec<i64>,
}

/// Every combination of active classes, each with its own seed.
fn cases() -> impl Iterator<Item = Case> {
    (0..1 << CLASSES)
        .map(|bits| Case::draw(bits, std::array::from_fn(|class| bits >> class & 1 == 0)))
}

impl Case {
    fn draw(seed: u64, active: [bool; CLASSES]) -> Self {
        let stream = Stream::keyed(&[seed]);
        // Rows of very different lengths, which cosines must not depend on, in numbers that f32 represents.
        let row = |stream: Stream| -> Vec<f64> {
            let length = stream.range(100, 0.2, 5.0);
            (0..CHANNELS as u64)
                .map(|channel| f64::from((length * stream.signed_unit(channel)) as f32))
                .collect()
        };
        let rows = |part, count: usize| {
            (0..count as u64).map(|index| row(stream.child(part).child(index))).collect()
        };
        let labels =
            (0..POINTS as u64).map(|point| match stream.below(point, CLASSES + 1) as i64 {
                label if label < CLASSES as i64 => label,
                _ => IGNORED,
            });
        Self {
            points: rows(1, POINTS),
            prototypes: rows(2, CLASSES * EACH),
            active,
            labels: labels.collect(),
        }
    }

    fn similarity(&self) -> Similarity {
        Similarity::new(tensor(&self.points), &tensor(&self.prototypes), &self.active, TEMPERATURE)
            .unwrap()
    }

    fn cosine(&self, point: usize, class: usize, number: usize) -> f64 {
        let (left, right) = (&self.points[point], &self.prototypes[class * EACH + number]);
        let dot = |left: &[f64], right: &[f64]| -> f64 {
            left.iter().zip(right).map(|(left, right)| left * right).sum()
        };
        dot(left, right) / (dot(left, left) * dot(right, right)).sqrt()
    }

    fn largest_cosine(&self, point: usize, class: usize) -> f64 {
        (0..EACH).map(|number| self.cosine(point, class, number)).fold(f64::NEG_INFINITY, f64::max)
    }

    fn logit(&self, point: usize, class: usize) -> f64 {
        if self.active[class] {
            self.largest_cosine(point, class) / TEMPERATURE
        } else {
            f64::NEG_INFINITY
        }
    }

    fn loss(&self) -> f64 {
        let (mut sum, mut count) = (0.0, 0.0);
        for (point, &label) in self.labels.iter().enumerate() {
            if label == IGNORED || !self.active[label as usize] {
                continue;
            }
            let all: f64 = (0..CLASSES).map(|class| self.logit(point, class).exp()).sum();
            sum += all.ln() - self.logit(point, label as usize);
            count += 1.0;
        }
        if count == 0.0 { 0.0 } else { sum / count }
    }
}

fn tensor(rows: &[Vec<f64>]) -> Tensor {
    Tensor::from_slice2(rows).to_kind(Kind::Float)
}

fn rows(tensor: &Tensor) -> Vec<Vec<f64>> {
    Vec::try_from(tensor.to_kind(Kind::Double)).unwrap()
}

#[test]
fn logits_are_the_largest_cosines_of_active_classes_over_the_temperature() {
    for case in cases() {
        for (point, logits) in rows(case.similarity().logits()).iter().enumerate() {
            for (class, &logit) in logits.iter().enumerate() {
                let expected = case.logit(point, class);
                assert!(logit == expected || (logit - expected).abs() < 1e-5, "{logit} {expected}");
            }
        }
    }
}

#[test]
fn the_loss_is_the_mean_over_labeled_points_of_active_classes() {
    for case in cases() {
        let found =
            case.similarity().loss(&Tensor::from_slice(&case.labels)).unwrap().double_value(&[]);
        assert!((found - case.loss()).abs() < 1e-5, "{:?}: {found} {}", case.active, case.loss());
    }
    let ignored =
        Case { labels: vec![IGNORED; POINTS], ..Case::draw(1, [true, false, true, true]) };
    assert_eq!(
        ignored.similarity().loss(&Tensor::from_slice(&ignored.labels)).unwrap().double_value(&[]),
        0.0
    );
}

#[test]
fn gradients_equal_finite_differences_and_prototypes_have_none() {
    for mut case in cases() {
        let points = tensor(&case.points).set_requires_grad(true);
        let prototypes = tensor(&case.prototypes).set_requires_grad(true);
        let similarity =
            Similarity::new(points.shallow_clone(), &prototypes, &case.active, TEMPERATURE)
                .unwrap();
        similarity.loss(&Tensor::from_slice(&case.labels)).unwrap().backward();
        assert!(!prototypes.grad().defined(), "a gradient has reached the prototypes");
        let found = rows(&points.grad());
        for (point, channel) in
            (0..POINTS).flat_map(|point| (0..CHANNELS).map(move |channel| (point, channel)))
        {
            let value = case.points[point][channel];
            let mut loss = |value| {
                case.points[point][channel] = value;
                case.loss()
            };
            let difference = 1e-6;
            let expected =
                (loss(value + difference) - loss(value - difference)) / (2.0 * difference);
            loss(value);
            let found = found[point][channel];
            assert!(
                (found - expected).abs() < 1e-5 * (1.0 + expected.abs()),
                "{:?}: {found} {expected}",
                case.active
            );
        }
    }
}

#[test]
fn a_loss_without_points_is_zero_with_a_gradient_of_zero() {
    let label = |class| vec![class; POINTS];
    for (active, labels) in [
        ([true; CLASSES], label(IGNORED)),
        ([true, true, false, true], label(IGNORED)),
        ([true, true, false, true], label(2)),
        ([false; CLASSES], label(1)),
    ] {
        let case = Case::draw(3, active);
        let points = tensor(&case.points).set_requires_grad(true);
        let similarity = Similarity::new(
            points.shallow_clone(),
            &tensor(&case.prototypes),
            &active,
            TEMPERATURE,
        )
        .unwrap();
        let loss = similarity.loss(&Tensor::from_slice(&labels)).unwrap();
        loss.backward();
        assert_eq!(
            (loss.double_value(&[]), points.grad().abs().max().double_value(&[])),
            (0.0, 0.0),
            "{active:?}"
        );
    }
}

fn positions(count: usize) -> Tensor {
    Tensor::arange(count as i64, (Kind::Int64, tch::Device::Cpu))
}

#[test]
fn a_point_belongs_to_the_nearest_prototype_of_its_own_class() {
    let case = Case::draw(5, [true, true, false, true]);
    // The nearest of all prototypes mostly belongs to another class.
    let labels: Vec<i64> = (0..POINTS).map(|point| (point % CLASSES) as i64).collect();
    let nearest = |point: usize| {
        let cosine = |number: &usize| case.cosine(point, point % CLASSES, *number);
        (0..EACH).max_by(|left, right| cosine(left).total_cmp(&cosine(right))).unwrap() as i64
    };
    let found: Vec<i64> = case
        .similarity()
        .nearest(&Tensor::from_slice(&labels), &positions(POINTS))
        .unwrap()
        .try_into()
        .unwrap();
    assert_eq!(found, (0..POINTS).map(nearest).collect::<Vec<_>>());

    let chosen = [7_i64, 3, 30, 31];
    let labels = chosen.map(|point| point % CLASSES as i64);
    let found = case
        .similarity()
        .nearest(&Tensor::from_slice(&labels), &Tensor::from_slice(&chosen))
        .unwrap();
    assert_eq!(Vec::<i64>::try_from(found).unwrap(), chosen.map(|point| nearest(point as usize)));
}

#[test]
fn a_point_belongs_to_the_first_of_equally_near_prototypes() {
    let prototypes = tensor(
        &[[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]].map(Vec::from),
    );
    let points = tensor(&[[2.0, 0.0], [0.0, 3.0], [1.0, 1.0], [1.0, 1.0]].map(Vec::from));
    let similarity = Similarity::new(points, &prototypes, &[true; 2], TEMPERATURE).unwrap();
    let found = similarity.nearest(&Tensor::from_slice(&[0_i64, 1, 0, 1]), &positions(4)).unwrap();
    assert_eq!(Vec::<i64>::try_from(found).unwrap(), [1, 1, 0, 0]);
}

#[test]
fn own_and_other_cosines_equal_loops_over_active_classes() {
    for case in cases() {
        let chosen: Vec<usize> = (0..POINTS)
            .filter(|&point| {
                case.labels[point] != IGNORED && case.active[case.labels[point] as usize]
            })
            .collect();
        if chosen.is_empty() {
            continue;
        }
        let positions: Vec<i64> = chosen.iter().map(|&point| point as i64).collect();
        let labels: Vec<i64> = chosen.iter().map(|&point| case.labels[point]).collect();
        let found = case
            .similarity()
            .own_and_other(&Tensor::from_slice(&labels), &Tensor::from_slice(&positions));
        let [own, other] = found.unwrap().map(|cosines| Vec::<f32>::try_from(cosines).unwrap());
        for (place, (point, label)) in chosen.into_iter().zip(labels).enumerate() {
            let others =
                (0..CLASSES).filter(|&class| class != label as usize && case.active[class]);
            let closest =
                others.map(|class| case.largest_cosine(point, class)).fold(-1.0, f64::max);
            assert!(
                (f64::from(own[place]) - case.largest_cosine(point, label as usize)).abs() < 1e-6
            );
            assert!((f64::from(other[place]) - closest).abs() < 1e-6);
        }
    }
}
