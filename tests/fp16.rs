//! Graphs exported in fp16 against the fp32 goldens, on both engines.
//!
//! fp16 keeps 11 bits: every product and sum rounds by up to 4.9e-4 of its size, and through the
//! layers of a model (some 100 roundings that add up like a random walk) this becomes a few 1e-3 of
//! the output. The tolerance is 1e-2; a structural mistake is 0.1 and more. tract computes products
//! in fp16, ONNX Runtime's CPU provider by way of fp32. Convolutions in tract also add their hundreds
//! of terms up in fp16, one picture's error is up to 8.5e-3 then; there the tolerance is 3e-2.

mod common;

use common::golden::{self, Golden};
use common::graphs::{ENGINES, Exporter, load, open, run};
use common::tensor::distance;
use common::transformer::{branches, cut};
use hydit::runtime::BackendChoice;
use hydit_export::checkpoint::Component;
use hydit_graphs::config::{BertConfig, HunyuanDitConfig, T5Config, VaeConfig};
use hydit_graphs::{DType, GraphDef, bert, hunyuan_dit, t5, vae};

fn tolerance(engine: BackendChoice, component: Component) -> f64 {
    match (engine, component) {
        (BackendChoice::Tract, Component::Vae) => 3e-2,
        _ => 1e-2,
    }
}

/// Runs `graphs` in a row and compares whatever the golden has of their outputs.
fn compare(golden: &Golden, component: Component, graphs: &[GraphDef], n: usize) {
    let exporter = Exporter::of_golden(golden, component, graphs);
    let path = exporter.write("fp16", graphs);
    for engine in ENGINES {
        let backend = open(engine);
        let mut feed = golden.inputs.clone();
        let mut compared = 0;
        for graph in graphs {
            let ours = run(&backend, &mut load(&backend, &path, graph), &feed);
            for (name, tensor) in ours {
                let golden_name = if name == "deep" { format!("deep_{n}") } else { name.clone() };
                if let Some(theirs) = golden.outputs.get(&golden_name) {
                    let error = distance(&tensor, theirs);
                    println!("{:28} {golden_name:18} {engine:6} {error:.1e}", golden.name);
                    let at = format!("{} {golden_name}, {engine}: {error:.1e}", golden.name);
                    assert!(error <= tolerance(engine, component), "{at}");
                    assert!(error > 1e-6, "{at} is too good: is this fp16?");
                    compared += 1;
                }
                feed.insert(name, tensor);
            }
        }
        assert!(compared > 0, "{}: nothing to compare", golden.name);
    }
}

#[test]
fn transformers_survive_fp16() {
    for name in ["depth6", "depth10-style", "emoji-16x16"] {
        let golden = golden::read("transformer", name);
        let cfg = HunyuanDitConfig::from_json(&golden.config).expect("a config");
        let conditioner = hunyuan_dit::conditioner(&cfg, DType::F16);
        let n = *branches(&cfg).end();
        let [encoder, core, decoder] = cut(&cfg, n, DType::F16);
        compare(&golden, Component::Transformer, &[conditioner, encoder, core, decoder], n);
    }
}

#[test]
fn text_encoders_survive_fp16() {
    for name in ["bert-3-layers", "emoji-bert"] {
        let golden = golden::read("text", name);
        let cfg = BertConfig::from_json(&golden.config).expect("a config");
        let length = golden.inputs["input_ids"].shape[1];
        let graph = bert::text_encoder(&cfg, length, DType::F16);
        compare(&golden, Component::TextEncoder, &[graph], 0);
    }
    for name in ["t5-gated-gelu", "t5-relu", "emoji-t5"] {
        let golden = golden::read("text", name);
        let cfg = T5Config::from_json(&golden.config).expect("a config");
        let length = golden.inputs["input_ids"].shape[1];
        let graph = t5::text_encoder_2(&cfg, length, DType::F16);
        compare(&golden, Component::TextEncoder2, &[graph], 0);
    }
}

#[test]
fn vae_decoders_survive_fp16() {
    for mut golden in golden::all("vae", "") {
        let cfg = VaeConfig::from_json(&golden.config).expect("a config");
        let latents = golden.inputs["latents"].map(|x| x / cfg.scaling_factor);
        golden.inputs.insert("latents".to_string(), latents);
        compare(&golden, Component::Vae, &[vae::vae_decoder(&cfg, DType::F16)], 0);
    }
}
