//! The cut changes nothing: encoder, core and decoder in a row are the whole model, wherever it is
//! cut. So what a cached run loses, it loses by the cache alone.
//!
//! In fp32 it is so bit for bit: in ONNX Runtime against the whole model in one graph, in tract
//! between all cuts. tract orders some sums of the one graph in another way than those of the three
//! (the same for every cut; from depth 6 on), hence its distance of up to 7e-7 from the one graph.
//!
//! In fp16 a seam rounds what the engine else keeps in fp32 between two nodes (ONNX Runtime's CPU
//! provider computes fp16 by way of fp32 and drops needless casts; tract fuses sums into products),
//! which is worth one rounding of 5e-4 on what follows.

mod common;

use std::ops::RangeBounds;

use common::graphs::{ENGINES, Exporter, load, open, run};
use common::tensor::{Tensor, Tensors, distance};
use common::transformer::{branches, configs, cut, inputs};
use hydit::runtime::BackendChoice;
use hydit_export::checkpoint::Component;
use hydit_graphs::{DType, hunyuan_dit};

/// An odd batch of non-square pictures: no size equals another.
const BATCH: usize = 3;
const GRID: [usize; 2] = [4, 7];

/// Relative distances of chain and whole model that are rounding.
fn tolerance(engine: BackendChoice, dtype: DType) -> f64 {
    match (engine, dtype) {
        (_, DType::F16) => 3e-3,
        (BackendChoice::Tract, _) => 2e-6,
        _ => 0.0,
    }
}

fn check(dtype: DType, depths: impl RangeBounds<usize>) {
    for (golden, cfg) in configs() {
        if !depths.contains(&cfg.num_layers) {
            continue;
        }
        let feed = inputs(&cfg, BATCH, GRID);
        let full = [hunyuan_dit::full(&cfg, dtype)];
        let exporter = Exporter::of_golden(&golden, Component::Transformer, &full);
        let whole = exporter.write("full", &full);
        let cuts: Vec<_> = branches(&cfg)
            .map(|n| (n, cut(&cfg, n, dtype)))
            .map(|(n, cut)| (exporter.write(&format!("cut-{n}"), &cut), cut))
            .collect();
        for engine in ENGINES {
            let backend = open(engine);
            let expected = run(&backend, &mut load(&backend, &whole, &full[0]), &feed);
            let mut first: Option<Tensor> = None;
            for (n, (path, graphs)) in (1..).zip(&cuts) {
                let mut feed = feed.clone();
                for graph in graphs {
                    feed.append(&mut run(&backend, &mut load(&backend, path, graph), &feed));
                }
                let at = format!("{} cut at {n}, {engine}, {dtype:?}", golden.name);
                let ours = &feed["noise_pred"];
                let error = distance(ours, &expected["noise_pred"]);
                println!("{at}: {error:.1e}");
                assert!(error <= tolerance(engine, dtype), "{at}: {error:.1e}");
                if dtype == DType::F32 {
                    assert_eq!(ours, first.get_or_insert_with(|| ours.clone()), "{at}");
                }
            }
        }
    }
}

#[test]
fn the_chain_is_the_whole_model() {
    check(DType::F32, ..);
}

#[test]
fn the_chain_is_the_whole_model_in_fp16() {
    check(DType::F16, ..=6);
}

/// The tests above can fail: skips in the wrong order, and a core left out, are seen.
#[test]
fn exchanged_skips_and_a_skipped_core_are_seen() {
    let (golden, cfg) =
        configs().into_iter().find(|(_, cfg)| cfg.num_layers == 10).expect("depth 10");
    let graphs = cut(&cfg, 2, DType::F32);
    let exporter = Exporter::of_golden(
        &golden,
        Component::Transformer,
        &[hunyuan_dit::full(&cfg, DType::F32)],
    );
    let path = exporter.write("cut", &graphs);
    let backend = open(ENGINES[0]);
    let mut feed = inputs(&cfg, BATCH, GRID);
    for graph in &graphs {
        feed.append(&mut run(&backend, &mut load(&backend, &path, graph), &feed));
    }
    let mut decoder = load(&backend, &path, &graphs[2]);
    let mut changed = |change: &dyn Fn(&mut Tensors)| {
        let mut changed = feed.clone();
        change(&mut changed);
        let prediction = &run(&backend, &mut decoder, &changed)["noise_pred"];
        distance(prediction, &feed["noise_pred"])
    };
    let swapped = changed(&|feed| {
        let (a, b) = (feed["skip_0"].clone(), feed["skip_1"].clone());
        feed.extend([("skip_0".to_string(), b), ("skip_1".to_string(), a)]);
    });
    let skipped = changed(&|feed| {
        feed.insert("deep".to_string(), feed["skip_1"].clone());
    });
    assert_eq!(changed(&|_| ()), 0.0);
    assert!(swapped > 0.05 && skipped > 0.05, "{swapped} and {skipped}");
}
