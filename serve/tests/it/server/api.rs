//! What clients see: OpenAI's images API, and what it shares with the other protocol.

use std::io::{BufRead, BufReader};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hydit::cache::refreshed;
use hydit::image::decode_png;
use hydit::request::Parameters;
use hydit::runtime::BackendChoice;
use hydit::{Pipeline, Request};
use hydit_testing::emoji;
use serde_json::{Value, json};

use super::harness::{self, Answer, Server, agent, until};
use super::oip::input;

const GENERATE: &str = "/v1/images/generations";

/// The name of the model: that of its folder.
pub(super) fn name() -> &'static str {
    harness::model().file_name().and_then(|name| name.to_str()).expect("a plain name")
}

pub(super) fn cat(more: Value) -> Value {
    let mut body = json!({ "prompt": "蓝色背景上的猫", "steps": 4, "seed": 7 });
    let more = more.as_object().expect("fields").clone();
    body.as_object_mut().expect("fields").extend(more);
    body
}

pub(super) fn draw(server: &Server, body: &Value) -> Value {
    let answer = server.post(GENERATE, body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

pub(super) fn picture(base64: &Value) -> Vec<u8> {
    BASE64_STANDARD.decode(base64.as_str().expect("base64")).expect("base64")
}

/// What the library draws, without a server.
fn solo(change: impl FnOnce(&mut Request)) -> hydit::Generated {
    let mut pipeline =
        Pipeline::load(harness::model(), emoji::backend(BackendChoice::Ort)).expect("it loads");
    let mut request = Request { seed: 7, ..emoji::cat(pipeline.manifest(), 4) };
    change(&mut request);
    pipeline.generate(&emoji::checked(&pipeline, &request), &mut emoji::ignore).expect("it draws")
}

#[test]
fn a_picture_of_the_api_is_the_one_that_the_library_draws() {
    let server = Server::start(&[]);
    let fields = json!({
        "size": "192x128", "n": 2, "steps": 6, "sampler": "dpmms", "cache": "N2-1000-0", "guidance": 3.5,
        "negative_prompt": "red",
    });
    let answer = draw(&server, &cat(fields));
    let drawn = solo(|request| {
        (request.width, request.height, request.num_images, request.steps) = (192, 128, 2, 6);
        request.sampler = hydit::sampler::SamplerKind::Dpmms;
        request.spacing = hydit::sampler::Spacing::Linspace;
        request.cache_policy = "N2-1000-0".parse().expect("a policy");
        (request.guidance_scale, request.negative_prompt) = (3.5, "red".to_string());
    });
    assert_eq!(answer["data"].as_array().map(Vec::len), Some(2));
    for (data, image) in answer["data"].as_array().expect("pictures").iter().zip(&drawn.images) {
        let (decoded, texts) = decode_png(&picture(&data["b64_json"])).expect("a PNG");
        assert_eq!((decoded.width, decoded.height), (192, 128));
        assert_eq!(&decoded, image);
        assert_eq!(texts, []);
    }
    assert_eq!(answer["size"], "192x128");
    assert_eq!(answer["hydit"]["seeds"], json!([7, 8]));
    assert_eq!(answer["hydit"]["core_runs"], refreshed(&drawn.plan).len());
    assert_eq!(answer["usage"]["output_tokens"], 2 * 12 * 8);
}

#[test]
fn parameters_are_told_when_asked_for_and_long_prompts_are_said_to_be_cut() {
    let server = Server::start(&[]);
    let answer = draw(&server, &cat(json!({ "metadata": true, "seed": null })));
    let (_, texts) = decode_png(&picture(&answer["data"][0]["b64_json"])).expect("a PNG");
    let parameters = Parameters::from_texts(&texts).expect("it says how it was made");
    assert_eq!(json!([parameters.request.seed]), answer["hydit"]["seeds"], "a random seed is told");
    assert_eq!(answer["hydit"]["truncated"], json!([]));

    let long = "猫 ".repeat(300);
    let ask = json!({ "prompt": long, "negative_prompt": long, "metadata": true });
    let answer = draw(&server, &cat(ask));
    let both = ["negative_prompt", "prompt"];
    assert_eq!(answer["hydit"]["truncated"], json!(both));
    let (_, texts) = decode_png(&picture(&answer["data"][0]["b64_json"])).expect("a PNG");
    assert_eq!(Parameters::from_texts(&texts).expect("it says how it was made").truncated, both);
}

#[test]
fn a_stream_has_pictures_on_the_way_and_ends_with_the_picture() {
    let server = Server::start(&[]);
    let body = cat(json!({ "stream": true, "partial_images": 2, "steps": 6 }));
    let answer = server.post(GENERATE, &body);
    assert_eq!(answer.header("content-type"), "text/event-stream");
    assert_eq!(answer.header("x-accel-buffering"), "no");
    assert_eq!(answer.header("cache-control"), "no-cache, no-store, no-transform");
    let events = events(&answer.text());
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    let partial = "image_generation.partial_image";
    assert_eq!(names, [partial, partial, "image_generation.completed"]);
    for (i, (name, event)) in events.iter().enumerate() {
        assert_eq!(event["type"], name.as_str());
        assert_eq!(event["partial_image_index"], if i < 2 { json!(i) } else { Value::Null });
    }
    let plain = draw(&server, &cat(json!({ "steps": 6 })));
    assert_eq!(events[2].1["b64_json"], plain["data"][0]["b64_json"]);
    assert_ne!(events[1].1["b64_json"], events[2].1["b64_json"]);
}

fn events(text: &str) -> Vec<(String, Value)> {
    let field = |event: &str, name: &str| {
        event.lines().find_map(|line| line.strip_prefix(name)).expect(name).to_string()
    };
    let read = |event: &str| {
        let data = serde_json::from_str(&field(event, "data: ")).expect("JSON");
        (field(event, "event: "), data)
    };
    text.split("\n\n").filter(|event| event.contains("event: ")).map(read).collect()
}

#[test]
fn errors_name_the_field_in_openais_shape() {
    let server = Server::start(&[]);
    for (more, param) in [
        (json!({ "size": "100x100" }), "size"),
        (json!({ "colour": "red" }), "colour"),
        (json!({ "steps": "4" }), "steps"),
        (json!({ "num_inference_steps": 4 }), "num_inference_steps"),
        (json!({ "response_format": "path" }), "response_format"),
        (json!({ "response_format": "url", "stream": true }), "response_format"),
        (json!({ "response_format": "file", "n": 2 }), "n"),
        (json!({ "background": "transparent" }), "background"),
        (json!({ "quality": "best" }), "quality"),
        (json!({ "partial_images": 1 }), "partial_images"),
        (json!({ "partial_images": 4, "stream": true }), "partial_images"),
        (json!({ "n": 2, "stream": true }), "n"),
        (json!({ "cache": "schedule:/etc/passwd" }), "cache"),
        (json!({ "prompt": null }), "prompt"),
    ] {
        let answer = server.post(GENERATE, &cat(more.clone()));
        let error = &answer.json()["error"];
        assert_eq!(answer.status, 400, "{more}");
        assert_eq!((&error["param"], &error["code"]), (&json!(param), &json!("invalid_value")));
        assert_eq!(error["type"], "invalid_request_error");
    }
    let other = server.post(GENERATE, &cat(json!({ "model": "other" })));
    assert_eq!((other.status, other.code().as_str()), (404, "model_not_found"));
    draw(
        &server,
        &cat(json!({ "user": "me", "quality": "hd", "style": "vivid", "moderation": "low" })),
    );

    let send = |content_type: &str, body: &str| {
        let post = agent().post(server.at(GENERATE)).header("content-type", content_type);
        Answer::of(post.send(body).expect("it answers"))
    };
    assert_eq!(send("application/json", "{").code(), "invalid_json");
    assert_eq!(send("text/plain", "{}").status, 415);
    for path in ["/v1/models/other", "/v1/models/%ff"] {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
}

#[test]
fn a_model_is_found_by_its_other_names_and_by_none() {
    let model = harness::model().display().to_string();
    let server = Server::start(&[
        "--model",
        &format!("tencent/dit:v1.2={model}"),
        "--model-alias",
        &format!("gpt-image-1={},dall-e-3={},openai/dall-e-2=tencent/dit:v1.2", name(), name()),
    ]);
    let hub = "tencent/dit:v1.2";
    for (asked, found) in [
        (json!("gpt-image-1"), name()),
        (json!("dall-e-3"), name()),
        (json!(""), name()),
        (Value::Null, name()),
        (json!(name()), name()),
        (json!(hub), hub),
        (json!("openai/dall-e-2"), hub),
    ] {
        let answer = draw(&server, &cat(json!({ "model": asked, "steps": 1 })));
        assert_eq!(answer["hydit"]["model"], found, "{asked}");
    }
    let prompt = input("prompt", "BYTES", json!("a cat"));
    let body = json!({ "inputs": [prompt, input("steps", "INT32", json!(1))] });
    for (path, found) in [
        ("gpt-image-1", name()),
        ("tencent/dit:v1.2", hub),
        ("tencent%2Fdit:v1.2", hub),
        ("tencent%2fdit%3Av1.2", hub),
        ("openai/dall-e-2", hub),
    ] {
        let model = server.get(&format!("/v1/models/{path}"));
        assert_eq!(model.json()["hydit"]["sizes"], json!(["128x128"]));
        assert_eq!((model.status, &model.json()["id"]), (200, &json!(found)), "{path}");
        let model = format!("/v2/models/{path}");
        for path in [model.clone(), format!("{model}/ready"), format!("{model}/versions/1/ready")] {
            assert_eq!(server.get(&path).json()["name"], found, "{path}");
        }
        for path in [format!("{model}/infer"), format!("{model}/versions/1/infer")] {
            assert_eq!(server.post(&path, &body).json()["model_name"], found, "{path}");
        }
    }
    let models = server.get("/v1/models").json();
    assert_eq!(models["data"][0]["hydit"]["aliases"], json!(["dall-e-3", "gpt-image-1"]));
    let id = server.post("/v1/jobs", &cat(json!({ "model": "dall-e-3" }))).json();
    assert_eq!(id["request"]["model"], name());

    let other = "dall-e-9".to_string() + &"x".repeat(1000);
    let unknown = server.post(GENERATE, &cat(json!({ "model": other }))).json()["error"].clone();
    assert_eq!(unknown["code"], "model_not_found");
    let message = unknown["message"].as_str().expect("a text");
    assert!(message.contains("dall-e-9xxx") && message.len() < 400, "{message}");
    assert!(message.contains("gpt-image-1") && message.contains("--model-alias"), "{message}");
    for path in ["/v1/models/tencent", "/v1/models/tencent/other", "/v2/models/dit:v1.2/infer"] {
        assert!([404, 405].contains(&server.get(path).status), "{path}");
    }
}

#[test]
fn a_quality_is_for_jpeg_and_passed_over_for_webp() {
    let server = Server::start(&[]);
    let ask = |format: &str, quality: u8| {
        cat(json!({ "steps": 1, "output_format": format, "output_compression": quality }))
    };
    let webp = draw(&server, &ask("webp", 80));
    assert_eq!(
        (&webp["output_format"], &webp["output_compression"]),
        (&json!("webp"), &json!(100))
    );
    assert_eq!(picture(&webp["data"][0]["b64_json"])[8..16], *b"WEBPVP8L", "lossless");
    assert_eq!(webp["data"], draw(&server, &ask("webp", 100))["data"]);
    assert_eq!(draw(&server, &ask("jpeg", 80))["output_compression"], 80);
    let png = server.post(GENERATE, &ask("png", 80));
    assert_eq!((png.status, &png.json()["error"]["param"]), (400, &json!("output_compression")));
}

#[test]
fn prompts_are_bounded_in_characters() {
    let server = Server::start(&[]);
    let infer = format!("/v2/models/{}/infer", name());
    let tensors = |prompt: &str| {
        let steps = input("steps", "INT32", json!(1));
        json!({ "inputs": [input("prompt", "BYTES", json!(prompt)), steps] })
    };
    for prompt in ["猫".repeat(1366), "猫".repeat(4000), "🐈".repeat(4096), "x".repeat(4096)] {
        let body = json!({ "prompt": prompt, "negative_prompt": prompt, "steps": 1 });
        assert_eq!(server.post(GENERATE, &body).status, 200);
        assert_eq!(server.post("/v1/jobs", &body).status, 202);
        assert_eq!(server.post(&infer, &tensors(&prompt)).status, 200);
    }
    let long = "猫".repeat(4097);
    for path in [GENERATE, "/v1/jobs"] {
        for field in ["prompt", "negative_prompt"] {
            let answer = server.post(path, &cat(json!({ field: long })));
            let error = answer.json()["error"].clone();
            assert_eq!((answer.status, &error["param"]), (400, &json!(field)));
            assert_eq!(error["message"], format!("{field}: 4097 characters; at most 4096"));
        }
    }
    let told = json!({ "error": "prompt: 4097 characters; at most 4096" });
    assert_eq!(server.post(&infer, &tensors(&long)).json(), told);
}

#[test]
fn a_deadline_ends_a_request_and_a_lost_connection_its_work() {
    let server = Server::start(&[]);
    let long = cat(json!({ "steps": 100, "size": "768x768", "deadline": 1 }));
    let answer = server.post(GENERATE, &long);
    assert_eq!((answer.status, answer.code().as_str()), (504, "deadline_exceeded"));
    assert!(server.metric("hydit_steps_total") < 100.0, "it was drawn to the end");

    let body = cat(json!({ "steps": 100, "size": "768x768", "stream": true }));
    let connection = server.send(GENERATE, &body);
    let mut status = String::new();
    BufReader::new(connection.try_clone().expect("a handle")).read_line(&mut status).expect("it");
    assert!(status.contains(" 200 "), "{status}");
    drop(connection);
    let cancelled = || server.metric(r#"hydit_orders_total{outcome="cancelled"}"#) == 1.0;
    until("its work goes on", cancelled);
    let steps = || server.metric("hydit_steps_total");
    let after = steps();
    let answer = server.post(GENERATE, &cat(json!({ "steps": 2 })));
    assert_eq!(answer.status, 200, "the engine is free: {}", answer.text());
    assert!(steps() - after <= 3.0, "{after} and then {}", steps());
}

#[test]
fn an_answer_that_would_be_too_large_is_refused_before_it_is_drawn() {
    let server = Server::start(&["--max-answer", "512KiB"]);
    let infer = format!("/v2/models/{}/infer", name());
    let n = |n: i32| [input("prompt", "BYTES", json!("a cat")), input("n", "INT32", json!(n))];
    let binary = json!({ "binary_data_output": true });
    let image = json!([{ "name": "image" }]);
    let seed = json!([{ "name": "seed" }]);
    let cases = [
        (json!({ "inputs": n(3) }), Some("n: an answer of 3 images of 128x128 may have")),
        (json!({ "inputs": n(2), "outputs": image }), Some("n: an answer of 2 images")),
        (json!({ "inputs": n(2), "outputs": image, "parameters": binary }), None),
        (json!({ "inputs": n(3), "parameters": binary }), Some("n: an answer of 3 images")),
        (json!({ "inputs": n(3), "outputs": seed }), None),
    ];
    for (mut body, refused) in cases {
        body["inputs"].as_array_mut().expect("a list").push(input("steps", "INT32", json!(1)));
        let answer = server.post(&infer, &body);
        let Some(words) = refused else {
            assert_eq!(answer.status, 200, "{body}: {}", answer.text());
            continue;
        };
        let told = answer.json()["error"].as_str().expect("a text").to_string();
        assert_eq!(answer.status, 400, "{body}");
        assert!(told.starts_with(words) && told.contains("at most 524288 are allowed"), "{told}");
    }
    let one_step = |more: Value| {
        let mut body = cat(json!({ "steps": 1 }));
        body.as_object_mut().expect("fields").extend(more.as_object().expect("fields").clone());
        body
    };
    for (more, field) in [
        (json!({ "n": 2 }), "n"),
        (json!({ "size": "512x512" }), "size"),
        (json!({ "size": "512x512", "stream": true }), "size"),
    ] {
        let answer = server.post(GENERATE, &one_step(more));
        assert_eq!((answer.status, answer.json()["error"]["param"].as_str()), (400, Some(field)));
    }
    assert_eq!(server.post(GENERATE, &one_step(json!({}))).status, 200);
    assert_eq!(server.post("/v1/jobs", &one_step(json!({ "n": 3 }))).status, 202, "one by one");
}

#[test]
fn models_and_health_are_told_in_both_protocols() {
    let server = Server::start(&[]);
    let models = server.get("/v1/models").json();
    assert_eq!(models["object"], "list");
    assert_eq!(models["data"][0]["id"], name());
    assert_eq!(models["data"][0], server.get(&format!("/v1/models/{}", name())).json());
    assert_eq!(models["data"][0]["hydit"]["size"], "128x128");
    assert_eq!(server.get("/v2").json()["extensions"], json!(["binary_tensor_data"]));
    assert_eq!(server.get("/v2/health/live").json(), json!({ "live": true }));
    assert_eq!(server.get("/v2/health/ready").json(), json!({ "live": true, "ready": true }));
    let model = format!("/v2/models/{}", name());
    for model in [&model, &format!("{model}/versions/1")] {
        let metadata = server.get(model).json();
        assert_eq!(
            (&metadata["platform"], &metadata["versions"]),
            (&json!("hydit"), &json!(["1"]))
        );
        let prompt = json!({ "name": "prompt", "datatype": "BYTES", "shape": [1] });
        assert_eq!(metadata["inputs"][0], prompt);
        let ready = json!({ "name": name(), "ready": true });
        assert_eq!(server.get(&format!("{model}/ready")).json(), ready);
    }
}

#[test]
fn the_document_tells_bounds_answers_and_whether_a_key_is_needed() {
    let key = "a-key-of-the-tests";
    let server = Server::start(&["--max-n", "3", "--max-steps", "9", "--api-key", key]);
    let get =
        agent().get(server.at("/openapi.json")).header("authorization", format!("Bearer {key}"));
    let document = Answer::of(get.call().expect("it answers")).json();
    let schemas = &document["components"]["schemas"];
    for request in ["GenerationRequest", "JobFields"] {
        let fields = &schemas[request]["properties"];
        assert_eq!(schemas[request]["additionalProperties"], false, "{request}");
        assert_eq!((&fields["n"]["maximum"], &fields["steps"]["maximum"]), (&json!(3), &json!(9)));
        assert_eq!(fields["model"]["enum"], json!([name(), "", null]));
        assert_eq!(
            fields["sampler"]["enum"],
            json!(["ddpm", "ddim", "dpmms", "unipc", "euler", "euler-ancestral", "lcm", null])
        );
    }
    let statuses = |path: &str, method: &str| {
        let responses = &document["paths"][path][method]["responses"];
        let mut all: Vec<_> = responses.as_object().expect("responses").keys().cloned().collect();
        all.sort();
        all.join(" ")
    };
    assert_eq!(
        statuses(GENERATE, "post"),
        "200 400 401 403 404 408 413 415 421 429 500 501 503 504 507"
    );
    assert_eq!(statuses("/v2/health/live", "get"), "200 400 403 408 413 415 421 500 501");
    let shape = |path: &str, status: &str| {
        document["paths"][path]["post"]["responses"][status]["content"]["application/json"]
            ["schema"]["$ref"]
            .clone()
    };
    assert_eq!(shape(GENERATE, "401"), "#/components/schemas/ErrorBody");
    for status in ["401", "404", "413", "503"] {
        let infer = shape("/v2/models/{model}/infer", status);
        assert_eq!(infer, "#/components/schemas/OipErrorBody", "{status}");
    }
    assert_eq!(document["security"], json!([{ "key": [] }]));
    let open = Server::start(&[]).get("/openapi.json").json();
    assert!(
        open["security"].is_null() && open["paths"][GENERATE]["post"]["responses"]["401"].is_null()
    );
}
