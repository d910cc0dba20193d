//! Prompts -> text states: two tokenizers, two encoders. Follows `HunyuanDiTPipeline.encode_prompt`
//! of diffusers.

use std::path::Path;

use hydit_graphs::manifest::TokenizerEntry;
use tokenizers::{PaddingDirection, PaddingParams, PaddingStrategy, Tokenizer, TruncationParams};

use crate::artifacts::Artifacts;
use crate::error::{Error, Result};
use crate::request::Request;
use crate::runtime::{Backend, Session};

/// The two text encoders with their tokenizers.
pub struct TextEncoders {
    bert: Encoder,
    t5: Encoder,
}

/// What both encoders say of some prompts, a row each.
pub struct PromptEmbeds {
    /// BERT: states and mask.
    pub bert: Encoded,
    /// T5: states and mask.
    pub t5: Encoded,
}

/// States of one encoder, on the host: nothing of the encoder stays with them.
pub struct Encoded {
    /// Rows, tokens of a row, channels of a token.
    pub shape: [usize; 3],
    /// `[rows, length, width]`.
    pub states: Vec<f32>,
    /// `[rows, length]`: 1 for a token, 0 for padding.
    pub mask: Vec<i64>,
    /// Of each row, whether its text had more tokens than that.
    pub cut: Vec<bool>,
}

/// Token ids of some texts, cut or padded to one length.
#[derive(Clone, Debug, PartialEq)]
pub struct Tokens {
    /// Ids, row by row.
    pub ids: Vec<i64>,
    /// 1 for a token, 0 for padding.
    pub mask: Vec<i64>,
    /// Of each text, whether it was cut.
    pub cut: Vec<bool>,
}

struct Encoder {
    tokenizer: PaddedTokenizer,
    session: Session,
}

/// A tokenizer that cuts or pads every text to one length.
pub struct PaddedTokenizer {
    tokenizer: Tokenizer,
    length: usize,
}

impl PromptEmbeds {
    /// Which texts of `request` were cut for the first text encoder or the second.
    pub fn truncated(&self, request: &Request) -> Vec<&'static str> {
        let fields =
            if request.guided() { &["negative_prompt", "prompt"][..] } else { &["prompt"] };
        let cut = self.bert.cut.iter().zip(&self.t5.cut).map(|(bert, t5)| *bert || *t5);
        fields.iter().zip(cut).filter(|(_, cut)| *cut).map(|(field, _)| *field).collect()
    }
}

impl TextEncoders {
    /// Loads graphs and tokenizers.
    pub fn load(artifacts: &Artifacts, backend: &Backend) -> Result<TextEncoders> {
        let tokenizers = &artifacts.manifest.tokenizers;
        let load = |entry: &TokenizerEntry, graph: &str| -> Result<Encoder> {
            let tokenizer = PaddedTokenizer::load(&artifacts.path, entry)?;
            Ok(Encoder { tokenizer, session: backend.load_seldom(&artifacts.graph(graph)?)? })
        };
        Ok(TextEncoders {
            bert: load(&tokenizers.text_encoder, "text-encoder")?,
            t5: load(&tokenizers.text_encoder_2, "text-encoder-2")?,
        })
    }

    /// Encodes `texts`, a row each.
    pub fn encode(&mut self, backend: &Backend, texts: &[&str]) -> Result<PromptEmbeds> {
        Ok(PromptEmbeds {
            bert: self.bert.encode(backend, texts)?,
            t5: self.t5.encode(backend, texts)?,
        })
    }
}

impl Encoder {
    fn encode(&mut self, backend: &Backend, texts: &[&str]) -> Result<Encoded> {
        let Tokens { ids, mask, cut } = self.tokenizer.tokenize(texts)?;
        let (rows, length) = (texts.len(), self.tokenizer.length);
        let shape = [rows, length];
        let ids = backend.tensor_i64(&shape, &ids)?;
        let mask_value = backend.tensor_i64(&shape, &mask)?;
        let inputs = [("input_ids", &ids), ("attention_mask", &mask_value)];
        let outputs = self.session.run(&inputs)?;
        let states = outputs[0].read_f32()?.into_owned();
        Ok(Encoded { shape: [rows, length, states.len() / (rows * length)], states, mask, cut })
    }
}

impl PaddedTokenizer {
    /// Reads the tokenizer `entry` of the artifact folder `folder`.
    pub fn load(folder: &Path, entry: &TokenizerEntry) -> Result<PaddedTokenizer> {
        let path = folder.join(&entry.file);
        let bad = |error: tokenizers::Error| Error::Artifact {
            path: path.clone(),
            message: format!("not a usable tokenizer.json: {error}"),
        };
        let mut tokenizer = Tokenizer::from_file(&path).map_err(bad)?;
        let truncation = TruncationParams { max_length: entry.length, ..Default::default() };
        tokenizer.with_truncation(Some(truncation)).map_err(bad)?;
        tokenizer.with_padding(Some(PaddingParams {
            strategy: PaddingStrategy::Fixed(entry.length),
            direction: PaddingDirection::Right,
            pad_id: entry.pad_id,
            ..Default::default()
        }));
        Ok(PaddedTokenizer { tokenizer, length: entry.length })
    }

    /// Ids and mask of `texts`.
    pub fn tokenize(&self, texts: &[&str]) -> Result<Tokens> {
        let mut tokens = Tokens { ids: Vec::new(), mask: Vec::new(), cut: Vec::new() };
        for text in texts {
            let encoding = self
                .tokenizer
                .encode(*text, true)
                .map_err(|error| Error::Tokenizer(error.to_string()))?;
            tokens.cut.push(!encoding.get_overflowing().is_empty());
            tokens.ids.extend(encoding.get_ids().iter().map(|&id| i64::from(id)));
            tokens.mask.extend(encoding.get_attention_mask().iter().map(|&m| i64::from(m)));
        }
        Ok(tokens)
    }
}
