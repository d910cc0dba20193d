//! Tokenizers as `tokenizer.json`, from any form that a checkpoint has them in: that file itself,
//! BERT's `vocab.txt`, or a SentencePiece `spiece.model`.

use std::path::Path;

use base64::Engine;
use hydit_input::file;
use prost::Message;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::files::read_text;

/// The largest vocabulary file that is read; mT5's `tokenizer.json` has 16 MiB.
const MAX_BYTES: u64 = 64 << 20;

/// A tokenizer in the one form that artifact folders have.
pub struct Tokenizer {
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
    let names = ["tokenizer.json", "vocab.txt", "spiece.model"];
    let Some(path) = names.map(|name| folder.join(name)).into_iter().find(|path| path.exists())
    else {
        let hint = "expected tokenizer.json, vocab.txt or spiece.model in it".to_string();
        return Err(Error::Missing { path: folder.to_path_buf(), hint });
    };
    let bytes = file::read(&path, MAX_BYTES).map_err(Error::reading(&path))?;
    let json = if path.ends_with("spiece.model") {
        unigram(&bytes).map_err(Error::content(&path))?.to_string()
    } else {
        let text = String::from_utf8(bytes).map_err(Error::content(&path))?;
        if path.ends_with("vocab.txt") {
            word_piece(&text, lowercases(folder)?).map_err(Error::content(&path))?.to_string()
        } else {
            text
        }
    };
    let parsed: Value = serde_json::from_str(&json)
        .map_err(|error| Error::content(&path)(format!("not JSON: {error}")))?;
    let pad_id = ["[PAD]", "<pad>"].iter().find_map(|pad| id_of(&parsed, pad));
    let pad_id = pad_id.ok_or_else(|| Error::content(&path)("no padding token [PAD] or <pad>"))?;
    Ok(Tokenizer { json, pad_id })
}

/// The id of `token` in the added tokens or the vocabulary.
fn id_of(tokenizer: &Value, token: &str) -> Option<u32> {
    let added = tokenizer["added_tokens"].as_array()?;
    let added = added.iter().find(|entry| entry["content"] == token).map(|entry| &entry["id"]);
    let vocab = &tokenizer["model"]["vocab"];
    let listed =
        || vocab.as_array()?.iter().position(|entry| entry[0] == token).map(|id| id as u64);
    let id = added.or(vocab.get(token)).and_then(Value::as_u64).or_else(listed)?;
    u32::try_from(id).ok()
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
    #[prost(bytes = "vec", optional, tag = "2")]
    precompiled_charsmap: Option<Vec<u8>>,
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
    let charsmap = model.normalizer.and_then(|n| n.precompiled_charsmap).unwrap_or_default();
    let charsmap = base64::engine::general_purpose::STANDARD.encode(charsmap);
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": special.map(|(token, id)| added_token(id, token)),
        "normalizer": { "type": "Precompiled", "precompiled_charsmap": charsmap },
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
            { "type": "WhitespaceSplit" },
            { "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true }
        ]},
        "post_processor": surround(None, ("</s>", special[1].1)),
        "decoder": {
            "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true
        },
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
