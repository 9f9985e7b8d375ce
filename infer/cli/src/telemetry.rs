//! Opt-out of ONNX Runtime's telemetry.

#![expect(unsafe_code, reason = "sets an environment variable")]

/// Read by ONNX Runtime as it starts. Its API can disable telemetry too, but only after it has
/// created files in the user's cache and temporary folders.
const VARIABLE: &str = "ORT_DISABLE_TELEMETRY";

/// Opts out, unless the user has set the variable.
pub(crate) fn opt_out() {
    if std::env::var_os(VARIABLE).is_none() {
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var(VARIABLE, "1") };
    }
}
