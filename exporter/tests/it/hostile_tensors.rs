//! Tensors that do not fit their config, and values that do not fit their type.

use hydit_export::{Options, export};
use hydit_graphs::Precision;
use safetensors::Dtype;

use crate::checkpoint::{Place, Told, message, read_tensors};
use crate::hostile::check;

const TRANSFORMER: &str = "transformer/diffusion_pytorch_model.safetensors";
const BERT: &str = "text_encoder/model.safetensors";

#[test]
fn values_that_cannot_be_written_are_named() {
    fn set(place: &Place, value: f32) {
        place.edit_tensors("vae/diffusion_pytorch_model.safetensors", |tensors| {
            let (_, _, bytes) = tensors.get_mut("decoder.conv_in.weight").expect("a tensor");
            bytes[4..8].copy_from_slice(&value.to_le_bytes());
        });
    }
    const NAME: &str = "tensor `decoder.conv_in.weight` of vae";
    check(&[
        ("NaN", |p| set(p, f32::NAN), &[NAME, "NaN"]),
        ("infinity", |p| set(p, f32::NEG_INFINITY), &[NAME, "-inf"]),
    ]);
    let place = Place::new();
    set(&place, 7e4);
    let options = Options { precision: Precision::Fp16, ..place.options() };
    let error = message(&export(&options, &mut Told::default()).expect_err("too large"));
    assert!(
        error.contains(NAME) && error.contains("70000, beyond fp16; export with --dtype fp32"),
        "{error}"
    );
    assert!(!place.out().exists());
    place.export().expect("fp32 has room");
}

#[test]
fn all_tensors_that_do_not_fit_are_told_at_once() {
    let place = Place::new();
    place.edit_tensors(TRANSFORMER, |tensors| {
        tensors.remove("blocks.2.attn1.to_q.weight").expect("a tensor");
        let bias = tensors.get_mut("proj_out.bias").expect("a tensor");
        (bias.1, bias.2) = (vec![3], vec![0; 12]);
        let norm = tensors.get_mut("blocks.0.norm2.weight").expect("a tensor");
        norm.0 = Dtype::I32;
    });
    place.edit_tensors(BERT, |tensors| {
        let words = tensors.get_mut("embeddings.word_embeddings.weight").expect("a tensor");
        words.1.reverse(); // transposed: as many elements, another shape
        let spare = words.clone();
        tensors.insert("spare.bias".to_string(), spare);
    });
    let error = message(&place.export().expect_err("a misfit"));
    for line in [
        "1 tensors are missing, 3 mismatched, 1 not used",
        "missing: transformer: blocks.2.attn1.to_q.weight [16, 16]",
        "mismatched: transformer: proj_out.bias is [3], expected [32]",
        "mismatched: transformer: blocks.0.norm2.weight is I32, expected F32, F16 or BF16",
        "mismatched: text_encoder: embeddings.word_embeddings.weight is [12, 256], expected [256, 12]",
        "not used: text_encoder: spare.bias",
    ] {
        assert!(error.contains(line), "`{line}` is not in: {error}");
    }
    assert!(!place.out().exists());
}

#[test]
fn a_tensor_nobody_needs_is_only_told() {
    let place = Place::new();
    place.edit_tensors(TRANSFORMER, |tensors| {
        let spare = tensors["proj_out.bias"].clone();
        tensors.insert("time_extra_emb.unknown".to_string(), spare);
    });
    place.edit_tensors(BERT, |tensors| {
        let spare = tensors["embeddings.LayerNorm.bias"].clone();
        tensors.insert("pooler.dense.bias".to_string(), spare); // known to be needless
    });
    let mut told = Told::default();
    export(&place.options(), &mut told).expect("an export");
    assert_eq!(told.unused, ["transformer: time_extra_emb.unknown"]);
    assert!(read_tensors(&place.file(TRANSFORMER)).contains_key("time_extra_emb.unknown"));
}
