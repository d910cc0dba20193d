//! What is read of a prompt, told before it is drawn.

use serde_json::{Value, json};

use super::api::name;
use super::harness::{Answer, Server};

const GENERATE: &str = "/v1/images/generations";

fn ask(server: &Server, body: &Value) -> Answer {
    server.post("/v1/tokenize", body)
}

/// The characters that each encoder reads of `prompt`, and whether it goes on after them.
fn read(server: &Server, prompt: &str) -> [(usize, bool); 2] {
    let answer = ask(server, &json!({ "prompt": prompt }));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    assert_eq!(answer["characters"], prompt.chars().count());
    let encoders = answer["encoders"].as_array().expect("a list");
    let told = |name: &str| [&encoders[0][name], &encoders[1][name]];
    assert_eq!(told("name"), ["text_encoder", "text_encoder_2"]);
    assert_eq!(told("max_tokens"), [77, 256]);
    let reads = |encoder: &Value| {
        let truncated = encoder["truncated"].as_bool().expect("a boolean");
        (encoder["characters"].as_u64().expect("a number") as usize, truncated)
    };
    [reads(&encoders[0]), reads(&encoders[1])]
}

#[test]
fn a_prompt_is_cut_where_it_is_told_and_nowhere_else() {
    let server = Server::start(&[]);
    let truncated = |prompt: &str| {
        let fields = json!({ "prompt": prompt, "steps": 1, "size": "64x64", "seed": 1 });
        let answer = server.post(GENERATE, &fields);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answer = answer.json();
        (answer["hydit"]["truncated"].clone(), answer["data"][0]["b64_json"].clone())
    };
    for part in ["a red apple, ", "一只戴着红围巾的猫，", "🐱 on the table. "] {
        let prompt = part.repeat(300).chars().take(2000).collect::<String>();
        let [(bert, _), (t5, _)] = read(&server, &prompt);
        assert!(0 < bert && bert < t5 && t5 < 2000, "{bert} {t5}");
        assert_eq!(read(&server, &prompt), [(bert, true), (t5, true)]);
        let first = |n: usize| prompt.chars().take(n).collect::<String>();
        assert_eq!(read(&server, &first(bert)), [(bert, false), (bert, false)]);
        assert_eq!(read(&server, &first(t5)), [(bert, true), (t5, false)]);
        let (cut, whole) = (truncated(&first(t5)), truncated(&prompt));
        assert_eq!((&cut.0, &whole.0), (&json!(["prompt"]), &json!(["prompt"])));
        assert_eq!(cut.1, whole.1, "nothing after that is read");
        assert_eq!(truncated(&first(bert)).0, json!([]));
    }
}

#[test]
fn what_cannot_be_tokenized_is_refused_by_name() {
    let server = Server::start(&["--model-alias", &format!("gpt-image-1={}", name())]);
    let [short, empty] = ["a cat", ""].map(|prompt| ask(&server, &json!({ "prompt": prompt })));
    assert_eq!((short.status, short.json()["model"].as_str()), (200, Some(name())));
    assert!(!short.text().contains("a cat"), "the prompt is not told back");
    assert_eq!(empty.json()["encoders"][0]["characters"], 0);
    for (body, status, words) in [
        (json!({}), 400, "prompt: expected the text to read"),
        (json!({ "prompt": 5 }), 400, "prompt: invalid type: integer 5, expected a string"),
        (json!({ "prompt": "猫".repeat(4097) }), 400, "prompt: 4097 characters; at most 4096"),
        (json!({ "prompt": "x", "steps": 4 }), 400, "\"steps\" is not a field here"),
        (json!({ "prompt": "x", "model": "none" }), 404, "there is no model \"none\""),
    ] {
        let answer = ask(&server, &body);
        assert_eq!(answer.status, status, "{}", answer.text());
        let told = answer.json()["error"]["message"].as_str().expect("a text").to_string();
        assert!(told.contains(words), "{told}");
    }
    for model in ["", "gpt-image-1"] {
        let answer = ask(&server, &json!({ "prompt": "猫".repeat(4096), "model": model })).json();
        assert_eq!((&answer["model"], &answer["characters"]), (&json!(name()), &json!(4096)));
    }
}

#[test]
fn a_tokenizer_that_was_changed_is_told_without_its_path() {
    let own = hydit_testing::emoji::own_artifacts();
    let folder = own.path().to_str().expect("a plain path");
    let server = Server::start(&["--model", &format!("moved={folder}"), "--max-memory", "1MiB"]);
    let body = json!({ "prompt": "a cat", "model": "moved" });
    let files = std::fs::read_dir(own.path()).expect("a folder").map(|file| file.expect("a file"));
    let tokenizer = files.map(|file| file.path()).find(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("tokenizer"))
    });
    std::fs::write(tokenizer.expect("one"), "{}").expect("written");
    let answer = ask(&server, &body);
    assert_eq!((answer.status, answer.code().as_str()), (500, "internal_error"));
    assert!(!answer.text().contains(folder), "{}", answer.text());
    assert!(server.wait_for_log("a prompt cannot be tokenized").contains("was changed"));
}
