//! Every graph, as the exporter writes it, against what diffusers and transformers compute
//! (`tests/reference`), on both engines.
//!
//! The tolerance is a relative Euclidean error of 1e-5 per output. Both sides compute in float32,
//! whose rounding (6e-8) grows through up to 14 blocks to at most a few 1e-6 on either side
//! (`tests/reference/README.md`); the smallest mistake that was tried, a layer norm with epsilon
//! 1e-5 instead of 1e-6, is at least 2e-5 away, structural ones 0.1 and more.

use std::path::Path;

use hydit::runtime::BackendChoice;
use hydit_export::Component;
use hydit_graphs::config::{BertConfig, HunyuanDitConfig, T5Config, VaeConfig};
use hydit_graphs::{GraphDef, GraphOptions, Precision, bert, hunyuan_dit, t5, vae};

use crate::common::golden::{self, Golden};
use crate::common::graphs::{Exporter, engines, load, open, run};
use crate::common::tensor::{Tensors, distance};
use crate::common::worst::Worst;

const TOLERANCE: f64 = 1e-5;

fn check(
    worst: &mut Worst,
    graph: &GraphDef,
    engine: BackendChoice,
    at: &str,
    ours: &Tensors,
    golden: &Golden,
) {
    for (name, tensor) in ours {
        let Some(theirs) = golden.outputs.get(name) else { continue };
        let (error, graph) = (distance(tensor, theirs), &graph.name);
        let at = format!("{} {at}", golden.name);
        assert!(error <= TOLERANCE, "{at}, {engine}: `{name}` of {graph} is {error:.1e} off");
        worst.add(format!("{graph:16} {name:18} {engine}"), error, &at);
    }
}

/// The whole of a graph's inputs and outputs against the golden's.
pub fn compare(goldens: &[Golden], component: Component, build: impl Fn(&Golden) -> GraphDef) {
    let mut worst = Worst::new("");
    for golden in goldens {
        let graphs = [build(golden)];
        let folder = Exporter::of_golden(golden, component, &graphs);
        let path = folder.write("graphs", &graphs);
        for &engine in engines() {
            let backend = open(engine);
            let ours = run(&backend, &mut load(&backend, &path, &graphs[0]), &golden.inputs);
            assert_eq!(ours.keys().collect::<Vec<_>>(), golden.outputs.keys().collect::<Vec<_>>());
            check(&mut worst, &graphs[0], engine, "", &ours, golden);
        }
    }
}

#[test]
fn bert_is_transformers_bert() {
    let goldens = [golden::all("text", "bert"), golden::all("text", "emoji-bert")].concat();
    compare(&goldens, Component::TextEncoder, |golden| {
        let cfg = BertConfig::from_json(&golden.config).expect("a config");
        bert::text_encoder(&cfg, golden.inputs["input_ids"].shape[1], Precision::Fp32)
    });
}

#[test]
fn t5_is_transformers_t5() {
    let goldens = [golden::all("text", "t5"), golden::all("text", "emoji-t5")].concat();
    compare(&goldens, Component::TextEncoder2, |golden| {
        let cfg = T5Config::from_json(&golden.config).expect("a config");
        t5::text_encoder_2(&cfg, golden.inputs["input_ids"].shape[1], Precision::Fp32)
    });
}

#[test]
fn the_vae_decoder_is_diffusers_decoder() {
    let mut goldens = golden::all("vae", "");
    for golden in &mut goldens {
        let cfg = VaeConfig::from_json(&golden.config).expect("a config");
        let latents = golden.inputs["latents"].map(|x| x / cfg.scaling_factor);
        golden.inputs.insert("latents".to_string(), latents);
    }
    compare(&goldens, Component::Vae, |golden| {
        let cfg = VaeConfig::from_json(&golden.config).expect("a config");
        vae::vae_decoder(&cfg, Precision::Fp32)
    });
}

#[test]
fn the_vae_encoder_is_diffusers_encoder() {
    compare(&golden::all("vae-encoder", ""), Component::Vae, |golden| {
        let cfg = VaeConfig::from_json(&golden.config).expect("a config");
        vae::vae_encoder(&cfg, Precision::Fp32)
    });
}

/// Every graph of the transformer, with the golden's weights.
fn compare_transformer(golden: &Golden, alone: bool, worst: &mut Worst) {
    let cfg = HunyuanDitConfig::from_json(&golden.config).expect("a config");
    let version = GraphOptions::from(Precision::Fp32);
    let exporter = Exporter::of_golden(golden, Component::Transformer, &whole(&cfg, version));
    compare_exported(golden, &exporter, version, alone, worst);
}

/// The graphs that read all weights of a transformer.
pub fn whole(cfg: &HunyuanDitConfig, version: impl Into<GraphOptions>) -> [GraphDef; 2] {
    let version = version.into();
    [hunyuan_dit::conditioner(cfg, version), hunyuan_dit::full(cfg, version)]
}

/// Runs conditioner, encoder, core and decoder. `alone`: each is given the reference's tensors
/// where the golden has them, so that errors do not add up; else what the graphs before it made.
pub fn compare_exported(
    golden: &Golden,
    exporter: &Exporter,
    version: impl Into<GraphOptions>,
    alone: bool,
    worst: &mut Worst,
) {
    let version = version.into();
    let cfg = HunyuanDitConfig::from_json(&golden.config).expect("a config");
    let whole = whole(&cfg, version);
    let cuts = (1..=3.min(*cfg.cache_branches().end())).map(|n| {
        [
            hunyuan_dit::shallow_encoder(&cfg, n, version),
            hunyuan_dit::deep_core(&cfg, n, version),
            hunyuan_dit::shallow_decoder(&cfg, n, version),
        ]
    });
    let whole = (exporter.write("whole", &whole), whole);
    let cuts: Vec<_> =
        cuts.enumerate().map(|(i, cut)| (exporter.write(&format!("cut-{i}"), &cut), cut)).collect();

    for &engine in engines() {
        let backend = open(engine);
        let mut step = |path: &Path, graph: &GraphDef, feed: &mut Tensors, n: usize| {
            let mut ours = run(&backend, &mut load(&backend, path, graph), feed);
            if let Some(deep) = ours.remove("deep") {
                ours.insert(format!("deep_{n}"), deep);
            }
            check(worst, graph, engine, &format!("at {n}"), &ours, golden);
            feed.append(&mut ours);
            if alone {
                feed.extend(golden.outputs.clone());
            }
            if let Some(deep) = feed.get(&format!("deep_{n}")) {
                feed.insert("deep".to_string(), deep.clone());
            }
        };
        let mut feed = golden.inputs.clone();
        whole.1.iter().for_each(|graph| step(&whole.0, graph, &mut feed, 0));
        for (i, (path, cut)) in cuts.iter().enumerate() {
            let mut feed = feed.clone();
            cut.iter().for_each(|graph| step(path, graph, &mut feed, i + 1));
        }
    }
}

#[test]
fn each_transformer_graph_alone_is_its_part_of_diffusers() {
    let mut worst = Worst::new("");
    golden::all("transformer", "").iter().for_each(|g| compare_transformer(g, true, &mut worst));
}

#[test]
fn chained_transformer_graphs_are_diffusers_at_every_seam() {
    let mut worst = Worst::new("");
    golden::all("transformer", "").iter().for_each(|g| compare_transformer(g, false, &mut worst));
}
