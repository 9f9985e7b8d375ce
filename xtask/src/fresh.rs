//! `cargo xtask prove fresh`: the README's two commands as a newcomer meets them, in a clean clone on a machine that has
//! never built anything.
//!
//! Caches hide missing steps, so cargo, pip and the build start from empty folders. A second kind of luck is the session
//! that a command runs in: the tests run under `nohup` (hang-up signals ignored), in another time zone and another locale.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::run;
use crate::steps::Steps;

/// Runs both commands and prints the time of each. `arguments` must be empty.
pub(crate) fn prove(root: &Path, arguments: &[String]) -> Result<()> {
    ensure!(arguments.is_empty(), "`prove fresh` takes no arguments, not {arguments:?}");
    let place =
        tempfile::Builder::new().prefix("protoseg-fresh-").tempdir().context("making a folder")?;
    let clone = place.path().join("protoseg");
    run::execute(
        Command::new("git").args(["clone", "--quiet", "--no-hardlinks"]).args([root, &clone]),
    )?;
    // Real data is no cache: tests that need it look beside the repository.
    let data = root.parent().context("the repository lies in no folder")?.join("shared");
    if data.is_dir() {
        std::os::unix::fs::symlink(data, place.path().join("shared"))
            .context("linking the data")?;
    }
    let cargo_home = place.path().join("cargo-home");
    std::fs::create_dir(&cargo_home).context("making an empty CARGO_HOME")?;
    keep_settings(&cargo_home)?;

    let mut steps = Steps::default();
    let outcome = steps
        .run("cargo xtask demo", || run::execute(fresh(&clone, "cargo").args(["xtask", "demo"])))
        .and_then(|()| {
            let mut tests = fresh(&clone, "nohup");
            tests
                .args(["cargo", "xtask", "test"])
                .env("TZ", "Asia/Kathmandu")
                .env("LC_ALL", "tr_TR.UTF-8");
            steps.run("cargo xtask test", || run::execute(&mut tests))
        });
    eprint!("\n{}", steps.table());
    outcome
}

/// A command in the clone that finds none of this machine's caches.
fn fresh(clone: &Path, program: &str) -> Command {
    let mut command = Command::new(program);
    let place = clone.parent().unwrap_or(clone);
    command
        .current_dir(clone)
        .env("CARGO_HOME", place.join("cargo-home"))
        .env("PIP_CACHE_DIR", place.join("pip-cache"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let of_this_build = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "PROTOSEG_"];
        if of_this_build.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    for name in ["CARGO", "CARGO_TARGET_DIR", "LIBTORCH", "ORT_DYLIB_PATH", "LD_LIBRARY_PATH"] {
        command.env_remove(name);
    }
    command
}

/// A registry mirror that this machine's cargo is told to use is a setting, not a cache.
fn keep_settings(cargo_home: &Path) -> Result<()> {
    let own = std::env::var_os("CARGO_HOME").map(std::path::PathBuf::from);
    let own = own.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    for name in ["config.toml", "config", "credentials.toml"] {
        let file = own.as_deref().map(|own| own.join(name)).filter(|file| file.is_file());
        if let Some(file) = file {
            std::fs::copy(&file, cargo_home.join(name))
                .with_context(|| format!("copying {}", file.display()))?;
        }
    }
    Ok(())
}
