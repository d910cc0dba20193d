//! Whether an export stays within the range of its number format while it draws.

use hydit_graphs::Precision;

use crate::artifacts::Artifacts;
use crate::error::{Error, Result};
use crate::pipeline::Pipeline;
use crate::request::Request;
use crate::runtime::{Backend, Magnitude, Magnitudes};

/// The largest number of fp16.
pub const FP16_MAX: f32 = 65504.0;

/// What the graphs of an export made while it drew a picture.
pub struct Finite {
    /// Every output and block, in the order in which they were first made.
    pub values: Vec<Magnitude>,
    /// Those that were infinite or NaN, in the order in which they were so first.
    pub left: Vec<Magnitude>,
}

/// Draws `request` on `backend` and measures what every graph and block makes. Drawing ends at the
/// first prediction that is not finite.
///
/// # Errors
/// The request does not fit the model, or the backend fails.
pub fn check(artifacts: Artifacts, backend: Backend, request: &Request) -> Result<Finite> {
    let request = request.check(&artifacts)?;
    let magnitudes = Magnitudes::default();
    let mut pipeline = Pipeline::open(artifacts, backend.measuring(&magnitudes))?;
    let drawn = pipeline.generate(&request, &mut |_| {});
    let finite = Finite { values: magnitudes.all(), left: magnitudes.left() };
    match drawn {
        Err(Error::NotFinite { .. } | Error::Image(_)) if !finite.left.is_empty() => Ok(finite),
        drawn => drawn.map(|_| finite),
    }
}

impl Finite {
    /// Which block and which output of a graph left the finite range first, and what to do in an
    /// export of `precision`; `None` if none did.
    pub fn complaint(&self, precision: Precision) -> Option<String> {
        let first = |is_block| {
            let magnitude = self.left.iter().find(|left| left.is_block == is_block)?;
            let Magnitude { graph, name, left, .. } = magnitude;
            let run = left.unwrap_or_default();
            let kind = if is_block { "block" } else { "output" };
            Some(format!("the {kind} {name} of {graph} (run {run})"))
        };
        let firsts: Vec<String> = [true, false].into_iter().filter_map(first).collect();
        if firsts.is_empty() {
            return None;
        }
        let mend = match precision {
            Precision::Fp16 => {
                "export with --dtype bf16, which has the range of fp32 and runs on CUDA and \
                 TensorRT, or with --dtype fp32"
            }
            _ => {
                "no number format has more range than this one: its weights are damaged, so fetch \
                 the checkpoint and export it again"
            }
        };
        Some(format!("not finite: first {}: {mend}", firsts.join(", and ")))
    }
}
