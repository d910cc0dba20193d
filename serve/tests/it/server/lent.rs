//! Pictures whose addresses are answered, and the file as the answer.

use std::time::Duration;

use hydit_serve::server::settings::{Keep, Settings};
use serde_json::{Value, json};
use ureq::http::Request;

use super::api::{cat, draw, picture};
use super::harness::{Answer, Server, agent};
use super::in_process::TestClock;
use super::place::Place;

const GENERATE: &str = "/v1/images/generations";
const KEY: &str = "0123456789abcdef-Mary";

fn post(server: &Server, body: &Value, fields: &[(&str, &str)]) -> Answer {
    let mut request = Request::post(server.at(GENERATE)).header("content-type", "application/json");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let answer = agent().run(request.body(body.to_string()).expect("a request"));
    Answer::of(answer.expect("it answers"))
}

fn addresses(answer: &Answer) -> Vec<String> {
    let json = answer.json();
    let data = json["data"].as_array().unwrap_or_else(|| panic!("{}", answer.text()));
    assert!(data.iter().all(|image| image.as_object().is_some_and(|image| image.len() == 1)));
    data.iter().map(|image| image["url"].as_str().expect("an address").to_string()).collect()
}

fn fetch(address: &str) -> Answer {
    Answer::of(agent().get(address).call().expect("it answers"))
}

#[test]
fn an_address_gives_the_picture_without_the_key_and_tells_nothing() {
    let server = Server::start(&["--exact", "--api-key", &format!("mary={KEY}")]);
    let key = ("authorization", &*format!("Bearer {KEY}"));
    let body = cat(json!({ "n": 2, "response_format": "url" }));
    let answer = post(&server, &body, &[key]);
    let urls = addresses(&answer);
    assert_eq!(urls.len(), 2);
    let plain = post(&server, &cat(json!({ "n": 2 })), &[key]).json();
    for (index, url) in urls.iter().enumerate() {
        let rest = url.strip_prefix(&server.at("/v1/pictures/")).expect("on this server");
        let (secret, file) = rest.split_once('/').expect("two parts");
        assert_eq!((secret.len(), file), (32, &*format!("{index}.png")));
        assert!(secret.bytes().all(|byte| byte.is_ascii_hexdigit()), "{secret}");
        let mut image = fetch(url);
        assert_eq!((image.status, image.header("content-type")), (200, "image/png"));
        let age = image.header("cache-control").strip_prefix("private, max-age=").expect("private");
        assert!((3500..=3600).contains(&age.parse::<u32>().expect("seconds")), "{age}");
        assert_eq!(std::mem::take(&mut image.body), picture(&plain["data"][index]["b64_json"]));
    }
    let again = addresses(&post(&server, &body, &[key]));
    assert_ne!(again[0], urls[0], "each order has a secret of its own");
    let secret = again[0].rsplit('/').nth(1).expect("two parts");
    for wrong in ["/2.png", "/0.jpeg", "/0", "/-1.png", "/x.png", "/4294967296.png"] {
        let answer = fetch(&server.at(&format!("/v1/pictures/{secret}{wrong}")));
        assert_eq!((answer.status, answer.code().as_str()), (404, "picture_not_found"), "{wrong}");
    }
    for strange in ["0".repeat(32), "x".to_string()] {
        let answer = fetch(&server.at(&format!("/v1/pictures/{strange}/0.png")));
        assert_eq!((answer.status, answer.code().as_str()), (404, "picture_not_found"));
    }
    assert!(!server.log().contains(secret), "a log is read by others");
}

#[test]
fn an_address_begins_with_the_name_that_the_client_has_called() {
    let server = Server::start(&["--allowed-host", "draw.example"]);
    let body = cat(json!({ "steps": 1, "response_format": "url", "output_format": "jpeg" }));
    for (fields, begins) in [
        (&[("host", "draw.example")][..], "http://draw.example/v1/pictures/"),
        (&[("host", "localhost:8"), ("x-forwarded-proto", "https")], "https://localhost:8/v1/"),
        (&[("host", "localhost:8"), ("x-forwarded-proto", "javascript")], "http://localhost:8/v1/"),
    ] {
        let urls = addresses(&post(&server, &body, fields));
        assert!(urls[0].starts_with(begins) && urls[0].ends_with("/0.jpeg"), "{urls:?}");
    }
}

#[test]
fn a_file_is_the_answer_with_its_figures_in_a_header() {
    let server = Server::start(&["--exact"]);
    let plain = draw(&server, &cat(json!({})));
    let file = post(&server, &cat(json!({ "response_format": "file" })), &[]);
    assert_eq!((file.status, file.header("content-type")), (200, "image/png"));
    assert_eq!(file.body, picture(&plain["data"][0]["b64_json"]));
    let figures: Value = serde_json::from_str(file.header("x-hydit")).expect("JSON");
    assert_eq!(figures["seeds"], json!([7]));
    assert_eq!(figures["core_runs"], plain["hydit"]["core_runs"]);
}

#[tokio::test]
async fn addresses_end_after_an_hour_or_when_jobs_do() {
    for (age, lives) in [(24 * 3600, 3600), (60, 60)] {
        let time = TestClock::new();
        let keep = Keep { age: Duration::from_secs(age), bytes: 1 << 30 };
        let place = Place::open(Settings { keep, ..Settings::default() }, time.clock()).await;
        let file = b"not read as a picture".to_vec();
        let format = hydit::image::Format::Png;
        let secret = place.jobs.lend(format, std::slice::from_ref(&file)).expect("room");
        let fetched = async |index| place.jobs.lent(secret, index).await.expect("a read");
        time.pass(Duration::from_secs(lives - 1));
        let (image, left) = fetched(0).await.expect("it is there");
        assert_eq!((image.file, left), (file, Duration::from_secs(1)));
        assert!(fetched(1).await.is_none());
        time.pass(Duration::from_secs(1));
        assert!(fetched(0).await.is_none());
    }
}
