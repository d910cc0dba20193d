//! A part of the model: text encoders, transformer or image decoder.

use crate::artifacts::Artifacts;
use crate::error::Result;
use crate::runtime::Backend;
use crate::timing::{Stage, Timings};

/// Loaded from the start and kept; or, on a [low-memory](Backend::low_memory) engine, loaded for
/// each use and dropped after it, so that the parts are never in memory together.
pub struct Part<T> {
    load: fn(&Artifacts, &Backend) -> Result<T>,
    kept: Option<T>,
}

impl<T> Part<T> {
    /// The part that `load` loads.
    pub fn new(
        load: fn(&Artifacts, &Backend) -> Result<T>,
        artifacts: &Artifacts,
        backend: &Backend,
    ) -> Result<Part<T>> {
        let kept = if backend.low_memory() { None } else { Some(load(artifacts, backend)?) };
        Ok(Part { load, kept })
    }

    /// Lends the part to `work`. What `work` returns had better hold no
    /// [`Value`](crate::runtime::Value) that the part made: it keeps the memory that the part's runs
    /// have allocated.
    pub fn lend<R>(
        &mut self,
        artifacts: &Artifacts,
        backend: &Backend,
        timings: &mut Timings,
        work: impl FnOnce(&mut T, &mut Timings) -> Result<R>,
    ) -> Result<R> {
        match &mut self.kept {
            Some(part) => work(part, timings),
            None => {
                let mut part = timings.time(Stage::Load, || (self.load)(artifacts, backend))?;
                work(&mut part, timings)
            }
        }
    }
}
