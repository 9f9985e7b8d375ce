//! `cargo xtask ci`: the checks before a merge.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Result, ensure};

use crate::steps::Steps;
use crate::{Usage, external, run, setup, test};

/// `cargo xtask ci`.
pub(crate) fn command(root: &Path, arguments: &[String]) -> Result<()> {
    if !arguments.is_empty() {
        return Err(Usage(format!("ci takes no arguments, not {arguments:?}")).into());
    }
    let mut steps = Steps::default();
    let outcome = check(root, &mut steps);
    eprint!("\n{}", steps.table());
    outcome
}

/// Runs the steps, the quickest first.
fn check(root: &Path, steps: &mut Steps) -> Result<()> {
    steps.run("fmt", || {
        run::execute(run::bare_cargo(root).args(["fmt", "--all", "--", "--check"]))
    })?;
    steps.run("house rules", || {
        run::execute(Command::new("python3").arg("xtask/lint.py").current_dir(root))
    })?;
    steps.run("setup", || setup::ensure_runtimes(root))?;
    let mut torch_sys = TorchSysBuilds::watch(&run::programs()?)?;
    steps.run("clippy", || {
        run::execute(run::cargo(root, "clippy").args(["--all-targets", "--", "--deny", "warnings"]))
    })?;
    torch_sys.update()?;
    steps.run("doc", || {
        run::execute(
            run::cargo(root, "doc").arg("--no-deps").env("RUSTDOCFLAGS", "--deny warnings"),
        )
    })?;
    torch_sys.update()?;
    steps.run("book", || external::book(root))?;
    test::run(root, &[], steps)?;
    torch_sys.update()?;
    steps.run("bench", || run::execute(&mut benches_once(root)))?;
    torch_sys.update()?;
    torch_sys.ensure_one()
}

/// Runs every benchmark once without measuring. `cargo bench` takes no `--release`, but its profile
/// is the same, so that only the benchmarks themselves are compiled.
fn benches_once(root: &Path) -> Command {
    let mut benches = run::bare_cargo(root);
    benches.args(["bench", "--workspace", "--", "--test"]);
    benches
}

/// Counts builds of torch-sys: its C++ takes minutes, and a stray feature or variable could cause a
/// build in every step.
struct TorchSysBuilds {
    build_folder: PathBuf,
    before: usize,
    seen: BTreeSet<(PathBuf, SystemTime)>,
}

impl TorchSysBuilds {
    /// Starts counting; builds already in the target folder do not count.
    fn watch(programs: &Path) -> Result<Self> {
        let mut builds =
            Self { build_folder: programs.join("build"), before: 0, seen: BTreeSet::new() };
        builds.update()?;
        builds.before = builds.seen.len();
        Ok(builds)
    }

    /// Records new builds, and rebuilt ones by modification time.
    fn update(&mut self) -> Result<()> {
        let Ok(folders) = fs::read_dir(&self.build_folder) else { return Ok(()) };
        for folder in folders {
            let folder = folder?;
            if folder.file_name().to_string_lossy().starts_with("torch-sys-") {
                let library = folder.path().join("out/libtch.a");
                if let Ok(metadata) = fs::metadata(&library) {
                    self.seen.insert((library, metadata.modified()?));
                }
            }
        }
        Ok(())
    }

    fn ensure_one(&self) -> Result<()> {
        let built = self.seen.len() - self.before;
        ensure!(
            !self.seen.is_empty(),
            "torch-sys was not built: {} has no libtch.a",
            self.build_folder.display()
        );
        ensure!(
            built <= 1,
            "torch-sys was built {built} times instead of once: its features or variables differ between steps ({:?})",
            self.seen
        );
        eprintln!("torch-sys: {built} builds");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(programs: &Path, hash: &str) {
        let folder = programs.join("build").join(format!("torch-sys-{hash}")).join("out");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("libtch.a"), "library").unwrap();
    }

    #[test]
    fn one_build_of_torch_sys_is_right() {
        let programs = tempfile::tempdir().unwrap();
        let mut builds = TorchSysBuilds::watch(programs.path()).unwrap();
        assert!(
            builds.ensure_one().unwrap_err().to_string().starts_with("torch-sys was not built")
        );
        build(programs.path(), "a");
        builds.update().unwrap();
        builds.update().unwrap();
        builds.ensure_one().unwrap();
        build(programs.path(), "b");
        builds.update().unwrap();
        assert!(
            builds.ensure_one().unwrap_err().to_string().starts_with("torch-sys was built 2 times")
        );
    }

    #[test]
    fn builds_of_earlier_runs_do_not_count() {
        let programs = tempfile::tempdir().unwrap();
        build(programs.path(), "a");
        build(programs.path(), "b");
        let mut builds = TorchSysBuilds::watch(programs.path()).unwrap();
        builds.update().unwrap();
        builds.ensure_one().unwrap();
        build(programs.path(), "c");
        builds.update().unwrap();
        builds.ensure_one().unwrap();
    }

    #[test]
    fn a_build_renewed_in_place_counts() {
        let programs = tempfile::tempdir().unwrap();
        let mut builds = TorchSysBuilds::watch(programs.path()).unwrap();
        build(programs.path(), "a");
        builds.update().unwrap();
        let library = programs.path().join("build/torch-sys-a/out/libtch.a");
        fs::File::options()
            .write(true)
            .open(library)
            .unwrap()
            .set_modified(SystemTime::UNIX_EPOCH)
            .unwrap();
        builds.update().unwrap();
        assert!(builds.ensure_one().is_err());
    }
}
