//! The samplers by their names, and where each of them can go.

use serde::{Deserialize, Serialize};
use strum::{Display, EnumMessage, EnumString, IntoStaticStr, VariantArray};

use crate::names::UnknownName;
use crate::scheduler::Spacing;

/// The sampler: how a prediction of the model moves the latents from one timestep to the next.
///
/// `ddpm`, `ddim` and `dpmms` are named as by Tencent's `--sampler`.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    Display,
    EnumMessage,
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
#[strum(parse_err_ty = UnknownName, parse_err_fn = UnknownName::among::<SamplerKind>)]
pub enum SamplerKind {
    /// diffusers' `DDPMScheduler`: ancestral, fresh noise at every step.
    Ddpm,
    /// diffusers' `DDIMScheduler`: deterministic unless eta is raised.
    Ddim,
    /// diffusers' `DPMSolverMultistepScheduler`: DPM-Solver++ of order 2, midpoint; good from about
    /// 15 steps.
    Dpmms,
    /// diffusers' `UniPCMultistepScheduler`: a predictor of order 2 (bh2) with a corrector; good
    /// from about 10 steps.
    #[serde(rename = "unipc")]
    #[strum(serialize = "unipc")]
    UniPc,
    /// diffusers' `EulerDiscreteScheduler`: deterministic, of order 1.
    Euler,
    /// diffusers' `EulerAncestralDiscreteScheduler`: euler with fresh noise at every step.
    EulerAncestral,
    /// diffusers' `LCMScheduler`: 1 to 8 steps, for checkpoints that are distilled for it.
    Lcm,
}

impl SamplerKind {
    /// The spacings with which diffusers has it.
    pub fn spacings(self) -> &'static [Spacing] {
        use Spacing::{Karras, Leading, Linspace, Trailing};
        match self {
            SamplerKind::Ddpm | SamplerKind::Ddim | SamplerKind::EulerAncestral => {
                &[Leading, Linspace, Trailing]
            }
            SamplerKind::Dpmms | SamplerKind::UniPc | SamplerKind::Euler => {
                &[Leading, Linspace, Trailing, Karras]
            }
            SamplerKind::Lcm => &[Trailing],
        }
    }

    /// The spacing where neither a request nor a variant says one: of the samplers that Tencent has
    /// not the default of their class in diffusers; none where the checkpoint decides.
    pub fn own_spacing(self) -> Option<Spacing> {
        match self {
            SamplerKind::Ddpm | SamplerKind::Ddim | SamplerKind::Dpmms => None,
            SamplerKind::UniPc | SamplerKind::Euler | SamplerKind::EulerAncestral => {
                Some(Spacing::Linspace)
            }
            SamplerKind::Lcm => Some(Spacing::Trailing),
        }
    }
}
