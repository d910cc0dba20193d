//! What is checked of a manifest when it is read: every number, name and edge in it.

use std::fmt::Display;

use super::{
    ControlEntry, FileEntry, GraphEntry, LoraEntry, Manifest, ManifestError, ModelConfig,
    Tokenizers, is_plain,
};
use crate::config::TransformerConfig;
use crate::control;
use crate::interface::{GRAPHS, Interface, OPTIONAL, control_interface, graphs, interface};
use crate::lora;
use crate::pag;
use crate::tensor::TensorSpec;

/// The most bytes that all files of a folder have.
const MAX_TOTAL: u64 = 1 << 48;

impl Manifest {
    pub(super) fn check_numbers(&self) -> Result<(), ManifestError> {
        let Manifest { cache_at_branch, model, .. } = self;
        let branches = model.transformer.cache_branches();
        if !branches.contains(cache_at_branch) {
            let expected = format!("{} to {}", branches.start(), branches.end());
            return wrong("cache_at_branch", cache_at_branch, expected);
        }
        let part = "variant";
        self.variant.validate(model).map_err(|source| ManifestError::Config { part, source })?;
        match (model.hunyuan_dit(), &self.tokenizers) {
            (Some((dit, bert, t5)), Some(Tokenizers { text_encoder, text_encoder_2 })) => {
                for (name, entry, length, rows) in [
                    ("text_encoder", text_encoder, dit.text_len, bert.vocab_size),
                    ("text_encoder_2", text_encoder_2, dit.text_len_t5, t5.vocab_size),
                ] {
                    if entry.length != length {
                        return wrong(&format!("tokenizers.{name}.length"), entry.length, length);
                    }
                    if entry.pad_id as usize >= rows {
                        let expected = format!("a number below {rows}");
                        return wrong(&format!("tokenizers.{name}.pad_id"), entry.pad_id, expected);
                    }
                }
            }
            (None, None) => self.check_plain()?,
            (_, found) => {
                let [found, expected] = [found.is_some(), found.is_none()]
                    .map(|there| if there { "there" } else { "missing" });
                return wrong("tokenizers", found, expected);
            }
        }
        if let Some(rank) = self.lora_slots.filter(|rank| !(1..=lora::MAX_RANK).contains(rank)) {
            return wrong("lora_slots", rank, format!("1 to {}", lora::MAX_RANK));
        }
        if let Err(expected) = pag::check(&self.pag_layers, model.transformer.shape().num_layers) {
            return wrong("pag_layers", format!("{:?}", self.pag_layers), expected);
        }
        if let Some(ip_adapter) = &self.ip_adapter {
            let part = "ip_adapter";
            ip_adapter.validate().map_err(|source| ManifestError::Config { part, source })?;
        }
        for (i, LoraEntry { sha256, weight, .. }) in self.loras.iter().enumerate() {
            check_sha256(&format!("loras[{i}].sha256"), sha256)?;
            if !weight.is_finite() {
                return wrong(&format!("loras[{i}].weight"), weight, "a number");
            }
        }
        let mut total = 0u64;
        for (name, FileEntry { bytes, sha256 }) in &self.files {
            total = match total.checked_add(*bytes).filter(|total| *total <= MAX_TOTAL) {
                Some(total) => total,
                None => return wrong(&format!("files.{name}.bytes"), bytes, "a size of a file"),
            };
            check_sha256(&format!("files.{name}.sha256"), sha256)?;
        }
        Ok(())
    }

    /// Checks that there is nothing which only Hunyuan-DiT has.
    fn check_plain(&self) -> Result<(), ManifestError> {
        let Manifest { lora_slots, controls, ip_adapter, pag_layers, loras, .. } = self;
        for (field, there) in [
            ("loras", !loras.is_empty()),
            ("lora_slots", lora_slots.is_some()),
            ("controls", !controls.is_empty()),
            ("ip_adapter", ip_adapter.is_some()),
            ("pag_layers", !pag_layers.is_empty()),
        ] {
            if there {
                return wrong(field, "there", "nothing, of a model that draws classes");
            }
        }
        Ok(())
    }

    /// Checks the ControlNets, and that what they read and make is the transformer's.
    pub(super) fn check_controls(&self) -> Result<(), ManifestError> {
        for (i, ControlEntry { name, config }) in self.controls.iter().enumerate() {
            let field = |field: &str| format!("controls[{i}].{field}");
            if let Err(expected) = control::check_name(name) {
                let found: String = name.chars().take(60).collect();
                return wrong(&field("name"), found.escape_debug(), expected);
            }
            if self.controls[..i].iter().any(|other| other.name == *name) {
                return wrong(&field("name"), name, "a name of its own");
            }
            let part = "controls";
            config.validate().map_err(|source| ManifestError::Config { part, source })?;
            let dit = self.model.transformer.hunyuan_dit();
            if let Some((name, found, expected)) = dit.and_then(|dit| control::differs(config, dit))
            {
                return wrong(&field(name), found, format!("{expected}, as the transformer's"));
            }
        }
        if self.controls.is_empty() || self.has_image_encoder() {
            return Ok(());
        }
        Err(ManifestError::Graph("vae-encoder".to_string()))
    }

    /// The interface of the graph `name`, if it is one of this export.
    fn interface(&self, name: &str) -> Option<Interface> {
        let (model, n, options) = (&self.model, self.cache_at_branch, self.graph_options());
        interface(name, model, n, options, self.ip_adapter.as_ref()).or_else(|| {
            let of_net = |entry: &ControlEntry| {
                let (part, _) = entry.graphs(n).find(|(_, graph)| graph == name)?;
                Some(control_interface(part, &entry.config, model, n, options))
            };
            self.controls.iter().find_map(of_net)
        })
    }

    /// Checks that all graphs are there, each once and with the inputs and outputs that the configs
    /// give it.
    pub(super) fn check_graphs(&self) -> Result<(), ManifestError> {
        let image_encoder = self.ip_adapter.iter().map(|_| &"image-encoder");
        graphs(&self.model)
            .iter()
            .chain(image_encoder)
            .try_for_each(|name| self.graph(name).map(drop))?;
        let nets = self.controls.iter().flat_map(|entry| entry.graphs(self.cache_at_branch));
        nets.into_iter().try_for_each(|(_, name)| self.graph(&name).map(drop))?;
        for (i, graph) in self.graphs.iter().enumerate() {
            let known = self.interface(&graph.name);
            let repeated = self.graphs[..i].iter().any(|other| other.name == graph.name);
            let Some(Interface { inputs, outputs }) = known.filter(|_| !repeated) else {
                let found: String = graph.name.chars().take(60).collect();
                let names = [&GRAPHS[..], &OPTIONAL].concat().join(", ");
                let expected = format!("one of {names}, each once");
                return wrong(&format!("graphs[{i}].name"), found.escape_debug(), expected);
            };
            graph.check("inputs", &graph.inputs, &inputs)?;
            graph.check("outputs", &graph.outputs, &outputs)?;
        }
        Ok(())
    }

    pub(super) fn check_names(&self) -> Result<(), ManifestError> {
        let tokenizers = self.tokenizers.iter();
        let tokenizers = tokenizers.flat_map(|both| [&both.text_encoder, &both.text_encoder_2]);
        let graphs = self.graphs.iter().flat_map(|graph| graph.weights().chain([&graph.file]));
        for name in graphs.chain(tokenizers.map(|tokenizer| &tokenizer.file)) {
            if !self.files.contains_key(name) {
                return Err(ManifestError::FileName(name.clone()));
            }
        }
        match self.files.keys().find(|name| !is_plain(name)) {
            Some(name) => Err(ManifestError::FileName(name.clone())),
            None => Ok(()),
        }
    }
}

impl GraphEntry {
    /// Checks the tensors of the field `field`.
    fn check(
        &self,
        field: &str,
        found: &[TensorSpec],
        expected: &[TensorSpec],
    ) -> Result<(), ManifestError> {
        let longest = found.len().max(expected.len());
        let differs = (0..longest).find(|&i| found.get(i) != expected.get(i));
        let Some(i) = differs else { return Ok(()) };
        let text = |spec: Option<&TensorSpec>| match spec {
            Some(spec) => spec.to_string().chars().take(200).flat_map(char::escape_debug).collect(),
            None => "missing".to_string(),
        };
        let expected = match expected.get(i) {
            Some(spec) => spec.to_string(),
            None => "no more".to_string(),
        };
        wrong(&format!("{field}[{i}] of the graph {}", self.name), text(found.get(i)), expected)
    }
}

impl ModelConfig {
    /// Checks every config, and the sizes that two of them must share.
    ///
    /// # Errors
    /// The first field that is out of range, or what contradicts each other.
    pub fn validate(&self) -> Result<(), ManifestError> {
        let ModelConfig { transformer, text_encoder, text_encoder_2, vae, scheduler } = self;
        for (part, checked) in [
            ("model.transformer", transformer.validate()),
            ("model.text_encoder", text_encoder.as_ref().map_or(Ok(()), |bert| bert.validate())),
            ("model.text_encoder_2", text_encoder_2.as_ref().map_or(Ok(()), |t5| t5.validate())),
            ("model.vae", vae.validate()),
            ("model.scheduler", scheduler.validate()),
        ] {
            checked.map_err(|source| ManifestError::Config { part, source })?;
        }
        self.agrees().map_err(ManifestError::Disagree)
    }

    /// Checks the sizes that two configs must share.
    ///
    /// # Errors
    /// What contradicts each other.
    pub fn agrees(&self) -> Result<(), String> {
        let latents = ("in_channels", self.transformer.shape().in_channels);
        agree(latents, ("vae latent_channels", self.vae.latent_channels))?;
        let (dit, bert, t5) = match (&self.transformer, &self.text_encoder, &self.text_encoder_2) {
            (TransformerConfig::HunyuanDit(dit), Some(bert), Some(t5)) => (dit, bert, t5),
            (TransformerConfig::Dit(_), None, None) => return Ok(()),
            (TransformerConfig::HunyuanDit(_), ..) => {
                return Err("a Hunyuan-DiT needs text_encoder and text_encoder_2".to_string());
            }
            _ => return Err("a model that draws classes has no text encoders".to_string()),
        };
        let states = ("cross_attention_dim", dit.cross_attention_dim);
        agree(states, ("text_encoder hidden_size", bert.hidden_size))?;
        let states = ("cross_attention_dim_t5", dit.cross_attention_dim_t5);
        agree(states, ("text_encoder_2 d_model", t5.d_model))?;
        if bert.max_position_embeddings < dit.text_len {
            return Err(format!(
                "text_encoder max_position_embeddings = {}, transformer text_len = {}",
                bert.max_position_embeddings, dit.text_len
            ));
        }
        Ok(())
    }
}

fn agree((field, size): (&str, usize), (other, other_size): (&str, usize)) -> Result<(), String> {
    if size == other_size {
        return Ok(());
    }
    Err(format!(
        "transformer {field} = {size}, {other} = {other_size}; are the folders of one checkpoint?"
    ))
}

fn check_sha256(field: &str, sha256: &str) -> Result<(), ManifestError> {
    if sha256.len() == 64 && sha256.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Ok(());
    }
    let found: String = sha256.chars().take(70).collect();
    wrong(field, found.escape_debug(), "64 hexadecimal digits")
}

fn wrong<T>(field: &str, found: impl Display, expected: impl Display) -> Result<T, ManifestError> {
    let (found, expected) = (found.to_string(), expected.to_string());
    Err(ManifestError::Field { field: field.to_string(), found, expected })
}
