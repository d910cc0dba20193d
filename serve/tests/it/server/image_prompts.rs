//! Image prompts of requests: in JSON, in a form and in jobs.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hydit::image::decode_png;
use hydit::request::Parameters;
use hydit_testing::{made_up, repository};
use serde_json::{Value, json};

use super::edits::{drawn, edit};
use super::harness::{Server, command};
use super::job_client::{create, done, job, picture, until};
use super::oip::{input, pictures};

fn image(name: &str) -> Vec<u8> {
    let folder = repository().join("tests/reference/image_to_image");
    std::fs::read(folder.join(format!("image-{name}.png"))).expect("an image")
}

/// A server of a small model with an IP-Adapter, whose folder is `folder`.
fn start(folder: &tempfile::TempDir, model: &std::path::Path) -> Server {
    let mut command = command(&["--listen", "127.0.0.1:0", "--exact", "--metadata"]);
    command.arg("--model").arg(model).arg("--data-dir").arg(folder.path().join("data"));
    let server = Server::spawn(command, folder.path());
    server.wait_until_ready();
    server
}

fn cat(more: Value) -> Value {
    let mut body = json!({ "prompt": "a cat", "seed": 7, "steps": 4, "size": "64x64" });
    let Value::Object(more) = more else { panic!("an object") };
    body.as_object_mut().expect("an object").extend(more);
    body
}

#[test]
fn json_forms_and_jobs_draw_with_an_image_beside_the_prompt() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = made_up::with_ip_adapter(folder.path());
    let server = start(&folder, &model);
    assert_eq!(server.get("/v1/capabilities").json()["models"][0]["image_prompt"], true);
    let (fox, shapes) = (image("fox"), image("shapes"));
    let ask = |more: Value| drawn(&server.post("/v1/images/generations", &cat(more)));
    let plain = ask(json!({}));
    let asked = json!({ "image_prompt": STANDARD.encode(&fox), "image_prompt_weight": 0.7 });
    let changed = ask(asked.clone());
    assert!(plain != changed);
    assert!(changed != ask(json!({ "image_prompt": STANDARD.encode(&fox) })), "another weight");
    assert!(changed != ask(json!({ "image_prompt": STANDARD.encode(&shapes) })));
    assert!(plain == ask(json!({})), "nothing is left of it");
    let (_, texts) = decode_png(&changed).expect("a PNG");
    let prompt = Parameters::from_texts(&texts).expect("parameters").request.image_prompt;
    assert_eq!(prompt.expect("an image prompt").weight, 0.7);

    // Beside an image that the picture is made from.
    let both = [("image", &shapes[..]), ("image_prompt", &fox[..])];
    let texts = [
        ("prompt", "a cat"),
        ("seed", "7"),
        ("steps", "4"),
        ("size", "64x64"),
        ("image_prompt_weight", "0.7"),
    ];
    let in_form = drawn(&edit(&server, &texts, &both));
    let mut in_json = asked.clone();
    in_json["image"] = json!(STANDARD.encode(&shapes));
    assert!(in_form == ask(in_json));
    assert!(in_form != drawn(&edit(&server, &texts[..4], &both[..1])));

    let id = create(&server, &cat(asked));
    done(&server, &id);
    assert!(picture(&server, &id, 0).body == changed);
    let told = job(&server, &id)["request"].clone();
    assert_eq!(
        (&told["image_prompt_weight"], told["image_prompt"].as_str().map(str::len)),
        (&json!(0.7), Some(64))
    );
}

#[test]
fn units_and_inputs_draw_with_an_image_beside_the_prompt() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = made_up::with_ip_adapter(folder.path());
    let server = start(&folder, &model);
    let [fox, shapes] = ["fox", "shapes"].map(|name| STANDARD.encode(image(name)));
    let ask = |more: Value| drawn(&server.post("/v1/images/generations", &cat(more)));
    let prompt = json!({ "image_prompt": fox, "image_prompt_weight": 0.7 });
    let both = json!({ "image_prompt": fox, "image_prompt_weight": 0.7, "image": shapes,
        "strength": 0.75 });
    let [prompt, both] = [prompt, both].map(ask);

    let titles = server.get("/controlnet/model_list").json()["model_list"].clone();
    assert!(titles[0].as_str().is_some_and(|title| title.starts_with("ip-adapter [")), "{titles}");
    let units = |path: &str, units: Value, init: Option<&str>| {
        let mut body = json!({ "prompt": "a cat", "seed": 7, "steps": 4, "width": 64, "height": 64,
            "alwayson_scripts": { "ControlNet": { "args": units } } });
        init.into_iter().for_each(|init| body["init_images"] = json!([init]));
        server.post(path, &body)
    };
    let unit = json!({ "enabled": true, "module": "ip-adapter_clip_h", "model": titles[0],
        "weight": 0.7, "image": { "image": format!("data:image/png;base64,{fox}"), "mask": null } });
    let picture = |answer: &super::harness::Answer| {
        let text = answer.json()["images"][0].as_str().map(str::to_string);
        STANDARD.decode(text.unwrap_or_else(|| panic!("{}", answer.text()))).expect("base64")
    };
    let drew = picture(&units("/sdapi/v1/txt2img", json!([unit]), None));
    assert!(drew == prompt, "a unit");
    let answer = units("/sdapi/v1/img2img", json!([unit]), Some(&shapes));
    assert!(picture(&answer) == both, "a unit beside an image");
    assert!(!answer.text().contains("alwayson_scripts"), "the answer has no images of the request");
    for (wrong, words) in [
        (json!([unit, unit]), "module: a request has one image prompt, not several"),
        (json!([{ "module": "ip-adapter", "image": fox, "weight": 11 }]), "expected 0 to 10"),
        (json!([{ "module": "ip-adapter", "image": fox, "guidance_end": 0.5 }]), "at all steps"),
        (
            json!([{ "module": "ip-adapter_face_id", "image": fox }]),
            "only none, canny and ip-adapter",
        ),
    ] {
        let answer = units("/sdapi/v1/txt2img", wrong, None);
        let told = answer.json()["detail"].as_str().expect("a message").to_string();
        assert!(answer.status == 400 && told.contains(words), "{told}");
    }

    let number = |name, value| input(name, "FP32", json!(value));
    let file = |name, file: &String| input(name, "BYTES", json!(file));
    let infer = |more: &[Value]| {
        let cat = [
            input("prompt", "BYTES", json!("a cat")),
            input("seed", "INT64", json!(7)),
            input("steps", "INT32", json!(4)),
            input("width", "INT32", json!(64)),
            input("height", "INT32", json!(64)),
        ];
        let inputs = [&cat[..], more].concat();
        pictures(&server, &json!({ "inputs": inputs }))
    };
    let beside = [file("image_prompt", &fox), number("image_prompt_weight", 0.7)];
    assert!(infer(&beside).expect("it draws") == [prompt], "an input");
    let from = [file("image", &shapes), number("strength", 0.75)];
    assert!(infer(&[beside, from].concat()).expect("it draws") == [both], "two inputs");
    for (more, words) in [
        (file("image_prompt", &"?".to_string()), "image_prompt: expected a file in base64"),
        (file("mask", &fox), "mask: there is no image to paint in"),
        (number("strength", 0.5), "strength: there is no image to change"),
    ] {
        let told = infer(&[more]).expect_err("a refusal");
        assert!(told.contains(words), "{told}");
    }
}

#[test]
fn a_job_keeps_its_image_prompt_over_a_kill() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = made_up::with_ip_adapter(folder.path());
    let mut server = start(&folder, &model);
    let with = |steps: usize, image_too: bool| {
        let mut body = cat(json!({
            "steps": steps,
            "image_prompt": STANDARD.encode(image("fox")),
            "image_prompt_weight": 0.7,
        }));
        if image_too {
            body["image"] = json!(STANDARD.encode(image("shapes")));
        }
        body
    };
    let before = [false, true].map(|image_too| {
        let id = create(&server, &with(4, image_too));
        done(&server, &id);
        picture(&server, &id, 0).body
    });
    let long = create(&server, &json!({ "prompt": "a dog", "steps": 100, "n": 4 }));
    let waits = [false, true].map(|image_too| create(&server, &with(4, image_too)));
    until(&server, &long, &["running"]);
    server.kill();
    let mut server = start(&folder, &model);
    for (id, before) in waits.iter().zip(&before) {
        done(&server, id);
        assert!(picture(&server, id, 0).body == *before);
    }
    assert_eq!(server.stop(), 0);
}

#[test]
fn what_is_wrong_with_an_image_prompt_is_told_by_field() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = made_up::with_ip_adapter(folder.path());
    let server = start(&folder, &model);
    let fox = STANDARD.encode(image("fox"));
    for (more, param, words) in [
        (json!({ "image_prompt": "no" }), "image_prompt", "expected a file in base64"),
        (json!({ "image_prompt": "AAAA" }), "image_prompt", "not a PNG, JPEG or WebP"),
        (json!({ "image_prompt_weight": 1 }), "image_prompt_weight", "there is no image_prompt"),
        (
            json!({ "image_prompt": fox, "image_prompt_weight": 11 }),
            "image_prompt",
            "weight 11: expected 0 to 10",
        ),
        (
            json!({ "image_prompt": fox, "image_prompt_weight": "much" }),
            "image_prompt_weight",
            "expected a number",
        ),
    ] {
        let answer = server.post("/v1/images/generations", &cat(more));
        let error = &answer.json()["error"];
        assert_eq!((answer.status, &error["param"]), (400, &json!(param)), "{error}");
        let message = error["message"].as_str().expect("a message");
        assert!(message.contains(words) && !message.contains('\n'), "{message}");
    }
    let plain = Server::start(&[]);
    assert_eq!(plain.get("/v1/capabilities").json()["models"][0]["image_prompt"], false);
    let answer = plain.post("/v1/images/generations", &cat(json!({ "image_prompt": fox })));
    assert_eq!((answer.status, &answer.json()["error"]["param"]), (400, &json!("image_prompt")));
    assert!(answer.text().contains("exported without an IP-Adapter"), "{}", answer.text());
}
