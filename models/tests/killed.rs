//! Atomic folders survive killed writers and a full disk.

#![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use protoseg_models::atomic;

const FILES: [&str; 2] = ["first", "second"];
const NUMBERS: usize = 1 << 17;
const KILLS: u64 = 30;
/// Environment variable with the folder that a child of this program writes.
const PLACE: &str = "PROTOSEG_TEST_PLACE";

fn write(place: &Path, generation: u64) -> io::Result<()> {
    let contents = generation.to_le_bytes().repeat(NUMBERS);
    atomic::write_folder(place, &FILES, |folder| {
        FILES.iter().try_for_each(|name| atomic::write(&folder.join(name), &contents))
    })
}

/// Returns the generation of the folder, which must be whole.
fn generation(place: &Path) -> u64 {
    let [first, second] = FILES.map(|name| fs::read(place.join(name)).unwrap());
    assert!(first == second, "files of two generations");
    let number: [u8; 8] = first[..8].try_into().unwrap();
    assert!(first == number.repeat(NUMBERS), "not whole");
    u64::from_le_bytes(number)
}

fn names(folder: &Path) -> Vec<String> {
    folder
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// Runs one test of this program as a child process.
fn child(mut program: Command, test: &str, place: &Path) -> Child {
    let arguments = ["--exact", test, "--nocapture"];
    program
        .args(arguments)
        .env(PLACE, place)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn place_of_child() -> Option<PathBuf> {
    std::env::var_os(PLACE).map(PathBuf::from)
}

#[test]
fn child_writes_until_killed() {
    let Some(place) = place_of_child() else { return };
    for number in generation(&place) + 1.. {
        write(&place, number).unwrap();
        // In one call, so that no number is truncated.
        io::stderr().write_all(format!("{number}\n").as_bytes()).unwrap();
    }
}

#[test]
fn a_kill_at_any_moment_leaves_a_whole_folder() {
    let root = tempfile::tempdir().unwrap();
    let place = root.path().join("state");
    write(&place, 0).unwrap();
    let mut interrupted = 0;
    for kill in 0..KILLS {
        let program = Command::new(std::env::current_exe().unwrap());
        let mut child = child(program, "child_writes_until_killed", &place);
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut numbers = String::new();
        stderr.read_line(&mut numbers).unwrap();
        let started = Instant::now();
        while started.elapsed() < Duration::from_micros(1_300 * kill) {
            assert!(place.is_dir(), "no folder during the exchange");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        stderr.read_to_string(&mut numbers).unwrap();

        let last: u64 = numbers
            .lines()
            .last()
            .and_then(|line| line.parse().ok())
            .unwrap_or_else(|| panic!("{numbers}"));
        let found = generation(&place);
        assert!([last, last + 1].contains(&found), "{found} in place, {last} reported");
        interrupted += usize::from(names(root.path()).len() > 1);
        write(&place, found + 1).unwrap();
        assert_eq!(generation(&place), found + 1);
        assert_eq!(names(root.path()), ["state"]);
    }
    assert!(interrupted > 0, "no kill interrupted a write");
}

#[test]
fn child_runs_out_of_space() {
    let Some(place) = place_of_child() else { return };
    let error = write(&place, 2).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    let error = atomic::write(&place.join(FILES[0]), &[1; 1 << 20]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
}

#[test]
fn a_full_disk_is_an_error_and_keeps_only_the_old_folder() {
    let root = tempfile::tempdir().unwrap();
    let place = root.path().join("state");
    write(&place, 1).unwrap();
    // With its signal ignored, a limit on file sizes makes writes fail as on a full disk.
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap());
    let output = child(shell, "child_runs_out_of_space", &place).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(generation(&place), 1);
    assert_eq!((names(root.path()), names(&place).len()), (vec!["state".to_owned()], 2));
}
