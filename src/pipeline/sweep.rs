//! Memory that runs have left, given back when a request is done.

use hydit_graphs::arithmetic::one;

use crate::error::Result;
use crate::runtime::{Backend, Provider, Session, in_memory};

/// Gives back the memory in which no tensor lies.
///
/// ONNX Runtime does that at the end of a run on the CPU and at no other time. The outputs of that
/// run still lie there then, and keep what is around them: 280 MiB beside an image of 1024x1024. So
/// a graph that gives a number runs when they are gone.
pub struct Sweep(Option<Session>);

impl Sweep {
    /// One for `backend`; of engines other than ONNX Runtime, and of GPUs, it does nothing.
    ///
    /// # Errors
    /// What the backend says.
    pub fn new(backend: &Backend) -> Result<Sweep> {
        if backend.ort_provider() != Some(Provider::Cpu) {
            return Ok(Sweep(None));
        }
        let mut number = in_memory::load(backend, &one(), &[])?;
        number.set_gives_back(true);
        Ok(Sweep(Some(number)))
    }

    /// Gives back what it can now.
    ///
    /// # Errors
    /// What the backend says.
    pub fn run(&mut self) -> Result<()> {
        if let Some(number) = &mut self.0 {
            number.run(&[])?;
        }
        Ok(())
    }
}
