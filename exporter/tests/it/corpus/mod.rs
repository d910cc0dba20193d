//! Hundreds of hostile files in the places of good ones. Each must be refused in one line that names
//! it, without a panic, without waiting, and leave nothing.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use hydit_testing::hostile::{check_message, not_a_count, not_the_file};
use hydit_testing::protobuf::{self, Value as Field};
use rustix::fs::{CWD, Mode, mkfifoat};
use serde_json::{Value, json};

use crate::checkpoint::{Place, message};

const DIT: &str = "transformer/config.json";
const BERT: &str = "text_encoder/config.json";
const T5: &str = "text_encoder_2/config.json";
const VAE: &str = "vae/config.json";
const SCHEDULER: &str = "scheduler/scheduler_config.json";
const TOKENIZER: &str = "tokenizer_2/tokenizer.json";

/// Runs an export of `place` in which `file` was made hostile; it must be refused with its name.
#[track_caller]
fn refused(place: &Place, case: &str, file: &str, parts: &[&str]) {
    let error = match place.export() {
        Ok(_) => panic!("{file}, {case}: exported"),
        Err(error) => message(&error),
    };
    check_message(&format!("{file}, {case}"), &error, &[&[file], parts].concat());
    assert!(!place.out().exists(), "{file}, {case}: something stays");
}

/// Puts `bytes` in the place of `file` for one export.
#[track_caller]
fn with_bytes(place: &Place, case: &str, file: &str, bytes: &[u8], parts: &[&str]) {
    let path = place.file(file);
    let good = fs::read(&path).ok();
    fs::write(&path, bytes).expect("written");
    refused(place, case, file, parts);
    match good {
        Some(good) => fs::write(&path, good).expect("written"),
        None => fs::remove_file(&path).expect("removed"),
    }
}

#[test]
fn no_count_of_a_config_is_taken_on_trust() {
    let place = Place::new();
    let fields: [(&str, &[&str]); 5] = [
        (
            DIT,
            &[
                "num_layers",
                "hidden_size",
                "num_attention_heads",
                "attention_head_dim",
                "patch_size",
                "in_channels",
                "sample_size",
                "text_len",
                "text_len_t5",
                "cross_attention_dim",
                "cross_attention_dim_t5",
                "pooled_projection_dim",
            ],
        ),
        (
            BERT,
            &[
                "vocab_size",
                "hidden_size",
                "num_hidden_layers",
                "num_attention_heads",
                "intermediate_size",
                "max_position_embeddings",
                "type_vocab_size",
            ],
        ),
        (
            T5,
            &[
                "vocab_size",
                "d_model",
                "d_kv",
                "d_ff",
                "num_layers",
                "num_heads",
                "relative_attention_num_buckets",
                "relative_attention_max_distance",
            ],
        ),
        (VAE, &["layers_per_block", "norm_num_groups", "latent_channels", "out_channels"]),
        (SCHEDULER, &["num_train_timesteps"]),
    ];
    let mut cases = 0;
    for (file, names) in fields {
        let text = fs::read_to_string(place.file(file)).expect("a config");
        let config: Value = serde_json::from_str(&text).expect("JSON");
        for name in names {
            for value in not_a_count() {
                let mut config = config.clone();
                config[name] = value.clone();
                let case = format!("{name} = {value}");
                with_bytes(&place, &case, file, config.to_string().as_bytes(), &[]);
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 320);
    place.export().expect("nothing is left of it");
}

#[test]
fn what_is_not_the_file_is_refused_by_name() {
    let place = Place::new();
    let files = [
        "model_index.json",
        DIT,
        BERT,
        T5,
        VAE,
        SCHEDULER,
        TOKENIZER,
        "transformer/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "text_encoder_2/model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ];
    let mut cases = 0;
    for file in files {
        let mut good = fs::read(place.file(file)).expect("a file");
        if file.ends_with(".json") {
            good.truncate(good.trim_ascii_end().len()); // the end of its last line is no part of it
        }
        for (case, bytes) in not_the_file(&good) {
            with_bytes(&place, case, file, &bytes, &[]);
            cases += 1;
        }
    }
    assert_eq!(cases, 165);
}

#[test]
fn only_regular_files_are_read_of_a_checkpoint() {
    let place = Place::new();
    fs::write(place.file("tokenizer/tokenizer_config.json"), "{}").expect("written");
    let files = [
        "model_index.json",
        DIT,
        BERT,
        T5,
        VAE,
        SCHEDULER,
        TOKENIZER,
        "tokenizer/vocab.txt",
        "tokenizer/tokenizer_config.json",
        "transformer/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "text_encoder_2/model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "LICENSE.txt",
        "NOTICE",
    ];
    type Make = fn(&Path);
    let make: [(&str, Make); 4] = [
        ("a named pipe", |path| mkfifoat(CWD, path, Mode::from(0o600)).expect("a pipe")),
        ("a socket", |path| drop(UnixListener::bind(path).expect("a socket"))),
        ("a folder", |path| fs::create_dir(path).expect("a folder")),
        ("a device", |path| symlink("/dev/zero", path).expect("a link")),
    ];
    for file in files {
        let (path, kept) = (place.file(file), place.path().join("kept"));
        let _ = fs::rename(&path, &kept);
        for (case, make) in make {
            make(&path);
            // A licence that is a link out of the checkpoint is refused for that.
            let linked = case == "a device" && !file.contains('/') && file != "model_index.json";
            refused(&place, case, file, &[if linked { "is a link to /dev/zero" } else { case }]);
            let removed = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
            removed.expect("removed");
        }
        let _ = fs::rename(&kept, &path);
    }
    place.export().expect("nothing is left of it");
}

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

#[test]
fn defaults_of_a_variant_that_no_request_could_have_are_refused_by_field() {
    let place = Place::new();
    let path = place.path().join("mine.yaml");
    let good = json!({
        "name": "mine",
        "reading": "diffusers",
        "defaults": {
            "sampler": "ddim", "infer_steps": 2, "cfg_scale": 5, "guidance_rescale": 0,
            "image_size": [32, 32], "negative": ""
        },
        "sizes": [[32, 32]]
    });
    let export = |variant: &Value| {
        fs::write(&path, variant.to_string()).expect("written");
        let variant = Some(path.to_str().expect("a path").to_string());
        let options = hydit_export::Options { variant, ..place.options() };
        hydit_export::export(&options, &mut ())
    };
    let cases: [(&str, Value, &str); 23] = [
        ("/name", json!(""), "`name`"),
        ("/name", json!("a\nb"), "`name`"),
        ("/name", json!("a".repeat(999)), "`name`"),
        ("/reading", json!("theirs"), "theirs"),
        (
            "/defaults/sampler",
            json!("euler"),
            "`defaults.sampler` is euler; expected ddpm, ddim or",
        ),
        ("/defaults/sampler", json!("DDIM"), "`defaults.sampler`"),
        ("/defaults/infer_steps", json!(0), "`defaults.infer_steps` is 0"),
        ("/defaults/infer_steps", json!(1001), "`defaults.infer_steps` is 1001"),
        ("/defaults/infer_steps", json!(u64::MAX), "`defaults.infer_steps`"),
        ("/defaults/infer_steps", json!(-1), ""),
        ("/defaults/cfg_scale", json!(-1), "`defaults.cfg_scale`"),
        ("/defaults/cfg_scale", json!(1e30), "`defaults.cfg_scale`"),
        ("/defaults/guidance_rescale", json!(1.5), "`defaults.guidance_rescale`"),
        ("/defaults/guidance_rescale", json!("half"), ""),
        ("/defaults/image_size", json!([0, 32]), "`defaults.image_size` is [0, 32]"),
        ("/defaults/image_size", json!([32, 33]), "multiples of 4"),
        ("/defaults/image_size", json!([32, 1u64 << 40]), "`defaults.image_size`"),
        ("/defaults/image_size", json!([32]), ""),
        ("/defaults/negative", json!("a".repeat(5000)), "`defaults.negative` is 5000 bytes"),
        ("/defaults/negative", json!(["a"]), ""),
        ("/sizes", json!([[0, 32]]), "`sizes`"),
        ("/sizes", json!(vec![[32, 32]; 2000]), "`sizes (number)` is 2000"),
        ("/colour", json!(1), "colour"),
    ];
    for (pointer, value, part) in cases {
        let mut variant = good.clone();
        match variant.pointer_mut(pointer) {
            Some(field) => *field = value,
            None => variant[&pointer[1..]] = value,
        }
        let error = message(&export(&variant).expect_err(pointer));
        check_message(pointer, &error, &["mine.yaml", part]);
        assert!(!place.out().exists());
    }
    for (case, bytes) in not_the_file(good.to_string().as_bytes()) {
        fs::write(&path, bytes).expect("written");
        let variant = Some(path.to_str().expect("a path").to_string());
        let options = hydit_export::Options { variant, ..place.options() };
        let error = message(&hydit_export::export(&options, &mut ()).expect_err(case));
        check_message(case, &error, &["mine.yaml"]);
    }
    export(&good).expect("an export");
}

#[test]
fn licences_are_copied_from_the_checkpoint_alone_or_from_the_cache_of_the_hub() {
    let place = Place::new();
    fs::write(place.path().join("secret"), "not yours").expect("written");
    symlink(place.path().join("secret"), place.file("LICENSE")).expect("a link");
    refused(&place, "a link out", "LICENSE", &["is a link to", "secret", "put the file itself"]);
    fs::remove_file(place.file("LICENSE")).expect("removed");
    symlink("LICENSE.txt", place.file("NOTICE")).expect("a link");
    place.export().expect("a link within is copied");

    // models--a--b/snapshots/1 with links to models--a--b/blobs.
    let hub = place.path().join("models--a--b");
    let snapshot = hub.join("snapshots/1");
    fs::create_dir_all(hub.join("blobs")).expect("a folder");
    fs::create_dir_all(hub.join("snapshots")).expect("a folder");
    fs::rename(place.checkpoint(), &snapshot).expect("moved");
    fs::rename(snapshot.join("LICENSE.txt"), hub.join("blobs/abc")).expect("moved");
    symlink("../../blobs/abc", snapshot.join("LICENSE.txt")).expect("a link");
    let options = hydit_export::Options { checkpoint: snapshot, ..place.options() };
    hydit_export::export(&options, &mut ()).expect("an export of the cache");
    let copied = fs::symlink_metadata(place.out().join("LICENSE.txt")).expect("a licence");
    assert!(copied.is_file());
}
