//! The whole pipeline as one graph, for hosts that run files and have no orchestrator: from token
//! ids to pixels, with the denoising loop and Skip-Cache inside.
//!
//! A `Loop` runs the cut transformer; an `If` on the table `refresh` has the deep core in its
//! then-branch, so that a step which reuses does not run it. Schedule, sampler and policy are
//! tables of the request, a row a step: the graph has no arithmetic of any sampler in it. Its
//! parts are the other graphs of the export, node for node, and its weights lie in their files.

mod glue;
mod stitch;

use prost::Message;

use self::stitch::Stitch;
use crate::builder::GraphDef;
use crate::dim::{Dim, Symbol};
use crate::hunyuan_dit::skip_name;
use crate::manifest::ModelConfig;
use crate::model::onnx_file;
use crate::onnx::{NodeProto, ValueInfoProto};
use crate::tensor::DType;

/// Name of the graph.
pub const NAME: &str = "pipeline";

/// Name of the file.
pub const FILE: &str = "pipeline.onnx";

/// Outputs of the deep core that are kept for what stands in for it at steps that reuse; the
/// columns of the table `stand_ins`, the latest output first.
pub const KEPT: usize = 3;

/// Columns of the table `coefficients`: see [`glue::advance`](self).
pub const COEFFICIENTS: usize = 7;

/// The tables with a row for each step.
const TABLES: [&str; 5] = ["timesteps", "refresh", "stand_ins", "coefficients", "guidance"];

/// The bytes of the ONNX file of the pipeline whose parts are `graphs`, those of one export that is
/// cut at `n`.
///
/// For n images of one size it reads, in fp32 unless said otherwise:
///
/// | input | shape | |
/// |---|---|---|
/// | `input_ids`, `attention_mask` | `[2n, text_len]` i64 | negative prompts first, then prompts |
/// | `input_ids_t5`, `attention_mask_t5` | `[2n, text_len_t5]` i64 | the same of the second tokenizer |
/// | `image_meta_size`, `style` | `[2n, 6]`, `[2n]` i64 | of models up to v1.1 |
/// | `latents` | `[n, c, h, w]` | noise |
/// | `cos`, `sin` | `[h / p, w / p, head_dim]` | rotary tables |
/// | `timesteps` | `[steps]` | |
/// | `refresh` | `[steps]` bool | whether the deep core runs; true at the first step |
/// | `stand_ins` | `[steps, 3]` | weights of its last outputs; 1, 0, 0 for the latest as it is |
/// | `coefficients` | `[steps, 7]` | the sampler's |
/// | `guidance` | `[steps]` | 1 for none |
/// | `guidance_rescale` | `[]` | |
/// | `noise` | `[steps or 1, n, c, h, w]` | what the sampler draws at each step; the last row goes on |
///
/// Output: `images` `[n, height, width, 3]`, bytes.
///
/// A row of `coefficients` has the factors of a step: the clean latents are `k0` times the latents
/// plus `k1` times the guided prediction; the next latents are `k2` times the latents, plus `k3`
/// times the clean ones, `k4` times the prediction, `k5` times the clean ones of the step before
/// and `k6` times the noise.
///
/// # Panics
/// If a part is missing.
pub fn file(model: &ModelConfig, n: usize, graphs: &[&GraphDef]) -> Vec<u8> {
    let part = |name: &str| {
        let found = graphs.iter().find(|graph| graph.name == name);
        *found.unwrap_or_else(|| panic!("`{name}` is a part"))
    };
    let dit = &model.transformer;
    let styled = dit.use_style_cond_and_image_meta_size;
    let mut whole = Stitch::default();
    let skips: Vec<String> = (0..n).map(skip_name).collect();
    let same = |names: &[&'static str]| names.iter().map(|&name| (name, name)).collect::<Vec<_>>();

    // What the prompts are, once.
    let mut nodes = whole.inline(
        part("text-encoder"),
        &[same(&["input_ids", "attention_mask"]), vec![("last_hidden_state", "states")]].concat(),
    );
    nodes.extend(whole.inline(
        part("text-encoder-2"),
        &[
            ("input_ids", "input_ids_t5"),
            ("attention_mask", "attention_mask_t5"),
            ("last_hidden_state", "states_t5"),
        ],
    ));
    let mut conditions = vec![
        ("encoder_hidden_states", "states"),
        ("text_embedding_mask", "attention_mask"),
        ("encoder_hidden_states_t5", "states_t5"),
        ("text_embedding_mask_t5", "attention_mask_t5"),
        ("text_states", "text_states"),
        ("extra", "extra"),
    ];
    conditions.extend(styled.then(|| same(&["image_meta_size", "style"])).into_iter().flatten());
    nodes.extend(whole.inline(part("conditioner"), &conditions));
    nodes.extend(
        whole.inline(
            &glue::begin(dit),
            &[same(&["latents", "extra", "cos"]), vec![("nothing", "nothing"), ("none", "none")]]
                .concat(),
        ),
    );

    // A step.
    let shared = same(&["temb", "text_states", "cos", "sin"]);
    let kept: Vec<String> = (0..KEPT).map(|i| format!("deep_{i}")).collect();
    let now: Vec<String> = (0..KEPT).map(|i| format!("deep_{i}_now")).collect();
    let mut step: Vec<NodeProto> = TABLES.iter().map(|table| stitch::row(table, "step")).collect();
    step.extend(whole.draw("noise", "step"));
    step.extend(
        whole.inline(
            &glue::prepare(dit),
            &[("latents", "x"), ("timestep_now", "timesteps_now"), ("extra", "extra")]
                .into_iter()
                .chain([("pair", "pair"), ("timestep", "timestep")])
                .collect::<Vec<_>>(),
        ),
    );
    let skipped: Vec<(&str, &str)> =
        skips.iter().map(|skip| (skip.as_str(), skip.as_str())).collect();
    step.extend(
        whole.inline(
            part("shallow-encoder"),
            &[
                vec![("latents", "pair")],
                same(&["timestep", "extra", "temb", "text_states", "cos", "sin"]),
                skipped.clone(),
            ]
            .concat(),
        ),
    );
    let mut refresh = whole.inline(
        part("deep-core"),
        &[shared.clone(), vec![*skipped.last().expect("n is 1 or more"), ("deep", "refreshed_0")]]
            .concat(),
    );
    let refreshed: Vec<String> = (0..KEPT).map(|i| format!("refreshed_{i}")).collect();
    let reused: Vec<String> = (0..KEPT).map(|i| format!("reused_{i}")).collect();
    refresh.extend((1..KEPT).map(|i| stitch::node("Identity", &[&kept[i - 1]], &[&refreshed[i]])));
    let reuse = (0..KEPT).map(|i| stitch::node("Identity", &[&kept[i]], &[&reused[i]])).collect();
    let tensor = |name: &str, dtype: DType| stitch::value(name, dtype);
    let outputs = |names: &[String]| names.iter().map(|name| tensor(name, DType::F32)).collect();
    step.push(stitch::branch(
        "refresh_now",
        &now,
        stitch::graph("refresh", refresh, Vec::new(), outputs(&refreshed)),
        stitch::graph("reuse", reuse, Vec::new(), outputs(&reused)),
    ));
    let deep: Vec<(&str, &str)> =
        kept.iter().zip(&now).map(|(kept, now)| (kept.as_str(), now.as_str())).collect();
    step.extend(whole.inline(
        &glue::stand_in(dit),
        &[deep, vec![("weights", "stand_ins_now"), ("deep", "deep")]].concat(),
    ));
    step.extend(whole.inline(
        part("shallow-decoder"),
        &[vec![("deep", "deep"), ("noise_pred", "noise_pred")], skipped, shared].concat(),
    ));
    step.extend(whole.inline(
        &glue::advance(dit),
        &[
            ("noise_pred", "noise_pred"),
            ("latents", "x"),
            ("clean", "clean"),
            ("guidance", "guidance_now"),
            ("guidance_rescale", "guidance_rescale"),
            ("coefficients", "coefficients_now"),
            ("noise", "noise_now"),
            ("next", "x_next"),
            ("next_clean", "clean_next"),
        ],
    ));
    step.push(stitch::node("Identity", &["go"], &["go_on"]));
    let reads = [tensor("step", DType::I64), tensor("go", DType::Bool)].into_iter();
    let state = ["x", "clean"].into_iter().chain(kept.iter().map(String::as_str));
    let next = ["x_next", "clean_next"].into_iter().chain(now.iter().map(String::as_str));
    let body = stitch::graph(
        "step",
        step,
        reads.chain(state.map(|name| tensor(name, DType::F32))).collect(),
        [tensor("go_on", DType::Bool)]
            .into_iter()
            .chain(next.map(|name| tensor(name, DType::F32)))
            .collect(),
    );

    // All steps, then the images.
    nodes.extend(whole.count("timesteps", "steps"));
    let initial = ["latents", "nothing"].into_iter().chain([("none"); KEPT]);
    nodes.push(whole.repeat("steps", &initial.collect::<Vec<_>>(), "denoised", body));
    let scaled = [("latents", "denoised"), ("scaled", "scaled")];
    nodes.extend(whole.inline(&glue::scale(model), &scaled));
    let decoded = [("latents", "scaled"), ("image", "decoded")];
    nodes.extend(whole.inline(part("vae-decoder"), &decoded));
    let pixels = [("image", "decoded"), ("pixels", "images")];
    nodes.extend(whole.inline(&glue::pixels(model), &pixels));

    let Stitch { initializers, mut domains } = whole;
    domains.sort_unstable();
    domains.dedup();
    let graph = crate::onnx::GraphProto {
        node: nodes,
        name: Some(NAME.to_string()),
        initializer: initializers,
        input: inputs(model),
        output: outputs_of(model),
    };
    onnx_file(graph, &domains).encode_to_vec()
}

/// The inputs in their order.
fn inputs(model: &ModelConfig) -> Vec<ValueInfoProto> {
    let dit = &model.transformer;
    let text = |len: usize| vec!["2*batch".to_string(), len.to_string()];
    let symbol = |factor: usize, symbol: Symbol| (Dim::from(factor) * symbol.into()).to_string();
    let latents = || {
        let [height, width] =
            [Symbol::GridHeight, Symbol::GridWidth].map(|side| symbol(dit.patch_size, side));
        vec!["batch".to_string(), dit.in_channels.to_string(), height, width]
    };
    let grid = || {
        let [height, width] = [Symbol::GridHeight, Symbol::GridWidth].map(|side| symbol(1, side));
        vec![height, width, dit.attention_head_dim.to_string()]
    };
    let steps = |columns: &[usize]| {
        [vec!["steps".to_string()], columns.iter().map(usize::to_string).collect()].concat()
    };
    let mut inputs = vec![
        ("input_ids", DType::I64, text(dit.text_len)),
        ("attention_mask", DType::I64, text(dit.text_len)),
        ("input_ids_t5", DType::I64, text(dit.text_len_t5)),
        ("attention_mask_t5", DType::I64, text(dit.text_len_t5)),
    ];
    if dit.use_style_cond_and_image_meta_size {
        inputs.push(("image_meta_size", DType::F32, text(6)));
        inputs.push(("style", DType::I64, vec!["2*batch".to_string()]));
    }
    inputs.extend([
        ("latents", DType::F32, latents()),
        ("cos", DType::F32, grid()),
        ("sin", DType::F32, grid()),
        ("timesteps", DType::F32, steps(&[])),
        ("refresh", DType::Bool, steps(&[])),
        ("stand_ins", DType::F32, steps(&[KEPT])),
        ("coefficients", DType::F32, steps(&[COEFFICIENTS])),
        ("guidance", DType::F32, steps(&[])),
        ("guidance_rescale", DType::F32, vec![]),
        ("noise", DType::F32, [vec!["draws".to_string()], latents()].concat()),
    ]);
    inputs.into_iter().map(|(name, dtype, shape)| stitch::shaped(name, dtype, &shape)).collect()
}

fn outputs_of(model: &ModelConfig) -> Vec<ValueInfoProto> {
    let factor = model.vae.factor() * model.transformer.patch_size;
    let [height, width] = [Symbol::GridHeight, Symbol::GridWidth]
        .map(|side| (Dim::from(factor) * side.into()).to_string());
    let channels = model.vae.out_channels.to_string();
    vec![stitch::shaped("images", DType::U8, &["batch".to_string(), height, width, channels])]
}
