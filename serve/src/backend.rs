//! What draws, as `--backend` names it.

use hydit::runtime::BackendChoice;

/// What draws: an engine in this program, or Tritons elsewhere.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    strum::Display,
    strum::EnumMessage,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[strum(serialize_all = "lowercase")]
pub enum Backend {
    /// ONNX Runtime where it is found, else tract.
    #[default]
    Auto,
    /// ONNX Runtime, or an error.
    Ort,
    /// tract.
    Tract,
    /// The Tritons of --triton.
    Triton,
}

impl Backend {
    /// The engine in this program, unless Tritons draw.
    pub fn engine(self) -> Option<BackendChoice> {
        match self {
            Backend::Auto => Some(BackendChoice::Auto),
            Backend::Ort => Some(BackendChoice::Ort),
            Backend::Tract => Some(BackendChoice::Tract),
            Backend::Triton => None,
        }
    }
}
