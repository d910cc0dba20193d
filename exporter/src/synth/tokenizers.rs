//! Tokenizers for made-up models: they know ASCII only.

use serde_json::{Value, json};

use crate::tokenizer::added_token;

/// The text of BERT's `vocab.txt` with at most `size` entries: ASCII characters as whole words, and
/// letters and digits as continuations.
pub fn vocab(size: usize) -> String {
    let characters = || (b'!'..=b'~').map(char::from).filter(|c| !c.is_ascii_uppercase());
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_string);
    let whole = characters().map(|c| c.to_string());
    let continued = characters().filter(char::is_ascii_alphanumeric).map(|c| format!("##{c}"));
    let lines: Vec<String> = special.into_iter().chain(whole).chain(continued).take(size).collect();
    lines.join("\n") + "\n"
}

/// T5's `tokenizer.json` with at most `size` entries: a piece for each ASCII character, all equally
/// likely.
pub fn unigram(size: usize) -> Value {
    let special = ["<pad>", "</s>", "<unk>", "▁"].map(str::to_string);
    let characters = (b'!'..=b'~').map(|byte| char::from(byte).to_string());
    let vocab: Vec<Value> = special
        .into_iter()
        .chain(characters)
        .take(size)
        .map(|piece| json!([piece, -5.0]))
        .collect();
    let metaspace = json!({
        "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true
    });
    let added_tokens =
        [(0, "<pad>"), (1, "</s>"), (2, "<unk>")].map(|(id, token)| added_token(id, token));
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens,
        "normalizer": null,
        "pre_tokenizer": {
            "type": "Sequence", "pretokenizers": [{ "type": "WhitespaceSplit" }, metaspace]
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                { "Sequence": { "id": "A", "type_id": 0 } },
                { "SpecialToken": { "id": "</s>", "type_id": 0 } }
            ],
            "pair": [
                { "Sequence": { "id": "A", "type_id": 0 } },
                { "Sequence": { "id": "B", "type_id": 1 } }
            ],
            "special_tokens": { "</s>": { "id": "</s>", "ids": [1], "tokens": ["</s>"] } }
        },
        "decoder": metaspace,
        "model": { "type": "Unigram", "unk_id": 2, "vocab": vocab, "byte_fallback": false }
    })
}
