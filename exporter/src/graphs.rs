//! The graphs of an export, built from the configs and written with their weights.

use hydit_graphs::config::{IpAdapterConfig, TransformerConfig};
use hydit_graphs::manifest::ModelConfig;
use hydit_graphs::pag::PagLayers;
use hydit_graphs::{
    GraphDef, GraphOptions, Precision, Source, Target, bert, hunyuan_dit, image_encoder, t5, vae,
};

use crate::checkpoint::CheckpointWeights;
use crate::convert::convert;
use crate::dit;
use crate::error::Result;
use crate::options::{Options, Progress};
use crate::writer::Folder;
use hydit_graphs::Component;

/// Builds all graphs of a model cut at `n`, by component and in the order in which they run.
pub(crate) fn build(
    options: &Options,
    config: &ModelConfig,
    n: usize,
    ip_adapter: Option<&IpAdapterConfig>,
) -> Vec<(Component, Vec<GraphDef>)> {
    let Options { precision, target, .. } = *options;
    let cut = GraphOptions {
        precision,
        target,
        lora_slots: options.lora_slots.is_some(),
        controls: !options.controls.is_empty(),
        ip_adapter: ip_adapter.is_some(),
        pag_layers: PagLayers::new(&options.pag_layers),
    };
    let vae = (Component::Vae, vae_graphs(options, config));
    if let TransformerConfig::Dit(dit) = &config.transformer {
        let transformer = dit::graphs(dit, n, cut, options.full);
        return vec![(Component::Transformer, transformer), vae];
    }
    let (dit, bert, t5) = config.hunyuan_dit().expect("the configs agree");
    let text_encoder = bert::text_encoder(bert, dit.text_len, precision);
    let text_encoder_2 = t5::text_encoder_2(t5, dit.text_len_t5, precision);
    // The conditioner runs on the portable form everywhere.
    let whole = GraphOptions { target: Target::Portable, ..cut };
    let mut transformer = vec![
        hunyuan_dit::conditioner(dit, whole),
        hunyuan_dit::shallow_encoder(dit, n, cut),
        hunyuan_dit::deep_core(dit, n, cut),
        hunyuan_dit::shallow_decoder(dit, n, cut),
    ];
    if options.full {
        transformer.push(hunyuan_dit::full(dit, cut));
    }
    let image_encoder = ip_adapter.map(|config| {
        let graph = image_encoder::image_encoder(config, dit.cross_attention_dim, precision);
        (Component::ImageEncoder, vec![graph])
    });
    let texts = [
        (Component::TextEncoder, vec![text_encoder]),
        (Component::TextEncoder2, vec![text_encoder_2]),
    ];
    let pictures = [(Component::Transformer, transformer), vae];
    texts.into_iter().chain(image_encoder).chain(pictures).collect()
}

fn vae_graphs(options: &Options, config: &ModelConfig) -> Vec<GraphDef> {
    let precision = if config.vae.force_upcast { Precision::Fp32 } else { options.precision };
    let mut graphs = vec![vae::vae_decoder(&config.vae, precision)];
    if options.has_image_encoder() {
        graphs.insert(0, vae::vae_encoder(&config.vae, precision));
    }
    graphs
}

/// Writes the ONNX file of `graph` and the data file beside it. `weights` must have every tensor
/// that the graph declares: see [`CheckpointWeights::compare`].
///
/// # Errors
/// A tensor has a value that cannot be written, or a file cannot be written.
pub fn write_graph(
    graph: &GraphDef,
    weights: &CheckpointWeights,
    folder: &mut Folder,
    progress: &mut dyn Progress,
) -> Result<()> {
    progress.graph(&graph.name);
    folder.write(&graph.data_file(), |sink| {
        for (initializer, extent) in graph.layout() {
            sink.pad_to(extent.offset);
            match &initializer.source {
                Source::Constant(bytes) => sink.put(bytes.clone()),
                Source::File { .. } => unreachable!("the layout has what is in the data file"),
                Source::Checkpoint { tensor, dims, transform } => {
                    let value = weights.tensor(tensor);
                    convert(&value, dims, *transform, initializer.dtype, |piece| sink.put(piece))
                        .map_err(weights.values(tensor))?;
                    weights.release(tensor);
                }
            }
            if sink.has_failed() {
                break;
            }
            progress.wrote(extent.length);
        }
        Ok(())
    })?;
    folder.write_bytes(&graph.file(), graph.encode())
}
