//! Pictures with ControlNets, as clients ask for them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hydit_testing::{emoji, repository};
use serde_json::{Value, json};

use super::edits::edit;
use super::harness::{Answer, Server, command};
use super::job_client::{create, done, job, picture, until};

fn image(name: &str) -> Vec<u8> {
    let folder = repository().join("tests/reference/control");
    std::fs::read(folder.join(name)).expect("an image")
}

fn base64(name: &str) -> String {
    STANDARD.encode(image(name))
}

/// A server with the small model and the nets `edges` and `shade`.
fn start(folder: &std::path::Path, flags: &[&str]) -> Server {
    let mut with = command(&["--listen", "127.0.0.1:0"]);
    with.arg("--model").arg(emoji::controlled(1)).arg("--data-dir").arg(folder).args(flags);
    let server = Server::spawn(with, folder);
    server.wait_until_ready();
    server
}

fn body(control: &Value) -> Value {
    json!({ "prompt": "a fox on a red background", "seed": 7, "steps": 6, "control": control })
}

fn drawn(answer: &Answer) -> Vec<u8> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let json = answer.json();
    let text = json["data"][0]["b64_json"].as_str().or(json["images"][0].as_str());
    STANDARD.decode(text.expect("an image")).expect("base64")
}

#[test]
fn a_net_in_json_in_a_form_and_in_a_unit_of_the_web_ui_draws_the_same_picture() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = start(folder.path(), &["--exact"]);
    let post = |body: &Value| server.post("/v1/images/generations", body);
    let net = json!({ "name": "edges", "weight": 0.25, "end": 0.7, "image": base64("edges.png") });
    let mut asked = body(&json!([net]));
    asked["metadata"] = json!(true);
    asked["guidance"] = json!(5);
    let ours = drawn(&post(&asked));
    let plain = drawn(&post(&json!({ "control": null, "metadata": true, "guidance": 5,
        "prompt": asked["prompt"], "seed": 7, "steps": 6 })));
    assert!(ours != plain);

    let form = [
        ("prompt", "a fox on a red background"),
        ("seed", "7"),
        ("steps", "6"),
        ("guidance", "5"),
        ("metadata", "true"),
        ("control", r#"[{"name": "edges", "weight": 0.25, "end": 0.7}]"#),
    ];
    let edges = image("edges.png");
    assert!(drawn(&edit(&server, &form, &[("control_image", &edges)])) == ours, "a form");

    let unit = json!({
        "enabled": true, "module": "none", "model": "edges [0123abcd]", "weight": 0.25,
        "guidance_start": 0.0, "guidance_end": 0.7, "image": base64("edges.png"),
    });
    let answer = server.post(
        "/sdapi/v1/txt2img",
        &json!({
            "prompt": "a fox on a red background", "seed": 7, "steps": 6, "cfg_scale": 5,
            "alwayson_scripts": { "controlnet": { "args": [unit, { "enabled": false }] } },
        }),
    );
    assert!(drawn(&answer) == ours, "a unit");
    assert!(!answer.text().contains("alwayson_scripts"), "the answer has no images of the request");
    let info = answer.json()["info"].as_str().expect("a text").to_string();
    assert!(info.contains("ControlNet: edges:0.25"), "{info}");

    let photo = json!([{ "name": "edges", "image": base64("canny-emoji-photo.png"),
        "preprocess": "canny", "weight": 0.2 }]);
    assert!(drawn(&post(&body(&photo))) != plain);
    let both = json!([net, { "name": "shade", "image": base64("shade.png"), "weight": 0.2 }]);
    assert!(drawn(&post(&body(&both))) != ours);
    let told = server.get("/v1/capabilities").json();
    assert_eq!(told["models"][0]["controls"], json!(["edges", "shade"]));
}

#[test]
fn what_is_wrong_with_a_net_is_told_by_field() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = start(folder.path(), &["--max-image", "8KiB"]);
    let edges = base64("edges.png");
    let one = |more: Value| {
        let mut net = json!({ "name": "edges", "image": edges });
        net.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("fields"));
        json!([net])
    };
    for (control, words) in [
        (json!([{ "name": "edges" }]), "1 ControlNets and 0 images"),
        (json!([{ "image": edges }]), "missing field name"),
        (json!("edges"), "expected a sequence"),
        (one(json!({ "name": "pose" })), "there is edges, shade"),
        (one(json!({ "weight": 11 })), "weight 11; expected 0 to 10"),
        (one(json!({ "start": 0.9, "end": 0.2 })), "the start below the end"),
        (one(json!({ "colour": "red" })), "unknown field colour"),
        (one(json!({ "preprocess": "depth" })), "unknown variant depth"),
        (one(json!({ "image": "?" })), "expected a file in base64"),
        (one(json!({ "image": "AAEC" })), "not a PNG, JPEG or WebP"),
        (one(json!({ "image": base64("canny-noise-photo.png") })), "at most 8192 are taken"),
        (Value::Array(vec![json!({ "name": "edges", "image": edges }); 9]), "at most 8"),
    ] {
        let answer = server.post("/v1/images/generations", &body(&control));
        let error = answer.json()["error"].clone();
        assert_eq!((answer.status, &error["param"]), (400, &json!("control")), "{error}");
        let message = error["message"].as_str().expect("a message");
        assert!(message.contains(words) && !message.contains('\n'), "{message}");
    }
    let plain = Server::start(&[]);
    let answer = plain.post("/v1/images/generations", &body(&one(json!({}))));
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("exported without ControlNets"), "{}", answer.text());
}

#[test]
fn a_job_keeps_the_images_of_its_nets_over_a_kill() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = start(folder.path(), &["--exact"]);
    let mut asked = body(&json!([
        { "name": "edges", "image": base64("edges.png"), "weight": 0.2 },
        { "name": "shade", "image": base64("canny-emoji-photo.png"), "preprocess": "canny",
          "weight": 0.2, "start": 0.2 },
    ]));
    // With an image to start from, the files are three.
    asked["image"] = json!(base64("shade.png"));
    let before = create(&server, &asked);
    done(&server, &before);
    let long = create(&server, &json!({ "prompt": "a cat", "steps": 100 }));
    let waits = create(&server, &asked);
    until(&server, &long, &["running"]);
    server.kill();
    let server = start(folder.path(), &["--exact"]);
    let view = job(&server, &waits)["request"]["control"].clone();
    assert_eq!((&view[0]["name"], &view[1]["preprocess"]), (&json!("edges"), &json!("canny")));
    assert_eq!(view[0]["sha256"].as_str().map(str::len), Some(64), "a hash");
    done(&server, &waits);
    assert!(picture(&server, &waits, 0).body == picture(&server, &before, 0).body);
}
