//! The end of the process.

/// Ends the process at once, with this exit code. Nothing is torn down on the way, as
/// [`std::process::exit`] would have the libraries do: a worker may still compute with the engine,
/// and would take that for a failure of what it draws.
#[expect(unsafe_code)]
pub fn leave(code: i32) -> ! {
    // SAFETY: it takes any number, and nothing of the process is used after it.
    unsafe { libc::_exit(code) }
}
