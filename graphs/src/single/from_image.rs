//! The start from an image, of an export with its encoder: the first latents, and what is put back
//! after each step outside of a mask.
//!
//! Follows diffusers' `StableDiffusionImg2ImgPipeline` and `StableDiffusionInpaintPipeline`. At
//! which step it starts and how much noise there is then, the tables say.

use super::glue::{self, latents_shape};
use super::stitch::Scope;
use crate::builder::{Graph, GraphDef};
use crate::dim::Dim;
use crate::manifest::ModelConfig;
use crate::model::value;
use crate::onnx::ValueInfoProto;
use crate::options::Precision;
use crate::tensor::DType;

/// The table with a row for each step.
pub const TABLE: &str = "outside";

/// Appends `first`, the latents before the first step, and `image_latents`, those of the image. Where
/// there is no image they are zeros, and the first is `noise_alone`.
pub fn begin(whole: &mut Scope, model: &ModelConfig, encoder: &GraphDef) {
    let mut image = Scope::default();
    image.inline(encoder, &[("image", "init_image"), ("moments", "moments")]);
    let read = ["moments", "sample", "latents", "begin"].map(|name| (name, name));
    let made = [("first", "first_of_image"), ("clean", "clean_of_image")];
    image.inline(&noised(model), &[&read[..], &made].concat());
    let outputs = |names: [&str; 2]| names.map(|name| value(name, DType::F32, None)).to_vec();
    let image = image.close("image", Vec::new(), outputs(["first_of_image", "clean_of_image"]));

    let mut text = Scope::default();
    text.node("Identity", &["noise_alone"], &["first_of_text"]);
    text.node("Identity", &["nothing"], &["clean_of_text"]);
    let text = text.close("text", Vec::new(), outputs(["first_of_text", "clean_of_text"]));
    whole.branch("from_image", &["first", "image_latents"], [image, text]);
}

/// The latents that an image begins with, `first`, and its own, `clean`.
fn noised(model: &ModelConfig) -> GraphDef {
    let graph = Graph::new("noised", Precision::Fp32);
    let dit = glue::dit(model);
    let channels = dit.in_channels;
    let latents = |name| graph.input(name, DType::F32, &latents_shape(dit, Dim::ONE));
    let [sample, noise] = ["sample", "latents"].map(latents);
    let mut shape = latents_shape(dit, Dim::ONE);
    (shape[0], shape[1]) = (Dim::ONE, (2 * channels).into());
    let moments = graph.input("moments", DType::F32, &shape);
    let factors = graph.input("begin", DType::F32, &[2.into()]);

    let mean = moments.slice(1, 0, channels);
    let logvar = moments.slice(1, channels, 2 * channels);
    let deviation = (logvar.clip(-30.0, 20.0) * 0.5).exp();
    let clean = (mean + deviation * sample) * model.vae.scaling_factor;
    graph.output("first", clean * factors.slice(0, 0, 1) + noise * factors.slice(0, 1, 2));
    graph.output("clean", clean);
    graph.finish()
}

/// What is outside of the mask, put back: `latents` where `repaint` is true, elsewhere the image's
/// with as much noise as the next step has.
pub fn put_back(model: &ModelConfig) -> GraphDef {
    let graph = Graph::new("put-back", Precision::Fp32);
    let latents = |name| graph.input(name, DType::F32, &latents_shape(glue::dit(model), Dim::ONE));
    let [next, clean, noise] = ["latents", "image_latents", "noise"].map(latents);
    let mut shape = latents_shape(glue::dit(model), Dim::ONE);
    (shape[0], shape[1]) = (Dim::ONE, Dim::ONE);
    let repaint = graph.input("repaint", DType::Bool, &shape);
    let factors = graph.input("factors", DType::F32, &[2.into()]);
    let outside = clean * factors.slice(0, 0, 1) + noise * factors.slice(0, 1, 2);
    graph.output("mixed", repaint.choose(next, outside));
    graph.finish()
}

/// The inputs for an image.
pub fn inputs(model: &ModelConfig) -> Vec<ValueInfoProto> {
    let latents: Vec<String> =
        latents_shape(glue::dit(model), Dim::ONE).iter().map(Dim::to_string).collect();
    let one = || "1".to_string();
    let channels = model.vae.in_channels.to_string();
    let mask = [&[one(), one()], &latents[2..]].concat();
    [
        ("from_image", DType::Bool, vec![one()]),
        (
            "init_image",
            DType::F32,
            vec![one(), channels, "image_height".into(), "image_width".into()],
        ),
        ("sample", DType::F32, latents),
        ("begin", DType::F32, vec!["2".to_string()]),
        ("repaint", DType::Bool, mask),
        (TABLE, DType::F32, vec!["steps".to_string(), "2".to_string()]),
    ]
    .into_iter()
    .map(|(name, dtype, shape)| value(name, dtype, Some(&shape)))
    .collect()
}
