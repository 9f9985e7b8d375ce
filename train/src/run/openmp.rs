//! How libtorch's threads wait for each other.

use crate::run::environment;

/// Makes threads that wait sleep, unless the caller's environment says how they wait.
///
/// By default they spin, which on a machine whose cores are shared with others (or with the loader) takes the cores from
/// those who are waited for. Where the program cannot start itself anew, training works too, if slower.
pub fn set_passive_waiting() {
    environment::reexec_with_env("OMP_WAIT_POLICY", "PASSIVE");
}
