//! ControlNets: nets beside the transformer that read an image, such as a drawing's edges, and steer
//! what is drawn by it. Follows `HunyuanDiT2DControlNetModel` of diffusers
//! (`models/controlnets/controlnet_hunyuan.py`), whose weight names are used.
//!
//! A net has blocks like those of the transformer's first half. What it makes of the output of its
//! block `i` is *control* `i`, which the transformer adds to the long skip from its own block `i`.
//! So a net is cut where the transformer is: with cache branch `n` the shallow decoder needs controls
//! `0..n`, at every step, and the deep core the others, at refresh steps only.
//!
//! Several nets add up: each graph of a net takes the controls of the nets before it, and gives the
//! sums. The first takes zeros, and so does the transformer where there is no net: a tensor with one
//! token, which costs as much as nothing.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::builder::{Graph, GraphDef, Var};
use crate::config::HunyuanDitConfig;
use crate::dim::{Dim, Symbol};
use crate::embedders::Embedders;
use crate::hunyuan_dit::{Model, condition, embed, temb_input, tokens_input};
use crate::options::GraphOptions;
use crate::tensor::DType;

/// The most characters of a net's name.
const LONGEST: usize = 40;

/// A graph of a net.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Everything that depends on the prompt and the net's image only. It runs once per request.
    Conditioner,
    /// Blocks `0..n`. It runs at every step.
    Encoder,
    /// The other blocks. It runs at refresh steps only.
    Core,
}

impl Part {
    /// The parts of a net, in the order in which they run.
    pub const ALL: [Part; 3] = [Part::Conditioner, Part::Encoder, Part::Core];

    /// The name of this graph of the net `net`.
    pub fn graph(self, net: &str) -> String {
        let part = match self {
            Part::Conditioner => "conditioner",
            Part::Encoder => "encoder",
            Part::Core => "core",
        };
        format!("control-{net}-{part}")
    }

    /// Whether a net that is cut at `n` has this part: at the last branch there is no core.
    pub fn is_in(self, cfg: &HunyuanDitConfig, n: usize) -> bool {
        self != Part::Core || n < count(cfg)
    }
}

/// Checks the name of a net, which names of files begin with.
///
/// # Errors
/// What a name may be.
pub fn check_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if (1..=LONGEST).contains(&name.len()) && name.chars().all(plain) {
        return Ok(());
    }
    Err(format!(
        "expected a name of 1 to {LONGEST} of the characters a to z, 0 to 9, - and _, such as canny"
    ))
}

/// The first size in which a net with the config `net` does not fit `transformer`: the field, and
/// what it is in each. What lies within the net alone may differ.
pub fn differs(
    net: &HunyuanDitConfig,
    transformer: &HunyuanDitConfig,
) -> Option<(&'static str, usize, usize)> {
    let sizes = |cfg: &HunyuanDitConfig| {
        [
            ("config.num_layers", cfg.num_layers),
            ("config.hidden_size", cfg.hidden_size),
            ("config.num_attention_heads", cfg.num_attention_heads),
            ("config.patch_size", cfg.patch_size),
            ("config.in_channels", cfg.in_channels),
            ("config.text_len", cfg.text_len),
            ("config.text_len_t5", cfg.text_len_t5),
            ("config.cross_attention_dim", cfg.cross_attention_dim),
            ("config.cross_attention_dim_t5", cfg.cross_attention_dim_t5),
        ]
    };
    let mut pairs = sizes(net).into_iter().zip(sizes(transformer));
    pairs.find(|(own, other)| own.1 != other.1).map(|((name, own), (_, other))| (name, own, other))
}

/// The number of controls: one for each long skip.
pub fn count(cfg: &HunyuanDitConfig) -> usize {
    cfg.num_layers / 2 - 1
}

/// The name of control `i`.
pub fn control_name(i: usize) -> String {
    format!("control_{i}")
}

/// The name of control `i` of the nets before, where a graph adds to it.
pub fn before_name(i: usize) -> String {
    format!("before_{i}")
}

/// The shape of a control that is read: `[b, tokens, hidden]`, or one token for zeros.
pub fn shape(cfg: &HunyuanDitConfig) -> [Dim; 3] {
    [Symbol::Batch.into(), Symbol::ControlTokens.into(), cfg.hidden_size.into()]
}

/// The controls that the graph `graph` of a transformer that is cut at `n` reads.
pub fn read_by(graph: &str, cfg: &HunyuanDitConfig, n: usize) -> Range<usize> {
    match graph {
        "deep-core" => n..count(cfg),
        "shallow-decoder" => 0..n,
        "full" => 0..count(cfg),
        _ => 0..0,
    }
}

/// Declares the controls that `graph` reads, if it has any.
pub(crate) fn inputs<'g>(
    graph: &'g Graph,
    cfg: &HunyuanDitConfig,
    n: usize,
) -> BTreeMap<usize, Var<'g>> {
    if !graph.options().controls {
        return BTreeMap::new();
    }
    let input = |i| (i, graph.input(&control_name(i), DType::F32, &shape(cfg)));
    read_by(graph.name(), cfg, n).map(input).collect()
}

/// Builds the conditioner of the net `net`, whose config is `cfg` in the form of a transformer's.
///
/// Inputs: those of the transformer's [`conditioner`](crate::hunyuan_dit::conditioner), and
/// `control_latents` `[b, c, p * grid_height, p * grid_width]`, the net's image as the image encoder
/// gives it, scaled. Outputs: `text_states` and `extra` as there, and `hint` `[b, tokens, hidden]`,
/// which is added to the patches of every step.
pub fn conditioner(
    net: &str,
    cfg: &HunyuanDitConfig,
    options: impl Into<GraphOptions>,
) -> GraphDef {
    let graph = Graph::new(&Part::Conditioner.graph(net), options);
    condition(cfg, &graph);
    let patch = Dim::from(cfg.patch_size);
    let [height, width] = [Symbol::GridHeight, Symbol::GridWidth].map(|side| patch * side.into());
    let shape = [Symbol::Batch.into(), cfg.in_channels.into(), height, width];
    let patches =
        Embedders::new(cfg, &graph).patches(graph.input("control_latents", DType::F32, &shape));
    let hint = patches.linear(&graph.root(), "input_block", cfg.hidden_size);
    graph.output("hint", hint.cast(DType::F32));
    graph.finish()
}

/// Builds the encoder of the net `net`: patches, timestep and blocks `0..n`.
///
/// Inputs: those of the transformer's [`shallow_encoder`](crate::hunyuan_dit::shallow_encoder), with
/// the net's own `extra` and `text_states`; `hint` `[b, tokens, hidden]`; `conditioning_scale`
/// `[b, 1, 1]`, by which controls are multiplied; and `before_0` .. `before_{n - 1}`
/// `[b, control_tokens, hidden]`. Outputs: `control_0` .. `control_{n - 1}` `[b, tokens, hidden]`,
/// and for the core `hidden_states` of that shape and `temb` `[b, hidden]`.
pub fn encoder(
    net: &str,
    cfg: &HunyuanDitConfig,
    n: usize,
    options: impl Into<GraphOptions>,
) -> GraphDef {
    let graph = Graph::new(&Part::Encoder.graph(net), options);
    let (x, temb) = embed(cfg, &graph);
    let x = x + tokens_input(cfg, &graph, "hint");
    let model = Model::new(cfg, &graph, n, temb);
    let x = controls(&model, 0..n, x);
    if Part::Core.is_in(cfg, n) {
        graph.output("hidden_states", x);
        graph.output("temb", temb);
    }
    graph.finish()
}

/// Builds the core of the net `net`: its blocks from `n` on. There is none at the last branch.
///
/// Inputs: `hidden_states`, `temb`, `text_states`, `cos`, `sin`, `conditioning_scale` and
/// `before_{n}` and so on, with shapes as for [`encoder`]. Outputs: the other controls,
/// `[b, tokens, hidden]`.
pub fn core(
    net: &str,
    cfg: &HunyuanDitConfig,
    n: usize,
    options: impl Into<GraphOptions>,
) -> GraphDef {
    let graph = Graph::new(&Part::Core.graph(net), options);
    let x = tokens_input(cfg, &graph, "hidden_states");
    let model = Model::new(cfg, &graph, n, temb_input(cfg, &graph));
    controls(&model, n..count(cfg), x);
    graph.finish()
}

/// Runs the blocks of `range` and makes their controls outputs; gives what the last block makes.
fn controls<'g>(model: &Model<'_, 'g>, range: Range<usize>, x: Var<'g>) -> Var<'g> {
    let (graph, cfg) = (x.graph, model.cfg);
    let one_each = [Symbol::Batch.into(), Dim::ONE, Dim::ONE];
    let scale = graph.input("conditioning_scale", DType::F32, &one_each);
    let before: Vec<Var<'g>> =
        range.clone().map(|i| graph.input(&before_name(i), DType::F32, &shape(cfg))).collect();
    let mut states = Vec::new();
    let x = model.blocks(range.clone(), x, &mut states);
    let w = model.w.pp("controlnet_blocks");
    for ((i, state), before) in range.zip(states).zip(before) {
        let control = state.linear(&w, &i.to_string(), cfg.hidden_size).cast(DType::F32) * scale;
        graph.output(&control_name(i), control.plus_spread(before));
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Precision;

    fn cfg() -> HunyuanDitConfig {
        HunyuanDitConfig {
            num_layers: 10,
            hidden_size: 16,
            num_attention_heads: 2,
            attention_head_dim: 8,
            ..HunyuanDitConfig::default()
        }
    }

    #[test]
    fn every_control_is_made_once_and_read_once_at_every_cut() {
        for n in cfg().cache_branches() {
            let mut made = Vec::new();
            let encoder = encoder("canny", &cfg(), n, Precision::Fp32);
            made.extend(encoder.outputs.iter().map(|output| output.name.clone()));
            if Part::Core.is_in(&cfg(), n) {
                let core = core("canny", &cfg(), n, Precision::Fp32);
                made.extend(core.outputs.iter().map(|output| output.name.clone()));
            }
            made.retain(|name| name.starts_with("control_"));
            made.sort();
            let read = |graph| read_by(graph, &cfg(), n).map(control_name);
            let mut wanted: Vec<_> = read("deep-core").chain(read("shallow-decoder")).collect();
            wanted.sort();
            assert_eq!(made, wanted);
            assert_eq!(made.len(), 4);
        }
    }

    #[test]
    fn names_are_those_of_files() {
        for name in ["canny", "depth-2", "my_net"] {
            assert_eq!(check_name(name), Ok(()));
        }
        for name in ["", "Canny", "a/b", "..", "边缘", &"a".repeat(41)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
