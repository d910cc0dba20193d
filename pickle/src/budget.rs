//! What reading may take of the memory.

use crate::error::{Error, Result};

/// The most bytes that are allocated beside the file, whatever it says.
pub(crate) const MEMORY: usize = 64 << 20;

/// What is not counted one by one: the machine's stack and marks, and texts of errors.
const APART: usize = 2 << 20;

/// What is left of [`MEMORY`].
pub(crate) struct Budget {
    left: usize,
}

impl Budget {
    pub fn new() -> Self {
        Self { left: MEMORY - APART }
    }

    /// Takes `bytes`, before they are allocated; they are never given back.
    pub fn take(&mut self, bytes: usize) -> Result<()> {
        self.left = self.left.checked_sub(bytes).ok_or(Error::Memory)?;
        Ok(())
    }

    /// Takes what one more element costs a vector that grows: three times its size while the old
    /// elements move to a place twice as large, and four elements at first.
    pub fn grow<T>(&mut self) -> Result<()> {
        self.take(4 * size_of::<T>())
    }
}
