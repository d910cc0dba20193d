//! Prompts -> text states: two tokenizers, two encoders. Follows `HunyuanDiTPipeline.encode_prompt`
//! of diffusers.

use std::path::Path;
use std::sync::Arc;

use hydit_graphs::manifest::TokenizerEntry;
use tokenizers::{PaddingDirection, PaddingParams, PaddingStrategy, Tokenizer, TruncationParams};

use crate::artifacts::Artifacts;
use crate::error::{Error, Result};
use crate::request::Request;
use crate::runtime::{Backend, Session};
use crate::timing::{Stage, Timer};

/// The two text encoders with their tokenizers.
pub struct TextEncoders {
    bert: Encoder,
    t5: Encoder,
    timer: Timer,
}

/// The prompts of a request as both encoders read them: the negative prompt's row first, with
/// guidance, then the prompt's.
pub struct PromptEmbeds {
    pub(crate) bert: Encoded,
    pub(crate) t5: Encoded,
    /// The prompts that were longer than an encoder reads: `negative_prompt`, `prompt`.
    pub(crate) truncated: Vec<&'static str>,
}

/// States of one encoder, on the host, so that nothing of the encoder stays in memory with them.
pub(crate) struct Encoded {
    /// Rows, tokens of a row, channels of a token.
    pub shape: [usize; 3],
    /// `[rows, tokens, channels]`.
    pub states: Vec<f32>,
    /// `[rows, tokens]`: 1 for a token, 0 for padding.
    pub mask: Vec<i64>,
    /// Whether each row's text was truncated.
    pub truncated: Vec<bool>,
}

/// Token ids of some texts, truncated or padded to one length.
#[derive(Clone, Debug, PartialEq)]
pub struct Tokens {
    /// The ids, row by row.
    pub ids: Vec<i64>,
    /// 1 for a token, 0 for padding.
    pub mask: Vec<i64>,
    /// Whether each text was truncated.
    pub truncated: Vec<bool>,
}

struct Encoder {
    tokenizer: PaddedTokenizer,
    session: Session,
    backend: Backend,
}

/// A tokenizer that truncates or pads every text to one length.
pub struct PaddedTokenizer {
    tokenizer: Tokenizer,
    length: usize,
}

impl TextEncoders {
    /// Loads graphs and tokenizers.
    ///
    /// # Errors
    /// When one is missing or does not load.
    pub fn load(artifacts: &Arc<Artifacts>, backend: &Backend) -> Result<TextEncoders> {
        let tokenizers = &artifacts.manifest.tokenizers;
        Ok(TextEncoders {
            bert: Encoder::load(artifacts, backend, &tokenizers.text_encoder, "text-encoder")?,
            t5: Encoder::load(artifacts, backend, &tokenizers.text_encoder_2, "text-encoder-2")?,
            timer: backend.timer(),
        })
    }

    /// Encodes the prompts of `request`; the negative one only if it counts.
    ///
    /// # Errors
    /// [`Error::Tokenizer`], or what the backend says.
    pub fn encode(&mut self, request: &Request) -> Result<PromptEmbeds> {
        let _timed = self.timer.start(Stage::TextEncoders);
        let both = [
            ("negative_prompt", request.negative_prompt.as_str()),
            ("prompt", request.prompt.as_str()),
        ];
        let read = if request.guided() { &both[..] } else { &both[1..] };
        let texts: Vec<&str> = read.iter().map(|(_, text)| *text).collect();
        let (bert, t5) = (self.bert.encode(&texts)?, self.t5.encode(&texts)?);
        let truncated = bert.truncated.iter().zip(&t5.truncated).map(|(bert, t5)| *bert || *t5);
        let fields = read.iter().zip(truncated);
        let truncated = fields.filter(|(_, truncated)| *truncated).map(|((field, _), _)| *field);
        let truncated = truncated.collect();
        Ok(PromptEmbeds { bert, t5, truncated })
    }
}

impl Encoder {
    fn load(
        artifacts: &Artifacts,
        backend: &Backend,
        tokenizer: &TokenizerEntry,
        graph: &str,
    ) -> Result<Encoder> {
        let tokenizer = PaddedTokenizer::load(&artifacts.path, tokenizer)?;
        let session = backend.load_seldom(&artifacts.graph(graph)?)?;
        Ok(Encoder { tokenizer, session, backend: backend.clone() })
    }

    fn encode(&mut self, texts: &[&str]) -> Result<Encoded> {
        let Tokens { ids, mask, truncated } = self.tokenizer.tokenize(texts)?;
        let (rows, length) = (texts.len(), self.tokenizer.length);
        let ids = self.backend.tensor_i64(&[rows, length], &ids)?;
        let mask_value = self.backend.tensor_i64(&[rows, length], &mask)?;
        let inputs = [("input_ids", &ids), ("attention_mask", &mask_value)];
        let states = self.session.run_single(&inputs)?.read_f32()?.into_owned();
        let shape = [rows, length, states.len() / (rows * length)];
        Ok(Encoded { shape, states, mask, truncated })
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
        let mut tokens = Tokens { ids: Vec::new(), mask: Vec::new(), truncated: Vec::new() };
        for text in texts {
            let encoding = self.tokenizer.encode(*text, true).map_err(Error::Tokenizer)?;
            tokens.truncated.push(!encoding.get_overflowing().is_empty());
            tokens.ids.extend(encoding.get_ids().iter().map(|&id| i64::from(id)));
            tokens.mask.extend(encoding.get_attention_mask().iter().map(|&m| i64::from(m)));
        }
        Ok(tokens)
    }
}
