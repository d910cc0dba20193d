//! What `hydit-serve verify` does, on every kind of export: two engines against each other on each
//! graph, and the split transformer against the whole.

use std::path::PathBuf;

use hydit::artifacts::Artifacts;
use hydit::eval::verify::{Tensors, Tolerance, split_against_full};
use hydit::runtime::BackendChoice;
use hydit_export::synth::{self, Shape, Storage};
use hydit_export::{ControlNet, Options, export};
use hydit_graphs::Precision;
use hydit_testing::emoji;
use tempfile::TempDir;

/// A checkpoint of 6 blocks with an IP-Adapter and a ControlNet, and what is made of it.
struct Place(TempDir);

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().expect("a folder");
        let shape = Shape {
            depth: Some(6),
            heads: Some(2),
            head_dim: Some(12),
            image_size: Some(64),
            small_text: true,
        };
        let model = synth::model("hunyuan-dit-v1.2", &shape).expect("a valid shape");
        let (storage, checkpoint) = (Storage::default(), folder.path().join("checkpoint"));
        synth::checkpoint_with_ip_adapter(&model, true, &checkpoint, &storage).expect("a model");
        synth::control(&model.transformer, &checkpoint.join("net"), &storage).expect("a net");
        Place(folder)
    }

    /// With the whole transformer as one graph too.
    fn options(&self, branch: usize) -> Options {
        let out = self.0.path().join("out");
        Options { full: true, cache_at_branch: Some(branch), ..Options::new(self.part(""), out) }
    }

    fn part(&self, name: &str) -> PathBuf {
        self.0.path().join("checkpoint").join(name)
    }

    fn nets(&self) -> Vec<ControlNet> {
        vec![ControlNet { name: "net".to_string(), path: self.part("net") }]
    }
}

/// Verifies what is exported by `options`, which must have the input `input` in some graph.
fn verify(options: &Options, input: &str) {
    export(options, &mut ()).expect("it exports");
    let artifacts = Artifacts::open(&options.out).expect("an export");
    let manifest = &artifacts.manifest;
    let mut inputs = manifest.graphs.iter().flat_map(|graph| &graph.inputs);
    assert!(inputs.any(|known| known.name == input), "{input}");
    let tolerance = Tolerance::of(Precision::Fp32);
    let engines = [BackendChoice::Ort, BackendChoice::Tract].map(emoji::backend);
    for graph in &manifest.graphs {
        let [ort, tract] = engines.each_ref().map(|engine| {
            let mut session = artifacts.load(&graph.name, engine).expect("it loads");
            let mut tensors = Tensors::random(manifest, graph, engine).expect("inputs");
            tensors.run(&mut session).expect("it runs")
        });
        let error = ort.error(&tract);
        assert!(error <= tolerance.engines, "{}: {error:.1e}", graph.name);
    }
    for engine in &engines {
        let error = split_against_full(&artifacts, engine).expect("it runs");
        let at = format!("cut at {:?}, {}", options.cache_at_branch, engine.name());
        assert!(error <= tolerance.split, "{at}: split and whole are {error:.1e} apart");
    }
}

#[test]
fn an_export_with_slots_for_loras_is_good_at_every_cut() {
    let place = Place::new();
    for branch in [1, 2] {
        verify(&Options { lora_slots: Some(4), ..place.options(branch) }, "lora_text_b");
    }
}

#[test]
fn an_export_with_a_control_net_is_good_at_every_cut() {
    let place = Place::new();
    for branch in [1, 2] {
        verify(&Options { controls: place.nets(), ..place.options(branch) }, "control_1");
    }
}

#[test]
fn an_export_with_image_prompts_is_good() {
    let place = Place::new();
    let ip_adapter = Some(place.part("ip_adapter"));
    verify(&Options { ip_adapter, ..place.options(1) }, "image_states");
}

#[test]
fn an_export_with_layers_to_perturb_is_good_at_every_cut() {
    let place = Place::new();
    for branch in [1, 2] {
        verify(&Options { pag_layers: vec![1, 5], ..place.options(branch) }, "perturb");
    }
}

#[test]
fn an_export_with_all_of_them_is_good() {
    let place = Place::new();
    let all = Options {
        lora_slots: Some(4),
        controls: place.nets(),
        ip_adapter: Some(place.part("ip_adapter")),
        pag_layers: vec![0, 3],
        ..place.options(2)
    };
    verify(&all, "perturb");
}
