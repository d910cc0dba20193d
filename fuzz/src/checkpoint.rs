//! Files of a checkpoint, as the exporter reads them.

use hydit_export::{CheckpointWeights, Component};
use hydit_graphs::config::{BertConfig, HunyuanDitConfig, T5Config, VaeConfig};
use hydit_graphs::scheduler::NoiseSchedule;
use hydit_graphs::variant::Variant;
use hydit_graphs::{GraphDef, Precision, bert, hunyuan_dit, t5, vae};
use hydit_input::tokenizer::{Fit, PaddedTokenizer};
use hydit_lora::{Adapter, Layers};

use crate::scratch::FOLDER;

/// Texts that a tokenizer is tried on.
const PROMPTS: [&str; 3] = ["a cat", "蓝色背景上的猫", "\u{1f408}\u{200d}\u{2b1b} \u{fdfa}\u{0}x"];

/// Rows of the embedding that a tokenizer must fit.
const ROWS: usize = 250_112;

/// A safetensors file. What begins with a brace is the header of one with 64 bytes of data.
pub fn safetensors(bytes: &[u8]) {
    let whole = [&(bytes.len() as u64).to_le_bytes(), bytes, &[0; 64]].concat();
    let bytes = if bytes.starts_with(b"{") { &whole } else { bytes };
    FOLDER.with(|folder| {
        folder.write("transformer/diffusion_pytorch_model.safetensors", bytes);
        let _ = CheckpointWeights::open(folder.path(), Component::Transformer);
    });
}

/// A LoRA for a model of one layer, `adapter_config.json` before a NUL, if there is one. What begins
/// with a brace then is the header of a file with 64 bytes of data.
pub fn lora(bytes: &[u8]) {
    let layers = Layers::new([
        (Component::Transformer, "blocks.0.attn1.to_q.weight", &[2, 2][..]),
        (Component::Transformer, "blocks.0.attn1.to_k.weight", &[2, 2]),
        (Component::Transformer, "blocks.0.attn1.to_v.weight", &[2, 2]),
    ]);
    let (config, bytes) = match bytes.iter().position(|&byte| byte == 0) {
        Some(end) if bytes.starts_with(b"{") => {
            (str::from_utf8(&bytes[..end]).ok(), &bytes[end + 1..])
        }
        _ => (None, bytes),
    };
    let whole = [&(bytes.len() as u64).to_le_bytes(), bytes, &[0; 64]].concat();
    let bytes = if bytes.starts_with(b"{") { &whole } else { bytes };
    if let Ok(adapter) = Adapter::parse(bytes.to_vec(), config, &layers) {
        for change in &adapter.changes {
            adapter.add(change, 0.5, &mut [0.0; 4]);
        }
    }
}

/// A file of `torch.save`.
pub fn pickle(bytes: &[u8]) {
    if let Ok(saved) = hydit_pickle::read(bytes) {
        let _ = saved.tensors();
    }
}

/// The config of a component, which the first byte chooses; and the graph that it plans.
pub fn config(bytes: &[u8]) {
    let Some((&which, text)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let graph = match which % 6 {
        0 => HunyuanDitConfig::from_json(text).ok().map(|cfg| {
            let _ = hunyuan_dit::conditioner(&cfg, Precision::Fp32).encode();
            hunyuan_dit::full(&cfg, Precision::Fp16)
        }),
        1 => BertConfig::from_json(text)
            .ok()
            .map(|cfg| bert::text_encoder(&cfg, 77, Precision::Fp32)),
        2 => {
            T5Config::from_json(text).ok().map(|cfg| t5::text_encoder_2(&cfg, 256, Precision::Fp32))
        }
        3 => VaeConfig::from_json(text).ok().map(|cfg| {
            let _ =
                cfg.validate_encoder().map(|()| vae::vae_encoder(&cfg, Precision::Fp32).encode());
            vae::vae_decoder(&cfg, Precision::Fp32)
        }),
        4 => {
            let _ = NoiseSchedule::from_scheduler_config(text).map(|noise| noise.alphas_cumprod());
            None
        }
        _ => {
            let _ = Variant::from_yaml(text);
            None
        }
    };
    let _ = graph.as_ref().map(GraphDef::encode);
}

/// A `tokenizer.json`, in a checkpoint and in an artifact folder.
pub fn tokenizer(bytes: &[u8]) {
    try_tokenizer("tokenizer/tokenizer.json", bytes);
}

/// A SentencePiece model.
pub fn spiece(bytes: &[u8]) {
    try_tokenizer("tokenizer_2/spiece.model", bytes);
}

fn try_tokenizer(name: &str, bytes: &[u8]) {
    FOLDER.with(|folder| {
        let path = folder.write(name, bytes);
        let Ok(read) = hydit_export::tokenizer::read(path.parent().expect("a folder")) else {
            return;
        };
        let fit = Fit { length: 77, pad_id: read.pad_id, rows: ROWS };
        if let Ok(tokenizer) = PaddedTokenizer::new(&read.json, fit) {
            let _ = tokenizer.tokenize(&PROMPTS);
        }
    });
}
