//! What can be wrong with a sampler's inputs.

use hydit_graphs::UnknownName;

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
    /// The sampler has no such spacing.
    #[error("{spacing} is no spacing of the {kind} sampler: take {}", join(.kind.spacings()))]
    Spacing {
        /// The sampler.
        kind: SamplerKind,
        /// What was asked for.
        spacing: Spacing,
    },
    /// Eta makes no sense for this sampler.
    #[error("eta is {eta} with the {kind} sampler: it must be 0, or 0 to 1 with ddim")]
    Eta {
        /// What was asked for.
        eta: f32,
        /// The sampler.
        kind: SamplerKind,
    },
    /// The name is none of the samplers'.
    #[error(transparent)]
    Unknown(#[from] UnknownName),
}

fn join(spacings: &[Spacing]) -> String {
    spacings.iter().map(Spacing::to_string).collect::<Vec<_>>().join(", ")
}
