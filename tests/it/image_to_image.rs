//! Pictures that are made from an image, against diffusers, and what is refused.
//! `tests/reference/make_image_to_image.py` made the references.

use std::path::Path;

use hydit::cache::refreshed;
use hydit::eval::compare::psnr;
use hydit::image::{Decoded, Format, Image, ImageError, encode, resize};
use hydit::init_image::{InitImage, Mask};
use hydit::runtime::BackendChoice;
use hydit::{Pipeline, Request};
use hydit_testing::emoji;

use crate::pictures::references;

fn pipeline() -> Pipeline {
    emoji::pipeline(&emoji::artifacts(), BackendChoice::Ort)
}

fn fox() -> Decoded {
    let (folder, _) = references("image_to_image");
    Decoded::read(&folder.join("image-fox.png")).expect("an image")
}

/// A fox of 25 steps made of the fox.
fn request(pipeline: &Pipeline, strength: f64) -> Request {
    let prompt = "a fox on a white background".to_string();
    let request = Request { prompt, ..emoji::cat(pipeline.manifest(), 25) };
    let size = (request.width, request.height);
    Request { init_image: Some(InitImage::new(&fox(), None, Some(strength), size)), ..request }
}

#[test]
fn pictures_made_from_images_equal_those_of_diffusers() {
    let (folder, references) = references("image_to_image");
    assert!(references.len() >= 12, "the spread of references shrank");
    let mut pipeline = pipeline();
    let worst = references.iter().map(|reference| reference.check(&folder, &mut pipeline));
    println!("worst: {:.1} dB", worst.fold(f64::INFINITY, f64::min));
}

#[test]
fn the_embedded_engine_makes_the_same_picture_of_an_image() {
    let (folder, references) = references("image_to_image");
    let reference = references.iter().find(|r| r.name == "ddpm-10-panda-mask-0.9");
    let mut pipeline = emoji::pipeline(&emoji::artifacts(), BackendChoice::Tract);
    reference.expect("it is there").check(&folder, &mut pipeline);
}

#[test]
fn images_are_resized_to_the_bits_of_pillow() {
    let (folder, _) = references("image_to_image");
    let bytes = std::fs::read(folder.join("resized.safetensors")).expect("the references");
    let resized = safetensors::SafeTensors::deserialize(&bytes).expect("the references");
    let image = Decoded::read(&folder.join("image-large.png")).expect("an image").on_white();
    let mask = Decoded::read(&folder.join("mask-large.png")).expect("a mask").on_white();
    let grey: Vec<u8> = mask.rgb.iter().copied().step_by(3).collect();
    assert!(resized.len() >= 8);
    for (name, theirs) in resized.tensors() {
        let (kind, size) = name.split_once('/').expect("a kind and a size");
        let (width, height) = size.split_once('x').expect("a size");
        let to = (width.parse().expect("a width"), height.parse().expect("a height"));
        let from = (image.width, image.height);
        let ours = match kind {
            "image" => resize(&image.rgb, 3, from, to),
            _ => resize(&grey, 1, from, to),
        };
        assert!(ours == theirs.data(), "{name}");
    }
}

#[test]
fn a_late_start_refreshes_first_and_a_weak_one_stays_near_the_image() {
    let mut pipeline = pipeline();
    let fox = fox().on_white();
    let distance = |pipeline: &mut Pipeline, strength: f64| {
        let request = Request {
            cache_policy: "N3".parse().expect("a policy"),
            ..request(pipeline, strength)
        };
        let checked = emoji::checked(pipeline, &request);
        let made = pipeline.generate(&checked, &mut emoji::ignore).expect("it draws");
        assert_eq!(made.plan.len(), (25.0 * strength) as usize);
        assert_eq!(refreshed(&made.plan)[0], 0, "{strength}");
        psnr(&made.images[0], &fox).expect("one size")
    };
    let [weak, half, strong] = [0.2, 0.5, 0.9].map(|strength| distance(&mut pipeline, strength));
    assert!(weak > half + 2.0 && half > strong, "{weak:.1}, {half:.1}, {strong:.1} dB");
}

#[test]
fn what_is_outside_the_mask_stays() {
    let mut pipeline = pipeline();
    let (folder, _) = references("image_to_image");
    let mask = Decoded::read(&folder.join("mask-half.png")).expect("a mask");
    let request = emoji::cat(pipeline.manifest(), 10);
    let size = (request.width, request.height);
    let init_image = InitImage::new(&fox(), Some(Mask::White(&mask)), None, size);
    assert_eq!(init_image.strength, 1.0);
    let request = Request { init_image: Some(init_image), ..request };
    let checked = emoji::checked(&pipeline, &request);
    let made = pipeline.generate(&checked, &mut emoji::ignore).expect("it draws");
    let half = |image: &Image, right: bool| {
        let rows = image.rgb.chunks(3 * image.width);
        let side = |row: &[u8]| if right { row[192..].to_vec() } else { row[..192].to_vec() };
        Image { width: 64, height: image.height, rgb: rows.flat_map(side).collect() }
    };
    let fox = fox().on_white();
    let near = |right| psnr(&half(&made.images[0], right), &half(&fox, right)).expect("one size");
    assert!(near(false) > 25.0 && near(true) < 15.0, "{:.1}, {:.1} dB", near(false), near(true));
}

#[test]
fn transparent_is_what_openai_paints_anew_and_white_what_others_do() {
    // Left white and opaque, right black and transparent.
    let mut rgba = image::RgbaImage::new(32, 16);
    for (x, _, pixel) in rgba.enumerate_pixels_mut() {
        *pixel = image::Rgba(if x < 16 { [255; 4] } else { [0; 4] });
    }
    let mut bytes = std::io::Cursor::new(Vec::new());
    rgba.write_to(&mut bytes, image::ImageFormat::Png).expect("a PNG");
    let mask = Decoded::new(bytes.get_ref()).expect("an image");
    let repaint = |mask: Mask<'_>| {
        let made = InitImage::new(&fox(), Some(mask), None, (32, 16));
        made.pixels().repaint_latents(8).expect("a mask")
    };
    assert_eq!(repaint(Mask::Transparent(&mask)), [false, false, true, true].repeat(2));
    assert_eq!(repaint(Mask::White(&mask)), [true; 8], "laid on white, all of it is");
}

#[test]
fn a_request_without_its_image_or_of_another_size_is_refused() {
    let pipeline = pipeline();
    let good = request(&pipeline, 0.5);
    let text = serde_json::to_string(&good).expect("JSON");
    assert!(text.len() < 1000, "its pixels are not in it: {text}");
    let read: Request = serde_json::from_str(&text).expect("a request");
    for (request, words) in [
        (read, "init_image: only the hash of the image is known"),
        (
            Request { width: 144, ..good.clone() },
            "init_image: it was resized for a picture of another",
        ),
        (Request { steps: 1, ..good.clone() }, "strength: 0.5 of 1 steps is none"),
    ] {
        let error = request.check(pipeline.artifacts()).expect_err("a refusal").to_string();
        assert!(error.starts_with(words), "{error}");
    }
    let bare = tempfile::tempdir().expect("a folder");
    emoji::export(&emoji::checkpoint(), bare.path(), 1, hydit_graphs::Precision::Fp32)
        .expect("an export");
    let bare = hydit::artifacts::Artifacts::open(bare.path()).expect("an export");
    let error = good.check(&bare).expect_err("a refusal").to_string();
    assert!(error.ends_with("export it again with hydit-export --image-to-image"), "{error}");
}

/// A file in each format and what it shows: red above, blue below.
fn flag(format: image::ImageFormat, kind: &str) -> Vec<u8> {
    let above = |y: u32| y < 8;
    let mut bytes = std::io::Cursor::new(Vec::new());
    let mut rgb = image::RgbImage::new(16, 16);
    for (_, y, pixel) in rgb.enumerate_pixels_mut() {
        *pixel = image::Rgb(if above(y) { [255, 0, 0] } else { [0, 0, 255] });
    }
    let rgb = image::DynamicImage::from(rgb);
    let converted = match kind {
        "grey" => rgb.to_luma8().into(),
        "grey 16" => rgb.to_luma16().into(),
        "rgb 16" => rgb.to_rgb16().into(),
        "alpha" => rgb.to_rgba8().into(),
        _ => rgb,
    };
    converted.write_to(&mut bytes, format).expect("a file");
    bytes.into_inner()
}

#[test]
fn images_of_every_kind_are_read() {
    use image::ImageFormat::{Jpeg, Png, WebP};
    let red = |image: &Image, y: usize| image.rgb[3 * 16 * y..][..3].to_vec();
    for (format, kind) in [
        (Png, "rgb"),
        (Png, "alpha"),
        (Png, "grey"),
        (Png, "grey 16"),
        (Png, "rgb 16"),
        (Jpeg, "rgb"),
        (Jpeg, "grey"),
        (WebP, "rgb"),
        (WebP, "alpha"),
    ] {
        let read = Decoded::new(&flag(format, kind)).unwrap_or_else(|e| panic!("{kind}: {e}"));
        let (above, below) = (red(&read.on_white(), 2), red(&read.on_white(), 13));
        if kind.starts_with("grey") {
            assert!(above[0].abs_diff(54) <= 2 && below[0].abs_diff(18) <= 2, "{kind}: {above:?}");
        } else {
            assert!(above[0] > 240 && above[2] < 15 && below[2] > 240, "{format:?} {kind}");
        }
    }
}

#[test]
fn images_are_turned_upright() {
    // Orientation 6: the first row is the right side.
    let plain = flag(image::ImageFormat::Jpeg, "rgb");
    let exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let length = (exif.len() as u16 + 2).to_be_bytes();
    let turned = [&plain[..2], b"\xff\xe1", &length, exif, &plain[2..]].concat();
    let image = Decoded::new(&turned).expect("an image").on_white();
    let pixel = |x: usize| image.rgb[3 * (16 * 8 + x)..][..3].to_vec();
    assert!(pixel(13)[0] > 240 && pixel(2)[2] > 240, "{:?} {:?}", pixel(13), pixel(2));
}

#[test]
fn what_is_no_image_or_half_of_one_is_refused_by_name() {
    use image::ImageFormat::{Jpeg, Png, WebP};
    let half = |format| {
        let whole = encode(&fox().on_white(), format, 90, &[]).expect("a file");
        whole[..whole.len() / 2].to_vec()
    };
    let mut huge = flag(Png, "rgb");
    huge[16..24].copy_from_slice(&[0, 0, 0x4e, 0x20, 0, 0, 0x4e, 0x20]); // 20,000 x 20,000
    let sum = crc32(&huge[12..29]);
    huge[29..33].copy_from_slice(&sum.to_be_bytes());
    let mut animated = flag(Png, "rgb");
    let control = b"acTL\0\0\0\x02\0\0\0\0";
    let control = [&8u32.to_be_bytes()[..], control, &crc32(control).to_be_bytes()].concat();
    animated.splice(33..33, control);
    for (bytes, words) in [
        (animated, "the image is animated"),
        (b"".to_vec(), "not a PNG, JPEG or WebP image"),
        (b"GIF89a....".to_vec(), "not a PNG, JPEG or WebP image"),
        (b"<svg></svg>".to_vec(), "not a PNG, JPEG or WebP image"),
        (half(Format::Png), "the image is cut off or damaged"),
        (half(Format::Jpeg), "the JPEG is cut off"),
        (half(Format::Webp), "the image is cut off or damaged"),
        (huge, "the image is 20000 x 20000: more than 67108864 pixels are not read"),
    ] {
        let error = Decoded::new(&bytes).expect_err("a refusal").to_string();
        assert!(error.starts_with(words), "{error}");
    }
    for (format, kind) in [(Png, "rgb"), (Jpeg, "rgb"), (WebP, "alpha")] {
        let good = flag(format, kind);
        for i in 0..good.len() {
            let mut bytes = good.clone();
            bytes[i] ^= 0x55;
            let _ = Decoded::new(&bytes); // an image or an error, and no panic
            let _ = Decoded::new(&good[..i]);
        }
    }
    let missing = Decoded::read(Path::new("no/such.png")).expect_err("a refusal");
    assert!(matches!(missing, ImageError::File { .. }), "{missing}");
}

/// The check sum of a PNG's chunk.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 * (sum & 1)))
    })
}
