//! Variables that libraries read when they are loaded, which has happened by the time that a program can set them.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Gives the environment a variable, unless the caller's has it: the program starts itself anew with it, with the same
/// arguments and the same process id. Where that fails, it goes on as it is.
pub fn reexec_with_env(name: &str, value: &str) {
    if std::env::var_os(name).is_some() {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    // Returns only where the program could not be replaced.
    let _ = Command::new(program).args(std::env::args_os().skip(1)).env(name, value).exec();
}
