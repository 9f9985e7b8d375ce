//! Whole steps of a small network.

use std::sync::OnceLock;

use super::*;
use crate::data::loader::{LabeledBatch, UnlabeledBatch};
use crate::method::prototypes::PrototypeSettings;
use crate::method::targets::MixedBatch;
use crate::net::from_torch;
use protoseg_models::arch::{Arch, Preset};
use protoseg_models::classes::IGNORE_INDEX;
use protoseg_models::formula;
use protoseg_models::graph::{Graph, Op};
use protoseg_models::weights::StateDict;
use tch::Device;

const CLASSES: usize = 4;
const SIDE: usize = 64;

/// A run that is about to do a step.
struct Bench {
    config: Config,
    student: Net,
    teacher: Net,
    sgd: Sgd,
    prototypes: Prototypes,
    tally: ClassCounters,
}

/// The network without dropout, whose generator other tests draw from.
fn graph() -> Graph {
    let drawn = Arch::new(Preset::DeepLabV3PlusEfficientNetLite0, CLASSES).unwrap().graph();
    let mut graph = Graph::new();
    for node in &drawn.nodes()[1..] {
        let op = if matches!(node.op, Op::Dropout2d { .. }) {
            Op::Dropout2d { p: 0.0 }
        } else {
            node.op.clone()
        };
        graph.push(node.name.clone(), op, &node.inputs);
    }
    for (&tag, &id) in drawn.tags() {
        graph.tag(tag, id);
    }
    graph
}

/// Random weights with the running statistics of a batch, so that logits differ from place to place.
fn start() -> StateDict {
    static START: OnceLock<StateDict> = OnceLock::new();
    let make = || {
        let net = Net::new(graph(), &formula::weights(&graph(), Some(3)), Device::Cpu).unwrap();
        let _guard = tch::no_grad_guard();
        let pictures =
            net::images_to_tensor(&batch(50).labeled.pixels, [SIDE; 2], Device::Cpu).unwrap();
        let _ =
            net.forward_tagged(&pictures, ForwardMode::PreciseBn { seen: 0 }, Tag::Logits).unwrap();
        net.state_dict().unwrap()
    };
    START.get_or_init(make).clone()
}

/// Two labelled and two unlabelled pictures of blocks; a part of the labels is missing, and a part of the first unlabelled
/// picture is padding.
fn batch(seed: u64) -> MicroBatch {
    let places = || {
        (0..2 * SIDE * SIDE).map(|place| (place / (SIDE * SIDE), place / SIDE % SIDE, place % SIDE))
    };
    let block = |purpose: u64, (picture, row, column): (usize, usize, usize)| {
        Stream::keyed(&[seed, purpose]).bits(((picture * 8 + row / 8) * 8 + column / 8) as u64)
    };
    let pixels = |purpose| -> Vec<u8> {
        places().flat_map(|place| block(purpose, place).to_le_bytes()[..3].to_vec()).collect()
    };
    let label = |place| match block(1, place) % 5 {
        4 => IGNORE_INDEX,
        label => label as u8,
    };
    let labeled = LabeledBatch {
        pixels: pixels(0),
        labels: places().map(label).collect(),
        indices: vec![0, 1],
    };
    let valid = places().map(|(picture, row, _)| u8::from(picture > 0 || row < 40)).collect();
    let truth = vec![IGNORE_INDEX; 2 * SIDE * SIDE];
    let unlabeled =
        UnlabeledBatch { weak: pixels(2), strong: None, valid, truth, indices: vec![0, 1] };
    MicroBatch { labeled, unlabeled: Some(unlabeled) }
}

impl Bench {
    fn new(settings: &[&str]) -> Self {
        let common = [
            "mode=prototype",
            "batch=2",
            "crop=64",
            "steps=100",
            "warmup_steps=50",
            "point_cells=16",
        ];
        let common =
            common.into_iter().chain(["prototypes=2", "momentum=0", "weight_decay=0", "cutmix=1"]);
        let settings: Vec<String> =
            common.chain(settings.iter().copied()).map(str::to_owned).collect();
        let config =
            Config::parse(include_str!("../../../configs/synthetic.toml"), &settings).unwrap();
        let net = || Net::new(graph(), &start(), Device::Cpu).unwrap();
        let channels = graph().node(feature_node(&graph(), config.features).unwrap()).channels;
        let stream = Stream::keyed(&[8]);
        let values: Vec<f32> =
            (0..CLASSES * 2 * channels).map(|index| stream.unit(index as u64) as f32).collect();
        let values = Tensor::from_slice(&values).view([CLASSES as i64 * 2, channels as i64]);
        let mean = Tensor::zeros([channels as i64], (Kind::Float, Device::Cpu));
        Self {
            student: net(),
            teacher: net(),
            sgd: Sgd::new(config.momentum, config.weight_decay),
            prototypes: Prototypes::new(
                PrototypeSettings::from_config(&config, CLASSES),
                values,
                mean,
                vec![true; CLASSES],
            ),
            tally: ClassCounters::new(CLASSES, Device::Cpu).unwrap(),
            config,
        }
    }

    fn learner(&self) -> Learner<'_> {
        learner(&self.config, &self.student, &self.teacher)
    }

    fn step(&mut self, batches: &[MicroBatch], step: u64) -> StepReport {
        let prototypes = (self.config.mode == crate::config::options::TrainingMode::Prototype)
            .then_some(&mut self.prototypes);
        let moving = StepState { sgd: &mut self.sgd, prototypes, tally: &mut self.tally };
        learner(&self.config, &self.student, &self.teacher).step(moving, batches, step).unwrap()
    }

    /// What the student is to learn from the unlabelled pictures of the first micro-batch, all pictures that it sees, and
    /// the pixels that it is judged on.
    fn mix_unlabeled(&self, batch: &MicroBatch) -> (MixedBatch, Tensor) {
        let mut tally = ClassCounters::new(CLASSES, Device::Cpu).unwrap();
        let view =
            self.learner().mix_unlabeled(batch.unlabeled.as_ref().unwrap(), 0, &mut tally).unwrap();
        let pictures = self.learner().images_to_tensor(&batch.labeled.pixels).unwrap();
        let together = Tensor::cat(&[&pictures, &view.images], 0);
        (view, together)
    }
}

fn learner<'a>(config: &'a Config, student: &'a Net, teacher: &'a Net) -> Learner<'a> {
    let schedule = Schedule::new(config, 10, Some(10)).unwrap();
    Learner { config, schedule, student, teacher, class_weights: None, align_corners: false }
}

fn names(report: &StepReport) -> Vec<&'static str> {
    report.terms.named().map(|(name, _)| name).collect()
}

fn count(mask: &Tensor) -> f64 {
    mask.sum(Kind::Int64).int64_value(&[]) as f64
}

#[test]
fn the_terms_are_those_of_the_mode() {
    let mut prototype = Bench::new(&["prototype_weight=0.5", "unlabeled_weight=2"]);
    let report = prototype.step(&[batch(1)], 60);
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

    let mut teacher = Bench::new(&["mode=mean-teacher", "unlabeled_weight=2"]);
    let alone = teacher.step(&[batch(1)], 60);
    assert_eq!(names(&alone), ["labeled", "unlabeled"]);
    assert_eq!(
        (alone.terms.labeled, alone.terms.unlabeled),
        (report.terms.labeled, report.terms.unlabeled)
    );
    assert!(
        (alone.loss - alone.terms.labeled - 2.0 * alone.terms.unlabeled.unwrap()).abs()
            < 1e-5 * alone.loss
    );

    let warmup = Bench::new(&[]).step(&[MicroBatch { unlabeled: None, ..batch(1) }], 0);
    assert_eq!(
        (names(&warmup), warmup.kept_share, warmup.confidence),
        (vec!["labeled"], None, None)
    );
}

#[test]
fn where_nothing_is_kept_the_unlabelled_losses_are_zero_and_weights_stay_finite() {
    let mut bench = Bench::new(&["unlabeled_gate=1", "accumulate=2"]);
    let report = bench.step(&[batch(1), batch(2)], 60);
    assert_eq!((report.terms.unlabeled, report.terms.prototype_unlabeled), (Some(0.0), Some(0.0)));
    assert_eq!((report.dropped, report.kept_share), (2, Some(0.0)));
    let after = bench.student.state_dict().unwrap();
    assert!(after.values().flat_map(|tensor| &tensor.data).all(|value| value.is_finite()));
    for (name, after) in after.iter().filter(|(name, _)| name.contains("running")) {
        assert_ne!(*after, start()[name], "{name}: the student has not been in training mode");
    }
    assert_ne!(after["encoder._conv_stem.weight"], start()["encoder._conv_stem.weight"]);
}

#[test]
fn micro_batches_share_a_step_by_the_mean_of_their_gradients() {
    let mut both = Bench::new(&["accumulate=2"]);
    let report = both.step(&[batch(1), batch(2)], 0);
    // Alone, the second micro-batch has the same number as in the step of two, and so the same draws.
    let mut alone = [Bench::new(&[]), Bench::new(&[])];
    let reports: Vec<StepReport> =
        (0..2).map(|step| alone[step].step(&[batch(step as u64 + 1)], step as u64)).collect();
    for (place, (name, term)) in report.terms.named().enumerate() {
        let [first, second] = [0, 1].map(|step| *reports[step].terms.named().nth(place).unwrap().1);
        assert!((term - (first + second) / 2.0).abs() < 1e-6 * term && first != second, "{name}");
    }
    // Without momentum and decay, velocities are gradients.
    let [gradients, first, second] =
        [&both, &alone[0], &alone[1]].map(|bench| bench.sgd.state_dict().unwrap());
    assert_eq!(gradients.len(), both.student.trainable().count());
    for (name, gradient) in &gradients {
        let size = gradient.data.iter().fold(1e-6_f32, |size, value| size.max(value.abs()));
        for (index, value) in gradient.data.iter().enumerate() {
            let expected = (first[name].data[index] + second[name].data[index]) / 2.0;
            assert!((value - expected).abs() < 1e-3 * size, "{name}: {value} {expected}");
        }
    }
    let [hits, first, second] =
        [&both, &alone[0], &alone[1]].map(|bench| bench.prototypes.counters().assignments);
    assert!(
        hits.iter()
            .zip(first.iter().zip(second))
            .all(|(hits, (first, second))| *hits == first + second)
    );
    assert!(hits.iter().sum::<u64>() > 400, "{hits:?}");
}

#[test]
fn batch_statistics_of_the_teacher_are_those_of_a_pass_over_labelled_and_mixed_pictures() {
    let drop = "entropy_drop=50";
    let mut bench = Bench::new(&["teacher_statistics=batch", drop]);
    let (view, together) = bench.mix_unlabeled(&batch(1));
    let weak = view.pseudo.select(Some(50.0), false, CLASSES, 0.0).unwrap();
    assert_eq!(
        bench.teacher.state_dict().unwrap(),
        start(),
        "the weak pictures have moved the statistics"
    );
    let other = Net::new(graph(), &start(), Device::Cpu).unwrap();
    let logits =
        tch::no_grad(|| other.forward_tagged(&together, ForwardMode::Train, Tag::Logits)).unwrap();
    let logits = net::upsample(&logits.narrow(0, 2, 2), [SIDE as i64; 2], false).unwrap();
    let entropy = logits.softmax(1, Kind::Double) * logits.log_softmax(1, Kind::Double);
    let entropy = -entropy.sum_dim_intlist([1_i64].as_slice(), false, Kind::Double);
    let (labels, confidence) = (view.pseudo.labels.copy(), view.pseudo.confidence.copy());

    let judged = bench.learner().teacher_entropy_of_mixed(view, &together, 0).unwrap().pseudo;
    assert!((&judged.entropy - entropy).abs().max().double_value(&[]) < 1e-4);
    assert!(
        judged.labels == labels && judged.confidence == confidence,
        "labels come from the weak pictures"
    );
    let after = bench.teacher.state_dict().unwrap();
    assert_eq!(after, other.state_dict().unwrap());
    for (name, after) in &after {
        assert_eq!(*after != start()[name], name.contains("running"), "{name}");
    }

    // The same in a step, the first one of a teacher that has not judged yet.
    bench.teacher = Net::new(graph(), &start(), Device::Cpu).unwrap();
    let kept = judged.select(Some(50.0), false, CLASSES, 0.0).unwrap();
    let report = bench.step(&[batch(1)], 0);
    assert_eq!(bench.teacher.state_dict().unwrap(), after);
    let [terms, weak_terms] = [(&kept, report), (&weak, Bench::new(&[drop]).step(&[batch(1)], 0))]
        .map(|(kept, report)| {
            assert_eq!(report.kept_share, Some(count(kept) / count(&judged.valid)));
            report.terms.unlabeled
        });
    assert_ne!(terms, weak_terms, "the entropy of the pass counts for nothing");

    let mut average = Bench::new(&[]);
    average.step(&[batch(1)], 0);
    assert_eq!(average.teacher.state_dict().unwrap(), start(), "a step has moved the teacher");
}

#[test]
fn the_unlabelled_loss_is_scaled_by_valid_pixels_or_by_all() {
    let valid = count(&Bench::new(&[]).mix_unlabeled(&batch(1)).0.pseudo.valid);
    let all = (2 * SIDE * SIDE) as f64;
    assert!(valid < 0.9 * all);
    let terms = ["valid", "all"]
        .map(|scale| Bench::new(&[&format!("unlabeled_scale={scale}")]).step(&[batch(1)], 0).terms);
    let [by_valid, by_all] = [0, 1].map(|place| terms[place].unlabeled.unwrap());
    assert!((by_all / by_valid - all / valid).abs() < 1e-6, "{by_all} {by_valid} {valid}");
    assert_eq!(terms[0].labeled, terms[1].labeled);
}

#[test]
fn prototypes_move_by_labelled_points_and_by_sure_ones() {
    let gate = 0.8;
    let batch = batch(1);
    let mut bench = Bench::new(&["entropy_drop=0"]);
    let (MixedBatch { pseudo, .. }, together) = bench.mix_unlabeled(&batch);
    let learner = bench.learner();
    let labels = [
        learner.map_to_tensor(&batch.labeled.labels).unwrap().to_kind(Kind::Int64),
        pseudo.masked_labels(&pseudo.valid).unwrap(),
    ];
    let pixels = [0, 1].map(|part| learner.points(&labels[part], CLASSES, 0, part as u64).unwrap());
    let [known, thought] = [0, 1].map(|part| pixels[part].labels(&labels[part]).unwrap());
    let unsure = pixels[1].read(&pseudo.confidence).unwrap().le(gate);
    let passed = thought.masked_fill(&unsure, i64::from(IGNORE_INDEX));
    let counted = |labels: &Tensor| count(&labels.ne(i64::from(IGNORE_INDEX)));
    let share = counted(&passed) / counted(&thought);
    assert!((0.1..0.9).contains(&share), "{share} of the points are sure");
    let map = learner.forward(&together, true, 0).unwrap().features.unwrap();
    let compared = [0, 1].map(|part| {
        let features = pixels[part].features(&map.narrow(0, 2 * part as i64, 2), false).unwrap();
        bench.prototypes.compare(&features).unwrap()
    });
    let expected =
        [0, 1].map(|part| compared[part].loss([&known, &thought][part]).unwrap().double_value(&[]));
    let mut gathered = bench.prototypes.begin_step().unwrap();
    bench.prototypes.accumulate(&mut gathered, &compared[0], &known).unwrap();
    bench.prototypes.accumulate(&mut gathered, &compared[1], &passed).unwrap();
    bench.prototypes.update(gathered, 0).unwrap();

    let run = |gate: f64, settings: &[&str]| {
        let gate = format!("prototype_gate={gate}");
        let mut bench = Bench::new(&[settings, &["entropy_drop=0", &gate]].concat());
        let LossTerms { prototype_labeled, prototype_unlabeled, .. } =
            bench.step(std::slice::from_ref(&batch), 0).terms;
        let values = from_torch(bench.prototypes.values()).unwrap();
        (
            [prototype_labeled.unwrap(), prototype_unlabeled.unwrap()],
            bench.prototypes.counters().assignments,
            values,
        )
    };
    let (losses, hits, values) = run(gate, &[]);
    for (loss, expected) in losses.iter().zip(expected) {
        assert!((loss - expected).abs() < 1e-5, "{loss} {expected}");
    }
    assert_eq!(hits, bench.prototypes.counters().assignments);
    for (value, expected) in
        values.data.iter().zip(from_torch(bench.prototypes.values()).unwrap().data)
    {
        assert!((value - expected).abs() < 1e-5, "{value} {expected}");
    }
    let (ungated, hits, _) = run(1.0, &[]);
    assert_eq!(
        (ungated, hits.iter().sum::<u64>() as f64),
        (losses, counted(&known)),
        "the gate has changed the loss"
    );
    let ([_, gated], _, same) = run(gate, &["gate_loss=true"]);
    assert!(
        same == values
            && (gated - compared[1].loss(&passed).unwrap().double_value(&[])).abs() < 1e-5
    );
    assert_eq!(run(1.0, &["gate_loss=true"]).0[1], 0.0);
}
