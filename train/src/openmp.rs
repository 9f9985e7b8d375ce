//! How libtorch's threads wait for each other.

use std::os::unix::process::CommandExt;
use std::process::Command;

const POLICY: &str = "OMP_WAIT_POLICY";

/// Makes threads that wait sleep, unless the caller's environment says how they wait.
///
/// By default they spin, which on a machine whose cores are shared with others (or with the loader) takes the cores from
/// those who are waited for. OpenMP reads its environment when the library is loaded, which has happened by now: so the
/// program starts itself anew, with the same arguments and the same process id. Where that fails, it goes on as it is.
pub fn wait_passively() {
    if std::env::var_os(POLICY).is_some() {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    // Returns only where the program could not be replaced; training works then too, if slower.
    let _ = Command::new(program).args(std::env::args_os().skip(1)).env(POLICY, "PASSIVE").exec();
}
