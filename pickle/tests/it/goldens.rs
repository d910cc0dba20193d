//! Files of torch, with what torch reads in them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use hydit_pickle::{Dtype, Error, Key, Tensor, Value, read};
use serde_json::Value as Json;

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/pickle")
}

pub fn golden(name: &str) -> Vec<u8> {
    fs::read(folder().join(name)).expect("a golden")
}

fn about(name: &str) -> BTreeMap<String, BTreeMap<String, Json>> {
    serde_json::from_slice(&golden(name)).expect("JSON")
}

fn crc32(bytes: impl Iterator<Item = u8>) -> u32 {
    !bytes.fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & !(crc & 1).wrapping_sub(1))
        })
    })
}

/// The bytes of all elements, in order.
fn gathered(tensor: &Tensor, file: &[u8]) -> Vec<u8> {
    let size = tensor.dtype.size();
    tensor.offsets().flat_map(|at| file[at as usize..][..size].to_vec()).collect()
}

fn numbers(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f64>> {
    let of = |read: &dyn Fn(&[u8]) -> f64| bytes.chunks(dtype.size()).map(read).collect();
    Some(match dtype {
        Dtype::F32 => of(&|b| f32::from_le_bytes(b.try_into().expect("4")).into()),
        Dtype::F64 => of(&|b| f64::from_le_bytes(b.try_into().expect("8"))),
        Dtype::I64 => of(&|b| i64::from_le_bytes(b.try_into().expect("8")) as f64),
        Dtype::I16 => of(&|b| i16::from_le_bytes(b.try_into().expect("2")).into()),
        Dtype::U8 | Dtype::Bool => of(&|b| b[0].into()),
        _ => return None, // their bytes are compared
    })
}

fn check(file: &str, tensors: &BTreeMap<String, Json>) {
    let bytes = golden(&format!("{file}.pt"));
    let value = read(&bytes).unwrap_or_else(|error| panic!("{file}: {error}"));
    let found = value.tensors().expect("names differ");
    let names: Vec<&String> = found.keys().collect();
    assert_eq!(names, tensors.keys().collect::<Vec<_>>(), "{file}");
    let mut storages = BTreeMap::new();
    for (name, tensor) in found {
        let what = format!("{file}: {name}");
        let expected = &tensors[name.as_str()];
        assert_eq!(tensor.dtype.name(), expected["dtype"], "{what}");
        assert_eq!(Json::from(tensor.shape.clone()), expected["shape"], "{what}");
        assert_eq!(Json::from(tensor.strides.clone()), expected["strides"], "{what}");
        let offset = (tensor.start - tensor.storage.start) / tensor.dtype.size() as u64;
        assert_eq!(offset, expected["offset"], "{what}");
        let elements = gathered(tensor, &bytes);
        assert_eq!(crc32(elements.iter().copied()), expected["crc32"], "{what}");
        if let Some(numbers) = numbers(tensor.dtype, &elements) {
            let first = &numbers[..numbers.len().min(3)];
            assert_eq!(Json::from(first), expected["first"], "{what}");
        }
        assert_eq!(tensor.is_contiguous(), tensor.bytes(&bytes).is_some(), "{what}");
        if let Some(contiguous) = tensor.bytes(&bytes) {
            assert_eq!(contiguous, elements, "{what}");
        }
        let range = storages.entry(expected["storage"].to_string()).or_insert(&tensor.storage);
        assert_eq!(*range, &tensor.storage, "{what}: its storage is another");
    }
    let mut ranges: Vec<_> = storages.values().map(|range| (range.start, range.end)).collect();
    ranges.sort_unstable();
    assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{file}: storages overlap");
}

#[test]
fn tensors_are_what_torch_says() {
    let files = about("pickle.json");
    assert!(files.len() >= 10);
    files.iter().for_each(|(file, tensors)| check(file, tensors));
}

#[test]
fn files_of_torch_1_6_are_read() {
    about("torch-1.6.json").iter().for_each(|(file, tensors)| check(file, tensors));
}

#[test]
fn only_what_lies_in_order_is_contiguous() {
    let file = golden("views.pt");
    let value = read(&file).expect("it is read");
    let tensors = value.tensors().expect("names differ");
    let names = |contiguous: bool| {
        let names = tensors.iter().filter(|(_, tensor)| tensor.is_contiguous() == contiguous);
        names.map(|(name, _)| name.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(names(true), ["base", "element", "empty", "rows", "same", "scalar"]);
    let others = ["channels_last", "columns", "every_second", "expanded", "permuted", "transposed"];
    assert_eq!(names(false), others);
}

#[test]
fn plain_values_come_out_as_they_are() {
    let file = golden("plain.pt");
    let value = read(&file).expect("it is read");
    let list = |values: &[Value<'static>]| Value::List(values.to_vec());
    for (key, expected) in [
        ("steps", Value::Int(300)),
        ("negative", Value::Int(-70000)),
        ("large", Value::Int(-(1 << 62) - 1)),
        ("rate", Value::Float(1e-4)),
        ("flags", list(&[Value::Bool(true), Value::Bool(false), Value::None])),
        ("name", Value::Text("混元")),
        ("shape", list(&[1, 2, 3, 4].map(Value::Int))),
    ] {
        assert_eq!(value.get(key), Some(&expected), "{key}");
    }
    let Value::Dict(entries) = &value else { panic!("{value:?}") };
    assert_eq!(entries[0].0, Key::Text("weight"));
    assert_eq!(entries.last(), Some(&(Key::Int(7), Value::Text("seven"))));
    assert!(format!("{value:?}").starts_with(
        r#"{"weight": float32[2, 3], "half": float16[5], "steps": 300, "negative": -70000, "#
    ));
}

#[test]
fn what_training_scripts_keep_beside_the_weights_is_read() {
    for protocol in ["wrapped.pt", "protocol-3.pt", "protocol-4.pt", "protocol-5.pt"] {
        let file = golden(protocol);
        let value = read(&file).expect("it is read");
        assert_eq!(value.get("device"), Some(&Value::Text("cuda")), "{protocol}");
        assert_eq!(value.get("dtype"), Some(&Value::Text("bfloat16")));
        assert_eq!(value.get("sparse_tensor_module_names"), Some(&Value::List(Vec::new())));
        let Some(Value::List(shapes)) = value.get("param_shapes") else { panic!("{value:?}") };
        let shape = Value::List([3, 2, 3, 3].map(Value::Int).to_vec());
        assert_eq!(shapes[0].get("0.weight"), Some(&shape));
        let module = value.get("module").expect("the model").tensors().expect("names differ");
        assert_eq!(module["1.running_mean"].shape, [3]);
        let state = value.get("optimizer").and_then(|optimizer| optimizer.get("state"));
        let Some(Value::Dict(state)) = state else { panic!("{value:?}") };
        assert_eq!(state[0].0, Key::Int(0));
    }
}

#[test]
fn files_of_torch_with_more_than_weights_are_refused_by_name() {
    for (name, expected) in [
        ("legacy", "it is a checkpoint in the format of torch before 1.6; save it again"),
        ("module", "it wants Python's `torch.nn.modules.container.Sequential`, which is never run"),
        ("numpy", "_reconstruct`, which is never run here; load the file once in Python"),
        ("sparse", "`torch._utils._rebuild_sparse_tensor`"),
        ("complex", "`torch.ComplexFloatStorage`"),
        ("negative", "tensor `weight`: a conjugate or negative view; save its .resolve_conj()"),
        ("expanded", "tensor `weight`: shape [3, 4], strides [1, 0], offset 0 has more elements"),
        ("large-integer", "an integer of 9 bytes"),
        ("torchscript", "it is a TorchScript archive, a program with its weights"),
    ] {
        let file = golden(&format!("refused-{name}.pt"));
        let error: Error = read(&file).expect_err(name);
        let message = error.to_string();
        assert!(message.contains(expected), "{name}: {message}");
    }
}
