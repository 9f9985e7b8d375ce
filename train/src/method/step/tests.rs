//! Whole steps of a small network.

use std::sync::OnceLock;

use super::*;
use crate::config::options::TrainingMode;
use crate::data::loader::{LabeledBatch, UnlabeledBatch};
use crate::data::teacher_labels::LabeledByTeacher;
use crate::method::prototypes::PrototypeSettings;
use crate::method::targets::MixedBatch;
use crate::net::from_torch;
use protoseg_models::arch::{Arch, Preset};
use protoseg_models::formula;
use protoseg_models::graph::Op;

const CLASSES: usize = 4;
const SIDE: usize = 64;

/// The network without dropout, which draws from a generator that other tests share.
fn graph() -> Graph {
    let preset = Arch::new(Preset::DeepLabV3PlusEfficientNetLite0, CLASSES).unwrap().graph();
    let mut graph = Graph::new();
    for node in &preset.nodes()[1..] {
        let op = if matches!(node.op, Op::Dropout2d { .. }) {
            Op::Dropout2d { p: 0.0 }
        } else {
            node.op.clone()
        };
        graph.push(node.name.clone(), op, &node.inputs);
    }
    for (&tag, &id) in preset.tags() {
        graph.tag(tag, id);
    }
    graph
}

/// Random weights with the running statistics of a batch, so that logits differ from pixel to pixel.
fn initial_weights() -> StateDict {
    static WEIGHTS: OnceLock<StateDict> = OnceLock::new();
    let make = || {
        let net = Net::new(graph(), &formula::weights(&graph(), Some(3)), Device::Cpu).unwrap();
        let _guard = tch::no_grad_guard();
        let images =
            net::images_to_tensor(&batch(50).labeled.pixels, [SIDE; 2], Device::Cpu).unwrap();
        let _ =
            net.forward_tagged(&images, ForwardMode::PreciseBn { seen: 0 }, Tag::Logits).unwrap();
        net.state_dict().unwrap()
    };
    WEIGHTS.get_or_init(make).clone()
}

/// Two labeled and two unlabeled images of random blocks; some labels are ignored, and a part of the first unlabeled image
/// is padding.
fn batch(seed: u64) -> MicroBatch {
    let pixels = || {
        (0..2 * SIDE * SIDE).map(|pixel| (pixel / (SIDE * SIDE), pixel / SIDE % SIDE, pixel % SIDE))
    };
    let block = |purpose: u64, (image, row, column): (usize, usize, usize)| {
        Stream::keyed(&[seed, purpose]).bits(((image * 8 + row / 8) * 8 + column / 8) as u64)
    };
    let colors = |purpose| -> Vec<u8> {
        pixels().flat_map(|pixel| block(purpose, pixel).to_le_bytes()[..3].to_vec()).collect()
    };
    let label = |pixel| match block(1, pixel) % 5 {
        4 => IGNORE_INDEX,
        label => label as u8,
    };
    let labeled = LabeledBatch {
        pixels: colors(0),
        labels: pixels().map(label).collect(),
        indices: vec![0, 1],
    };
    let valid = pixels().map(|(image, row, _)| u8::from(image > 0 || row < 40)).collect();
    let truth = vec![IGNORE_INDEX; 2 * SIDE * SIDE];
    let unlabeled = UnlabeledBatch {
        weak: colors(2),
        strong: None,
        valid,
        truth,
        teacher: None,
        indices: vec![0, 1],
    };
    MicroBatch { labeled, unlabeled: Some(unlabeled) }
}

/// Returns a learner with changed `key=value` settings.
fn learner(settings: &[&str]) -> Learner<'static> {
    let common = [
        "mode=prototype",
        "batch=2",
        "crop=64",
        "steps=100",
        "warmup_steps=50",
        "point_cells=16",
        "prototypes=2",
        "momentum=0",
        "weight_decay=0",
        "cutmix=1",
    ];
    let settings: Vec<String> =
        common.iter().chain(settings).map(|setting| (*setting).to_owned()).collect();
    let config = Config::parse(include_str!("../../../configs/synthetic.toml"), &settings).unwrap();
    let config: &Config = Box::leak(Box::new(config));
    let schedule = Schedule::new(config, 10, Some(10)).unwrap();
    let mut learner =
        Learner::new(config, schedule, &graph(), &initial_weights(), Device::Cpu).unwrap();
    if config.mode == TrainingMode::Prototype {
        let channels = graph().node(feature_node(&graph(), config.features).unwrap()).channels;
        let stream = Stream::keyed(&[8]);
        let values: Vec<f32> =
            (0..CLASSES * 2 * channels).map(|index| stream.unit(index as u64) as f32).collect();
        let values = Tensor::from_slice(&values).view([CLASSES as i64 * 2, channels as i64]);
        let mean = Tensor::zeros([channels as i64], (Kind::Float, Device::Cpu));
        let settings = PrototypeSettings::from_config(config, CLASSES);
        learner.prototypes = Some(Prototypes::new(settings, values, mean, vec![true; CLASSES]));
    }
    learner
}

fn prototypes<'a>(learner: &'a Learner) -> &'a Prototypes {
    learner.prototypes.as_ref().unwrap()
}

/// Returns the mixed unlabeled images with their predictions, and all images that the student sees.
fn mix_unlabeled(learner: &Learner, batch: &MicroBatch) -> (MixedBatch, Tensor) {
    let mixed = learner.mix_unlabeled(batch.unlabeled.as_ref().unwrap(), 0).unwrap();
    let labeled = learner.images_to_tensor(&batch.labeled.pixels).unwrap();
    let images = Tensor::cat(&[&labeled, &mixed.images], 0);
    (mixed, images)
}

fn names(report: &StepReport) -> Vec<&'static str> {
    report.terms.named().map(|(name, _)| name).collect()
}

fn count(mask: &Tensor) -> f64 {
    mask.sum(Kind::Int64).int64_value(&[]) as f64
}

#[test]
fn the_terms_are_those_of_the_mode() {
    let mut prototype = learner(&["prototype_weight=0.5", "unlabeled_weight=2"]);
    let report = prototype.step(&[batch(1)], 60).unwrap();
    assert_eq!(
        names(&report),
        ["labeled", "unlabeled", "prototype_labeled", "prototype_unlabeled"]
    );
    let sum: f64 = report
        .terms
        .named()
        .zip([1.0, 2.0, 0.5, 0.5])
        .map(|((_, term), weight)| term * weight)
        .sum();
    assert!((report.loss - sum).abs() < 1e-5 * sum);

    let mut mean_teacher = learner(&["mode=mean-teacher", "unlabeled_weight=2"]);
    let alone = mean_teacher.step(&[batch(1)], 60).unwrap();
    assert_eq!(names(&alone), ["labeled", "unlabeled"]);
    assert_eq!(
        (alone.terms.labeled, alone.terms.unlabeled),
        (report.terms.labeled, report.terms.unlabeled)
    );
    assert!(
        (alone.loss - alone.terms.labeled - 2.0 * alone.terms.unlabeled.unwrap()).abs()
            < 1e-5 * alone.loss
    );

    let warmup = MicroBatch { unlabeled: None, ..batch(1) };
    let warmup = learner(&[]).step(&[warmup], 0).unwrap();
    assert_eq!(
        (names(&warmup), warmup.kept_share, warmup.confidence),
        (vec!["labeled"], None, None)
    );
}

#[test]
fn with_no_pixel_kept_the_unlabeled_losses_are_zero_and_weights_stay_finite() {
    let mut learner = learner(&["unlabeled_gate=1", "accumulate=2"]);
    let report = learner.step(&[batch(1), batch(2)], 60).unwrap();
    assert_eq!((report.terms.unlabeled, report.terms.prototype_unlabeled), (Some(0.0), Some(0.0)));
    assert_eq!((report.dropped, report.kept_share), (2, Some(0.0)));
    let before = initial_weights();
    let after = learner.student.state_dict().unwrap();
    assert!(after.values().flat_map(|tensor| &tensor.data).all(|value| value.is_finite()));
    for (name, after) in after.iter().filter(|(name, _)| name.contains("running")) {
        assert_ne!(*after, before[name], "{name}: the student was not in training mode");
    }
    assert_ne!(after["encoder._conv_stem.weight"], before["encoder._conv_stem.weight"]);
}

#[test]
fn micro_batches_share_a_step_by_the_mean_of_their_gradients() {
    let mut both = learner(&["accumulate=2"]);
    let report = both.step(&[batch(1), batch(2)], 0).unwrap();
    // Alone, the second micro-batch has the same number as in the step of two, and so the same random streams.
    let mut alone = [learner(&[]), learner(&[])];
    let reports: Vec<StepReport> = (0..2)
        .map(|step| alone[step].step(&[batch(step as u64 + 1)], step as u64).unwrap())
        .collect();
    for (index, (name, term)) in report.terms.named().enumerate() {
        let [first, second] = [0, 1].map(|step| *reports[step].terms.named().nth(index).unwrap().1);
        assert!((term - (first + second) / 2.0).abs() < 1e-6 * term && first != second, "{name}");
    }
    // Without momentum and weight decay, velocities are gradients.
    let [gradients, first, second] =
        [&both, &alone[0], &alone[1]].map(|learner| learner.optimizer.state_dict().unwrap());
    assert_eq!(gradients.len(), both.student.trainable().count());
    for (name, gradient) in &gradients {
        let size = gradient.data.iter().fold(1e-6_f32, |size, value| size.max(value.abs()));
        for (index, value) in gradient.data.iter().enumerate() {
            let expected = (first[name].data[index] + second[name].data[index]) / 2.0;
            assert!((value - expected).abs() < 1e-3 * size, "{name}: {value} {expected}");
        }
    }
    let [hits, first, second] = [&both, &alone[0], &alone[1]]
        .map(|learner| prototypes(learner).counters().assignments.clone());
    assert!(
        hits.iter()
            .zip(first.iter().zip(second))
            .all(|(hits, (first, second))| *hits == first + second)
    );
    assert!(hits.iter().sum::<u64>() > 400, "{hits:?}");
}

#[test]
fn batch_statistics_of_the_teacher_are_those_of_a_pass_over_labeled_and_mixed_images() {
    let drop = "entropy_drop=50";
    let mut by_batch = learner(&["teacher_statistics=batch", drop]);
    let (mixed, images) = mix_unlabeled(&by_batch, &batch(1));
    let weak = mixed.pseudo.select(Some(50.0), false, CLASSES, 0.0).unwrap();
    assert_eq!(
        by_batch.teacher.state_dict().unwrap(),
        initial_weights(),
        "the pass over weak views has moved the statistics"
    );
    let other = Net::new(graph(), &initial_weights(), Device::Cpu).unwrap();
    let logits =
        tch::no_grad(|| other.forward_tagged(&images, ForwardMode::Train, Tag::Logits)).unwrap();
    let logits = net::upsample(&logits.narrow(0, 2, 2), [SIDE as i64; 2], false).unwrap();
    let entropy = logits.softmax(1, Kind::Double) * logits.log_softmax(1, Kind::Double);
    let entropy = -entropy.sum_dim_intlist([1_i64].as_slice(), false, Kind::Double);
    let labels = mixed.pseudo.labels.copy();
    let confidence = mixed.pseudo.confidence.copy();

    let judged = by_batch.teacher_entropy_of_mixed(mixed, &images, 0).unwrap().pseudo;
    assert!((&judged.entropy - entropy).abs().max().double_value(&[]) < 1e-4);
    assert!(
        judged.labels == labels && judged.confidence == confidence,
        "labels do not come from the weak views"
    );
    let after = by_batch.teacher.state_dict().unwrap();
    assert_eq!(after, other.state_dict().unwrap());
    for (name, after) in &after {
        assert_eq!(*after != initial_weights()[name], name.contains("running"), "{name}");
    }

    // The same in a step, with a teacher whose statistics have not moved yet.
    by_batch.teacher = Net::new(graph(), &initial_weights(), Device::Cpu).unwrap();
    let kept = judged.select(Some(50.0), false, CLASSES, 0.0).unwrap();
    let report = by_batch.step(&[batch(1)], 0).unwrap();
    assert_eq!(by_batch.teacher.state_dict().unwrap(), after);
    let weak_report = learner(&[drop]).step(&[batch(1)], 0).unwrap();
    let [term, weak_term] = [(&kept, report), (&weak, weak_report)].map(|(kept, report)| {
        assert_eq!(report.kept_share, Some(count(kept) / count(&judged.valid)));
        report.terms.unlabeled
    });
    assert_ne!(term, weak_term, "the entropy of the pass was not used");

    let mut average = learner(&[]);
    average.step(&[batch(1)], 0).unwrap();
    assert_eq!(
        average.teacher.state_dict().unwrap(),
        initial_weights(),
        "a step of the warm-up has moved the teacher"
    );
}

#[test]
fn the_unlabeled_loss_is_scaled_by_valid_pixels_or_by_all() {
    let valid = count(&mix_unlabeled(&learner(&[]), &batch(1)).0.pseudo.valid);
    let all = (2 * SIDE * SIDE) as f64;
    assert!(valid < 0.9 * all);
    let [by_valid, by_all] = ["valid", "all"].map(|scale| {
        learner(&[&format!("unlabeled_scale={scale}")]).step(&[batch(1)], 0).unwrap().terms
    });
    let ratio = by_all.unlabeled.unwrap() / by_valid.unlabeled.unwrap();
    assert!((ratio - all / valid).abs() < 1e-6, "{by_all:?} {by_valid:?} {valid}");
    assert_eq!(by_valid.labeled, by_all.labeled);
}

#[test]
fn prototypes_move_by_labeled_points_and_by_confident_ones() {
    let gate = 0.8;
    let batch = batch(1);
    let mut expected = learner(&["entropy_drop=0"]);
    let (MixedBatch { pseudo, .. }, images) = mix_unlabeled(&expected, &batch);
    let labels = [
        expected.map_to_tensor(&batch.labeled.labels).unwrap().to_kind(Kind::Int64),
        pseudo.masked_labels(&pseudo.valid).unwrap(),
    ];
    let points = [0, 1].map(|part| expected.points(&labels[part], 0, part as u64).unwrap());
    let [labeled, unlabeled] = [0, 1].map(|part| points[part].labels(&labels[part]).unwrap());
    let below_gate = points[1].read(&pseudo.confidence).unwrap().le(gate);
    let gated = unlabeled.masked_fill(&below_gate, i64::from(IGNORE_INDEX));
    let counted = |labels: &Tensor| count(&labels.ne(i64::from(IGNORE_INDEX)));
    let share = counted(&gated) / counted(&unlabeled);
    assert!((0.1..0.9).contains(&share), "{share} of the points pass the gate");
    let targets =
        Targets { images, frozen: None, labels: labels[0].shallow_clone(), pseudo_labels: None };
    let map = expected.forward(&targets, 0).unwrap().features.unwrap();
    let expected = expected.prototypes.as_mut().unwrap();
    let similarities = [0, 1].map(|part| {
        let features = points[part].features(&map.narrow(0, 2 * part as i64, 2), false).unwrap();
        expected.compare(&features).unwrap()
    });
    let expected_losses = [0, 1].map(|part| {
        similarities[part].loss([&labeled, &unlabeled][part]).unwrap().double_value(&[])
    });
    let mut sums = expected.begin_step().unwrap();
    expected.accumulate(&mut sums, &similarities[0], &labeled).unwrap();
    expected.accumulate(&mut sums, &similarities[1], &gated).unwrap();
    expected.update(sums, 0).unwrap();

    let run = |gate: f64, settings: &[&str]| {
        let gate = format!("prototype_gate={gate}");
        let mut learner = learner(&[settings, &["entropy_drop=0", &gate]].concat());
        let terms = learner.step(std::slice::from_ref(&batch), 0).unwrap().terms;
        let losses = [terms.prototype_labeled.unwrap(), terms.prototype_unlabeled.unwrap()];
        let prototypes = prototypes(&learner);
        (
            losses,
            prototypes.counters().assignments.clone(),
            from_torch(prototypes.values()).unwrap(),
        )
    };
    let (losses, hits, values) = run(gate, &[]);
    for (loss, expected) in losses.iter().zip(expected_losses) {
        assert!((loss - expected).abs() < 1e-5, "{loss} {expected}");
    }
    assert_eq!(hits, expected.counters().assignments);
    for (value, expected) in values.data.iter().zip(from_torch(expected.values()).unwrap().data) {
        assert!((value - expected).abs() < 1e-5, "{value} {expected}");
    }
    let (ungated, hits, _) = run(1.0, &[]);
    assert_eq!(
        (ungated, hits.iter().sum::<u64>() as f64),
        (losses, counted(&labeled)),
        "the gate has changed the loss"
    );
    let ([_, gated_loss], _, same) = run(gate, &["gate_loss=true"]);
    assert!(
        same == values
            && (gated_loss - similarities[1].loss(&gated).unwrap().double_value(&[])).abs() < 1e-5
    );
    assert_eq!(run(1.0, &["gate_loss=true"]).0[1], 0.0);
}

#[test]
fn mixing_frozen_outputs_equals_mixing_images_where_no_box_is_drawn() {
    let frozen = ["freeze_encoder=true", "pretrained=weights.pth"];
    let report = |settings: &[&str]| {
        let mut learner = learner(&[&frozen[..], settings].concat());
        let report = learner.step(&[batch(1)], 60).unwrap();
        let weight = from_torch(&learner.student.tensors()["decoder.classifier.weight"]).unwrap();
        (report, weight.data)
    };
    let plain = report(&["cutmix=0"]);
    let mixed = report(&["cutmix=0", "cutmix_features=true"]);
    let close = |a: f64, b: f64| (a - b).abs() < 1e-5 * a.abs().max(1.0);
    assert!(close(plain.0.loss, mixed.0.loss), "{} {}", plain.0.loss, mixed.0.loss);
    assert!(
        plain.1.iter().zip(&mixed.1).all(|(&a, &b)| close(f64::from(a), f64::from(b))),
        "the gradients differ"
    );
    // A box makes a difference, which images mixed in pixels do not share at the box's border.
    let boxed = report(&["cutmix_features=true"]);
    assert!(!close(plain.0.loss, boxed.0.loss) && boxed.0.loss.is_finite());
}

#[test]
fn labels_of_a_finished_teacher_take_the_place_of_the_averages() {
    let pixels = 2 * SIDE * SIDE;
    let labels: Vec<u8> = (0..pixels).map(|pixel| (pixel % CLASSES) as u8).collect();
    let confidence: Vec<u8> = (0..pixels).map(|pixel| (pixel % 256) as u8).collect();
    let mut batch = batch(1);
    if let Some(unlabeled) = &mut batch.unlabeled {
        unlabeled.teacher =
            Some(LabeledByTeacher { labels: labels.clone(), confidence: confidence.clone() });
    }
    let learner = learner(&[
        "cutmix=0",
        "mode=distill",
        "teacher=checkpoint",
        "unlabeled_gate=0.5",
        "entropy_drop=0",
    ]);
    let (MixedBatch { pseudo, .. }, _) = mix_unlabeled(&learner, &batch);
    let found: Vec<i64> = Vec::try_from(pseudo.labels.flatten(0, -1)).unwrap();
    assert!(found.iter().zip(&labels).all(|(&found, &label)| found == i64::from(label)));
    let found: Vec<f32> = Vec::try_from(pseudo.confidence.flatten(0, -1)).unwrap();
    assert!(found.iter().zip(&confidence).all(|(&a, &b)| (a - f32::from(b) / 255.0).abs() < 1e-6));
    let targets = learner.targets(&batch, 0, 0.0).unwrap();
    let kept = targets.pseudo_labels.unwrap();
    let valid = &batch.unlabeled.as_ref().unwrap().valid;
    // Confidence above 0.5 is 128 of 255 and more.
    let expected = valid.iter().zip(&confidence).filter(|&(&valid, &c)| valid == 1 && c >= 128);
    assert_eq!(kept.kept_pixels, expected.count() as u64);
}
