//! Panics in crates that read what nobody vouches for, as errors.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

/// The panic of a call that [`guarded`] made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it brought {library} down ({message})")]
pub struct Panicked {
    library: &'static str,
    message: String,
}

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Calls a function of the crate `library`, which may panic on what it is given. What it has
/// changed before that must be dropped, not used.
///
/// A stack that overflows and memory that runs out still end the process.
///
/// # Errors
/// The panic, with its first line.
pub fn guarded<T>(library: &'static str, call: impl FnOnce() -> T) -> Result<T, Panicked> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                usual(info);
            }
        }));
    });
    let outer = GUARDED.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(call));
    GUARDED.set(outer);
    result.map_err(|panic| Panicked { library, message: message(&*panic) })
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
    text.lines().next().unwrap_or_default().chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_of_one_line() {
        assert_eq!(guarded("a crate", || 3), Ok(3));
        let error =
            guarded("a crate", || panic!("index {}\nout of range", 5)).expect_err("a panic");
        assert_eq!(error.to_string(), "it brought a crate down (index 5)");
        let error = guarded("a crate", || panic!("plain")).expect_err("a panic");
        assert_eq!(error.to_string(), "it brought a crate down (plain)");
    }
}
