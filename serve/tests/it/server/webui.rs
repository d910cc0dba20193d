//! The API of AUTOMATIC1111's web UI, over the wire. A client library and the requests of front ends are in
//! `tests/clients`.

use std::thread;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hydit::image::{Image, decode_png, encode_png};
use serde_json::{Value, json};

use super::harness::{Answer, Server, until};

/// Another program's PNG, of 16x16 pixels that are half transparent, without texts.
const TRANSPARENT: &str = "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAYAAAAf8/9hAAAAGUlEQVR42mNwaDjQQAlmGDVg1IBRA4aLAQDA8QAfi9\
                           N5lgAAAABJRU5ErkJggg==";
const DRAW: &str = "/sdapi/v1/txt2img";

fn draw(server: &Server, body: &Value) -> Value {
    let answer = server.post(DRAW, body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn info(answer: &Value) -> Value {
    serde_json::from_str(answer["info"].as_str().expect("a text")).expect("JSON in it")
}

fn picture(answer: &Value, field: &str, index: usize) -> Vec<u8> {
    let text = answer[field][index].as_str().or(answer[field][index]["b64_json"].as_str());
    BASE64_STANDARD.decode(text.expect("base64")).expect("base64")
}

fn is_error(answer: &Answer, status: u16, expected: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    let body = answer.json();
    let detail = body["detail"].as_str().expect("a text");
    assert!(detail.contains(expected), "{detail}");
    assert_eq!(body["errors"], body["detail"]);
}

#[test]
fn pictures_are_those_of_the_other_apis_and_say_how_they_were_drawn() {
    let server = Server::start(&[]);
    let body = json!({
        "prompt": "蓝色背景上的猫", "negative_prompt": "狗", "seed": 7, "steps": 4, "cfg_scale": 4.5,
        "width": 130, "height": 96, "batch_size": 1, "n_iter": 2, "sampler_name": "DPM++ 2M Karras",
        "something_of_theirs": [1, 2], "alwayson_scripts": {},
    });
    let theirs = draw(&server, &body);
    assert_eq!(theirs["parameters"], body);
    let info = info(&theirs);
    assert_eq!(
        (&info["width"], &info["height"], &info["seed"]),
        (&json!(128), &json!(96), &json!(7))
    );
    assert_eq!((&info["all_seeds"], &info["sampler_name"]), (&json!([7, 8]), &json!("DPM++ 2M")));
    assert!(
        info["infotexts"][0].as_str().expect("a text").contains("Schedule type: karras"),
        "{info}"
    );
    let ours = server.post(
        "/v1/images/generations",
        &json!({
            "prompt": "蓝色背景上的猫", "negative_prompt": "狗", "seed": 7, "steps": 4, "guidance": 4.5,
            "size": "128x96", "n": 2, "sampler": "dpmms", "spacing": "karras",
        }),
    );
    let ours = ours.json();
    for index in [0, 1] {
        let (image, texts) = decode_png(&picture(&theirs, "images", index)).expect("a PNG");
        assert_eq!(image, decode_png(&picture(&ours, "data", index)).expect("a PNG").0);
        let text = texts.iter().find(|(key, _)| key == "parameters").expect("parameters");
        assert_eq!(info["infotexts"][index], json!(text.1));
    }
    let image = theirs["images"][0].clone();
    let read = server.post("/sdapi/v1/png-info", &json!({ "image": image })).json();
    assert_eq!(read["info"], info["infotexts"][0]);
    let read = server.post("/sdapi/v1/png-info", &json!({ "image": TRANSPARENT })).json();
    assert_eq!(read["info"], "", "{read}");
    let none =
        draw(&server, &json!({ "prompt": "x", "steps": 1, "width": 64, "send_images": false }));
    assert_eq!(none["images"], json!([]));
}

#[test]
fn progress_is_told_and_an_interrupted_order_ends_at_once() {
    let server = Server::start(&[]);
    let state = || server.get("/sdapi/v1/progress").json();
    assert_eq!((&state()["progress"], &state()["state"]["job_count"]), (&json!(0.0), &json!(0)));
    let long = json!({ "prompt": "x", "steps": 100, "width": 256, "height": 256 });
    let answer = thread::scope(|scope| {
        let drawing = scope.spawn(|| draw(&server, &long));
        until("a step is told", || state()["state"]["sampling_step"].as_u64() > Some(0));
        let now = state();
        let progress = now["progress"].as_f64().expect("a number");
        assert!(
            progress > 0.0 && progress < 1.0 && now["eta_relative"].as_f64() > Some(0.0),
            "{now}"
        );
        assert_eq!(now["state"]["sampling_steps"], 100);
        assert_eq!(server.post("/sdapi/v1/interrupt", &json!({})).status, 200);
        drawing.join().expect("it is answered")
    });
    assert_eq!((&answer["images"], &info(&answer)["interrupted"]), (&json!([]), &json!(true)));
    assert_eq!(state()["state"]["job_count"], 0);
}

#[test]
fn a_model_is_chosen_by_its_title_and_what_is_not_there_is_refused() {
    let server = Server::start(&[]);
    let models = server.get("/sdapi/v1/sd-models").json();
    let title = models[0]["title"].clone();
    let set =
        |value: &Value| server.post("/sdapi/v1/options", &json!({ "sd_model_checkpoint": value }));
    assert_eq!(set(&title).status, 200);
    assert_eq!(server.get("/sdapi/v1/options").json()["sd_model_checkpoint"], title);
    is_error(&set(&json!("none [0123]")), 404, "there is no model \"none\"");
    is_error(&set(&json!(5)), 400, "expected the name of a model");
    let ask =
        |field: &str, value: Value| server.post(DRAW, &json!({ "prompt": "x", field: value }));
    is_error(&ask("sampler_name", json!("Heun")), 404, "/sdapi/v1/samplers lists");
    is_error(&ask("scheduler", json!("Karras")), 400, "karras is no spacing of the ddpm sampler");
    is_error(&ask("steps", json!(0)), 400, "steps: 0; expected 1 to 100");
    is_error(&ask("batch_size", json!(1000)), 400, "n: 1000; expected 1 to");
    let other = json!({ "sd_model_checkpoint": "none" });
    is_error(&ask("override_settings", other), 404, "there is no model \"none\"");
    is_error(&server.post("/sdapi/v1/png-info", &json!({ "image": "AAAA" })), 400, "not a PNG");
    is_error(&server.get("/sdapi/v1/nothing"), 404, "no such path");
}

#[test]
fn an_image_is_changed_as_by_the_other_apis() {
    let server = Server::start(&[]);
    let shown = draw(&server, &json!({ "prompt": "a cat", "seed": 3, "steps": 4, "width": 128 }));
    let image = shown["images"][0].as_str().expect("base64");
    let body = json!({
        "prompt": "a dog", "init_images": [format!("data:image/png;base64,{image}")], "steps": 8, "seed": 4,
        "denoising_strength": 0.5, "sampler_name": "DDIM", "mask": "", "inpainting_mask_invert": 0,
    });
    let made = server.post("/sdapi/v1/img2img", &body);
    assert_eq!(made.status, 200, "{}", made.text());
    let made = made.json();
    assert!(made["parameters"].get("init_images").is_none(), "it is not sent back");
    assert_eq!((&info(&made)["width"], &info(&made)["height"]), (&json!(128), &json!(128)));
    let ours = json!({
        "prompt": "a dog", "image": image, "steps": 8, "seed": 4, "strength": 0.5, "sampler": "ddim",
    });
    let ours = server.post("/v1/images/generations", &ours).json();
    let pixels = |file: &[u8]| decode_png(file).expect("a PNG").0;
    assert_eq!(pixels(&picture(&made, "images", 0)), pixels(&picture(&ours, "data", 0)));

    // All white: painted anew as if there were no mask but for the strength; all black: nothing is.
    let mask = |value: u8| {
        let rgb = vec![value; 3 * 128 * 128];
        let png = encode_png(&Image { width: 128, height: 128, rgb }, &[]).expect("a PNG");
        BASE64_STANDARD.encode(png)
    };
    let masked = |value: u8| {
        let mut body = body.clone();
        body["mask"] = json!(mask(value));
        let answer = server.post("/sdapi/v1/img2img", &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        pixels(&picture(&answer.json(), "images", 0))
    };
    assert_eq!(masked(255), pixels(&picture(&made, "images", 0)));
    assert_ne!(masked(0), masked(255));
    let ask = |field: &str, value: Value| {
        let mut body = body.clone();
        body[field] = value;
        server.post("/sdapi/v1/img2img", &body)
    };
    is_error(&ask("init_images", json!([])), 400, "init_images: expected one image");
    is_error(&ask("init_images", json!(["!"])), 400, "init_images: expected a file in base64");
    is_error(&ask("init_images", json!(["AAAA"])), 400, "image: ");
    is_error(&ask("denoising_strength", json!(1.5)), 400, "strength: 1.5; expected more than 0");
    is_error(&ask("inpainting_mask_invert", json!(1)), 400, "invert the mask itself");
}
