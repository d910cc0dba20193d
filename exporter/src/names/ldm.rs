//! The names of the latent-diffusion code, in which image decoders come as single files, such as
//! `sdxl_vae.safetensors`.

use super::{Rows, Rule, moved, renamed};

/// A tensor that every image decoder with these names has.
pub(super) const ANCHOR: &str = "decoder.mid.block_1.norm1.weight";

const RULES: &[Rule] = &[
    moved("decoder.mid.block_1.", &[("decoder.mid_block.resnets.0.", Rows::All)]),
    moved("decoder.mid.block_2.", &[("decoder.mid_block.resnets.1.", Rows::All)]),
    moved("decoder.mid.attn_1.norm.", &[("decoder.mid_block.attentions.0.group_norm.", Rows::All)]),
    moved("decoder.mid.attn_1.q.", &[("decoder.mid_block.attentions.0.to_q.", Rows::All)]),
    moved("decoder.mid.attn_1.k.", &[("decoder.mid_block.attentions.0.to_k.", Rows::All)]),
    moved("decoder.mid.attn_1.v.", &[("decoder.mid_block.attentions.0.to_v.", Rows::All)]),
    moved(
        "decoder.mid.attn_1.proj_out.",
        &[("decoder.mid_block.attentions.0.to_out.0.", Rows::All)],
    ),
    moved("decoder.norm_out.", &[("decoder.conv_norm_out.", Rows::All)]),
];

/// The name in diffusers, which counts the `levels` levels from the smallest picture on.
pub(super) fn current(name: &str, levels: usize) -> String {
    level(name, levels).unwrap_or_else(|| {
        let mut all = renamed(name, RULES);
        all.pop().expect("each has one").0
    })
}

fn level(name: &str, levels: usize) -> Option<String> {
    let (level, rest) = name.strip_prefix("decoder.up.")?.split_once('.')?;
    let level = levels.checked_sub(1 + level.parse::<usize>().ok()?)?;
    let rest = match rest.strip_prefix("upsample.") {
        Some(rest) => format!("upsamplers.0.{rest}"),
        None => {
            let rest = rest.strip_prefix("block.")?;
            format!("resnets.{}", rest.replace("nin_shortcut.", "conv_shortcut."))
        }
    };
    Some(format!("decoder.up_blocks.{level}.{rest}"))
}
