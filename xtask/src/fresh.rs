//! `cargo xtask prove fresh`: the two commands of the README in a clean clone, with empty caches of
//! cargo and pip.
//!
//! The tests run under `nohup` (SIGHUP ignored), in another time zone and another locale.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::run;
use crate::steps::Steps;

/// Runs both commands and prints their times. `arguments` must be empty.
pub(crate) fn prove(root: &Path, arguments: &[String]) -> Result<()> {
    ensure!(arguments.is_empty(), "`prove fresh` takes no arguments, not {arguments:?}");
    let place = tempfile::Builder::new()
        .prefix("protoseg-fresh-")
        .tempdir()
        .context("creating a temporary folder")?;
    let clone = place.path().join("protoseg");
    run::execute(
        Command::new("git").args(["clone", "--quiet", "--no-hardlinks"]).args([root, &clone]),
    )?;
    // Tests look for real data beside the repository.
    let data = root.parent().context("the repository has no parent folder")?.join("shared");
    if data.is_dir() {
        std::os::unix::fs::symlink(data, place.path().join("shared"))
            .context("linking the data")?;
    }
    let cargo_home = place.path().join("cargo-home");
    std::fs::create_dir(&cargo_home).context("creating an empty CARGO_HOME")?;
    copy_cargo_settings(&cargo_home)?;

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

/// A command in the clone with empty caches and without the variables of this build.
fn fresh(clone: &Path, program: &str) -> Command {
    let mut command = Command::new(program);
    let place = clone.parent().unwrap_or(clone);
    command
        .current_dir(clone)
        .env("CARGO_HOME", place.join("cargo-home"))
        .env("PIP_CACHE_DIR", place.join("pip-cache"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let prefixes = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "PROTOSEG_"];
        if prefixes.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    for name in ["CARGO", "CARGO_TARGET_DIR", "LIBTORCH", "ORT_DYLIB_PATH", "LD_LIBRARY_PATH"] {
        command.env_remove(name);
    }
    command
}

/// Copies the settings of cargo, such as a registry mirror.
fn copy_cargo_settings(cargo_home: &Path) -> Result<()> {
    let home = std::env::var_os("CARGO_HOME").map(std::path::PathBuf::from);
    let home =
        home.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    for name in ["config.toml", "config", "credentials.toml"] {
        let file = home.as_deref().map(|home| home.join(name)).filter(|file| file.is_file());
        if let Some(file) = file {
            std::fs::copy(&file, cargo_home.join(name))
                .with_context(|| format!("copying {}", file.display()))?;
        }
    }
    Ok(())
}
