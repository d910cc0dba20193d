//! A tokenizer is the same in whatever form a checkpoint has it: `tokenizer.json`, BERT's
//! `vocab.txt`, or a SentencePiece model.

use std::fs;
use std::path::Path;

use hydit::pipeline::text::PaddedTokenizer;
use hydit_export::tokenizer;
use hydit_graphs::manifest::TokenizerEntry;
use serde_json::Value;

/// The tokenizer that the exporter makes of these files of `folder` of the emoji checkpoint.
fn exported(folder: &str, files: &[&str], length: usize) -> PaddedTokenizer {
    let emoji = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/emoji").join(folder);
    let (from, to) =
        (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    for file in files {
        fs::copy(emoji.join(file), from.path().join(file)).expect("a copy");
    }
    let read = tokenizer::read(from.path()).unwrap_or_else(|error| panic!("{error}"));
    fs::write(to.path().join("tokenizer.json"), read.json).expect("written");
    let entry = TokenizerEntry { file: "tokenizer.json".into(), length, pad_id: read.pad_id };
    PaddedTokenizer::load(to.path(), &entry).unwrap_or_else(|error| panic!("{error}"))
}

/// Tokenizes the texts of a golden (`but` some); the ids under `key` and the padding after them
/// must come out.
fn check(tokenizer: &PaddedTokenizer, golden: &str, key: &str, length: usize, but: &[&str]) {
    let golden: Value = serde_json::from_str(golden).expect("JSON");
    let texts = golden["texts"].as_array().expect("texts");
    assert!(texts.len() > 40);
    assert!(but.iter().all(|text| texts.iter().any(|entry| entry["text"] == *text)));
    for entry in texts {
        let text = entry["text"].as_str().expect("a text");
        if but.contains(&text) {
            continue;
        }
        let tokens = tokenizer.tokenize(&[text]).expect("tokens");
        let ids = entry[key].as_array().expect("ids").iter().map(|id| id.as_i64().expect("an id"));
        let mut ids: Vec<i64> = ids.collect();
        let mut mask = vec![1; ids.len()];
        ids.resize(length, 0);
        mask.resize(length, 0);
        assert_eq!(tokens.ids, ids, "{text:?}");
        assert_eq!(tokens.mask, mask, "{text:?}");
    }
}

const PIPELINE: &str = include_str!("../reference/tokenizers.json");
const SENTENCEPIECE: &str = include_str!("../reference/sentencepiece.json");

#[test]
fn the_tokenizer_json_of_bert_is_the_pipelines() {
    check(&exported("tokenizer", &["tokenizer.json"], 77), PIPELINE, "bert", 77, &[]);
}

#[test]
fn the_vocab_txt_of_bert_is_the_pipelines() {
    let files = ["vocab.txt", "tokenizer_config.json"];
    check(&exported("tokenizer", &files, 77), PIPELINE, "bert", 77, &[]);
    check(&exported("tokenizer", &files[..1], 77), PIPELINE, "bert", 77, &[]);
}

#[test]
fn the_tokenizer_json_of_t5_is_the_pipelines() {
    check(&exported("tokenizer_2", &["tokenizer.json"], 256), PIPELINE, "t5", 256, &[]);
}

#[test]
fn the_spiece_model_of_t5_is_sentencepieces() {
    // The normaliser of the `tokenizers` library looks up no grapheme of 6 bytes or more as a
    // whole, so half-width katakana keep their voicing marks apart; a tokenizer.json by
    // transformers does the same.
    let half_width = "ｶﾞｷﾞ ㌔ ① Ⅳ ﬁ ½";
    let tokenizer = exported("tokenizer_2", &["spiece.model"], 256);
    check(&tokenizer, SENTENCEPIECE, "ids", 256, &[half_width]);
}
