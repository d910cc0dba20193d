//! Tokenizers that are no tokenizers, or lie about themselves, are refused by name.

use std::fs;
use std::path::Path;

use hydit_testing::hostile::not_the_file;
use hydit_testing::protobuf::{self, Value as Field};
use serde_json::{Value, json};

use super::{TOKENIZER, refused, with_bytes};
use crate::checkpoint::Place;

#[test]
fn forged_tokenizers_are_refused_by_what_is_wrong() {
    let place = Place::new();
    let text = fs::read_to_string(place.file(TOKENIZER)).expect("a tokenizer");
    let good: Value = serde_json::from_str(&text).expect("JSON");
    let table = |bytes: &[u8]| {
        use base64::Engine;
        let table = base64::engine::general_purpose::STANDARD.encode(bytes);
        json!({ "type": "Precompiled", "precompiled_charsmap": table })
    };
    let replace = |pattern: Value, content: String| json!({ "type": "Replace", "pattern": pattern, "content": content });
    let template = |single: Value, special: Value| {
        json!({
            "type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": special
        })
    };
    let text_piece = json!({ "Sequence": { "id": "A", "type_id": 0 } });
    let end = json!({ "SpecialToken": { "id": "e", "type_id": 0 } });
    let grow = replace(json!({ "String": "a" }), "a".repeat(10));
    let cases: Vec<(&str, &str, Value, &str)> = vec![
        ("no model", "/model", json!({}), "missing field `vocab`"),
        ("a model of numbers", "/model", json!([1, 2]), "not a usable tokenizer.json"),
        ("an empty vocabulary", "/model/vocab", json!([]), "not a usable tokenizer.json"),
        ("a vocabulary of numbers", "/model/vocab", json!([1, 2]), "not a usable tokenizer.json"),
        ("an unknown id of its own", "/model/unk_id", json!(1u64 << 40), "UnkIdNotInVocabulary"),
        ("a negative unknown id", "/model/unk_id", json!(-1), "not a usable tokenizer.json"),
        ("another model", "/model/type", json!("Sparkle"), "not a usable tokenizer.json"),
        ("an empty table", "/normalizer", table(b""), "precompiled_charsmap"),
        ("a short table", "/normalizer", table(&[9, 9, 0, 0, 1]), "precompiled_charsmap"),
        ("a table of 4 GiB", "/normalizer", table(&[0xFF; 9]), "precompiled_charsmap"),
        (
            "a table that leads out",
            "/normalizer",
            table(&[4, 0, 0, 0, 0, 0xFF, 0xFF, 0x7F, 0]),
            "leads out of itself",
        ),
        (
            "no base64",
            "/normalizer",
            json!({ "type": "Precompiled", "precompiled_charsmap": "*" }),
            "precompiled_charsmap",
        ),
        (
            "a text that grows",
            "/normalizer",
            json!({ "type": "Sequence", "normalizers": vec![grow.clone(); 9] }),
            "256 times longer",
        ),
        (
            "a text that grows between its letters",
            "/normalizer",
            replace(json!({ "Regex": "" }), "a".repeat(999)),
            "256 times longer",
        ),
        (
            "many normalizers",
            "/normalizer",
            json!({ "type": "Sequence", "normalizers": vec![json!({ "type": "NFC" }); 99] }),
            "over 16 normalizers",
        ),
        (
            "nothing replaced",
            "/normalizer",
            replace(json!({ "String": "" }), "a".into()),
            "replaces an empty text",
        ),
        (
            "a long beginning",
            "/normalizer",
            json!({ "type": "Prepend", "prepend": "a".repeat(1 << 20) }),
            "before a text",
        ),
        (
            "a pattern that is none",
            "/normalizer",
            replace(json!({ "Regex": "(((" }), "a".into()),
            "not a usable tokenizer.json",
        ),
        (
            "a template of many texts",
            "/post_processor",
            template(json!(vec![text_piece.clone(); 99]), json!({})),
            "99 texts",
        ),
        ("a template without a text", "/post_processor", template(json!([]), json!({})), "0 texts"),
        (
            "a template with an unknown token",
            "/post_processor",
            template(json!([text_piece, end]), json!({})),
            "adds `e`",
        ),
        (
            "a token of more ids than names",
            "/post_processor",
            template(
                json!([text_piece, end]),
                json!({ "e": { "id": "e", "ids": [1, 1, 1], "tokens": ["e"] } }),
            ),
            "adds `e`",
        ),
        (
            "a token of many ids",
            "/post_processor",
            template(
                json!([text_piece, end]),
                json!({ "e": { "id": "e", "ids": vec![1; 999], "tokens": vec!["e"; 999] } }),
            ),
            "adds `e`",
        ),
        (
            "an id beyond the embedding in the template",
            "/post_processor",
            template(
                json!([text_piece, end]),
                json!({ "e": { "id": "e", "ids": [99999], "tokens": ["e"] } }),
            ),
            "has the id 99999",
        ),
        (
            "pieces of no length",
            "/pre_tokenizer",
            json!({ "type": "FixedLength", "length": 0 }),
            "not a usable tokenizer",
        ),
        ("added tokens of another kind", "/added_tokens", json!({ "a": 1 }), "not a usable"),
        (
            "an added token beyond the embedding",
            "/added_tokens/1/id",
            json!(1u64 << 40),
            "has the id 1099511627776",
        ),
        (
            "an added token of 1 MiB",
            "/added_tokens/0/content",
            json!("a".repeat(1 << 20)),
            "a piece of 1048576 bytes",
        ),
        (
            "a piece of 150,000 letters",
            "/model/vocab/3/0",
            json!("a".repeat(150_000)),
            "a piece of 150000 bytes",
        ),
    ];
    for (case, pointer, value, part) in cases {
        let mut forged = good.clone();
        match forged.pointer_mut(pointer) {
            Some(place) => *place = value,
            None => forged[&pointer[1..]] = value,
        }
        with_bytes(&place, case, TOKENIZER, forged.to_string().as_bytes(), &[part]);
    }
}

#[test]
fn a_token_more_than_the_embedding_has_rows_is_refused() {
    let place = Place::new();
    let rows = crate::checkpoint::config().text_encoder_2.vocab_size;
    place.edit_json(TOKENIZER, |json| {
        let token = json!({
            "id": rows, "content": "<extra>", "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true
        });
        json["added_tokens"].as_array_mut().expect("a list").push(token);
        json["model"]["vocab"].as_array_mut().expect("a list").push(json!(["<extra>", -1.0]));
    });
    let parts = [&format!("`<extra>` has the id {rows}"), "(vocab_size)"];
    refused(&place, "a token more", TOKENIZER, &parts);

    let place = Place::new();
    let rows = crate::checkpoint::config().text_encoder.vocab_size;
    place.edit_bytes("tokenizer/vocab.txt", |text| {
        let more = (0..=rows).map(|i| format!("more{i}\n"));
        text.extend(more.collect::<String>().into_bytes());
    });
    refused(&place, "tokens more", "tokenizer/vocab.txt", &[&format!("{rows} rows (vocab_size)")]);
}

#[test]
fn forged_sentencepiece_models_are_refused_by_name() {
    const SPIECE: &str = "tokenizer_2/spiece.model";
    let place = Place::new();
    fs::remove_file(place.file(TOKENIZER)).expect("removed");
    let emoji = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/emoji/tokenizer_2");
    let all = fs::read(emoji.join("spiece.model")).expect("a model");
    // As many pieces as fit the embedding of the small model.
    let mut pieces = 0;
    let mut fields = protobuf::read(&all);
    fields.retain(|(number, _)| {
        pieces += usize::from(*number == 1);
        *number != 1 || pieces <= 100
    });
    let good = protobuf::write(&fields);
    let mut cases = not_the_file(&good);
    let set = |message: u32, number: u32, value: Field| {
        protobuf::edit(&good, message, |fields| {
            fields.retain(|(other, _)| *other != number);
            fields.push((number, value.clone()));
        })
    };
    let table = |bytes: &[u8]| set(3, 2, Field::Bytes(bytes.to_vec()));
    let nan = f32::NAN.to_le_bytes();
    cases.extend([
        ("byte pairs", set(2, 3, Field::Number(2))),
        ("an unknown id beyond", set(2, 40, Field::Number(1 << 30))),
        ("a negative unknown id", set(2, 40, Field::Number(u64::MAX))),
        ("no prefix", set(3, 3, Field::Number(0))),
        ("all spaces", set(3, 4, Field::Number(0))),
        ("plain spaces", set(3, 5, Field::Number(0))),
        ("a short table", table(&[1, 2, 3])),
        ("a table of 4 GiB", table(&[0xFF; 64])),
        ("a table that leads out", table(&[4, 0, 0, 0, 0, 0xFF, 0xFF, 0x7F, 0])),
        ("scores that are no numbers", set(1, 2, Field::Fixed32(nan))),
        ("one piece everywhere", set(1, 1, Field::Bytes(b"<pad>".to_vec()))),
        ("pieces that are no text", set(1, 1, Field::Bytes(vec![0xFF; 3]))),
        ("more pieces than rows", all),
    ]);
    fields[4].1 = Field::Bytes(protobuf::write(&[(1, Field::Bytes(vec![b'a'; 150_000]))]));
    cases.push(("a piece of 150,000 letters", protobuf::write(&fields)));
    for (case, bytes) in cases {
        with_bytes(&place, case, SPIECE, &bytes, &[]);
    }
    fs::write(place.file(SPIECE), good).expect("written");
    place.export().expect("the model itself is good");
}
