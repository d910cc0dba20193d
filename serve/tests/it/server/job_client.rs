//! Jobs of a running server, as a client sees them.

use std::io::{BufRead, BufReader, Read};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::harness::{Answer, PATIENCE, Server, agent};

/// A cat of few steps.
pub fn cat(seed: u64, steps: usize) -> Value {
    json!({ "prompt": "蓝色背景上的猫", "seed": seed, "steps": steps, "sampler": "dpmms" })
}

/// A request that takes seconds.
pub fn long(seed: u64) -> Value {
    json!({ "prompt": "蓝色背景上的猫", "seed": seed, "steps": 100, "n": 4 })
}

/// POST, with these header fields.
pub fn post(server: &Server, body: &Value, headers: &[(&str, &str)]) -> Answer {
    let mut request = agent().post(server.at("/v1/jobs"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Answer::of(request.send_json(body).expect("it answers"))
}

/// The id of a job that was accepted.
pub fn create(server: &Server, body: &Value) -> String {
    let answer = post(server, body, &[]);
    assert_eq!(answer.status, 202, "{}", answer.text());
    id(&answer.json())
}

pub fn id(job: &Value) -> String {
    job["id"].as_str().expect("a job has an id").to_string()
}

/// The ids of a list.
pub fn ids(list: &Value) -> Vec<String> {
    list["data"].as_array().expect("jobs").iter().map(id).collect()
}

pub fn path(id: &str) -> String {
    format!("/v1/jobs/{id}")
}

pub fn job(server: &Server, id: &str) -> Value {
    let answer = server.get(&path(id));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// Waits until the job's status is one of `wanted`.
pub fn until(server: &Server, id: &str, wanted: &[&str]) -> Value {
    let end = Instant::now() + PATIENCE;
    loop {
        let job = job(server, id);
        if wanted.contains(&job["status"].as_str().expect("a status")) {
            return job;
        }
        assert!(Instant::now() < end, "not {wanted:?}: {job}");
        thread::sleep(Duration::from_millis(5));
    }
}

pub fn done(server: &Server, id: &str) -> Value {
    let job = until(server, id, &["done", "failed", "cancelled"]);
    assert_eq!(job["status"], "done", "{job}");
    job
}

/// The file of a job's picture.
pub fn picture(server: &Server, id: &str, index: usize) -> Answer {
    server.get(&format!("{}/pictures/{index}", path(id)))
}

/// An event of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub name: String,
    pub id: String,
    pub data: Value,
}

/// The events of a job, as they come.
pub struct Events(BufReader<Box<dyn Read + Send>>);

impl Events {
    /// From the beginning.
    pub fn of(server: &Server, id: &str) -> Events {
        Events::after(server, id, None)
    }

    /// Those after the event `last`.
    pub fn after(server: &Server, id: &str, last: Option<&str>) -> Events {
        let mut request = agent().get(server.at(&format!("{}/events", path(id))));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.call().expect("it answers");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        assert_eq!(response.headers()["cache-control"], "no-cache, no-store, no-transform");
        Events(BufReader::new(Box::new(response.into_body().into_reader())))
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let (mut name, mut id, mut data) = (String::new(), String::new(), String::new());
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).expect("a whole stream") == 0 {
                return None;
            }
            match line.trim_end().split_once(": ") {
                Some(("event", value)) => name = value.to_string(),
                Some(("id", value)) => id = value.to_string(),
                Some(("data", value)) => data = value.to_string(),
                _ if line.trim_end().is_empty() && !data.is_empty() => {
                    let data = serde_json::from_str(&data).expect("JSON");
                    return Some(Event { name, id, data });
                }
                _ => {}
            }
        }
    }
}
