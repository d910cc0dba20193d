//! Pictures made from images, as clients ask for them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hydit::image::decode_png;
use hydit_graphs::Precision;
use hydit_testing::{emoji, repository};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::{Value, json};

use super::harness::{Answer, Server, agent, command};
use super::job_client::{create, done, job, picture, until};

const PROMPT: (&str, &str) = ("prompt", "a fox on a white background");

fn image(name: &str) -> Vec<u8> {
    let folder = repository().join("tests/reference/image_to_image");
    std::fs::read(folder.join(name)).expect("an image")
}

/// A mask whose right half is transparent.
fn mask() -> Vec<u8> {
    let mut mask = image::RgbaImage::new(128, 128);
    for (x, _, pixel) in mask.enumerate_pixels_mut() {
        pixel.0 = [0, 0, 0, if x < 64 { 255 } else { 0 }];
    }
    let mut bytes = std::io::Cursor::new(Vec::new());
    mask.write_to(&mut bytes, image::ImageFormat::Png).expect("a PNG");
    bytes.into_inner()
}

/// Posts a form of texts and files.
pub fn edit(server: &Server, texts: &[(&str, &str)], files: &[(&str, &[u8])]) -> Answer {
    let mut body = Vec::new();
    let mut part = |name: &str, more: &str, content: &[u8]| {
        let head = format!("--X\r\nContent-Disposition: form-data; name=\"{name}\"{more}\r\n\r\n");
        body.extend([head.as_bytes(), content, b"\r\n"].concat());
    };
    texts.iter().for_each(|(name, text)| part(name, "", text.as_bytes()));
    let of_file = "; filename=\"a.png\"\r\nContent-Type: image/png";
    files.iter().for_each(|(name, file)| part(name, of_file, file));
    body.extend(b"--X--\r\n");
    let request = agent().post(server.at("/v1/images/edits"));
    let request = request.header("content-type", "multipart/form-data; boundary=X");
    Answer::of(request.send(&body[..]).expect("it answers"))
}

pub fn drawn(answer: &Answer) -> Vec<u8> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = answer.json()["data"][0]["b64_json"].as_str().expect("an image").to_string();
    STANDARD.decode(text).expect("base64")
}

#[test]
fn an_image_in_a_form_or_in_json_makes_the_same_picture() {
    let server = Server::start(&["--exact"]);
    let (fox, mask) = (image("image-fox.png"), mask());
    let texts = [PROMPT, ("seed", "7"), ("steps", "10"), ("sampler", "ddim"), ("strength", "0.5")];
    let in_json = |mask: Option<&[u8]>| {
        let base64 = |bytes: &[u8]| STANDARD.encode(bytes);
        let body = json!({
            "prompt": PROMPT.1, "seed": 7, "steps": 10, "sampler": "ddim", "strength": 0.5,
            "image": base64(&fox), "mask": mask.map(base64),
        });
        server.post("/v1/images/generations", &body)
    };
    let answer = edit(&server, &texts, &[("image", &fox)]);
    assert_eq!(answer.json()["hydit"]["steps"], 5, "of 10");
    let whole = drawn(&answer);
    assert!(drawn(&in_json(None)) == whole);
    let half = drawn(&edit(&server, &texts, &[("image[]", &fox), ("mask", &mask)]));
    assert!(drawn(&in_json(Some(&mask))) == half && half != whole);

    let large = image("image-large.png");
    let size = |more: &[(&str, &str)]| {
        let (image, _) = decode_png(&drawn(&edit(
            &server,
            &[&[PROMPT, ("steps", "2"), ("size", "auto")], more].concat(),
            &[("image", &large)],
        )))
        .expect("a PNG");
        (image.width, image.height)
    };
    assert_eq!(size(&[]), (144, 96), "150x100, cut down to multiples of 16");
}

#[test]
fn what_is_wrong_with_an_edit_is_told_by_field() {
    let server = Server::start(&["--max-image", "64KiB"]);
    let (fox, opaque) = (image("image-fox.png"), image("mask-half.png"));
    let large = vec![0; 70 << 10];
    let fox = &fox[..];
    let with = |name: &'static str, text: &'static str| vec![PROMPT, (name, text)];
    let one = [("image", fox)];
    for (texts, files, field, words) in [
        (vec![PROMPT], vec![], "image", "image is missing"),
        (vec![], one.to_vec(), "prompt", "prompt is missing"),
        (vec![PROMPT], vec![("image", &b"GIF89a"[..])], "image", "not a PNG, JPEG or WebP"),
        (vec![PROMPT], vec![("image", &fox[..fox.len() / 2])], "image", "cut off or damaged"),
        (vec![PROMPT], vec![("image", &large[..])], "image", "at most 65536 are taken"),
        (vec![PROMPT], vec![("image[]", fox), ("image[]", fox)], "image", "one image"),
        (vec![PROMPT], vec![("image", fox), ("mask", &opaque[..])], "mask", "no transparency"),
        (vec![PROMPT, PROMPT], one.to_vec(), "prompt", "given twice"),
        (with("strength", "0"), one.to_vec(), "strength", "expected more than 0, up to 1"),
        (with("strength", "0.001"), one.to_vec(), "strength", "steps is none"),
        (with("strength", "much"), one.to_vec(), "strength", "expected a number"),
        (with("n", "two"), one.to_vec(), "n", "expected an integer"),
        (with("size", "100x100"), one.to_vec(), "size", "not a multiple of 16"),
        (with("colour", "red"), one.to_vec(), "colour", "not a field here"),
    ] {
        let answer = edit(&server, &texts, &files);
        let error = &answer.json()["error"];
        assert_eq!((answer.status, &error["param"]), (400, &json!(field)), "{error}");
        let message = error["message"].as_str().expect("a message");
        assert!(message.contains(words) && !message.contains('\n'), "{message}");
    }
    let json = server.post("/v1/images/edits", &json!({ "prompt": "a fox" }));
    assert_eq!((json.status, json.code().as_str()), (415, "unsupported_content_type"));
    for (body, param) in [
        (json!({ "prompt": "a fox", "strength": 0.5 }), "strength"),
        (json!({ "prompt": "a fox", "mask": STANDARD.encode(mask()) }), "mask"),
        (json!({ "prompt": "a fox", "image": "not base64" }), "image"),
    ] {
        let answer = server.post("/v1/images/generations", &body);
        assert_eq!((answer.status, &answer.json()["error"]["param"]), (400, &json!(param)));
    }
}

#[test]
fn a_model_without_an_image_encoder_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = folder.path().join("bare");
    emoji::export(&emoji::checkpoint(), &model, 1, Precision::Fp32).expect("an export");
    let mut bare = command(&["--listen", "127.0.0.1:0"]);
    bare.arg("--model").arg(&model).arg("--data-dir").arg(folder.path());
    let server = Server::spawn(bare, folder.path());
    server.wait_until_ready();
    let answer = edit(&server, &[PROMPT], &[("image", &image("image-fox.png"))]);
    assert_eq!((answer.status, &answer.json()["error"]["param"]), (400, &json!("image")));
    assert!(answer.text().contains("without its image encoder"), "{}", answer.text());
}

#[test]
fn a_job_keeps_its_image_over_a_kill_and_until_it_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = Server::start_in(folder.path(), &["--exact"]);
    let body = |steps: usize| -> Value {
        json!({
            "prompt": PROMPT.1, "seed": 7, "steps": steps, "sampler": "ddim", "strength": 0.9,
            "image": STANDARD.encode(image("image-fox.png")), "mask": STANDARD.encode(mask()),
        })
    };
    let before = create(&server, &body(10));
    done(&server, &before);
    let long = create(&server, &body(100));
    let waits = create(&server, &body(10));
    until(&server, &long, &["running"]);
    server.kill();
    let mut server = Server::start_in(folder.path(), &["--exact"]);
    let asked = job(&server, &waits)["request"].clone();
    assert_eq!((&asked["strength"], &asked["steps"]), (&json!(0.9), &json!(10)));
    assert_eq!(asked["image"].as_str().map(str::len), Some(64), "a hash");
    assert_eq!(done(&server, &long)["steps"], 90);
    assert_eq!(done(&server, &waits)["steps"], 9);
    assert!(picture(&server, &waits, 0).body == picture(&server, &before, 0).body);
    assert_eq!(server.stop(), 0);

    let inputs: TableDefinition<(u128, u32), &[u8]> = TableDefinition::new("inputs");
    let store = Database::open(folder.path().join("jobs.redb")).expect("it opens");
    let transaction = store.begin_read().expect("a transaction");
    let left = transaction.open_table(inputs).expect("the table").iter().expect("entries").count();
    assert_eq!(left, 0, "of images of jobs that have ended");
}
