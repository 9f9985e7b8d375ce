//! `protoseg-train init`: checkpoints of random networks.

use std::process::Command;

use protoseg_models::arch::Preset;
use protoseg_models::checkpoint::Checkpoint;

#[test]
fn random_checkpoints_are_complete_and_determined_by_their_seed() {
    let folder = tempfile::tempdir().unwrap();
    let preset = Preset::DeepLabV3PlusEfficientNetLite0;
    let init = |name: &str, seed: &str| {
        let out = folder.path().join(name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_protoseg-train"));
        let output = command
            .args(["init", preset.name(), "--seed", seed, "--out"])
            .arg(&out)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Checkpoint::read(&out).unwrap()
    };
    let first = init("first", "1");
    assert_eq!(first, init("second", "1"));
    assert_ne!(first.weights, init("third", "2").weights);
    assert!(
        first.weights["encoder._bn0.running_var"]
            .data
            .iter()
            .any(|variance| (variance - 1.0).abs() > 0.1)
    );
    for case in &first.probe {
        assert_eq!(case.labels.len(), case.height * case.width);
        assert!(case.logits.data.iter().all(|logit| logit.is_finite()));
        let classes: std::collections::BTreeSet<u8> = case.labels.iter().copied().collect();
        assert!(classes.len() > 1, "the probe has one class only");
    }
}
