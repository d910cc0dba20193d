//! What answers never tell: where the server keeps its files, and what its engines say of them.

use std::fs;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hydit::image::decode_png;
use hydit_testing::emoji;
use serde_json::{Value, json};

use super::harness::Server;
use super::job_client::{create, path, until};

const GENERATE: &str = "/v1/images/generations";

#[test]
fn a_model_whose_files_are_gone_is_told_without_their_paths() {
    let own = emoji::own_artifacts();
    let folder = own.path().to_str().expect("a plain path");
    // The second model is loaded when it is asked for.
    let server = Server::start(&["--model", &format!("moved={folder}"), "--max-memory", "1MiB"]);
    fs::remove_file(own.path().join("deep-core.onnx.data")).expect("it was there");
    let body = json!({ "model": "moved", "prompt": "a cat", "steps": 2 });

    let plain = server.post(GENERATE, &body);
    let mut stream = body.clone();
    stream["stream"] = json!(true);
    let stream = server.post(GENERATE, &stream);
    let prompt = json!({ "name": "prompt", "shape": [1], "datatype": "BYTES", "data": ["a cat"] });
    let infer = server.post("/v2/models/moved/infer", &json!({ "inputs": [prompt] }));
    let job = until(&server, &create(&server, &body), &["failed"]);
    assert_eq!((plain.status, plain.code().as_str()), (500, "model_unusable"));
    assert_eq!((stream.status, infer.status), (200, 500));
    assert!(stream.text().contains("\"code\":\"model_unusable\""), "{}", stream.text());
    assert_eq!(job["error"]["code"], "model_unusable");
    let told = "the model cannot be loaded; the server's log says why, for order ";
    let texts = [plain.text(), stream.text(), infer.text(), job.to_string()];
    for text in texts.iter().chain([&server.get(&path(job["id"].as_str().expect("an id"))).text()])
    {
        assert!(text.contains(told), "{text}");
        assert!(!text.contains(folder) && !text.contains(".onnx"), "{text}");
        let order = text.split(told).nth(1).expect("it goes on").split('"').next();
        let line = server.wait_for_log(&format!("order=\"{}\"", order.expect("an id")));
        assert!(line.contains(folder) && line.contains("deep-core.onnx"), "{line}");
    }
    let order = job["error"]["message"].as_str().expect("a text").rsplit(' ').next();
    assert_eq!(order, job["id"].as_str(), "of a job the order is the job");
}

#[test]
fn a_schedule_of_the_server_is_told_by_its_name_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let schedule = folder.path().join("mine.yaml");
    fs::write(&schedule, "steps: 2\nschedules:\n- refresh: [0]\n").expect("a file");
    let folder = folder.path().to_str().expect("a plain path");
    let server = Server::start(&["--cache", &format!("schedule:{folder}/mine.yaml")]);
    let ask = |steps: usize| {
        server.post(GENERATE, &json!({ "prompt": "a cat", "steps": steps, "metadata": true }))
    };

    let drawn = ask(2);
    assert_eq!(drawn.status, 200, "{}", drawn.text());
    assert_eq!(drawn.json()["hydit"]["cache"], "schedule:mine.yaml");
    let png = drawn.json()["data"][0]["b64_json"].clone();
    let png = BASE64_STANDARD.decode(png.as_str().expect("base64")).expect("base64");
    let (_, texts) = decode_png(&png).expect("a PNG");
    assert!(texts.iter().any(|(_, text)| text.contains("schedule:mine.yaml")), "{texts:?}");

    let ask_web_ui = json!({ "prompt": "a cat", "steps": 2 });
    let web_ui = server.post("/sdapi/v1/txt2img", &ask_web_ui);
    assert!(web_ui.text().contains("schedule:mine.yaml"), "{}", web_ui.text());

    let misfit = ask(3);
    assert_eq!((misfit.status, misfit.json()["error"]["param"].as_str()), (400, Some("cache")));
    assert!(server.wait_for_log("does not fit").contains(folder));
    let id = create(&server, &json!({ "prompt": "a cat", "steps": 2 }));
    let job = until(&server, &id, &["done"]);
    assert_eq!(job["request"]["cache"], "schedule:mine.yaml");
    let document = server.get("/openapi.json").json();
    let field = &document["components"]["schemas"]["JobFields"]["properties"]["cache"];
    assert_eq!(field["default"], Value::Null);
    for text in [drawn.text(), web_ui.text(), misfit.text(), job.to_string(), document.to_string()]
    {
        assert!(!text.contains(folder), "{text}");
    }
    assert!(texts.iter().all(|(_, text)| !text.contains(folder)), "{texts:?}");
}
