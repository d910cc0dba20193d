//! One model in every layout gives the same graphs and weights, byte for byte. The files are those
//! of `tests/reference/make_layouts.py`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use hydit_export::check::check;
use hydit_export::synth::{self, HunyuanDit, Storage};
use hydit_export::{Error, Layout, Options, export};
use hydit_graphs::config::HunyuanDitConfig;
use hydit_graphs::variant::RopeConvention;
use hydit_graphs::{DType, Manifest};
use hydit_testing::repository;

use crate::checkpoint::{Place, Told, config, files, message, read_tensors, write_tensors};

pub fn layouts() -> PathBuf {
    repository().join("tests/reference/layouts")
}

/// The model of the files, in diffusers' layout.
fn model() -> HunyuanDit {
    let transformer =
        HunyuanDitConfig { use_style_cond_and_image_meta_size: true, ..config().transformer };
    let mut config = HunyuanDit { transformer, ..config() };
    config.scheduler.beta_end = 0.03;
    config
}

pub fn diffusers() -> Place {
    let place = Place::of(&model());
    fs::remove_dir_all(place.checkpoint()).expect("removed");
    let storage = Storage { dtype: DType::F16, ..Storage::default() };
    synth::checkpoint(&model(), &place.checkpoint(), &storage).expect("a checkpoint");
    place
}

/// Tencent's folder in `place`, with the configs and tokenizers that lie there.
pub fn tencent(place: &Place) -> PathBuf {
    let (root, from) = (place.path().join("ckpts"), layouts().join("t2i"));
    let t2i = root.join("t2i");
    for (folder, file) in [
        ("model", "pytorch_model_ema.pt"),
        ("clip_text_encoder", "pytorch_model.bin"),
        ("mt5", "pytorch_model.bin"),
        ("sdxl-vae-fp16-fix", "diffusion_pytorch_model.bin"),
    ] {
        fs::create_dir_all(t2i.join(folder)).expect("a folder");
        fs::copy(from.join(folder).join(file), t2i.join(folder).join(file)).expect("copied");
    }
    fs::create_dir_all(t2i.join("tokenizer")).expect("a folder");
    for (from, to) in [
        ("text_encoder/config.json", "clip_text_encoder/config.json"),
        ("text_encoder_2/config.json", "mt5/config.json"),
        ("vae/config.json", "sdxl-vae-fp16-fix/config.json"),
        ("tokenizer/vocab.txt", "tokenizer/vocab.txt"),
        ("tokenizer_2/tokenizer.json", "mt5/tokenizer.json"),
    ] {
        fs::copy(place.file(from), t2i.join(to)).expect("copied");
    }
    root
}

fn exported(options: &Options) -> Result<(Manifest, BTreeMap<String, Vec<u8>>), Error> {
    let mut told = Told::default();
    let manifest = export(options, &mut told)?;
    assert!(told.unused.is_empty(), "{:?}", told.unused);
    Ok((manifest, files(&options.out)))
}

/// Exports `options` to a folder of its own; its graphs and weights, which must be `expected`.
fn same(
    place: &Place,
    name: &str,
    options: Options,
    expected: &BTreeMap<String, Vec<u8>>,
) -> Manifest {
    let options = Options { out: place.path().join("out").join(name), ..options };
    let (manifest, found) =
        exported(&options).unwrap_or_else(|e| panic!("{name}: {}", message(&e)));
    let graphs = expected.iter().filter(|(file, _)| file.contains(".onnx"));
    let mut compared = 0;
    for (file, bytes) in graphs {
        assert!(&found[file] == bytes, "{name}: {file} differs");
        compared += 1;
    }
    assert_eq!(compared, 14);
    manifest
}

#[test]
fn all_layouts_of_a_model_export_alike() {
    let place = diffusers();
    let (ours, expected) = exported(&place.options()).expect("an export");
    assert_eq!(ours.variant.rope_convention, RopeConvention::Diffusers);
    let based = |path: &Path| Options { base: Some(place.checkpoint()), ..Options::new(path, "") };

    let ckpts = tencent(&place);
    for (name, path) in [("ckpts", ckpts.clone()), ("t2i", ckpts.join("t2i"))] {
        let manifest = same(&place, name, Options::new(path, ""), &expected);
        assert_eq!(manifest.variant.rope_convention, RopeConvention::Tencent);
        assert_eq!(manifest.model.scheduler.beta_end, 0.03, "of v1.0 and v1.1");
        assert_eq!(manifest.model.transformer.hunyuan_dit().expect("one").text_len, 5);
    }
    let asked = Options { reading: Some(RopeConvention::Diffusers), ..Options::new(&ckpts, "") };
    let asked = same(&place, "reading", asked, &expected);
    assert_eq!(asked.variant.rope_convention, RopeConvention::Diffusers);

    // Other names for the same: safetensors, and a variant beside the wanted one.
    let model = ckpts.join("t2i/model");
    let flat = place.path().join("flat.safetensors");
    let comfyui = layouts().join("comfyui.safetensors");
    let tensors = read_tensors(&comfyui);
    let strip = |prefix: &str| {
        let inside = tensors.iter().filter_map(|(name, tensor)| {
            Some((name.strip_prefix(prefix)?.to_string(), tensor.clone()))
        });
        inside.collect()
    };
    write_tensors(&flat, &strip("model."));
    fs::copy(&flat, model.join("pytorch_model_module.safetensors")).expect("copied");
    let module = Some("module".to_string());
    let module = Options { weights_variant: module, ..Options::new(&ckpts, "") };
    same(&place, "module", module, &expected);

    let manifest = same(&place, "comfyui", based(&comfyui), &expected);
    assert_eq!(manifest.variant.rope_convention, RopeConvention::Tencent);
    assert_eq!(manifest.tokenizers.expect("two").text_encoder_2.pad_id, 0);
    for name in ["mp_rank_00_model_states.pt", "fused.safetensors"] {
        same(&place, name, based(&layouts().join(name)), &expected);
    }
    same(&place, "flat", based(&flat), &expected);
    same(&place, "pt", based(&model.join("pytorch_model_ema.pt")), &expected);
    same(&place, "alone", based(&place.file("transformer")), &expected);
    let mixed = Options { base: Some(ckpts), ..Options::new(&flat, "") };
    same(&place, "mixed", mixed, &expected);
}

#[test]
fn a_sentencepiece_model_in_the_file_is_the_second_tokenizer() {
    let place = diffusers();
    fs::remove_dir_all(place.file("tokenizer_2")).expect("removed");
    let comfyui = layouts().join("comfyui.safetensors");
    let base = Some(place.checkpoint());
    let options = Options { base, ..Options::new(&comfyui, place.out()) };
    let (_, files) = exported(&options).expect("an export");
    let tokenizer = String::from_utf8(files["tokenizer_2.json"].clone()).expect("text");
    assert!(tokenizer.contains("▁a") && tokenizer.contains("cat"), "{tokenizer}");
}

#[test]
fn what_is_missing_is_named_with_the_way_out() {
    let place = diffusers();
    let refused = |path: &Path, base: Option<PathBuf>| {
        let options = Options { base, ..Options::new(path, place.out()) };
        message(&export(&options, &mut ()).expect_err("a refusal"))
    };
    let alone = layouts().join("mp_rank_00_model_states.pt");
    let told = refused(&alone, None);
    assert!(told.contains("no text_encoder in it: take it from"), "{told}");
    assert!(told.contains("--base DIR"), "{told}");
    fs::remove_dir_all(place.file("vae")).expect("removed");
    let told = refused(&alone, Some(place.checkpoint()));
    assert!(told.contains("no vae in it, nor in its base"), "{told}");
    let strange = place.path().join("strange.safetensors");
    let tensors = read_tensors(&place.file("text_encoder/model.safetensors"));
    let one = tensors.into_iter().take(1).map(|(_, tensor)| ("lora_unet.up".to_string(), tensor));
    write_tensors(&strange, &one.collect());
    let told = refused(&strange, None);
    assert!(told.contains(
        "no part of a Hunyuan-DiT or a DiT is in it (its first tensor is `lora_unet.up`)"
    ));
    assert!(!place.out().exists());
}

#[test]
fn check_says_what_a_checkpoint_is() {
    let place = diffusers();
    let whole = check(&Options::new(place.checkpoint(), "")).expect("a summary");
    assert!(whole.is_whole() && whole.layout == Layout::Diffusers, "{whole:?}");
    assert_eq!(whole.parts.len(), 4);
    let (manifest, files) = exported(&place.options()).expect("an export");
    let data = manifest.graphs.iter().map(|graph| files[&graph.data].len() as u64).sum::<u64>();
    assert_eq!(whole.exports[0].bytes, data, "as told before");
    let text = whole.text();
    for part in ["a Hunyuan-DiT of another shape, in diffusers' layout", "  f16 ", "Next:", "fp16"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }

    let ckpts = tencent(&place);
    let theirs = check(&Options::new(&ckpts, "")).expect("a summary");
    assert!(theirs.is_whole() && theirs.layout == Layout::Tencent, "{theirs:?}");
    assert_eq!(theirs.exports[0].bytes, data);
    let file = check(&Options::new(layouts().join("comfyui.safetensors"), "")).expect("a summary");
    assert_eq!((file.layout, file.parts.len()), (Layout::File, 4));
    assert_eq!(file.missing, ["tokenizer"]);
    let alone = layouts().join("mp_rank_00_model_states.pt");
    let alone = check(&Options::new(alone, "")).expect("a summary");
    let missing = ["text_encoder", "text_encoder_2", "vae", "tokenizer", "tokenizer_2"];
    assert_eq!((alone.layout, alone.missing), (Layout::File, missing.map(str::to_string).into()));
    let base = Some(place.checkpoint());
    let based = Options { base, ..Options::new(layouts().join("comfyui.safetensors"), "") };
    let told = check(&based).expect("a summary").text();
    let command = format!("comfyui.safetensors --base {} --out", place.checkpoint().display());
    assert!(told.contains(&command), "the export that was looked at: {told}");
}

#[test]
fn a_folder_of_the_hugging_face_cache_stands_for_its_snapshot() {
    let place = Place::new();
    place.export().expect("an export");
    let hub = place.path().join("hub/models--org--HunyuanDiT-v1.2-Diffusers-Distilled");
    let blobs = hub.join("blobs");
    fs::create_dir_all(&blobs).expect("a folder");
    let link = |from: &std::path::Path, to: &std::path::Path| {
        for (name, bytes) in files(from) {
            let blob = blobs.join(format!("{}-{name}", to.display().to_string().len()));
            fs::write(&blob, bytes).expect("written");
            symlink(&blob, to.join(name)).expect("a link");
        }
    };
    let snapshot = hub.join("snapshots/5e96094e");
    for part in [
        "transformer",
        "text_encoder",
        "text_encoder_2",
        "vae",
        "scheduler",
        "tokenizer",
        "tokenizer_2",
    ] {
        fs::create_dir_all(snapshot.join(part)).expect("a folder");
        link(&place.file(part), &snapshot.join(part));
    }
    fs::copy(place.file("model_index.json"), snapshot.join("model_index.json")).expect("copied");
    fs::create_dir_all(hub.join("refs")).expect("a folder");
    fs::write(hub.join("refs/main"), "5e96094e").expect("written");
    for (name, checkpoint) in [("root", hub.clone()), ("snapshot", snapshot.clone())] {
        let out = place.path().join(name);
        export(&Options::new(checkpoint, &out), &mut ()).expect("an export");
        let (expected, found) = (files(&place.out()), files(&out));
        assert!(expected["deep-core.onnx.data"] == found["deep-core.onnx.data"], "{name}");
    }
    fs::create_dir_all(hub.join("snapshots/ba991d15")).expect("a folder");
    fs::write(hub.join("refs/main"), "../../elsewhere").expect("written");
    let out = place.path().join("none");
    let error = export(&Options::new(hub, out), &mut ()).expect_err("a refusal");
    assert!(message(&error).contains("2 snapshots are in this cache: name one of them"));
}

/// What the latent-diffusion code calls the tensor `name` of an autoencoder of two levels.
fn latent_diffusion(name: &str) -> String {
    let mut name = name.to_string();
    for (ours, theirs) in [
        ("decoder.up_blocks.0.", "decoder.up.1."),
        ("decoder.up_blocks.1.", "decoder.up.0."),
        ("encoder.down_blocks.", "encoder.down."),
        ("upsamplers.0.", "upsample."),
        ("downsamplers.0.", "downsample."),
        ("mid_block.resnets.0.", "mid.block_1."),
        ("mid_block.resnets.1.", "mid.block_2."),
        ("mid_block.attentions.0.group_norm.", "mid.attn_1.norm."),
        ("mid_block.attentions.0.to_out.0.", "mid.attn_1.proj_out."),
        ("mid_block.attentions.0.to_", "mid.attn_1."),
        (".resnets.", ".block."),
        ("conv_shortcut.", "nin_shortcut."),
        ("conv_norm_out.", "norm_out."),
    ] {
        name = name.replace(ours, theirs);
    }
    name
}

#[test]
fn image_encoders_of_latent_diffusion_and_of_earlier_diffusers_are_the_same() {
    const FILE: &str = "vae/diffusion_pytorch_model.safetensors";
    let place = Place::new();
    let options = Options { image_to_image: true, ..place.options() };
    export(&options, &mut Told::default()).expect("an export");
    let expected = files(&place.out());
    place.edit_tensors(FILE, |tensors| {
        let theirs =
            std::mem::take(tensors).into_iter().map(|(name, (dtype, mut shape, bytes))| {
                if name.contains(".attentions.") && shape.len() == 2 {
                    shape.extend([1, 1]); // convolutions there
                }
                (latent_diffusion(&name), (dtype, shape, bytes))
            });
        *tensors = theirs.collect();
        assert!(tensors.contains_key("encoder.down.0.downsample.conv.weight"));
        assert!(tensors.contains_key("encoder.mid.attn_1.q.weight"));
    });
    export(&options, &mut Told::default()).expect("an export");
    assert!(files(&place.out()) == expected, "latent diffusion's names");

    let place = Place::new();
    let options = Options { image_to_image: true, ..place.options() };
    place.edit_tensors(FILE, |tensors| {
        let older = |name: String| {
            name.replace("to_q.", "query.")
                .replace("to_k.", "key.")
                .replace("to_v.", "value.")
                .replace("to_out.0.", "proj_attn.")
        };
        let theirs = std::mem::take(tensors).into_iter();
        *tensors = theirs.map(|(name, tensor)| (older(name), tensor)).collect();
        assert!(tensors.contains_key("encoder.mid_block.attentions.0.query.weight"));
    });
    export(&options, &mut Told::default()).expect("an export");
    assert!(files(&place.out()) == expected, "the names of earlier versions");
}
