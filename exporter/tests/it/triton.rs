//! Model repositories for Triton, as files; `scripts/test-triton` draws with them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use hydit_export::triton::{self, Provider};
use hydit_export::{Options, export};
use hydit_graphs::DType;
use hydit_graphs::onnx::{DimensionValue, ModelProto};
use prost::Message;
use safetensors::Dtype;

use crate::checkpoint::{Place, Tensors, message, read_tensors, write_tensors};

/// Sizes of a plan: one image, five steps.
fn size(symbol: &str) -> usize {
    match symbol {
        "steps" | "corrections" => 5,
        "2*batch" => 2,
        "batch" | "draws" => 1,
        _ => 4,
    }
}

/// A plan for the pipeline of `place`, with zeros for numbers.
fn plan(place: &Place, name: &str) -> PathBuf {
    let bytes = fs::read(place.out().join("pipeline.onnx")).expect("the file");
    let graph = ModelProto::decode(&bytes[..]).expect("ONNX").graph.expect("a graph");
    let mut tensors = Tensors::new();
    for input in graph.input {
        let tensor = input.r#type.and_then(|kind| kind.tensor_type).expect("a tensor");
        let (dtype, width) = match tensor.elem_type {
            Some(number) if number == DType::I64 as i32 => (Dtype::I64, 8),
            Some(number) if number == DType::Bool as i32 => (Dtype::BOOL, 1),
            _ => (Dtype::F32, 4),
        };
        let sizes = tensor.shape.expect("a shape").dim.into_iter().map(|dim| match dim.value {
            Some(DimensionValue::DimValue(size)) => size as usize,
            Some(DimensionValue::DimParam(symbol)) => size(&symbol),
            None => 1,
        });
        let shape: Vec<usize> = sizes.collect();
        let bytes = vec![0; width * shape.iter().product::<usize>()];
        tensors.insert(input.name.expect("a name"), (dtype, shape, bytes));
    }
    let path = place.path().join(name);
    write_tensors(&path, &tensors);
    path
}

fn exported() -> Place {
    let place = Place::new();
    export(&Options { single: true, ..place.options() }, &mut ()).expect("an export");
    place
}

fn options(place: &Place, plans: &[&Path]) -> triton::Options {
    triton::Options {
        model: place.out(),
        plans: plans.iter().map(|path| path.to_path_buf()).collect(),
        out: place.path().join("repository"),
        name: "cats".to_string(),
        provider: Provider::Cpu,
    }
}

fn tree(folder: &Path, at: &str, files: &mut BTreeMap<String, PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry")) {
        let name = format!("{at}{}", entry.file_name().to_string_lossy());
        match entry.path().is_dir() {
            true => tree(&entry.path(), &format!("{name}/"), files),
            false => drop(files.insert(name, entry.path())),
        }
    }
}

#[test]
fn a_repository_has_all_that_its_models_read() {
    let place = exported();
    let plan = plan(&place, "quick.safetensors");
    let options = options(&place, &[&plan]);
    let names = triton::export(&options).expect("a repository");
    assert_eq!(names, ["cats", "cats-request", "cats-pipeline"]);
    let mut files = BTreeMap::new();
    tree(&options.out, "", &mut files);
    for name in [
        "cats/1/.keep",
        "cats/config.pbtxt",
        "cats-request/1/model.py",
        "cats-request/1/quick.safetensors",
        "cats-request/1/tokenizer.json",
        "cats-request/1/tokenizer_2.json",
        "cats-pipeline/1/pipeline.onnx",
        "cats-pipeline/1/deep-core.onnx.data",
        "cats-pipeline/warmup/quick.latents",
    ] {
        assert!(files.contains_key(name), "{name} is not in {:?}", files.keys());
    }
    // A warm-up is the first step alone.
    let length = |name: &str| fs::metadata(&files[name]).expect("a file").len();
    assert_eq!(length("cats-pipeline/warmup/quick.refresh"), 1);
    assert_eq!(length("cats-pipeline/warmup/quick.timesteps"), 4);
    assert_eq!(length("cats-pipeline/warmup/quick.latents"), 4 * 4 * 4 * 4);
    assert_eq!(length("cats-pipeline/warmup/quick.correction_up"), 4 * 16 * 4);
    let text = |name: &str| fs::read_to_string(&files[name]).expect("a text");
    let config = text("cats-pipeline/config.pbtxt");
    assert!(config.contains("name: \"images\" data_type: TYPE_UINT8 dims: [-1, -1, -1, 3]"));
    assert!(config.contains("kind: KIND_CPU") && !config.contains("tensorrt"), "{config}");
    assert!(config.contains("input_data_file: \"quick.refresh\""), "{config}");
    assert!(!text("cats-request/1/model.py").contains("__PAD_ID"));

    let out = place.path().join("gpu");
    let options = triton::Options { provider: Provider::TensorRt, out, ..options };
    triton::export(&options).expect("a repository");
    let config = fs::read_to_string(options.out.join("cats-pipeline/config.pbtxt")).expect("text");
    assert!(config.contains("kind: KIND_GPU"), "{config}");
    assert!(
        config.contains("key: \"trt_engine_cache_prefix\" value: \"cats-pipeline_"),
        "{config}"
    );
}

#[test]
fn what_cannot_be_a_repository_is_refused_with_the_reason() {
    let place = exported();
    let good = plan(&place, "quick.safetensors");
    let refused = |options: &triton::Options, expected: &str| {
        let told = message(&triton::export(options).expect_err(expected));
        assert!(told.contains(expected), "{told} does not say: {expected}");
        assert!(!place.path().join("repository").exists());
    };
    let with = |plans: &[&Path]| options(&place, plans);

    refused(&with(&[]), "hydit-serve plan --tensors writes one");
    refused(&with(&[&place.path().join("none.safetensors")]), "none.safetensors");
    let other = place.path().join("other");
    fs::create_dir(&other).expect("a folder");
    fs::copy(&good, other.join("quick.safetensors")).expect("a copy");
    refused(&with(&[&good, &other.join("quick.safetensors")]), "two plans are called quick");
    let spaced = place.path().join("a b\".safetensors");
    fs::copy(&good, &spaced).expect("a copy");
    refused(&with(&[&spaced]), "is no name for Triton");
    for name in ["", "..", "a/b", "a\"b", "ä", &"a".repeat(101)] {
        let options = triton::Options { name: name.to_string(), ..with(&[&good]) };
        refused(&options, "is no name for Triton");
    }

    // Plans of other models, and no plans.
    let mut tensors = read_tensors(&good);
    tensors.get_mut("cos").expect("a tensor").1 = vec![4, 8, 4];
    let wrong = place.path().join("wrong.safetensors");
    write_tensors(&wrong, &tensors);
    refused(&with(&[&wrong]), "its tensor `cos` is F32 [4, 8, 4]");
    tensors.remove("cos");
    write_tensors(&wrong, &tensors);
    refused(&with(&[&wrong]), "it has no tensor `cos`");
    fs::write(&wrong, "{}").expect("written");
    refused(&with(&[&wrong]), "wrong.safetensors");

    // Something is there; nothing of it is lost, and nothing is left beside it.
    let full = place.path().join("full");
    fs::create_dir(&full).expect("a folder");
    fs::write(full.join("thesis.tex"), "one").expect("written");
    let options = triton::Options { out: full.clone(), ..with(&[&good]) };
    refused(&options, "is not empty");
    assert_eq!(fs::read_dir(&full).expect("a folder").count(), 1);

    place.export().expect("an export");
    refused(&with(&[&good]), "export the checkpoint with --single");
    let left = fs::read_dir(place.path()).expect("a folder").map(|entry| entry.expect("one"));
    let left = left.filter(|entry| entry.file_name().to_string_lossy().starts_with('.'));
    assert_eq!(left.count(), 0, "something is left");
}
