//! Weight files that are damaged, lie or lead elsewhere.

use std::fs;

use hydit_export::{Progress, export};
use serde_json::{Value, json};

use crate::checkpoint::{Place, message};
use crate::hostile::{Case, check};

const TRANSFORMER: &str = "transformer/diffusion_pytorch_model.safetensors";
const BERT: &str = "text_encoder/model.safetensors";

/// Replaces the header of the transformer's file by another of the same length, or longer.
fn header(place: &Place, edit: impl FnOnce(&mut Value)) {
    place.edit_bytes(TRANSFORMER, |bytes| {
        let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
        let mut header = serde_json::from_slice(&bytes[8..8 + length]).expect("JSON");
        edit(&mut header);
        let header = header.to_string();
        let data = bytes.split_off(8 + length);
        *bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    });
}

#[test]
fn files_that_are_not_whole_are_named() {
    let mut cases: Vec<Case> = vec![
        (
            "an empty file",
            |p| p.edit_bytes(TRANSFORMER, Vec::clear),
            &["diffusion_pytorch_model.safetensors"],
        ),
        (
            "4 bytes",
            |p| p.edit_bytes(TRANSFORMER, |b| b.truncate(4)),
            &["diffusion_pytorch_model", "truncated"],
        ),
        (
            "the length alone",
            |p| p.edit_bytes(TRANSFORMER, |b| b.truncate(8)),
            &["diffusion_pytorch_model", "truncated"],
        ),
        (
            "half of the header",
            |p| p.edit_bytes(TRANSFORMER, |b| b.truncate(500)),
            &["diffusion_pytorch_model", "truncated"],
        ),
        (
            "one byte less",
            |p| p.edit_bytes(TRANSFORMER, |b| b.truncate(b.len() - 1)),
            &["diffusion_pytorch_model", "truncated"],
        ),
        (
            "half of the file",
            |p| p.edit_bytes(TRANSFORMER, |b| b.truncate(b.len() / 2)),
            &["diffusion_pytorch_model", "truncated"],
        ),
        (
            "a byte too many",
            |p| p.edit_bytes(TRANSFORMER, |b| b.push(0)),
            &["diffusion_pytorch_model", "not a whole safetensors file"],
        ),
        (
            "another file",
            |p| p.edit_bytes(TRANSFORMER, |b| *b = b"PK\x03\x04 a zip file, pickled".to_vec()),
            &["diffusion_pytorch_model", "archive: it is cut off"],
        ),
        (
            "a web page",
            |p| p.edit_bytes(TRANSFORMER, |b| *b = b"<!DOCTYPE html><html>Log in".to_vec()),
            &["diffusion_pytorch_model", "a web page"],
        ),
        (
            "a pointer",
            |p| {
                let pointer =
                    b"version https://git-lfs.github.com/spec/v1\noid sha256:2f7b\nsize 1\n";
                p.edit_bytes(TRANSFORMER, |b| *b = pointer.to_vec());
            },
            &["diffusion_pytorch_model", "a Git LFS pointer", "git lfs pull"],
        ),
        (
            "nothing",
            |p| p.edit_bytes(TRANSFORMER, Vec::clear),
            &["diffusion_pytorch_model", "empty: download it again"],
        ),
        (
            "GGUF",
            |p| p.edit_bytes(TRANSFORMER, |b| b[..4].copy_from_slice(b"GGUF")),
            &["diffusion_pytorch_model", "a GGUF file"],
        ),
    ];
    cases.extend([
        (
            "a huge header",
            (|p| p.edit_bytes(TRANSFORMER, |b| b[..8].copy_from_slice(&u64::MAX.to_le_bytes())))
                as fn(&Place),
            &["not a safetensors file", "18446744073709551615"] as &[_],
        ),
        (
            "a header of 2^40",
            |p| p.edit_bytes(TRANSFORMER, |b| b[5] = 1),
            &["not a safetensors file"],
        ),
        (
            "a longer header",
            |p| p.edit_bytes(TRANSFORMER, |b| b[0] ^= 0x40),
            &["diffusion_pytorch_model"],
        ),
        (
            "a broken brace",
            |p| p.edit_bytes(TRANSFORMER, |b| b[8] ^= 0x20),
            &["damaged safetensors header"],
        ),
        (
            "no UTF-8",
            |p| p.edit_bytes(TRANSFORMER, |b| b[12] = 0xFF),
            &["damaged safetensors header"],
        ),
    ]);
    check(&cases);
}

#[test]
fn headers_that_lie_are_refused() {
    const NAME: &str = "proj_out.bias";
    check(&[
        (
            "an end beyond u64",
            |p| header(p, |h| h[NAME]["data_offsets"][1] = json!(1e30)),
            &["damaged safetensors header", NAME],
        ),
        (
            "an end at u64::MAX",
            |p| header(p, |h| h[NAME]["data_offsets"][1] = json!(u64::MAX)),
            &["truncated", NAME],
        ),
        (
            "a start at u64::MAX",
            |p| header(p, |h| h[NAME]["data_offsets"][0] = json!(u64::MAX)),
            &["diffusion_pytorch_model"],
        ),
        (
            "a start after the end",
            |p| header(p, |h| h[NAME]["data_offsets"][0] = json!(1u64 << 40)),
            &["diffusion_pytorch_model"],
        ),
        (
            "negative offsets",
            |p| header(p, |h| h[NAME]["data_offsets"] = json!([-8, -4])),
            &["damaged safetensors header", NAME],
        ),
        (
            "no offsets",
            |p| header(p, |h| h[NAME] = json!({ "dtype": "F32", "shape": [32] })),
            &["damaged safetensors header", NAME],
        ),
        (
            "a shape that overflows",
            |p| header(p, |h| h[NAME]["shape"] = json!([1u64 << 40, 1u64 << 40])),
            &["diffusion_pytorch_model"],
        ),
        (
            "a shape of another size",
            |p| header(p, |h| h[NAME]["shape"] = json!([31])),
            &["diffusion_pytorch_model"],
        ),
        (
            "an unknown type",
            |p| header(p, |h| h[NAME]["dtype"] = json!("F7")),
            &["diffusion_pytorch_model"],
        ),
        ("a list", |p| header(p, |h| *h = json!([1, 2])), &["damaged safetensors header"]),
        (
            "a text as a tensor",
            |p| header(p, |h| h[NAME] = json!("F32")),
            &["damaged safetensors header", NAME],
        ),
    ]);
}

/// One bit anywhere in length or header: an error or the same result, never a panic.
#[test]
fn no_flipped_bit_of_a_header_brings_the_exporter_down() {
    let place = Place::new();
    let whole = fs::read(place.file(BERT)).expect("a file");
    let length = u64::from_le_bytes(whole[..8].try_into().expect("8 bytes")) as usize;
    let mut refused = 0;
    // Every bit of the length, then a bit of every third byte of the header.
    let places = (0..64).chain((64..8 * (8 + length)).step_by(25));
    for bit in places {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(place.file(BERT), bytes).expect("written");
        match place.export() {
            Ok(_) => fs::remove_dir_all(place.out()).expect("removed"),
            Err(error) => {
                refused += 1;
                let error = message(&error);
                assert!(error.contains("text_encoder"), "bit {bit}: {error}");
                assert!(!place.out().exists(), "bit {bit}: something stays");
            }
        }
    }
    assert!(refused > 100, "{refused}");
}

fn index(place: &Place, map: Value) {
    let folder = place.file("transformer");
    fs::rename(place.file(TRANSFORMER), folder.join("a.safetensors")).expect("renamed");
    let text = json!({ "metadata": {}, "weight_map": map }).to_string();
    fs::write(folder.join("diffusion_pytorch_model.safetensors.index.json"), text)
        .expect("written");
}

#[test]
fn shards_that_are_missing_or_elsewhere_are_refused() {
    const INDEX: &str = "diffusion_pytorch_model.safetensors.index.json";
    check(&[
        (
            "a missing shard",
            |p| index(p, json!({ "a": "a.safetensors", "b": "b.safetensors" })),
            &["b.safetensors: not found", "download it again"],
        ),
        (
            "a shard above",
            |p| index(p, json!({ "a": "../text_encoder/model.safetensors" })),
            &[INDEX, "`../text_encoder/model.safetensors`"],
        ),
        (
            "an absolute shard",
            |p| index(p, json!({ "a": "/etc/passwd" })),
            &[INDEX, "`/etc/passwd`"],
        ),
        ("a shard of another kind", |p| index(p, json!({ "a": "a.gguf" })), &[INDEX, "`a.gguf`"]),
        (
            "a shard that is a folder",
            |p| {
                index(p, json!({ "a": "d.safetensors" }));
                fs::create_dir(p.file("transformer/d.safetensors")).expect("a folder");
            },
            &["d.safetensors: not found"],
        ),
        ("no shard", |p| index(p, json!({})), &[INDEX, "names no shard"]),
        ("no map", |p| index(p, json!(3)), &[INDEX]),
        (
            "a shard without its index",
            |p| {
                fs::rename(p.file(TRANSFORMER), p.file("transformer/m-00001-of-00002.safetensors"))
                    .expect("renamed");
            },
            &["transformer", "m-00001-of-00002.safetensors", "without its index"],
        ),
        (
            "a pickle that is none",
            |p| {
                fs::remove_file(p.file(TRANSFORMER)).expect("removed");
                let junk = p.file("transformer/diffusion_pytorch_model.bin");
                fs::write(junk, "PK\x03\x04junk").expect("written");
            },
            &["diffusion_pytorch_model.bin", "download"],
        ),
        (
            "no folder",
            |p| fs::remove_dir_all(p.file("vae")).expect("removed"),
            &["vae", "not found"],
        ),
        (
            "no weights",
            |p| fs::remove_file(p.file(BERT)).expect("removed"),
            &["text_encoder", "expected weights in it"],
        ),
    ]);
}

/// An export that must not come to writing.
struct NotYet;

impl Progress for NotYet {
    fn total(&mut self, _: u64) {
        panic!("weights are about to be written");
    }
}

#[test]
fn a_missing_tokenizer_is_told_before_anything_is_written() {
    let place = Place::new();
    fs::remove_dir_all(place.file("tokenizer_2")).expect("a folder of the checkpoint");
    let error = export(&place.options(), &mut NotYet).expect_err("a refusal");
    assert!(message(&error).contains("tokenizer_2: not found"), "{error}");
    assert!(!place.out().exists());
}
