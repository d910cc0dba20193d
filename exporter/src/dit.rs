//! What an export of a DiT has, and what it has not.

use hydit_graphs::config::DitConfig;
use hydit_graphs::{GraphDef, GraphOptions, dit};

use crate::error::{Error, Result};
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
            let message =
                "only Hunyuan-DiT has it, and this checkpoint is a Skip-DiT: leave it out";
            return Err(Error::Flag { flag, message: message.to_string() });
        }
    }
    Ok(())
}
