//! Presets: settings that the server keeps for a key.

use serde_json::{Value, json};
use ureq::http::Request;

use super::harness::{Answer, Server, agent};

const ANN: &str = "0123456789abcdef-ann";
const BOB: &str = "0123456789abcdef-bob";

fn ask(server: &Server, secret: &str, method: &str, path: &str, body: Option<&Value>) -> Answer {
    send(server, secret, method, path, body, &[])
}

fn send(
    server: &Server,
    secret: &str,
    method: &str,
    path: &str,
    body: Option<&Value>,
    fields: &[(&str, &str)],
) -> Answer {
    let request = Request::builder().method(method).uri(server.at(path));
    let mut request = request.header("authorization", format!("Bearer {secret}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let answer = match body {
        Some(body) => {
            let request = request.header("content-type", "application/json");
            agent().run(request.body(body.to_string()).expect("a request"))
        }
        None => agent().run(request.body(()).expect("a request")),
    };
    Answer::of(answer.unwrap_or_else(|error| panic!("{method} {path}: {error}")))
}

fn names(server: &Server, secret: &str) -> Vec<String> {
    let list = ask(server, secret, "GET", "/v1/presets", None).json();
    let data = list["data"].as_array().expect("a list").clone();
    data.iter().map(|preset| preset["name"].as_str().expect("a name").to_string()).collect()
}

fn keys() -> [String; 4] {
    let [flag, other] = ["--api-key", "--api-key"].map(String::from);
    [flag, format!("ann={ANN}"), other, format!("bob={BOB}")]
}

#[test]
fn presets_outlive_the_server_and_are_of_their_key_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = keys();
    let flags: Vec<&str> = keys.iter().map(String::as_str).collect();
    let mut server = Server::start_in(folder.path(), &flags);
    let quick = json!({ "steps": 10, "sampler": "dpmms", "cache": "N3", "prompt": "猫", "n": 2 });
    let made = ask(&server, ANN, "PUT", "/v1/presets/%E5%BF%AB%2F1", Some(&quick));
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(made.json(), json!({ "object": "preset", "name": "快/1", "settings": quick }));
    let other = json!({ "steps": 5, "seed": null });
    assert_eq!(ask(&server, ANN, "PUT", "/v1/presets/a", Some(&other)).status, 201);
    assert_eq!(ask(&server, BOB, "PUT", "/v1/presets/a", Some(&json!({ "steps": 6 }))).status, 201);
    server.kill();
    let server = Server::start_in(folder.path(), &flags);
    assert_eq!(names(&server, ANN), ["a", "快/1"]);
    assert_eq!(names(&server, BOB), ["a"]);
    let get = |secret| ask(&server, secret, "GET", "/v1/presets/a", None).json();
    assert_eq!(get(ANN)["settings"], json!({ "steps": 5 }));
    assert_eq!(get(BOB)["settings"], json!({ "steps": 6 }));
    let of_another = ask(&server, BOB, "GET", "/v1/presets/%E5%BF%AB%2F1", None);
    assert_eq!((of_another.status, of_another.code().as_str()), (404, "preset_not_found"));
    assert_eq!(ask(&server, BOB, "DELETE", "/v1/presets/a", None).status, 204);
    assert_eq!(ask(&server, BOB, "DELETE", "/v1/presets/a", None).status, 404);
    assert_eq!((names(&server, ANN).len(), names(&server, BOB).len()), (2, 0));
}

#[test]
fn a_preset_replaces_another_only_where_that_is_wanted() {
    let server = Server::start(&["--api-key", ANN]);
    let steps = |n: u32| json!({ "steps": n });
    let put = |n, fields: &[_]| send(&server, ANN, "PUT", "/v1/presets/a", Some(&steps(n)), fields);
    assert_eq!(put(1, &[("if-none-match", "*")]).status, 201);
    let kept = put(2, &[("if-none-match", "*")]);
    assert_eq!((kept.status, kept.code().as_str()), (412, "preset_exists"));
    let get = || ask(&server, ANN, "GET", "/v1/presets/a", None).json();
    assert_eq!(get()["settings"], steps(1));
    assert_eq!(put(3, &[]).status, 200);
    assert_eq!(get()["settings"], steps(3));
}

#[test]
fn presets_are_bounded_and_checked_as_orders_are() {
    let server = Server::start(&["--api-key", ANN]);
    for (settings, param) in [
        (json!({ "steps": 0 }), "steps"),
        (json!({ "steps": "4" }), "steps"),
        (json!({ "size": "100x100" }), "size"),
        (json!({ "colour": "red" }), "colour"),
        (json!({ "colour": null }), "colour"),
        (json!({ "cache": "N0" }), "cache"),
        (json!({ "cache": "schedule:/etc/passwd" }), "cache"),
        (json!({ "image": "aGVsbG8=" }), "image"),
        (json!({ "control": [{ "name": "canny", "image": "aGVsbG8=" }] }), "control"),
        (json!({ "prompt": "a".repeat(4097) }), "prompt"),
    ] {
        let answer = ask(&server, ANN, "PUT", "/v1/presets/a", Some(&settings));
        let told = (answer.status, answer.json()["error"]["param"].clone());
        assert_eq!(told, (400, json!(param)), "{settings}: {}", answer.text());
    }
    let nothing = json!({ "image": null, "control": null, "prompt": null });
    let answer = ask(&server, ANN, "PUT", "/v1/presets/a", Some(&nothing));
    assert_eq!((answer.status, &answer.json()["settings"]), (201, &json!({})));
    ask(&server, ANN, "DELETE", "/v1/presets/a", None);
    let long = format!("/v1/presets/{}", "a".repeat(65));
    for path in [&long, "/v1/presets/%20a", "/v1/presets/a%00", "/v1/presets/a%E2%80%AEb"] {
        let answer = ask(&server, ANN, "PUT", path, Some(&json!({})));
        let told = (answer.status, answer.json()["error"]["param"].clone());
        assert_eq!(told, (400, json!("name")), "{path}");
    }
    assert_eq!(names(&server, ANN), Vec::<String>::new());
    for i in 0..100 {
        let path = format!("/v1/presets/{i}");
        assert_eq!(ask(&server, ANN, "PUT", &path, Some(&json!({ "steps": 4 }))).status, 201);
    }
    let full = ask(&server, ANN, "PUT", "/v1/presets/more", Some(&json!({ "steps": 4 })));
    assert_eq!((full.status, full.code().as_str()), (409, "too_many_presets"));
    let known = ask(&server, ANN, "PUT", "/v1/presets/7", Some(&json!({ "steps": 5 })));
    assert_eq!(known.status, 200, "one that is there may still change");
    assert_eq!(names(&server, ANN).len(), 100);
}
