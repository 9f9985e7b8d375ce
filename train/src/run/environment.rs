//! Environment variables that libraries read while they are loaded, before `main`.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Sets OpenMP's threads to sleep while they wait, unless the environment already says how they wait.
///
/// By default they spin, which takes cores from the loader and from other processes.
pub fn set_passive_waiting() {
    reexec_with_env("OMP_WAIT_POLICY", "PASSIVE");
}

/// Sets a variable, unless the environment has it, by executing the program again with the same arguments and process id.
/// Where that fails, the program continues without it.
pub fn reexec_with_env(name: &str, value: &str) {
    if std::env::var_os(name).is_some() {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    // Returns only on failure.
    let _ = Command::new(program).args(std::env::args_os().skip(1)).env(name, value).exec();
}
