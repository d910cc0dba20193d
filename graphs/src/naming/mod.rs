//! The names of tensors: what each library called them, and what they are called inside, which is
//! as diffusers and transformers do today. One table for each older or other way.

mod dit;
mod ldm;
mod older;
mod openai;
mod tencent;

use serde::Serialize;

use crate::component::Component;

/// Which part of a stored tensor becomes one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// All of it.
    All,
    /// The rows of one of so many equal parts, counted from 0.
    Part(usize, usize),
    /// The second half of the rows, then the first.
    SwappedHalves,
    /// The first row.
    First,
    /// All of a matrix, whose rows are columns.
    Transposed,
}

/// A name that tensors of a checkpoint begin with, and those that they get in its place. A `*`
/// stands for a number, the same in all of them.
struct Rule {
    from: &'static str,
    to: &'static [(&'static str, Rows)],
}

/// The projections of self attention that one tensor joins.
const QKV: &[(&str, Rows)] = &[
    ("blocks.*.attn1.to_q.", Rows::Part(0, 3)),
    ("blocks.*.attn1.to_k.", Rows::Part(1, 3)),
    ("blocks.*.attn1.to_v.", Rows::Part(2, 3)),
];

/// Those of cross attention.
const KV: &[(&str, Rows)] =
    &[("blocks.*.attn2.to_k.", Rows::Part(0, 2)), ("blocks.*.attn2.to_v.", Rows::Part(1, 2))];

/// A rule by which a tensor gets another name.
const fn moved(from: &'static str, to: &'static [(&'static str, Rows)]) -> Rule {
    Rule { from, to }
}

/// Whose names the tensors of a component have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Naming {
    /// Those of diffusers and transformers.
    Diffusers,
    /// Those of Tencent's own code, which ComfyUI and trainers keep.
    Tencent,
    /// Those of the latent-diffusion code, for autoencoders of images.
    Ldm,
    /// Those of OpenAI's CLIP, for encoders of image prompts.
    OpenAi,
    /// Those of DiT's own code, which Skip-DiT keeps.
    Dit,
}

impl Naming {
    /// Looks at `has`, which tells whether there is a tensor of a name.
    pub fn of(component: Component, has: impl Fn(&str) -> bool) -> Naming {
        match component {
            Component::Transformer if has(dit::ANCHOR) => Naming::Dit,
            Component::Transformer | Component::ControlNet if has(tencent::ANCHOR) => {
                Naming::Tencent
            }
            Component::Vae if has(ldm::ANCHOR) => Naming::Ldm,
            Component::ImageEncoder if has(openai::ANCHOR) => Naming::OpenAi,
            Component::IpAdapter => Naming::Tencent,
            _ => Naming::Diffusers,
        }
    }

    /// The names that the tensor `name` of `component` has inside, and its rows of each. `levels`
    /// is the number of levels of an autoencoder.
    pub fn current(self, component: Component, name: &str, levels: usize) -> Vec<(String, Rows)> {
        match (component, self) {
            (Component::IpAdapter, _) => renamed(name, tencent::IP_ADAPTER),
            (_, Naming::Tencent) => renamed(name, tencent::RULES),
            (_, Naming::Dit) => renamed(name, dit::RULES),
            (_, Naming::OpenAi) => renamed(name, openai::RULES),
            (_, Naming::Ldm) => below(name, |name| ldm::current(name, levels)),
            (Component::Transformer | Component::ControlNet, _) => {
                renamed(&only(renamed(name, dit::DIFFUSERS)), older::TRANSFORMER)
            }
            (Component::TextEncoder, _) => vec![(older::bert(name), Rows::All)],
            (Component::TextEncoder2, _) => renamed(name, older::T5),
            (Component::Vae, _) => below(name, |name| only(renamed(name, older::VAE))),
            (Component::ImageEncoder, _) => vec![(name.to_string(), Rows::All)],
        }
    }
}

/// Names of tensors, one of which every file of `component` has. What stands before it there stands
/// before all names of the component.
pub fn anchors(component: Component) -> &'static [&'static str] {
    match component {
        Component::Transformer => &[tencent::ANCHOR, "pos_embed.proj.weight"],
        Component::ControlNet => &["before_proj.weight", "input_block.weight"],
        Component::TextEncoder => &["embeddings.word_embeddings.weight"],
        Component::TextEncoder2 => &["encoder.block.0.layer.0.SelfAttention.q.weight"],
        Component::Vae => &["decoder.conv_in.weight"],
        Component::ImageEncoder => &[openai::ANCHOR, "vision_model.embeddings.class_embedding"],
        Component::IpAdapter => &[tencent::IP_ADAPTER_ANCHOR],
    }
}

/// The names under which other libraries have the layer `module` of `component`, each with the rows
/// of the layer there that are `module`'s: `blocks.3.attn1.to_k` is the second third of
/// `blocks.3.attn1.Wqkv`.
pub fn elsewhere(component: Component, module: &str) -> Vec<(String, Rows)> {
    let tables: &[&[Rule]] = match component {
        Component::Transformer => &[tencent::RULES, older::TRANSFORMER],
        _ => &[],
    };
    let name = format!("{module}.");
    let rules = tables.iter().flat_map(|rules| rules.iter());
    let names = rules.flat_map(|Rule { from, to }| {
        let found = to.iter().filter_map(|(to, rows)| Some((matched(&name, to)?, *rows)));
        found.map(|((number, rest), rows)| {
            let name = from.replace('*', number) + rest;
            (name.trim_end_matches('.').to_string(), rows)
        })
    });
    names.collect()
}

/// `name`, whose part below `encoder.` or `decoder.` gets the name that `rename` gives it.
fn below(name: &str, rename: impl Fn(&str) -> String) -> Vec<(String, Rows)> {
    let name = match name.split_once('.') {
        Some((half @ ("encoder" | "decoder"), rest)) => format!("{half}.{}", rename(rest)),
        _ => name.to_string(),
    };
    vec![(name, Rows::All)]
}

/// The only name that there is.
fn only(mut names: Vec<(String, Rows)>) -> String {
    names.pop().expect("a rule for one tensor").0
}

/// `name` by the first rule that fits; as it is if none does.
fn renamed(name: &str, rules: &[Rule]) -> Vec<(String, Rows)> {
    for Rule { from, to } in rules {
        if let Some((number, rest)) = matched(name, from) {
            let named = |to: &str| to.replace('*', number) + rest;
            return to.iter().map(|(to, rows)| (named(to), *rows)).collect();
        }
    }
    vec![(name.to_string(), Rows::All)]
}

/// The number in the place of `*`, and what follows, if `name` begins with `pattern`.
fn matched<'a>(name: &'a str, pattern: &str) -> Option<(&'a str, &'a str)> {
    let Some((before, after)) = pattern.split_once('*') else {
        return name.strip_prefix(pattern).map(|rest| ("", rest));
    };
    let rest = name.strip_prefix(before)?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = rest.split_at(digits);
    rest.strip_prefix(after).filter(|_| digits > 0).map(|rest| (number, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tencent(name: &str) -> Vec<(String, Rows)> {
        Naming::Tencent.current(Component::Transformer, name, 0)
    }

    fn alone(name: &str) -> Vec<(String, Rows)> {
        vec![(name.to_string(), Rows::All)]
    }

    #[test]
    fn the_two_traps_of_tencents_names() {
        // Equal shapes: a table without these loads, and draws noise.
        assert_eq!(tencent("blocks.7.norm2.weight"), alone("blocks.7.norm3.weight"));
        assert_eq!(tencent("blocks.7.norm3.bias"), alone("blocks.7.norm2.bias"));
        let halves = [("norm_out.linear.bias".to_string(), Rows::SwappedHalves)];
        assert_eq!(tencent("final_layer.adaLN_modulation.1.bias"), halves);
    }

    #[test]
    fn tencents_names_of_a_controlnet() {
        let current = |name| Naming::Tencent.current(Component::ControlNet, name, 0);
        assert_eq!(current("before_proj.bias"), alone("input_block.bias"));
        let control = alone("controlnet_blocks.17.weight");
        assert_eq!(current("after_proj_list.17.weight"), control);
        assert_eq!(current("blocks.7.norm2.weight"), alone("blocks.7.norm3.weight"));
    }

    #[test]
    fn numbers_are_carried_over_and_only_whole_names_match() {
        assert_eq!(tencent("blocks.38.mlp.fc1.weight"), alone("blocks.38.ff.net.0.proj.weight"));
        assert_eq!(tencent("blocks.x.mlp.fc1.weight"), alone("blocks.x.mlp.fc1.weight"));
        let parts = [0, 1, 2].map(|part| Rows::Part(part, 3));
        let names = ["q", "k", "v"].map(|x| format!("blocks.3.attn1.to_{x}.bias"));
        let expected: Vec<_> = names.into_iter().zip(parts).collect();
        assert_eq!(tencent("blocks.3.attn1.Wqkv.bias"), expected);
    }

    #[test]
    fn a_layer_is_found_under_its_other_names() {
        let names = |module| elsewhere(Component::Transformer, module);
        let name = |name: &str, rows| (name.to_string(), rows);
        let expected = [
            name("blocks.12.attn2.kv_proj", Rows::Part(1, 2)),
            name("blocks.12.attn2.to_kv", Rows::Part(1, 2)),
        ];
        assert_eq!(names("blocks.12.attn2.to_v"), expected);
        assert_eq!(
            names("norm_out.linear"),
            [name("final_layer.adaLN_modulation.1", Rows::SwappedHalves)]
        );
        assert_eq!(names("time_extra_emb.pooler.q_proj"), [name("pooler.q_proj", Rows::All)]);
        assert_eq!(names("blocks.30.skip_linear"), []);
    }

    #[test]
    fn what_joins_keys_and_values_of_an_image_prompt_is_parted() {
        let current = |name: &str| Naming::Tencent.current(Component::IpAdapter, name, 0);
        let part = |name: &str, i| (format!("blocks.7.attn2.{name}.bias"), Rows::Part(i, 2));
        assert_eq!(
            current("blocks.7.attn2.kv_proj_ip_adapter.bias"),
            [part("to_k_ip", 0), part("to_v_ip", 1)]
        );
        let current = |name: &str| Naming::OpenAi.current(Component::ImageEncoder, name, 0);
        let layer = "vision_model.encoder.layers.31.self_attn";
        let parts = ["q", "k", "v"].into_iter().enumerate();
        let parts = parts.map(|(i, x)| (format!("{layer}.{x}_proj.weight"), Rows::Part(i, 3)));
        assert_eq!(
            current("visual.transformer.resblocks.31.attn.in_proj_weight"),
            parts.collect::<Vec<_>>()
        );
        let matrix = [("visual_projection.weight".to_string(), Rows::Transposed)];
        assert_eq!(current("visual.proj"), matrix);
    }

    #[test]
    fn decoders_count_their_levels_the_other_way_in_ldm_and_encoders_do_not() {
        let current = |name: &str| Naming::Ldm.current(Component::Vae, name, 4);
        for (name, expected) in [
            ("decoder.up.3.block.0.norm1.weight", "decoder.up_blocks.0.resnets.0.norm1.weight"),
            (
                "decoder.up.0.block.2.nin_shortcut.bias",
                "decoder.up_blocks.3.resnets.2.conv_shortcut.bias",
            ),
            ("decoder.up.1.upsample.conv.bias", "decoder.up_blocks.2.upsamplers.0.conv.bias"),
            ("decoder.mid.block_2.conv1.weight", "decoder.mid_block.resnets.1.conv1.weight"),
            (
                "decoder.mid.attn_1.proj_out.weight",
                "decoder.mid_block.attentions.0.to_out.0.weight",
            ),
            ("decoder.mid.attn_1.norm.bias", "decoder.mid_block.attentions.0.group_norm.bias"),
            ("decoder.norm_out.bias", "decoder.conv_norm_out.bias"),
            ("encoder.down.1.block.0.norm1.weight", "encoder.down_blocks.1.resnets.0.norm1.weight"),
            (
                "encoder.down.2.block.0.nin_shortcut.bias",
                "encoder.down_blocks.2.resnets.0.conv_shortcut.bias",
            ),
            (
                "encoder.down.0.downsample.conv.bias",
                "encoder.down_blocks.0.downsamplers.0.conv.bias",
            ),
            ("encoder.mid.attn_1.q.weight", "encoder.mid_block.attentions.0.to_q.weight"),
            ("encoder.norm_out.bias", "encoder.conv_norm_out.bias"),
            ("encoder.conv_in.bias", "encoder.conv_in.bias"),
            ("post_quant_conv.weight", "post_quant_conv.weight"),
        ] {
            assert_eq!(current(name), alone(expected));
        }
    }
}
