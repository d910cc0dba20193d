//! Tests and programs as processes.

use std::process::Command;
use std::{any, env};

/// Set in the processes that [`alone`] starts.
const ALONE: &str = "HYDIT_TEST_ALONE";

/// Runs the body of a test in a process where no other test runs, because it measures or changes
/// what belongs to the whole process: its memory, its loaded libraries, its points of failure.
///
/// nextest gives each test a process anyway. Under `cargo test` this starts the test program once
/// more, for the calling test alone; so `body` must be a closure written in the test itself.
pub fn alone<F: FnOnce()>(body: F) {
    alone_as(any::type_name::<F>(), body);
}

/// As [`alone`], for helpers of tests: `path` is the type name of a closure or future that is
/// written in the test, such as `it::module::test::{{closure}}`.
pub fn alone_as(path: &str, body: impl FnOnce()) {
    if env::var_os("NEXTEST").is_some() || env::var_os(ALONE).is_some() {
        return body();
    }
    let function = path.split("::{").next().unwrap_or(path);
    let (_, test) = function.split_once("::").expect("a path starts with the crate");
    let program = env::current_exe().expect("the test program has a path");
    let output = Command::new(program)
        .args(["--exact", test, "--nocapture"])
        .env(ALONE, "1")
        .output()
        .expect("the test program starts again");
    let [out, err] = [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said));
    assert!(output.status.success() && out.contains("1 passed"), "{test} alone: {out}{err}");
}
