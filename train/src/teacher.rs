//! The teacher: a moving average of the student's weights and running statistics.

use anyhow::Result;
use tch::Tensor;

use crate::net::Net;

/// Share of the old average that stays at the `t`-th update, counted from 0: `min(1 - 1 / (t + 1), decay)`, so that the
/// first update copies the student.
pub fn decay_at(update: u64, decay: f64) -> f64 {
    (1.0 - 1.0 / (update as f64 + 1.0)).min(decay)
}

/// Moves every parameter of the teacher, and every buffer where `buffers` says so:
/// `teacher <- decay teacher + (1 - decay) student`.
pub fn follow(teacher: &Net, student: &Net, decay: f64, buffers: bool) -> Result<()> {
    let _guard = tch::no_grad_guard();
    for (name, student) in student.tensors().iter().filter(|(name, _)| buffers || student.learns(name)) {
        let mut average: Tensor = teacher.tensors()[name].shallow_clone();
        if decay == 0.0 {
            average.f_copy_(student)?;
        } else {
            let _ = average.f_lerp_(student, 1.0 - decay)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use protoseg_models::arch::{Arch, Preset};
    use protoseg_models::formula;
    use tch::Device;

    #[test]
    fn the_average_moves_as_the_formula_says() {
        assert_eq!([0, 1, 3, 1000].map(|update| decay_at(update, 0.99)), [0.0, 0.5, 0.75, 0.99]);
        let graph = Arch::new(Preset::DeepLabV3PlusEfficientNetLite0, 3).unwrap().graph();
        let net = |seed| Net::new(graph.clone(), &formula::weights(&graph, Some(seed)), Device::Cpu).unwrap();
        let (teacher, student) = (net(1), net(2));
        let before = teacher.state_dict().unwrap();
        follow(&teacher, &student, 0.75, true).unwrap();
        let (after, target) = (teacher.state_dict().unwrap(), student.state_dict().unwrap());
        for (name, after) in &after {
            for (index, &after) in after.data.iter().enumerate() {
                let expected = 0.75 * before[name].data[index] + 0.25 * target[name].data[index];
                assert!((after - expected).abs() <= 1e-6 * (1.0 + expected.abs()), "{name}");
            }
        }
        follow(&teacher, &student, 0.0, true).unwrap();
        assert_eq!(teacher.state_dict().unwrap(), target);

        let teacher = net(1);
        follow(&teacher, &student, 0.75, false).unwrap();
        for (name, after) in teacher.state_dict().unwrap() {
            assert_eq!(after == before[&name], name.contains("running"), "{name}");
        }
    }
}
