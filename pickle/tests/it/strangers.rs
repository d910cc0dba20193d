//! Files that are no checkpoints of `torch.save`, and what is said of them.

use hydit_pickle::read;

use crate::build::{file, one, tensor};
use crate::refuse;

#[test]
fn other_files_are_told_by_what_they_are() {
    let safetensors = b"\x02\0\0\0\0\0\0\0{}".to_vec();
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    let good = file(&one(&tensor("0", 0, &[6], &[1])));
    assert!(read(&good).is_ok());
    let magic = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    refuse(&[
        ("empty", Vec::new(), "it is empty; download"),
        ("pointer", b"version https://git-lfs.github.com/spec/v1\noid".to_vec(), "git lfs pull"),
        ("page", b"\n <!DOCTYPE html><html>".to_vec(), "an HTML page"),
        ("page", b"<html>".to_vec(), "an HTML page"),
        ("safetensors", safetensors, "give it the ending .safetensors"),
        ("legacy", [b"\x80\x02", &magic[..]].concat(), "before 1.6; save it again"),
        ("legacy", [b"\x80\x04\x95\x0b\0\0\0\0\0\0\0", &magic[..]].concat(), "before 1.6"),
        ("tar", tar, "a tar archive"),
        ("pickle", b"\x80\x02}.".to_vec(), "a bare pickle"),
        ("gzip", b"\x1f\x8b\x08".to_vec(), "a compressed file; unpack"),
        ("GGUF", b"GGUF\x03".to_vec(), "a GGUF file"),
        ("HDF5", b"\x89HDF\r\n".to_vec(), "an HDF5 file"),
        ("NumPy", b"\x93NUMPY\x01".to_vec(), "an array of NumPy"),
        ("no members", [b"PK\x05\x06".as_slice(), &[0; 18]].concat(), "an empty zip archive"),
        ("a part", [b"PK\x07\x08", &good[..]].concat(), "one part of a zip archive"),
        ("behind a program", [b"#!/bin/sh\n", &good[..]].concat(), "with something before it"),
        ("noise", vec![7; 100], "which begins with `PK`"),
        ("a byte", vec![0x80], "no checkpoint of torch.save"),
    ]);
}
