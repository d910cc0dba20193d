//! Jobs: accepted, watched, cancelled, fetched.

use std::thread;
use std::time::Duration;

use hydit::Pipeline;
use hydit::image::decode_png;
use hydit::runtime::BackendChoice;
use hydit_testing::emoji;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::harness::{Answer, Server, agent, model};
use super::job_client::{
    Event, Events, cat, create, done, id, ids, job, long, path, picture, post, until,
};
use crate::program;

fn names(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.name.as_str()).collect()
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_job_is_accepted_drawn_fetched_and_forgotten() {
    let server = Server::start(&["--exact"]);
    let asked = json!({
        "prompt": "蓝色背景上的猫", "seed": 7, "steps": 4, "n": 2, "size": "192x96", "cache": "N2", "metadata": true
    });
    let accepted = post(&server, &asked, &[]);
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let name = id(&accepted.json());
    assert_eq!(accepted.header("location"), path(&name));
    let drawn = done(&server, &name);
    assert_eq!(drawn["plan"], json!(["refresh", "reuse", "refresh", "reuse"]));
    assert_eq!(
        (&drawn["step"], &drawn["steps"], &drawn["core_runs"]),
        (&json!(4), &json!(4), &json!(2))
    );
    assert_eq!(drawn["request"]["size"], "192x96");
    assert_eq!(drawn["result"]["hydit"]["seeds"], json!([7, 8]));
    let took = drawn["result"]["step_seconds"].as_array().expect("a list").iter();
    let took: Vec<f64> = took.map(|seconds| seconds.as_f64().expect("a number")).collect();
    assert!(took.len() == 4 && took.iter().all(|&seconds| seconds > 0.0), "{took:?}");
    let drawing = drawn["result"]["hydit"]["drawing_seconds"].as_f64().expect("a number");
    assert!(took.iter().sum::<f64>() < drawing, "{took:?} of {drawing}");
    let [created, started, finished] =
        ["created_at", "started_at", "finished_at"].map(|at| drawn[at].as_f64().expect("a time"));
    assert!(created <= started && started <= finished, "{drawn}");

    let backend = emoji::backend(BackendChoice::Ort);
    let mut pipeline = Pipeline::load(model(), backend).expect("it loads");
    let mut request = emoji::cat(pipeline.manifest(), 4);
    (request.seed, request.num_images) = (7, 2);
    (request.width, request.height) = (192, 96);
    request.cache_policy = "N2".parse().expect("a policy");
    let solo = pipeline
        .generate(&emoji::checked(&pipeline, &request), &mut emoji::ignore)
        .expect("it draws")
        .images;
    for (index, solo) in solo.iter().enumerate() {
        let told = &drawn["result"]["pictures"][index];
        let file = server.get(told["url"].as_str().expect("a URL"));
        assert_eq!((file.status, file.header("content-type")), (200, "image/png"));
        let (image, texts) = decode_png(&file.body).expect("a PNG");
        let far = image.rgb.iter().zip(&solo.rgb).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(far <= Some(1) && image.width == 192, "picture {index} is {far:?} from a solo run");
        assert!(texts[0].1.contains(&format!("\"seed\":{}", 7 + index)), "{texts:?}");
        assert_eq!(told["sha256"], hex(&file.body));
        assert_eq!(told["bytes"], json!(file.body.len()));
        assert_eq!(file.header("etag"), format!("\"{}\"", hex(&file.body)));
    }
    let known = agent().get(server.at(&format!("{}/pictures/0", path(&name)))).header(
        "if-none-match",
        format!(
            "\"x\", \"{}\"",
            drawn["result"]["pictures"][0]["sha256"].as_str().expect("a hash")
        ),
    );
    let known = Answer::of(known.call().expect("it answers"));
    assert_eq!((known.status, known.body.len()), (304, 0));

    assert_eq!(picture(&server, &name, 2).status, 404);
    assert_eq!(server.delete(&path(&name)).status, 204);
    for answer in [
        server.get(&path(&name)),
        server.delete(&path(&name)),
        picture(&server, &name, 0),
        server.get(&format!("{}/events", path(&name))),
        server.get(&path("no-id")),
    ] {
        assert_eq!((answer.status, answer.code().as_str()), (404, "job_not_found"));
    }
}

#[test]
fn jobs_are_listed_the_newest_first_in_pages() {
    let server = Server::start(&[]);
    let mut all: Vec<String> = (0..5).map(|seed| create(&server, &cat(seed, 1))).collect();
    all.reverse();
    let page = |query: &str| server.get(&format!("/v1/jobs{query}"));
    let whole = page("").json();
    assert_eq!((ids(&whole), &whole["has_more"]), (all.clone(), &json!(false)));
    let first = page("?limit=2").json();
    assert_eq!((ids(&first).as_slice(), &first["has_more"]), (&all[..2], &json!(true)));
    let last = page(&format!("?limit=3&after={}", all[1])).json();
    assert_eq!((ids(&last).as_slice(), &last["has_more"]), (&all[2..], &json!(false)));
    for wrong in ["?limit=0", "?limit=101", "?limit=x", "?after=x"] {
        assert_eq!(page(wrong).status, 400, "{wrong}");
    }
    let unknown = page("?after=00000000-0000-4000-8000-000000000000");
    assert_eq!((unknown.status, unknown.code().as_str()), (404, "job_not_found"));
}

#[test]
fn events_tell_of_every_step_as_the_plan_says() {
    let server = Server::start(&[]);
    let plan = program::serve(&[
        "plan",
        "--json",
        "--sampler",
        "dpmms",
        "--infer-steps",
        "12",
        "--cache-policy",
        "N3",
        "--model",
        model().to_str().expect("a plain path"),
    ]);
    let plan: Value = serde_json::from_slice(&plan.stdout).expect("a plan");
    let mut asked = cat(3, 12);
    asked["cache"] = json!("N3");
    asked["preview_every"] = json!(5);
    let name = create(&server, &asked);
    let events: Vec<Event> =
        Events::of(&server, &name).filter(|event| event.name != "queued").collect();
    let mut expected = vec!["started"];
    for step in 1..=12 {
        expected.push("step");
        if step % 5 == 0 {
            expected.push("preview");
        }
    }
    expected.push("done");
    assert_eq!(names(&events), expected);

    let steps: Vec<&Value> =
        events.iter().filter(|event| event.name == "step").map(|event| &event.data).collect();
    let refreshed: Vec<usize> = (0..12).filter(|i| steps[*i]["refreshed"] == true).collect();
    assert_eq!(json!(refreshed), plan["refresh"]);
    assert_eq!(steps[11]["core_runs"], plan["core_runs"]);
    assert_eq!((&steps[11]["step"], &steps[11]["steps"]), (&json!(12), &json!(12)));
    for preview in events.iter().filter(|event| event.name == "preview") {
        let images = preview.data["images"].as_array().expect("pictures");
        let png = base64::Engine::decode(
            &base64::prelude::BASE64_STANDARD,
            images[0].as_str().expect("base64"),
        );
        let (image, _) = decode_png(&png.expect("base64")).expect("a PNG");
        assert_eq!((images.len(), image.width, image.height), (1, 16, 16));
    }
    let end = &events[events.len() - 1];
    assert_eq!(end.data["job"], job(&server, &name));
    let took: Vec<Value> = steps.iter().map(|step| step["seconds"].clone()).collect();
    assert_eq!(end.data["job"]["result"]["step_seconds"], json!(took));
    let marks: Vec<Value> = steps.iter().map(|step| step["mark"].clone()).collect();
    assert_eq!(end.data["job"]["plan"], json!(marks));

    let again: Vec<Event> = Events::of(&server, &name).collect();
    assert_eq!(again, std::slice::from_ref(end), "a job that has ended tells its end at once");
    let over = agent().get(server.at(&format!("{}/events", path(&name))));
    let over = over.header("last-event-id", &end.id).call().expect("it answers");
    assert_eq!(over.status(), 204, "the reader need not come again");
}

#[test]
fn a_reader_goes_on_where_its_connection_broke() {
    let server = Server::start(&[]);
    let name = create(&server, &long(1));
    let mut first = Events::of(&server, &name).filter(|event| event.name != "queued");
    let read: Vec<Event> = first.by_ref().take(6).collect();
    drop(first);
    let last = &read[5].id;
    let rest: Vec<Event> = Events::after(&server, &name, Some(last)).collect();
    let steps: Vec<u64> = read
        .iter()
        .chain(&rest)
        .filter(|event| event.name == "step")
        .map(|event| event.data["step"].as_u64().expect("a step"))
        .collect();
    assert_eq!(steps, (1..=100).collect::<Vec<_>>(), "none twice, none left out");
    assert_eq!(rest.last().map(|event| event.name.as_str()), Some("done"));
    let number = |event: &Event| event.id.rsplit('-').next().and_then(|n| n.parse::<u64>().ok());
    let numbers: Vec<u64> = read.iter().chain(&rest).filter_map(number).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
}

#[test]
fn whoever_begins_to_read_is_told_the_end() {
    let server = Server::start(&[]);
    for seed in 0..10 {
        let name = create(&server, &cat(seed, 1));
        let read = || {
            loop {
                let last = Events::of(&server, &name).last().expect("an event");
                assert_eq!(last.name, "done");
                if job(&server, &name)["status"] == "done" {
                    return;
                }
            }
        };
        thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(read))));
    }
}

#[test]
fn a_cancelled_job_stops_for_good() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = Server::start_in(folder.path(), &["--exact"]);
    let [runs, waits, last] = [1, 2, 3].map(|seed| create(&server, &long(seed)));
    until(&server, &runs, &["running"]);
    let mut queued = Events::of(&server, &last);
    assert_eq!(queued.next().expect("an event").data, json!({ "position": 1 }));
    let cancelled = server.delete(&path(&waits));
    assert_eq!((cancelled.status, &cancelled.json()["status"]), (200, &json!("cancelled")));
    assert_eq!(queued.next().expect("an event").data, json!({ "position": 0 }));

    let mut events = Events::of(&server, &runs).skip_while(|event| event.name != "step");
    events.next().expect("a step");
    let cancelled = server.delete(&path(&runs));
    assert_eq!((cancelled.status, &cancelled.json()["status"]), (200, &json!("cancelled")));
    let end = events.last().expect("an end");
    assert_eq!((end.name.as_str(), &end.data["job"]["status"]), ("cancelled", &json!("cancelled")));
    let at = job(&server, &runs)["step"].as_u64();
    assert!(at < Some(100), "it was cut short");
    assert_eq!(picture(&server, &runs, 0).code(), "picture_not_found");
    until(&server, &last, &["running"]);

    server.kill();
    let server = Server::start_in(folder.path(), &["--exact"]);
    done(&server, &last);
    for name in [&runs, &waits] {
        assert_eq!(job(&server, name)["status"], "cancelled", "nothing brings it back");
    }
}

#[test]
fn jobs_of_another_key_do_not_exist() {
    let keys = ["--api-key", "ann=0123456789abcdef", "--api-key", "bob=fedcba9876543210"];
    let server = Server::start(&keys);
    let ann = [("authorization", "Bearer 0123456789abcdef"), ("idempotency-key", "k")];
    let bob = [("authorization", "Bearer fedcba9876543210"), ("idempotency-key", "k")];
    let accepted = post(&server, &cat(1, 1), &ann);
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let name = id(&accepted.json());
    let ask = |method: &str, path: &str, (header, value): (&str, &str)| {
        let request = ureq::http::Request::builder().method(method).uri(server.at(path));
        let request = request.header(header, value).body(()).expect("a request");
        Answer::of(agent().run(request).expect("it answers"))
    };
    while ask("GET", &path(&name), ann[0]).json()["status"] != "done" {
        thread::sleep(Duration::from_millis(10));
    }
    for (method, tail) in [("GET", ""), ("DELETE", ""), ("GET", "/events"), ("GET", "/pictures/0")]
    {
        let answer = ask(method, &format!("{}{tail}", path(&name)), bob[0]);
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (404, "job_not_found"),
            "{method} {tail}"
        );
    }
    assert_eq!(ask("GET", &format!("/v1/jobs?after={name}"), bob[0]).status, 404);
    assert_eq!(ids(&ask("GET", "/v1/jobs", bob[0]).json()), Vec::<String>::new());
    let other = post(&server, &cat(1, 1), &bob);
    assert_eq!(other.status, 202, "{}", other.text());
    assert_ne!(id(&other.json()), name, "the same Idempotency-Key of two keys is two jobs");
    assert_eq!(ask("GET", &format!("{}/pictures/0", path(&name)), ann[0]).status, 200);
}

#[test]
fn a_request_that_is_sent_twice_is_one_job() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = Server::start_in(folder.path(), &[]);
    let key = [("idempotency-key", "order-17")];
    let first = post(&server, &json!({ "prompt": "a cat", "steps": 2 }), &key);
    assert_eq!(first.status, 202, "{}", first.text());
    let name = id(&first.json());
    let again = post(&server, &json!({ "steps": 2, "prompt": "a cat" }), &key);
    assert_eq!((again.status, id(&again.json())), (200, name.clone()));
    done(&server, &name);
    server.kill();
    let server = Server::start_in(folder.path(), &[]);
    let later = post(&server, &json!({ "prompt": "a cat", "steps": 2 }), &key);
    assert_eq!((later.status, id(&later.json())), (200, name.clone()));
    assert_eq!(later.json()["status"], "done");
    let other = post(&server, &json!({ "prompt": "a cat", "steps": 3 }), &key);
    assert_eq!((other.status, other.code().as_str()), (409, "idempotency_key_reused"));
    assert_eq!(ids(&server.get("/v1/jobs").json()), std::slice::from_ref(&name));

    assert_eq!(server.delete(&path(&name)).status, 204);
    let anew = post(&server, &json!({ "prompt": "a cat", "steps": 3 }), &key);
    assert_eq!(anew.status, 202, "the key goes with its job: {}", anew.text());
    for wrong in ["", "two words", "ä", &"x".repeat(256)] {
        let refused = post(&server, &cat(1, 1), &[("idempotency-key", wrong)]);
        assert_eq!(
            (refused.status, &refused.json()["error"]["param"]),
            (400, &json!("Idempotency-Key"))
        );
    }
}

#[test]
fn twenty_that_send_the_same_at_once_get_one_job() {
    let server = Server::start(&[]);
    let key = [("idempotency-key", "k")];
    let answers: Vec<Answer> = thread::scope(|scope| {
        let send = || post(&server, &cat(1, 2), &key);
        let threads: Vec<_> = (0..20).map(|_| scope.spawn(send)).collect();
        threads.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    });
    assert_eq!(answers.iter().filter(|answer| answer.status == 202).count(), 1);
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 19);
    let name = id(&answers[0].json());
    assert!(answers.iter().all(|answer| id(&answer.json()) == name));
    assert_eq!(ids(&server.get("/v1/jobs").json()), [name]);
}

#[test]
fn a_full_queue_takes_no_job_and_keeps_none() {
    let server = Server::start(&["--queue", "2", "--exact"]);
    let first = create(&server, &long(0));
    until(&server, &first, &["running"]);
    let taken: Vec<String> = (1..3).map(|seed| create(&server, &long(seed))).collect();
    let refused = post(&server, &long(3), &[]);
    assert_eq!((refused.status, refused.code().as_str()), (429, "queue_full"));
    assert!(refused.header("retry-after").parse::<u64>().expect("seconds") >= 1);
    assert_eq!(ids(&server.get("/v1/jobs").json()).len(), 3);
    for name in taken.iter().chain([&first]) {
        assert_eq!(server.delete(&path(name)).status, 200);
    }
}

#[test]
fn fields_that_cannot_be_are_refused_and_no_job_is_kept() {
    let server = Server::start(&[]);
    for (body, param) in [
        (json!({ "prompt": "a cat", "preview_every": "4" }), "preview_every"),
        (json!({ "prompt": "a cat", "preview_every": -1 }), "preview_every"),
        (json!({ "prompt": "a cat", "steps": 0 }), "steps"),
        (json!({ "prompt": "a cat", "stream": true }), "stream"),
        (json!({ "steps": 4 }), "prompt"),
    ] {
        let refused = post(&server, &body, &[]);
        assert_eq!(
            (refused.status, &refused.json()["error"]["param"]),
            (400, &json!(param)),
            "{body}"
        );
    }
    let unknown = post(&server, &json!({ "prompt": "a cat", "model": "dall-e" }), &[]);
    assert_eq!(unknown.status, 404);
    assert_eq!(ids(&server.get("/v1/jobs").json()), Vec::<String>::new());
}
