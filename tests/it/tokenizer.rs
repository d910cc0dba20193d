//! A tokenizer is the same in whatever form a checkpoint has it: `tokenizer.json`, BERT's
//! `vocab.txt`, or a SentencePiece model.

use std::fs;
use std::path::Path;

use hydit_export::tokenizer;
use hydit_input::tokenizer::{Fit, PaddedTokenizer, Reading, TokenizerError};
use hydit_testing::protobuf;
use serde_json::Value;

/// The tokenizer that the exporter makes of these files of `folder` of the emoji checkpoint.
fn exported(folder: &str, files: &[&str], length: usize) -> PaddedTokenizer {
    let emoji = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/emoji").join(folder);
    let from = tempfile::tempdir().expect("a folder");
    for file in files {
        fs::copy(emoji.join(file), from.path().join(file)).expect("a copy");
    }
    read(from.path(), length)
}

/// The tokenizer that the exporter makes of the files in `folder`.
fn read(folder: &Path, length: usize) -> PaddedTokenizer {
    let read = tokenizer::read(folder).unwrap_or_else(|error| panic!("{error}"));
    let fit = Fit { length, pad_id: read.pad_id, rows: 300_000 };
    PaddedTokenizer::new(&read.json, fit).unwrap_or_else(|error| panic!("{error}"))
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
const IDENTITY: &str = include_str!("../reference/sentencepiece-identity.json");

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

/// The emoji checkpoint's spiece.model with a change of its `normalizer_spec`.
fn with_normalizer(change: impl Fn(&mut Vec<protobuf::Field>)) -> tempfile::TempDir {
    let emoji = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/emoji/tokenizer_2");
    let model = fs::read(emoji.join("spiece.model")).expect("a model");
    let model = protobuf::edit(&model, 3, change);
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("spiece.model"), model).expect("written");
    folder
}

#[test]
fn a_spiece_model_without_a_normaliser_is_sentencepieces() {
    let folder = with_normalizer(|fields| fields.retain(|(number, _)| *number != 2));
    check(&read(folder.path(), 256), IDENTITY, "ids", 256, &[]);
    // Empty is the same as none.
    let folder = with_normalizer(|fields| {
        let table = fields.iter_mut().find(|(number, _)| *number == 2).expect("a table");
        table.1 = protobuf::Value::Bytes(Vec::new());
    });
    check(&read(folder.path(), 256), IDENTITY, "ids", 256, &[]);
}

#[test]
fn normalisers_that_no_t5_has_are_refused_by_name() {
    for (number, name) in
        [(3, "add_dummy_prefix"), (4, "remove_extra_whitespaces"), (5, "escape_whitespaces")]
    {
        let folder = with_normalizer(|fields| {
            fields.retain(|(other, _)| *other != number);
            fields.push((number, protobuf::Value::Number(0)));
        });
        let Err(error) = tokenizer::read(folder.path()) else { panic!("{name} is taken") };
        let cause = std::error::Error::source(&error).expect("a cause").to_string();
        assert!(cause.starts_with(&format!("{name} is false")), "{cause}");
    }
}

#[test]
fn how_much_of_a_text_is_read_is_told_in_characters() {
    for (folder, length) in [("tokenizer", 77), ("tokenizer_2", 256)] {
        let tokenizer = exported(folder, &["tokenizer.json"], length);
        for part in ["a red apple, ", "一只戴着红围巾的猫，", "🐱 cafe\u{301} ｶﾞ\n"]
        {
            let text = part.repeat(300);
            let Reading { characters, truncated } = tokenizer.reading(&text).expect("a reading");
            assert!(truncated && characters < text.chars().count());
            let begun: String = text.chars().take(characters).collect();
            let ids = |text: &str| tokenizer.tokenize(&[text]).expect("tokens").ids;
            assert_eq!(ids(&begun), ids(&text), "{part:?}");
            let alone = Reading { characters, truncated: false };
            assert_eq!(tokenizer.reading(&begun).expect("a reading"), alone, "{part:?}");
        }
        // What becomes no token counts too where nothing is cut.
        assert_eq!(tokenizer.reading("cat  ").expect("a reading").characters, 5);
    }
}

#[test]
fn a_token_beyond_the_embedding_is_refused_by_name() {
    let emoji = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/emoji/tokenizer");
    let read = tokenizer::read(&emoji).expect("a tokenizer");
    let fit = |rows| Fit { length: 77, pad_id: read.pad_id, rows };
    let rows = 2200;
    PaddedTokenizer::new(&read.json, fit(rows)).map(drop).unwrap_or_else(|error| panic!("{error}"));
    let error = PaddedTokenizer::new(&read.json, fit(rows - 1)).err().expect("a refusal");
    assert!(matches!(error, TokenizerError::Row { id: 2199, rows: 2199, .. }), "{error}");
}
