//! A component of the model: text encoders, transformer or image decoder.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::artifacts::Artifacts;
use crate::error::Result;
use crate::runtime::Backend;
use crate::timing::Stage;

/// Loaded from the start, or at its first use, and kept; or, on a [low-memory](Backend::low_memory)
/// backend, loaded for each use and dropped after it, so that no two components are in memory
/// together.
pub struct Component<T> {
    load: fn(&Arc<Artifacts>, &Backend) -> Result<T>,
    kept: Option<T>,
}

/// A component for as long as it is used.
///
/// A [`Value`](crate::runtime::Value) that an owned component has made keeps alive the memory that
/// its runs have allocated; better copy what is needed and drop the value first.
pub enum Loaded<'a, T> {
    /// The component stays in memory.
    Kept(&'a mut T),
    /// The component was loaded for this use and goes with the guard.
    Owned(T),
}

impl<T> Component<T> {
    /// The component that `load` loads.
    ///
    /// # Errors
    /// When it is kept and cannot be loaded.
    pub fn new(
        load: fn(&Arc<Artifacts>, &Backend) -> Result<T>,
        artifacts: &Arc<Artifacts>,
        backend: &Backend,
    ) -> Result<Component<T>> {
        let kept = if backend.low_memory() { None } else { Some(load(artifacts, backend)?) };
        Ok(Component { load, kept })
    }

    /// The component that `load` loads when it is first used.
    pub fn later(load: fn(&Arc<Artifacts>, &Backend) -> Result<T>) -> Component<T> {
        Component { load, kept: None }
    }

    /// The component, loaded now unless it is kept.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub fn load(&mut self, artifacts: &Arc<Artifacts>, backend: &Backend) -> Result<Loaded<'_, T>> {
        if self.kept.is_none() {
            let _timed = backend.timer().start(Stage::Load);
            let loaded = (self.load)(artifacts, backend)?;
            if backend.low_memory() {
                return Ok(Loaded::Owned(loaded));
            }
            self.kept = Some(loaded);
        }
        Ok(Loaded::Kept(self.kept.as_mut().expect("it was loaded")))
    }
}

impl<T> Deref for Loaded<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Loaded::Kept(kept) => kept,
            Loaded::Owned(owned) => owned,
        }
    }
}

impl<T> DerefMut for Loaded<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        match self {
            Loaded::Kept(kept) => kept,
            Loaded::Owned(owned) => owned,
        }
    }
}
