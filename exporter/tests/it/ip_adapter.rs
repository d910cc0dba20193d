//! Exports with an IP-Adapter: where its parts are found, in whose names, and what is refused.

use std::fs;
use std::path::{Path, PathBuf};

use hydit_export::synth::{self, Shape, Storage};
use hydit_export::{Options, export, inspect};
use hydit_graphs::Manifest;
use hydit_graphs::config::ImageProcessor;
use hydit_testing::repository;

use crate::checkpoint::message;

fn references() -> PathBuf {
    repository().join("tests/reference/ip_adapter")
}

/// A checkpoint of the shape that the adapter of the references is made for.
fn checkpoint(depth: usize) -> tempfile::TempDir {
    let shape = Shape {
        depth: Some(depth),
        heads: Some(2),
        head_dim: Some(12),
        image_size: Some(64),
        small_text: true,
    };
    let place = tempfile::tempdir().expect("a folder");
    let model = synth::model("hunyuan-dit-v1.2", &shape).expect("a valid shape");
    synth::checkpoint(&model, &place.path().join("checkpoint"), &Storage::default())
        .expect("a checkpoint");
    place
}

fn options(place: &Path, out: &str, adapter: &Path, encoder: Option<&str>) -> Options {
    Options {
        ip_adapter: Some(adapter.to_path_buf()),
        image_encoder: encoder.map(|name| references().join(name)),
        ..Options::new(place.join("checkpoint"), place.join(out))
    }
}

fn exported(options: &Options) -> Manifest {
    export(options, &mut ()).unwrap_or_else(|error| panic!("{}", message(&error)))
}

#[test]
fn an_adapter_and_its_encoder_are_read_as_tencent_and_as_transformers_store_them() {
    let place = checkpoint(4);
    let place = place.path();
    let adapter = references().join("tiny-ipa.pt");
    let theirs = exported(&options(place, "tencent", &adapter, Some("tiny-clip.pt")));
    let ours = exported(&options(place, "transformers", &adapter, Some("tiny-clip")));
    let data = |out: &str, name: &str| fs::read(place.join(out).join(name)).expect("a file");
    for name in ["image-encoder.onnx.data", "image-encoder.onnx", "deep-core.onnx.data"] {
        assert!(data("tencent", name) == data("transformers", name), "{name}");
    }
    let [theirs, ours] = [theirs, ours].map(|manifest| manifest.ip_adapter.expect("an adapter"));
    assert_eq!(theirs.image_encoder, ours.image_encoder);
    assert_eq!(theirs.image_tokens, 8);
    // Tencent's code stretches; the folder has a preprocessor_config.json that cuts.
    assert_eq!(theirs.image_processor, ImageProcessor::of_clip(None));
    assert_eq!(ours.image_processor, ImageProcessor::of_clip(Some(28)));
    let table = inspect::table(&inspect::read(&place.join("tencent")).expect("an export"));
    assert!(table.contains("image prompts of 8 tokens, by an encoder of 2 layers of width 24"));
}

#[test]
fn the_encoder_is_found_beside_the_adapter_and_above_it() {
    let place = checkpoint(4);
    let place = place.path();
    let model = place.join("t2i/model");
    fs::create_dir_all(model.join("clip_img_encoder")).expect("a folder");
    fs::copy(references().join("tiny-ipa.pt"), model.join("ipa.pt")).expect("a copy");
    let encoder = references().join("tiny-clip.pt");
    for (out, to) in [
        ("folder", "clip_img_encoder/clip_img_encoder.pt"),
        ("above", "../clip_img_encoder/clip_img_encoder.pt"),
        ("beside", "clip_img_encoder.pt"),
    ] {
        let to = model.join(to);
        fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
        fs::copy(&encoder, &to).expect("a copy");
        // Other files of weights are there too.
        fs::copy(&encoder, model.join("pytorch_model_ema.pt")).expect("a copy");
        exported(&options(place, out, &model, None));
        fs::remove_file(&to).expect("removed");
        let _ = fs::remove_dir(model.join("clip_img_encoder"));
        let _ = fs::remove_dir(model.join("../clip_img_encoder"));
    }
    let refused = export(&options(place, "none", &model, None), &mut ()).expect_err("a refusal");
    let refused = message(&refused);
    assert!(refused.ends_with("name its folder or file with --image-encoder"), "{refused}");
}

#[test]
fn what_does_not_fit_is_refused_in_a_line() {
    let place = checkpoint(4);
    let place = place.path();
    let (adapter, clip) = (references().join("tiny-ipa.pt"), references().join("tiny-clip.pt"));
    let refused = |options: &Options| {
        let error = export(options, &mut ()).expect_err("a refusal");
        assert!(!options.out.exists(), "nothing is written");
        let message = message(&error);
        assert!(!message.contains('\n'), "{message}");
        message
    };
    let deeper = checkpoint(6);
    let told = refused(&options(deeper.path(), "out", &adapter, Some("tiny-clip.pt")));
    assert!(told.contains("it is for 4 blocks with keys of [24, 64], and the transformer has 6"));
    let told = refused(&options(place, "out", &clip, Some("tiny-clip.pt")));
    assert!(told.contains("tiny-clip.pt: it is not an IP-Adapter of Hunyuan-DiT"), "{told}");
    let told = refused(&options(place, "out", &adapter, Some("tiny-ipa.pt")));
    assert!(told.contains("tiny-ipa.pt: it is not the image encoder of a CLIP"), "{told}");
    let told = refused(&options(place, "out", &place.join("none.pt"), None));
    assert!(told.contains("none.pt: not found; expected an IP-Adapter"), "{told}");
    let told = refused(&options(place, "out", &adapter, Some("none")));
    assert!(told.contains("none: not found; expected the image encoder"), "{told}");
    let told = refused(&options(place, "out", &repository().join("README.md"), None));
    assert!(told.contains("README.md: "), "{told}");
    let single = Options { single: true, ..options(place, "out", &adapter, Some("tiny-clip")) };
    assert!(refused(&single).starts_with("--ip-adapter: pipeline.onnx has no inputs"));
    let alone = Options { ip_adapter: None, ..options(place, "out", &adapter, Some("tiny-clip")) };
    assert!(refused(&alone).starts_with("--image-encoder: there is no --ip-adapter"));
    let several = place.join("several");
    fs::create_dir(&several).expect("a folder");
    for name in ["a.pt", "b.pt"] {
        fs::copy(&adapter, several.join(name)).expect("a copy");
    }
    let told = refused(&options(place, "out", &several, Some("tiny-clip")));
    assert!(told.starts_with("--ip-adapter: ") && told.contains("name one of them"), "{told}");

    // Configs that are of another encoder, or of none that is known.
    let copy = place.join("clip");
    fs::create_dir(&copy).expect("a folder");
    for name in ["config.json", "preprocessor_config.json", "model.safetensors"] {
        fs::copy(references().join("tiny-clip").join(name), copy.join(name)).expect("a copy");
    }
    let text = fs::read_to_string(copy.join("config.json")).expect("a config");
    let with = |from: &str, to: &str| {
        fs::write(copy.join("config.json"), text.replace(from, to)).expect("written");
        refused(&Options {
            image_encoder: Some(copy.clone()),
            ..options(place, "out", &adapter, None)
        })
    };
    let told = with("\"projection_dim\": 10", "\"projection_dim\": 12");
    assert!(told.contains("reads image embeddings of 10 numbers, and the image encoder makes 12"));
    assert!(with("quick_gelu", "relu").contains("config.json: unknown variant `relu`"));
    assert!(with("\"patch_size\": 14", "\"patch_size\": 13").contains("`image_size` is 28"));
}
