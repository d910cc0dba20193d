//! Forged PNGs.

use std::fs;
use std::path::Path;

use hydit::artifacts::Artifacts;
use hydit::image::{decode_png, read_png, read_texts};
use hydit::request::Parameters;
use hydit::util::error_chain;
use hydit_testing::emoji;
use hydit_testing::hostile::{check_message, not_the_file};
use serde_json::{Value, json};

/// A chunk of a PNG.
fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut body = kind.to_vec();
    body.extend(data);
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    let crc = !body.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step));
    [&(data.len() as u32).to_be_bytes()[..], &body, &crc.to_be_bytes()].concat()
}

/// A PNG of one pixel with some chunks before it.
fn png_with(chunks: &[Vec<u8>]) -> Vec<u8> {
    let header = chunk(b"IHDR", &[0, 0, 0, 1, 0, 0, 0, 1, 8, 2, 0, 0, 0]);
    let pixels = chunk(b"IDAT", &zlib(&[0, 0, 0, 0]));
    let parts =
        [b"\x89PNG\r\n\x1a\n".to_vec(), header, chunks.concat(), pixels, chunk(b"IEND", b"")];
    parts.concat()
}

/// A zlib stream of one stored block.
fn zlib(data: &[u8]) -> Vec<u8> {
    let (a, b) = data.iter().fold((1u32, 0u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65521;
        (a, (b + a) % 65521)
    });
    let length = data.len() as u16;
    let block = [&[0x78, 1, 1][..], &length.to_le_bytes(), &(!length).to_le_bytes(), data].concat();
    [&block[..], &(b << 16 | a).to_be_bytes()].concat()
}

#[test]
fn texts_of_a_png_are_unpacked_within_bounds() {
    let packed = |texts: &[(&str, usize)]| {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 1, 1);
        for (key, length) in texts {
            encoder.add_ztxt_chunk(key.to_string(), " ".repeat(*length)).expect("a text");
        }
        let mut writer = encoder.write_header().expect("a header");
        writer.write_image_data(&[0]).expect("data");
        writer.finish().expect("an end");
        bytes
    };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.png");
    fs::write(&path, packed(&[("much", 4 << 20)])).expect("written");
    assert_eq!(read_texts(&path).expect("as much as there is room for")[0].1.len(), 4 << 20);
    fs::write(&path, packed(&[("bomb", (4 << 20) + 1)])).expect("written");
    for error in [read_texts(&path).map(drop), read_png(&path).map(drop)] {
        let error = error_chain(&error.expect_err("a refusal"));
        let parts = ["a.png: ", "the text \"bomb\"", "4194304 bytes or less"];
        check_message("a bomb", &error, &parts);
    }
    // Many that are small enough each.
    let parts = ["a", "b", "c", "d", "e", "f", "g", "h", "ninth"].map(|key| (key, 1 << 19));
    let error = error_chain(&decode_png(&packed(&parts)).expect_err("a refusal"));
    check_message("parts", &error, &["the text \"ninth\""]);
}

#[test]
fn forged_pngs_are_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.png");
    let text = |json: &str| chunk(b"tEXt", format!("hydit\0{json}").as_bytes());
    let artifacts = Artifacts::open(&emoji::artifacts()).expect("a manifest");
    let good = emoji::cat(&artifacts.manifest, 4).parameters(&artifacts, 0, &[]);
    let good = serde_json::to_value(good).expect("JSON");
    let with = |field: &str, value: Value| {
        let mut forged = good.clone();
        forged[field] = value;
        png_with(&[text(&forged.to_string())])
    };
    let mut cases: Vec<(String, Vec<u8>)> =
        not_the_file(&png_with(&[text(&good.to_string())])[..60])
            .into_iter()
            .map(|(case, bytes)| (case.to_string(), bytes))
            .collect();
    for field in ["prompt", "width", "height", "steps", "sampler", "spacing", "seed"] {
        for value in [json!(-1), json!([]), json!(null), json!({ "a": 1 }), json!(1e300)] {
            cases.push((format!("{field} = {value}"), with(field, value.clone())));
        }
    }
    for (case, value) in [
        ("no policy", json!("")),
        ("a policy of others", json!("turbo")),
        ("a policy beyond numbers", json!("N99999999999")),
        ("a probe of nothing", json!("probe:NaN")),
        ("a file of no name", json!("schedule:")),
    ] {
        cases.push((case.to_string(), with("cache_policy", value)));
    }
    let header = |data: &[u8]| {
        let parts = [b"\x89PNG\r\n\x1a\n".to_vec(), chunk(b"IHDR", data), chunk(b"IEND", b"")];
        parts.concat()
    };
    cases.extend([
        ("no text".to_string(), png_with(&[])),
        ("no JSON".to_string(), png_with(&[text("{")])),
        ("deep JSON".to_string(), png_with(&[text(&"[".repeat(100_000))])),
        ("a packed text that is none".to_string(), png_with(&[chunk(b"zTXt", b"hydit\0\0xyz")])),
        ("a text without an end".to_string(), png_with(&[chunk(b"iTXt", b"hydit")])),
        ("no pixels".to_string(), header(&[0, 0, 0, 0, 0, 0, 0, 0, 8, 2, 0, 0, 0])),
        (
            "vast".to_string(),
            header(&[0x7F, 0xFF, 0xFF, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 8, 2, 0, 0, 0]),
        ),
        ("a depth of 77".to_string(), header(&[0, 0, 0, 1, 0, 0, 0, 1, 77, 2, 0, 0, 0])),
        ("a chunk of 4 GiB".to_string(), {
            let mut bytes = png_with(&[]);
            bytes[33..37].fill(0xFF);
            bytes
        }),
    ]);
    for (case, bytes) in cases {
        fs::write(&path, &bytes).expect("written");
        let read = read_texts(&path).and_then(|texts| Parameters::from_texts(&texts));
        let error = error_chain(&read.expect_err(&case));
        check_message(&case, &error, &[]);
    }
    fs::write(&path, png_with(&[text(&good.to_string())])).expect("written");
    Parameters::from_texts(&read_texts(&path).expect("texts")).expect("the PNG itself is good");
    for what in ["/dev/zero", "/proc"] {
        let error = error_chain(&read_texts(Path::new(what)).expect_err(what));
        check_message(what, &error, &[what, "expected a regular file"]);
    }
}
