//! Prompts -> text states: two tokenizers, two encoders. Follows `HunyuanDiTPipeline.encode_prompt`
//! of diffusers.

use std::sync::{Arc, PoisonError, Weak};

use hydit_graphs::Manifest;
use hydit_graphs::manifest::TokenizerEntry;
use hydit_input::file;
use hydit_input::tokenizer::{Fit, MAX_BYTES, PaddedTokenizer, Tokens};

use super::image_prompt::ImageEmbeds;
use crate::artifacts::Artifacts;
use crate::class_label::{Classes, Labels};
use crate::error::{Error, Result};
use crate::request::Request;
use crate::runtime::{Backend, Session};
use crate::timing::{Stage, Timer};

/// What reads prompts.
pub struct TextEncoders {
    reader: Reader,
    timer: Timer,
}

enum Reader {
    /// The two text encoders with their tokenizers.
    Texts(Box<[Encoder; 2]>),
    /// Of a model that reads no texts.
    Classes(Arc<Classes>),
}

/// The prompts of a request as the model reads them: the negative prompt's row first, with
/// guidance, then the prompt's.
pub struct PromptEmbeds {
    pub(crate) read: Read,
    /// The image prompt, if there is one.
    pub(crate) image: Option<ImageEmbeds>,
    /// The prompts that were longer than an encoder reads: `negative_prompt`, `prompt`.
    pub(crate) truncated: Vec<&'static str>,
}

/// What a model reads for prompts.
pub(crate) enum Read {
    /// Texts, as both encoders read them.
    Texts { bert: Encoded, t5: Encoded },
    /// Classes.
    Labels(Labels),
}

impl PromptEmbeds {
    /// The number of rows of a picture.
    pub(crate) fn rows(&self) -> usize {
        match &self.read {
            Read::Texts { bert, .. } => bert.shape[0],
            Read::Labels(labels) => labels.negative.iter().count() + 1,
        }
    }

    /// How many prompts the pictures take in turn.
    pub(crate) fn positive(&self) -> usize {
        match &self.read {
            Read::Texts { .. } => 1,
            Read::Labels(labels) => labels.positive.len(),
        }
    }
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
        let timer = backend.timer();
        if let Some(classes) = artifacts.classes.clone() {
            return Ok(TextEncoders { reader: Reader::Classes(classes), timer });
        }
        let [bert, t5] = tokenizers(artifacts)?;
        let reader = Reader::Texts(Box::new([
            Encoder::load(artifacts, backend, bert, "text-encoder")?,
            Encoder::load(artifacts, backend, t5, "text-encoder-2")?,
        ]));
        Ok(TextEncoders { reader, timer })
    }

    /// Encodes the texts of `request`; the negative one only if it counts.
    ///
    /// # Errors
    /// [`Error::Tokenizer`], or what the backend says.
    pub fn encode(&mut self, request: &Request) -> Result<PromptEmbeds> {
        let _timed = self.timer.start(Stage::TextEncoders);
        let [bert, t5] = match &mut self.reader {
            Reader::Texts(both) => &mut **both,
            Reader::Classes(classes) => {
                let read = Read::Labels(classes.labels(request)?);
                return Ok(PromptEmbeds { read, image: None, truncated: Vec::new() });
            }
        };
        let both = [
            ("negative_prompt", request.negative_prompt.as_str()),
            ("prompt", request.prompt.as_str()),
        ];
        let read = if request.guided() { &both[..] } else { &both[1..] };
        let texts: Vec<&str> = read.iter().map(|(_, text)| *text).collect();
        let (bert, t5) = (bert.encode(&texts)?, t5.encode(&texts)?);
        let truncated = bert.truncated.iter().zip(&t5.truncated).map(|(bert, t5)| *bert || *t5);
        let fields = read.iter().zip(truncated);
        let truncated = fields.filter(|(_, truncated)| *truncated).map(|((field, _), _)| *field);
        let truncated = truncated.collect();
        let read = Read::Texts { bert, t5 };
        Ok(PromptEmbeds { read, image: None, truncated })
    }
}

/// The tokenizers of both text encoders; all who have those of one folder have the same.
///
/// # Errors
/// When one is missing, is of no use, or does not fit its text encoder, or the model reads no texts.
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
    let Manifest { tokenizers, model, .. } = &artifacts.manifest;
    let (Some(tokenizers), Some((_, bert, t5))) = (tokenizers, model.hunyuan_dit()) else {
        let message = "its model draws classes: it has no tokenizers".to_string();
        return Err(Error::Artifact { path: artifacts.path.clone(), message });
    };
    let load = |entry: &TokenizerEntry, rows: usize| {
        let path = artifacts.path.join(&entry.file);
        let read = file::read_text(&path, MAX_BYTES);
        let json = read.map_err(|source| Error::Read { path: path.clone(), source })?;
        let fit = Fit { length: entry.length, pad_id: entry.pad_id, rows };
        PaddedTokenizer::new(&json, fit)
            .map_err(|error| Error::Artifact { path, message: error.to_string() })
    };
    Ok([
        load(&tokenizers.text_encoder, bert.vocab_size)?,
        load(&tokenizers.text_encoder_2, t5.vocab_size)?,
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
