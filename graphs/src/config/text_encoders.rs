//! Configs of the two text encoders.

use serde::{Deserialize, Serialize};

use super::{ConfigError, epsilon, field, only, range, read};

/// Config of the first text encoder, `BertModel`: `text_encoder/config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // transformers documents the fields
pub struct BertConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub max_position_embeddings: usize,
    pub type_vocab_size: usize,
    pub layer_norm_eps: f32,
    pub hidden_act: String,
    #[serde(default = "absolute")]
    pub position_embedding_type: String,
}

fn absolute() -> String {
    "absolute".to_string()
}

impl BertConfig {
    /// Parses the JSON text of a config and checks it.
    ///
    /// # Errors
    /// The text is not JSON of this form, or `validate` refuses it.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        read(text, Self::validate)
    }

    /// Checks that the graph can be built.
    ///
    /// # Errors
    /// The first field that is out of range or not supported.
    pub fn validate(&self) -> Result<(), ConfigError> {
        range("vocab_size", self.vocab_size, 1, 4_000_000)?;
        range("hidden_size", self.hidden_size, 1, 16_384)?;
        range("num_hidden_layers", self.num_hidden_layers, 1, 256)?;
        range("num_attention_heads", self.num_attention_heads, 1, 1024)?;
        range("intermediate_size", self.intermediate_size, 1, 65_536)?;
        range("max_position_embeddings", self.max_position_embeddings, 1, 65_536)?;
        range("type_vocab_size", self.type_vocab_size, 1, 64)?;
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let why = format!("num_attention_heads = {} must divide it", self.num_attention_heads);
            return field("hidden_size", self.hidden_size, why);
        }
        epsilon("layer_norm_eps", self.layer_norm_eps)?;
        only("hidden_act", &self.hidden_act, "gelu")?;
        only("position_embedding_type", &self.position_embedding_type, "absolute")?;
        Ok(())
    }
}

/// The kind of feed-forward layer of a T5 block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FeedForward {
    /// Two projections, one of them through GELU, multiplied: T5 v1.1 and mT5.
    #[serde(rename = "gated-gelu")]
    GatedGelu,
    /// Like [`FeedForward::GatedGelu`], with SiLU in place of GELU.
    #[serde(rename = "gated-silu")]
    GatedSilu,
    /// One projection through ReLU: the first T5.
    #[serde(rename = "relu")]
    Relu,
}

/// Config of the second text encoder, `T5EncoderModel` or `MT5EncoderModel`:
/// `text_encoder_2/config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // transformers documents the fields
pub struct T5Config {
    pub vocab_size: usize,
    pub d_model: usize,
    pub d_kv: usize,
    pub d_ff: usize,
    pub num_layers: usize,
    pub num_heads: usize,
    pub relative_attention_num_buckets: usize,
    #[serde(default = "max_distance")]
    pub relative_attention_max_distance: usize,
    pub layer_norm_epsilon: f32,
    pub feed_forward_proj: FeedForward,
}

fn max_distance() -> usize {
    128
}

impl T5Config {
    /// Parses the JSON text of a config and checks it.
    ///
    /// # Errors
    /// The text is not JSON of this form, or `validate` refuses it.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        read(text, Self::validate)
    }

    /// Checks that the graph can be built.
    ///
    /// # Errors
    /// The first field that is out of range or not supported.
    pub fn validate(&self) -> Result<(), ConfigError> {
        range("vocab_size", self.vocab_size, 1, 4_000_000)?;
        range("d_model", self.d_model, 1, 16_384)?;
        range("d_kv", self.d_kv, 1, 1024)?;
        range("d_ff", self.d_ff, 1, 65_536)?;
        range("num_layers", self.num_layers, 1, 256)?;
        range("num_heads", self.num_heads, 1, 1024)?;
        range("relative_attention_num_buckets", self.relative_attention_num_buckets, 4, 4096)?;
        let exact = self.relative_attention_num_buckets / 4;
        range(
            "relative_attention_max_distance",
            self.relative_attention_max_distance,
            exact + 1,
            65_536,
        )?;
        epsilon("layer_norm_epsilon", self.layer_norm_epsilon)?;
        Ok(())
    }
}
