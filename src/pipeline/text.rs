//! Prompts -> text states: two tokenizers, two encoders. Follows `HunyuanDiTPipeline.encode_prompt`
//! of diffusers.

use std::sync::{Arc, PoisonError, Weak};

use hydit_graphs::manifest::TokenizerEntry;
use hydit_input::file;
use hydit_input::tokenizer::{Fit, MAX_BYTES, PaddedTokenizer, Tokens};

use super::image_prompt::ImageEmbeds;
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
    /// The image prompt, if there is one.
    pub(crate) image: Option<ImageEmbeds>,
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

struct Encoder {
    tokenizer: Arc<PaddedTokenizer>,
    session: Session,
    backend: Backend,
}

impl TextEncoders {
    /// Loads graphs and tokenizers.
    ///
    /// # Errors
    /// When one is missing or does not load.
    pub fn load(artifacts: &Arc<Artifacts>, backend: &Backend) -> Result<TextEncoders> {
        let [bert, t5] = tokenizers(artifacts)?;
        Ok(TextEncoders {
            bert: Encoder::load(artifacts, backend, bert, "text-encoder")?,
            t5: Encoder::load(artifacts, backend, t5, "text-encoder-2")?,
            timer: backend.timer(),
        })
    }

    /// Encodes the texts of `request`; the negative one only if it counts.
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
        Ok(PromptEmbeds { bert, t5, image: None, truncated })
    }
}

/// The tokenizers of both text encoders; all who have those of one folder have the same.
///
/// # Errors
/// When one is missing, is of no use, or does not fit its text encoder.
pub fn tokenizers(artifacts: &Artifacts) -> Result<[Arc<PaddedTokenizer>; 2]> {
    // Held while they are read, so that nobody else reads them too.
    let mut shared = artifacts.tokenizers.lock().unwrap_or_else(PoisonError::into_inner);
    if let [Some(bert), Some(t5)] = shared.each_ref().map(Weak::upgrade) {
        return Ok([bert, t5]);
    }
    let read = read(artifacts)?.map(Arc::new);
    *shared = read.each_ref().map(Arc::downgrade);
    Ok(read)
}

fn read(artifacts: &Artifacts) -> Result<[PaddedTokenizer; 2]> {
    let (tokenizers, model) = (&artifacts.manifest.tokenizers, &artifacts.manifest.model);
    let load = |entry: &TokenizerEntry, rows: usize| {
        let path = artifacts.path.join(&entry.file);
        let read = file::read_text(&path, MAX_BYTES);
        let json = read.map_err(|source| Error::Read { path: path.clone(), source })?;
        let fit = Fit { length: entry.length, pad_id: entry.pad_id, rows };
        PaddedTokenizer::new(&json, fit)
            .map_err(|error| Error::Artifact { path, message: error.to_string() })
    };
    Ok([
        load(&tokenizers.text_encoder, model.text_encoder.vocab_size)?,
        load(&tokenizers.text_encoder_2, model.text_encoder_2.vocab_size)?,
    ])
}

impl Encoder {
    fn load(
        artifacts: &Artifacts,
        backend: &Backend,
        tokenizer: Arc<PaddedTokenizer>,
        graph: &str,
    ) -> Result<Encoder> {
        let session = artifacts.load_seldom(graph, backend)?;
        Ok(Encoder { tokenizer, session, backend: backend.clone() })
    }

    fn encode(&mut self, texts: &[&str]) -> Result<Encoded> {
        let Tokens { ids, mask, truncated } =
            self.tokenizer.tokenize(texts).map_err(Error::Tokenizer)?;
        let (rows, length) = (texts.len(), self.tokenizer.length());
        let ids = self.backend.tensor_i64(&[rows, length], &ids)?;
        let mask_value = self.backend.tensor_i64(&[rows, length], &mask)?;
        let inputs = [("input_ids", &ids), ("attention_mask", &mask_value)];
        let states = self.session.run_single(&inputs)?.read_f32()?.into_owned();
        let shape = [rows, length, states.len() / (rows * length)];
        Ok(Encoded { shape, states, mask, truncated })
    }
}
