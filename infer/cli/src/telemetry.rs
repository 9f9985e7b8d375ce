//! ONNX Runtime's telemetry, which this program declines.

#![expect(unsafe_code, reason = "an environment variable is set")]

/// What ONNX Runtime reads as it starts. Its interface turns sending off too, but only after files were made in the user's
/// cache and in the folder for temporary files.
const VARIABLE: &str = "ORT_DISABLE_TELEMETRY";

/// Declines it, unless the user has said something about it.
pub(crate) fn opt_out() {
    if std::env::var_os(VARIABLE).is_none() {
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var(VARIABLE, "1") };
    }
}
