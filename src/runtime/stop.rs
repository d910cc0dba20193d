//! How a call of a graph is kept from beginning.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Question = Box<dyn Fn() -> bool + Send>;

/// Asked before every call of a graph of one backend whether it is still wanted.
#[derive(Clone, Default)]
pub struct Stop(Arc<Mutex<Option<Question>>>);

impl Stop {
    /// From now on calls are refused with [`RuntimeError::Stopped`](super::RuntimeError::Stopped)
    /// when `unwanted` says so.
    pub fn when(&self, unwanted: impl Fn() -> bool + Send + 'static) {
        *self.lock() = Some(Box::new(unwanted));
    }

    /// From now on calls are made.
    pub fn never(&self) {
        *self.lock() = None;
    }

    pub(super) fn is_due(&self) -> bool {
        self.lock().as_ref().is_some_and(|unwanted| unwanted())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Question>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
