//! Exports with ControlNets: every layout of one, what the manifest has of it, and what does not fit.

use std::fs;
use std::path::{Path, PathBuf};

use hydit_export::synth::{self, Storage};
use hydit_export::{ControlNet, Error, Layout, Options, WeightsPlace, check, export, inspect};
use hydit_graphs::config::HunyuanDitConfig;
use hydit_graphs::{DType, Manifest};

use crate::checkpoint::{Place, Told, config, files, message, read_tensors, write_tensors};
use crate::layouts;

const FILE: &str = "diffusion_pytorch_model.safetensors";

fn net(name: &str, path: &Path) -> ControlNet {
    ControlNet { name: name.to_string(), path: path.to_path_buf() }
}

fn options(place: &Place, nets: &[ControlNet]) -> Options {
    Options { controls: nets.to_vec(), ..place.options() }
}

/// A ControlNet for the usual checkpoint of these tests, in a folder of `place`.
fn folder(place: &Place, change: impl FnOnce(&mut HunyuanDitConfig)) -> PathBuf {
    let (path, mut config) = (place.path().join("canny"), config().transformer);
    change(&mut config);
    synth::control(&config, &path, &Storage::default()).expect("a net");
    path
}

#[test]
fn a_net_in_every_layout_gives_the_same_graphs_and_weights() {
    let place = layouts::diffusers();
    let path = place.path().join("canny");
    // As make_layouts.py has it.
    let cfg = HunyuanDitConfig { mlp_ratio: 4.3637, ..config().transformer };
    let storage = Storage { dtype: DType::F16, ..Storage::default() };
    synth::control(&cfg, &path, &storage).expect("a net");
    let tencent = layouts::layouts().join("controlnet.pt");
    let exported = |path: &Path| {
        let mut told = Told::default();
        let options = options(&place, &[net("canny", path)]);
        export(&options, &mut told).unwrap_or_else(|error| panic!("{}", message(&error)));
        assert!(told.unused.is_empty(), "{:?}", told.unused);
        assert_eq!(told.total, told.wrote);
        files(&place.out())
    };
    let expected = exported(&path);
    assert!(expected.contains_key("control-canny-core.onnx"), "{:?}", expected.keys());
    for other in [path.join(FILE), tencent] {
        let found = exported(&other);
        let differ: Vec<_> = expected.iter().filter(|(name, of)| found[*name] != **of).collect();
        let differ: Vec<_> = differ.iter().map(|(name, _)| name).collect();
        assert!(differ.is_empty(), "{}: {differ:?}", other.display());
    }
}

#[test]
fn an_export_without_nets_is_as_it_was_and_one_with_them_says_so() {
    let place = Place::new();
    place.export().expect("an export");
    let plain = files(&place.out());
    assert!(!String::from_utf8_lossy(&plain["manifest.yaml"]).contains("control"));

    let path = folder(&place, |_| ());
    let nets = [net("canny", &path), net("depth-2", &path)];
    let manifest = export(&options(&place, &nets), &mut ()).expect("an export");
    let names: Vec<&str> = manifest.controls.iter().map(|net| net.name.as_str()).collect();
    assert_eq!(names, ["canny", "depth-2"]);
    assert!(manifest.has_image_encoder(), "nets read images through it");
    let text = fs::read_to_string(place.out().join("manifest.yaml")).expect("a manifest");
    assert_eq!(Manifest::from_yaml(&text).expect("it is read back"), manifest);
    let table = inspect::table(&manifest);
    assert!(table.contains("ControlNet canny: 2 blocks\n"), "{table}");
    // What does not read controls is the same.
    let with = files(&place.out());
    for name in ["conditioner.onnx", "shallow-encoder.onnx", "vae-decoder.onnx.data"] {
        assert!(plain[name] == with[name], "{name}");
    }
    for name in ["deep-core.onnx", "shallow-decoder.onnx"] {
        assert!(plain[name] != with[name], "{name}");
        let data = format!("{name}.data");
        assert!(plain[&data] == with[&data], "{data}");
    }
}

#[test]
fn a_net_has_no_core_where_the_model_is_cut_last() {
    let place = Place::new();
    let nets = [net("canny", &folder(&place, |_| ()))];
    let options = Options { cache_at_branch: Some(2), ..options(&place, &nets) };
    let manifest = export(&options, &mut ()).expect("an export");
    assert!(manifest.graph("control-canny-encoder").is_ok());
    assert!(manifest.graph("control-canny-core").is_err());
}

#[test]
fn the_weights_of_a_net_stay_in_place_too() {
    let place = Place::new();
    let nets = [net("canny", &folder(&place, |_| ()))];
    let options = Options { weights: WeightsPlace::InPlace, ..options(&place, &nets) };
    let manifest = export(&options, &mut ()).expect("an export");
    let core = manifest.graph("control-canny-core").expect("a graph");
    assert_eq!(core.in_place.len(), 1, "{:?}", core.in_place);
    let model = manifest.graph("deep-core").expect("a graph");
    assert!(core.in_place != model.in_place);
}

#[test]
fn what_is_no_net_of_this_model_is_refused_by_name() {
    let refused = |options: &Options| {
        let error = export(options, &mut ()).expect_err("a refusal");
        let told = message(&error);
        assert!(!options.out.exists(), "{told}");
        told
    };
    let place = Place::new();
    let path = folder(&place, |_| ());
    let told = |nets: &[ControlNet]| refused(&options(&place, nets));
    for (nets, words) in [
        (vec![net("canny", &place.path().join("none"))], "not found"),
        (vec![net("canny", &place.file("transformer"))], "no ControlNet of a Hunyuan-DiT is in it"),
        (vec![net("canny", &place.file("transformer").join(FILE))], "no ControlNet"),
        (vec![net("Canny", &path)], "--control: \"Canny\": expected a name of 1 to 40"),
        (vec![net("a", &path), net("a", &path)], "--control: two nets are called a"),
    ] {
        let told = told(&nets);
        assert!(told.contains(words) && !told.contains('\n'), "{told}");
    }
    let single = Options { single: true, ..options(&place, &[net("canny", &path)]) };
    assert!(refused(&single).contains("--control: pipeline.onnx has no inputs for ControlNets"));

    let error = export(&Options::new(&path, place.out()), &mut ()).expect_err("a refusal");
    let told = message(&error);
    assert!(told.contains("no transformer in it"), "{told}");
}

#[test]
fn a_net_of_another_shape_is_told_in_a_line() {
    type Change = fn(&mut HunyuanDitConfig);
    let changes: [(Change, &str); 4] = [
        (
            |cfg| cfg.num_layers = 8,
            "the ControlNet has 3 blocks, and a model of 6 blocks needs one of 2",
        ),
        (
            |cfg| (cfg.hidden_size, cfg.num_attention_heads) = (24, 3),
            "the ControlNet's hidden_size is 24, the model's 16",
        ),
        (
            |cfg| (cfg.num_attention_heads, cfg.attention_head_dim) = (4, 4),
            "the ControlNet's num_attention_heads is 4, the model's 2",
        ),
        (|cfg| cfg.in_channels = 8, "the ControlNet's in_channels is 8, the model's 4"),
    ];
    for (change, words) in changes {
        let place = Place::new();
        let nets = [net("canny", &folder(&place, change))];
        let error = export(&options(&place, &nets), &mut ()).expect_err("a refusal");
        assert!(message(&error).contains(words), "{}", message(&error));
    }
    let place = Place::new();
    let nets = [net("canny", &folder(&place, |cfg| cfg.text_len = 7))];
    let error = export(&options(&place, &nets), &mut ()).expect_err("a refusal");
    let told = message(&error);
    assert!(matches!(error, Error::Tensors(_)), "{told}");
    assert!(told.contains("controlnet canny: text_embedding_padding is [13, 12]"), "{told}");
}

#[test]
fn a_net_that_lacks_a_tensor_or_has_a_bad_value_is_named() {
    let place = Place::new();
    let path = folder(&place, |_| ());
    let nets = [net("canny", &path)];
    let mut tensors = read_tensors(&path.join(FILE));
    let weight = "controlnet_blocks.1.weight";
    let (_, _, bytes) = tensors.get_mut(weight).expect("a tensor");
    bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    write_tensors(&path.join(FILE), &tensors);
    let error = export(&options(&place, &nets), &mut ()).expect_err("a refusal");
    let told = message(&error);
    assert!(
        told.contains("cannot convert tensor `controlnet_blocks.1.weight` of controlnet canny")
    );

    tensors.remove("blocks.1.norm2.bias");
    write_tensors(&path.join(FILE), &tensors);
    let error = export(&options(&place, &nets), &mut ()).expect_err("a refusal");
    let told = message(&error);
    assert!(told.contains("controlnet canny: blocks.1.norm2.bias"), "{told}");
}

#[test]
fn a_pipeline_saved_with_its_net_is_named_as_a_whole() {
    let place = Place::new();
    let net_path = place.file("controlnet");
    synth::control(&config().transformer, &net_path, &Storage::default()).expect("a net");
    let nets = [net("canny", &place.checkpoint())];
    let manifest = export(&options(&place, &nets), &mut ()).expect("an export");
    assert_eq!(manifest.controls[0].name, "canny");
    let summary = check::check(&Options::new(place.checkpoint(), "")).expect("a checkpoint");
    assert!(summary.layout == Layout::Diffusers && summary.is_whole());
}
