//! The names of a LoRA's tensors: what each library puts before and behind that of the layer.

use hydit_graphs::Component;

use crate::error::shown;

/// What stands before the name of a layer, and the component that it tells.
const PREFIXES: [(&str, Component); 12] = [
    ("transformer.", Component::Transformer),
    ("model.diffusion_model.", Component::Transformer),
    ("diffusion_model.", Component::Transformer),
    ("unet.", Component::Transformer),
    ("lora_unet_", Component::Transformer),
    ("lora_transformer_", Component::Transformer),
    ("text_encoder_2.", Component::TextEncoder2),
    ("text_encoder.", Component::TextEncoder),
    ("lora_te2_", Component::TextEncoder2),
    ("lora_te1_", Component::TextEncoder),
    ("lora_te_", Component::TextEncoder),
    ("vae.", Component::Vae),
];

/// What PEFT puts before everything.
pub(crate) const PEFT: &str = "base_model.model.";

/// What stands behind the name of a layer. PEFT may have the name of its adapter before `.weight`.
const ENDS: [(&str, Part); 8] = [
    (".lora_A", Part::Down),
    (".lora_B", Part::Up),
    (".lora_down", Part::Down),
    (".lora_up", Part::Up),
    (".lora.down", Part::Down),
    (".lora.up", Part::Up),
    (".lora_linear_layer.down", Part::Down),
    (".lora_linear_layer.up", Part::Up),
];

/// Parts of names that tell of another method, and what it is.
const OTHERS: [(&str, &str); 17] = [
    ("dora_scale", "DoRA, which also changes the length of every column"),
    ("lora_magnitude_vector", "DoRA, which also changes the length of every column"),
    (".hada_", "LoHa, which multiplies two products elementwise"),
    (".lokr_", "LoKr, which takes Kronecker products"),
    (".oft_", "OFT, which turns the outputs"),
    ("oft_blocks", "OFT, which turns the outputs"),
    (".boft_", "BOFT, which turns the outputs"),
    (".ia3_", "IA3, which scales activations"),
    (".vera_lambda_", "VeRA, whose matrices are not in the file"),
    (".lora_mid.", "LoCon with a third matrix in the middle"),
    (".lora_embedding_", "a LoRA of an embedding table"),
    (".lora_A.bias", "a LoRA with biases"),
    (".lora_B.bias", "a LoRA with biases"),
    (".lora_up.bias", "a LoRA with biases"),
    (".diff_b", "a LoRA with differences of whole biases"),
    (".diff", "a LoRA with differences of whole weights"),
    (".modules_to_save.", "a LoRA with whole layers in it"),
];

/// Which part of a change a tensor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// `[rank, in]`, PEFT's `lora_A`.
    Down,
    /// `[out, rank]`, PEFT's `lora_B`.
    Up,
    /// The numerator of the scale.
    Alpha,
}

/// What the name of a tensor says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key<'a> {
    /// The component, where the name tells.
    pub component: Option<Component>,
    /// The layer, by a name that any library may have given it.
    pub layer: &'a str,
    pub part: Part,
    /// Whether the scale is `1 / sqrt(rank)` where there is no alpha, as Tencent's code has it for
    /// names that begin with `unet.`.
    pub root: bool,
}

impl Key<'_> {
    /// Reads the name of a tensor.
    ///
    /// # Errors
    /// It is that of another method, or of none that is known.
    pub fn parse(name: &str) -> Result<Key<'_>, String> {
        let (stem, part) = ends(name).ok_or_else(|| refusal(name))?;
        let stem = stem.strip_prefix(PEFT).unwrap_or(stem);
        let prefix = PREFIXES.iter().find(|(prefix, _)| stem.starts_with(prefix));
        let (component, layer) = match prefix {
            Some((prefix, component)) => (Some(*component), &stem[prefix.len()..]),
            None => (None, stem),
        };
        // Encoders that are a part of a larger model of transformers.
        let layer = match component {
            Some(Component::TextEncoder) => {
                layer.strip_prefix("bert").and_then(|rest| rest.strip_prefix(['.', '_']))
            }
            _ => None,
        }
        .unwrap_or(layer);
        let root = stem.starts_with("unet.") && name.contains(".lora.");
        Ok(Key { component, layer, part, root })
    }
}

/// The name before what tells the part, and the part.
fn ends(name: &str) -> Option<(&str, Part)> {
    if let Some(stem) = name.strip_suffix(".alpha") {
        return Some((stem, Part::Alpha));
    }
    let stem = name.strip_suffix(".weight")?;
    ENDS.iter().find_map(|(end, part)| {
        let (layer, adapter) = match stem.strip_suffix(end) {
            Some(layer) => (layer, ""),
            None => stem.rsplit_once(&format!("{end}."))?,
        };
        (!adapter.contains('.')).then_some((layer, *part))
    })
}

fn refusal(name: &str) -> String {
    match OTHERS.iter().find(|(part, _)| name.contains(part)) {
        Some((_, method)) => format!(
            "tensor {}: this is {method}. Only LoRAs of layers are supported: merge it into a \
             checkpoint with the library that trained it, and export that",
            shown(name)
        ),
        None => format!(
            "tensor {} is no part of a LoRA: expected names that end in lora_A.weight and \
             lora_B.weight, or in lora_down.weight, lora_up.weight and alpha",
            shown(name)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_every_library_are_taken_apart() {
        let dit = Some(Component::Transformer);
        let bert = Some(Component::TextEncoder);
        for (name, component, layer, part) in [
            (
                "transformer.blocks.3.attn1.to_q.lora_A.weight",
                dit,
                "blocks.3.attn1.to_q",
                Part::Down,
            ),
            ("transformer.blocks.3.attn1.to_q.alpha", dit, "blocks.3.attn1.to_q", Part::Alpha),
            (
                "base_model.model.blocks.3.attn1.Wqkv.lora_B.weight",
                None,
                "blocks.3.attn1.Wqkv",
                Part::Up,
            ),
            (
                "base_model.model.blocks.3.attn1.Wqkv.lora_B.default.weight",
                None,
                "blocks.3.attn1.Wqkv",
                Part::Up,
            ),
            (
                "lora_unet_blocks_3_attn1_out_proj.lora_down.weight",
                dit,
                "blocks_3_attn1_out_proj",
                Part::Down,
            ),
            (
                "unet.blocks.3.attn1.out.proj.lora.up.weight",
                dit,
                "blocks.3.attn1.out.proj",
                Part::Up,
            ),
            ("lora_te1_bert_encoder_layer_0_x.alpha", bert, "encoder_layer_0_x", Part::Alpha),
            (
                "text_encoder.encoder.layer.0.x.lora_linear_layer.up.weight",
                bert,
                "encoder.layer.0.x",
                Part::Up,
            ),
        ] {
            let key = Key::parse(name).expect(name);
            assert_eq!((key.component, key.layer, key.part), (component, layer, part), "{name}");
            assert_eq!(key.root, name.starts_with("unet."), "{name}");
        }
    }

    #[test]
    fn other_methods_are_refused_by_name() {
        for (name, expected) in [
            ("lora_unet_x.dora_scale", "this is DoRA"),
            ("transformer.x.lora_magnitude_vector", "this is DoRA"),
            ("lora_unet_x.hada_w1_a", "this is LoHa"),
            ("lora_unet_x.lokr_w2", "this is LoKr"),
            ("lora_unet_x.lora_mid.weight", "this is LoCon"),
            ("transformer.x.lora_B.bias", "with biases"),
            ("lora_unet_x.diff", "differences of whole weights"),
            ("transformer.blocks.0.attn1.to_q.weight", "is no part of a LoRA: expected names"),
            ("a\u{1b}[31m", "tensor `a\\u{1b}[31m` is no part"),
        ] {
            let error = Key::parse(name).expect_err(name);
            assert!(error.contains(expected), "{name}: {error}");
        }
    }
}
