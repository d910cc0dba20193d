//! `hydit::image`; the reference values are made by `tests/reference/make_image.py`.

use std::error::Error;

use hydit::Request;
use hydit::eval::compare::{psnr, ssim};
use hydit::image::{Image, ImageError, decode_png, encode_png, read_png, write_png};
use hydit::request::Parameters;
use hydit::sampler::{SamplerKind, Spacing};
use serde::Deserialize;

#[derive(Deserialize)]
struct Reference {
    values: Vec<f32>,
    rgb: Vec<u8>,
    pairs: Vec<Pair>,
}

#[derive(Deserialize)]
struct Pair {
    width: usize,
    height: usize,
    kinds: [u8; 2],
    psnr: f64,
    ssim: f64,
}

fn reference() -> Reference {
    serde_json::from_str(include_str!("../reference/image.json")).expect("the reference file")
}

/// `make_image.py::picture`.
fn picture(width: usize, height: usize, kind: u8) -> Image {
    let mut rgb = Vec::new();
    for y in 0..height {
        for x in 0..width {
            for c in 0..3 {
                let smooth = (3 * x + 5 * y + 29 * c + (x * y) % 31) % 256;
                let hashed = (x * 7919 + y * 104_729 + c * 1_299_709) % 97;
                rgb.push(match kind {
                    0 => smooth as u8,
                    1 => (smooth + hashed % 9).saturating_sub(4).min(255) as u8,
                    _ => (hashed * 2) as u8,
                });
            }
        }
    }
    Image { width, height, rgb }
}

fn parameters() -> Parameters {
    let request = Request {
        prompt: "a café\nby the sea".into(),
        negative_prompt: "blurry".into(),
        width: 8,
        height: 6,
        steps: 25,
        guidance_scale: 6.5,
        guidance_rescale: 0.0,
        sampler: SamplerKind::Dpmms,
        spacing: Spacing::Linspace,
        seed: u64::MAX,
        num_images: 1,
        init_image: None,
        pag_scale: 0.0,
        pag_adaptive_scale: 0.0,
        image_prompt: None,
        cache_policy: "N2-700-50".parse().expect("a policy"),
        loras: vec!["style:0.8".parse().expect("a LoRA")],
        controls: Vec::new(),
        guidance_interval: "0.2:0.8".parse().expect("an interval"),
    };
    Parameters {
        request,
        model: "emoji".into(),
        manifest_sha256: "0123456789abcdef".into(),
        version: "0.1.0".into(),
        truncated: vec!["prompt".to_string()],
    }
}

fn text(key: &str, value: &str) -> (String, String) {
    (key.into(), value.into())
}

#[test]
fn decoder_values_become_the_bytes_of_diffusers() {
    let reference = reference();
    let width = reference.values.len() / 3;
    let image = Image::from_decoder(&reference.values, width, 1).expect("finite");
    assert_eq!(image, Image { width, height: 1, rgb: reference.rgb });
}

#[test]
fn rows_and_channels_of_the_decoder_keep_their_places() {
    let at = |byte: u8| f32::from(byte) / 255.0 * 2.0 - 1.0;
    let planes: Vec<f32> = (0..18).map(at).collect(); // [3, 3, 2]
    let image = Image::from_decoder(&planes, 2, 3).expect("finite");
    assert_eq!(image.rgb[..9], [0, 6, 12, 1, 7, 13, 2, 8, 14]);
    assert_eq!(image.rgb[15..], [5, 11, 17]);
}

#[test]
fn values_that_are_not_finite_are_an_error_with_their_place() {
    let mut pixels = vec![0.0; 3 * 4 * 5];
    pixels[20 + 2 * 5 + 3] = f32::NAN;
    pixels[59] = f32::INFINITY;
    let error = Image::from_decoder(&pixels, 5, 4).expect_err("not finite");
    assert_eq!(
        error.to_string(),
        "2 of 60 decoded values are not finite, the first in channel 1, row 2, column 3: the model or the decoder \
         overflowed; run it in a wider type (fp32)"
    );
}

// The double precision sums of a thousand windows are taken in another order than numpy's: 1e-10 is
// generous.
#[test]
fn likeness_is_as_defined() {
    for pair in reference().pairs {
        let [a, b] = pair.kinds.map(|kind| picture(pair.width, pair.height, kind));
        let ours = [psnr(&a, &b).expect("psnr"), ssim(&a, &b).expect("ssim")];
        for (ours, theirs) in ours.into_iter().zip([pair.psnr, pair.ssim]) {
            assert!((ours - theirs).abs() < 1e-10, "{ours} is not {theirs}");
        }
    }
    let a = picture(20, 20, 2);
    assert_eq!(psnr(&a, &a).expect("psnr"), f64::INFINITY);
    assert!((ssim(&a, &a).expect("ssim") - 1.0).abs() < 1e-12);
}

#[test]
fn pictures_of_different_or_tiny_sizes_are_not_compared() {
    let (a, b) = (picture(12, 20, 0), picture(20, 12, 0));
    let said = "the pictures differ in size: 12 x 20 and 20 x 12";
    assert_eq!(psnr(&a, &b).expect_err("sizes").to_string(), said);
    assert_eq!(ssim(&a, &b).expect_err("sizes").to_string(), said);
    let tiny = picture(10, 30, 0);
    assert!(matches!(ssim(&tiny, &tiny), Err(ImageError::TooSmall { width: 10, height: 30 })));
}

#[test]
fn pictures_stand_side_by_side() {
    let (a, b) = (picture(2, 2, 0), picture(1, 2, 2));
    let both = Image::side_by_side(&[a.clone(), b.clone()]).expect("one height");
    assert_eq!((both.width, both.height), (3, 2));
    assert_eq!(both.rgb, [&a.rgb[..6], &b.rgb[..3], &a.rgb[6..], &b.rgb[3..]].concat());
    assert!(Image::side_by_side(&[a, picture(2, 3, 0)]).is_err());
}

#[test]
fn a_png_file_gives_back_its_pixels_and_texts() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("picture.png");
    let image = picture(8, 6, 0);
    std::fs::write(&path, "an older file").expect("written");
    for prompt in ["a café\nby the sea", "一只猫 🐱 \"quoted\" \\ \0 \u{7f} end", ""] {
        let mut parameters = parameters();
        parameters.request.prompt = prompt.into();
        write_png(&path, &image, &parameters.to_texts()).expect("written");
        let (read, texts) = read_png(&path).expect("read");
        assert_eq!(read, image);
        assert_eq!(Parameters::from_texts(&texts).expect("parameters"), parameters);
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1, "no temporary file");
}

#[test]
fn latin_1_is_stored_as_text_and_the_rest_as_utf_8() {
    let chunks = |value: &str| {
        let bytes = encode_png(&picture(2, 2, 0), &[text("key", value)]).expect("encoded");
        let has = |name: &[u8]| bytes.windows(4).any(|window| window == name);
        (has(b"tEXt"), has(b"iTXt"))
    };
    assert_eq!(chunks("plain\ncafé ÿ"), (true, false));
    assert_eq!(chunks("猫"), (false, true));
    assert_eq!(chunks("tab\there"), (false, true));
    let zero = encode_png(&picture(2, 2, 0), &[text("key", "a\0b")]);
    assert_eq!(
        zero.expect_err("zero").to_string(),
        "the text \"key\" for the PNG holds a zero character"
    );
}

#[test]
fn the_readable_text_is_laid_out_for_people() {
    let texts = parameters().to_texts();
    assert_eq!(texts[0].0, "hydit");
    assert_eq!(
        texts[1],
        text(
            "parameters",
            "a café\nby the sea\nNegative prompt: blurry\nSteps: 25, Sampler: dpmms, Schedule type: linspace, CFG \
             scale: 6.5, CFG rescale: 0, Seed: 18446744073709551615, Size: 8x6, Model hash: 0123456789, Model: emoji, \
             Cache policy: N2-700-50, Version: hydit 0.1.0, CFG interval: 0.2:0.8, LoRA: style:0.8, \
             Truncated: prompt"
        )
    );
}

#[test]
fn a_png_without_parameters_says_so() {
    let bytes = encode_png(&picture(2, 2, 0), &[text("parameters", "by another program")]);
    let (_, texts) = decode_png(&bytes.expect("encoded")).expect("decoded");
    let error = Parameters::from_texts(&texts).expect_err("none");
    assert_eq!(
        error.to_string(),
        "the PNG has no text \"hydit\": it was not made by hydit, or its metadata was stripped"
    );
    let error =
        Parameters::from_texts(&[text("hydit", r#"{"prompt":"a cat"}"#)]).expect_err("incomplete");
    assert_eq!(error.to_string(), "the PNG's text \"hydit\" is not understood");
    assert!(error.source().expect("a cause").to_string().contains("missing field `model`"));
}

#[test]
fn compressed_texts_and_texts_after_the_pixels_are_read() {
    use png::text_metadata::{ITXtChunk, TEXtChunk, ZTXtChunk};
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 1, 1);
    encoder.add_ztxt_chunk("z".into(), "squeezed".into()).expect("a text");
    let mut writer = encoder.write_header().expect("a header");
    writer.write_text_chunk(&ZTXtChunk::new("early", "é")).expect("a text");
    writer.write_image_data(&[9]).expect("data");
    writer.write_text_chunk(&TEXtChunk::new("late", "é")).expect("a text");
    writer.write_text_chunk(&ITXtChunk::new("later", "猫")).expect("a text");
    writer.finish().expect("an end");
    let (_, texts) = decode_png(&bytes).expect("decoded");
    let expected = [("late", "é"), ("z", "squeezed"), ("early", "é"), ("later", "猫")];
    assert_eq!(texts, expected.map(|(key, value)| text(key, value)));
}

/// A PNG made with the encoder directly.
fn png(width: u32, height: u32, color: png::ColorType, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(color);
    let mut writer = encoder.write_header().expect("a header");
    writer.write_image_data(data).expect("data");
    writer.finish().expect("an end");
    bytes
}

#[test]
fn other_pngs_are_read_or_refused() {
    let (grey, _) = decode_png(&png(2, 1, png::ColorType::Grayscale, &[7, 200])).expect("grey");
    assert_eq!(grey.rgb, [7, 7, 7, 200, 200, 200]);
    let alpha = png(1, 1, png::ColorType::Rgba, &[1, 2, 3, 4]);
    assert!(matches!(decode_png(&alpha), Err(ImageError::Alpha)));
    assert!(matches!(decode_png(b"GIF89a"), Err(ImageError::Decode(_))));
    let whole = encode_png(&picture(30, 30, 2), &[]).expect("encoded");
    assert!(matches!(decode_png(&whole[..whole.len() / 2]), Err(ImageError::Decode(_))));
    // A header that claims a vast picture is refused before memory is set aside for it.
    let mut vast = whole;
    vast[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
    let crc = crc32(&vast[12..29]);
    vast[29..33].copy_from_slice(&crc.to_be_bytes());
    let error = decode_png(&vast).expect_err("vast");
    assert_eq!(
        error.to_string(),
        "the image is 65536 x 65536: more than 67108864 pixels are not read"
    );
}

/// The checksum of PNG chunks.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[test]
fn a_file_error_names_the_file() {
    let missing = read_png("no/such.png".as_ref()).expect_err("missing");
    assert_eq!(missing.to_string(), "no/such.png");
    let unwritable =
        write_png("no/such.png".as_ref(), &picture(2, 2, 0), &[]).expect_err("no folder");
    assert_eq!(unwritable.to_string(), "no/such.png");
}

#[cfg(unix)]
#[test]
fn a_picture_is_not_private() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let [ours, plain] = ["ours.png", "plain"].map(|name| folder.path().join(name));
    write_png(&ours, &picture(2, 2, 0), &[]).expect("written");
    std::fs::write(&plain, "").expect("written");
    let mode = |path| std::fs::metadata(path).expect("metadata").permissions().mode();
    assert_eq!(mode(&ours), mode(&plain));
}
