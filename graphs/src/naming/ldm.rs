//! The names of the latent-diffusion code, in which autoencoders of images come as single files, such
//! as `sdxl_vae.safetensors`.

use super::{Rows, Rule, moved, only, renamed};

/// A tensor that every autoencoder with these names has.
pub(super) const ANCHOR: &str = "decoder.mid.block_1.norm1.weight";

/// The names below `encoder.` and `decoder.` alike.
const RULES: &[Rule] = &[
    moved("mid.block_1.", &[("mid_block.resnets.0.", Rows::All)]),
    moved("mid.block_2.", &[("mid_block.resnets.1.", Rows::All)]),
    moved("mid.attn_1.norm.", &[("mid_block.attentions.0.group_norm.", Rows::All)]),
    moved("mid.attn_1.q.", &[("mid_block.attentions.0.to_q.", Rows::All)]),
    moved("mid.attn_1.k.", &[("mid_block.attentions.0.to_k.", Rows::All)]),
    moved("mid.attn_1.v.", &[("mid_block.attentions.0.to_v.", Rows::All)]),
    moved("mid.attn_1.proj_out.", &[("mid_block.attentions.0.to_out.0.", Rows::All)]),
    moved("norm_out.", &[("conv_norm_out.", Rows::All)]),
];

/// The name in diffusers of what is called `name` below `encoder.` or `decoder.`. There the `levels`
/// levels of the decoder count from the smallest picture on, and those of the encoder, as here, from
/// the largest.
pub(super) fn current(name: &str, levels: usize) -> String {
    level(name, levels).unwrap_or_else(|| only(renamed(name, RULES)))
}

fn level(name: &str, levels: usize) -> Option<String> {
    let (up, rest) = match (name.strip_prefix("up."), name.strip_prefix("down.")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return None,
    };
    let (level, rest) = rest.split_once('.')?;
    let level: usize = level.parse().ok()?;
    let rest = match rest.strip_prefix("block.") {
        Some(rest) => format!("resnets.{}", rest.replace("nin_shortcut.", "conv_shortcut.")),
        None if up => format!("upsamplers.0.{}", rest.strip_prefix("upsample.")?),
        None => format!("downsamplers.0.{}", rest.strip_prefix("downsample.")?),
    };
    match up {
        true => Some(format!("up_blocks.{}.{rest}", levels.checked_sub(1 + level)?)),
        false => Some(format!("down_blocks.{level}.{rest}")),
    }
}
