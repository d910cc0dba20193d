//! SIGKILL in the middle of jobs, again and again, against a ledger that the client keeps.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::client::{Dice, number, small};
use crate::harness::{Answer, PATIENCE, Server, agent};
use crate::job_client::{done, id, path, picture};

/// Kills, unless `SOAK_KILLS` says.
const KILLS: usize = 1000;
/// Requests that differ.
const KINDS: usize = 12;
/// Sent in each life of the server.
const SENT: usize = 3;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(40);
/// Longest time from readiness to the kill, in milliseconds, unless no job runs by then.
const LIFE: u64 = 300;

/// What the client knows of a request it has sent, by its Idempotency-Key.
#[derive(Default)]
struct Entry {
    kind: usize,
    /// How often.
    sent: usize,
    /// Once it was accepted.
    id: Option<String>,
    /// Once the client has seen it done.
    finished: Option<Value>,
}

fn kind(kind: usize) -> Value {
    let mut body = small(kind, 10 + kind % 4);
    body["n"] = json!(1 + kind % 2);
    body["cache"] = json!(["off", "N2-1000-0"][kind % 2]);
    body
}

/// Sends a request; `None` when the server was killed before it answered.
fn send(server: &Server, key: &str, body: &Value) -> Option<Answer> {
    let request = agent().post(server.at("/v1/jobs")).header("idempotency-key", key);
    let mut response = request.send_json(body).ok()?;
    let status = response.status().as_u16();
    let body = response.body_mut().read_to_vec().ok()?;
    Some(Answer { status, headers: response.headers().clone(), body })
}

fn files(server: &Server, job: &Value) -> Vec<Vec<u8>> {
    let pictures = job["result"]["pictures"].as_array().expect("pictures");
    (0..pictures.len())
        .map(|index| {
            let file = picture(server, &id(job), index);
            assert_eq!(file.status, 200, "{}", file.text());
            file.body
        })
        .collect()
}

/// Every job that the server knows.
fn all(server: &Server) -> Vec<Value> {
    let mut jobs = Vec::new();
    let mut page = "/v1/jobs?limit=100".to_string();
    loop {
        let list = server.get(&page).json();
        let data = list["data"].as_array().expect("jobs");
        jobs.extend(data.iter().cloned());
        if list["has_more"] == false {
            return jobs;
        }
        page = format!("/v1/jobs?limit=100&after={}", id(&jobs[jobs.len() - 1]));
    }
}

/// Waits until no job is left to draw; however many there are, one must end now and then.
fn drawn(server: &Server) {
    let (mut fewest, mut since) = (usize::MAX, Instant::now());
    loop {
        let open = |job: &&Value| job["status"] == "queued" || job["status"] == "running";
        let left = all(server).iter().filter(open).count();
        if left == 0 {
            return;
        }
        if left < fewest {
            (fewest, since) = (left, Instant::now());
        }
        assert!(since.elapsed() < PATIENCE, "{left} jobs are left, and none ends");
        thread::sleep(Duration::from_secs(1));
    }
}

/// The newest.
fn jobs(server: &Server) -> Vec<Value> {
    let list = server.get("/v1/jobs?limit=100").json();
    list["data"].as_array().expect("jobs").clone()
}

/// One life of the server: what has no answer yet is sent, again or for the first time, until the
/// kill, which may hit in the middle of that, and hits a job under way.
fn live_and_die(server: &mut Server, ledger: &mut BTreeMap<String, Entry>, life: Duration) {
    let stop = AtomicBool::new(false);
    let (client, jobs) = thread::scope(|scope| {
        let (stop, server, ledger) = (&stop, &*server, &mut *ledger);
        let client = scope.spawn(move || {
            for (key, entry) in ledger.iter_mut().filter(|(_, entry)| entry.id.is_none()) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                entry.sent += 1;
                if let Some(answer) = send(server, key, &kind(entry.kind)) {
                    assert!([200, 202].contains(&answer.status), "{}", answer.text());
                    entry.id = Some(id(&answer.json()));
                }
                thread::sleep(PAUSE);
            }
        });
        thread::sleep(life);
        let end = Instant::now() + PATIENCE;
        let jobs = loop {
            let jobs = jobs(server);
            if jobs.iter().any(|job| job["status"] == "running") {
                break jobs;
            }
            assert!(Instant::now() < end, "no job runs");
        };
        server.signal(Signal::KILL);
        stop.store(true, Ordering::Relaxed);
        (client.join(), jobs)
    });
    client.expect("the client goes on");
    server.kill();
    for entry in ledger.values_mut().filter(|entry| entry.finished.is_none()) {
        let own = |job: &&Value| entry.id.as_ref().is_some_and(|name| *name == id(job));
        if let Some(job) = jobs.iter().find(own).filter(|job| job["status"] == "done") {
            entry.finished = Some(job["finished_at"].clone());
        }
    }
}

#[test]
#[ignore = "minutes: make soak"]
fn kills_lose_nothing_and_double_nothing() {
    let kills = number("SOAK_KILLS", KILLS);
    let flags = ["--exact", "--queue", "10000"];
    let solo: Vec<Vec<Vec<u8>>> = {
        let server = Server::start(&flags);
        let draw = |i| {
            let answer = send(&server, &format!("solo-{i}"), &kind(i)).expect("it answers");
            files(&server, &done(&server, &id(&answer.json())))
        };
        (0..KINDS).map(draw).collect()
    };

    let folder = tempfile::tempdir().expect("a folder");
    let mut ledger: BTreeMap<String, Entry> = BTreeMap::new();
    let mut dice = Dice(20261123);
    let mut slowest = Duration::ZERO;
    for _ in 0..kills {
        let begun = Instant::now();
        let mut server = Server::start_unready(folder.path(), &flags);
        slowest = slowest.max(begun.elapsed());
        server.wait_until_ready();
        for _ in 0..SENT {
            let entry = Entry { kind: dice.below(KINDS as u64) as usize, ..Entry::default() };
            ledger.insert(format!("order-{:05}", ledger.len()), entry);
        }
        let life = Duration::from_millis(dice.below(LIFE));
        live_and_die(&mut server, &mut ledger, life);
    }

    let server = Server::start_in(folder.path(), &flags);
    for (key, entry) in &mut ledger {
        entry.sent += 1;
        let answer = send(&server, key, &kind(entry.kind)).expect("it answers");
        let name = id(&answer.json());
        assert_eq!(entry.id.get_or_insert(name.clone()), &name, "{key} was accepted twice");
    }
    drawn(&server);
    let unanswered = ledger.values().filter(|entry| entry.sent > 2).count();
    let (mut lost, mut again, mut wrong) = (0, 0, 0);
    for entry in ledger.values() {
        let name = entry.id.as_ref().expect("all were sent");
        if server.get(&path(name)).status != 200 {
            lost += 1;
            continue;
        }
        let job = done(&server, name);
        again += usize::from(entry.finished.as_ref().is_some_and(|at| *at != job["finished_at"]));
        wrong += usize::from(files(&server, &job) != solo[entry.kind]);
    }
    let known = all(&server);
    let strangers = known.len().abs_diff(ledger.len() - lost);
    println!("kills with a job under way     {kills}");
    println!("jobs accepted                  {}", ledger.len());
    println!("  whose answer a kill cut off  {unanswered}, sent again");
    println!("lost                           {lost}");
    println!("drawn again though done        {again}");
    println!("pictures unlike a solo run     {wrong}");
    println!("jobs that nobody sent          {strangers}");
    println!("longest start to listening     {:.2} s", slowest.as_secs_f64());
    assert_eq!((lost, again, wrong, strangers), (0, 0, 0, 0));
}
