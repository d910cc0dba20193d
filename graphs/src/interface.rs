//! What each graph of an export reads and makes: the contract between the graphs, and with those who
//! run them. Written out here, so that it can be checked without building a graph.

use crate::config::{HunyuanDitConfig, IpAdapterConfig, TransformerConfig};
use crate::control::{self, Part, before_name, control_name};
use crate::dim::{Dim, Symbol};
use crate::dit;
use crate::hunyuan_dit::skip_name;
use crate::ip_adapter;
use crate::lora::stacks;
use crate::manifest::ModelConfig;
use crate::options::GraphOptions;
use crate::pag::{self, PagLayers};
use crate::tensor::{DType, TensorSpec};

/// The graphs that every export of a Hunyuan-DiT has.
pub(crate) const GRAPHS: [&str; 7] = [
    "text-encoder",
    "text-encoder-2",
    "conditioner",
    "shallow-encoder",
    "deep-core",
    "shallow-decoder",
    "vae-decoder",
];

/// The graphs that an export has if it was asked for them.
pub(crate) const OPTIONAL: [&str; 3] = ["full", "image-encoder", "vae-encoder"];

/// The graphs that every export of `model` has: without texts there are no encoders of them.
pub(crate) fn graphs(model: &ModelConfig) -> &'static [&'static str] {
    if model.transformer.hunyuan_dit().is_some() { &GRAPHS } else { &GRAPHS[2..] }
}

/// Inputs and outputs of a graph, in their order.
#[derive(Debug, PartialEq)]
pub(crate) struct Interface {
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
}

/// The interface of the graph `name` of a model that is cut at `n`; `None` if there is no such
/// graph. The configs are valid.
pub(crate) fn interface(
    name: &str,
    model: &ModelConfig,
    n: usize,
    options: GraphOptions,
    ip_adapter: Option<&IpAdapterConfig>,
) -> Option<Interface> {
    let vae = &model.vae;
    let compute = options.precision.compute();
    let b = Dim::from(Symbol::Batch);
    let symbol = |symbol: Symbol, factor: usize| Dim::from(factor) * symbol.into();
    let tensor = |name: &str, dtype, shape: &[Dim]| TensorSpec {
        name: name.to_string(),
        dtype,
        shape: shape.to_vec(),
    };
    let states = |name: &str, len: usize, width: usize| {
        tensor(name, DType::F32, &[b, len.into(), width.into()])
    };
    let mask = |name: &str, len: usize| tensor(name, DType::I64, &[b, len.into()]);
    let pixels = |name: &str, channels: usize, factor: usize| {
        let [height, width] = [Symbol::Height, Symbol::Width].map(|side| symbol(side, factor));
        tensor(name, DType::F32, &[b, channels.into(), height, width])
    };
    let image = |channels: usize| pixels("image", channels, vae.factor());
    let of_vae = match name {
        "vae-encoder" => {
            Some((image(vae.in_channels), pixels("moments", 2 * vae.latent_channels, 1)))
        }
        "vae-decoder" => Some((pixels("latents", vae.latent_channels, 1), image(vae.out_channels))),
        _ => None,
    };
    if let Some((input, output)) = of_vae {
        return Some(Interface { inputs: vec![input], outputs: vec![output] });
    }
    let dit = match &model.transformer {
        TransformerConfig::HunyuanDit(dit) => dit,
        TransformerConfig::Dit(dit) => return dit::interface(name, dit, n),
    };
    let tokens = |name: &str| tensor(name, DType::F32, &[b, Dim::tokens(), dit.hidden_size.into()]);
    let vector = |name: &str| tensor(name, DType::F32, &[b, dit.hidden_size.into()]);
    let latents = |name: &str, channels: usize| {
        let [height, width] = [Symbol::GridHeight, Symbol::GridWidth];
        let [height, width] = [height, width].map(|side| symbol(side, dit.patch_size));
        tensor(name, DType::F32, &[b, channels.into(), height, width])
    };
    let text_len = dit.text_len + dit.text_len_t5;
    let text_shape = [b, text_len.into(), dit.cross_attention_dim.into()];
    let text_states = tensor("text_states", compute, &text_shape);
    let grid = [Symbol::GridHeight.into(), Symbol::GridWidth.into(), dit.attention_head_dim.into()];
    let shared = [text_states.clone()]
        .into_iter()
        .chain(["cos", "sin"].map(|name| tensor(name, DType::F32, &grid)))
        .chain(ip_adapter.into_iter().flat_map(|_| ip_adapter::inputs(dit, compute)));
    let embedded = [latents("latents", dit.in_channels), tensor("timestep", DType::F32, &[b])]
        .into_iter()
        .chain([vector("extra")])
        .chain(shared.clone());
    let cut = [vector("temb")].into_iter().chain(shared);
    let skips = (0..n).map(|i| tokens(&skip_name(i)));

    let (mut inputs, outputs): (Vec<TensorSpec>, Vec<TensorSpec>) = match name {
        "text-encoder" => (
            vec![mask("input_ids", dit.text_len), mask("attention_mask", dit.text_len)],
            vec![states("last_hidden_state", dit.text_len, dit.cross_attention_dim)],
        ),
        "text-encoder-2" => (
            vec![mask("input_ids", dit.text_len_t5), mask("attention_mask", dit.text_len_t5)],
            vec![states("last_hidden_state", dit.text_len_t5, dit.cross_attention_dim_t5)],
        ),
        "conditioner" => {
            let mut inputs = vec![
                states("encoder_hidden_states", dit.text_len, dit.cross_attention_dim),
                mask("text_embedding_mask", dit.text_len),
                states("encoder_hidden_states_t5", dit.text_len_t5, dit.cross_attention_dim_t5),
                mask("text_embedding_mask_t5", dit.text_len_t5),
            ];
            if dit.use_style_cond_and_image_meta_size {
                inputs.push(tensor("image_meta_size", DType::F32, &[b, 6.into()]));
                inputs.push(tensor("style", DType::I64, &[b]));
            }
            (inputs, vec![text_states, vector("extra")])
        }
        "shallow-encoder" => (embedded.collect(), skips.chain([vector("temb")]).collect()),
        "deep-core" => {
            ([tokens(&skip_name(n - 1))].into_iter().chain(cut).collect(), vec![tokens("deep")])
        }
        "shallow-decoder" => (
            [tokens("deep")].into_iter().chain(skips).chain(cut).collect(),
            vec![latents("noise_pred", dit.out_channels())],
        ),
        "full" => (embedded.collect(), vec![latents("noise_pred", dit.out_channels())]),
        "image-encoder" => {
            let IpAdapterConfig { image_tokens, image_encoder, .. } = ip_adapter?;
            let side = image_encoder.image_size;
            let pixels = [1, 3, side, side].map(Dim::from);
            let states = [2, *image_tokens, dit.cross_attention_dim].map(Dim::from);
            (
                vec![tensor("pixel_values", DType::F32, &pixels)],
                vec![tensor("image_states", DType::F32, &states)],
            )
        }
        _ => return None,
    };
    if options.controls {
        let control = |i| tensor(&control_name(i), DType::F32, &control::shape(dit));
        inputs.extend(control::read_by(name, dit, n).map(control));
    }
    if options.lora_slots {
        inputs.extend(stacks(name, dit, n).iter().flat_map(|stack| stack.specs(compute)));
    }
    if options.pag_layers.is_read_by(name, dit, n) {
        inputs.push(tensor(pag::INPUT, DType::F32, &[b]));
    }
    Some(Interface { inputs, outputs })
}

/// The interface of the graph `part` of a ControlNet with the config `cfg`, beside `model`.
pub(crate) fn control_interface(
    part: Part,
    cfg: &HunyuanDitConfig,
    model: &ModelConfig,
    n: usize,
    options: GraphOptions,
) -> Interface {
    let model =
        ModelConfig { transformer: TransformerConfig::HunyuanDit(cfg.clone()), ..model.clone() };
    let pag_layers = PagLayers::default();
    let options = GraphOptions { lora_slots: false, controls: false, pag_layers, ..options };
    let like = |name| interface(name, &model, n, options, None).expect("a graph of every export");
    let named =
        |name: String, shape: &[Dim]| TensorSpec { name, dtype: DType::F32, shape: shape.to_vec() };
    let b = Dim::from(Symbol::Batch);
    let tokens = |name: &str| named(name.to_string(), &[b, Dim::tokens(), cfg.hidden_size.into()]);
    let temb = named("temb".to_string(), &[b, cfg.hidden_size.into()]);
    let (mut inputs, mut outputs, range) = match part {
        Part::Conditioner => {
            let Interface { mut inputs, mut outputs } = like("conditioner");
            let latents = like("shallow-encoder").inputs.swap_remove(0);
            inputs.push(TensorSpec { name: "control_latents".to_string(), ..latents });
            outputs.push(tokens("hint"));
            return Interface { inputs, outputs };
        }
        Part::Encoder => {
            let mut inputs = like("shallow-encoder").inputs;
            inputs.insert(3, tokens("hint"));
            (inputs, Vec::new(), 0..n)
        }
        Part::Core => {
            let mut inputs = like("deep-core").inputs;
            inputs[0] = tokens("hidden_states");
            (inputs, Vec::new(), n..control::count(cfg))
        }
    };
    inputs.push(named("conditioning_scale".to_string(), &[b, Dim::ONE, Dim::ONE]));
    inputs.extend(range.clone().map(|i| named(before_name(i), &control::shape(cfg))));
    outputs.extend(range.map(|i| tokens(&control_name(i))));
    if part == Part::Encoder && Part::Core.is_in(cfg, n) {
        outputs.extend([tokens("hidden_states"), temb]);
    }
    Interface { inputs, outputs }
}
