//! Tokenizers as `tokenizer.json`, from any form that a checkpoint has them in: that file itself,
//! BERT's `vocab.txt`, or a SentencePiece `spiece.model`.

use std::path::{Path, PathBuf};

use base64::Engine;
use hydit_input::tokenizer::{Fit, MAX_BYTES, PaddedTokenizer, padding_id};
use hydit_input::{Charsmap, file};
use prost::Message;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::files::read_text;

/// A tokenizer in the one form that artifact folders have.
pub struct Tokenizer {
    /// The file of the checkpoint that it was read from.
    path: PathBuf,
    /// The text of `tokenizer.json`.
    pub json: String,
    /// Id of the padding token.
    pub pad_id: u32,
}

/// Reads the tokenizer in the folder `folder` of a checkpoint.
///
/// # Errors
/// The folder has none of the three files, or one that is too large, damaged or of another kind.
pub fn read(folder: &Path) -> Result<Tokenizer> {
    let names = ["tokenizer.json", "vocab.txt", "spiece.model", "tokenizer.model"];
    let Some(path) = names.map(|name| folder.join(name)).into_iter().find(|path| path.exists())
    else {
        let hint = "expected tokenizer.json, vocab.txt or spiece.model in it".to_string();
        return Err(Error::Missing { path: folder.to_path_buf(), hint });
    };
    let json = if path.extension().is_some_and(|ending| ending == "model") {
        let bytes = file::read(&path, MAX_BYTES).map_err(Error::reading(&path))?;
        return of_sentencepiece(&path, &bytes);
    } else {
        let text = file::read_text(&path, MAX_BYTES).map_err(Error::reading(&path))?;
        if path.ends_with("vocab.txt") {
            word_piece(&text, lowercases(folder)?).map_err(Error::content(&path))?.to_string()
        } else {
            text
        }
    };
    let pad_id = padding_id(&json).map_err(Error::content(&path))?;
    Ok(Tokenizer { path, json, pad_id })
}

/// The tokenizer of a SentencePiece model that was read from `path`.
///
/// # Errors
/// It is damaged or of another kind.
pub(crate) fn of_sentencepiece(path: &Path, model: &[u8]) -> Result<Tokenizer> {
    let json = unigram(model).map_err(Error::content(path))?.to_string();
    let pad_id = padding_id(&json).map_err(Error::content(path))?;
    Ok(Tokenizer { path: path.to_path_buf(), json, pad_id })
}

impl Tokenizer {
    /// Checks that a server can use it, for texts of `length` tokens and an embedding of `rows`
    /// rows.
    ///
    /// # Errors
    /// It cannot, with the file of the checkpoint.
    pub(crate) fn check(&self, length: usize, rows: usize) -> Result<()> {
        let fit = Fit { length, pad_id: self.pad_id, rows };
        PaddedTokenizer::new(&self.json, fit).map_err(Error::content(&self.path))?;
        Ok(())
    }
}

/// The value of `do_lower_case` in `tokenizer_config.json`; true by default, as in transformers.
fn lowercases(folder: &Path) -> Result<bool> {
    let path = folder.join("tokenizer_config.json");
    if !path.exists() {
        return Ok(true);
    }
    let text = read_text(&path, "it was there a moment ago")?;
    let config: Value = serde_json::from_str(&text).map_err(Error::content(path))?;
    Ok(config["do_lower_case"].as_bool().unwrap_or(true))
}

/// The JSON of a `BertTokenizer`, whose vocabulary has one entry per line; the line number is the
/// id.
fn word_piece(text: &str, lowercase: bool) -> std::result::Result<Value, String> {
    let lines = text.strip_suffix('\n').unwrap_or(text).split('\n');
    let tokens: Vec<&str> = lines.map(|line| line.strip_suffix('\r').unwrap_or(line)).collect();
    let find = |token: &'static str| {
        let id = tokens.iter().position(|t| *t == token);
        id.map(|id| (token, id)).ok_or_else(|| format!("no entry {token}"))
    };
    let [pad, unk, cls] = [find("[PAD]")?, find("[UNK]")?, find("[CLS]")?];
    let [sep, mask] = [find("[SEP]")?, find("[MASK]")?];
    let vocab: serde_json::Map<String, Value> =
        tokens.iter().enumerate().map(|(id, token)| (token.to_string(), json!(id))).collect();
    let added = [pad, unk, cls, sep, mask].map(|(token, id)| added_token(id, token));
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": lowercase
        },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": surround(Some(cls), sep),
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab
        }
    }))
}

/// The part of SentencePiece's `ModelProto` that tokenization needs.
#[derive(Message)]
struct SentencePieceModel {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<Piece>,
    #[prost(message, optional, tag = "2")]
    trainer: Option<TrainerSpec>,
    #[prost(message, optional, tag = "3")]
    normalizer: Option<NormalizerSpec>,
}

#[derive(Message)]
struct Piece {
    #[prost(string, optional, tag = "1")]
    piece: Option<String>,
    #[prost(float, optional, tag = "2")]
    score: Option<f32>,
}

#[derive(Message)]
struct TrainerSpec {
    /// 1 is unigram.
    #[prost(int32, optional, tag = "3")]
    model_type: Option<i32>,
    #[prost(bool, optional, tag = "35")]
    byte_fallback: Option<bool>,
    #[prost(int32, optional, tag = "40")]
    unk_id: Option<i32>,
}

#[derive(Message)]
struct NormalizerSpec {
    /// Empty where nothing is normalised but spaces.
    #[prost(bytes = "vec", optional, tag = "2")]
    precompiled_charsmap: Option<Vec<u8>>,
    #[prost(bool, optional, tag = "3")]
    add_dummy_prefix: Option<bool>,
    #[prost(bool, optional, tag = "4")]
    remove_extra_whitespaces: Option<bool>,
    #[prost(bool, optional, tag = "5")]
    escape_whitespaces: Option<bool>,
}

impl NormalizerSpec {
    /// Refuses what changes the pieces in another way than all T5s do.
    fn check(&self) -> std::result::Result<(), String> {
        let flags = [
            ("add_dummy_prefix", self.add_dummy_prefix),
            ("remove_extra_whitespaces", self.remove_extra_whitespaces),
            ("escape_whitespaces", self.escape_whitespaces),
        ];
        match flags.iter().find(|(_, value)| *value == Some(false)) {
            Some((flag, _)) => {
                Err(format!("{flag} is false; only true is supported, as in T5 and mT5"))
            }
            None => Ok(()),
        }
    }

    /// The normalizer, and the pre-tokenizer.
    fn json(&self) -> std::result::Result<(Value, Value), String> {
        let table = self.precompiled_charsmap.as_deref().unwrap_or_default();
        let mut normalizers = Vec::new();
        if !table.is_empty() {
            let parsed = Charsmap::parse(table)
                .map_err(|error| format!("its precompiled_charsmap cannot be used: {error}"))?;
            let table = base64::engine::general_purpose::STANDARD.encode(table);
            let table = json!({ "type": "Precompiled", "precompiled_charsmap": table });
            if parsed.replacement("\t") == Some(" ") {
                // The usual ones, which turn all spaces into U+0020 and know no `▁`.
                let split = json!([{ "type": "WhitespaceSplit" }, metaspace()]);
                return Ok((table, json!({ "type": "Sequence", "pretokenizers": split })));
            }
            normalizers.push(table);
        }
        // What SentencePiece does with U+0020, and with no other space.
        let replace = |pattern: &str, content: &str| json!({ "type": "Replace", "pattern": { "Regex": pattern }, "content": content });
        normalizers.extend([
            replace("^ +| +$", ""),
            replace(" +", "▁"),
            json!({ "type": "Prepend", "prepend": "▁" }),
        ]);
        Ok((json!({ "type": "Sequence", "normalizers": normalizers }), Value::Null))
    }
}

/// The JSON of what puts `▁` in the place of spaces and before the text.
fn metaspace() -> Value {
    json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true })
}

/// The JSON of a `T5Tokenizer`: pieces with scores, the model's own normalizer, `</s>` at the end.
fn unigram(bytes: &[u8]) -> std::result::Result<Value, String> {
    let model = SentencePieceModel::decode(bytes)
        .map_err(|error| format!("not a SentencePiece model: {error}"))?;
    let trainer = model.trainer.unwrap_or_default();
    if trainer.model_type.unwrap_or(1) != 1 {
        return Err("not a unigram model, which T5 and mT5 use".to_string());
    }
    let vocab: Vec<Value> = model
        .pieces
        .iter()
        .map(|p| json!([p.piece.as_deref().unwrap_or_default(), f64::from(p.score.unwrap_or(0.0))]))
        .collect();
    let find = |token: &str| {
        let id = model.pieces.iter().position(|p| p.piece.as_deref() == Some(token));
        id.ok_or_else(|| format!("no piece {token}"))
    };
    let special = [("<pad>", find("<pad>")?), ("</s>", find("</s>")?), ("<unk>", find("<unk>")?)];
    let normalizer = model.normalizer.unwrap_or_default();
    normalizer.check()?;
    let (normalizer, pre_tokenizer) = normalizer.json()?;
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": special.map(|(token, id)| added_token(id, token)),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": surround(None, ("</s>", special[1].1)),
        "decoder": metaspace(),
        "model": {
            "type": "Unigram", "unk_id": trainer.unk_id.unwrap_or(0), "vocab": vocab,
            "byte_fallback": trainer.byte_fallback.unwrap_or(false)
        }
    }))
}

/// The JSON of a special token.
pub(crate) fn added_token(id: usize, content: &str) -> Value {
    json!({
        "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true
    })
}

/// The JSON of a template that puts the tokens `before` and `after` around every text.
fn surround(before: Option<(&str, usize)>, after: (&str, usize)) -> Value {
    let token =
        |(token, _): (&str, usize)| json!({ "SpecialToken": { "id": token, "type_id": 0 } });
    let entry = |(token, id): (&str, usize)| {
        (token.to_string(), json!({ "id": token, "ids": [id], "tokens": [token] }))
    };
    let text = json!({ "Sequence": { "id": "A", "type_id": 0 } });
    let single: Vec<Value> = before.map(token).into_iter().chain([text, token(after)]).collect();
    let special: serde_json::Map<String, Value> =
        before.map(entry).into_iter().chain([entry(after)]).collect();
    json!({
        "type": "TemplateProcessing", "single": single,
        "pair": [
            { "Sequence": { "id": "A", "type_id": 0 } },
            { "Sequence": { "id": "B", "type_id": 1 } }
        ],
        "special_tokens": special
    })
}
