//! Ablation grids.

use crate::support::{command, folder, said, train};
use protoseg_models::checkpoint::Checkpoint;

#[test]
fn a_grid_equals_its_runs_one_by_one_and_shares_their_warm_up() {
    let (_folder, path) = folder();
    let settings = ["steps=8", "warmup_steps=4"];
    let axes = ["--ablate", "mode=supervised,prototype", "--ablate", "seed=1,2"];
    let output = train(&path("grid"), &settings, &axes);
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(table.trim().lines().count(), 6, "{table}");
    assert!(
        table.starts_with("| mode | seed | synthetic validation | synthetic unlabeled | mean |"),
        "{table}"
    );
    assert_eq!(std::fs::read_to_string(path("grid/ablation.md")).unwrap().trim(), table.trim());
    let shared = std::fs::read_dir(path("grid")).unwrap().filter(|entry| {
        entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("warmup-")
    });
    assert_eq!(shared.count(), 2, "one warm-up per seed");
    for mode in ["supervised", "prototype"] {
        let alone = path(mode);
        train(&alone, &[&settings[..], &[&format!("mode={mode}"), "seed=2"]].concat(), &[]);
        let in_grid = path("grid").join(format!("mode={mode} seed=2"));
        let [alone, in_grid] =
            [alone, in_grid].map(|run| Checkpoint::read(&run.join("checkpoint")).unwrap());
        assert_eq!(alone.weights, in_grid.weights, "{mode}");
    }
    // A second call trains nothing.
    let before = std::fs::metadata(path("grid/mode=prototype seed=1/scores.json"))
        .unwrap()
        .modified()
        .unwrap();
    train(&path("grid"), &settings, &axes);
    let after = std::fs::metadata(path("grid/mode=prototype seed=1/scores.json"))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(before, after);
    // A run with another configuration is refused.
    let other =
        command(&path("grid"), &["steps=8", "warmup_steps=4", "crop=96"], &axes).output().unwrap();
    assert_eq!(other.status.code(), Some(2));
    assert!(
        said(&other).contains("was trained with another configuration (`crop` was 64, is 96)"),
        "{}",
        said(&other)
    );
    let same = command(&path("new"), &settings, &["--ablate", "name=a/b,a_b"]).output().unwrap();
    assert_eq!(same.status.code(), Some(2));
    assert!(said(&same).contains("would share the folder"), "{}", said(&same));
}
