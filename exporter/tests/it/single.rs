//! The pipeline in one file.

use std::fs;

use hydit_export::{Options, export};
use hydit_graphs::Target;
use hydit_graphs::onnx::{GraphProto, ModelProto, TensorProto};
use prost::Message;

use crate::checkpoint::Place;

/// The one graph called `name` inside of a node of `graph`.
fn inner(graph: &GraphProto, name: &str) -> GraphProto {
    let inside = graph.node.iter().flat_map(|node| &node.attribute).filter_map(|a| a.g.as_ref());
    let mut found = inside.filter(|inside| inside.name.as_deref() == Some(name));
    let (one, None) = (found.next().expect(name), found.next()) else { panic!("one {name}") };
    one.clone()
}

#[test]
fn for_the_cpu_provider_the_loop_of_a_single_graph_has_its_own_weights() {
    let place = Place::new();
    export(&Options { single: true, target: Target::OrtCpu, ..place.options() }, &mut ())
        .expect("an export");
    let single = fs::read(place.out().join("pipeline.onnx")).expect("the file");
    let graph = ModelProto::decode(&single[..]).expect("ONNX").graph.expect("a graph");
    let step = inner(&graph, "step");
    let branch = inner(&step, "refresh");
    let of_core = |graph: &GraphProto| {
        let names = graph.initializer.iter().filter_map(|tensor| tensor.name.as_deref());
        names.filter(|name| name.starts_with("deep-core/")).count()
    };
    assert_eq!((of_core(&graph), of_core(&branch)), (0, 0));
    assert!(of_core(&step) > 0, "packed once by ONNX Runtime, and not at each step");
}

#[test]
fn a_single_graph_reads_the_weights_of_the_others() {
    let place = Place::new();
    let options = Options { single: true, ..place.options() };
    let manifest = export(&options, &mut ()).expect("an export");
    let single = fs::read(place.out().join("pipeline.onnx")).expect("the file");
    assert_eq!(manifest.files["pipeline.onnx"].bytes, single.len() as u64);
    let model = ModelProto::decode(&single[..]).expect("ONNX");
    assert_eq!(model.encode_to_vec(), single);
    let graph = model.graph.expect("a graph");
    let step = inner(&graph, "step");
    // Hosts that are given files in memory look for weights in the outermost graph alone.
    let branches = ["refresh", "reuse", "aligned", "weighted"].map(|name| inner(&step, name));
    assert!([&step].into_iter().chain(&branches).all(|graph| graph.initializer.is_empty()));
    // TensorRT reads a loop whose condition is given, and bytes as outputs alone.
    let ours = |op: &str| graph.node.iter().find(|node| node.op_type.as_deref() == Some(op));
    assert!(ours("Loop").expect("a loop").input.iter().all(|name| !name.is_empty()));
    let last = graph.node.last().expect("a node");
    assert_eq!((last.op_type.as_deref(), &last.output[0][..]), (Some("Cast"), "images"));
    // Each weight once, where the split graphs have it.
    let places = |graph: &GraphProto| -> Vec<[String; 3]> {
        let place = |tensor: &TensorProto| {
            let mut entries = tensor.external_data.iter();
            [(); 3].map(|()| entries.next().and_then(|e| e.value.clone()).unwrap_or_default())
        };
        let external = graph.initializer.iter().filter(|tensor| tensor.data_location.is_some());
        external.map(place).collect()
    };
    let mut read = places(&graph);
    let split = manifest.graphs.iter().flat_map(|graph| {
        let bytes = fs::read(place.out().join(&graph.file)).expect("the file");
        places(&ModelProto::decode(&bytes[..]).expect("ONNX").graph.expect("a graph"))
    });
    let mut split: Vec<_> = split.collect();
    read.sort();
    split.sort();
    assert!(read == split && !read.is_empty(), "{read:?} is not {split:?}");

    place.export().expect("an export");
    assert!(!place.out().join("pipeline.onnx").exists(), "it was of the older export");
}
