//! What can be wrong with a sampler's inputs.

use super::{SamplerKind, Spacing};

/// Why a sampler or its noise schedule cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SamplerError {
    /// The number of steps is outside what the model was trained for.
    #[error("steps is {steps}: it must be 1 to {max}, the number of training timesteps")]
    Steps {
        /// What was asked for.
        steps: usize,
        /// `num_train_timesteps` of the schedule.
        max: usize,
    },
    /// The spacing does not give that many different trained timesteps.
    #[error(
        "{kind} with {spacing} spacing has no {steps} different timesteps below {max}: take fewer steps or another \
         timestep spacing"
    )]
    Timesteps {
        /// The sampler.
        kind: SamplerKind,
        /// The spacing.
        spacing: Spacing,
        /// What was asked for.
        steps: usize,
        /// `num_train_timesteps` of the schedule.
        max: usize,
    },
    /// Eta makes no sense for this sampler.
    #[error("eta is {eta} with the {kind} sampler: it must be 0, or 0 to 1 with ddim")]
    Eta {
        /// What was asked for.
        eta: f32,
        /// The sampler.
        kind: SamplerKind,
    },
    /// A name that is none of the known ones.
    #[error("unknown {what} {name:?}: it must be one of {known}")]
    Unknown {
        /// What the name should have been.
        what: &'static str,
        /// The name given.
        name: String,
        /// The names that exist.
        known: &'static str,
    },
}

impl SamplerError {
    pub(super) fn unknown(what: &'static str, name: &str, known: &'static str) -> Self {
        Self::Unknown { what, name: name.to_owned(), known }
    }
}
