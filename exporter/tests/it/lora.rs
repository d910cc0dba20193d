//! Exports with LoRAs merged: what the manifest has of them, and files that cannot be used.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hydit_export::{Merged, Options, Progress, Weighted, check, export};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::checkpoint::{Place, Tensors, message, write_tensors};

const A: &str = "transformer.blocks.1.attn1.to_q.lora_A.weight";
const B: &str = "transformer.blocks.1.attn1.to_q.lora_B.weight";
const ALPHA: &str = "transformer.blocks.1.attn1.to_q.alpha";

fn tensor(shape: &[usize], value: f32) -> (Dtype, Vec<usize>, Vec<u8>) {
    let bytes = value.to_le_bytes().repeat(shape.iter().product());
    (Dtype::F32, shape.to_vec(), bytes)
}

/// A LoRA of one layer, of rank 2.
fn good() -> Tensors {
    [(A, tensor(&[2, 16], 0.5)), (B, tensor(&[16, 2], 0.25))]
        .map(|(name, tensor)| (name.to_string(), tensor))
        .into()
}

fn options(place: &Place, lora: &Path, weight: f32) -> Options {
    let lora = Weighted::new(lora.to_string_lossy(), weight).expect("a weight");
    Options { loras: vec![lora], ..place.options() }
}

#[derive(Default)]
struct Heard(Vec<Merged>);

impl Progress for Heard {
    fn merging(&mut self, lora: &Merged) {
        self.0.push(lora.clone());
    }
}

/// The fp32 weight of `blocks.1.attn1.to_q` in an export, `[in, out]`.
fn weight(out: &Path) -> Vec<f32> {
    use hydit_graphs::onnx::ModelProto;
    use prost::Message;
    let model = fs::read(out.join("deep-core.onnx")).expect("a graph");
    let graph = ModelProto::decode(&model[..]).expect("ONNX").graph.expect("a graph");
    let named = |tensor: &&hydit_graphs::onnx::TensorProto| {
        tensor.name.as_deref() == Some("blocks.1.attn1.to_q.weight")
    };
    let tensor = graph.initializer.iter().find(named).expect("the weight");
    let entry = |key: &str| {
        let found = tensor.external_data.iter().find(|entry| entry.key.as_deref() == Some(key));
        found.and_then(|entry| entry.value.clone()).expect("a place")
    };
    let [offset, length]: [usize; 2] =
        ["offset", "length"].map(|key| entry(key).parse().expect("a number"));
    let data = fs::read(out.join(entry("location"))).expect("the data");
    data[offset..][..length].as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

#[test]
fn a_lora_is_told_recorded_and_added() {
    let place = Place::new();
    place.export().expect("an export");
    let before = weight(&place.out());
    let file = place.path().join("a:b.safetensors");
    let mut tensors = good();
    tensors.insert(ALPHA.to_string(), tensor(&[], 1.0));
    write_tensors(&file, &tensors);

    let mut heard = Heard::default();
    let manifest = export(&options(&place, &file, 0.8), &mut heard).expect("an export");
    let [Merged { rank: 2, layers, .. }] = &heard.0[..] else { panic!("{:?}", heard.0) };
    let [(hydit_export::Component::Transformer, 1, all)] = layers[..] else { panic!("{layers:?}") };
    assert!(all > 50, "{all}");
    let [entry] = &manifest.loras[..] else { panic!("{:?}", manifest.loras) };
    assert_eq!(
        (entry.file.as_str(), entry.weight, entry.sha256.len()),
        ("a:b.safetensors", 0.8, 64)
    );
    let table = hydit_export::inspect::table(&manifest);
    assert!(table.contains("merged: a:b.safetensors, weight 0.8 (sha256"), "{table}");

    // alpha / rank is 1/2, each element of the product 2 * 0.5 * 0.25.
    for (before, after) in before.iter().zip(weight(&place.out())) {
        assert!((after - before - 0.8 * 0.5 * 0.25).abs() < 1e-6, "{before} {after}");
    }
}

#[test]
fn check_tells_what_a_lora_changes_and_what_of_it_fits_nowhere() {
    let place = Place::new();
    let file = place.path().join("style.safetensors");
    let lora = |tensors: &Tensors| {
        write_tensors(&file, tensors);
        let mut summary = check::check(&options(&place, &file, 1.0)).expect("a summary");
        assert!(summary.is_whole(), "{:?}", summary.problems);
        let text = summary.text();
        (summary.loras.remove(0), text)
    };
    let (good_one, text) = lora(&good());
    assert_eq!((good_one.rank, good_one.unfit.len(), good_one.fits_slots), (2, 0, true));
    let [changes] = &good_one.changes[..] else { panic!("{good_one:?}") };
    assert_eq!((changes.component, changes.layers), ("transformer", 1));
    assert!(text.contains("style.safetensors: rank 2, changes 1 of "), "{text}");
    assert!(text.contains("can be merged (--lora), or chosen by requests (--lora-slots)"));

    let mut wide = good();
    wide.insert(A.replace("attn1.to_q", "ff.net.2"), tensor(&[1, 69], 1.0));
    wide.insert(B.replace("attn1.to_q", "ff.net.2"), tensor(&[16, 1], 1.0));
    let (wide, text) = lora(&wide);
    assert_eq!((wide.unfit.clone(), wide.fits_slots), (Vec::<String>::new(), false), "{wide:?}");
    assert!(text.contains("requests cannot choose it"), "{text}");

    let mut foreign = good();
    for name in [A, B] {
        let shape = foreign[name].clone();
        foreign.insert(name.replace("blocks.1", "blocks.99"), shape.clone());
        foreign.insert(name.replace("to_q", "to_x"), shape);
    }
    let (foreign, text) = lora(&foreign);
    let [first, second] = &foreign.unfit[..] else { panic!("{:?}", foreign.unfit) };
    assert!(first.contains("attn1.to_x") && second.contains("blocks.99"), "{:?}", foreign.unfit);
    assert_eq!((foreign.changes[0].layers, foreign.fits_slots), (1, false));
    assert!(text.contains("fits nowhere: tensor "), "{text}");

    let missing = options(&place, &place.path().join("none"), 1.0);
    let told = message(&check::check(&missing).expect_err("a refusal"));
    assert!(told.contains("none: not found; expected a LoRA"), "{told}");
}

#[test]
fn text_encoders_are_changed_by_the_names_of_any_library() {
    let place = Place::new();
    let file = place.path().join("text.safetensors");
    for (start, layer, down, up) in [
        ("text_encoder.", "encoder.layer.0.attention.self.query", ".lora_A", ".lora_B"),
        ("lora_te1_", "bert_encoder_layer_0_attention_self_query", ".lora_down", ".lora_up"),
    ] {
        let tensors: Tensors = [
            (format!("{start}{layer}{down}.weight"), tensor(&[1, 12], 1.0)),
            (format!("{start}{layer}{up}.weight"), tensor(&[12, 1], 1.0)),
            // Never used for pictures.
            (format!("text_encoder.pooler.dense{down}.weight"), tensor(&[1, 12], 1.0)),
        ]
        .into();
        write_tensors(&file, &tensors);
        let mut heard = Heard::default();
        export(&options(&place, &file, 1.0), &mut heard).expect("an export");
        assert_eq!(heard.0[0].layers.len(), 1);
        assert_eq!(heard.0[0].layers[0].0, hydit_export::Component::TextEncoder);
    }
}

/// What the file has, and what the message must say.
type Case = (&'static str, fn(&mut Tensors), &'static [&'static str]);

fn renamed(tensors: &mut Tensors, from: &str, to: &str) {
    let tensor = tensors.remove(from).expect("it is there");
    tensors.insert(to.to_string(), tensor);
}

#[test]
fn loras_that_do_not_fit_are_refused_before_anything_is_written() {
    let cases: &[Case] = &[
        ("nothing", Tensors::clear, &["it has no tensors"]),
        ("only A", |t| drop(t.remove(B)), &[A, "up (lora_B) of its layer is missing"]),
        ("only B", |t| drop(t.remove(A)), &[B, "down (lora_A) of its layer is missing"]),
        (
            "rank 0",
            |t| {
                t.insert(A.to_string(), tensor(&[0, 16], 0.0));
                t.insert(B.to_string(), tensor(&[16, 0], 0.0));
            },
            &[A, "is [0, 16]; expected a rank of at least 1"],
        ),
        (
            "two ranks",
            |t| drop(t.insert(B.to_string(), tensor(&[16, 3], 0.0))),
            &[B, "is [16, 3]; expected [16, 2] for a layer of 16 x 16"],
        ),
        (
            "another width",
            |t| drop(t.insert(A.to_string(), tensor(&[2, 17], 0.0))),
            &[A, "is [2, 17]; expected [2, 16]"],
        ),
        ("no axis", |t| drop(t.insert(A.to_string(), tensor(&[], 0.0))), &[A, "is []"]),
        (
            "not a number",
            |t| drop(t.insert(A.to_string(), tensor(&[2, 16], f32::NAN))),
            &[A, "has the value NaN"],
        ),
        ("alpha 0", |t| drop(t.insert(ALPHA.to_string(), tensor(&[], 0.0))), &["alpha is 0"]),
        (
            "alpha NaN",
            |t| drop(t.insert(ALPHA.to_string(), tensor(&[1], f32::NAN))),
            &[ALPHA, "the value NaN"],
        ),
        ("alphas", |t| drop(t.insert(ALPHA.to_string(), tensor(&[2], 1.0))), &["no single value"]),
        (
            "whole numbers",
            |t| {
                let (_, shape, bytes) = t[A].clone();
                t.insert(A.to_string(), (Dtype::I32, shape, bytes));
            },
            &[A, "is I32; expected F32, F16 or BF16"],
        ),
        (
            "a layer of another model",
            |t| {
                t.remove(B);
                renamed(t, A, "transformer.blocks.99.attn1.to_q.lora_A.weight");
            },
            &["blocks.99.attn1.to_q", "the nearest is `blocks.", ".attn1.to_q` of the transformer"],
        ),
        (
            "a LoRA of Stable Diffusion",
            |t| {
                t.remove(B);
                let name = "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight";
                renamed(t, A, name);
            },
            &["lora_unet_down_blocks_0", "the model has no layer"],
        ),
        (
            "of the image decoder",
            |t| {
                t.remove(B);
                renamed(t, A, "vae.decoder.conv_in.lora_A.weight");
            },
            &["changes the vae, which cannot be changed here"],
        ),
        ("DoRA", |t| renamed(t, A, "lora_unet_x.dora_scale"), &["x.dora_scale", "DoRA"]),
        ("LoHa", |t| renamed(t, A, "lora_unet_x.hada_w1_a"), &["x.hada_w1_a", "LoHa"]),
        ("LoKr", |t| renamed(t, A, "lora_unet_x.lokr_w1"), &["x.lokr_w1", "LoKr"]),
        (
            "two adapters",
            |t| {
                let other = A.replace("lora_A.", "lora_A.other.");
                t.insert(other, tensor(&[2, 16], 0.0));
            },
            &["the same part of one change"],
        ),
        (
            "a checkpoint",
            |t| renamed(t, A, "blocks.0.attn1.to_q.weight"),
            &["no part of a LoRA: expected names"],
        ),
    ];
    let place = Place::new();
    let file = place.path().join("lora.safetensors");
    for (what, damage, expected) in cases {
        let mut tensors = good();
        damage(&mut tensors);
        write_tensors(&file, &tensors);
        refused(&place, what, &file, expected);
    }
}

fn refused(place: &Place, what: &str, file: &Path, expected: &[&str]) {
    let error = match export(&options(place, file, 1.0), &mut ()) {
        Ok(_) => panic!("{what}: exported"),
        Err(error) => message(&error),
    };
    for part in expected.iter().chain(&["lora"]) {
        assert!(error.contains(part), "{what}: `{part}` is not in: {error}");
    }
    assert!(!error.contains('\n') && error.len() < 1000, "{what}: {error}");
    assert!(!place.out().exists(), "{what}: something stays");
}

#[test]
fn files_that_are_no_safetensors_are_refused() {
    let place = Place::new();
    let file = place.path().join("lora.safetensors");
    write_tensors(&file, &good());
    let whole = fs::read(&file).expect("a file");
    let with_header =
        |header: &str| [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    let huge = (1u64 << 40).to_le_bytes().to_vec();
    let many: String = (0..200_000).map(|i| format!(r#""{i}.lora_A.weight":0,"#)).collect();
    for (what, bytes, expected) in [
        ("empty", Vec::new(), "truncated"),
        ("half", whole[..whole.len() / 2].to_vec(), "truncated"),
        ("a header of a terabyte", huge, "a header of 1099511627776 bytes"),
        ("an archive", b"PK\x03\x04".to_vec(), "store it again as safetensors"),
        ("numbers for tensors", with_header(&format!("{{{many}\"x\":0}}")), "damaged"),
        (
            "offsets that overlap",
            with_header(
                r#"{"a.lora_A.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}}      "#,
            ),
            "truncated",
        ),
    ] {
        fs::write(&file, bytes).expect("written");
        refused(&place, what, &file, &[expected]);
    }
    let missing = place.path().join("lora-missing");
    refused(&place, "no file", &missing, &["not found; expected a LoRA as safetensors"]);
    let folder: PathBuf = place.path().join("lora-folder");
    fs::create_dir(&folder).expect("a folder");
    refused(&place, "an empty folder", &folder, &["adapter_model.safetensors", "No such file"]);
    fs::write(&file, &whole).expect("written");
    fs::rename(&file, folder.join("adapter_model.safetensors")).expect("moved");
    fs::write(folder.join("adapter_config.json"), r#"{"peft_type": "LOHA"}"#).expect("written");
    refused(&place, "LoHa by PEFT", &folder, &["adapter_config.json: peft_type is `LOHA`"]);
}

#[test]
fn as_many_tensors_as_fit_a_header_are_refused_in_seconds() {
    let place = Place::new();
    let file = place.path().join("lora.safetensors");
    let names: Vec<String> = (0..150_000).map(|i| format!("blocks.{i}.lora_A.weight")).collect();
    let views = names
        .iter()
        .map(|name| (name, TensorView::new(Dtype::F32, vec![0, 0], &[]).expect("an empty tensor")));
    fs::write(&file, safetensors::serialize(views, None).expect("serializes")).expect("written");
    let start = Instant::now();
    refused(&place, "150000 tensors", &file, &["the model has no layer"]);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}
