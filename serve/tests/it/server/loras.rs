//! LoRAs of requests: the same in every API, each request its own.

use std::fs;
use std::thread;

use hydit::request::Parameters;
use hydit_testing::{emoji, repository};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::api::{cat, draw, picture};
use super::harness::Server;
use super::oip::input;

const STYLE: &str = "tests/reference/lora/emoji-style.safetensors";
const INK: &str = "tests/reference/lora/emoji-ink.safetensors";

/// A server of the small model without slots, and of `slots`.
fn start(more: &[&str]) -> (Server, TempDir) {
    let loras = tempfile::tempdir().expect("a folder");
    for (name, file) in [("style", STYLE), ("ink", INK)] {
        let to = loras.path().join(format!("{name}.safetensors"));
        fs::copy(repository().join(file), to).expect("a copy");
    }
    fs::write(loras.path().join("broken.safetensors"), "no").expect("written");
    let folder = loras.path().to_str().expect("a plain path");
    let slots = format!("slots={}", emoji::slots().display());
    let flags = [&["--model", &slots, "--lora-dir", folder, "--metadata"], more].concat();
    (Server::start(&flags), loras)
}

fn with(loras: Value) -> Value {
    cat(json!({ "model": "slots", "size": "64x64", "lora": loras }))
}

fn drawn(server: &Server, loras: Value) -> Vec<u8> {
    picture(&draw(server, &with(loras))["data"][0]["b64_json"])
}

#[test]
fn every_api_draws_with_the_loras_that_a_request_names() {
    let (server, _loras) = start(&[]);
    let list = server.get("/v1/loras").json();
    let names: Vec<&str> = list["data"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|lora| lora["id"].as_str().expect("a name"))
        .collect();
    assert_eq!(names, ["broken", "ink", "style"]);

    let plain = drawn(&server, Value::Null);
    let asked = json!([{ "name": "style", "weight": 0.5 }, { "name": "ink" }]);
    let changed = drawn(&server, asked.clone());
    assert_ne!(plain, changed);
    assert_eq!(plain, drawn(&server, json!([])));

    let (_, texts) = hydit::image::decode_png(&changed).expect("a PNG");
    let parameters = Parameters::from_texts(&texts).expect("its parameters");
    let [style, ink] = &parameters.request.loras[..] else { panic!("{:?}", parameters.request) };
    assert_eq!((style.name.as_str(), style.weight), ("style", 0.5));
    assert_eq!((ink.name.as_str(), ink.weight), ("ink", 1.0));

    let inputs = json!({ "inputs": [
        input("prompt", "BYTES", json!("蓝色背景上的猫")),
        input("seed", "INT64", json!(7)),
        input("steps", "INT32", json!(4)),
        input("width", "INT32", json!(64)),
        input("height", "INT32", json!(64)),
        input("lora", "BYTES", json!("style:0.5,ink")),
    ] });
    let answer = server.post("/v2/models/slots/infer", &inputs);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let outputs = answer.json();
    let image = &outputs["outputs"][0];
    assert_eq!(image["name"], "image");
    assert_eq!(picture(&image["data"][0]), changed);

    let tags = json!({
        "prompt": "蓝色背景上的猫 <lora:style:0.5><lora:ink>", "seed": 7, "steps": 4, "width": 64,
        "override_settings": { "sd_model_checkpoint": "slots" },
    });
    let answer = server.post("/sdapi/v1/txt2img", &tags).json();
    assert_eq!(pixels(&picture(&answer["images"][0])), pixels(&changed));
    let listed = server.get("/sdapi/v1/loras").json();
    assert_eq!(listed[1]["name"], "ink", "{listed}");

    let job = server.post("/v1/jobs", &with(asked)).json();
    let path = format!("/v1/jobs/{}", job["id"].as_str().expect("an id"));
    super::harness::until("the job is done", || server.get(&path).json()["status"] == "done");
    let view = server.get(&path).json();
    assert_eq!(view["request"]["lora"][1]["name"], "ink", "{view}");
    let file = server.get(&format!("{path}/pictures/0"));
    assert_eq!(file.body, changed);
}

#[test]
fn loras_that_cannot_be_used_are_refused_by_their_field() {
    let (server, loras) = start(&[]);
    let refused = |body: &Value| {
        let answer = server.post("/v1/images/generations", body);
        assert_eq!(answer.status, 400, "{}", answer.text());
        let error = answer.json()["error"].clone();
        assert_eq!(error["param"], "lora", "{error}");
        let text = error["message"].as_str().expect("a message").to_string();
        let folder = loras.path().to_str().expect("a plain path");
        assert!(!text.contains(folder), "a file of the server: {text}");
        text
    };
    for (asked, expected) in [
        (json!([{ "name": "nope" }]), "there is no LoRA \"nope\"; there is broken, ink, style"),
        (json!([{ "name": "../style" }]), "there is no LoRA"),
        (json!([{ "name": "broken" }]), "\"broken\" cannot be used with this model"),
        (json!([{ "name": "style", "weight": 1e39 }]), "expected a number from -100 to 100"),
        (json!([{ "name": "style", "wieght": 1 }]), "wieght"),
        (json!([{ "name": "style", "weight": "1" }]), "lora"),
        (json!("style"), "lora"),
        (json!([{ "name": "style" }, { "name": "style" }, { "name": "style" }]), "rank 12"),
    ] {
        let text = refused(&with(asked.clone()));
        assert!(text.contains(expected), "{asked}: {text}");
    }
    let plain = cat(json!({ "lora": [{ "name": "style" }] }));
    assert!(refused(&plain).contains("no slots for LoRAs"));
}

#[test]
fn requests_with_different_loras_at_once_are_each_as_alone() {
    let (server, _loras) = start(&[]);
    let sets = [json!([]), json!([{ "name": "style" }]), json!([{ "name": "ink", "weight": 2 }])];
    let alone: Vec<Vec<u8>> = sets.iter().map(|set| drawn(&server, set.clone())).collect();
    thread::scope(|scope| {
        for turn in 0..12 {
            let (server, sets, alone) = (&server, &sets, &alone);
            scope.spawn(move || {
                let place = turn % sets.len();
                let found = drawn(server, sets[place].clone());
                assert!(pixels(&found) == pixels(&alone[place]), "turn {turn}");
            });
        }
    });
}

/// Rows of a batch differ from those drawn alone by at most rounding, which 8 bits hide.
fn pixels(png: &[u8]) -> Vec<u8> {
    hydit::image::decode_png(png).expect("a PNG").0.rgb
}
