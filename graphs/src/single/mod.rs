//! The whole pipeline as one graph, for hosts that run files and have no orchestrator: from token
//! ids to pixels, with the denoising loop and Skip-Cache inside.
//!
//! A `Loop` runs the cut transformer; an `If` on the table `refresh` has the deep core in its
//! then-branch, so that a step which reuses does not run it. Schedule, sampler and policy are
//! tables of the request, a row a step: the graph has no arithmetic of any sampler in it. Its
//! parts are the other graphs of the export, node for node, and its weights lie in their files.

mod from_image;
mod glue;
mod stitch;

use prost::Message;

use self::stitch::{Inner, Scope};
use crate::arithmetic::align;
use crate::builder::GraphDef;
use crate::config::HunyuanDitConfig;
use crate::dim::{Dim, Symbol};
use crate::hunyuan_dit::skip_name;
use crate::lora;
use crate::manifest::ModelConfig;
use crate::model::{onnx_file, value};
use crate::onnx::ValueInfoProto;
use crate::options::Target;
use crate::tensor::{DType, TensorSpec};

/// Name of the graph.
pub const NAME: &str = "pipeline";

/// Name of the file.
pub const FILE: &str = "pipeline.onnx";

/// Outputs of the deep core that are kept for what stands in for it at steps that reuse; the
/// columns of the table `stand_ins`, the latest output first.
pub const KEPT: usize = 3;

/// Columns of the table `coefficients`: see [`file()`].
pub const COEFFICIENTS: usize = 8;

/// The tables with a row for each step.
const TABLES: [&str; 7] = [
    "timesteps",
    "refresh",
    "stand_ins",
    "aligned",
    "coefficients",
    "guidance",
    "guidance_rescale",
];

/// What the deep core read at its last runs, the latest first.
const SEEN: [&str; 2] = ["seen_0", "seen_1"];

/// The same from the step under way on.
const SEEN_NOW: [&str; 2] = ["seen_0_now", "seen_1_now"];

/// The tables that may have fewer rows than there are steps.
const SHORT_TABLES: [&str; 3] = ["noise", "correction_down", "correction_up"];

/// The bytes of the ONNX file of the pipeline whose parts are `graphs`, those of one export for
/// `target` that is cut at `n`.
///
/// For n images of one size it reads, in fp32 unless said otherwise:
///
/// | input | shape | |
/// |---|---|---|
/// | `input_ids`, `attention_mask` | `[2n, text_len]` i64 | negative prompts first, then prompts |
/// | `input_ids_t5`, `attention_mask_t5` | `[2n, text_len_t5]` i64 | the same of the second tokenizer |
/// | `image_meta_size`, `style` | `[2n, 6]`, `[2n]` i64 | of models up to v1.1 |
/// | `latents` | `[n, c, h, w]` | noise |
/// | `init_noise_sigma` | `[1]` | what the noise is multiplied with |
/// | `cos`, `sin` | `[h / p, w / p, head_dim]` | rotary tables |
/// | `timesteps` | `[steps]` | |
/// | `refresh` | `[steps]` bool | whether the deep core runs; true at the first step |
/// | `stand_ins` | `[steps, 3]` | weights of its last outputs; 1, 0, 0 for the latest as it is |
/// | `aligned` | `[steps]` bool | whether it is [aligned](crate::arithmetic::align) instead |
/// | `correction_down` | `[steps or 1, hidden, rank]` | what corrects that sum; zeros for nothing |
/// | `correction_up` | `[steps or 1, rank, hidden]` | its other factor |
/// | `coefficients` | `[steps, 8]` | the sampler's |
/// | `guidance` | `[steps]` | 1 for none |
/// | `guidance_rescale` | `[steps]` | 0 for none |
/// | `noise` | `[steps or 1, n, c, h, w]` | what the sampler draws at each step |
/// | `from_image` | `[1]` bool | whether there is an image; this and what follows, of an export with the image encoder |
/// | `init_image` | `[1, 3, height, width]` | from -1 to 1; of any size, if there is none |
/// | `sample` | `[n, c, h, w]` | noise that draws from the distribution of its latents |
/// | `begin` | `[2]` | factors of its latents and of noise at the first step |
/// | `repaint` | `[1, 1, h, w]` bool | what is painted anew; true everywhere without a mask |
/// | `outside` | `[steps, 2]` | factors of both after each step, where `repaint` is false |
/// | [`slot_name()`] | [`Stack`](crate::lora::Stack) | the matrices of LoRAs, of an export with slots |
///
/// A table of `steps or 1` rows goes on with its last row. The corrections are as
/// [`correct`](crate::arithmetic::correct) has them.
///
/// Output: `images` `[n, height, width, 3]`, bytes.
///
/// A row of `coefficients` has the factors of a step: the clean latents are `k0` times the latents
/// plus `k1` times the guided prediction; the next latents are `k2` times the latents, plus `k3`
/// times the clean ones, `k4` times the prediction, `k5` times the clean ones of the step before,
/// `k6` times those of the step before that and `k7` times the noise.
///
/// # Panics
/// If a part is missing.
pub fn file(model: &ModelConfig, n: usize, target: Target, graphs: &[&GraphDef]) -> Vec<u8> {
    let part = |name: &str| {
        let found = graphs.iter().find(|graph| graph.name == name);
        *found.unwrap_or_else(|| panic!("`{name}` is a part"))
    };
    let dit = glue::dit(model);
    let mut whole = Scope::default();
    // Hosts have no need to know the precision of the graphs.
    for (graph, input) in slots(graphs) {
        let inside = stitch::inside(graph, &input.name);
        whole.cast(&slot_name(&graph.name, &input.name), &inside, input.dtype);
    }
    encode(&mut whole, part, dit);
    let read = ["latents", "init_noise_sigma", "extra", "cos"].map(|name| (name, name));
    let begun = [("first", "noise_alone"), ("nothing", "nothing"), ("none", "none")];
    whole.inline(&glue::begin(dit), &[&read[..], &begun].concat());
    let encoder = graphs.iter().find(|graph| graph.name == "vae-encoder");
    let mut first = "noise_alone";
    if let Some(encoder) = encoder {
        from_image::begin(&mut whole, model, encoder);
        first = "first";
    }
    whole.count("timesteps", "steps");
    let initial = [&[first, "nothing", "nothing"][..], &["none"; SEEN.len() + KEPT]].concat();
    let mut body = step(model, part, n, encoder.is_some());
    if target == Target::OrtCpu {
        // ONNX Runtime's CPU provider packs weights once if the graph that multiplies with them has
        // them or the graph around that. The deep core is two graphs deep.
        body = body.with_weights();
    }
    whole.repeat("steps", &initial, "denoised", body);
    whole.inline(&glue::scale(model), &[("latents", "denoised"), ("scaled", "scaled")]);
    whole.inline(part("vae-decoder"), &[("latents", "scaled"), ("image", "decoded")]);
    whole.inline(&glue::pixels(model), &[("image", "decoded"), ("pixels", "images")]);
    let Inner { mut graph, initializers, domains } =
        whole.close(NAME, inputs(model), outputs(model));
    graph.initializer = initializers;
    if encoder.is_some() {
        graph.input.extend(from_image::inputs(model));
    }
    graph.input.extend(slots(graphs).map(|(graph, input)| {
        let shape: Vec<String> = input.shape.iter().map(Dim::to_string).collect();
        value(&slot_name(&graph.name, &input.name), DType::F32, Some(&shape))
    }));
    onnx_file(graph, &domains.into_iter().collect::<Vec<_>>()).encode_to_vec()
}

/// The name of the input that is the slot `input` of the graph `graph`.
pub fn slot_name(graph: &str, input: &str) -> String {
    format!("{graph}.{input}")
}

/// The slots of the parts among `graphs`, each with its part.
fn slots<'a>(graphs: &[&'a GraphDef]) -> impl Iterator<Item = (&'a GraphDef, &'a TensorSpec)> {
    let parts = graphs.iter().filter(|graph| lora::GRAPHS.contains(&graph.name.as_str()));
    parts.flat_map(|&graph| graph.slots().map(move |input| (graph, input)))
}

/// What the prompts are: `text_states` and `extra`.
fn encode<'a>(whole: &mut Scope, part: impl Fn(&str) -> &'a GraphDef, dit: &HunyuanDitConfig) {
    for (name, suffix) in [("text-encoder", ""), ("text-encoder-2", "_t5")] {
        let [ids, mask, states] =
            ["input_ids", "attention_mask", "states"].map(|name| format!("{name}{suffix}"));
        whole.inline(
            part(name),
            &[("input_ids", &ids), ("attention_mask", &mask), ("last_hidden_state", &states)]
                .map(|(there, here)| (there, here.as_str())),
        );
    }
    let mut bound = vec![
        ("encoder_hidden_states", "states"),
        ("text_embedding_mask", "attention_mask"),
        ("encoder_hidden_states_t5", "states_t5"),
        ("text_embedding_mask_t5", "attention_mask_t5"),
        ("text_states", "text_states"),
        ("extra", "extra"),
    ];
    if dit.use_style_cond_and_image_meta_size {
        bound.extend([("image_meta_size", "image_meta_size"), ("style", "style")]);
    }
    whole.inline(part("conditioner"), &bound);
}

/// A step, from its number, the latents, the clean latents of the two steps before, what the deep
/// core has read and its kept outputs to the same of the next step. With `masks`, it puts back what
/// is outside of one.
fn step<'a>(
    model: &ModelConfig,
    part: impl Fn(&str) -> &'a GraphDef,
    n: usize,
    masks: bool,
) -> Inner {
    let dit = glue::dit(model);
    let mut step = Scope::default();
    TABLES.iter().for_each(|table| step.row(table, "step"));
    SHORT_TABLES.iter().for_each(|table| step.row_or_last(table, "step"));
    step.inline(
        &glue::prepare(dit),
        &[
            ("latents", "x"),
            ("timestep_now", "timesteps_now"),
            ("extra", "extra"),
            ("pair", "pair"),
            ("timestep", "timestep"),
        ],
    );

    let skips: Vec<String> = (0..n).map(skip_name).collect();
    let skips: Vec<(&str, &str)> = skips.iter().map(|skip| (&skip[..], &skip[..])).collect();
    let shared = ["temb", "text_states", "cos", "sin"].map(|name| (name, name));
    let read = [("latents", "pair"), ("timestep", "timestep"), ("extra", "extra")];
    step.inline(part("shallow-encoder"), &[&read[..], &shared, &skips].concat());

    let kept: [String; KEPT] = std::array::from_fn(|i| format!("deep_{i}"));
    let now: [String; KEPT] = std::array::from_fn(|i| format!("deep_{i}_now"));
    let now = now.each_ref().map(String::as_str);
    let (_, read) = skips[n - 1];
    let reads = [&shared[..], &skips[n - 1..]].concat();
    let branches = [refresh(part("deep-core"), &reads, read), reuse()];
    step.branch("refresh_now", &[&SEEN_NOW[..], &now].concat(), branches);
    let kept = kept.each_ref().map(String::as_str);
    let deep: Vec<(&str, &str)> = kept.into_iter().zip(now).collect();
    stand_in(&mut step, dit, &deep, read);

    let decoded = [("deep", "deep"), ("noise_pred", "noise_pred")];
    step.inline(part("shallow-decoder"), &[&decoded[..], &shared, &skips].concat());
    step.inline(
        &glue::advance(dit),
        &[
            ("noise_pred", "noise_pred"),
            ("latents", "x"),
            ("clean", "clean"),
            ("clean_before", "clean_before"),
            ("guidance", "guidance_now"),
            ("guidance_rescale", "guidance_rescale_now"),
            ("coefficients", "coefficients_now"),
            ("noise", "noise_now"),
            ("next", if masks { "x_anew" } else { "x_next" }),
            ("next_clean", "clean_next"),
        ],
    );
    if masks {
        step.row(from_image::TABLE, "step");
        step.inline(
            &from_image::put_back(model),
            &[
                ("latents", "x_anew"),
                ("image_latents", "image_latents"),
                ("noise", "latents"),
                ("repaint", "repaint"),
                ("factors", "outside_now"),
                ("mixed", "x_next"),
            ],
        );
    }
    step.node("Identity", &["clean"], &["clean_before_next"]);
    step.node("Identity", &["go"], &["go_on"]);

    let floats = |names: &[&str]| names.iter().map(|name| float(name)).collect::<Vec<_>>();
    let number = |name: &str, dtype| value(name, dtype, Some(&[]));
    let count = [number("step", DType::I64), number("go", DType::Bool)];
    let state = [&["x", "clean", "clean_before"][..], &SEEN, &kept].concat();
    let next = [&["x_next", "clean_next", "clean_before_next"][..], &SEEN_NOW, &now].concat();
    step.close(
        "step",
        count.into_iter().chain(floats(&state)).collect(),
        [number("go_on", DType::Bool)].into_iter().chain(floats(&next)).collect(),
    )
}

/// Appends `deep`, what the decoder reads for the deep core's output: the `kept` outputs aligned or
/// weighted, as the tables say. The core would read `read`.
fn stand_in(step: &mut Scope, dit: &HunyuanDitConfig, kept: &[(&str, &str)], read: &str) {
    let moved = [("now", read), ("before", SEEN_NOW[0])];
    let mut aligned = Scope::default();
    let lines = [("deep", kept[0].1), ("deep_before", kept[1].1), ("earlier", SEEN_NOW[1])];
    let made = [("aligned", "deep_aligned")];
    aligned.inline(&align(dit.hidden_size), &[&moved[..], &lines, &made].concat());
    let mut weighted = Scope::default();
    let tables = [
        ("weights", "stand_ins_now"),
        ("down", "correction_down_now"),
        ("up", "correction_up_now"),
    ];
    let made = [("deep", "deep_weighted")];
    weighted.inline(&glue::stand_in(dit), &[kept, &moved, &tables, &made].concat());
    let branches = [(aligned, "aligned"), (weighted, "weighted")]
        .map(|(branch, how)| branch.close(how, Vec::new(), vec![float(&format!("deep_{how}"))]));
    step.branch("aligned_now", &["deep"], branches);
}

/// The branch that runs the deep core: what it `read`, its output, and those kept before but the
/// oldest. `reads` has all of its inputs.
fn refresh(core: &GraphDef, reads: &[(&str, &str)], read: &str) -> Inner {
    let mut branch = Scope::default();
    branch.node("Identity", &[read], &["refreshed_seen_0"]);
    branch.node("Identity", &["seen_0"], &["refreshed_seen_1"]);
    branch.inline(core, &[reads, &[("deep", "refreshed_0")]].concat());
    for i in 1..KEPT {
        branch.node("Identity", &[&format!("deep_{}", i - 1)], &[&format!("refreshed_{i}")]);
    }
    branch.close("refresh", Vec::new(), made("refreshed"))
}

/// The branch that keeps what is kept.
fn reuse() -> Inner {
    let mut branch = Scope::default();
    for seen in SEEN {
        branch.node("Identity", &[seen], &[&format!("reused_{seen}")]);
    }
    for i in 0..KEPT {
        branch.node("Identity", &[&format!("deep_{i}")], &[&format!("reused_{i}")]);
    }
    branch.close("reuse", Vec::new(), made("reused"))
}

/// What a branch makes: what the core has read, and its kept outputs.
fn made(how: &str) -> Vec<ValueInfoProto> {
    let seen = SEEN.map(|seen| float(&format!("{how}_{seen}")));
    let kept = (0..KEPT).map(|i| float(&format!("{how}_{i}")));
    seen.into_iter().chain(kept).collect()
}

/// A value of 32-bit floats inside of the loop.
fn float(name: &str) -> ValueInfoProto {
    value(name, DType::F32, None)
}

/// The inputs in their order.
fn inputs(model: &ModelConfig) -> Vec<ValueInfoProto> {
    let dit = glue::dit(model);
    let text = |len: usize| vec!["2*batch".to_string(), len.to_string()];
    let texts = |shape: &[Dim]| shape.iter().map(Dim::to_string).collect::<Vec<_>>();
    let latents = texts(&glue::latents_shape(dit, Dim::ONE));
    let grid = texts(&glue::grid_shape(dit));
    let steps = |columns: &[usize]| {
        [vec!["steps".to_string()], columns.iter().map(usize::to_string).collect()].concat()
    };
    let hidden = dit.hidden_size.to_string();
    let corrections = |matrix: &[&str]| {
        ["corrections"].iter().chain(matrix).map(|size| size.to_string()).collect()
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
        ("latents", DType::F32, latents.clone()),
        ("init_noise_sigma", DType::F32, vec!["1".to_string()]),
        ("cos", DType::F32, grid.clone()),
        ("sin", DType::F32, grid),
        ("timesteps", DType::F32, steps(&[])),
        ("refresh", DType::Bool, steps(&[])),
        ("stand_ins", DType::F32, steps(&[KEPT])),
        ("aligned", DType::Bool, steps(&[])),
        ("correction_down", DType::F32, corrections(&[&hidden, "correction_rank"])),
        ("correction_up", DType::F32, corrections(&["correction_rank", &hidden])),
        ("coefficients", DType::F32, steps(&[COEFFICIENTS])),
        ("guidance", DType::F32, steps(&[])),
        ("guidance_rescale", DType::F32, steps(&[])),
        ("noise", DType::F32, [vec!["draws".to_string()], latents].concat()),
    ]);
    inputs.into_iter().map(|(name, dtype, shape)| value(name, dtype, Some(&shape))).collect()
}

fn outputs(model: &ModelConfig) -> Vec<ValueInfoProto> {
    let factor = model.vae.factor() * glue::dit(model).patch_size;
    let [height, width] = [Symbol::GridHeight, Symbol::GridWidth]
        .map(|side| (Dim::from(factor) * side.into()).to_string());
    let channels = model.vae.out_channels.to_string();
    let shape = ["batch".to_string(), height, width, channels];
    vec![value("images", DType::U8, Some(&shape))]
}
