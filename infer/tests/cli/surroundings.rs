//! What is around the program: a standard error that cannot be written, and folders in which it has no business.

use std::fs::File;
use std::process::Stdio;

use crate::common::{LABEL, Place, answer, files, results};

#[test]
fn a_standard_error_that_cannot_be_written_stops_nothing() {
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    let place = Place::new();
    for index in 0..4 {
        std::fs::write(place.at(&format!("in/images/bad{index}.png")), "hello").unwrap();
    }
    for stderr in [Stdio::from(File::options().write(true).open("/dev/full").unwrap()), Stdio::from(closed)] {
        let mut command = place.command(&format!("{LABEL} --resume --verbose"));
        // A run that hung would hold up the tests for ever.
        let status = command.stdout(Stdio::null()).stderr(stderr).status().unwrap();
        assert_eq!(status.code(), Some(3));
        assert_eq!(results(&place.at("out")), ["ids/images/a.png", "ids/labels/a.png"]);
    }
    let full = File::options().write(true).open("/dev/full").unwrap();
    let status = place.command("label gone in --out new").stderr(full).status().unwrap();
    assert_eq!(status.code(), Some(2));
}

#[test]
fn nothing_is_left_in_the_users_folders() {
    let place = Place::new();
    std::fs::create_dir(place.at("home")).unwrap();
    std::fs::create_dir(place.at("tmp")).unwrap();
    for line in [LABEL, "check bundle", "doctor bundle --device cpu"] {
        let mut command = place.command(line);
        for name in ["XDG_CACHE_HOME", "XDG_DATA_HOME", "ORT_DISABLE_TELEMETRY"] {
            command.env_remove(name);
        }
        let given = answer(command.env("HOME", place.at("home")).env("TMPDIR", place.at("tmp")));
        assert_eq!(given.status, 0, "{given:?}");
        let left = [files(&place.at("home")), files(&place.at("tmp"))].concat();
        assert_eq!(left, [""; 0], "{line}");
    }
}
