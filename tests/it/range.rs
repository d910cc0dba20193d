//! fp16 where activations are larger than fp16 holds: in the residual stream of the last deep block
//! (v1.2's "layer 38 result is NaN"), in attention scores, in T5's feed-forward layers. Our graphs
//! must draw what fp32 draws; the same graphs with every fp32 part turned into fp16 fail.

use std::path::Path;

use half::f16;
use hydit::Request;
use hydit::artifacts::Artifacts;
use hydit::eval::compare::psnr;
use hydit::eval::finite::{FP16_MAX, check};
use hydit::runtime::BackendChoice;
use hydit_export::Component;
use hydit_graphs::{DType, Dim, GraphDef, Precision, Sizes, Source, hunyuan_dit, t5};
use hydit_testing::{emoji, loud};
use tempfile::TempDir;

use crate::common::graphs::{Exporter, load, open, run};
use crate::common::synthetic;
use crate::common::tensor::{Tensor, Tensors, distance};

type Change = fn(&str) -> Option<(f32, f32)>;

/// All that block 4, the last of 6 that is deep, adds to the residual stream.
fn residual(name: &str) -> Option<(f32, f32)> {
    let layers = ["skip_linear", "attn1.to_out.0", "attn2.to_out.0", "ff.net.2"];
    let layer = name.strip_prefix("blocks.4.")?;
    layers.iter().any(|l| layer.starts_with(l)).then_some((1.5e4, 0.0))
}

/// What all keys of the text in block 2 have in common, which softmax does not see.
fn scores(name: &str) -> Option<(f32, f32)> {
    (name == "blocks.2.attn2.norm_k.bias").then_some((1.0, 6e4))
}

/// The gated values within the feed-forward layer of T5's second layer.
fn feed_forward(name: &str) -> Option<(f32, f32)> {
    name.starts_with("encoder.block.1.layer.1.DenseReluDense.wi").then_some((300.0, 0.0))
}

/// A checkpoint with one component changed.
fn checkpoint(component: Component, by: Change) -> TempDir {
    let folder = loud::checkpoint();
    match component {
        Component::Transformer => loud::change_transformer(folder.path(), by),
        _ => loud::change(&folder.path().join("text_encoder_2/model.safetensors"), by),
    }
    folder
}

/// The same graph in fp16 throughout.
fn naive(mut graph: GraphDef) -> GraphDef {
    let narrow = |dtype: &mut DType| {
        if *dtype == DType::F32 {
            *dtype = DType::F16;
        }
    };
    for spec in graph.inputs.iter_mut().chain(&mut graph.outputs) {
        narrow(&mut spec.dtype);
    }
    for weight in &mut graph.initializers {
        if let (DType::F32, Source::Constant(bytes)) = (weight.dtype, &mut weight.source) {
            let values = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
            // The lowest number of a mask is that of the type.
            let values = values.map(|v| f16::from_f32(v.clamp(-FP16_MAX, FP16_MAX)));
            *bytes = values.flat_map(f16::to_le_bytes).collect();
        }
        narrow(&mut weight.dtype);
    }
    for cast in graph.nodes.iter_mut().filter(|node| node.op_type.as_deref() == Some("Cast")) {
        let to = cast.attribute[0].i.as_mut().expect("a type");
        if *to == DType::F32 as i64 {
            *to = DType::F16 as i64;
        }
    }
    graph
}

/// Inputs of the size that activations have.
fn inputs(graph: &GraphDef) -> Tensors {
    let sizes =
        Sizes { batch: 2, grid_height: 4, grid_width: 4, height: 8, width: 8, ..Sizes::default() };
    let value = |name: &str, shape: &[Dim]| -> Tensor {
        let shape: Vec<usize> = shape.iter().map(|dim| dim.at(&sizes) as usize).collect();
        match name {
            "input_ids" => synthetic::integers(name, &shape, 200),
            "attention_mask" => synthetic::prefix_mask(&[20, 40], shape[1]),
            "cos" | "sin" => synthetic::floats(name, &shape, 0.7),
            _ => synthetic::floats(name, &shape, 1.7),
        }
    };
    graph.inputs.iter().map(|spec| (spec.name.clone(), value(&spec.name, &spec.shape))).collect()
}

/// The output of a graph of `checkpoint`, computed by tract, which rounds after every operator.
fn output(checkpoint: &Path, component: Component, graph: GraphDef) -> Tensor {
    let exporter = Exporter::of_checkpoint(checkpoint, component);
    let feed = inputs(&graph);
    let name = graph.outputs[0].name.clone();
    let graphs = [graph];
    let folder = exporter.write("graphs", &graphs);
    let backend = open(BackendChoice::Tract);
    run(&backend, &mut load(&backend, &folder, &graphs[0]), &feed).remove(&name).expect("made")
}

/// The graph of `component` that a change of it concerns.
fn graph(checkpoint: &Path, component: Component, precision: Precision) -> GraphDef {
    let out = tempfile::tempdir().expect("a folder");
    let model =
        emoji::export(checkpoint, out.path(), 1, Precision::Fp32).expect("it exports").model;
    let (dit, _, t5) = model.hunyuan_dit().expect("a Hunyuan-DiT");
    match component {
        Component::Transformer => hunyuan_dit::deep_core(dit, 1, precision),
        _ => t5::text_encoder_2(t5, dit.text_len_t5, precision),
    }
}

fn is_finite(tensor: &Tensor) -> bool {
    tensor.floats().iter().all(|x| x.is_finite())
}

/// Draws with the checkpoint in fp32 and in fp16; gives the PSNR between the pictures, and the
/// largest value of `block` in fp32.
fn drawn(checkpoint: &Path, block: &str) -> (f64, f32) {
    let draw = |precision| {
        let out = tempfile::tempdir().expect("a folder");
        emoji::export(checkpoint, out.path(), 1, precision).expect("it exports");
        let artifacts = Artifacts::open(out.path()).expect("an export");
        let request = Request::new(&artifacts.manifest, "a cat").expect("a request");
        let request = Request { steps: 4, ..request };
        let backend = emoji::backend(BackendChoice::Tract);
        let seen = check(artifacts, backend.clone(), &request).expect("it is checked");
        assert!(seen.left.is_empty(), "{:?}", seen.left);
        let block = seen.values.iter().find(|m| m.is_block && m.name == block).expect("a block");
        let mut pipeline = hydit::Pipeline::load(out.path(), backend).expect("it loads");
        let request = emoji::checked(&pipeline, &request);
        let mut drawn = pipeline.generate(&request, &mut emoji::ignore).expect("it draws");
        (drawn.images.remove(0), block.largest)
    };
    let [(plain, largest), (narrow, _)] = [Precision::Fp32, Precision::Fp16].map(draw);
    (psnr(&plain, &narrow).expect("one size"), largest)
}

/// Checks that our fp16 form survives `change` and the naive one does not; gives the largest value
/// of `block`.
fn survives(component: Component, change: Change, block: &str) -> f32 {
    let (quiet, loud) = (loud::checkpoint(), checkpoint(component, change));
    let of = |folder: &TempDir, precision| graph(folder.path(), component, precision);
    let run = |folder: &TempDir, graph| output(folder.path(), component, graph);
    let exact = run(&quiet, of(&quiet, Precision::Fp32));
    let error = distance(&run(&quiet, naive(of(&quiet, Precision::Fp16))), &exact);
    assert!(error < 3e-2, "the naive form computes something else: {error}");
    assert!(!is_finite(&run(&loud, naive(of(&loud, Precision::Fp16)))), "it is not loud enough");
    let exact = run(&loud, of(&loud, Precision::Fp32));
    let error = distance(&run(&loud, of(&loud, Precision::Fp16)), &exact);
    let (level, largest) = drawn(loud.path(), block);
    println!("{block}: {largest}, error of the graph {error:.1e}, pictures {level:.1} dB apart");
    assert!(error < 1e-2 && level >= 35.0, "{error}, {level} dB");
    largest
}

#[test]
fn a_residual_stream_beyond_fp16_is_survived() {
    assert!(survives(Component::Transformer, residual, "blocks.4") > FP16_MAX);
}

#[test]
fn attention_scores_beyond_fp16_are_survived() {
    survives(Component::Transformer, scores, "blocks.2");
}

#[test]
fn feed_forward_layers_of_t5_beyond_fp16_are_survived() {
    assert!(survives(Component::TextEncoder2, feed_forward, "encoder.block.1") > FP16_MAX);
}
