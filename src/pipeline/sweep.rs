//! Memory that runs have left, given back when a request is done.

use hydit_graphs::arithmetic::one;

use crate::error::Result;
use crate::runtime::{Backend, Provider, Session, in_memory};

/// Gives back the memory in which no tensor lies.
///
/// ONNX Runtime does that at the end of a run on the CPU and at no other time. The outputs of that
/// run still lie there then, and keep what is around them: 280 MiB beside an image of 1024x1024. So
/// a graph that gives a number runs when they are gone.
#[derive(Default)]
pub struct Sweep {
    /// The graph, loaded when it is first needed.
    number: Option<Session>,
}

impl Sweep {
    /// Gives back what it can now; nothing with engines other than ONNX Runtime, and on GPUs.
    ///
    /// # Errors
    /// What the backend says.
    pub fn run(&mut self, backend: &Backend) -> Result<()> {
        if backend.ort_provider() != Some(Provider::Cpu) {
            return Ok(());
        }
        let number = match &mut self.number {
            Some(number) => number,
            None => {
                let mut number = in_memory::load(backend, &one(), &[])?;
                number.set_gives_back(true);
                self.number.insert(number)
            }
        };
        number.run(&[])?;
        Ok(())
    }
}
