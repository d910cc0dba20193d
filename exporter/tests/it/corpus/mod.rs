//! Hundreds of hostile files in the places of good ones. Each must be refused in one line that names
//! it, without a panic, without waiting, and leave nothing.

mod tokenizers;

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use hydit_testing::hostile::{check_message, not_a_count, not_the_file};
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

/// Every file that a checkpoint of a [`Place`] must have.
const FILES: [&str; 11] = [
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
    let mut cases = 0;
    for file in FILES {
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
    let optional =
        ["tokenizer/vocab.txt", "tokenizer/tokenizer_config.json", "LICENSE.txt", "NOTICE"];
    type Make = fn(&Path);
    let make: [(&str, Make); 4] = [
        ("a named pipe", |path| mkfifoat(CWD, path, Mode::from(0o600)).expect("a pipe")),
        ("a socket", |path| drop(UnixListener::bind(path).expect("a socket"))),
        ("a folder", |path| fs::create_dir(path).expect("a folder")),
        ("a device", |path| symlink("/dev/zero", path).expect("a link")),
    ];
    for file in FILES.into_iter().chain(optional) {
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
            json!("heun"),
            "`defaults.sampler` is heun; expected one of ddpm, ddim,",
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
