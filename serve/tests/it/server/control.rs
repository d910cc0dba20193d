//! Pictures with ControlNets, as clients ask for them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hydit_testing::{emoji, repository};
use serde_json::{Value, json};

use super::edits::edit;
use super::harness::{Answer, Server, command};
use super::job_client::{create, done, job, picture, until};
use super::oip::{input, pictures};

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
fn units_without_an_image_read_that_of_img2img_and_menus_list_the_nets() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = start(folder.path(), &["--exact"]);
    let ask = |unit: Value| {
        let scripts = json!({ "controlnet": { "args": [unit] } });
        server.post(
            "/sdapi/v1/img2img",
            &json!({ "prompt": "a fox", "seed": 7, "steps": 6,
            "init_images": [base64("edges.png")], "alwayson_scripts": scripts }),
        )
    };
    let net = |more: &[(&str, Value)]| {
        let mut unit = json!({ "model": "edges", "weight": 0.25 });
        more.iter().for_each(|(name, value)| unit[*name] = value.clone());
        unit
    };
    let same = drawn(&ask(net(&[])));
    assert!(same == drawn(&ask(net(&[("image", json!(base64("edges.png")))]))));
    assert!(same != drawn(&ask(net(&[("enabled", json!(false))]))));
    for (name, value, words) in [
        ("weight", json!(11), "edges: weight 11; expected 0 to 10"),
        ("guidance_start", json!(1), "the start below the end"),
        ("model", json!("pose [0123abcd]"), "there is edges, shade"),
        ("module", json!("depth"), "only none, canny and ip-adapter"),
        ("module", json!("ip-adapter"), "cannot be had with the module ip-adapter"),
        ("image", json!("?"), "expected a file in base64"),
    ] {
        let answer = ask(net(&[(name, value)]));
        let told = answer.json()["detail"].as_str().expect("a message").to_string();
        assert!(answer.status == 400 && told.contains(words) && !told.contains('\n'), "{told}");
    }

    let list = |path: &str| server.get(path).json();
    let titles = list("/controlnet/model_list")["model_list"].clone();
    assert!(titles[0].as_str().is_some_and(|title| title.starts_with("edges [")), "{titles}");
    assert_eq!(titles.as_array().map(Vec::len), Some(2), "no IP-Adapter: {titles}");
    assert!(same == drawn(&ask(net(&[("model", titles[0].clone())]))), "a title is a name");
    let scripts = json!({ "txt2img": ["controlnet"], "img2img": ["controlnet"] });
    assert_eq!(list("/sdapi/v1/scripts"), scripts);
    let modules = list("/controlnet/module_list?alias_names=true");
    assert_eq!(modules["module_list"], json!(["none", "canny", "ip-adapter"]));
    assert!(modules["module_detail"]["canny"]["sliders"].is_array());
    assert_eq!(list("/controlnet/version"), json!({ "version": 2 }));
    let nowhere = server.get("/controlnet/detect").json();
    assert!(nowhere["detail"].is_string(), "in the shape of the API: {nowhere}");
}

#[test]
fn a_net_in_an_input_of_the_open_inference_protocol_draws_the_same_picture() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = start(folder.path(), &["--exact"]);
    let net = json!({ "name": "edges", "weight": 0.25, "end": 0.7, "image": base64("edges.png") });
    let ours = drawn(&server.post("/v1/images/generations", &body(&json!([net]))));
    let ask = |nets: &str| {
        let inputs = [
            input("prompt", "BYTES", json!("a fox on a red background")),
            input("seed", "INT64", json!(7)),
            input("steps", "INT32", json!(6)),
            input("control", "BYTES", json!(nets)),
        ];
        pictures(&server, &json!({ "inputs": inputs }))
    };
    assert!(ask(&json!([net]).to_string()).expect("it draws") == [ours]);
    for (nets, words) in [
        ("edges", "expected ControlNets as a JSON text"),
        ("[{}]", "missing field name"),
        (r#"[{"name": "edges"}]"#, "1 ControlNets and 0 images"),
    ] {
        let told = ask(nets).expect_err("a refusal");
        assert!(told.starts_with("control: ") && told.contains(words), "{told}");
    }
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
