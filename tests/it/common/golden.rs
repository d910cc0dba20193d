//! The goldens of `tests/reference`: see `golden.py` there for their form.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::synthetic;
use super::tensor::{self, Tensor, Tensors};

/// What diffusers or transformers computed, and from what.
#[derive(Clone)]
pub struct Golden {
    pub name: String,
    /// The text of the module's config.json.
    pub config: String,
    /// A folder of a checkpoint in the repository; `None` if the weights are synthetic.
    pub trained: Option<PathBuf>,
    pub inputs: Tensors,
    pub outputs: Tensors,
}

fn reference() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference")
}

/// The goldens of `folder` whose names start with `prefix`, in the order of their names.
pub fn all(folder: &str, prefix: &str) -> Vec<Golden> {
    let entries = fs::read_dir(reference().join(folder)).expect("a folder of goldens");
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            Some(name.strip_suffix(".safetensors")?.to_string())
        })
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort();
    assert!(!names.is_empty(), "no goldens {folder}/{prefix}*");
    names.iter().map(|name| read(folder, name)).collect()
}

/// One golden.
pub fn read(folder: &str, name: &str) -> Golden {
    let path = reference().join(folder).join(name);
    let text = fs::read_to_string(path.with_extension("json")).expect("the golden's JSON");
    let about: Value = serde_json::from_str(&text).expect("JSON");
    let stored = stored(&path.with_extension("safetensors"));
    let inputs = about["inputs"].as_object().expect("inputs");
    let inputs = inputs.iter().map(|(name, spec)| (name.clone(), input(name, spec, &stored)));
    let outputs = about["outputs"].as_object().expect("outputs").keys();
    Golden {
        name: format!("{folder}/{name}"),
        config: about["config"].to_string(),
        trained: match about["weights"].as_str().expect("weights") {
            "synthetic" => None,
            folder => Some(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)),
        },
        inputs: inputs.collect(),
        outputs: outputs.map(|name| (name.clone(), stored[name].clone())).collect(),
    }
}

fn stored(path: &Path) -> Tensors {
    tensor::read(&fs::read(path).expect("the golden's tensors"))
}

fn input(name: &str, spec: &Value, own: &Tensors) -> Tensor {
    let list = |value: &Value| -> Vec<usize> {
        let items = value.as_array().expect("a list").iter();
        items.map(|n| n.as_u64().expect("a size") as usize).collect()
    };
    if let Some(scale) = spec["scale"].as_f64() {
        return synthetic::floats(name, &list(&spec["shape"]), scale);
    }
    if let Some(range) = spec["range"].as_u64() {
        return synthetic::integers(name, &list(&spec["shape"]), range);
    }
    if let Some(length) = spec["length"].as_u64() {
        return synthetic::prefix_mask(&list(&spec["lengths"]), length as usize);
    }
    if spec["values"].is_array() {
        return written_out(spec);
    }
    match spec["in"].as_str() {
        Some(file) => stored(&reference().join(file))[spec["as"].as_str().expect("a name")].clone(),
        None => own[name].clone(),
    }
}

fn written_out(spec: &Value) -> Tensor {
    let (mut shape, mut flat) = (Vec::new(), vec![&spec["values"]]);
    while let Some(first) = flat[0].as_array() {
        shape.push(first.len());
        flat = flat.iter().flat_map(|v| v.as_array().expect("a full list")).collect();
    }
    let sizes: Vec<usize> = (0..shape.len()).map(|i| shape[i]).collect();
    match spec["dtype"].as_str().expect("a type") {
        "int64" => Tensor::i64(&sizes, flat.iter().map(|v| v.as_i64().expect("whole")).collect()),
        _ => {
            Tensor::f32(&sizes, flat.iter().map(|v| v.as_f64().expect("a number") as f32).collect())
        }
    }
}
