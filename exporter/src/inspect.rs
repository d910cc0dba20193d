//! The command `inspect`: an artifact folder as a table.

use std::fmt::Write;
use std::path::Path;

use hydit_graphs::config::{ClipVisionConfig, IpAdapterConfig};
use hydit_graphs::control;
use hydit_graphs::manifest::{ControlEntry, LoraEntry};
use hydit_graphs::{Manifest, Sizes, manifest};

use crate::error::{Error, Result};
use crate::files::read_text;

/// Reads the manifest of the artifact folder `path`.
///
/// # Errors
/// There is no manifest, or it cannot be used.
pub fn read(path: &Path) -> Result<Manifest> {
    let file = path.join(manifest::FILE);
    let text = read_text(&file, "not an artifact folder, or its export did not finish")?;
    Manifest::from_yaml(&text).map_err(Error::content(file))
}

/// Formats the graphs of an export as a table: inputs and outputs, parameters, sizes and costs.
pub fn table(manifest: &Manifest) -> String {
    let dit = manifest.model.transformer.shape();
    let [height, width] = manifest.variant.defaults.image_size;
    let factor = manifest.model.vae.factor();
    let sizes = Sizes {
        batch: 2,
        grid_height: height / factor / dit.patch_size,
        grid_width: width / factor / dit.patch_size,
        height: height / factor,
        width: width / factor,
        image_tokens: 1,
        ..Sizes::default()
    };
    let mut out = format!(
        "{}: {} blocks of width {}, cut at {}, {}, {} form, opset {} ({})\n\n",
        manifest.variant.name,
        dit.num_layers,
        dit.hidden_size,
        manifest.cache_at_branch,
        manifest.precision,
        manifest.target,
        manifest.opset,
        manifest.producer,
    );
    for LoraEntry { file, sha256, weight } in &manifest.loras {
        let short: String = sha256.chars().take(12).collect();
        let _ = writeln!(out, "merged: {file}, weight {weight} (sha256 {short}...)\n");
    }
    if let Some(rank) = manifest.lora_slots {
        let _ = writeln!(out, "slots for LoRAs up to rank {rank}\n");
    }
    for ControlEntry { name, config } in &manifest.controls {
        let blocks = control::count(config);
        let _ = writeln!(out, "ControlNet {name}: {blocks} blocks\n");
    }
    if !manifest.pag_layers.is_empty() {
        let _ =
            writeln!(out, "perturbed-attention guidance by the blocks {:?}\n", manifest.pag_layers);
    }
    if let Some(IpAdapterConfig { image_tokens, image_encoder, .. }) = &manifest.ip_adapter {
        let ClipVisionConfig { num_hidden_layers, hidden_size, .. } = image_encoder;
        let _ = writeln!(
            out,
            "image prompts of {image_tokens} tokens, by an encoder of {num_hidden_layers} layers of \
             width {hidden_size}\n"
        );
    }
    let head = ["graph", "parameters", "bytes", "GFLOP*", "inputs and outputs"];
    let mut rows = vec![head.map(str::to_string)];
    for graph in &manifest.graphs {
        let bytes = [&graph.file, &graph.data].map(|name| manifest.files[name].bytes);
        let inputs = graph.inputs.iter().map(|spec| format!("  {spec}"));
        let outputs = graph.outputs.iter().map(|spec| format!("> {spec}"));
        let mut tensors = inputs.chain(outputs);
        rows.push([
            graph.name.clone(),
            scaled(graph.parameters as f64, ["", " K", " M", " G"], 1000.0),
            scaled(bytes.iter().sum::<u64>() as f64, [" B", " KiB", " MiB", " GiB"], 1024.0),
            format!("{:.3}", graph.flops.at(&sizes) as f64 / 1e9),
            tensors.next().unwrap_or_default(),
        ]);
        for tensor in tensors {
            rows.push([String::new(), String::new(), String::new(), String::new(), tensor]);
        }
    }
    let [w0, w1, w2, w3] =
        [0, 1, 2, 3].map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0));
    for [name, parameters, bytes, flops, tensor] in &rows {
        let line = format!("{name:w0$}  {parameters:>w1$}  {bytes:>w2$}  {flops:>w3$}  {tensor}");
        let _ = writeln!(out, "{}", line.trim_end());
    }
    let total: u64 = manifest.files.values().map(|file| file.bytes).sum();
    let total = scaled(total as f64, [" B", " KiB", " MiB", " GiB"], 1024.0);
    let _ = writeln!(out, "\n{} files, {total}", manifest.files.len());
    let _ = writeln!(
        out,
        "* one run for a guided picture of {height}x{width}; height and width of a tensor are free"
    );
    out
}

/// Formats `value` in the largest of `units`, each `step` times the one before, in which it is at
/// least 1.
pub(crate) fn scaled(mut value: f64, units: [&str; 4], step: f64) -> String {
    let mut unit = 0;
    while value >= step && unit < 3 {
        value /= step;
        unit += 1;
    }
    if unit == 0 { format!("{value}{}", units[0]) } else { format!("{value:.1}{}", units[unit]) }
}
