//! Graphs of every precision and form against the fp32 goldens, on every engine that runs them.
//!
//! fp16 keeps 11 bits: every product and sum rounds by up to 4.9e-4 of its size, and through the
//! layers of a model (some 100 roundings that add up like a random walk) this becomes a few 1e-3 of
//! the output. The tolerance is 1e-2; a structural mistake is 0.1 and more. tract computes products
//! in fp16, ONNX Runtime's CPU provider by way of fp32. Convolutions in tract also add their hundreds
//! of terms up in fp16, one picture's error is up to 8.5e-3 then; there the tolerance is 3e-2.
//!
//! int8 rounds weights and activations to 8 bits, by up to 1/254 of the largest of a channel or
//! tensor: 1e-2 of a typical value, of which the blocks make 1e-2 to 2e-2 of the output; the
//! tolerance is 4e-2. Both engines give the same numbers: integers do not round.
//!
//! The fused form computes in fp32 what the portable one computes: 1e-5, as tests/parity.rs.

mod common;

use common::golden::{self, Golden};
use common::graphs::{ENGINES, Exporter, load, open, run};
use common::tensor::distance;
use common::transformer::{branches, cut};
use hydit::runtime::BackendChoice;
use hydit_export::checkpoint::Component;
use hydit_graphs::config::{BertConfig, HunyuanDitConfig, T5Config, VaeConfig};
use hydit_graphs::{Form, GraphDef, Precision, Target, bert, hunyuan_dit, t5, vae};

/// What one kind of export may be off, and on which engines it runs.
struct Kind {
    target: Target,
    engines: &'static [BackendChoice],
    tolerance: f64,
    /// An error below this would mean that the graph is not of this precision.
    least: f64,
}

const FP16: Kind = Kind {
    target: Target { precision: Precision::Fp16, form: Form::Portable },
    engines: &ENGINES,
    tolerance: 1e-2,
    least: 1e-6,
};
const FP16_VAE: Kind = Kind { tolerance: 3e-2, ..FP16 };
const FUSED: Kind = Kind {
    target: Target { precision: Precision::Fp32, form: Form::OrtCpu },
    engines: &[BackendChoice::Ort],
    tolerance: 1e-5,
    least: 0.0,
};
const INT8: Kind = Kind {
    target: Target { precision: Precision::Int8, form: Form::Portable },
    engines: &ENGINES,
    tolerance: 4e-2,
    least: 1e-4,
};
const FUSED_INT8: Kind = Kind {
    target: Target { precision: Precision::Int8, form: Form::OrtCpu },
    engines: &[BackendChoice::Ort],
    ..INT8
};

/// Runs `graphs` in a row and compares whatever the golden has of their outputs.
fn compare(golden: &Golden, component: Component, graphs: &[GraphDef], n: usize, kind: &Kind) {
    let exporter = Exporter::of_golden(golden, component, graphs);
    let path = exporter.write("graphs", graphs);
    for &engine in kind.engines {
        let backend = open(engine);
        let mut feed = golden.inputs.clone();
        let mut errors = Vec::new();
        for graph in graphs {
            let ours = run(&backend, &mut load(&backend, &path, graph), &feed);
            for (name, tensor) in ours {
                let golden_name = if name == "deep" { format!("deep_{n}") } else { name.clone() };
                if let Some(theirs) = golden.outputs.get(&golden_name) {
                    let error = distance(&tensor, theirs);
                    println!("{:28} {golden_name:18} {engine:6} {error:.1e}", golden.name);
                    let at = format!("{} {golden_name}, {engine}: {error:.1e}", golden.name);
                    assert!(error <= kind.tolerance, "{at}");
                    errors.push(error);
                }
                feed.insert(name, tensor);
            }
        }
        let largest = errors.iter().copied().fold(f64::NAN, f64::max);
        assert!(largest >= kind.least, "{}: {largest:.1e} is too good", golden.name);
    }
}

/// Conditioner, encoder, core and decoder in a row.
fn compare_transformer(name: &str, kind: &Kind) {
    let golden = golden::read("transformer", name);
    let cfg = HunyuanDitConfig::from_json(&golden.config).expect("a config");
    let conditioner = hunyuan_dit::conditioner(&cfg, kind.target.precision);
    let n = *branches(&cfg).end();
    let [encoder, core, decoder] = cut(&cfg, n, kind.target);
    compare(&golden, Component::Transformer, &[conditioner, encoder, core, decoder], n, kind);
}

#[test]
fn fused_attention_computes_what_is_spelled_out() {
    for name in ["depth4", "depth6", "depth8", "depth10-style", "depth14", "emoji-16x16"] {
        compare_transformer(name, &FUSED);
    }
}

#[test]
fn transformers_survive_int8() {
    for name in ["depth6", "depth10-style", "emoji-16x16"] {
        compare_transformer(name, &INT8);
        compare_transformer(name, &FUSED_INT8);
    }
}

#[test]
fn transformers_survive_fp16() {
    for name in ["depth6", "depth10-style", "emoji-16x16"] {
        compare_transformer(name, &FP16);
    }
}

#[test]
fn text_encoders_survive_fp16() {
    for name in ["bert-3-layers", "emoji-bert"] {
        let golden = golden::read("text", name);
        let cfg = BertConfig::from_json(&golden.config).expect("a config");
        let length = golden.inputs["input_ids"].shape[1];
        let graph = bert::text_encoder(&cfg, length, Precision::Fp16);
        compare(&golden, Component::TextEncoder, &[graph], 0, &FP16);
    }
    for name in ["t5-gated-gelu", "t5-relu", "emoji-t5"] {
        let golden = golden::read("text", name);
        let cfg = T5Config::from_json(&golden.config).expect("a config");
        let length = golden.inputs["input_ids"].shape[1];
        let graph = t5::text_encoder_2(&cfg, length, Precision::Fp16);
        compare(&golden, Component::TextEncoder2, &[graph], 0, &FP16);
    }
}

#[test]
fn vae_decoders_survive_fp16() {
    for mut golden in golden::all("vae", "") {
        let cfg = VaeConfig::from_json(&golden.config).expect("a config");
        let latents = golden.inputs["latents"].map(|x| x / cfg.scaling_factor);
        golden.inputs.insert("latents".to_string(), latents);
        compare(&golden, Component::Vae, &[vae::vae_decoder(&cfg, Precision::Fp16)], 0, &FP16_VAE);
    }
}
