//! Whole exports of a tiny checkpoint, through the public interface.

use std::fs;
use std::path::Path;
use std::process::Command;

use half::{bf16, f16};
use hydit_export::synth::{HunyuanDit, Storage};
use hydit_export::{Options, export, inspect};
use hydit_graphs::config::HunyuanDitConfig;
use hydit_graphs::{DType, Manifest, Precision, Source, Transform, manifest};
use safetensors::Dtype;
use sha2::{Digest, Sha256};

use crate::checkpoint::{Place, Told, config, files, message, read_tensors, write_tensors};

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn two_exports_are_the_same_byte_for_byte() {
    let place = Place::new();
    place.export().expect("an export");
    let binary = env!("CARGO_BIN_EXE_hydit-export");
    let elsewhere = place.path().join("elsewhere");
    fs::create_dir(&elsewhere).expect("a folder");
    let status = Command::new(binary)
        .current_dir(&elsewhere)
        .args(["--checkpoint", "../checkpoint", "--out", "deep/down"])
        .output()
        .expect("runs");
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    let (first, second) = (files(&place.out()), files(&elsewhere.join("deep/down")));
    assert_eq!(first.keys().collect::<Vec<_>>(), second.keys().collect::<Vec<_>>());
    for (name, bytes) in &first {
        assert!(bytes == &second[name], "{name} differs");
    }
}

#[test]
fn the_manifest_is_true() {
    let place = Place::new();
    let options = Options { full: true, cache_at_branch: Some(2), ..place.options() };
    let mut told = Told::default();
    let returned = export(&options, &mut told).expect("an export");
    let files = files(&place.out());
    let text = String::from_utf8(files[manifest::FILE].clone()).expect("text");
    let manifest = Manifest::from_yaml(&text).expect("a manifest");
    assert_eq!(manifest, returned);
    assert_eq!(inspect::read(&place.out()).expect("a folder"), returned);

    let mut names: Vec<&String> = files.keys().filter(|name| *name != manifest::FILE).collect();
    names.sort();
    assert_eq!(manifest.files.keys().collect::<Vec<_>>(), names);
    for (name, entry) in &manifest.files {
        assert_eq!(
            (entry.bytes, &entry.sha256),
            (files[name].len() as u64, &sha256(&files[name])),
            "{name}"
        );
    }
    assert_eq!((manifest.model, manifest.cache_at_branch), (config().into(), 2));
    let graphs: Vec<&str> = manifest.graphs.iter().map(|graph| graph.name.as_str()).collect();
    let expected = [
        "text-encoder",
        "text-encoder-2",
        "conditioner",
        "shallow-encoder",
        "deep-core",
        "shallow-decoder",
        "full",
        "vae-decoder",
    ];
    assert_eq!(graphs, expected);
    assert_eq!(told.total, told.wrote);
    assert!(told.total > 0 && told.unused.is_empty(), "{:?}", told.unused);
    assert_eq!(manifest.variant.defaults.image_size, [32, 32], "16 latents, factor 2");
}

#[test]
fn manifests_of_models_of_every_kind_are_read_back() {
    for style in [false, true] {
        let place = Place::of(&HunyuanDit {
            transformer: HunyuanDitConfig {
                use_style_cond_and_image_meta_size: style,
                learn_sigma: !style,
                ..config().transformer
            },
            ..config()
        });
        for &precision in Precision::ALL {
            let options =
                Options { precision, full: true, cache_at_branch: Some(2), ..place.options() };
            let manifest = export(&options, &mut ()).expect("an export");
            assert_eq!(inspect::read(&place.out()).expect("a manifest"), manifest);
        }
    }
}

#[test]
fn weights_lie_where_the_graph_says() {
    let place = Place::new();
    place.export().expect("an export");
    let checkpoint = read_tensors(&place.file("transformer/diffusion_pytorch_model.safetensors"));
    let graph =
        hydit_graphs::hunyuan_dit::shallow_decoder(&config().transformer, 1, Precision::Fp32);
    let data = fs::read(place.out().join(graph.data_file())).expect("the data file");
    let mut compared = 0;
    for (initializer, extent) in graph.layout() {
        assert_eq!(extent.offset % 64, 0);
        let found = &data[extent.offset as usize..][..extent.length as usize];
        if matches!(initializer.source, Source::Checkpoint { transform: Transform::Keep, .. })
            && initializer.dims.len() == 1
        {
            assert!(found == checkpoint[&initializer.name].2, "{}", initializer.name);
            compared += 1;
        }
    }
    let end = graph.layout().last().map(|(_, extent)| extent.offset + extent.length);
    assert_eq!(end, Some(data.len() as u64));
    assert!(compared > 10);
    assert_eq!(fs::read(place.out().join(graph.file())).expect("the graph"), graph.encode());
}

#[test]
fn shards_with_an_index_are_one_checkpoint() {
    let (whole, parts) =
        (Place::new(), Place::stored(&Storage { shard_bytes: 20_000, ..Storage::default() }));
    for component in ["transformer", "text_encoder", "vae"] {
        let names: Vec<String> = files(&parts.file(component)).into_keys().collect();
        let shards = names.iter().filter(|name| name.contains("-of-")).count();
        assert!(shards > 1 && names.iter().any(|name| name.ends_with(".index.json")), "{names:?}");
    }
    whole.export().expect("an export");
    parts.export().expect("an export");
    assert!(files(&whole.out()) == files(&parts.out()));
}

/// Stores every tensor of the checkpoint in another type: exact where the values have few bits.
fn restored(
    dtype: Dtype,
    few_bits: impl Fn(f32) -> f32,
    encode: impl Fn(f32) -> Vec<u8>,
) -> (Place, Place) {
    let (plain, other) = (Place::new(), Place::new());
    for file in [
        "transformer/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "text_encoder_2/model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ] {
        let mut tensors = read_tensors(&plain.file(file));
        let mut stored = tensors.clone();
        for (name, (_, _, bytes)) in &mut tensors {
            let values: Vec<f32> =
                bytes.as_chunks::<4>().0.iter().map(|b| few_bits(f32::from_le_bytes(*b))).collect();
            *bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            let entry = stored.get_mut(name).expect("the same names");
            (entry.0, entry.2) = (dtype, values.iter().flat_map(|&v| encode(v)).collect());
        }
        write_tensors(&plain.file(file), &tensors);
        write_tensors(&other.file(file), &stored);
    }
    (plain, other)
}

#[test]
fn checkpoints_of_half_precision_export_their_values() {
    let f16 = restored(
        Dtype::F16,
        |v| f16::from_f32(v).to_f32(),
        |v| f16::from_f32(v).to_le_bytes().into(),
    );
    let bf16 = restored(
        Dtype::BF16,
        |v| bf16::from_f32(v).to_f32(),
        |v| bf16::from_f32(v).to_le_bytes().into(),
    );
    for (plain, half) in [f16, bf16] {
        plain.export().expect("an export");
        half.export().expect("an export");
        assert!(files(&plain.out()) == files(&half.out()));
    }
}

#[test]
fn a_checkpoint_of_shape_alone_can_be_made_in_fp16() {
    let place = Place::stored(&Storage { dtype: DType::F16, ..Storage::default() });
    let tensors = read_tensors(&place.file("transformer/diffusion_pytorch_model.safetensors"));
    assert!(tensors.values().all(|(dtype, ..)| *dtype == Dtype::F16));
    place.export().expect("an export");
}

#[test]
fn fp16_and_bf16_round_the_matrices_and_keep_the_norms() {
    rounds(Precision::Fp16, |value| f16::from_f32(value).to_le_bytes());
    rounds(Precision::Bf16, |value| bf16::from_f32(value).to_le_bytes());
}

fn rounds(precision: Precision, round: fn(f32) -> [u8; 2]) {
    let place = Place::new();
    let options = Options { precision, ..place.options() };
    let manifest = export(&options, &mut Told::default()).expect("an export");
    assert_eq!(manifest.precision, precision);
    let checkpoint = read_tensors(&place.file("transformer/diffusion_pytorch_model.safetensors"));
    let graph = hydit_graphs::hunyuan_dit::deep_core(&config().transformer, 1, precision);
    let data = fs::read(place.out().join(graph.data_file())).expect("the data file");
    let layout = graph.layout();
    let weights =
        layout.iter().filter(|(weight, _)| matches!(weight.source, Source::Checkpoint { .. }));
    for (weight, extent) in weights {
        let norm = weight.name.contains("norm") && !weight.name.contains("linear");
        assert_eq!(
            weight.dtype,
            if norm { DType::F32 } else { precision.compute() },
            "{}",
            weight.name
        );
        let found = &data[extent.offset as usize..][..extent.length as usize];
        let bytes = &checkpoint[&weight.name].2;
        let rounded = |b: &[u8; 4]| round(f32::from_le_bytes(*b));
        if norm {
            assert!(found == bytes, "{}", weight.name);
        } else if weight.dims.len() == 1 {
            let rounded: Vec<u8> = bytes.as_chunks().0.iter().flat_map(rounded).collect();
            assert!(found == rounded, "{}", weight.name);
        }
    }
}

#[test]
fn a_new_export_replaces_an_older_one_and_what_a_killed_one_left() {
    let place = Place::new();
    export(&Options { full: true, ..place.options() }, &mut Told::default()).expect("an export");
    assert!(place.out().join("full.onnx").exists());
    let left = place.out().join(".hydit-export-x7Tk2a");
    fs::write(&left, "half a graph").expect("written");
    fs::write(place.out().join("notes.txt"), "mine").expect("written");

    export(&Options { cache_at_branch: Some(2), ..place.options() }, &mut Told::default())
        .expect("an export");
    assert!(!left.exists() && !place.out().join("full.onnx").exists());
    assert!(!place.out().join("full.onnx.data").exists());
    assert!(place.out().join("notes.txt").exists(), "what is not ours stays");

    let fresh = place.path().join("fresh");
    let options = Options { cache_at_branch: Some(2), out: fresh.clone(), ..place.options() };
    export(&options, &mut Told::default()).expect("an export");
    fs::remove_file(place.out().join("notes.txt")).expect("removed");
    assert!(files(&place.out()) == files(&fresh));
}

#[test]
fn what_a_killed_first_export_left_is_no_foreign_folder() {
    let place = Place::new();
    fs::create_dir(place.out()).expect("a folder");
    // Killed between the renames: some files are in place, one waits.
    fs::write(place.out().join("deep-core.onnx"), "a graph").expect("written");
    fs::write(place.out().join(".hydit-export-x7Tk2a"), "the next").expect("written");
    place.export().expect("an export");
    assert!(files(&place.out()).keys().all(|name| !name.starts_with('.')));
    assert!(files(&place.out())["deep-core.onnx"] != b"a graph");
}

#[test]
fn a_failed_export_leaves_the_older_one_as_it_was() {
    let place = Place::new();
    place.export().expect("an export");
    let before = files(&place.out());
    place.edit_tensors("vae/diffusion_pytorch_model.safetensors", |tensors| {
        let (_, _, bytes) = tensors.get_mut("decoder.conv_out.bias").expect("a tensor");
        bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    place.export().expect_err("a NaN");
    assert!(files(&place.out()) == before);
}

#[test]
fn places_that_are_not_ours_are_refused() {
    let place = Place::new();
    let before = files(&place.file("transformer"));
    for (out, reason) in [
        (place.checkpoint(), "is the checkpoint itself"),
        (place.file("../checkpoint/"), "is the checkpoint itself"),
        (place.file("transformer"), "choose a new or empty folder"),
    ] {
        let options = Options { out: out.clone(), ..place.options() };
        let error = message(&export(&options, &mut Told::default()).expect_err("a refusal"));
        assert!(error.starts_with("--out: ") && error.contains(reason), "{error}");
    }
    assert!(files(&place.file("transformer")) == before);
}

#[test]
fn licences_come_along_and_the_conversion_is_said() {
    let place = Place::new();
    fs::write(place.file("Notice"), "Made by them.\n").expect("a notice");
    let manifest = place.export().expect("an export");
    let read = |name: &str| fs::read_to_string(place.out().join(name)).expect("a file");
    assert_eq!(
        (read("LICENSE.txt").as_str(), read("Notice").as_str()),
        ("Use it well.\n", "Made by them.\n")
    );
    assert!(read("CONVERTED.txt").contains("hydit-export"));
    for name in ["LICENSE.txt", "Notice", "CONVERTED.txt"] {
        assert!(manifest.files.contains_key(name), "{name}");
    }
}

#[test]
fn older_names_of_tensors_are_understood() {
    let (plain, old) = (Place::new(), Place::new());
    plain.export().expect("an export");
    let rename = |file: &str, pairs: &[(&str, &str)]| {
        old.edit_tensors(file, |tensors| {
            let renamed = std::mem::take(tensors).into_iter().map(|(name, tensor)| {
                (pairs.iter().fold(name, |name, (new, old)| name.replace(new, old)), tensor)
            });
            tensors.extend(renamed);
        });
    };
    let vae = [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")];
    rename("vae/diffusion_pytorch_model.safetensors", &vae);
    rename("text_encoder_2/model.safetensors", &[("shared.", "encoder.embed_tokens.")]);
    old.export().expect("an export");
    assert!(files(&plain.out()) == files(&old.out()));
}

#[test]
fn the_shipped_model_is_recognised() {
    let place = Place::new();
    let checkpoint = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/emoji");
    let options = Options { checkpoint, ..place.options() };
    let mut told = Told::default();
    let manifest = export(&options, &mut told).expect("an export");
    assert_eq!(manifest.variant.name, "emoji");
    assert!(told.unused.is_empty(), "{:?}", told.unused);
}

#[test]
fn the_image_encoder_is_there_if_asked_for() {
    let place = Place::new();
    for &precision in Precision::ALL {
        let options = Options { precision, image_to_image: true, ..place.options() };
        let manifest = export(&options, &mut Told::default()).expect("an export");
        let names: Vec<&str> = manifest.graphs.iter().map(|graph| graph.name.as_str()).collect();
        assert_eq!(names[names.len() - 2..], ["vae-encoder", "vae-decoder"], "{precision}");
        assert!(manifest.has_image_encoder());
        assert_eq!(inspect::read(&place.out()).expect("a manifest"), manifest);
        let table = inspect::table(&manifest);
        assert!(table.contains("> moments"), "{table}");
    }
    assert!(!place.export().expect("an export").has_image_encoder());
}

#[test]
fn a_checkpoint_without_an_image_encoder_is_refused_by_name() {
    const FILE: &str = "vae/diffusion_pytorch_model.safetensors";
    let place = Place::new();
    let options = Options { image_to_image: true, ..place.options() };
    let refusal = || message(&export(&options, &mut ()).expect_err("a refusal"));
    place.edit_json("vae/config.json", |json| json["down_block_types"][1] = "AttnDown".into());
    let told = refusal();
    assert!(told.contains("--image-to-image: vae/config.json: `down_block_types`"), "{told}");
    place.export().expect("it is for the encoder alone");

    let place = Place::new();
    let options = Options { image_to_image: true, ..place.options() };
    place.edit_tensors(FILE, |tensors| tensors.retain(|name, _| !name.starts_with("encoder.")));
    let told = message(&export(&options, &mut ()).expect_err("a refusal"));
    assert!(told.starts_with("--image-to-image: ") && !told.contains('\n'), "{told}");
    assert!(told.contains(FILE) && told.contains("has no image encoder"), "{told}");
    assert!(told.contains("no tensor `encoder.conv_in.weight`"), "{told}");
    place.export().expect("text alone needs none");
}
