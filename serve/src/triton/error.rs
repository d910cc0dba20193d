//! Why a Triton did not draw.

/// Why no picture came.
#[derive(Debug, thiserror::Error)]
pub enum TritonError {
    /// No host is there that has the model.
    #[error("no Triton draws this export: {hosts}")]
    NoHost {
        /// What is wrong with each.
        hosts: String,
    },
    /// A host has answered with an error, and so has another, if there is one.
    #[error("{host}: the model {model} has failed: {message}")]
    Refused {
        /// The host.
        host: String,
        /// Name of the model there.
        model: String,
        /// What it has answered.
        message: String,
    },
    /// Too many hosts went away while they drew the same pictures.
    #[error("{hosts} Tritons went away while they drew it, the last {host}: {message}")]
    Lost {
        /// How many.
        hosts: usize,
        /// The last.
        host: String,
        /// How it went away.
        message: String,
    },
    /// The request cannot be put into tables.
    #[error(transparent)]
    Request(#[from] hydit::Error),
}
