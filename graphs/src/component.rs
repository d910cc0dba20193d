//! The components of a pipeline that have weights.

use crate::dit;

/// A component of a pipeline, which has a folder of its own in diffusers' layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// The diffusion transformer.
    Transformer,
    /// The first text encoder.
    TextEncoder,
    /// The second text encoder.
    TextEncoder2,
    /// The autoencoder of images.
    Vae,
    /// A ControlNet beside the transformer. A pipeline has any number of them.
    ControlNet,
    /// The encoder of image prompts, which an IP-Adapter needs.
    ImageEncoder,
    /// What an IP-Adapter adds to the transformer and puts behind the encoder of image prompts.
    IpAdapter,
}

impl Component {
    /// The components that every pipeline has.
    pub const ALL: [Component; 4] =
        [Component::Transformer, Component::TextEncoder, Component::TextEncoder2, Component::Vae];

    /// The name of the component's folder in diffusers' layout.
    pub fn folder(self) -> &'static str {
        match self {
            Component::Transformer => "transformer",
            Component::TextEncoder => "text_encoder",
            Component::TextEncoder2 => "text_encoder_2",
            Component::Vae => "vae",
            Component::ControlNet => "controlnet",
            Component::ImageEncoder => "image_encoder",
            Component::IpAdapter => "ip_adapter",
        }
    }

    /// Whether no one misses the tensor `name` that no graph reads.
    pub fn ignores(self, name: &str) -> bool {
        let prefixes: &[&str] = match self {
            Component::Vae => &["encoder.", "quant_conv.", "loss."],
            Component::TextEncoder => {
                &["pooler.", "embeddings.position_ids", "cls.", "visual.", "text_projection"]
            }
            Component::TextEncoder2 => &["decoder.", "lm_head.", "logit_scale"],
            Component::ImageEncoder => &[
                "text_model.",
                "text_projection",
                "logit_scale",
                "bert.",
                "vision_model.embeddings.position_ids",
            ],
            Component::Transformer => return name.contains(dit::COPIED),
            Component::ControlNet | Component::IpAdapter => &[],
        };
        prefixes.iter().any(|prefix| name.starts_with(prefix))
    }
}
