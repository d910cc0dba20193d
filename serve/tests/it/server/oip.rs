//! What clients of the Open Inference Protocol see.

use serde_json::{Value, json};

use super::api::{cat, draw, name, picture};
use super::harness::{Answer, Server, agent};

/// Draws by `body` with the only model; the files of the pictures, or the error.
pub(super) fn pictures(server: &Server, body: &Value) -> Result<Vec<Vec<u8>>, String> {
    let models = server.get("/v1/models").json();
    let model = models["data"][0]["id"].as_str().expect("a model");
    let answer = server.post(&format!("/v2/models/{model}/infer"), body);
    let json = answer.json();
    if let Some(error) = json["error"].as_str() {
        assert_eq!(answer.status, 400, "{error}");
        return Err(error.to_string());
    }
    Ok(json["outputs"][0]["data"].as_array().expect("images").iter().map(picture).collect())
}

pub(super) fn input(name: &str, datatype: &str, value: Value) -> Value {
    json!({ "name": name, "shape": [1], "datatype": datatype, "data": [value] })
}

#[test]
fn inference_gives_the_same_picture_in_json_and_as_bytes() {
    let server = Server::start(&[]);
    let infer = format!("/v2/models/{}/infer", name());
    let plain = draw(&server, &cat(json!({ "size": "192x128" })));
    let plain = picture(&plain["data"][0]["b64_json"]);
    let inputs = [
        input("prompt", "BYTES", json!("蓝色背景上的猫")),
        input("seed", "INT64", json!(7)),
        input("steps", "INT32", json!(4)),
        input("width", "INT32", json!(192)),
        input("height", "INT32", json!(128)),
    ];
    let answer = server.post(&infer, &json!({ "id": "42", "inputs": inputs })).json();
    assert_eq!((&answer["id"], &answer["model_name"]), (&json!("42"), &json!(name())));
    let names: Vec<&Value> = answer["outputs"]
        .as_array()
        .expect("outputs")
        .iter()
        .map(|output| &output["name"])
        .collect();
    assert_eq!(names, ["image", "seed", "core_runs"]);
    assert_eq!(picture(&answer["outputs"][0]["data"][0]), plain);
    assert_eq!(answer["outputs"][1]["data"], json!([7]));
    assert_eq!(answer["outputs"][2]["data"], json!([4]));

    let prompt = "蓝色背景上的猫".as_bytes();
    let mut bytes = [&(prompt.len() as u32).to_le_bytes(), prompt].concat();
    let raw = |name: &str, datatype: &str, size: usize| json!({ "name": name, "shape": [1, 1], "datatype": datatype, "parameters": { "binary_data_size": size } });
    let mut inputs = inputs.to_vec();
    inputs[0] = raw("prompt", "BYTES", bytes.len());
    inputs[1] = raw("seed", "INT64", 8);
    inputs[2] = raw("steps", "INT32", 4);
    bytes.extend(7i64.to_le_bytes());
    bytes.extend(4i32.to_le_bytes());
    let request = json!({ "inputs": inputs, "parameters": { "binary_data_output": true } });
    let send = |bytes: &[u8]| {
        let json = request.to_string();
        let post = agent().post(server.at(&infer));
        let post = post.header("inference-header-content-length", json.len().to_string());
        Answer::of(post.send([json.as_bytes(), bytes].concat()).expect("it answers"))
    };
    let answer = send(&bytes);
    assert_eq!(answer.header("content-type"), "application/octet-stream", "{}", answer.text());
    let length: usize = answer.header("inference-header-content-length").parse().expect("a number");
    let (head, tensors) = answer.body.split_at(length);
    let head: Value = serde_json::from_slice(head).expect("JSON");
    let sizes = [plain.len() + 4, 8, 4];
    for (output, size) in head["outputs"].as_array().expect("outputs").iter().zip(sizes) {
        assert_eq!(output["parameters"]["binary_data_size"], size);
    }
    assert_eq!(tensors[..4], (plain.len() as u32).to_le_bytes());
    assert_eq!(tensors[4..][..plain.len()], plain);
    assert_eq!(tensors[4 + plain.len()..][..8], 7i64.to_le_bytes());
    assert_eq!(tensors.len(), sizes.iter().sum::<usize>());

    for wrong in [&bytes[..bytes.len() - 1], &[bytes.clone(), vec![0]].concat()] {
        assert_eq!(send(wrong).status, 400);
    }
}

#[test]
fn inference_says_what_is_wrong_in_the_protocols_shape() {
    let server = Server::start(&[]);
    let infer = format!("/v2/models/{}/infer", name());
    let prompt = input("prompt", "BYTES", json!("a cat"));
    for (inputs, words) in [
        (json!([]), "prompt is missing"),
        (json!([prompt, prompt]), "given twice"),
        (json!([prompt, input("colour", "BYTES", json!("red"))]), "no input \"colour\""),
        (json!([prompt, input("seed", "BYTES", json!("7"))]), "seed: its datatype is \"BYTES\""),
        (json!([prompt, input("seed", "INT64", json!("7"))]), "seed: its data is not one INT64"),
        (json!([prompt, input("width", "INT32", json!(128))]), "height: given with width only"),
        (json!([prompt, input("n", "INT32", json!(-1))]), "n: negative"),
        (json!([prompt, input("sampler", "BYTES", json!("heun"))]), "euler-ancestral, lcm"),
    ] {
        let answer = server.post(&infer, &json!({ "inputs": inputs }));
        let error = answer.json()["error"].as_str().expect("a text").to_string();
        assert_eq!(answer.status, 400, "{inputs}");
        assert!(error.contains(words), "{error}");
    }
    let outputs = json!({ "inputs": [prompt], "outputs": [{ "name": "sound" }] });
    assert_eq!(server.post(&infer, &outputs).status, 400);
    let outputs = vec![json!({ "name": "image" }); 4_000];
    let answer = server.post(&infer, &json!({ "inputs": [prompt], "outputs": outputs }));
    assert_eq!(answer.json(), json!({ "error": "the output image is asked for twice" }));
    assert_eq!(server.metric("hydit_steps_total"), 0.0, "nothing was drawn for it");
    for path in ["/v2/models/other", "/v2/models/other/ready"] {
        let answer = server.get(path);
        assert!(answer.status == 404 && answer.json()["error"].is_string(), "{}", answer.text());
    }
    assert_eq!(server.get(&format!("/v2/models/{}/versions/2", name())).status, 404);
}

#[test]
fn numbers_of_any_width_make_the_same_picture() {
    let server = Server::start(&[]);
    let infer = format!("/v2/models/{}/infer", name());
    let ask = |types: [&str; 4], parameters: Value| {
        let mut inputs = [
            input("prompt", "BYTES", json!("a cat")),
            input("seed", types[0], json!(7)),
            input("steps", types[1], json!(2)),
            input("width", types[2], json!(128)),
            input("height", types[2], json!(128)),
            input("guidance", types[3], json!(4)),
        ];
        inputs[0]["parameters"] = parameters.clone();
        let body = json!({ "inputs": inputs, "parameters": parameters });
        let answer = server.post(&infer, &body);
        assert_eq!(answer.status, 200, "{types:?}: {}", answer.text());
        answer.json()["outputs"].clone()
    };
    let usual = ask(["INT64", "INT32", "INT32", "FP32"], Value::Null);
    for types in [
        ["UINT64", "INT8", "UINT16", "FP64"],
        ["FP64", "FP32", "FP64", "INT8"],
        ["UINT8", "UINT32", "INT64", "BF16"],
    ] {
        assert_eq!(ask(types, json!({ "content_type": "str" })), usual, "{types:?}");
    }
}

#[test]
fn errors_around_the_protocols_routes_have_its_shape() {
    let server = Server::start(&[
        "--api-key",
        "0123456789abcdef",
        "--max-body",
        "1KiB",
        "--max-image",
        "1B",
    ]);
    let infer = format!("/v2/models/{}/infer", name());
    let ask = |method: &str, path: &str, (header, value): (&str, &str), body: &[u8]| {
        let request = ureq::http::Request::builder().method(method).uri(server.at(path));
        let request = match header {
            "authorization" => request,
            _ => request.header("authorization", "Bearer 0123456789abcdef"),
        };
        let request = request.header(header, value).body(body.to_vec()).expect("a request");
        Answer::of(agent().run(request).expect("it answers"))
    };
    let plain = ("accept", "*/*");
    let large = [b' '; 2000];
    let cases: [(Answer, u16, &str); 6] = [
        (ask("POST", &infer, ("authorization", "Bearer x"), b"{}"), 401, "www-authenticate"),
        (ask("POST", &infer, plain, &large), 413, "connection"),
        (ask("POST", &infer, ("content-encoding", "gzip"), b"{}"), 415, "connection"),
        (ask("DELETE", &infer, plain, b""), 405, "allow"),
        (ask("GET", "/v2/nothing", plain, b""), 404, "x-request-id"),
        (ask("GET", "/v2", ("host", "stranger"), b""), 421, "x-request-id"),
    ];
    for (answer, status, header) in &cases {
        let shape = answer.json();
        assert_eq!(answer.status, *status, "{shape}");
        assert!(shape["error"].is_string() && shape.as_object().is_some_and(|all| all.len() == 1));
        assert!(answer.headers.contains_key(*header), "{status}: {:?}", answer.headers);
        assert_eq!(answer.header("content-length"), answer.body.len().to_string());
    }
    let other = ask("GET", "/v2x", plain, b"");
    assert_eq!((other.status, other.code().as_str()), (404, "not_found"));
}
