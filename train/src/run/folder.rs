//! A run's folder: whether it may be written into, and who holds it.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;

use anyhow::{Context, Result, bail, ensure};
use protoseg_models::{atomic, checkpoint};

use crate::run::fit::RunOptions;
use crate::run::state;

/// Folder of what resuming needs, in a run's folder.
pub(crate) const STATE: &str = "state";

/// Refuses a folder that holds another run, or what was not written by a run.
pub(crate) fn check_output_dir(run: &RunOptions) -> Result<()> {
    let state = run.out.join(STATE);
    atomic::recover(&state).with_context(|| state.display().to_string())?;
    ensure!(
        run.resume || !state.exists(),
        "{} holds a run already: go on with it by --resume, or choose another --out",
        run.out.display()
    );
    for (name, files) in [
        ("checkpoint", &checkpoint::FILES[..]),
        ("best", &checkpoint::FILES),
        (STATE, &state::FILES),
    ] {
        let folder = run.out.join(name);
        atomic::check_replaceable(&folder, files).with_context(|| folder.display().to_string())?;
    }
    Ok(())
}

/// Keeps other runs out of a run's folder until the file is dropped, however this process ends.
pub(crate) fn lock(run: &RunOptions) -> Result<File> {
    let path = run.out.join(".lock");
    std::fs::create_dir_all(&run.out)
        .with_context(|| format!("cannot make {}", run.out.display()))?;
    let file = File::create(&path).with_context(|| path.display().to_string())?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            bail!(
                "another process trains in {}: wait for it, or choose another --out",
                run.out.display()
            )
        }
        // Where the file system has no locks, two runs at once are not kept apart.
        Err(TryLockError::Error(error)) if error.kind() != ErrorKind::Unsupported => {
            Err(error).with_context(|| path.display().to_string())
        }
        _ => Ok(file),
    }
}
