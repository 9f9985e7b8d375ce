//! The mean teacher (Tarvainen and Valpola, 2017): an exponential moving average of the student's weights and running
//! statistics.

use anyhow::Result;
use tch::Tensor;

use crate::config::Config;
use crate::config::options::{TeacherStatistics, TrainingMode};
use crate::method::schedule::Schedule;
use crate::net::Net;

/// Returns the decay of update t, counted from 0: `min(1 - 1 / (t + 1), decay)`, so that the first update copies the
/// student.
pub fn decay_at(update: u64, decay: f64) -> f64 {
    (1.0 - 1.0 / (update as f64 + 1.0)).min(decay)
}

/// Share of the updates that the average of a supervised run looks back on at most.
const LOOK_BACK: f64 = 0.1;

/// Returns the largest decay of a run with so many updates.
///
/// In supervised runs nobody learns from the average: it is what is scored and published. Over fewer updates than ten times
/// its length, it would still hold the first students, so it is shortened there.
pub fn largest_decay(config: &Config, schedule: Schedule) -> f64 {
    if config.mode != TrainingMode::Supervised || config.fidelity.is_some() {
        return config.teacher_decay;
    }
    let updates = schedule.steps.saturating_sub(schedule.warmup) as f64;
    config.teacher_decay.min(1.0 - 1.0 / (1.0 + LOOK_BACK * updates))
}

/// Updates every parameter, and with `buffers` every buffer: `teacher <- decay teacher + (1 - decay) student`.
pub fn update_ema(teacher: &Net, student: &Net, decay: f64, buffers: bool) -> Result<()> {
    let _guard = tch::no_grad_guard();
    for (name, student) in
        student.tensors().iter().filter(|(name, _)| buffers || student.is_trainable(name))
    {
        let mut average: Tensor = teacher.tensors()[name].shallow_clone();
        if decay == 0.0 {
            average.f_copy_(student)?;
        } else {
            let _ = average.f_lerp_(student, 1.0 - decay)?;
        }
    }
    Ok(())
}

/// Updates the teacher after a step; does nothing in the warm-up.
pub fn update_after_step(
    teacher: &Net,
    student: &Net,
    config: &Config,
    schedule: Schedule,
    step: u64,
) -> Result<()> {
    let Some(update) = step.checked_sub(schedule.warmup) else { return Ok(()) };
    let copies = config.copy_teacher_each_step && update < schedule.steps_per_epoch;
    let decay = if copies { 0.0 } else { decay_at(update, largest_decay(config, schedule)) };
    update_ema(teacher, student, decay, config.teacher_statistics == TeacherStatistics::Average)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protoseg_models::arch::{Arch, Preset};
    use protoseg_models::formula;
    use tch::Device;

    #[test]
    fn the_update_follows_the_formula() {
        assert_eq!([0, 1, 3, 1000].map(|update| decay_at(update, 0.99)), [0.0, 0.5, 0.75, 0.99]);
        let graph = Arch::new(Preset::DeepLabV3PlusEfficientNetLite0, 3).unwrap().graph();
        let net = |seed| {
            Net::new(graph.clone(), &formula::weights(&graph, Some(seed)), Device::Cpu).unwrap()
        };
        let (teacher, student) = (net(1), net(2));
        let before = teacher.state_dict().unwrap();
        update_ema(&teacher, &student, 0.75, true).unwrap();
        let (after, target) = (teacher.state_dict().unwrap(), student.state_dict().unwrap());
        for (name, after) in &after {
            for (index, &after) in after.data.iter().enumerate() {
                let expected = 0.75 * before[name].data[index] + 0.25 * target[name].data[index];
                assert!((after - expected).abs() <= 1e-6 * (1.0 + expected.abs()), "{name}");
            }
        }
        update_ema(&teacher, &student, 0.0, true).unwrap();
        assert_eq!(teacher.state_dict().unwrap(), target);

        let teacher = net(1);
        update_ema(&teacher, &student, 0.75, false).unwrap();
        for (name, after) in teacher.state_dict().unwrap() {
            assert_eq!(after == before[&name], name.contains("running"), "{name}");
        }
    }

    /// Returns whether all parameters and whether all statistics equal the student's after a step.
    fn same_after(step: u64, settings: &[&str]) -> [bool; 2] {
        let settings: Vec<String> = ["steps=10", "warmup_steps=4", "batch=2"]
            .iter()
            .chain(settings)
            .map(ToString::to_string)
            .collect();
        let config =
            Config::parse(include_str!("../../configs/synthetic.toml"), &settings).unwrap();
        // Two steps are a pass over four images.
        let schedule = Schedule::new(&config, 9, Some(4)).unwrap();
        let graph = Arch::new(Preset::DeepLabV3PlusEfficientNetLite0, 3).unwrap().graph();
        let [teacher, student] = [1, 2].map(|seed| {
            Net::new(graph.clone(), &formula::weights(&graph, Some(seed)), Device::Cpu).unwrap()
        });
        update_after_step(&teacher, &student, &config, schedule, step).unwrap();
        let (teacher, student) = (teacher.state_dict().unwrap(), student.state_dict().unwrap());
        [false, true].map(|statistics| {
            let mut names = student.keys().filter(|name| name.contains("running") == statistics);
            names.all(|name| student[name] == teacher[name])
        })
    }

    #[test]
    fn copy_teacher_each_step_copies_the_student_in_the_first_epoch_only() {
        let copied = ["copy_teacher_each_step=true"];
        assert_eq!(
            [3, 4, 5, 6].map(|step| same_after(step, &copied)[0]),
            [false, true, true, false]
        );
        assert_eq!([3, 4, 5].map(|step| same_after(step, &[])[0]), [false, true, false]);
    }

    #[test]
    fn short_supervised_runs_have_a_shorter_average_and_long_ones_and_others_the_same() {
        let decay = |settings: &[&str]| {
            let settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
            let text = include_str!("../../configs/synthetic.toml");
            let config = Config::parse(text, &settings).unwrap();
            largest_decay(&config, Schedule::new(&config, 9, Some(4)).unwrap())
        };
        let supervised = ["mode=supervised", "warmup_steps=10"];
        let short = decay(&[&supervised[..], &["steps=110"]].concat());
        assert!((short - (1.0 - 1.0 / 11.0)).abs() < 1e-12, "{short}");
        assert_eq!(decay(&[&supervised[..], &["steps=1000"]].concat()), 0.99);
        assert_eq!(decay(&["mode=mean-teacher", "steps=110", "warmup_steps=10"]), 0.99);
        assert_eq!(decay(&[&supervised[..], &["steps=110", "fidelity=pcr"]].concat()), 0.99);
        assert_eq!(decay(&[&supervised[..], &["steps=110", "teacher_decay=0.5"]].concat()), 0.5);
    }

    #[test]
    fn with_batch_statistics_only_parameters_are_averaged() {
        assert_eq!(same_after(5, &["teacher_decay=0"]), [true, true]);
        for setting in ["teacher_decay=0", "copy_teacher_each_step=true"] {
            assert_eq!(
                same_after(5, &[setting, "teacher_statistics=batch"]),
                [true, false],
                "{setting}"
            );
        }
    }
}
