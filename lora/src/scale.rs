//! The scale of a LoRA: what PEFT's config says, as `adapter_config.json` or in the file.

use std::collections::BTreeMap;

use hydit_graphs::Component;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::shown;

/// Where diffusers puts PEFT's config into the file. Its fields have the name of the component before
/// them.
const METADATA: &str = "lora_adapter_metadata";

/// The fields of PEFT's `LoraConfig` that matter once a LoRA is trained.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct PeftConfig {
    peft_type: Option<String>,
    r: Option<usize>,
    lora_alpha: Option<f64>,
    rank_pattern: Option<Map<String, Value>>,
    alpha_pattern: Option<Map<String, Value>>,
    use_rslora: Option<bool>,
    fan_in_fan_out: Option<bool>,
    init_lora_weights: Option<Value>,
    layer_replication: Option<Value>,
    /// The others, of which those that begin with `use_` choose another method.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl PeftConfig {
    /// Parses the text of an `adapter_config.json`.
    ///
    /// # Errors
    /// It is none, or of a method that is no plain LoRA.
    pub fn parse(text: &str) -> Result<PeftConfig, String> {
        let config: PeftConfig =
            serde_json::from_str(text).map_err(|error| format!("adapter_config.json: {error}"))?;
        config.checked().map_err(|problem| format!("adapter_config.json: {problem}"))
    }

    fn checked(self) -> Result<PeftConfig, String> {
        if let Some(other) = self.peft_type.as_deref().filter(|kind| *kind != "LORA") {
            return Err(format!("peft_type is {}; expected LORA", shown(other)));
        }
        // The base model was changed when the training began, and the change is not in the file.
        const CHANGE_THE_BASE: [&str; 5] = ["pissa", "olora", "corda", "loftq", "lora_ga"];
        let start = self.init_lora_weights.as_ref().and_then(Value::as_str).unwrap_or_default();
        if CHANGE_THE_BASE.iter().any(|name| start.starts_with(name)) {
            return Err(format!(
                "init_lora_weights is {}, which belongs to a changed base model: convert it with \
                 peft's save_pretrained(path_initial_model_for_weight_conversion=...)",
                shown(start)
            ));
        }
        let methods = self.rest.iter().filter(|(_, value)| value.as_bool() == Some(true));
        let mut methods = methods.map(|(name, _)| name.as_str());
        let other = if self.fan_in_fan_out == Some(true) {
            Some("fan_in_fan_out")
        } else if self.layer_replication.as_ref().is_some_and(|value| !value.is_null()) {
            Some("layer_replication")
        } else {
            methods.find(|name| name.starts_with("use_"))
        };
        match other {
            Some(field) => Err(format!(
                "{} is set, which is not supported: merge it with peft's merge_and_unload(), and \
                 export the result",
                shown(field)
            )),
            None => Ok(self),
        }
    }

    /// The scale of the change of `layer`.
    ///
    /// # Errors
    /// The config has another rank than the tensors, or a pattern that is not a name.
    fn scale(&self, layer: &str, rank: usize) -> Result<f64, String> {
        let declared = match pattern(&self.rank_pattern, "rank_pattern", layer)? {
            Some(rank) => Some(rank),
            None => self.r.map(|rank| rank as f64),
        };
        if let Some(declared) = declared.filter(|declared| *declared != rank as f64) {
            let layer = shown(layer);
            return Err(format!(
                "the config says rank {declared} for {layer}, the tensors have {rank}"
            ));
        }
        let alpha = match pattern(&self.alpha_pattern, "alpha_pattern", layer)? {
            Some(alpha) => alpha,
            None => match self.lora_alpha {
                Some(alpha) => checked(alpha).map_err(|what| format!("lora_alpha {what}"))?,
                None => return Ok(1.0),
            },
        };
        let rank = rank as f64;
        Ok(if self.use_rslora == Some(true) { alpha / rank.sqrt() } else { alpha / rank })
    }
}

/// What `patterns` say of `layer`: the first whose key its name ends with. PEFT takes keys for
/// regular expressions; all that libraries write are names.
fn pattern(
    patterns: &Option<Map<String, Value>>,
    field: &str,
    layer: &str,
) -> Result<Option<f64>, String> {
    for (key, value) in patterns.iter().flatten() {
        let name = key.strip_prefix('^').unwrap_or(key);
        if !name.chars().all(|c| c.is_ascii_alphanumeric() || "_.".contains(c)) {
            return Err(format!("{field} has the key {}; expected names", shown(key)));
        }
        let fits = match layer.strip_suffix(name) {
            Some(before) => before.is_empty() || (name == key && before.ends_with('.')),
            None => false,
        };
        if fits {
            let number = value.as_f64().unwrap_or(f64::NAN);
            return checked(number).map(Some).map_err(|what| format!("{field} {what}"));
        }
    }
    Ok(None)
}

/// An alpha or a rank that can be one.
fn checked(number: f64) -> Result<f64, String> {
    if number.is_finite() && number > 0.0 {
        return Ok(number);
    }
    Err(format!("is {number}; expected a number above 0"))
}

/// What a LoRA says of its scales.
#[derive(Debug, Default)]
pub(crate) struct Scales {
    /// PEFT's config beside the file.
    beside: Option<PeftConfig>,
    /// Those in the file, by component.
    inside: BTreeMap<Component, PeftConfig>,
}

impl Scales {
    /// What the file's metadata says, and the config beside it.
    ///
    /// # Errors
    /// A config cannot be used.
    pub fn new(
        metadata: &BTreeMap<String, String>,
        beside: Option<PeftConfig>,
    ) -> Result<Scales, String> {
        let mut inside = BTreeMap::new();
        if let Some(text) = metadata.get(METADATA) {
            let of_the_file = |error: String| format!("its {METADATA}: {error}");
            let all: Map<String, Value> =
                serde_json::from_str(text).map_err(|error| of_the_file(error.to_string()))?;
            for component in Component::ALL {
                let start = format!("{}.", component.folder());
                let fields = all.iter().filter_map(|(name, value)| {
                    Some((name.strip_prefix(&start)?.to_string(), value.clone()))
                });
                let fields: Map<String, Value> = fields.collect();
                if !fields.is_empty() {
                    let config = serde_json::from_value(Value::Object(fields))
                        .map_err(|error| error.to_string())
                        .and_then(PeftConfig::checked);
                    inside.insert(component, config.map_err(of_the_file)?);
                }
            }
        }
        Ok(Scales { beside, inside })
    }

    /// The scale of the change of `layer`: by `alpha` if the file has one; else by PEFT's config;
    /// else 1, or `1 / sqrt(rank)` if `root`.
    ///
    /// # Errors
    /// The alpha is no number above 0, or the config contradicts the file.
    pub fn scale(
        &self,
        component: Component,
        layer: &str,
        rank: usize,
        alpha: Option<f64>,
        root: bool,
    ) -> Result<f64, String> {
        if let Some(alpha) = alpha {
            let alpha = checked(alpha).map_err(|what| format!("its alpha {what}"))?;
            return Ok(alpha / rank as f64);
        }
        match self.inside.get(&component).or(self.beside.as_ref()) {
            Some(config) => config.scale(layer, rank),
            None if root => Ok(1.0 / (rank as f64).sqrt()),
            None => Ok(1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIT: Component = Component::Transformer;

    fn scale(config: &str, layer: &str, rank: usize) -> Result<f64, String> {
        let scales = Scales::new(&BTreeMap::new(), Some(PeftConfig::parse(config)?))?;
        scales.scale(DIT, layer, rank, None, false)
    }

    #[test]
    fn peft_configs_are_followed() {
        let plain = r#"{"peft_type": "LORA", "r": 8, "lora_alpha": 4, "rank_pattern": {}}"#;
        assert_eq!(scale(plain, "x", 8), Ok(0.5));
        assert!(scale(plain, "x", 4).expect_err("a refusal").contains("says rank 8 for `x`"));
        let root = r#"{"r": 16, "lora_alpha": 8, "use_rslora": true}"#;
        assert_eq!(scale(root, "x", 16), Ok(2.0));
        let patterns = r#"{"r": 8, "lora_alpha": 8, "rank_pattern": {"attn1.to_q": 4},
            "alpha_pattern": {"^blocks.1.attn1.to_q": 1, "to_q": 2}}"#;
        assert_eq!(scale(patterns, "blocks.0.attn1.to_q", 4), Ok(0.5));
        assert_eq!(scale(patterns, "blocks.1.attn1.to_q", 4), Ok(0.25));
        assert_eq!(scale(patterns, "blocks.0.attn2.to_q", 8), Ok(0.25));
        assert_eq!(scale(patterns, "blocks.0.attn1.not_to_k", 8), Ok(1.0));
    }

    #[test]
    fn configs_of_other_methods_are_refused() {
        for (config, expected) in [
            (r#"{"peft_type": "LOHA"}"#, "peft_type is `LOHA`"),
            (r#"{"use_dora": true}"#, "`use_dora` is set"),
            (r#"{"init_lora_weights": "pissa_niter_4"}"#, "a changed base model"),
            (r#"{"lora_alpha": 0}"#, "lora_alpha is 0"),
            (r#"{"r": 8, "alpha_pattern": {"x|y": 2}}"#, "the key `x|y`"),
            (r#"{"alpha_pattern": {"x": "two"}}"#, "alpha_pattern is NaN"),
            ("{", "adapter_config.json: "),
        ] {
            let error = scale(config, "x", 8).expect_err(config);
            assert!(error.contains(expected), "{config}: {error}");
        }
    }

    #[test]
    fn the_file_comes_before_the_config_and_alpha_before_both() {
        let text = r#"{"transformer.r": 4, "transformer.lora_alpha": 8}"#;
        let metadata = BTreeMap::from([(METADATA.to_string(), text.to_string())]);
        let beside = PeftConfig::parse(r#"{"r": 4, "lora_alpha": 1}"#).expect("a config");
        let scales = Scales::new(&metadata, Some(beside)).expect("configs");
        assert_eq!(scales.scale(DIT, "x", 4, None, false), Ok(2.0));
        assert_eq!(scales.scale(Component::TextEncoder, "x", 4, None, false), Ok(0.25));
        assert_eq!(scales.scale(DIT, "x", 4, Some(2.0), false), Ok(0.5));
        assert!(scales.scale(DIT, "x", 4, Some(f64::NAN), false).is_err());
        let none = Scales::default();
        assert_eq!(none.scale(DIT, "x", 4, None, false), Ok(1.0));
        assert_eq!(none.scale(DIT, "x", 4, None, true), Ok(0.5));
    }
}
