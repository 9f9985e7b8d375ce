//! The C and C++ compilers: torch-sys needs the one, the stub of libtorch the other.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// An error unless the compiler that torch-sys will call is there.
pub(crate) fn ensure_cxx() -> Result<()> {
    if let Ok(chosen) = std::env::var("CXX") {
        if !answers(&chosen) {
            bail!(
                "CXX is set to {chosen:?}, which does not run: set it to a C++ compiler or unset it"
            );
        }
        return Ok(());
    }
    if answers("c++") {
        return Ok(());
    }
    match ["g++", "clang++"].into_iter().find(|other| answers(other)) {
        Some(other) => bail!(
            "the C++ compiler is called {other} here, not c++: run `export CXX={other}`, then again"
        ),
        None => bail!(
            "no C++ compiler was found and torch-sys needs one: `apt-get install g++` provides it"
        ),
    }
}

/// Links an empty shared library `name` in `folder` that pulls in its neighbours `libraries`.
pub(crate) fn link_stub(folder: &Path, name: &str, libraries: &[&str]) -> Result<()> {
    let chosen = std::env::var("CC").ok();
    let compiler = chosen
        .iter()
        .map(String::as_str)
        .chain(["cc", "gcc", "clang"])
        .find(|compiler| answers(compiler))
        .context(
            "no C compiler was found to link libtorch.so: `apt-get install gcc` provides it",
        )?;
    let mut command = words(compiler);
    command.current_dir(folder).args([
        "-shared",
        "-x",
        "c",
        "/dev/null",
        "-o",
        name,
        "-Wl,--no-as-needed",
        "-L.",
    ]);
    command.args(libraries.iter().map(|library| format!("-l{library}")));
    let output = command.output().with_context(|| format!("calling {compiler}"))?;
    if !output.status.success() {
        bail!(
            "{compiler} could not link {name}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

fn answers(compiler: &str) -> bool {
    words(compiler)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// `ccache g++` is a program and an argument.
fn words(compiler: &str) -> Command {
    let mut words = compiler.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiler_may_be_called_with_words() {
        assert!(answers("env true"));
        assert!(!answers("env false"));
        assert!(!answers("no-such-compiler"));
        assert!(!answers(""));
    }
}
