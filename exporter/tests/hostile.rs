//! Damaged, wrong and malicious checkpoints: each gets an error that names what is wrong, and
//! nothing stays where the export would have gone.

mod common;

use std::fs;

use common::{Place, Told, read_tensors};
use hydit_export::{Options, export};
use hydit_graphs::DType;
use safetensors::Dtype;
use serde_json::{Value, json};

const TRANSFORMER: &str = "transformer/diffusion_pytorch_model.safetensors";
const BERT: &str = "text_encoder/model.safetensors";

/// What is damaged, how, and what the message must say.
type Case = (&'static str, fn(&Place), &'static [&'static str]);

/// Damages a fresh checkpoint for each case; the export must fail and leave nothing.
fn check(cases: &[Case]) {
    for (what, damage, expected) in cases {
        let place = Place::new();
        damage(&place);
        let error = match place.export() {
            Ok(_) => panic!("{what}: exported"),
            Err(error) => error.to_string(),
        };
        for part in *expected {
            assert!(error.contains(part), "{what}: `{part}` is not in: {error}");
        }
        assert!(!error.contains('\n'), "{what}: more than a line: {error}");
        assert!(!place.out().exists(), "{what}: something stays");
    }
}

fn json(place: &Place, file: &str, pointer: &str, value: Value) {
    place.edit_json(file, |json| *json.pointer_mut(pointer).expect("a field") = value);
}

/// Replaces the header of the transformer's file by another of the same length, or longer.
fn header(place: &Place, edit: impl FnOnce(&mut Value)) {
    place.edit_bytes(TRANSFORMER, |bytes| {
        let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
        let mut header = serde_json::from_slice(&bytes[8..8 + length]).expect("JSON");
        edit(&mut header);
        let header = header.to_string();
        let data = bytes.split_off(8 + length);
        *bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    });
}

#[test]
fn files_that_are_not_whole_are_named() {
    let mut cases: Vec<Case> = vec![
        (
            "an empty file",
            |p| p.edit_bytes(TRANSFORMER, Vec::clear),
            &["diffusion_pytorch_model.safetensors"],
        ),
        (
            "4 bytes",
            |p| p.edit_bytes(TRANSFORMER, |b| b.truncate(4)),
            &["diffusion_pytorch_model", "truncated"],
        ),
        (
            "the length alone",
            |p| p.edit_bytes(TRANSFORMER, |b| b.truncate(8)),
            &["diffusion_pytorch_model", "truncated"],
        ),
        (
            "half of the header",
            |p| p.edit_bytes(TRANSFORMER, |b| b.truncate(500)),
            &["diffusion_pytorch_model", "truncated"],
        ),
        (
            "one byte less",
            |p| p.edit_bytes(TRANSFORMER, |b| b.truncate(b.len() - 1)),
            &["diffusion_pytorch_model", "truncated"],
        ),
        (
            "half of the file",
            |p| p.edit_bytes(TRANSFORMER, |b| b.truncate(b.len() / 2)),
            &["diffusion_pytorch_model", "truncated"],
        ),
        (
            "a byte too many",
            |p| p.edit_bytes(TRANSFORMER, |b| b.push(0)),
            &["diffusion_pytorch_model", "not a whole safetensors file"],
        ),
        (
            "another file",
            |p| p.edit_bytes(TRANSFORMER, |b| *b = b"PK\x03\x04 a zip file, pickled".to_vec()),
            &["diffusion_pytorch_model", "not a safetensors file"],
        ),
    ];
    cases.extend([
        (
            "a huge header",
            (|p| p.edit_bytes(TRANSFORMER, |b| b[..8].copy_from_slice(&u64::MAX.to_le_bytes())))
                as fn(&Place),
            &["not a safetensors file", "18446744073709551615"] as &[_],
        ),
        (
            "a header of 2^40",
            |p| p.edit_bytes(TRANSFORMER, |b| b[5] = 1),
            &["not a safetensors file"],
        ),
        (
            "a longer header",
            |p| p.edit_bytes(TRANSFORMER, |b| b[0] ^= 0x40),
            &["diffusion_pytorch_model"],
        ),
        (
            "a broken brace",
            |p| p.edit_bytes(TRANSFORMER, |b| b[8] ^= 0x20),
            &["damaged safetensors header"],
        ),
        (
            "no UTF-8",
            |p| p.edit_bytes(TRANSFORMER, |b| b[12] = 0xFF),
            &["damaged safetensors header"],
        ),
    ]);
    check(&cases);
}

#[test]
fn headers_that_lie_are_refused() {
    const NAME: &str = "proj_out.bias";
    check(&[
        (
            "an end beyond u64",
            |p| header(p, |h| h[NAME]["data_offsets"][1] = json!(1e30)),
            &["damaged safetensors header", NAME],
        ),
        (
            "an end at u64::MAX",
            |p| header(p, |h| h[NAME]["data_offsets"][1] = json!(u64::MAX)),
            &["truncated", NAME],
        ),
        (
            "a start at u64::MAX",
            |p| header(p, |h| h[NAME]["data_offsets"][0] = json!(u64::MAX)),
            &["diffusion_pytorch_model"],
        ),
        (
            "a start after the end",
            |p| header(p, |h| h[NAME]["data_offsets"][0] = json!(1u64 << 40)),
            &["diffusion_pytorch_model"],
        ),
        (
            "negative offsets",
            |p| header(p, |h| h[NAME]["data_offsets"] = json!([-8, -4])),
            &["damaged safetensors header", NAME],
        ),
        (
            "no offsets",
            |p| header(p, |h| h[NAME] = json!({ "dtype": "F32", "shape": [32] })),
            &["damaged safetensors header", NAME],
        ),
        (
            "a shape that overflows",
            |p| header(p, |h| h[NAME]["shape"] = json!([1u64 << 40, 1u64 << 40])),
            &["diffusion_pytorch_model"],
        ),
        (
            "a shape of another size",
            |p| header(p, |h| h[NAME]["shape"] = json!([31])),
            &["diffusion_pytorch_model"],
        ),
        (
            "an unknown type",
            |p| header(p, |h| h[NAME]["dtype"] = json!("F7")),
            &["diffusion_pytorch_model"],
        ),
        ("a list", |p| header(p, |h| *h = json!([1, 2])), &["damaged safetensors header"]),
        (
            "a text as a tensor",
            |p| header(p, |h| h[NAME] = json!("F32")),
            &["damaged safetensors header", NAME],
        ),
    ]);
}

/// One bit anywhere in length or header: an error or the same result, never a panic.
#[test]
fn no_flipped_bit_of_a_header_brings_the_exporter_down() {
    let place = Place::new();
    let whole = fs::read(place.file(BERT)).expect("a file");
    let length = u64::from_le_bytes(whole[..8].try_into().expect("8 bytes")) as usize;
    let mut refused = 0;
    // Every bit of the length, then a bit of every third byte of the header.
    let places = (0..64).chain((64..8 * (8 + length)).step_by(25));
    for bit in places {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(place.file(BERT), bytes).expect("written");
        match place.export() {
            Ok(_) => fs::remove_dir_all(place.out()).expect("removed"),
            Err(error) => {
                refused += 1;
                assert!(error.to_string().contains("text_encoder"), "bit {bit}: {error}");
                assert!(!place.out().exists(), "bit {bit}: something stays");
            }
        }
    }
    assert!(refused > 100, "{refused}");
}

fn index(place: &Place, map: Value) {
    let folder = place.file("transformer");
    fs::rename(place.file(TRANSFORMER), folder.join("a.safetensors")).expect("renamed");
    let text = json!({ "metadata": {}, "weight_map": map }).to_string();
    fs::write(folder.join("diffusion_pytorch_model.safetensors.index.json"), text)
        .expect("written");
}

#[test]
fn shards_that_are_missing_or_elsewhere_are_refused() {
    const INDEX: &str = "diffusion_pytorch_model.safetensors.index.json";
    check(&[
        (
            "a missing shard",
            |p| index(p, json!({ "a": "a.safetensors", "b": "b.safetensors" })),
            &["b.safetensors: not found", "download it again"],
        ),
        (
            "a shard above",
            |p| index(p, json!({ "a": "../text_encoder/model.safetensors" })),
            &[INDEX, "`../text_encoder/model.safetensors`"],
        ),
        (
            "an absolute shard",
            |p| index(p, json!({ "a": "/etc/passwd" })),
            &[INDEX, "`/etc/passwd`"],
        ),
        ("a shard of another kind", |p| index(p, json!({ "a": "a.bin" })), &[INDEX, "`a.bin`"]),
        (
            "a shard that is a folder",
            |p| {
                index(p, json!({ "a": "d.safetensors" }));
                fs::create_dir(p.file("transformer/d.safetensors")).expect("a folder");
            },
            &["d.safetensors: not found"],
        ),
        ("no shard", |p| index(p, json!({})), &[INDEX, "names no shard"]),
        ("no map", |p| index(p, json!(3)), &[INDEX]),
        (
            "a shard without its index",
            |p| {
                fs::rename(p.file(TRANSFORMER), p.file("transformer/m-00001-of-00002.safetensors"))
                    .expect("renamed");
            },
            &["transformer", "no .safetensors file"],
        ),
        (
            "pickles only",
            |p| {
                fs::rename(p.file(TRANSFORMER), p.file("transformer/diffusion_pytorch_model.bin"))
                    .expect("renamed");
            },
            &["transformer", "no .safetensors file", "safe_serialization=True"],
        ),
        (
            "no folder",
            |p| fs::remove_dir_all(p.file("vae")).expect("removed"),
            &["vae", "not found"],
        ),
        (
            "no weights",
            |p| fs::remove_file(p.file(BERT)).expect("removed"),
            &["text_encoder", "no .safetensors file"],
        ),
    ]);
}

#[test]
fn configs_that_cannot_be_built_name_file_and_field() {
    const DIT: &str = "transformer/config.json";
    check(&[
        (
            "an odd depth",
            |p| json(p, DIT, "/num_layers", json!(7)),
            &[DIT, "`num_layers` is 7", "must be even"],
        ),
        (
            "a depth of 2^31",
            |p| json(p, DIT, "/num_layers", json!(1u64 << 31)),
            &[DIT, "`num_layers` is 2147483648", "expected 4 to 256"],
        ),
        ("a depth of -1", |p| json(p, DIT, "/num_layers", json!(-1)), &[DIT, "-1"]),
        ("a depth as text", |p| json(p, DIT, "/num_layers", json!("six")), &[DIT, "six"]),
        (
            "a width that is no product",
            |p| json(p, DIT, "/hidden_size", json!(17)),
            &[DIT, "`hidden_size` is 17", "= 16"],
        ),
        (
            "a head of 6",
            |p| {
                json(p, DIT, "/attention_head_dim", json!(6));
                json(p, DIT, "/hidden_size", json!(12));
            },
            &[DIT, "`attention_head_dim` is 6", "multiple of 4"],
        ),
        (
            "heads that overflow",
            |p| json(p, DIT, "/num_attention_heads", json!(u64::MAX)),
            &[DIT, "`num_attention_heads`"],
        ),
        ("no patch", |p| json(p, DIT, "/patch_size", json!(0)), &[DIT, "`patch_size` is 0"]),
        ("a huge ratio", |p| json(p, DIT, "/mlp_ratio", json!(1e300)), &[DIT, "`mlp_ratio`"]),
        (
            "another activation",
            |p| json(p, DIT, "/activation_fn", json!("swiglu")),
            &[DIT, "`activation_fn` is `swiglu`", "gelu-approximate"],
        ),
        ("another norm", |p| json(p, DIT, "/norm_type", json!("ada_norm")), &[DIT, "`norm_type`"]),
        (
            "another BERT activation",
            |p| json(p, "text_encoder/config.json", "/hidden_act", json!("relu")),
            &["text_encoder/config.json", "`hidden_act` is `relu`"],
        ),
        (
            "another T5 feed-forward",
            |p| json(p, "text_encoder_2/config.json", "/feed_forward_proj", json!("gated-relu")),
            &["text_encoder_2/config.json", "gated-relu"],
        ),
        (
            "groups that do not fit",
            |p| json(p, "vae/config.json", "/norm_num_groups", json!(3)),
            &["vae/config.json", "`norm_num_groups` is 3", "divide"],
        ),
        (
            "another VAE block",
            |p| json(p, "vae/config.json", "/up_block_types/0", json!("AttnUpDecoderBlock2D")),
            &["vae/config.json", "`up_block_types`"],
        ),
        (
            "no levels",
            |p| json(p, "vae/config.json", "/block_out_channels", json!([])),
            &["vae/config.json", "levels"],
        ),
        (
            "a scaling factor of 0",
            |p| json(p, "vae/config.json", "/scaling_factor", json!(0)),
            &["vae/config.json", "`scaling_factor` is 0"],
        ),
        (
            "clipped samples",
            |p| json(p, "scheduler/scheduler_config.json", "/clip_sample", json!(true)),
            &["scheduler_config.json", "clip_sample"],
        ),
        (
            "another prediction",
            |p| json(p, "scheduler/scheduler_config.json", "/prediction_type", json!("sample")),
            &["scheduler_config.json", "prediction_type"],
        ),
        (
            "BERT of another checkpoint",
            |p| json(p, "text_encoder/config.json", "/hidden_size", json!(14)),
            &["configs disagree", "cross_attention_dim = 12", "hidden_size = 14"],
        ),
        (
            "T5 of another checkpoint",
            |p| json(p, "text_encoder_2/config.json", "/d_model", json!(24)),
            &["configs disagree", "d_model = 24"],
        ),
        (
            "too few positions",
            |p| json(p, "text_encoder/config.json", "/max_position_embeddings", json!(4)),
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
            |p| json(p, "model_index.json", "/_class_name", json!("FluxPipeline")),
            &["model_index.json", "`FluxPipeline`", "HunyuanDiTPipeline"],
        ),
        (
            "no index",
            |p| fs::remove_file(p.file("model_index.json")).expect("removed"),
            &["model_index.json", "not found"],
        ),
        (
            "no tokenizer",
            |p| fs::remove_dir_all(p.file("tokenizer")).expect("removed"),
            &["tokenizer", "vocab.txt"],
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
fn values_that_cannot_be_written_are_named() {
    fn set(place: &Place, value: f32) {
        place.edit_tensors("vae/diffusion_pytorch_model.safetensors", |tensors| {
            let (_, _, bytes) = tensors.get_mut("decoder.conv_in.weight").expect("a tensor");
            bytes[4..8].copy_from_slice(&value.to_le_bytes());
        });
    }
    const NAME: &str = "tensor `decoder.conv_in.weight` of vae";
    check(&[
        ("NaN", |p| set(p, f32::NAN), &[NAME, "NaN"]),
        ("infinity", |p| set(p, f32::NEG_INFINITY), &[NAME, "-inf"]),
    ]);
    let place = Place::new();
    set(&place, 7e4);
    let options = Options { dtype: DType::F16, ..place.options() };
    let error = export(&options, &mut Told::default()).expect_err("too large").to_string();
    assert!(
        error.contains(NAME) && error.contains("70000, beyond fp16; export with --dtype fp32"),
        "{error}"
    );
    assert!(!place.out().exists());
    place.export().expect("fp32 has room");
}

#[test]
fn all_tensors_that_do_not_fit_are_told_at_once() {
    let place = Place::new();
    place.edit_tensors(TRANSFORMER, |tensors| {
        tensors.remove("blocks.2.attn1.to_q.weight").expect("a tensor");
        let bias = tensors.get_mut("proj_out.bias").expect("a tensor");
        (bias.1, bias.2) = (vec![3], vec![0; 12]);
        let norm = tensors.get_mut("blocks.0.norm2.weight").expect("a tensor");
        norm.0 = Dtype::I32;
    });
    place.edit_tensors(BERT, |tensors| {
        let words = tensors.get_mut("embeddings.word_embeddings.weight").expect("a tensor");
        words.1.reverse(); // transposed: as many elements, another shape
        let spare = words.clone();
        tensors.insert("cls.predictions.bias".to_string(), spare);
    });
    let error = place.export().expect_err("a misfit").to_string();
    for line in [
        "1 tensors missing, 3 mismatched, 1 unused",
        "missing transformer: blocks.2.attn1.to_q.weight [16, 16]",
        "mismatched transformer: proj_out.bias is [3], expected [32]",
        "mismatched transformer: blocks.0.norm2.weight is I32, expected F32, F16 or BF16",
        "mismatched text_encoder: embeddings.word_embeddings.weight is [12, 256], expected [256, 12]",
        "unused text_encoder: cls.predictions.bias",
    ] {
        assert!(error.contains(line), "`{line}` is not in: {error}");
    }
    assert!(!place.out().exists());
}

#[test]
fn a_tensor_nobody_needs_is_only_told() {
    let place = Place::new();
    place.edit_tensors(TRANSFORMER, |tensors| {
        let spare = tensors["proj_out.bias"].clone();
        tensors.insert("time_extra_emb.unknown".to_string(), spare);
    });
    place.edit_tensors(BERT, |tensors| {
        let spare = tensors["embeddings.LayerNorm.bias"].clone();
        tensors.insert("pooler.dense.bias".to_string(), spare); // known to be needless
    });
    let mut told = Told::default();
    export(&place.options(), &mut told).expect("an export");
    assert_eq!(told.unused, ["transformer: time_extra_emb.unknown"]);
    assert!(read_tensors(&place.file(TRANSFORMER)).contains_key("time_extra_emb.unknown"));
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
            Options { cache_at_branch: 0, ..options() },
            &["--cache-at-branch: 0", "6 blocks", "1 to 2"],
        ),
        (Options { cache_at_branch: 3, ..options() }, &["--cache-at-branch: 3", "1 to 2"]),
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
            &["none/model_index.json", "not found"],
        ),
    ];
    for (options, expected) in cases {
        let error = export(&options, &mut Told::default()).expect_err("a refusal").to_string();
        for part in expected {
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
        assert!(!place.out().exists());
    }
    assert_eq!(fs::read_dir(&foreign).expect("a folder").count(), 1);
}
