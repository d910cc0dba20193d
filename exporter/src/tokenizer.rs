//! Tokenizers as `tokenizer.json`, whatever form the checkpoint has them in: that file itself,
//! BERT's `vocab.txt`, or a SentencePiece `spiece.model`.

use std::path::Path;

use base64::Engine;
use prost::Message;
use serde_json::{Value, json};

use crate::checkpoint::read_text;
use crate::error::{Error, Result, io};

/// Largest vocabulary file; mT5's `tokenizer.json` has 16 MiB.
const MAX_BYTES: u64 = 64 << 20;

/// A tokenizer as the artifacts carry it.
pub struct Tokenizer {
    /// The text of `tokenizer.json`.
    pub json: String,
    /// Id of the padding token.
    pub pad_id: u32,
}

/// Reads the tokenizer in `folder`.
pub fn read(folder: &Path) -> Result<Tokenizer> {
    let file = |name: &str| Some(folder.join(name)).filter(|path| path.is_file());
    let json = if let Some(path) = file("tokenizer.json") {
        check_size(&path)?;
        std::fs::read_to_string(&path).map_err(io(&path))?
    } else if let Some(path) = file("vocab.txt") {
        check_size(&path)?;
        let text = std::fs::read_to_string(&path).map_err(io(&path))?;
        let lowercase = lowercases(folder)?;
        word_piece(&text, lowercase).map_err(|message| Error::File { path, message })?.to_string()
    } else if let Some(path) = file("spiece.model") {
        check_size(&path)?;
        let bytes = std::fs::read(&path).map_err(io(&path))?;
        unigram(&bytes).map_err(|message| Error::File { path, message })?.to_string()
    } else {
        let mend = "expected tokenizer.json, vocab.txt or spiece.model in it".to_string();
        return Err(Error::Missing { path: folder.to_path_buf(), mend });
    };
    let bad = |message: String| Error::File { path: folder.to_path_buf(), message };
    let parsed: Value = serde_json::from_str(&json)
        .map_err(|error| bad(format!("tokenizer.json is not JSON: {error}")))?;
    let pad_id = ["[PAD]", "<pad>"].iter().find_map(|pad| id_of(&parsed, pad));
    let pad_id = pad_id.ok_or_else(|| bad("no padding token [PAD] or <pad>".to_string()))?;
    Ok(Tokenizer { json, pad_id })
}

fn check_size(path: &Path) -> Result<()> {
    match std::fs::metadata(path).map_err(io(path))?.len() {
        size if size > MAX_BYTES => {
            let message = format!("{size} bytes; expected at most {MAX_BYTES}");
            Err(Error::File { path: path.to_path_buf(), message })
        }
        _ => Ok(()),
    }
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

/// `do_lower_case` of `tokenizer_config.json`; true where it is silent, as in transformers.
fn lowercases(folder: &Path) -> Result<bool> {
    let path = folder.join("tokenizer_config.json");
    if !path.exists() {
        return Ok(true);
    }
    let config: Value = serde_json::from_str(&read_text(&path, "")?)
        .map_err(|error| Error::File { path, message: error.to_string() })?;
    Ok(config["do_lower_case"].as_bool().unwrap_or(true))
}

/// `BertTokenizer`: one entry a line, the line number is the id.
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

/// The part of SentencePiece's `ModelProto` that tokenizing needs.
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

/// `T5Tokenizer`: pieces with scores, the model's own normaliser, `</s>` at the end.
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

fn added_token(id: usize, content: &str) -> Value {
    json!({
        "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true
    })
}

/// A template that puts `before` and `after` around every text.
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
        "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 1 } }],
        "special_tokens": special
    })
}
