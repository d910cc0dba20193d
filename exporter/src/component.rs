//! The components of a pipeline that have weights.

/// A component of a pipeline with a folder of its own in the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// The diffusion transformer.
    Transformer,
    /// The first text encoder.
    TextEncoder,
    /// The second text encoder.
    TextEncoder2,
    /// The image decoder.
    Vae,
}

impl Component {
    /// The name of the component's folder.
    pub fn folder(self) -> &'static str {
        match self {
            Component::Transformer => "transformer",
            Component::TextEncoder => "text_encoder",
            Component::TextEncoder2 => "text_encoder_2",
            Component::Vae => "vae",
        }
    }

    /// The name that a tensor has today, of which older checkpoints have parts spelled otherwise.
    /// diffusers and transformers rename them alike when they load a checkpoint.
    pub(crate) fn current_name(self, name: String) -> String {
        let renames: &[(&str, &str)] = match self {
            Component::Vae => &[
                (".attentions.0.query.", ".attentions.0.to_q."),
                (".attentions.0.key.", ".attentions.0.to_k."),
                (".attentions.0.value.", ".attentions.0.to_v."),
                (".attentions.0.proj_attn.", ".attentions.0.to_out.0."),
            ],
            Component::TextEncoder2 => &[("encoder.embed_tokens.", "shared.")],
            Component::Transformer | Component::TextEncoder => &[],
        };
        renames.iter().fold(name, |name, (old, new)| name.replace(old, new))
    }

    /// Whether text-to-image never needs the tensor `name`.
    pub(crate) fn ignores(self, name: &str) -> bool {
        let prefixes: &[&str] = match self {
            Component::Vae => &["encoder.", "quant_conv."],
            Component::TextEncoder => &["pooler.", "embeddings.position_ids"],
            Component::TextEncoder2 => &["decoder.", "lm_head."],
            Component::Transformer => &[],
        };
        prefixes.iter().any(|prefix| name.starts_with(prefix))
    }
}
