//! `hydit-serve`: images from the artifacts of `hydit-export`.

#![warn(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

/// Where this variable is not set, ONNX Runtime 1.31 keeps a telemetry database in the home folder,
/// even if its interface has switched telemetry off.
const NO_TELEMETRY: &str = "ORT_DISABLE_TELEMETRY";

fn main() -> ExitCode {
    if std::env::var_os(NO_TELEMETRY).is_none() {
        // SAFETY: the program has no other thread yet.
        #[allow(unsafe_code)]
        unsafe {
            std::env::set_var(NO_TELEMETRY, "1");
        }
    }
    hydit_serve::run()
}
