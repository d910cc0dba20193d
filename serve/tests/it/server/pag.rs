//! Perturbed-attention guidance, as clients ask for it.

use hydit::image::decode_png;
use hydit::request::Parameters;
use hydit_graphs::pag::PagLayers;
use hydit_graphs::{GraphOptions, Precision};
use hydit_testing::emoji;
use serde_json::{Value, json};

use super::api::name;
use super::harness::{Server, command, drawn};
use super::job_client::{create, done, job, picture};
use super::oip::input;

fn start(folder: &std::path::Path) -> Server {
    let layers = PagLayers::new(&[5]);
    let model = GraphOptions { pag_layers: layers, ..Precision::Fp32.into() };
    let mut with = command(&["--listen", "127.0.0.1:0", "--exact", "--metadata"]);
    with.arg("--model").arg(emoji::artifacts_for(model)).arg("--data-dir").arg(folder);
    let server = Server::spawn(with, folder);
    server.wait_until_ready();
    server
}

#[test]
fn every_api_draws_the_same_picture() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = start(folder.path());
    let told = server.get("/v1/capabilities").json();
    assert_eq!(told["models"][0]["pag_layers"], json!([5]));
    assert!(told["features"].as_array().expect("features").contains(&json!("pag_scale")));

    let body = json!({ "prompt": "a cat", "seed": 7, "steps": 4, "guidance": 5, "pag_scale": 2.5,
        "pag_adaptive_scale": 0.003 });
    let ours = drawn(&server.post("/v1/images/generations", &body));
    let (_, texts) = decode_png(&ours).expect("a PNG");
    assert_eq!(Parameters::from_texts(&texts).expect("parameters").request.pag_scale, 2.5);
    for fields in [&["pag_adaptive_scale"][..], &["pag_scale", "pag_adaptive_scale"]] {
        let mut without = body.clone();
        fields.iter().for_each(|field| without[field] = Value::Null);
        assert!(drawn(&server.post("/v1/images/generations", &without)) != ours);
    }

    let id = create(&server, &body);
    done(&server, &id);
    assert!(picture(&server, &id, 0).body == ours, "a job");
    assert_eq!(job(&server, &id)["request"]["pag_scale"], 2.5);
    let theirs = json!({ "prompt": "a cat", "seed": 7, "steps": 4, "cfg_scale": 5,
        "pag_scale": 2.5, "pag_adaptive_scale": 0.003 });
    let answer = server.post("/sdapi/v1/txt2img", &theirs);
    assert!(drawn(&answer) == ours, "the web UI's");
    assert!(
        answer.json()["info"]
            .as_str()
            .expect("a text")
            .contains("PAG scale: 2.5, PAG adaptive scale: 0.003")
    );
    let inputs = [
        input("prompt", "BYTES", json!("a cat")),
        input("seed", "INT64", json!(7)),
        input("steps", "INT32", json!(4)),
        input("guidance", "FP32", json!(5)),
        input("pag_scale", "FP32", json!(2.5)),
        input("pag_adaptive_scale", "FP32", json!(0.003)),
    ];
    let model = told["models"][0]["id"].as_str().expect("a name");
    let answer = server.post(&format!("/v2/models/{model}/infer"), &json!({ "inputs": inputs }));
    assert!(drawn(&answer) == ours, "the Open Inference Protocol's");
}

#[test]
fn a_model_without_layers_refuses_by_field() {
    let server = Server::start(&[]);
    assert_eq!(server.get("/v1/capabilities").json()["models"][0]["pag_layers"], json!([]));
    for (scale, words) in [(json!(2), "export it with --pag-layers"), (json!(-1), "0 to 100")] {
        let body = json!({ "model": name(), "prompt": "a cat", "steps": 4, "pag_scale": scale });
        let answer = server.post("/v1/images/generations", &body);
        let error = answer.json()["error"].clone();
        assert_eq!((answer.status, &error["param"]), (400, &json!("pag_scale")), "{error}");
        assert!(error["message"].as_str().expect("a text").contains(words), "{error}");
    }
}
