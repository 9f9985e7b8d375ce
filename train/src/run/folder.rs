//! The folder of a run: checks before it is written to, and its lock.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;

use anyhow::{Context, Result, bail, ensure};
use protoseg_models::{atomic, checkpoint};

use crate::run::{RunOptions, state};

/// Refuses a folder that holds another run, or subfolders that no run has written.
pub(crate) fn check_output_dir(options: &RunOptions) -> Result<()> {
    let state = options.out.join(state::FOLDER);
    atomic::recover(&state).with_context(|| state.display().to_string())?;
    ensure!(
        options.resume || !state.exists(),
        "{} already holds a run: continue it with --resume, or choose another --out",
        options.out.display()
    );
    for (name, files) in [
        ("checkpoint", &checkpoint::FILES[..]),
        ("best", &checkpoint::FILES),
        (state::FOLDER, &state::FILES),
    ] {
        let folder = options.out.join(name);
        atomic::check_replaceable(&folder, files).with_context(|| folder.display().to_string())?;
    }
    Ok(())
}

/// Locks the folder of a run against other processes until the file is dropped or the process ends.
pub(crate) fn lock(options: &RunOptions) -> Result<File> {
    let path = options.out.join(".lock");
    std::fs::create_dir_all(&options.out)
        .with_context(|| format!("cannot create {}", options.out.display()))?;
    let file = File::create(&path).with_context(|| path.display().to_string())?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            bail!(
                "another process trains in {}: wait for it, or choose another --out",
                options.out.display()
            )
        }
        // A file system without locks does not keep two runs apart.
        Err(TryLockError::Error(error)) if error.kind() != ErrorKind::Unsupported => {
            Err(error).with_context(|| path.display().to_string())
        }
        _ => Ok(file),
    }
}
