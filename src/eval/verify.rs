//! Graphs on random inputs: one engine against the other, the split transformer against the whole.

use std::collections::BTreeMap;

use hydit_graphs::lora::{is_slot, stacks};
use hydit_graphs::manifest::{GraphEntry, Manifest};
use hydit_graphs::{DType, Precision, Sizes, TensorSpec, pag};

use super::statistics::relative_error;
use crate::artifacts::Artifacts;
use crate::error::Result;
use crate::pipeline::rope;
use crate::runtime::{Backend, Session, TensorInfo, Value};
use crate::sampler::TorchGenerator;

/// How far apart results may be, as relative L2 distance.
pub struct Tolerance {
    /// Between two engines.
    pub engines: f64,
    /// Between the split transformer and the whole, on one engine.
    pub split: f64,
}

impl Tolerance {
    /// For graphs whose matrices are stored in `precision`. A wrong graph is off by 0.1 or more.
    ///
    /// fp32: engines round every operation to 24 bits, each in its order, and stay below 1e-5.
    /// ONNX Runtime gives the same bits split and whole; tract fuses across the seams.
    ///
    /// fp16: tract rounds every operation to 11 bits, ONNX Runtime on a CPU next to none. What crosses
    /// the seams is fp32 in every precision, so split and whole differ by what an engine fuses.
    ///
    /// bf16: 8 bits, so eight times the roundings of fp16.
    ///
    /// fp8: whatever an engine rounds otherwise may fall to another 8-bit float, a sixteenth away;
    /// of many products few do.
    pub fn of(precision: Precision) -> Tolerance {
        match precision {
            Precision::Int8 => Tolerance { engines: 3e-2, split: 3e-2 },
            Precision::Fp16 => Tolerance { engines: 3e-2, split: 1e-2 },
            Precision::Fp8 | Precision::Bf16 => Tolerance { engines: 8e-2, split: 8e-2 },
            Precision::Fp32 => Tolerance { engines: 1e-4, split: 1e-6 },
        }
    }
}

/// Sizes small enough for any model: two rows, a grid that is not square.
const SIZES: Sizes = Sizes {
    batch: 2,
    grid_height: 4,
    grid_width: 6,
    height: 8,
    width: 12,
    rank: 3,
    control_tokens: 24,
    image_tokens: 5,
};

/// Tensors of an engine by name: what a graph reads and what it has made.
#[derive(Default)]
pub struct Tensors(BTreeMap<String, Value>);

/// Outputs of a graph, in its order, on the host.
pub struct Outputs(Vec<Vec<f32>>);

impl Tensors {
    /// Random inputs for `graph`, of the kind each one has in a request; always the same.
    pub fn random(manifest: &Manifest, graph: &GraphEntry, backend: &Backend) -> Result<Tensors> {
        let mut noise = TorchGenerator::new(0);
        let mut tensors = Tensors::default();
        for spec in &graph.inputs {
            let value = random(manifest, graph, spec, backend, &mut noise)?;
            tensors.0.insert(spec.name.clone(), value);
        }
        Ok(tensors)
    }

    /// Runs `session` on those of its inputs' names; its outputs join them.
    pub fn run(&mut self, session: &mut Session) -> Result<Outputs> {
        let names = |infos: &[TensorInfo]| -> Vec<String> {
            infos.iter().map(|info| info.name.clone()).collect()
        };
        let (inputs, outputs) = (names(session.inputs()), names(session.outputs()));
        let given = inputs.iter().filter_map(|name| Some((name.as_str(), self.0.get(name)?)));
        let made = session.run(&given.collect::<Vec<_>>())?;
        let host = |value: &Value| Ok(value.read_f32()?.into_owned());
        let copies = made.iter().map(host).collect::<Result<_>>()?;
        self.0.extend(outputs.into_iter().zip(made));
        Ok(Outputs(copies))
    }
}

impl Outputs {
    /// Relative L2 distance to `other`, the worst over the outputs; NaN if either is not finite.
    pub fn error(&self, other: &Outputs) -> f64 {
        self.0.iter().zip(&other.0).map(|(a, b)| relative_error(a, b)).fold(0.0, worst)
    }
}

/// Runs encoder, core and decoder in a row, and `full`, on the same inputs; gives their relative
/// L2 distance.
pub fn split_against_full(artifacts: &Artifacts, backend: &Backend) -> Result<f64> {
    let load = |name: &str| artifacts.load(name, backend);
    let full = artifacts.entry("full")?;
    let mut tensors = Tensors::random(&artifacts.manifest, full, backend)?;
    let whole = tensors.run(&mut load("full")?)?;
    let mut run = |part: &str| {
        // The same names mean the slots of other layers.
        let entry = artifacts.entry(part)?;
        for spec in entry.inputs.iter().filter(|spec| is_slot(&spec.name)) {
            let slots = slots(&artifacts.manifest, entry, spec, backend)?;
            tensors.0.insert(spec.name.clone(), slots);
        }
        tensors.run(&mut load(part)?)
    };
    run("shallow-encoder")?;
    run("deep-core")?;
    Ok(run("shallow-decoder")?.error(&whole))
}

/// The numbers of the slots `spec` of `graph`: as small as the changes of a LoRA, and for a layer the
/// same in every graph that has it.
fn slots(
    manifest: &Manifest,
    graph: &GraphEntry,
    spec: &TensorSpec,
    backend: &Backend,
) -> Result<Value> {
    let dit = manifest.model.transformer.hunyuan_dit().expect("only Hunyuan-DiT has slots");
    let modules = |graph: &str| {
        let stacks = stacks(graph, dit, manifest.cache_at_branch).into_iter();
        let own = stacks.filter(|stack| stack.names.contains(&spec.name.as_str()));
        own.flat_map(|stack| stack.modules).collect::<Vec<_>>()
    };
    let all = modules("full");
    let shape = shape(spec);
    let row = shape[1..].iter().product();
    let of_layer = |module: &String| {
        let place = all.iter().position(|known| known == module).unwrap_or(all.len());
        let mut noise = TorchGenerator::new(2 * place as u64 + u64::from(spec.name.ends_with('b')));
        noise.randn(row).into_iter().map(|x| 0.05 * x).collect::<Vec<f32>>()
    };
    let numbers: Vec<f32> = modules(&graph.name).iter().flat_map(of_layer).collect();
    floats(spec.dtype, &shape, &numbers, backend)
}

fn shape(spec: &TensorSpec) -> Vec<usize> {
    spec.shape.iter().map(|dim| dim.at(&SIZES) as usize).collect()
}

fn floats(dtype: DType, shape: &[usize], numbers: &[f32], backend: &Backend) -> Result<Value> {
    Ok(match dtype {
        DType::F16 => backend.tensor_f16(shape, numbers)?,
        DType::BF16 => backend.tensor_bf16(shape, numbers)?,
        _ => backend.tensor_f32(shape, numbers)?,
    })
}

/// A value for the input `spec`: ids within the vocabulary, masks half full, true rotary tables, slots
/// of LoRAs, every second row perturbed, standard normal otherwise.
fn random(
    manifest: &Manifest,
    graph: &GraphEntry,
    spec: &TensorSpec,
    backend: &Backend,
    noise: &mut TorchGenerator,
) -> Result<Value> {
    if is_slot(&spec.name) {
        return slots(manifest, graph, spec, backend);
    }
    let shape = shape(spec);
    let elements = shape.iter().product();
    let row = *shape.last().unwrap_or(&1);
    let model = &manifest.model;
    let numbers = match spec.name.as_str() {
        "cos" | "sin" => {
            let (cos, sin) =
                rope::tables(shape[0], shape[1], shape[2], manifest.variant.rope_convention);
            if spec.name == "cos" { cos } else { sin }
        }
        "timestep" => vec![500.0; elements],
        pag::INPUT => (0..elements).map(|row| (row % 2) as f32).collect(),
        "image_meta_size" => [1024.0, 1024.0, 64.0, 96.0, 0.0, 0.0].repeat(shape[0]),
        _ => noise.randn(elements),
    };
    Ok(match spec.dtype {
        dtype @ (DType::F32 | DType::F16 | DType::BF16) => {
            floats(dtype, &shape, &numbers, backend)?
        }
        _ => {
            let vocabulary = match graph.name.as_str() {
                "text-encoder" => model.text_encoder.as_ref().map(|bert| bert.vocab_size),
                "text-encoder-2" => model.text_encoder_2.as_ref().map(|t5| t5.vocab_size),
                _ => model.transformer.shape().num_classes,
            };
            let vocabulary = vocabulary.unwrap_or(1);
            let whole = |i: usize| match spec.name.as_str() {
                name if name.contains("mask") => usize::from(i % row <= row / 2),
                "style" => 0,
                _ => i * 7919 % vocabulary,
            };
            let values: Vec<i64> = (0..elements).map(|i| whole(i) as i64).collect();
            backend.tensor_i64(&shape, &values)?
        }
    })
}

/// The larger, or NaN if one is: `f64::max` would hide it.
fn worst(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}
