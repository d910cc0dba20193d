//! Tokenizers that know ASCII, for models that know nothing.

use serde_json::{Value, json};

/// `vocab.txt` of BERT with at most `size` entries: letters and digits, alone and continued.
pub fn vocab(size: usize) -> String {
    let characters = || (b'!'..=b'~').map(char::from).filter(|c| !c.is_ascii_uppercase());
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_string);
    let whole = characters().map(|c| c.to_string());
    let continued = characters().filter(char::is_ascii_alphanumeric).map(|c| format!("##{c}"));
    let lines: Vec<String> = special.into_iter().chain(whole).chain(continued).take(size).collect();
    lines.join("\n") + "\n"
}

/// `tokenizer.json` of T5 with at most `size` entries: a piece for each character, all equally likely.
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
    let added = |(id, content): (usize, &str)| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true
        })
    };
    let added_tokens = [(0, "<pad>"), (1, "</s>"), (2, "<unk>")].map(added);
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
