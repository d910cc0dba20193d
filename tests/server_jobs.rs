//! Jobs: accepted, watched, cancelled, fetched, and kept over a restart.

mod emoji;
mod jobs;
mod serve;
mod server;

use std::thread;
use std::time::{Duration, Instant};

use hydit::Pipeline;
use hydit::image::decode_png;
use hydit::runtime::BackendChoice;
use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use jobs::{Event, Events, cat, create, done, id, job, long, path, picture, post, until};
use server::{Answer, PATIENCE, Server, agent, command, model};

fn names(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.name.as_str()).collect()
}

fn ids(list: &Value) -> Vec<String> {
    list["data"].as_array().expect("jobs").iter().map(id).collect()
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
    let [created, started, finished] =
        ["created_at", "started_at", "finished_at"].map(|at| drawn[at].as_f64().expect("a time"));
    assert!(created <= started && started <= finished, "{drawn}");

    let backend = emoji::backend(BackendChoice::Ort);
    let mut pipeline = Pipeline::load(model(), backend).expect("it loads");
    let mut request = emoji::cat(pipeline.manifest(), 4);
    (request.seed, request.batch_size) = (7, 2);
    (request.width, request.height) = (192, 96);
    request.cache = "N2".parse().expect("a policy");
    let solo = pipeline.generate(&request, &mut emoji::ignore).expect("it draws").images;
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
    for wrong in ["?limit=0", "?limit=101", "?limit=x", "?after=x", &format!("?after={}", uuid())] {
        assert_eq!(page(wrong).status, 400, "{wrong}");
    }
}

fn uuid() -> &'static str {
    "00000000-0000-4000-8000-000000000000"
}

#[test]
fn events_tell_of_every_step_as_the_plan_says() {
    let server = Server::start(&[]);
    let plan = serve::serve(&[
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
    let marks: Vec<Value> = steps.iter().map(|step| step["mark"].clone()).collect();
    assert_eq!(end.data["job"]["plan"], json!(marks));

    let again: Vec<Event> = Events::of(&server, &name).collect();
    assert_eq!(again, [end.clone()], "a job that has ended tells its end at once");
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
    assert_eq!(ask("GET", &format!("/v1/jobs?after={name}"), bob[0]).status, 400);
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
    assert_eq!(ids(&server.get("/v1/jobs").json()), [name.clone()]);

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
fn sigterm_finishes_what_runs_and_keeps_what_waits() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = Server::start_in(folder.path(), &["--exact"]);
    let names: Vec<String> = (0..4).map(|seed| create(&server, &long(seed))).collect();
    until(&server, &names[0], &["running"]);
    let mut waits = Events::of(&server, &names[3]);
    assert_eq!(waits.next().expect("an event").name, "queued");
    server.signal(Signal::TERM);
    assert_eq!(waits.last().map(|event| event.name), None, "the stream ends without an end");
    assert_eq!(server.wait(PATIENCE).expect("it ends").code(), Some(0), "{}", server.log());

    let server = Server::start_in(folder.path(), &["--exact"]);
    assert_eq!(job(&server, &names[0])["status"], "done", "what ran was finished");
    let mut finished: Vec<f64> = Vec::new();
    for name in &names {
        let end = done(&server, name)["finished_at"].as_f64().expect("a time");
        assert!(finished.last().is_none_or(|last| *last <= end), "they keep their order");
        finished.push(end);
        assert_eq!(picture(&server, name, 3).status, 200);
    }
}

#[test]
fn a_reader_from_before_a_restart_reads_the_new_run_from_its_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = Server::start_in(folder.path(), &[]);
    let name = create(&server, &long(5));
    let mut before = Events::of(&server, &name).filter(|event| event.name == "step");
    let last = before.by_ref().take(5).last().expect("a step").id;
    server.kill();
    let server = Server::start_in(folder.path(), &[]);
    let steps = Events::after(&server, &name, Some(&last)).filter(|event| event.name == "step");
    assert_eq!(steps.count(), 100, "it is drawn from the start, so all of it is told");
}

#[test]
fn pictures_and_jobs_are_kept_within_their_bounds() {
    let server = Server::start(&["--keep-bytes", "20KiB", "--keep-age", "3s"]);
    let old = create(&server, &cat(1, 1));
    assert_eq!(done(&server, &old)["result"]["pictures"][0]["kept"], true);
    let new = create(&server, &cat(2, 1));
    done(&server, &new);
    let wait = |what: &str, is: &dyn Fn() -> bool| {
        let end = Instant::now() + PATIENCE;
        while !is() {
            assert!(Instant::now() < end, "{what}");
            thread::sleep(Duration::from_millis(20));
        }
    };
    wait("the older picture goes", &|| picture(&server, &old, 0).status == 410);
    assert_eq!(picture(&server, &old, 0).code(), "picture_gone");
    assert_eq!(job(&server, &old)["result"]["pictures"][0]["kept"], false);
    assert_eq!(picture(&server, &new, 0).status, 200);

    thread::sleep(Duration::from_secs(3));
    done(&server, &create(&server, &cat(3, 1)));
    wait("jobs go", &|| {
        server.get(&path(&old)).status == 404 && server.get(&path(&new)).status == 404
    });
}

#[test]
fn another_server_in_the_same_folder_is_refused() {
    let server = Server::start(&[]);
    let folder = server.data_dir.to_str().expect("a plain path");
    let model = model().to_str().expect("a plain path");
    let second = command(&["--listen", "127.0.0.1:0", "--model", model, "--data-dir", folder]);
    let second = { second }.output().expect("it ends");
    let text = serve::text(&second.stderr);
    assert!(!second.status.success());
    assert!(text.contains("jobs.redb: another process uses it"), "{text}");
}

#[test]
fn a_damaged_store_stops_the_start_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("jobs.redb"), [b'x'; 5000]).expect("it is written");
    let model = model().to_str().expect("a plain path");
    let data = folder.path().to_str().expect("a plain path");
    let mut broken = command(&["--listen", "127.0.0.1:0", "--model", model, "--data-dir", data]);
    let broken = broken.output().expect("it ends");
    let text = serve::text(&broken.stderr);
    assert!(!broken.status.success());
    assert!(text.contains("jobs.redb: not a store of jobs, or a damaged one"), "{text}");
}

#[test]
fn a_job_whose_model_was_exported_anew_fails_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let start = |model: &std::path::Path, flag: &str| {
        let flag = format!("{flag}={}", model.display());
        let mut command = command(&["--listen", "127.0.0.1:0", "--exact", "--model", &flag]);
        command.arg("--data-dir").arg(folder.path());
        Server::spawn(command, folder.path())
    };
    let mut server = start(model(), "m");
    server.wait_until_ready();
    let [runs, waits] = [1, 2].map(|seed| create(&server, &long(seed)));
    until(&server, &runs, &["running"]);
    server.kill();
    let other = emoji::artifacts(2);
    let server = start(other.path(), "m");
    for name in [&runs, &waits] {
        let failed = job(&server, name);
        assert_eq!(
            (&failed["status"], &failed["error"]["code"]),
            (&json!("failed"), &json!("model_changed"))
        );
        let message = failed["error"]["message"].as_str().expect("a text");
        assert!(message.contains("exported anew"), "{message}");
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

/// What a kill leaves is in `soak`, a hundred times; here a few.
#[test]
fn a_kill_loses_nothing_and_doubles_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let flags = ["--exact"];
    let mut solo = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for round in 0..4u64 {
        let mut server = Server::start_in(folder.path(), &flags);
        if round == 0 {
            for seed in 0..9 {
                let name = create(&server, &cat(seed, 6));
                done(&server, &name);
                solo.push(picture(&server, &name, 0).body);
                assert_eq!(server.delete(&path(&name)).status, 204);
            }
        }
        if round < 3 {
            for seed in 3 * round..3 * round + 3 {
                names.push(create(&server, &cat(seed, 6)));
            }
            thread::sleep(Duration::from_millis(40 * round));
            server.kill();
            continue;
        }
        for (name, solo) in names.iter().zip(&solo) {
            assert_eq!(done(&server, name)["request"]["steps"], 6);
            assert!(picture(&server, name, 0).body == *solo, "as drawn alone");
        }
        let mut listed = ids(&server.get("/v1/jobs").json());
        listed.reverse();
        assert_eq!(listed, names, "no job is there that was not accepted");
    }
}
