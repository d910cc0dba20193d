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
    /// `scheduler_config.json` asks for something the samplers do not do. All such fields at once.
    #[error("scheduler config not supported: {}", join(.0))]
    Config(Vec<ConfigProblem>),
    /// `scheduler_config.json` is not a JSON object.
    #[error("scheduler config is not a JSON object")]
    Json(#[from] serde_json::Error),
}

/// One field of a scheduler config that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}, it must be {expected}")]
pub struct ConfigProblem {
    /// The field's name in `scheduler_config.json`.
    pub field: String,
    /// Its value as JSON, or "missing".
    pub value: String,
    /// What would be accepted.
    pub expected: &'static str,
}

impl SamplerError {
    pub(super) fn unknown(what: &'static str, name: &str, known: &'static str) -> Self {
        Self::Unknown { what, name: name.to_owned(), known }
    }
}

fn join(problems: &[ConfigProblem]) -> String {
    problems.iter().map(ConfigProblem::to_string).collect::<Vec<_>>().join("; ")
}
