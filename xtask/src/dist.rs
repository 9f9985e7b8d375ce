//! `cargo xtask dist`: a tarball of the three programs with man pages, completions and licenses,
//! unpacked and tried.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

use crate::steps::Steps;
use crate::{Usage, run, setup, third_party};

/// The last ones overwrite the pages of the commands `protoseg train` and `protoseg export`.
const PROGRAMS: [&str; 3] = ["protoseg", "protoseg-train", "protoseg-export"];

/// Files and folders of the repository, and their places in the tarball.
const COPIES: [(&str, &str); 7] = [
    ("README.md", "share/doc/protoseg"),
    ("CHANGELOG.md", "share/doc/protoseg"),
    ("LICENSE-APACHE", "share/doc/protoseg"),
    ("LICENSE-MIT", "share/doc/protoseg"),
    ("docs", "share/doc/protoseg"),
    ("deploy", "share/protoseg"),
    ("train/configs", "share/protoseg"),
];

const LIBRARIES: &str = "\
The programs look here for libraries that others publish:

protoseg, protoseg-export   libonnxruntime.so, 1.24 or newer
protoseg-train              all of the folder lib/ of libtorch 2.11.0

ORT_DYLIB_PATH, the path of an ONNX Runtime, and LD_LIBRARY_PATH come first.
";

/// `cargo xtask dist`.
#[expect(clippy::print_stdout, reason = "the path of the tarball is a result")]
pub(crate) fn command(root: &Path, arguments: &[String]) -> Result<()> {
    if !arguments.is_empty() {
        return Err(Usage(format!("dist takes no arguments, not {arguments:?}")).into());
    }
    let mut steps = Steps::default();
    steps.run("setup", || setup::ensure_runtimes(root))?;
    steps.run("build the programs", || run::build_programs(root))?;
    let dist = root.join("dist");
    fs::create_dir_all(&dist)?;
    let work = tempfile::tempdir_in(&dist).context("creating a temporary folder")?;
    let name = format!("protoseg-{}-{}", env!("CARGO_PKG_VERSION"), third_party::target()?);
    let stage = work.path().join(&name);
    steps.run("lay out", || lay_out(root, &stage))?;
    let tarball = dist.join(format!("{name}.tar.gz"));
    steps.run("pack", || pack(root, &stage, &tarball))?;
    steps.run("unpack and try", || try_out(root, &tarball, work.path()))?;
    let megabytes = fs::metadata(&tarball)?.len() as f64 / 1e6;
    println!("{}: {megabytes:.1} MB", tarball.display());
    Ok(())
}

fn lay_out(root: &Path, stage: &Path) -> Result<()> {
    for folder in ["bin", "lib", "share/doc/protoseg", "share/protoseg"] {
        fs::create_dir_all(stage.join(folder))?;
    }
    for name in PROGRAMS {
        let program = stage.join("bin").join(name);
        // Keeps function names for backtraces; removes source lines, which are most of the file.
        let mut strip = Command::new("strip");
        strip.arg("--strip-debug").arg("-o").arg(&program).arg(run::programs()?.join(name));
        run::execute(&mut strip)?;
        forget_build_folder(&program)?;
        let megabytes = fs::metadata(&program)?.len() as f64 / 1e6;
        eprintln!("{name}: {megabytes:.1} MB");
        let mut pages = run::program(root, name)?;
        run::execute(pages.arg("--write-manual").arg(stage.join("share")))?;
    }
    for (from, to) in COPIES {
        let mut copy = Command::new("cp");
        run::execute(copy.current_dir(root).arg("-r").arg(from).arg(stage.join(to)))?;
    }
    fs::write(stage.join("lib/README"), LIBRARIES)?;
    let licenses =
        third_party::document(root, &["protoseg-cli", "protoseg-train", "protoseg-export"])?;
    Ok(fs::write(stage.join("share/doc/protoseg/THIRD-PARTY.md"), licenses)?)
}

/// Cuts the folder of the build from the places in which the loader looks for libraries: elsewhere
/// it would be of no use, or of someone else's. Nul bytes fill the room.
fn forget_build_folder(program: &Path) -> Result<()> {
    const KEPT: &[u8] = b"$ORIGIN/../lib\0";
    let mut bytes = fs::read(program)?;
    let Some(kept) = bytes.windows(KEPT.len()).position(|window| window == KEPT) else {
        return Ok(());
    };
    let start = bytes[..kept].iter().rposition(|byte| *byte == 0).map_or(0, |nul| nul + 1);
    bytes.copy_within(kept..kept + KEPT.len(), start);
    bytes[start + KEPT.len()..kept + KEPT.len()].fill(0);
    Ok(fs::write(program, bytes)?)
}

/// Packs the folder; the same files give the same bytes. Writes their SHA-256 beside the tarball.
fn pack(root: &Path, stage: &Path, tarball: &Path) -> Result<()> {
    let parent = stage.parent().context("the folder has no parent")?;
    let name = stage.file_name().context("the folder has no name")?;
    let mut commit = Command::new("git");
    let commit = commit.current_dir(root).args(["log", "-1", "--format=%ct"]).output();
    let time = commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let time = time.ok().filter(|time| !time.is_empty()).unwrap_or_else(|| "0".to_owned());
    let mut tar = Command::new("tar");
    tar.args(["--create", "--gzip", "--sort=name", "--owner=0", "--group=0", "--numeric-owner"]);
    tar.args([&format!("--mtime=@{time}"), "--mode=go-w", "--file"]).arg(tarball);
    run::execute(tar.arg("--directory").arg(parent).arg(name))?;
    let mut sum = Command::new("sha256sum");
    sum.current_dir(tarball.parent().unwrap_or(root)).args(tarball.file_name());
    let sum = sum.output().context("sha256sum")?;
    ensure!(sum.status.success(), "sha256sum failed");
    Ok(fs::write(tarball.with_extension("gz.sha256"), sum.stdout)?)
}

/// Unpacks the tarball and runs its programs, first without libraries.
fn try_out(root: &Path, tarball: &Path, work: &Path) -> Result<()> {
    let place = work.join("unpacked");
    fs::create_dir(&place)?;
    let mut tar = Command::new("tar");
    run::execute(
        tar.arg("--extract")
            .arg("--file")
            .arg(tarball)
            .arg("--directory")
            .arg(&place)
            .arg("--strip-components=1"),
    )?;
    let tried = UnpackedTarball { root: root.to_owned(), place };
    for arguments in [["doctor"].as_slice(), &["train", "--version"]] {
        let output = tried.run("protoseg", arguments)?;
        let text = format!("{}{}", utf8(&output.stdout), utf8(&output.stderr));
        ensure!(
            !output.status.success()
                && (text.contains("../lib") || text.contains("LD_LIBRARY_PATH")),
            "without libraries, protoseg {arguments:?} does not say where to put them: {text}"
        );
    }
    let runtime = run::runtime(root, "ORT_DYLIB_PATH").canonicalize()?;
    std::os::unix::fs::symlink(runtime, tried.place.join("lib/libonnxruntime.so"))?;
    let libtorch = run::runtime(root, "LIBTORCH").join("lib");
    for library in fs::read_dir(&libtorch).with_context(|| libtorch.display().to_string())? {
        let library = library?;
        let link = tried.place.join("lib").join(library.file_name());
        std::os::unix::fs::symlink(library.path().canonicalize()?, link)?;
    }
    for name in PROGRAMS {
        tried.succeed(name, &["--version"])?;
    }
    tried.succeed("protoseg", &["train", "--version"])?;
    tried.succeed("protoseg", &["export", "--version"])?;
    tried.succeed("protoseg", &["doctor"])?;
    let frames = tried.path("frames")?;
    tried.succeed("protoseg", &["synth", "--out", &frames, "--count", "1", "--size", "64x96"])?;
    let (bundle, labels) = ("infer/tests/fixtures/colors", tried.path("labels")?);
    tried.succeed("protoseg", &["label", bundle, &format!("{frames}/images"), "--out", &labels])?;
    for name in PROGRAMS {
        let completions = format!("share/bash-completion/completions/{name}.bash");
        run::execute(Command::new("bash").arg("-n").arg(tried.place.join(completions)))?;
    }
    for page in fs::read_dir(tried.place.join("share/man/man1"))? {
        let page = page?.path();
        // Where there is no groff, nothing is lost but this check.
        let Ok(output) =
            Command::new("groff").args(["-K", "utf8", "-man", "-ww", "-z"]).arg(&page).output()
        else {
            break;
        };
        let faults = utf8(&output.stderr);
        ensure!(output.status.success() && faults.is_empty(), "{}: {faults}", page.display());
    }
    Ok(())
}

/// An unpacked tarball.
struct UnpackedTarball {
    root: PathBuf,
    place: PathBuf,
}

impl UnpackedTarball {
    fn run(&self, program: &str, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(self.place.join("bin").join(program));
        for variable in ["ORT_DYLIB_PATH", "LIBTORCH", "LD_LIBRARY_PATH"] {
            command.env_remove(variable);
        }
        command.current_dir(&self.root).args(arguments).output().context(program.to_owned())
    }

    fn succeed(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let output = self.run(program, arguments)?;
        let (stdout, stderr) = (utf8(&output.stdout), utf8(&output.stderr));
        ensure!(output.status.success(), "{program} {arguments:?}: {stdout}{stderr}");
        Ok(())
    }

    fn path(&self, name: &str) -> Result<String> {
        let path = self.place.join(name);
        Ok(path.to_str().context("the path of the repository is not UTF-8")?.to_owned())
    }
}

fn utf8(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_places_of_libraries_only_the_one_beside_the_program_stays() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        for (before, after) in [
            (
                &b"\0/build/lib:$ORIGIN/../lib\0x"[..],
                &b"\0$ORIGIN/../lib\0\0\0\0\0\0\0\0\0\0\0\0x"[..],
            ),
            (b"\0$ORIGIN/../lib\0x", b"\0$ORIGIN/../lib\0x"),
            (b"none", b"none"),
        ] {
            fs::write(&program, before).unwrap();
            forget_build_folder(&program).unwrap();
            assert_eq!(
                fs::read(&program).unwrap().escape_ascii().to_string(),
                after.escape_ascii().to_string()
            );
        }
    }
}
