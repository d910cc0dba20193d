//! Fields of a request for images against the small model.

use hydit::sampler::{SamplerKind, Spacing};
use hydit_testing::emoji;
use serde_json::{Value, json};

use super::*;
use crate::server::http::fields::Fields;
use crate::server::http::openapi::document;

fn ask(body: &Value, artifacts: &Artifacts, settings: &Settings) -> Result<Request, ApiError> {
    let fields: ImageFields = read(Fields::parse(body.to_string().as_bytes())?.0)?;
    fields.output(settings)?;
    fields.deadline(settings)?;
    let request = fields.request(artifacts, settings)?;
    Ok(Request::clone(&request))
}

#[test]
fn fields_make_a_request_with_the_models_defaults_or_name_what_is_wrong() {
    let artifacts = Artifacts::open(&emoji::artifacts()).expect("an export opens");
    let settings = Settings::default();
    let ask = |body: &Value| ask(body, &artifacts, &settings);
    let right = |body: Value| ask(&body).unwrap_or_else(|error| panic!("{body}: {error:?}"));

    let plain = right(json!({"prompt": "猫"}));
    let defaults = Request::new(&artifacts.manifest, "猫").expect("the defaults are right");
    assert_eq!(plain, Request { seed: plain.seed, ..defaults });
    assert!(plain.seed <= u64::from(u32::MAX));
    assert_ne!(plain.seed, right(json!({"prompt": "猫"})).seed, "seeds are drawn at random");
    for seed in [json!(-1), json!(-1.0)] {
        let [one, other] = [(); 2].map(|()| right(json!({"prompt": "猫", "seed": seed})).seed);
        assert!(one != other && one.max(other) <= u64::from(u32::MAX), "{one} {other}");
    }

    let wide = right(json!({"prompt": "猫", "size": "256x128"}));
    assert_eq!((wide.width, wide.height), (256, 128));
    let dpmms = right(json!({"prompt": "猫", "sampler": "dpmms", "num_inference_steps": 7}));
    assert_eq!((dpmms.sampler, dpmms.steps), (SamplerKind::Dpmms, 7));
    assert_eq!(dpmms.spacing, Spacing::Linspace, "the variant's for this sampler");
    let usual = right(json!({"prompt": "猫", "cache": "usual"}));
    assert_eq!(usual.cache_policy.to_string(), "N2-700-50");
    let guided = right(json!({"prompt": "猫", "guidance_scale": 2.5, "guidance_rescale": 0.5}));
    assert_eq!((guided.guidance_scale, guided.guidance_rescale), (2.5, 0.5));
    right(json!({"prompt": "猫", "n": null, "deadline": 600, "seed": MAX_SEED}));

    for (field, value) in [
        ("prompt", json!("")),
        ("prompt", json!("a\0b")),
        ("prompt", json!("猫".repeat(4097))),
        ("prompt", json!(7)),
        ("negative_prompt", json!("\0")),
        ("n", json!(0)),
        ("n", json!(settings.limits.max_n + 1)),
        ("n", json!(1u64 << 63)),
        ("size", json!("100x128")),
        ("size", json!("1296x1280")),
        ("size", json!("+128x128")),
        ("size", json!("0128x128")),
        ("size", json!("0x0")),
        ("size", json!("99999999999999999999x16")),
        ("steps", json!(0)),
        ("steps", json!(101)),
        ("steps", json!("4")),
        ("seed", json!(MAX_SEED + 1)),
        ("seed", json!(-2)),
        ("seed", json!("-1")),
        ("guidance", json!(1e308)),
        ("guidance", json!(-0.5)),
        ("guidance_rescale", json!(1.5)),
        ("sampler", json!("heun")),
        ("spacing", json!("even")),
        ("cache", json!("N0")),
        ("cache", json!("auto:35dB")),
        ("cache", json!("schedule:/etc/passwd")),
        ("cache", json!("schedule:/etc/passwd+taylor1")),
        ("cache", json!("N".repeat(65))),
        ("output_format", json!("gif")),
        ("output_compression", json!(50)),
        ("output_compression", json!(101)),
        ("deadline", json!(0.5)),
        ("deadline", json!(601)),
        ("colour", json!("red")),
        ("num_inference_steps", json!(4)),
        ("guidance_scale", json!(4)),
    ] {
        let mut body = json!({"prompt": "猫"});
        if let "num_inference_steps" | "guidance_scale" = field {
            body = json!({"prompt": "猫", "steps": 4, "guidance": 4});
        }
        body[field] = value;
        let error = ask(&body).expect_err(field);
        assert_eq!((error.status.as_u16(), error.param.as_deref()), (400, Some(field)), "{body}");
        assert!(!error.message.contains(&artifacts.path.display().to_string()), "{error:?}");
    }
    let class = ask(&json!({"class": 207})).expect_err("a model of texts");
    assert_eq!(class.param.as_deref(), Some("class"));
    assert!(class.message.contains("use prompt"), "{class:?}");
    let lossy = json!({"prompt": "猫", "output_format": "jpeg", "metadata": true});
    assert_eq!(ask(&lossy).expect_err("JPEG").param.as_deref(), Some("metadata"));
}

#[test]
fn every_field_of_the_document_is_read_and_wrong_types_are_refused_by_its_name() {
    let artifacts = Artifacts::open(&emoji::artifacts()).expect("an export opens");
    let settings = Settings::default();
    let document = document(&settings);
    let documented = &document["components"]["schemas"]["JobFields"]["properties"];
    let names = documented.as_object().expect("it has fields").keys();
    assert!(names.len() >= 19, "{documented}");
    for name in names.filter(|name| *name != "preview_every") {
        let mut body = if name == CLASS { json!({}) } else { json!({"prompt": "猫"}) };
        body[name] = if name == "lora" || name == "control" { json!({}) } else { json!([]) };
        let error = ask(&body, &artifacts, &settings).expect_err(name);
        assert_eq!(error.param.as_deref(), Some(name.as_str()), "{error:?}");
        assert!(error.message.starts_with(&format!("{name}: ")), "{error:?}");
        assert!(error.message.contains("sequence"), "{error:?}");
        if name != "prompt" {
            body["prompt"] = json!("猫");
        }
        body[name] = json!(null);
        let absent = ask(&body, &artifacts, &settings);
        assert_eq!(absent.is_err(), name == "prompt", "{name}: null is as good as absent");
    }
}

#[test]
fn names_of_a_request_that_are_not_of_the_apis_are_unknown() {
    let artifacts = Artifacts::open(&emoji::artifacts()).expect("an export opens");
    for name in ["width", "height", "num_images", "cache_policy", "colour"] {
        for value in [json!(64), json!(null)] {
            let body = json!({"prompt": "猫", name: value});
            let error = ask(&body, &artifacts, &Settings::default()).expect_err(name);
            assert_eq!(error.param.as_deref(), Some(name));
            assert!(error.message.contains("is not a field here"), "{error:?}");
        }
    }
}

#[test]
fn a_number_beyond_a_bound_is_not_rounded_onto_it() {
    let artifacts = Artifacts::open(&emoji::artifacts()).expect("an export opens");
    for (name, value, fits) in [
        ("guidance", json!(100.00000000000001), false),
        ("guidance", json!(-1e-300), false),
        ("guidance", json!(99.999), true),
        ("guidance_rescale", json!(1.0000000000000002), false),
        ("guidance_rescale", json!(1.0), true),
        ("guidance_rescale", json!(0.7), true),
    ] {
        let body = json!({"prompt": "猫", name: value});
        let request = ask(&body, &artifacts, &Settings::default());
        assert_eq!(request.is_ok(), fits, "{body}: {request:?}");
    }
    let body = json!({"prompt": "猫", "guidance": 3.3});
    let request = ask(&body, &artifacts, &Settings::default()).expect("it fits");
    assert_eq!(request.guidance_scale, 3.3, "the nearest f32");
}

#[test]
fn encodings_hold_the_picture_and_nothing_else_unless_asked() {
    let artifacts = Artifacts::open(&emoji::artifacts()).expect("an export opens");
    let mut request = Request::new(&artifacts.manifest, "猫").expect("the defaults are right");
    (request.seed, request.num_images) = (7, 2);
    let rgb = (0..32 * 16 * 3).map(|i| (i * 7 % 251) as u8).collect();
    let image = hydit::image::Image { width: 32, height: 16, rgb };
    let encode = |format, quality, metadata| {
        let output = Output { format, quality, metadata };
        let images = [image.clone(), image.clone()];
        let files = output.encode(&images, &artifacts, &request, &[]).expect("they are encoded");
        let [_, second] = files.try_into().expect("two files");
        second
    };

    let chunks = |png: &[u8]| {
        let (mut at, mut found) = (8, Vec::new());
        while at < png.len() {
            let length = u32::from_be_bytes(png[at..at + 4].try_into().expect("4 bytes"));
            found.push(String::from_utf8_lossy(&png[at + 4..at + 8]).into_owned());
            at += length as usize + 12;
        }
        found
    };
    let png = encode(Format::Png, 100, false);
    assert_eq!(chunks(&png), ["IHDR", "IDAT", "IEND"]);
    let told = encode(Format::Png, 100, true);
    let (_, texts) = hydit::image::decode_png(&told).expect("a PNG");
    let parameters =
        hydit::request::Parameters::from_texts(&texts).expect("it says how it was made");
    assert_eq!((parameters.request.seed, parameters.request.prompt.as_str()), (8, "猫"));

    let webp = encode(Format::Webp, 100, false);
    let decoded = image::load_from_memory(&webp).expect("a WebP").to_rgb8();
    assert_eq!((decoded.dimensions(), decoded.as_raw()), ((32, 16), &image.rgb), "lossless");
    let (good, bad) = (encode(Format::Jpeg, 100, false), encode(Format::Jpeg, 0, false));
    let decoded = image::load_from_memory(&good).expect("a JPEG").to_rgb8();
    assert_eq!(decoded.dimensions(), (32, 16));
    assert!(bad.len() < good.len() / 2, "{} and {}", bad.len(), good.len());
}

#[test]
fn an_image_is_fitted_to_the_picture() {
    let artifacts = Artifacts::open(&emoji::artifacts()).expect("an export opens");
    let image = hydit::image::Image { width: 40, height: 33, rgb: vec![200; 3 * 40 * 33] };
    let file = hydit::image::encode_png(&image, &[]).expect("a PNG");
    let body =
        json!({ "prompt": "猫", "image": STANDARD.encode(file), "strength": 0.7, "steps": 10 });
    let made = ask(&body, &artifacts, &Settings::default()).expect("a request");
    assert_eq!((made.width, made.height, made.steps_taken()), (32, 32, 7));
    let wide = {
        let mut body = body.clone();
        body["size"] = json!("64x32");
        ask(&body, &artifacts, &Settings::default()).expect("a request")
    };
    assert_eq!((wide.width, wide.height), (64, 32));
}
