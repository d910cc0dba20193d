//! Configs, tokenizers and flags that cannot be used.

use std::fs;

use hydit_export::{Options, export};
use serde_json::json;

use crate::checkpoint::{Place, Told, message};
use crate::hostile::{check, edit};

#[test]
fn configs_that_cannot_be_built_name_file_and_field() {
    const DIT: &str = "transformer/config.json";
    check(&[
        (
            "an odd depth",
            |p| edit(p, DIT, "/num_layers", json!(7)),
            &[DIT, "`num_layers` is 7", "must be even"],
        ),
        (
            "a depth of 2^31",
            |p| edit(p, DIT, "/num_layers", json!(1u64 << 31)),
            &[DIT, "`num_layers` is 2147483648", "expected 4 to 256"],
        ),
        ("a depth of -1", |p| edit(p, DIT, "/num_layers", json!(-1)), &[DIT, "-1"]),
        ("a depth as text", |p| edit(p, DIT, "/num_layers", json!("six")), &[DIT, "six"]),
        (
            "a width that is no product",
            |p| edit(p, DIT, "/hidden_size", json!(17)),
            &[DIT, "`hidden_size` is 17", "= 16"],
        ),
        (
            "a head of 6",
            |p| {
                edit(p, DIT, "/attention_head_dim", json!(6));
                edit(p, DIT, "/hidden_size", json!(12));
            },
            &[DIT, "`attention_head_dim` is 6", "multiple of 4"],
        ),
        (
            "heads that overflow",
            |p| edit(p, DIT, "/num_attention_heads", json!(u64::MAX)),
            &[DIT, "`num_attention_heads`"],
        ),
        ("no patch", |p| edit(p, DIT, "/patch_size", json!(0)), &[DIT, "`patch_size` is 0"]),
        ("a huge ratio", |p| edit(p, DIT, "/mlp_ratio", json!(1e300)), &[DIT, "`mlp_ratio`"]),
        (
            "another activation",
            |p| edit(p, DIT, "/activation_fn", json!("swiglu")),
            &[DIT, "`activation_fn` is `swiglu`", "gelu-approximate"],
        ),
        ("another norm", |p| edit(p, DIT, "/norm_type", json!("ada_norm")), &[DIT, "`norm_type`"]),
        (
            "another BERT activation",
            |p| edit(p, "text_encoder/config.json", "/hidden_act", json!("relu")),
            &["text_encoder/config.json", "`hidden_act` is `relu`"],
        ),
        (
            "another T5 feed-forward",
            |p| edit(p, "text_encoder_2/config.json", "/feed_forward_proj", json!("gated-relu")),
            &["text_encoder_2/config.json", "gated-relu"],
        ),
        (
            "groups that do not fit",
            |p| edit(p, "vae/config.json", "/norm_num_groups", json!(3)),
            &["vae/config.json", "`norm_num_groups` is 3", "divide"],
        ),
        (
            "another VAE block",
            |p| edit(p, "vae/config.json", "/up_block_types/0", json!("AttnUpDecoderBlock2D")),
            &["vae/config.json", "`up_block_types`"],
        ),
        (
            "no levels",
            |p| edit(p, "vae/config.json", "/block_out_channels", json!([])),
            &["vae/config.json", "levels"],
        ),
        (
            "a scaling factor of 0",
            |p| edit(p, "vae/config.json", "/scaling_factor", json!(0)),
            &["vae/config.json", "`scaling_factor` is 0"],
        ),
        (
            "clipped samples",
            |p| edit(p, "scheduler/scheduler_config.json", "/clip_sample", json!(true)),
            &["scheduler_config.json", "clip_sample"],
        ),
        (
            "another prediction",
            |p| edit(p, "scheduler/scheduler_config.json", "/prediction_type", json!("sample")),
            &["scheduler_config.json", "prediction_type"],
        ),
        (
            "BERT of another checkpoint",
            |p| edit(p, "text_encoder/config.json", "/hidden_size", json!(14)),
            &["configs disagree", "cross_attention_dim = 12", "hidden_size = 14"],
        ),
        (
            "T5 of another checkpoint",
            |p| edit(p, "text_encoder_2/config.json", "/d_model", json!(24)),
            &["configs disagree", "d_model = 24"],
        ),
        (
            "too few positions",
            |p| edit(p, "text_encoder/config.json", "/max_position_embeddings", json!(4)),
            &["configs disagree", "max_position_embeddings = 4"],
        ),
        (
            "5 MiB of config",
            |p| p.edit_bytes(DIT, |b| b.resize(5 << 20, b' ')),
            &[DIT, "5242880 bytes", "at most"],
        ),
        ("no JSON", |p| p.edit_bytes(DIT, |b| b.truncate(20)), &[DIT, "EOF"]),
        (
            "deep JSON",
            |p| p.edit_bytes(DIT, |b| *b = vec![b'['; 100_000]),
            &[DIT, "line 1 column 1"],
        ),
        (
            "no config",
            |p| fs::remove_file(p.file("vae/config.json")).expect("removed"),
            &["vae/config.json", "not found"],
        ),
        (
            "another pipeline",
            |p| edit(p, "model_index.json", "/_class_name", json!("FluxPipeline")),
            &["model_index.json", "`FluxPipeline`", "HunyuanDiTPipeline"],
        ),
        (
            "nothing in it",
            |p| {
                fs::remove_dir_all(p.checkpoint()).expect("removed");
                fs::create_dir(p.checkpoint()).expect("a folder");
            },
            &["model_index.json", "not found", "Tencent's"],
        ),
        (
            "no tokenizer",
            |p| fs::remove_dir_all(p.file("tokenizer")).expect("removed"),
            &["checkpoint/tokenizer", "not found", "--base"],
        ),
        (
            "a tokenizer without padding",
            |p| p.edit_bytes("tokenizer/vocab.txt", |b| *b = b"a\nb\n".to_vec()),
            &["tokenizer/vocab.txt", "no entry [PAD]"],
        ),
        (
            "a tokenizer that is no JSON",
            |p| p.edit_bytes("tokenizer_2/tokenizer.json", |b| b.truncate(99)),
            &["tokenizer_2", "not JSON"],
        ),
    ]);
}

#[test]
fn flags_out_of_range_say_what_is_in_range() {
    let place = Place::new();
    let foreign = place.path().join("foreign");
    fs::create_dir(&foreign).expect("a folder");
    fs::write(foreign.join("thesis.tex"), "chapter one").expect("a file");
    let options = || place.options();
    let cases: [(Options, &[&str]); 7] = [
        (
            Options { cache_at_branch: Some(0), ..options() },
            &["--cache-at-branch: 0", "6 blocks", "1 to 2"],
        ),
        (Options { cache_at_branch: Some(3), ..options() }, &["--cache-at-branch: 3", "1 to 2"]),
        (
            Options { variant: Some("sdxl".into()), ..options() },
            &["--variant: `sdxl`", "hunyuan-dit-v1.2"],
        ),
        (Options { variant: Some("none.yaml".into()), ..options() }, &["none.yaml", "not found"]),
        (Options { out: foreign.join("thesis.tex/out"), ..options() }, &["thesis.tex"]),
        (
            Options { out: foreign.clone(), ..options() },
            &["--out: ", "holds thesis.tex", "choose a new or empty folder"],
        ),
        (
            Options { checkpoint: place.path().join("none"), ..options() },
            &["none: not found", "not found"],
        ),
    ];
    for (options, expected) in cases {
        let error = message(&export(&options, &mut Told::default()).expect_err("a refusal"));
        for part in expected {
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
        assert!(!place.out().exists());
    }
    assert_eq!(fs::read_dir(&foreign).expect("a folder").count(), 1);
}
