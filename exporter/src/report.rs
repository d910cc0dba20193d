//! All that is wrong with a checkpoint's tensors, in one report.

use std::fmt;

/// The tensors of a checkpoint that do not fit the graphs. Each line names the component, the
/// tensor and what is wrong.
#[derive(Debug, Default)]
pub struct TensorReport {
    /// Tensors that a graph declares and the checkpoint does not have.
    pub missing: Vec<String>,
    /// Tensors of another shape, or of an element type that cannot be used.
    pub mismatched: Vec<String>,
    /// Tensors that no graph declares, which is worth a warning only.
    pub unused: Vec<String>,
}

impl TensorReport {
    /// Returns the unused tensors if that is all there is.
    ///
    /// # Errors
    /// The report itself, if tensors are missing or mismatched.
    pub fn check(self) -> Result<Vec<String>, TensorReport> {
        if self.missing.is_empty() && self.mismatched.is_empty() {
            Ok(self.unused)
        } else {
            Err(self)
        }
    }
}

impl std::error::Error for TensorReport {}

impl fmt::Display for TensorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (missing, mismatched) = (self.missing.len(), self.mismatched.len());
        write!(f, "the checkpoint does not fit its config: {missing} tensors missing, ")?;
        write!(f, "{mismatched} mismatched, {} unused", self.unused.len())?;
        for (kind, names) in
            [("missing", &self.missing), ("mismatched", &self.mismatched), ("unused", &self.unused)]
        {
            names.iter().try_for_each(|name| write!(f, "\n  {kind} {name}"))?;
        }
        write!(f, "\nCheck that the folder is complete and that config.json belongs to it.")
    }
}
