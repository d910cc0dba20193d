//! Exports whose graphs read the checkpoint's own files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use hydit_export::synth::Storage;
use hydit_export::{Options, WeightsPlace, export};
use hydit_graphs::onnx::{GraphProto, ModelProto, NodeProto, TensorProto};
use hydit_graphs::{DType, Manifest, Precision};
use prost::Message;

use crate::checkpoint::{Place, Told, files, message, read_tensors};
use crate::layouts::{diffusers, layouts, tencent};

fn in_place(place: &Place) -> Options {
    Options { weights: WeightsPlace::InPlace, ..place.options() }
}

fn refusal(options: &Options) -> String {
    message(&export(options, &mut ()).expect_err("a refusal"))
}

fn graph(place: &Place, name: &str) -> GraphProto {
    let bytes = fs::read(place.out().join(format!("{name}.onnx"))).expect("the file");
    ModelProto::decode(&bytes[..]).expect("ONNX").graph.expect("a graph")
}

fn entry(tensor: &TensorProto, key: &str) -> String {
    let found = tensor.external_data.iter().find(|entry| entry.key.as_deref() == Some(key));
    found.and_then(|entry| entry.value.clone()).expect(key)
}

/// The elements of an initializer: those that the ONNX file names in a file beside it.
fn bytes(place: &Place, tensor: &TensorProto) -> Vec<u8> {
    let entry = |key: &str| entry(tensor, key);
    let [offset, length] = ["offset", "length"].map(|key| entry(key).parse().expect("a number"));
    let file = fs::read(place.out().join(entry("location"))).expect("the file");
    file[offset..][..length].to_vec()
}

fn initializer<'a>(graph: &'a GraphProto, name: &str) -> &'a TensorProto {
    let mut all = graph.initializer.iter();
    all.find(|tensor| tensor.name.as_deref() == Some(name)).expect(name)
}

/// The operators that make `name`, from the stored weight on.
fn operators(graph: &GraphProto, name: &str) -> Vec<String> {
    let made = |node: &&NodeProto| node.output[0] == name;
    let Some(node) = graph.node.iter().find(made) else { return Vec::new() };
    let mut before = operators(graph, &node.input[0]);
    before.push(node.op_type.clone().expect("an operator"));
    before
}

#[test]
fn the_graphs_read_the_files_of_the_checkpoint() {
    let place = Place::new();
    let with_encoder = |options| Options { image_to_image: true, ..options };
    let copied = export(&with_encoder(place.options()), &mut Told::default()).expect("an export");
    let before = files(&place.file("transformer"));
    let manifest =
        export(&with_encoder(in_place(&place)), &mut Told::default()).expect("an export");
    assert_eq!(before, files(&place.file("transformer")), "it was touched");

    let inode = |path: &Path| fs::metadata(path).expect("a file").ino();
    let stored = place.file("transformer/diffusion_pytorch_model.safetensors");
    let entry = manifest.graph("deep-core").expect("an entry");
    let [name] = &entry.in_place[..] else { panic!("{:?}", entry.in_place) };
    assert_eq!(inode(&place.out().join(name)), inode(&stored));
    let own = |manifest: &Manifest| -> u64 {
        manifest.graphs.iter().map(|graph| manifest.files[&graph.data].bytes).sum()
    };
    assert!(own(&manifest) * 20 < own(&copied), "{} of {}", own(&manifest), own(&copied));
    let parameters =
        |manifest: &Manifest| -> u64 { manifest.graphs.iter().map(|graph| graph.parameters).sum() };
    assert_eq!(parameters(&manifest), parameters(&copied));

    let tensors = read_tensors(&stored);
    let core = graph(&place, "deep-core");
    let [weight, bias] = ["weight", "bias"].map(|end| format!("blocks.1.attn1.to_q.{end}"));
    let turned = initializer(&core, &format!("{weight}/stored"));
    assert_eq!(bytes(&place, turned), tensors[&weight].2);
    assert_eq!(operators(&core, &weight), ["Transpose"]);
    assert_eq!(bytes(&place, initializer(&core, &bias)), tensors[&bias].2);

    // Removing the artifacts, or exporting again, leaves the checkpoint alone.
    place.export().expect("an export");
    assert!(!place.out().join(name).exists());
    assert_eq!(before, files(&place.file("transformer")));
}

#[test]
fn weights_of_another_type_are_converted_by_the_graph() {
    let place = Place::stored(&Storage { dtype: DType::F16, ..Default::default() });
    let operators_of = |precision| {
        let options = Options { precision, ..in_place(&place) };
        export(&options, &mut ()).expect("an export");
        let core = graph(&place, "deep-core");
        ["attn1.to_q.weight", "norm2.weight", "attn1.to_q.bias"]
            .map(|name| operators(&core, &format!("blocks.1.{name}")).join(", "))
    };
    assert_eq!(operators_of(Precision::Fp32), ["Transpose, Cast", "Cast", "Cast"]);
    assert_eq!(operators_of(Precision::Fp16), ["Transpose", "Cast", ""]);
}

#[test]
fn what_cannot_stay_in_place_is_refused_with_the_reason() {
    let place = Place::new();
    let told = refusal(&Options { precision: Precision::Int8, ..in_place(&place) });
    assert!(
        told.starts_with("--weights: in-place: no checkpoint has the weights of int8"),
        "{told}"
    );

    // Another file system.
    let elsewhere = tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
    let out = elsewhere.path().join("out");
    let told = refusal(&Options { out: out.clone(), ..in_place(&place) });
    assert!(told.contains("must be on one file system"), "{told}");
    assert!(!out.exists());

    // A header after which no float can lie.
    place.edit_bytes("vae/diffusion_pytorch_model.safetensors", |bytes| {
        let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"));
        bytes[..8].copy_from_slice(&(length + 1).to_le_bytes());
        bytes.insert(8 + length as usize, b' ');
    });
    let told = refusal(&in_place(&place));
    assert!(told.contains("vae/") && told.contains("is not a multiple of 4"), "{told}");
    place.export().expect("a copy is no problem");

    // Values that nobody would see again.
    let place = Place::new();
    place.edit_tensors("transformer/diffusion_pytorch_model.safetensors", |tensors| {
        let (_, _, bytes) = tensors.get_mut("blocks.2.attn1.to_q.weight").expect("a tensor");
        bytes[..4].copy_from_slice(&70000f32.to_le_bytes());
    });
    let told = refusal(&Options { precision: Precision::Fp16, ..in_place(&place) });
    assert!(told.contains("blocks.2.attn1.to_q.weight") && told.contains("beyond fp16"), "{told}");
    assert!(!place.out().exists());
    export(&in_place(&place), &mut ()).expect("fp32 holds it");
}

#[test]
fn what_graphs_read_is_the_same_in_every_layout() {
    let place = diffusers();
    let graph_of = |name: &str| graph(&place, name);
    let read = |options: Options| -> (BTreeMap<String, Vec<u8>>, BTreeSet<String>) {
        let options = Options {
            out: place.out(),
            base: Some(place.checkpoint()),
            weights: WeightsPlace::InPlace,
            ..options
        };
        let manifest = export(&options, &mut ()).unwrap_or_else(|e| panic!("{}", message(&e)));
        let (mut read, mut files) = (BTreeMap::new(), BTreeSet::new());
        for graph in manifest.graphs {
            for tensor in graph_of(&graph.name).initializer {
                if tensor.data_location.is_some() && entry(&tensor, "location") != graph.data {
                    files.insert(entry(&tensor, "location"));
                    let name = format!("{} {}", graph.name, tensor.name.as_deref().expect("named"));
                    read.insert(name, bytes(&place, &tensor));
                }
            }
        }
        (read, files)
    };
    let (ours, _) = read(place.options());
    let ckpts = tencent(&place);
    for (checkpoint, ending) in
        [(ckpts, ".pt"), (layouts().join("comfyui.safetensors"), ".safetensors")]
    {
        // Links need one file system, which the repository may not share with temporary folders.
        let checkpoint = match checkpoint.is_dir() {
            true => checkpoint,
            false => {
                let copy = place.path().join("comfyui.safetensors");
                fs::copy(checkpoint, &copy).expect("a copy");
                copy
            }
        };
        let (theirs, files) = read(Options::new(&checkpoint, ""));
        assert!(files.iter().any(|file| file.ends_with(ending)), "{files:?}");
        assert!(theirs.len() * 10 > ours.len() * 9, "{} of {}", theirs.len(), ours.len());
        for (name, bytes) in &theirs {
            assert!(ours[name] == *bytes, "{name} differs");
        }
    }
}
