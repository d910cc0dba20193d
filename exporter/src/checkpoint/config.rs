//! The configs of all components of a checkpoint, read and compared with each other.

use std::path::Path;

use hydit_graphs::config::{BertConfig, T5Config, TransformerConfig, VaeConfig};
use hydit_graphs::manifest::ModelConfig;
use hydit_graphs::naming::Naming;
use hydit_graphs::scheduler::NoiseSchedule;

use super::{Checkpoint, CheckpointWeights, Layout, infer};
use crate::error::{Error, Result};
use crate::files::read_text;
use hydit_graphs::Component;

/// Reads the configs of a checkpoint: each from its own file, or that of the base, or else from
/// the shapes of the tensors.
pub(super) fn read(checkpoint: &Checkpoint) -> Result<ModelConfig> {
    let config = |component| checkpoint.config_path(component);
    // In diffusers' layout every part has its config: one that is missing was not downloaded.
    let told_by_shapes = |component| -> Result<CheckpointWeights> {
        match checkpoint.layout() {
            Layout::Diffusers => Err(checkpoint.no_config(component)),
            _ => checkpoint.weights(component),
        }
    };
    let transformer = transformer(checkpoint)?;
    let reads_texts = transformer.hunyuan_dit().is_some();
    let text_encoder = match config(Component::TextEncoder) {
        _ if !reads_texts => None,
        Some(path) => Some(from_file(path, BertConfig::from_json)?),
        None => Some(infer::bert(&told_by_shapes(Component::TextEncoder)?)?),
    };
    let text_encoder_2 = match config(Component::TextEncoder2) {
        _ if !reads_texts => None,
        Some(path) => Some(from_file(path, T5Config::from_json)?),
        None => Some(infer::t5(&told_by_shapes(Component::TextEncoder2)?)?),
    };
    let vae = match config(Component::Vae) {
        Some(path) => from_file(path, VaeConfig::from_json)?,
        None => infer::vae(&told_by_shapes(Component::Vae)?)?,
    };
    let scheduler = match checkpoint.scheduler_path(&transformer)? {
        Some(path) => from_file(path, NoiseSchedule::from_scheduler_config)?,
        None => infer::scheduler(&transformer),
    };
    let config = ModelConfig { transformer, text_encoder, text_encoder_2, vae, scheduler };
    config.agrees().map_err(Error::Disagree)?;
    Ok(config)
}

/// The config of the transformer. What a base says of its own is no more than a hint to the size of
/// the pictures where the checkpoint has another in its place.
fn transformer(checkpoint: &Checkpoint) -> Result<TransformerConfig> {
    let path = checkpoint.config_path(Component::Transformer);
    let config = path.map(|path| from_file(path, TransformerConfig::from_json)).transpose()?;
    match config {
        Some(config) if checkpoint.has_own_config(Component::Transformer) => Ok(config),
        None if checkpoint.layout() == Layout::Diffusers => {
            Err(checkpoint.no_config(Component::Transformer))
        }
        config => {
            let weights = checkpoint.weights(Component::Transformer)?;
            if weights.draws_classes()
                && weights.naming() == Naming::Diffusers
                && let Some(config @ TransformerConfig::Dit(_)) = config
            {
                return Ok(config); // the size of the latents is in no shape
            }
            let mut found = infer::transformer(&weights)?;
            if let (TransformerConfig::HunyuanDit(found), Some(config)) = (&mut found, config) {
                found.sample_size = config.shape().sample_size;
            }
            Ok(found)
        }
    }
}

pub(super) fn from_file<T, E>(
    path: &Path,
    from_text: impl FnOnce(&str) -> std::result::Result<T, E>,
) -> Result<T>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let text = read_text(path, "expected a checkpoint in diffusers' folder layout")?;
    parse(path, &text, from_text)
}

/// Parses the JSON `text` of `path`, as Python writes it: with numbers that are none.
pub(super) fn parse<T, E>(
    path: &Path,
    text: &str,
    from_text: impl FnOnce(&str) -> std::result::Result<T, E>,
) -> Result<T>
where
    E: std::error::Error + Send + Sync + 'static,
{
    from_text(&without_constants(text)).map_err(Error::content(path))
}

/// Quotes Python's `NaN`, `Infinity` and `-Infinity` in `text`, which JSON does not have.
fn without_constants(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut quoted) = (text, false);
    while let Some(first) = rest.chars().next() {
        let constant = ["NaN", "Infinity", "-Infinity"].into_iter().find(|c| rest.starts_with(*c));
        let length = match constant {
            Some(constant) if !quoted => {
                out.extend(["\"", constant, "\""]);
                constant.len()
            }
            _ if quoted && first == '\\' => {
                let escaped: String = rest.chars().take(2).collect();
                out.push_str(&escaped);
                escaped.len()
            }
            _ => {
                quoted ^= first == '"';
                out.push(first);
                first.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::without_constants;

    #[test]
    fn constants_of_python_are_texts_and_texts_stay() {
        for (text, expected) in [
            (r#"{"a": -Infinity, "b": [NaN]}"#, r#"{"a": "-Infinity", "b": ["NaN"]}"#),
            (r#"{"NaN\"Infinity": "NaN 猫"}"#, r#"{"NaN\"Infinity": "NaN 猫"}"#),
            (r#"["\\", Infinity]"#, r#"["\\", "Infinity"]"#),
            ("\"\\", "\"\\"),
        ] {
            assert_eq!(without_constants(text), expected);
        }
    }
}
