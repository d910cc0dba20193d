//! Tokenizers of `tokenizer.json` files, tried before they are used.

use tokenizers::{
    Encoding, PaddingDirection, PaddingParams, PaddingStrategy, Tokenizer, TruncationParams,
};

use crate::guard::{Panicked, guarded};
use crate::shape::Shape;

/// The largest `tokenizer.json` that is read; mT5's has 16 MiB.
pub const MAX_BYTES: u64 = 64 << 20;

/// Texts that a tokenizer must take before it is used: nothing, scripts, marks and spaces, and one
/// longer than any encoder reads.
const TRIED: [&str; 3] = ["", "A cat 一只猫  \u{1f431}\u{200d}\u{fe0f} e\u{301}\tｶﾞ\n<x>", "a 猫"];

/// The id of the padding token, `[PAD]` or `<pad>`, in the text of a `tokenizer.json`.
///
/// # Errors
/// It is of no use, or has none.
pub fn padding_id(json: &str) -> Result<u32, TokenizerError> {
    let shape = Shape::of(json).map_err(TokenizerError::Unusable)?;
    let missing = || TokenizerError::Unusable("no padding token [PAD] or <pad>".to_string());
    shape.padding().ok_or_else(missing)
}

/// What a tokenizer must fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit {
    /// Number of tokens that every text is truncated or padded to.
    pub length: usize,
    /// Id of the padding token.
    pub pad_id: u32,
    /// Number of rows of the embedding: every id is below.
    pub rows: usize,
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

/// How much of a text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Number of characters, from the first on, that the tokens up to the length come from: all of
    /// them unless the text is truncated.
    pub characters: usize,
    /// Whether the text is longer than what is read.
    pub truncated: bool,
}

/// A tokenizer that truncates or pads every text to one length.
pub struct PaddedTokenizer {
    tokenizer: Tokenizer,
    fit: Fit,
}

/// Why a tokenizer cannot be used, or a text not be tokenized.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// No tokenizer can be made of the file.
    #[error("not a usable tokenizer.json: {0}")]
    Unusable(String),
    /// A token has no row in the embedding.
    #[error(
        "the token `{token}` has the id {id}, and the embedding of the text encoder has {rows} rows \
         (vocab_size): take the tokenizer that belongs to it, or add rows to the embedding"
    )]
    Row {
        /// The token, or as much of it as is worth showing.
        token: String,
        /// Its id.
        id: u64,
        /// The rows of the embedding.
        rows: usize,
    },
    /// A text is not tokenized.
    #[error("the tokenizer gives {found} ids for a text; expected {expected}")]
    Length {
        /// The number of ids.
        found: usize,
        /// The number that it was to be truncated or padded to.
        expected: usize,
    },
    /// The `tokenizers` crate refuses a text.
    #[error("the tokenizer refuses a text: {0}")]
    Refused(String),
    /// The `tokenizers` crate panicked.
    #[error("not a usable tokenizer: {0}")]
    Panicked(#[from] Panicked),
}

impl PaddedTokenizer {
    /// Makes a tokenizer of the text of a `tokenizer.json`, and tries it.
    ///
    /// # Errors
    /// It is of no use, or does not `fit`.
    pub fn new(json: &str, fit: Fit) -> Result<PaddedTokenizer, TokenizerError> {
        let shape = Shape::of(json).map_err(TokenizerError::Unusable)?;
        let last = shape.last_token();
        fit.check(last.id, &last.content)?;
        fit.check(u64::from(fit.pad_id), "padding")?;
        let made = guarded("the tokenizers crate", || make(json, fit))?;
        let tokenizer = made.map_err(|error| TokenizerError::Unusable(first_line(&error)))?;
        let tokenizer = PaddedTokenizer { tokenizer, fit };
        let long = TRIED[2].repeat(fit.length.min(1024));
        tokenizer.tokenize(&[TRIED[0], TRIED[1], &long])?;
        Ok(tokenizer)
    }

    /// The number of ids of every text.
    pub fn length(&self) -> usize {
        self.fit.length
    }

    /// Ids and mask of `texts`.
    ///
    /// # Errors
    /// The tokenizer does not take one of them.
    pub fn tokenize(&self, texts: &[&str]) -> Result<Tokens, TokenizerError> {
        let mut tokens = Tokens { ids: Vec::new(), mask: Vec::new(), truncated: Vec::new() };
        for text in texts {
            let encoding = self.encode(text)?;
            let (ids, mask) = (encoding.get_ids(), encoding.get_attention_mask());
            let Fit { length: expected, .. } = self.fit;
            if ids.len() != expected || mask.len() != expected {
                return Err(TokenizerError::Length { found: ids.len(), expected });
            }
            for (&id, token) in ids.iter().zip(encoding.get_tokens()) {
                self.fit.check(u64::from(id), token)?;
            }
            tokens.truncated.push(!encoding.get_overflowing().is_empty());
            tokens.ids.extend(ids.iter().map(|&id| i64::from(id)));
            tokens.mask.extend(mask.iter().map(|&m| i64::from(m)));
        }
        Ok(tokens)
    }

    /// How much of `text` is read.
    ///
    /// # Errors
    /// The tokenizer does not take it.
    pub fn reading(&self, text: &str) -> Result<Reading, TokenizerError> {
        let encoding = self.encode(text)?;
        let truncated = !encoding.get_overflowing().is_empty();
        let last = encoding.get_offsets().iter().map(|&(_, end)| end).max().unwrap_or(0);
        let characters = if truncated { last } else { text.chars().count() };
        Ok(Reading { characters, truncated })
    }

    /// The tokens of `text`, each with the characters that it comes from.
    fn encode(&self, text: &str) -> Result<Encoding, TokenizerError> {
        let encode = || self.tokenizer.encode_char_offsets(text, true);
        let encoded = guarded("the tokenizers crate", encode)?;
        encoded.map_err(|error| TokenizerError::Refused(first_line(&error)))
    }
}

fn make(json: &str, fit: Fit) -> tokenizers::Result<Tokenizer> {
    let mut tokenizer = Tokenizer::from_bytes(json.as_bytes())?;
    let truncation = TruncationParams { max_length: fit.length, ..Default::default() };
    tokenizer.with_truncation(Some(truncation))?;
    tokenizer.with_padding(Some(PaddingParams {
        strategy: PaddingStrategy::Fixed(fit.length),
        direction: PaddingDirection::Right,
        pad_id: fit.pad_id,
        ..Default::default()
    }));
    Ok(tokenizer)
}

impl Fit {
    fn check(&self, id: u64, token: &str) -> Result<(), TokenizerError> {
        if id < self.rows as u64 {
            return Ok(());
        }
        let token = token.chars().take(40).collect();
        Err(TokenizerError::Row { token, id, rows: self.rows })
    }
}

fn first_line(error: &tokenizers::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_string()
}
