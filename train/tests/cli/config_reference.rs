//! `protoseg-train config` and the committed page of configuration keys.

use std::process::Command;

use crate::support::{root, said};

#[test]
fn the_committed_reference_of_keys_is_up_to_date() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_protoseg-train"));
    let output =
        command.args(["config", "--reference"]).env_remove("LD_LIBRARY_PATH").output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let printed = String::from_utf8(output.stdout).unwrap();
    let path = root().join("docs/src/reference/train-config.md");
    if std::env::var_os("PROTOSEG_BLESS").is_some() {
        std::fs::write(&path, &printed).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert!(
        printed == committed,
        "{} is out of date; run this test with PROTOSEG_BLESS=1",
        path.display()
    );
    for heading in ["Data", "Network", "Training", "Semi-supervised learning", "Prototypes", "Run"]
    {
        assert!(printed.contains(&format!("\n## {heading}\n")), "{heading}");
    }
    for cells in [
        "| `batch` | integer between 1 and 1024 | required |",
        "| `temperature` | number between 0.001 and 100 | `0.1` |",
        "| `root` | string | none |",
        "`\"mean-teacher\"`",
    ] {
        assert!(printed.contains(cells), "{cells}");
    }
}

#[test]
fn the_schema_has_every_key_with_a_description() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_protoseg-train"));
    let output =
        command.args(["config", "--schema"]).env_remove("LD_LIBRARY_PATH").output().unwrap();
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let properties = schema["properties"].as_object().unwrap();
    assert!(properties.len() > 60);
    for (key, property) in properties {
        assert!(property["description"].is_string(), "{key}");
    }
}
