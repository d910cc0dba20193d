//! ControlNets that are exported beside the model.

use std::path::PathBuf;
use std::str::FromStr;

use hydit_graphs::config::HunyuanDitConfig;
use hydit_graphs::control::{self, Part, check_name, count};
use hydit_graphs::manifest::ControlEntry;
use hydit_graphs::{Component, GraphDef, GraphOptions, Target};

use crate::checkpoint::{Checkpoint, CheckpointWeights, infer};
use crate::error::{Error, Result};
use crate::options::Options;

/// A ControlNet to export, and the name by which requests choose it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlNet {
    /// Its name, such as `canny`.
    pub name: String,
    /// Its weights: a folder in diffusers' layout, or a file of diffusers or of Tencent.
    pub path: PathBuf,
}

/// Reads a net as the command line has it, `name=path`.
impl FromStr for ControlNet {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<ControlNet, String> {
        let Some((name, path)) = text.split_once('=').filter(|(_, path)| !path.is_empty()) else {
            return Err("expected NAME=PATH, such as canny=checkpoints/canny".to_string());
        };
        check_name(name)?;
        Ok(ControlNet { name: name.to_string(), path: path.into() })
    }
}

/// A ControlNet that was found.
pub(crate) struct Net {
    pub entry: ControlEntry,
    pub weights: CheckpointWeights,
}

/// Finds the ControlNets of `options`, which shall stand beside `transformer`.
///
/// # Errors
/// There is none at a path, it does not fit the transformer, or two have one name.
pub(crate) fn find(options: &Options, transformer: &HunyuanDitConfig) -> Result<Vec<Net>> {
    let nets = &options.controls;
    let refuse = |message| Err(Error::Flag { flag: "control", message });
    for (i, ControlNet { name, .. }) in nets.iter().enumerate() {
        if let Err(expected) = check_name(name) {
            return refuse(format!("{name:?}: {expected}"));
        }
        if nets[..i].iter().any(|other| other.name == *name) {
            return refuse(format!("two nets are called {name}: give each a name of its own"));
        }
    }
    if options.single && !nets.is_empty() {
        return refuse(
            "pipeline.onnx has no inputs for ControlNets: leave out --control or --single"
                .to_string(),
        );
    }
    nets.iter().map(|net| open(net, options, transformer)).collect()
}

fn open(net: &ControlNet, options: &Options, transformer: &HunyuanDitConfig) -> Result<Net> {
    let ControlNet { name, path } = net;
    let checkpoint = Checkpoint::find(path, None, options.weights_variant.as_deref())?;
    if !checkpoint.has(Component::ControlNet) {
        let message = "no ControlNet of a Hunyuan-DiT is in it: expected the folder of diffusers' \
                       HunyuanDiT2DControlNetModel, or the file of one in diffusers' or Tencent's \
                       names";
        return Err(Error::content(path)(message));
    }
    let weights = checkpoint.weights(Component::ControlNet)?.called(format!("controlnet {name}"));
    let config = infer::control(&weights, transformer)?;
    let refused = |message: String| Err(Error::content(path)(message));
    if let Some((field, found, expected)) = control::differs(&config, transformer) {
        let field = field.trim_start_matches("config.");
        return refused(match field {
            "num_layers" => format!(
                "the ControlNet has {} blocks, and a model of {expected} blocks needs one of {}",
                count(&config),
                count(transformer)
            ),
            _ => format!("the ControlNet's {field} is {found}, the model's {expected}"),
        });
    }
    Ok(Net { entry: ControlEntry { name: name.clone(), config }, weights })
}

impl Net {
    /// Its graphs, cut at `n` as the model is.
    pub fn graphs(&self, options: &Options, n: usize) -> Vec<GraphDef> {
        let ControlEntry { name, config } = &self.entry;
        let Options { precision, target, .. } = *options;
        let cut = GraphOptions::from((precision, target));
        // As the model's conditioner.
        let whole = GraphOptions { target: Target::Portable, ..cut };
        let build = |(part, _)| match part {
            Part::Conditioner => control::conditioner(name, config, whole),
            Part::Encoder => control::encoder(name, config, n, cut),
            Part::Core => control::core(name, config, n, cut),
        };
        self.entry.graphs(n).map(build).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_net_is_a_name_and_a_path() {
        let net = |name: &str, path: &str| ControlNet { name: name.to_string(), path: path.into() };
        assert_eq!("canny=a/b=c".parse(), Ok(net("canny", "a/b=c")));
        for text in ["canny", "canny=", "=a", "Canny=a", "a/b=c"] {
            assert!(text.parse::<ControlNet>().is_err(), "{text}");
        }
    }
}
