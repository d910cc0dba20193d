//! A model that draws classes, as clients ask for it.

use hydit::image::decode_png;
use hydit::request::Parameters;
use hydit_testing::made_up;
use serde_json::{Value, json};

use super::harness::{Answer, Server, command, drawn};
use super::job_client::{create, done, job, picture, post};
use super::oip::input;

fn start(folder: &std::path::Path) -> Server {
    let mut with = command(&["--listen", "127.0.0.1:0", "--exact", "--metadata"]);
    with.arg("--model").arg(made_up::skip_dit(folder)).arg("--data-dir").arg(folder.join("data"));
    let server = Server::spawn(with, folder);
    server.wait_until_ready();
    server
}

fn prompt(png: &[u8]) -> String {
    let (_, texts) = decode_png(png).expect("a PNG");
    Parameters::from_texts(&texts).expect("parameters").request.prompt
}

#[test]
fn a_class_is_asked_for_by_number_or_name_and_several_are_drawn_in_turn() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = start(folder.path());
    let told = server.get("/v1/capabilities").json();
    let model = &told["models"][0];
    assert_eq!(model["num_classes"], 1000);
    assert_eq!(model["class_names"][207], "golden retriever");
    assert_eq!((&model["prompt_tokens"], &model["sizes"]), (&json!([]), &json!(["64x64"])));
    assert_eq!(model["other_sizes"], false);
    assert!(told["features"].as_array().expect("features").contains(&json!("class")));

    let body = |fields: Value| {
        let mut body = json!({ "steps": 3, "seed": 7, "guidance": 3 });
        body.as_object_mut()
            .expect("it is one")
            .extend(fields.as_object().expect("fields").clone());
        body
    };
    let id = create(&server, &body(json!({ "class": [207, "goldfish"] })));
    done(&server, &id);
    let asked = job(&server, &id)["request"].clone();
    assert_eq!((&asked["prompt"], &asked["n"]), (&json!("207, goldfish"), &json!(2)));
    let [dog, fish] = [0, 1].map(|i| picture(&server, &id, i).body);
    assert_eq!([prompt(&dog), prompt(&fish)], ["207", "goldfish"]);
    let single = |fields: Value| drawn(&server.post("/v1/images/generations", &body(fields)));
    assert!(single(json!({ "class": 1, "seed": 8 })).len() > 100);
    let pixels = |png: &[u8]| decode_png(png).expect("a PNG").0;
    for (field, class) in
        [("class", json!(1)), ("class", json!("goldfish")), ("prompt", json!("1"))]
    {
        let one = single(json!({ field: class, "seed": 8 }));
        assert!(pixels(&one) == pixels(&fish), "{field} {class}");
        let other = single(json!({ "class": 2, "seed": 8 }));
        assert!(pixels(&one) != pixels(&other));
    }
    let theirs = json!({ "prompt": "goldfish", "seed": 8, "steps": 3, "cfg_scale": 3 });
    assert!(pixels(&drawn(&server.post("/sdapi/v1/txt2img", &theirs))) == pixels(&fish));
    let inputs = [
        input("prompt", "BYTES", json!("1")),
        input("seed", "INT64", json!(8)),
        input("steps", "INT32", json!(3)),
        input("guidance", "FP32", json!(3)),
    ];
    let path = format!("/v2/models/{}/infer", model["id"].as_str().expect("a name"));
    assert!(pixels(&drawn(&server.post(&path, &json!({ "inputs": inputs })))) == pixels(&fish));
}

#[test]
fn what_a_model_of_classes_does_not_have_is_refused_by_field() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = start(folder.path());
    for (fields, field, expected) in [
        (json!({ "class": "a cat" }), "class", "class: \"a cat\" is no class"),
        (json!({ "class": 1000 }), "class", "expected a number, 0 to 999"),
        (json!({ "class": 2.5 }), "class", "is no class"),
        (json!({ "class": [] }), "class", "expected the number or the name"),
        (json!({ "class": [[1]] }), "class", "expected the number or the name"),
        (json!({ "class": [1, 2], "n": 1 }), "n", "expected 2 or more"),
        (json!({ "class": 1, "prompt": "2" }), "prompt", "class and prompt are the same"),
        (json!({ "class": 1, "negative_prompt": "blur" }), "negative_prompt", "is no class"),
        (json!({ "prompt": "a cat" }), "prompt", "prompt: \"a cat\" is no class"),
        (json!({}), "prompt", "prompt is missing"),
        (json!({ "class": 1, "size": "128x128" }), "size", "draws 64x64 only"),
        (json!({ "class": 1, "pag_scale": 3 }), "pag_scale", "no layers"),
    ] {
        let answer = post(&server, &fields, &[]);
        assert_eq!(answer.status, 400, "{fields}: {}", answer.text());
        let error = &answer.json()["error"];
        assert_eq!(error["param"], field, "{fields}: {error}");
        let message = error["message"].as_str().expect("a text");
        assert!(message.contains(expected), "{fields}: {message}");
    }
    let refused = server.post("/v1/tokenize", &json!({ "prompt": "a cat" }));
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("model")));
    let put = |name: &str, settings: &Value| {
        let url = server.at(&format!("/v1/presets/{name}"));
        let sent = super::harness::agent().put(url).send_json(settings).expect("it answers");
        Answer::of(sent).status
    };
    assert_eq!(put("dog", &json!({ "class": 207, "steps": 5 })), 201);
    assert_eq!(put("none", &json!({ "steps": 5 })), 201);
    assert_eq!(put("cat", &json!({ "prompt": "a cat" })), 400);
}
