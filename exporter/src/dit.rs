//! What an export of a DiT has, and what it has not.

use std::path::Path;

use hydit_graphs::config::DitConfig;
use hydit_graphs::{GraphDef, GraphOptions, dit};
use serde_json::Value;

use crate::checkpoint::CheckpointWeights;
use crate::error::{Error, Result};
use crate::files::read_text;
use crate::options::Options;

/// The graphs of the transformer, cut at `n`.
pub(crate) fn graphs(dit: &DitConfig, n: usize, cut: GraphOptions, full: bool) -> Vec<GraphDef> {
    let mut graphs = vec![
        dit::conditioner(dit, cut.precision),
        dit::shallow_encoder(dit, n, cut),
        dit::deep_core(dit, n, cut),
        dit::shallow_decoder(dit, n, cut),
    ];
    graphs.extend(full.then(|| dit::full(dit, cut)));
    graphs
}

/// Checks that nothing is asked for which Hunyuan-DiT alone has.
///
/// # Errors
/// The flag that asks for it.
pub(crate) fn check(options: &Options) -> Result<()> {
    for (flag, given) in [
        ("lora", !options.loras.is_empty()),
        ("lora-slots", options.lora_slots.is_some()),
        ("pag-layers", !options.pag_layers.is_empty()),
        ("control", !options.controls.is_empty()),
        ("ip-adapter", options.ip_adapter.is_some()),
        ("image-encoder", options.image_encoder.is_some()),
        ("single", options.single),
        ("reading", options.reading.is_some()),
    ] {
        if given {
            let message = "only Hunyuan-DiT has it, and this checkpoint is a DiT: leave it out";
            return Err(Error::Flag { flag, message: message.to_string() });
        }
    }
    Ok(())
}

/// Checks that the embedders which diffusers has in every block are those of the first.
///
/// # Errors
/// The name of a tensor that differs.
pub(crate) fn check_copies(weights: &CheckpointWeights) -> Result<()> {
    for copy in weights.names() {
        let Some((block, name)) = copy.split_once(dit::COPIED) else { continue };
        let same = weights.shape(name) == weights.shape(copy) && {
            let [first, other] = [name, copy].map(|name| weights.tensor(name));
            (first.dtype, first.bytes) == (other.dtype, other.bytes)
        };
        if !same {
            let path = weights.files().next().map(|file| file.path.clone()).unwrap_or_default();
            return Err(Error::content(path)(format!(
                "transformer: `{name}` of {block} is not that of blocks.0; expected the same in all \
                 blocks, as published checkpoints have it: no other can be exported"
            )));
        }
        weights.release(copy);
    }
    Ok(())
}

/// The lines of `id2label` in the index of a pipeline, if it has one: the names of a class on each.
///
/// # Errors
/// The file cannot be read, or a number between others is left out.
pub(crate) fn labels(index: &Path) -> Result<Option<String>> {
    if !index.exists() {
        return Ok(None);
    }
    let text = read_text(index, "it was there a moment ago")?;
    let fields: Value = serde_json::from_str(&text).map_err(Error::content(index))?;
    let Some(labels) = fields["id2label"].as_object() else { return Ok(None) };
    let mut lines = String::new();
    for class in 0..labels.len() {
        let Some(names) = labels.get(&class.to_string()).and_then(Value::as_str) else {
            let message = format!("`id2label` has no names of class {class}: expected a text");
            return Err(Error::content(index)(message));
        };
        lines += names;
        lines.push('\n');
    }
    Ok(Some(lines))
}
