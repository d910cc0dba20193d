//! Exports with blocks for perturbed-attention guidance.

use std::fs;

use hydit_export::{Error, Options, export, inspect};
use hydit_graphs::Manifest;

use crate::checkpoint::{Place, config};

fn exported(place: &Place, pag_layers: &[usize], single: bool) -> Result<Manifest, Error> {
    let options = Options { pag_layers: pag_layers.to_vec(), single, ..place.options() };
    export(&options, &mut ())
}

#[test]
fn the_manifest_has_the_blocks_and_their_graphs_the_input() {
    let place = Place::new();
    let last = config().transformer.num_layers - 1;
    let manifest = exported(&place, &[1, last], false).expect("it exports");
    let text = fs::read_to_string(place.out().join("manifest.yaml")).expect("a manifest");
    let read = Manifest::from_yaml(&text).expect("a good one");
    assert_eq!((&read.pag_layers, &read), (&vec![1, last], &manifest));
    let read_by = |name: &str| {
        let graph = manifest.graph(name).expect("a graph");
        graph.inputs.iter().any(|input| input.name == "perturb")
    };
    let graphs = ["shallow-encoder", "deep-core", "shallow-decoder"];
    assert_eq!(graphs.map(read_by), [false, true, true]);
    assert!(inspect::table(&manifest).contains("guidance by the blocks [1, "));

    let plain = exported(&place, &[], false).expect("it exports");
    assert!(!plain.to_yaml().contains("pag"), "nothing of it is in a manifest without");
}

#[test]
fn blocks_that_are_not_there_and_the_pipeline_in_one_file_are_refused() {
    let place = Place::new();
    let depth = config().transformer.num_layers;
    for (blocks, single, words) in [
        (&[depth][..], false, format!("expected blocks from 0 to {}", depth - 1)),
        (&[2, 1], false, "[2, 1]; expected".to_string()),
        (&[1, 1], false, "each once and in ascending order".to_string()),
        (&[1], true, "pipeline.onnx has no perturbed rows: leave out --single".to_string()),
    ] {
        let refused = exported(&place, blocks, single).expect_err("a refusal").to_string();
        assert!(refused.starts_with("--pag-layers: ") && refused.contains(&words), "{refused}");
        assert!(!place.out().exists(), "nothing is written");
    }
}
