//! OpenVINO's true plugin on the CPU, held against ONNX Runtime's own kernels.

use std::path::Path;

use hydit::Pipeline;
use hydit::artifacts::{Artifacts, unfit};
use hydit::cache::CachePolicy;
use hydit::eval::compare::psnr;
use hydit::eval::verify::{Tensors, Tolerance};
use hydit::runtime::{Backend, BackendChoice, PluginOptions, Provider, RuntimeOptions};
use hydit::{Request, image::Image};
use hydit_graphs::{GraphOptions, Precision, Target};
use hydit_testing::protobuf::{Value, write};
use hydit_testing::{emoji, plugin};

pub fn open(provider: &str) -> Backend {
    let provider: Provider = provider.parse().expect("a provider");
    let library = matches!(provider, Provider::Plugin(_)).then(plugin::openvino);
    let options = RuntimeOptions {
        backend: BackendChoice::Ort,
        provider,
        plugin: PluginOptions { library, ..Default::default() },
        threads: Some(1),
        ..Default::default()
    };
    Backend::open(&options).unwrap_or_else(|error| panic!("{error}"))
}

/// The largest relative L2 distance of a graph of `folder` between `provider` and the CPU provider.
fn worst(folder: &Path, provider: &str) -> f64 {
    let artifacts = Artifacts::open(folder).expect("artifacts");
    let mut worst = 0.0f64;
    for graph in &artifacts.manifest.graphs {
        let [ours, theirs] = ["cpu", provider].map(|provider| {
            let backend = open(provider);
            let mut session = artifacts
                .load(&graph.name, &backend)
                .unwrap_or_else(|error| panic!("{provider}: {}: {error}", graph.name));
            let mut tensors =
                Tensors::random(&artifacts.manifest, graph, &backend).expect("tensors");
            tensors.run(&mut session).unwrap_or_else(|error| panic!("{}: {error}", graph.name))
        });
        let error = ours.error(&theirs);
        assert!(error.is_finite() && error > 0.0, "{}: {error:.1e} on {provider}", graph.name);
        worst = worst.max(error);
    }
    worst
}

/// fp32 rounds every operation to 24 bits on both sides, in another order. What computes in fp32
/// whatever the processor likes best stays there.
#[test]
fn openvino_computes_every_graph_in_fp32() {
    let error = worst(&emoji::artifacts(), "openvino");
    assert!(error <= 1e-5, "{error:.1e}");
}

/// fp16 within what engines may differ by. What OpenVINO takes and computes otherwise is refused.
#[test]
fn openvino_computes_fp16_and_refuses_what_it_does_not_compute() {
    let fp16 = GraphOptions::from((Precision::Fp16, Target::Portable));
    let error = worst(&emoji::artifacts_for(fp16), "openvino");
    assert!(error <= Tolerance::of(Precision::Fp16).engines, "{error:.1e}");
    let fused = GraphOptions::from((Precision::Fp32, Target::OrtCpu));
    let bf16 = GraphOptions::from((Precision::Bf16, Target::TensorRt));
    let int8 = GraphOptions::from((Precision::Int8, Target::Portable));
    for (options, expected) in
        [(fused, "(form ort-cpu)"), (bf16, "written in bf16"), (int8, "written in int8")]
    {
        let message = unfit(options, open("openvino").ort_provider()).expect("a refusal");
        assert!(message.contains(expected) && message.contains("openvino"), "{message}");
    }
}

/// An image in fp32 is the same to one channel value of 255 or so; in bf16, of 8 bits, it is not.
#[test]
fn openvino_draws_the_picture_of_the_cpu_with_and_without_the_cache() {
    let folder = emoji::artifacts();
    let images = |provider: &str, policy: &str| -> Image {
        let mut pipeline = Pipeline::load(&folder, open(provider)).expect("a pipeline");
        let cache_policy: CachePolicy = policy.parse().expect("a policy");
        let request = Request { cache_policy, ..emoji::cat(pipeline.manifest(), 8) };
        let request = emoji::checked(&pipeline, &request);
        let mut made = pipeline.generate(&request, &mut emoji::ignore).expect("it draws");
        made.images.remove(0)
    };
    for policy in ["off", "N2", "N2+taylor1"] {
        let decibels = psnr(&images("cpu", policy), &images("openvino", policy)).expect("one size");
        assert!(decibels >= 55.0, "{policy}: {decibels:.1} dB");
    }
    let decibels = psnr(&images("cpu", "off"), &images("openvino:bf16", "off")).expect("one size");
    assert!((20.0..55.0).contains(&decibels), "{decibels:.1} dB: bf16 was asked for");
}

/// `z = Det(Relu(x))`: OpenVINO has no determinants.
fn determinant() -> Vec<u8> {
    let text = |number, text: &str| (number, Value::Bytes(text.into()));
    let message = |number, fields: &[_]| (number, Value::Bytes(write(fields)));
    let node = |operator, input, output, name| {
        message(1, &[text(1, input), text(2, output), text(3, name), text(4, operator)])
    };
    let tensor = |number, name, dims: &[u64]| {
        let dims: Vec<_> =
            dims.iter().map(|&size| message(1, &[(1, Value::Number(size))])).collect();
        let tensor = message(1, &[(1, Value::Number(1)), message(2, &dims)]);
        message(number, &[text(1, name), message(2, &[tensor])])
    };
    let graph = [
        node("Relu", "x", "y", "first"),
        node("Det", "y", "z", "of/mine"),
        text(2, "graph"),
        tensor(11, "x", &[2, 2]),
        tensor(12, "z", &[]),
    ];
    let opset = message(8, &[text(1, ""), (2, Value::Number(17))]);
    write(&[(1, Value::Number(8)), message(7, &graph), opset])
}

#[test]
fn a_node_that_a_provider_lacks_is_named_and_not_run_on_the_cpu() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("determinant.onnx");
    std::fs::write(&file, determinant()).expect("a written file");
    open("cpu").load(&file).expect("the CPU provider has determinants");
    let message = open("openvino").load(&file).err().expect("a refusal").to_string();
    let expected = "the openvino provider does not take all nodes, and nothing runs on the CPU \
                    instead: Det `of/mine`\n";
    assert!(message.contains(expected), "{message}");
}
