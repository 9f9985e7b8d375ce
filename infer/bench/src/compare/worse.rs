//! What two reports differ in besides time: what is worse, and what is to be known of the rest.

use super::{Measured, describe};
use crate::machine::MachineInfo;
use crate::report::{ScenarioResult, Subject};

/// By how much the share of right labels may fall, which the order of sums on another machine can make: a hundredth of a
/// percent, as the check of 32-bit files has it.
const LABELS: f64 = 1e-4;

/// By how many points the mean IoU may fall, as that check has it.
const MEAN_IOU: f64 = 0.1;

/// What is worse than it was, and no matter of time: queries that are not answered, labels that are not right.
pub(super) fn broken((one, before): Measured, (other, after): Measured) -> Vec<String> {
    let what = describe(other, after);
    let share = |point: &ScenarioResult| {
        let all = point.failed + point.samples.latency_ms.len();
        if all == 0 { 1.0 } else { point.failed as f64 / all as f64 }
    };
    let mut broken = Vec::new();
    if share(after) > share(before) {
        let (failed, answered) = (after.failed, after.samples.latency_ms.len());
        broken.push(format!("{what}: {failed} queries were not answered, and {answered} were"));
    }
    let [one, other] = [&one.accuracy, &other.accuracy];
    let mut fell = |what: &str, one: Option<f64>, other: Option<f64>, least: f64, unit: f64| {
        if let (Some(one), Some(other)) = (one, other)
            && one - other > least
        {
            broken.push(format!("{what} fell from {:.2} to {:.2} %", unit * one, unit * other));
        }
    };
    fell("label agreement", one.probe_agreement, other.probe_agreement, LABELS, 100.0);
    fell(
        "mean IoU",
        one.mean_iou.filter(|_| one.data == other.data),
        other.mean_iou,
        MEAN_IOU,
        1.0,
    );
    broken.dedup();
    broken
}

/// How the machines differ, but for what differs from hour to hour.
pub(super) fn machines(before: &MachineInfo, after: &MachineInfo) -> Vec<String> {
    let told = |facts: &MachineInfo| {
        let MachineInfo {
            runtime,
            processor,
            system,
            kernel,
            virtual_machine,
            container,
            gpus,
            ..
        } = facts;
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
        [
            ("processors", format!("{}, {} cores to use", text(&processor.name), processor.cores)),
            (
                "builds of ONNX Runtime",
                text(&runtime.as_ref().map(|runtime| runtime.build.clone())),
            ),
            ("systems", format!("{}, kernel {}", text(system), text(kernel))),
            ("GPUs", format!("{:?}", gpus.gpus.iter().map(|gpu| &gpu.name).collect::<Vec<_>>())),
            ("virtual machines", text(virtual_machine)),
            ("containers", text(container)),
        ]
    };
    let pairs = told(before).into_iter().zip(told(after)).filter(|(one, other)| one != other);
    pairs
        .map(|((what, one), (_, other))| format!("the {what} differ: {one}, then {other}"))
        .collect()
}

pub(super) fn notes((one, before): Measured, (other, after): Measured) -> Vec<String> {
    let mut notes = Vec::new();
    for (when, point) in [("before", before), ("after", after)] {
        notes.extend(point.unstable.iter().map(|why| format!("unstable {when}: {why}")));
        if point.failed > 0 {
            let (failed, answered) = (point.failed, point.samples.latency_ms.len());
            notes.push(format!("{when}, {failed} queries were not answered, and {answered} were"));
        }
    }
    let told =
        |subject: &Subject| format!("{} from {}", subject.pictures.count, subject.pictures.source);
    let differing = [
        ("names", one.name.clone(), other.name.clone()),
        ("models", one.model.clone(), other.model.clone()),
        ("pictures", told(one), told(other)),
    ];
    let differing = differing.into_iter().filter(|(_, one, other)| one != other);
    notes.extend(
        differing.map(|(what, one, other)| format!("the {what} differ: {one}, then {other}")),
    );
    notes
}
