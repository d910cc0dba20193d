//! Graphs of every precision and form against the fp32 goldens, on every engine that runs them.
//!
//! fp16 keeps 11 bits: every product and sum rounds by up to 4.9e-4 of its size, and through the
//! layers of a model (some 100 roundings that add up like a random walk) this becomes a few 1e-3 of
//! the output. The tolerance is 1e-2; a structural mistake is 0.1 and more. tract computes products
//! in fp16, ONNX Runtime's CPU provider by way of fp32. Convolutions in tract also add their
//! hundreds of terms up in fp16, one picture's error is up to 8.5e-3 then; there the tolerance is
//! 3e-2.
//!
//! int8 rounds weights and activations to 8 bits, by up to 1/254 of the largest of a channel or
//! tensor: 1e-2 of a typical value, of which the blocks make 1e-2 to 2e-2 of the output; the
//! tolerance is 4e-2. Both engines give the same numbers: integers do not round.
//!
//! fp8 keeps 4 bits in the linears of the blocks: a weight or an activation rounds by up to 1/16 of
//! its size and 2.6e-2 in the mean, a product of two by 3.7e-2, and the blocks add up to 9e-2 of the
//! output. The tolerance is 1e-1; a wrong scale is off by a half and more.
//!
//! bf16 keeps 8 bits, eight times less than fp16: 5e-2. Only a GPU runs it (`HYDIT_TEST_PROVIDER`);
//! `tests/python/check_onnx.py` has ONNX's own reference compute it on a CPU.
//!
//! In fp32 every form computes what the portable one computes: 1e-5, as tests/parity.rs.

use hydit::artifacts::unfit;
use hydit::runtime::Provider;
use hydit_export::Component;
use hydit_graphs::config::{BertConfig, HunyuanDitConfig, T5Config, VaeConfig};
use hydit_graphs::{GraphDef, GraphOptions, Precision, Target, bert, hunyuan_dit, t5, vae};

use crate::common::golden::{self, Golden};
use crate::common::graphs::{Exporter, engines, load, open, provider, run};
use crate::common::tensor::distance;
use crate::common::transformer::{branches, cut};
use crate::common::worst::Worst;

/// What a precision may be off.
struct Kind {
    precision: Precision,
    tolerance: f64,
    /// An error below this would mean that the graph is not of this precision.
    least: f64,
}

const FP32: Kind = Kind { precision: Precision::Fp32, tolerance: 1e-5, least: 0.0 };
const FP16: Kind = Kind { precision: Precision::Fp16, tolerance: 1e-2, least: 1e-6 };
const FP16_VAE: Kind = Kind { tolerance: 3e-2, ..FP16 };
const BF16: Kind = Kind { precision: Precision::Bf16, tolerance: 5e-2, least: 1e-4 };
const INT8: Kind = Kind { precision: Precision::Int8, tolerance: 4e-2, least: 1e-4 };
const FP8: Kind = Kind { precision: Precision::Fp8, tolerance: 1e-1, least: 1e-3 };

/// Every config; and enough of them where the rounding is larger than what tells them apart.
const EVERY: [&str; 6] = ["depth4", "depth6", "depth8", "depth10-style", "depth14", "emoji-16x16"];
const SOME: [&str; 3] = ["depth6", "depth10-style", "emoji-16x16"];

/// Runs `graphs` in a row and compares whatever the golden has of their outputs, on each engine
/// that has the operators; gives the number of engines.
fn compare(
    golden: &Golden,
    component: Component,
    graphs: &[GraphDef],
    n: usize,
    (target, kind): (Target, &Kind),
    worst: &mut Worst,
) -> usize {
    let exporter = Exporter::of_golden(golden, component, graphs);
    let path = exporter.write("graphs", graphs);
    let options = GraphOptions::from((kind.precision, target));
    let backends = engines().iter().map(|&engine| (engine, open(engine)));
    let fit = backends.filter(|(_, backend)| unfit(options, backend.ort_provider()).is_none());
    let mut count = 0;
    for (engine, backend) in fit {
        count += 1;
        let mut feed = golden.inputs.clone();
        let mut largest = f64::NAN;
        for graph in graphs {
            let ours = run(&backend, &mut load(&backend, &path, graph), &feed);
            for (name, tensor) in ours {
                let golden_name = if name == "deep" { format!("deep_{n}") } else { name.clone() };
                if let Some(theirs) = golden.outputs.get(&golden_name) {
                    let error = distance(&tensor, theirs);
                    let at = format!("{} {golden_name}, {engine}: {error:.1e}", golden.name);
                    assert!(error <= kind.tolerance, "{at}");
                    let output = if name.starts_with("skip_") { "skip_*" } else { &name };
                    worst.add(
                        format!("{:6} {:16} {output}", engine.to_string(), graph.name),
                        error,
                        &golden.name,
                    );
                    largest = largest.max(error);
                }
                feed.insert(name, tensor);
            }
        }
        assert!(largest >= kind.least, "{}: {largest:.1e} is too good", golden.name);
    }
    count
}

/// Conditioner, encoder, core and decoder in a row; `engines` is how many of a machine without a
/// GPU run them.
fn compare_transformers(names: &[&str], target: Target, kind: &Kind, engines: usize) {
    let options = GraphOptions::from((kind.precision, target));
    let mut worst = Worst::new(format!("{} {:9} ", kind.precision, target.to_string()));
    for name in names {
        let golden = golden::read("transformer", name);
        let cfg = HunyuanDitConfig::from_json(&golden.config).expect("a config");
        let conditioner = hunyuan_dit::conditioner(&cfg, kind.precision);
        let n = *branches(&cfg).end();
        let [encoder, core, decoder] = cut(&cfg, n, options);
        let graphs = [conditioner, encoder, core, decoder];
        let kind = (target, kind);
        let count = compare(&golden, Component::Transformer, &graphs, n, kind, &mut worst);
        assert!(
            provider() != Provider::Cpu || count == engines,
            "{options:?} ran on {count} engines"
        );
    }
}

#[test]
fn fused_attention_for_the_cpu_computes_what_is_spelled_out() {
    compare_transformers(&EVERY, Target::OrtCpu, &FP32, 1);
}

#[test]
fn fused_attention_for_cuda_computes_what_is_spelled_out() {
    compare_transformers(&EVERY, Target::OrtCuda, &FP32, 1);
}

#[test]
fn the_form_for_tensorrt_computes_what_the_portable_one_does() {
    compare_transformers(&EVERY, Target::TensorRt, &FP32, 2);
}

#[test]
fn transformers_survive_int8() {
    compare_transformers(&SOME, Target::Portable, &INT8, 2);
    compare_transformers(&SOME, Target::OrtCpu, &INT8, 1);
}

#[test]
fn transformers_survive_fp8() {
    for target in [Target::Portable, Target::TensorRt] {
        compare_transformers(&SOME, target, &FP8, 1);
    }
}

#[test]
fn transformers_survive_fp16() {
    compare_transformers(&SOME, Target::Portable, &FP16, 2);
}

#[test]
fn transformers_for_tensorrt_survive_fp16() {
    compare_transformers(&SOME, Target::TensorRt, &FP16, 2);
}

#[test]
fn transformers_for_cuda_survive_fp16() {
    compare_transformers(&SOME, Target::OrtCuda, &FP16, 1);
}

#[test]
fn transformers_survive_bf16_where_an_engine_has_it() {
    for target in [Target::Portable, Target::OrtCuda, Target::TensorRt] {
        compare_transformers(&SOME, target, &BF16, 0);
    }
}

#[test]
fn text_encoders_survive_fewer_bits() {
    for (kind, engines) in [(&FP16, 2), (&BF16, 0), (&INT8, 2)] {
        let mut worst = Worst::new(format!("{} ", kind.precision));
        let mut check = |golden: Golden, component, graph| {
            let kind = (Target::Portable, kind);
            let count = compare(&golden, component, &[graph], 0, kind, &mut worst);
            assert!(provider() != Provider::Cpu || count == engines, "{count} engines");
        };
        for name in ["bert-3-layers", "emoji-bert"] {
            let golden = golden::read("text", name);
            let cfg = BertConfig::from_json(&golden.config).expect("a config");
            let length = golden.inputs["input_ids"].shape[1];
            let graph = bert::text_encoder(&cfg, length, kind.precision);
            check(golden, Component::TextEncoder, graph);
        }
        for name in ["t5-gated-gelu", "t5-relu", "emoji-t5"] {
            let golden = golden::read("text", name);
            let cfg = T5Config::from_json(&golden.config).expect("a config");
            let length = golden.inputs["input_ids"].shape[1];
            let graph = t5::text_encoder_2(&cfg, length, kind.precision);
            check(golden, Component::TextEncoder2, graph);
        }
    }
}

#[test]
fn vae_encoders_survive_fp16() {
    let mut worst = Worst::new("fp16 ");
    for golden in golden::all("vae-encoder", "") {
        let cfg = VaeConfig::from_json(&golden.config).expect("a config");
        let graph = vae::vae_encoder(&cfg, Precision::Fp16);
        let kind = (Target::Portable, &FP16_VAE);
        compare(&golden, Component::Vae, &[graph], 0, kind, &mut worst);
    }
}

#[test]
fn vae_decoders_survive_fp16() {
    let mut worst = Worst::new("fp16 ");
    for mut golden in golden::all("vae", "") {
        let cfg = VaeConfig::from_json(&golden.config).expect("a config");
        let latents = golden.inputs["latents"].map(|x| x / cfg.scaling_factor);
        golden.inputs.insert("latents".to_string(), latents);
        let graph = vae::vae_decoder(&cfg, Precision::Fp16);
        let kind = (Target::Portable, &FP16_VAE);
        compare(&golden, Component::Vae, &[graph], 0, kind, &mut worst);
    }
}

#[test]
fn engines_without_the_operators_are_told_and_the_others_run_everything_else() {
    use Provider::{Cpu, Cuda, CudaGraphs, TensorRt};
    let engines = [None, Some(Cpu), Some(Cuda), Some(CudaGraphs), Some(TensorRt)];
    for &precision in Precision::ALL {
        for &target in Target::ALL {
            for engine in engines {
                let gpu = !matches!(engine, None | Some(Provider::Cpu));
                let known =
                    engine.is_some() || matches!(target, Target::Portable | Target::TensorRt);
                let expected = match precision {
                    Precision::Bf16 => gpu,
                    Precision::Int8 => known && !gpu,
                    Precision::Fp8 => engine.is_some(),
                    _ => known,
                };
                let reason = unfit(GraphOptions::from((precision, target)), engine);
                assert_eq!(
                    reason.is_none(),
                    expected,
                    "{precision} {target} {engine:?}: {reason:?}"
                );
            }
        }
    }
}
