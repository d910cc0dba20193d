//! The real server, on a free port, with the small trained model.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hydit_testing::{emoji, repository};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use ureq::Agent;
use ureq::http::Response;

/// Longest wait for anything a server should do.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `is`.
pub fn until(what: &str, is: impl Fn() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The usual export of the small model.
pub fn model() -> &'static Path {
    static MODEL: LazyLock<PathBuf> = LazyLock::new(emoji::artifacts);
    &MODEL
}

/// `hydit-serve serve` with these flags and nothing in the environment that it would read.
pub fn command(flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hydit-serve"));
    command.arg("serve").args(flags).current_dir(repository());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("HYDIT_")) {
        command.env_remove(name);
    }
    command
}

/// A running server. It is killed when dropped.
pub struct Server {
    /// `http://127.0.0.1:PORT`
    pub url: String,
    pub address: SocketAddr,
    pub pid: u32,
    pub data_dir: PathBuf,
    child: Child,
    out: Lines,
    log: Lines,
    /// Goes with the server, unless the caller gave a folder.
    _own: Option<TempDir>,
}

impl Server {
    /// A server with the small model and a fresh data folder, ready.
    pub fn start(flags: &[&str]) -> Server {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut server = Server::start_in(folder.path(), flags);
        server._own = Some(folder);
        server
    }

    /// As [`Server::start`], with this data folder.
    pub fn start_in(data_dir: &Path, flags: &[&str]) -> Server {
        let server = Server::start_unready(data_dir, flags);
        server.wait_until_ready();
        server
    }

    /// Waits until its models are loaded and warm.
    pub fn wait_until_ready(&self) {
        self.wait_for_out("ready");
    }

    /// As [`Server::start_in`], listening but perhaps not ready.
    pub fn start_unready(data_dir: &Path, flags: &[&str]) -> Server {
        let mut command = command(&["--listen", "127.0.0.1:0"]);
        command.arg("--model").arg(model()).arg("--data-dir").arg(data_dir).args(flags);
        Server::spawn(command, data_dir)
    }

    /// The server that `command` starts.
    pub fn spawn(mut command: Command, data_dir: &Path) -> Server {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let out = Lines::of(child.stdout.take().expect("it is piped"));
        let log = Lines::of(child.stderr.take().expect("it is piped"));
        let mut server = Server {
            url: String::new(),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            pid: child.id(),
            data_dir: data_dir.to_path_buf(),
            child,
            out,
            log,
            _own: None,
        };
        let line = server.wait_for_out("listening on ");
        server.url = line.trim_start_matches("listening on ").to_string();
        let address = server.url.trim_start_matches("http://");
        server.address = address.parse().expect("an address");
        server
    }

    /// What it has written to standard error so far.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// What it has written to standard output so far.
    pub fn out(&self) -> String {
        self.out.text()
    }

    /// Waits for a line of the log that contains `words`.
    pub fn wait_for_log(&self, words: &str) -> String {
        self.log.wait_for(words).unwrap_or_else(|| panic!("no {words:?} in {}", self.log()))
    }

    fn wait_for_out(&self, words: &str) -> String {
        let line = self.out.wait_for(words);
        line.unwrap_or_else(|| panic!("no {words:?} in {:?}; log: {}", self.out(), self.log()))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("it is our child");
    }

    /// Waits for its end, at most `patience`.
    pub fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return Some(status);
            }
            if Instant::now() > end {
                return None;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGTERM, and its end; gives the exit code.
    pub fn stop(&mut self) -> i32 {
        self.signal(Signal::TERM);
        let status = self.wait(PATIENCE).unwrap_or_else(|| panic!("it goes on: {}", self.log()));
        status.code().expect("it ended by itself")
    }

    /// SIGKILL, and its end.
    pub fn kill(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }

    /// GET.
    pub fn get(&self, path: &str) -> Answer {
        let response = agent().get(self.at(path)).call();
        Answer::of(response.expect("it answers"))
    }

    /// POST of JSON.
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        let response = agent().post(self.at(path)).send_json(body);
        Answer::of(response.expect("it answers"))
    }

    /// DELETE.
    pub fn delete(&self, path: &str) -> Answer {
        let response = agent().delete(self.at(path)).call();
        Answer::of(response.expect("it answers"))
    }

    /// The URL of a path.
    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// The value of a series of the metrics.
    pub fn metric(&self, series: &str) -> f64 {
        let text = self.get("/metrics").text();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {series} in {text}"))
    }

    /// Sends a POST of JSON on a connection of its own, and does not wait for the answer.
    pub fn send(&self, path: &str, body: &Value) -> TcpStream {
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).expect("it listens");
        stream
    }

    /// A bare connection.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }

    /// Sends bytes as they are, on a connection of their own; gives all that comes back.
    pub fn raw(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        let _ = stream.write_all(request); // it may have been refused by then
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer); // a reset is an end too
        String::from_utf8_lossy(&answer).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("log of the server:\n{}", self.log());
        }
    }
}

/// An HTTP client that takes every status for an answer.
pub fn agent() -> Agent {
    let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE));
    config.build().new_agent()
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn of(response: Response<ureq::Body>) -> Answer {
        let (head, mut body) = response.into_parts();
        let body = body.with_config().limit(u64::MAX).read_to_vec().expect("the whole answer");
        Answer { status: head.status.as_u16(), headers: head.headers, body }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("plain text"))
    }

    /// The word for programs in an error.
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().expect("an error of ours").to_string()
    }
}

/// Lines that a process writes, as they come.
struct Lines(Arc<Mutex<Written>>);

#[derive(Default)]
struct Written {
    text: String,
    ended: bool,
}

impl Lines {
    fn of(from: impl Read + Send + 'static) -> Lines {
        let lines = Lines(Arc::default());
        let shared = Arc::clone(&lines.0);
        thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut line = Vec::new();
            while from.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
                let text = String::from_utf8_lossy(&line);
                shared.lock().expect("nobody panics with it").text.push_str(&text);
                line.clear();
            }
            shared.lock().expect("nobody panics with it").ended = true;
        });
        lines
    }

    fn text(&self) -> String {
        self.0.lock().expect("nobody panics with it").text.clone()
    }

    fn wait_for(&self, words: &str) -> Option<String> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let read = self.0.lock().expect("nobody panics with it");
            let found = read.text.lines().find(|line| line.contains(words)).map(String::from);
            if found.is_some() || read.ended {
                return found;
            }
            drop(read);
            thread::sleep(Duration::from_millis(5));
        }
        None
    }
}

/// The first picture of an answer, whichever API it is of.
pub fn drawn(answer: &Answer) -> Vec<u8> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let json = answer.json();
    let found = [&json["data"][0]["b64_json"], &json["images"][0], &json["outputs"][0]["data"][0]];
    let text = found.into_iter().find_map(Value::as_str).expect("an image");
    STANDARD.decode(text).expect("base64")
}
