//! Forged graphs, and weights that are links.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use hydit::artifacts::Artifacts;
use hydit::eval::verify::Tensors;
use hydit::runtime::{BackendChoice, Session};
use hydit::util::error_chain;
use hydit::{Error, Pipeline};
use hydit_graphs::{Graph, Precision};
use hydit_testing::emoji;
use hydit_testing::hostile::{check_message, not_the_file};
use hydit_testing::protobuf::{self, Field, Value as Proto};

use super::{Place, refusal};

#[test]
fn weights_on_another_disk_by_links_are_refused_with_the_way_out() {
    let (place, other) = (Place::new(), tempfile::tempdir().expect("a folder"));
    for name in ["deep-core.onnx.data", "vae-decoder.onnx.data"] {
        let elsewhere = other.path().join(name);
        fs::rename(place.file(name), &elsewhere).expect("moved");
        symlink(&elsewhere, place.file(name)).expect("a link");
    }
    for engine in [BackendChoice::Ort, BackendChoice::Tract] {
        let loaded = Pipeline::load(place.folder.path(), emoji::backend(engine));
        let error = refusal("links", loaded);
        let parts = ["deep-core.onnx.data: a link", "or link the folder as a whole"];
        check_message("links", &error, &parts);
    }
    // A link to the folder is fine.
    let whole = other.path().join("model");
    symlink(emoji::artifacts(), &whole).expect("a link");
    emoji::pipeline(&whole, BackendChoice::Tract);
}

/// A forgery of an ONNX file.
type Forge<'a> = (&'a str, Box<dyn Fn(&mut Vec<Field>)>);

/// Forgeries of the `GraphProto` of a graph.
fn forgeries() -> Vec<Forge<'static>> {
    const NODE: u32 = 1;
    const INITIALIZER: u32 = 5;
    const INPUT: u32 = 11;
    const OUTPUT: u32 = 12;
    let without = |number: u32| move |fields: &mut Vec<Field>| fields.retain(|(n, _)| *n != number);
    let twice = |number: u32| {
        move |fields: &mut Vec<Field>| {
            let first = fields.iter().find(|(n, _)| *n == number).cloned();
            fields.extend(first);
        }
    };
    let renamed = |number: u32| {
        move |fields: &mut Vec<Field>| {
            let value = fields.iter_mut().find(|(n, _)| *n == number);
            let Some((_, Proto::Bytes(info))) = value else { panic!("no field {number}") };
            let mut inner = protobuf::read(info);
            inner.iter_mut().find(|(n, _)| *n == 1).expect("a name").1 =
                Proto::Bytes(b"other".to_vec());
            *info = protobuf::write(&inner);
        }
    };
    let retyped = |number: u32| {
        // ValueInfoProto.type (2) . tensor_type (1) . elem_type (1)
        move |fields: &mut Vec<Field>| {
            let value = fields.iter_mut().find(|(n, _)| *n == number);
            let Some((_, Proto::Bytes(info))) = value else { panic!("no field {number}") };
            *info = protobuf::edit(info, 2, |kind| {
                for (_, value) in kind.iter_mut() {
                    if let Proto::Bytes(tensor) = value {
                        let mut tensor_fields = protobuf::read(tensor);
                        tensor_fields[0].1 = Proto::Number(11); // f64
                        *tensor = protobuf::write(&tensor_fields);
                    }
                }
            });
        }
    };
    vec![
        ("no nodes", Box::new(without(NODE))),
        ("no weights", Box::new(without(INITIALIZER))),
        ("no inputs", Box::new(without(INPUT))),
        ("no outputs", Box::new(without(OUTPUT))),
        ("an output twice", Box::new(twice(OUTPUT))),
        ("another input", Box::new(renamed(INPUT))),
        ("another output", Box::new(renamed(OUTPUT))),
        ("an input of f64", Box::new(retyped(INPUT))),
        ("an output of f64", Box::new(retyped(OUTPUT))),
    ]
}

/// Changes where the external data of all weights lie.
fn relocated(onnx: &[u8], key: &'static str, value: &'static str) -> Vec<u8> {
    protobuf::edit(onnx, 7, |graph| {
        for (number, initializer) in graph.iter_mut() {
            if let (5, Proto::Bytes(bytes)) = (*number, initializer) {
                *bytes = protobuf::edit(bytes, 13, |entry| {
                    if entry[0].1 == Proto::Bytes(key.as_bytes().to_vec()) {
                        entry[1].1 = Proto::Bytes(value.as_bytes().to_vec());
                    }
                });
            }
        }
    })
}

#[test]
fn forged_graphs_with_the_right_hash_are_refused_by_name() {
    let mut place = Place::new();
    let secret = tempfile::tempdir().expect("a folder");
    let graph = "conditioner";
    let name = format!("{graph}.onnx");
    let good = fs::read(place.file(&name)).expect("a graph");
    let data = fs::read(place.file(&format!("{name}.data"))).expect("weights");
    fs::write(secret.path().join("data"), &data).expect("written");
    symlink(secret.path().join("data"), place.file("link")).expect("a link");

    let mut cases = not_the_file(&good);
    for (case, forge) in forgeries() {
        cases.push((case, protobuf::edit(&good, 7, |fields| forge(fields))));
    }
    cases.extend([
        ("weights above", relocated(&good, "location", "../data")),
        ("weights far away", relocated(&good, "location", "/etc/passwd")),
        ("weights that are gone", relocated(&good, "location", "none")),
        ("weights behind a link", relocated(&good, "location", "link")),
        ("weights beyond the end", relocated(&good, "offset", "99999999999")),
        ("weights before the start", relocated(&good, "offset", "-1")),
        ("an offset beyond numbers", relocated(&good, "offset", "99999999999999999999999999")),
        ("an offset of letters", relocated(&good, "offset", "abc")),
        ("more weights than there are", relocated(&good, "length", "9999999999")),
    ]);
    let backends = [BackendChoice::Ort, BackendChoice::Tract].map(emoji::backend);
    let mut taken = Vec::new();
    for (case, bytes) in &cases {
        place.write(&name, bytes);
        let artifacts = Artifacts::open(place.folder.path()).expect("a manifest");
        artifacts.check_code().expect("the hashes are right");
        for (backend, engine) in backends.iter().zip(["ort", "tract"]) {
            match artifacts.load(graph, backend) {
                Ok(_) => taken.push(format!("{case} by {engine}")),
                Err(error) => {
                    check_message(case, &error_chain(&error), &[&name]);
                }
            }
        }
    }
    assert!(taken.is_empty(), "{taken:?}");
}

/// Ends a thread that looks at it.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Loads on each engine while links come and go, unless `SOAK_RACES` says.
const RACES: usize = 1000;

#[test]
fn no_weights_are_read_through_a_link_that_is_there_for_a_moment() {
    let races = std::env::var("SOAK_RACES").map_or(RACES, |races| races.parse().expect("a number"));
    // A core of one matrix, which loads in no time.
    let mut place = Place::new();
    let artifacts = Artifacts::open(place.folder.path()).expect("a manifest");
    let width = artifacts.manifest.model.transformer.shape().hidden_size;
    let graph = Graph::new("deep-core", Precision::Fp32);
    let inputs = artifacts.entry("deep-core").expect("an entry").inputs.iter();
    let inputs: Vec<_> =
        inputs.map(|spec| graph.input(&spec.name, spec.dtype, &spec.shape)).collect();
    let numbers: Vec<f32> = (0..width * width).map(|i| (i as f32).sin()).collect();
    graph.output("deep", inputs[0].matmul(graph.floats("weights", &[width; 2], &numbers)));
    let core = graph.finish();
    let weights: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    place.write(&core.file(), &core.encode());
    place.write(&core.data_file(), &weights);

    let graph = "deep-core";
    let artifacts = Artifacts::open(place.folder.path()).expect("a manifest");
    let elsewhere = tempfile::tempdir().expect("a folder");
    let theirs = elsewhere.path().join("weights");
    fs::write(&theirs, vec![0; weights.len()]).expect("written");
    let [data, away] = ["deep-core.onnx.data", "away"].map(|name| place.file(name));
    for engine in [BackendChoice::Ort, BackendChoice::Tract] {
        let backend = emoji::backend(engine);
        let entry = artifacts.entry(graph).expect("an entry");
        let run = |mut session: Session| {
            let mut tensors =
                Tensors::random(&artifacts.manifest, entry, &backend).expect("inputs");
            tensors.run(&mut session).expect("a run")
        };
        let load = || artifacts.load(graph, &backend);
        let expected = run(load().expect("a graph"));
        let (tried, done) = (AtomicUsize::new(0), AtomicBool::new(false));
        let (mut good, mut refused) = (0, 0);
        // However this ends, the other thread must.
        let stop = Stop(&done);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut swaps = 0;
                while !done.load(Ordering::Relaxed) {
                    // Two swaps for three loads: some are disturbed, and some are not.
                    while swaps > tried.load(Ordering::Relaxed) * 2 / 3
                        && !done.load(Ordering::Relaxed)
                    {
                        std::thread::yield_now();
                    }
                    fs::rename(&data, &away).expect("moved away");
                    symlink(&theirs, &data).expect("a link");
                    (0..swaps % 64).for_each(|_| std::thread::yield_now());
                    fs::rename(&away, &data).expect("moved back");
                    swaps += 1;
                }
            });
            while tried.load(Ordering::Relaxed) < races {
                tried.fetch_add(1, Ordering::Relaxed);
                match load() {
                    Ok(session) => {
                        good += 1;
                        let error = expected.error(&run(session));
                        assert!(error < 1e-6, "other weights were read: {error}");
                    }
                    Err(Error::Artifact { .. } | Error::Read { .. }) => refused += 1,
                    Err(error) => {
                        // The engine found no file.
                        assert!(error_chain(&error).contains("deep-core.onnx"), "{error}");
                        refused += 1;
                    }
                }
            }
            drop(stop);
        });
        println!(
            "{engine}: {races} loads while links come and go: {good} as they should be, {refused} refused"
        );
        assert!(good > 0 && refused > 0, "{good} loaded, {refused} refused");
    }
}
