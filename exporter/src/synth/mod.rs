//! The command `synth`: checkpoints with made-up weights, in the shape of a released model or any
//! other. They serve to measure speed and memory, and to test the export, without the real weights.
//!
//! [`checkpoint`] writes one from a [`HunyuanDit`], and [`model`] returns those of the released
//! models; [`dit_checkpoint`] and [`dit()`] are their like for DiTs. Only what a
//! graph can read is written (BERT without its pooler).

mod config;
mod dit;
mod ip_adapter;
pub mod rule;
mod shards;
mod tokenizers;

use std::fs;
use std::path::Path;

use hydit_graphs::config::HunyuanDitConfig;
use hydit_graphs::control::{self, Part};
use hydit_graphs::{GraphDef, Precision, bert, hunyuan_dit, t5, vae};
use serde::Serialize;
use serde_json::{Value, json};

pub use self::config::{HunyuanDit, Shape, model};
pub use self::dit::{dit, dit_checkpoint, dit_kind, dit_stem};
pub use self::shards::{Storage, write_weights};
use crate::error::{Error, Result};
use crate::files::check_folder;
use hydit_graphs::Component;

/// Writes a checkpoint in diffusers' layout to `out`, a new or empty folder. `model_index.json`,
/// without which it does not count as a checkpoint, is written last.
///
/// # Errors
/// The folder is not empty, or cannot be written to.
pub fn checkpoint(config: &HunyuanDit, out: &Path, storage: &Storage) -> Result<()> {
    new_folder(out)?;
    let HunyuanDit { transformer, text_encoder, text_encoder_2, vae, scheduler } = config;
    let plain = Precision::Fp32;
    let component = |component: Component, stem: &str, config: Value, graphs: &[GraphDef]| {
        let folder = out.join(component.folder());
        write_weights(&folder, stem, graphs.iter(), storage)?;
        write(&folder.join("config.json"), config)
    };
    component(
        Component::Transformer,
        "diffusion_pytorch_model",
        described(transformer, json!({ "_class_name": "HunyuanDiT2DModel" })),
        &[hunyuan_dit::conditioner(transformer, plain), hunyuan_dit::full(transformer, plain)],
    )?;
    component(
        Component::TextEncoder,
        "model",
        described(text_encoder, json!({ "architectures": ["BertModel"], "model_type": "bert" })),
        &[bert::text_encoder(text_encoder, transformer.text_len, plain)],
    )?;
    component(
        Component::TextEncoder2,
        "model",
        described(
            text_encoder_2,
            json!({ "architectures": ["T5EncoderModel"], "model_type": "t5" }),
        ),
        &[t5::text_encoder_2(text_encoder_2, transformer.text_len_t5, plain)],
    )?;
    component(
        Component::Vae,
        "diffusion_pytorch_model",
        described(vae, json!({ "_class_name": "AutoencoderKL" })),
        &[vae::vae_encoder(vae, plain), vae::vae_decoder(vae, plain)],
    )?;
    let ddpm = json!({ "_class_name": "DDPMScheduler", "clip_sample": false });
    let scheduler = described(scheduler, ddpm);
    write(&folder(out, "scheduler")?.join("scheduler_config.json"), scheduler)?;
    let vocab = folder(out, "tokenizer")?.join("vocab.txt");
    fs::write(&vocab, tokenizers::vocab(text_encoder.vocab_size)).map_err(Error::writing(vocab))?;
    let tokenizer = folder(out, "tokenizer_2")?.join("tokenizer.json");
    write(&tokenizer, tokenizers::unigram(text_encoder_2.vocab_size))?;
    write(&out.join("model_index.json"), index())
}

/// Writes a ControlNet for transformers with the config `transformer` to the folder `out`, in
/// diffusers' layout.
///
/// # Errors
/// The folder cannot be written to.
pub fn control(transformer: &HunyuanDitConfig, out: &Path, storage: &Storage) -> Result<()> {
    let plain = Precision::Fp32;
    let build = |part| match part {
        Part::Conditioner => control::conditioner("", transformer, plain),
        Part::Encoder => control::encoder("", transformer, 1, plain),
        Part::Core => control::core("", transformer, 1, plain),
    };
    let parts = Part::ALL.into_iter().filter(|part| part.is_in(transformer, 1));
    let graphs: Vec<GraphDef> = parts.map(build).collect();
    write_weights(out, "diffusion_pytorch_model", graphs.iter(), storage)?;
    let about = json!({
        "_class_name": "HunyuanDiT2DControlNetModel",
        "conditioning_channels": 3,
        "transformer_num_layers": transformer.num_layers,
    });
    let mut config = described(transformer, about);
    if let Value::Object(fields) = &mut config {
        fields
            .retain(|name, _| !["num_layers", "learn_sigma", "norm_type"].contains(&name.as_str()));
    }
    write(&out.join("config.json"), config)
}

/// As [`checkpoint`], with an IP-Adapter in the folders `ip_adapter` and `image_encoder`, whose encoder
/// is tiny if it shall be `small`.
///
/// # Errors
/// As [`checkpoint`].
pub fn checkpoint_with_ip_adapter(
    config: &HunyuanDit,
    small: bool,
    out: &Path,
    storage: &Storage,
) -> Result<()> {
    checkpoint(config, out, storage)?;
    ip_adapter::ip_adapter(&config.transformer, small, out, storage)
}

/// Makes the folder `out`, which is new or empty.
fn new_folder(out: &Path) -> Result<()> {
    check_folder(out)?;
    fs::create_dir_all(out).map_err(Error::writing(out))?;
    if fs::read_dir(out).map_err(Error::reading(out))?.next().is_some() {
        let message = format!("{} is not empty: choose a new folder", out.display());
        return Err(Error::Flag { flag: "out", message });
    }
    Ok(())
}

fn folder(out: &Path, name: &str) -> Result<std::path::PathBuf> {
    let folder = out.join(name);
    fs::create_dir_all(&folder).map_err(Error::writing(&folder))?;
    Ok(folder)
}

fn write(path: &Path, json: Value) -> Result<()> {
    fs::write(path, format!("{json:#}\n")).map_err(Error::writing(path))
}

/// The JSON of a component's config, with the fields `about` that say what it is the config of.
fn described(config: &impl Serialize, about: Value) -> Value {
    let mut json = serde_json::to_value(config).expect("a config has a JSON form");
    if let (Value::Object(json), Value::Object(about)) = (&mut json, about) {
        json.extend(about);
    }
    json
}

fn index() -> Value {
    json!({
        "_class_name": "HunyuanDiTPipeline",
        "feature_extractor": [null, null],
        "requires_safety_checker": false,
        "safety_checker": [null, null],
        "scheduler": ["diffusers", "DDPMScheduler"],
        "text_encoder": ["transformers", "BertModel"],
        "text_encoder_2": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "BertTokenizer"],
        "tokenizer_2": ["transformers", "T5Tokenizer"],
        "transformer": ["diffusers", "HunyuanDiT2DModel"],
        "vae": ["diffusers", "AutoencoderKL"]
    })
}
