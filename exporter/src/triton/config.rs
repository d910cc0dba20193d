//! The `config.pbtxt` of each model: Triton's `ModelConfig` as text.

use std::fmt::Write;

use hydit_graphs::onnx::{DimensionValue, GraphProto, ValueInfoProto};
use hydit_graphs::{DType, single};

use super::Provider;
use super::plan::Plan;

/// What clients send: name, type, whether it may be left out.
const ASKED: [(&str, &str, bool); 4] = [
    ("prompt", "TYPE_STRING", false),
    ("negative_prompt", "TYPE_STRING", true),
    ("seed", "TYPE_INT64", true),
    ("plan", "TYPE_STRING", true),
];

/// A tensor of the pipeline: its name, its type in Triton, its sizes.
pub struct Edge {
    name: String,
    dtype: DType,
    /// -1 for a free size.
    dims: Vec<i64>,
}

/// The inputs and outputs of the pipeline.
pub struct Interface {
    inputs: Vec<Edge>,
    outputs: Vec<Edge>,
}

/// The inputs and outputs of `pipeline`.
pub fn interface(pipeline: &GraphProto) -> Interface {
    let edge = |value: &ValueInfoProto| Edge {
        name: value.name.clone().unwrap_or_default(),
        dtype: dtype(value),
        dims: dims(value)
            .iter()
            .map(|size| match size {
                Some(DimensionValue::DimValue(size)) => *size,
                _ => -1,
            })
            .collect(),
    };
    Interface {
        inputs: pipeline.input.iter().map(edge).collect(),
        outputs: pipeline.output.iter().map(edge).collect(),
    }
}

/// The element type of a value.
pub fn dtype(value: &ValueInfoProto) -> DType {
    let tensor = value.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref());
    let number = tensor.and_then(|tensor| tensor.elem_type);
    number.and_then(DType::from_repr).unwrap_or(DType::F32)
}

/// The sizes of a value.
pub fn dims(value: &ValueInfoProto) -> Vec<Option<DimensionValue>> {
    let tensor = value.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref());
    let shape = tensor.and_then(|tensor| tensor.shape.as_ref());
    shape.map_or(Vec::new(), |shape| shape.dim.iter().map(|dim| dim.value.clone()).collect())
}

impl Edge {
    fn triton_type(&self) -> &'static str {
        match self.dtype {
            DType::I64 => "TYPE_INT64",
            DType::Bool => "TYPE_BOOL",
            DType::U8 => "TYPE_UINT8",
            _ => "TYPE_FP32",
        }
    }

    /// As an entry of `input` or `output`.
    fn text(&self) -> String {
        let Edge { name, dims, .. } = self;
        let dtype = self.triton_type();
        format!("  {{ name: \"{name}\" data_type: {dtype} dims: {dims:?} }}")
    }
}

fn list(field: &str, entries: impl Iterator<Item = String>) -> String {
    format!("{field} [\n{}\n]\n", entries.collect::<Vec<_>>().join(",\n"))
}

fn asked() -> String {
    let entry = |(name, dtype, optional): (&str, &str, bool)| {
        let optional = if optional { " optional: true" } else { "" };
        format!("  {{ name: \"{name}\" data_type: {dtype} dims: [ 1 ]{optional} }}")
    };
    list("input", ASKED.into_iter().map(entry))
}

/// The config of the ensemble: prompt in, image out.
pub fn ensemble([name, request, pipeline]: &[String; 3], interface: &Interface) -> String {
    let map = |side: &str, there: &str| {
        format!("      {side}_map {{ key: \"{there}\" value: \"{there}\" }}\n")
    };
    let asked_names: String = ASKED.iter().map(|(name, ..)| map("input", name)).collect();
    let made: String = interface.inputs.iter().map(|edge| map("output", &edge.name)).collect();
    let read: String = interface.inputs.iter().map(|edge| map("input", &edge.name)).collect();
    let drawn: String = interface.outputs.iter().map(|edge| map("output", &edge.name)).collect();
    format!(
        "name: \"{name}\"\nplatform: \"ensemble\"\nmax_batch_size: 0\n{}{}ensemble_scheduling {{\n  \
         step [\n    {{\n      model_name: \"{request}\"\n      model_version: -1\n{asked_names}{made}    \
         }},\n    {{\n      model_name: \"{pipeline}\"\n      model_version: -1\n{read}{drawn}    }}\n  \
         ]\n}}\n",
        asked(),
        list("output", interface.outputs.iter().map(Edge::text)),
    )
}

/// The config of the model that makes the pipeline's inputs.
pub fn request(name: &str, interface: &Interface) -> String {
    let made = list("output", interface.inputs.iter().map(Edge::text));
    format!(
        "name: \"{name}\"\nbackend: \"python\"\nmax_batch_size: 0\n{}{made}instance_group [ {{ kind: \
         KIND_CPU count: 1 }} ]\n",
        asked()
    )
}

/// The config of the pipeline. One call is one image or several of one size, so Triton batches
/// nothing; it draws the first step of each plan before it says that it is ready. `hash` is that of the
/// graph, `export` that of the manifest, by which `hydit-serve --backend triton` knows its model.
pub fn pipeline(
    name: &str,
    interface: &Interface,
    plans: &[Plan],
    provider: Provider,
    [hash, export]: [&str; 2],
) -> String {
    let Interface { inputs, outputs } = interface;
    let kind = if provider == Provider::Cpu { "KIND_CPU" } else { "KIND_GPU" };
    let mut text = format!(
        "name: \"{name}\"\nbackend: \"onnxruntime\"\ndefault_model_filename: \"{}\"\n\
         max_batch_size: 0\n{}{}instance_group [ {{ kind: {kind} count: 1 }} ]\n\
         parameters {{ key: \"hydit_export\" value {{ string_value: \"{export}\" }} }}\n",
        single::FILE,
        list("input", inputs.iter().map(Edge::text)),
        list("output", outputs.iter().map(Edge::text)),
    );
    if provider == Provider::TensorRt {
        let parameters = [
            ("trt_engine_cache_enable", "true".to_string()),
            ("trt_engine_cache_path", format!("/var/cache/{name}")),
            // Caches of other models and versions may be in the folder.
            ("trt_engine_cache_prefix", format!("{name}_{hash}")),
            ("trt_timing_cache_enable", "true".to_string()),
        ];
        let parameters = parameters.map(|(key, value)| {
            format!("        parameters {{ key: \"{key}\" value: \"{value}\" }}\n")
        });
        let _ = write!(
            text,
            "optimization {{\n  execution_accelerators {{\n    gpu_execution_accelerator: [\n      {{\n        \
             name: \"tensorrt\"\n{}      }}\n    ]\n  }}\n}}\n",
            parameters.concat()
        );
    }
    let warm_up = |plan: &Plan| {
        let input = |edge: &Edge| {
            let shape = plan.shape(&edge.name);
            format!(
                "    inputs {{ key: \"{}\" value {{ data_type: {} dims: {shape:?} input_data_file: \
                 \"{}\" }} }}\n",
                edge.name,
                edge.triton_type(),
                plan.warm_up_file(&edge.name)
            )
        };
        let inputs: String = inputs.iter().map(input).collect();
        format!("  {{\n    name: \"{}\"\n{inputs}  }}", plan.name)
    };
    text + &list("model_warmup", plans.iter().map(warm_up))
}
