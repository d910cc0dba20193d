//! The server with the emoji model in the process of the test: its scheduler alone, or all of it.

use std::any::type_name;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use fail::FailScenario;
use hydit::artifacts::Artifacts;
use hydit::runtime::RuntimeOptions;
use hydit::{CheckedRequest, Request};
use hydit_serve::server::scheduler::{Failure, Scheduler, Task, TaskEvent, TaskHandle, TaskOutput};
use hydit_serve::server::settings::Settings;
use hydit_serve::server::{App, Clock, Listeners, ServeError, Time, serve};
use hydit_testing::{emoji, process::alone_as};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};

use super::harness::{Answer, agent};

/// Settings with the small model.
pub fn settings() -> Settings {
    Settings {
        models: vec![("emoji".to_string(), emoji::artifacts())],
        runtime: RuntimeOptions { threads: Some(2), ..RuntimeOptions::default() },
        ..Settings::default()
    }
}

/// A scheduler that is warm.
pub async fn start(settings: &Settings) -> Arc<Scheduler> {
    start_by(settings, Clock::system()).await
}

/// As [`start`], by this clock.
pub async fn start_by(settings: &Settings, clock: Clock) -> Arc<Scheduler> {
    let scheduler = Scheduler::start(settings, clock).expect("it starts");
    scheduler.started().await.expect("it warms up");
    scheduler
}

/// A clock that a test moves.
#[derive(Clone)]
pub struct TestClock(Arc<Mutex<Time>>);

impl TestClock {
    pub fn new() -> TestClock {
        TestClock(Arc::new(Mutex::new(Clock::system().now())))
    }

    /// As the server reads it.
    pub fn clock(&self) -> Clock {
        let time = self.0.clone();
        Clock::new(move || *time.lock().expect("nobody panics with it"))
    }

    /// Lets time pass.
    pub fn pass(&self, time: Duration) {
        let mut now = self.0.lock().expect("nobody panics with it");
        now.instant += time;
        now.unix += time.as_millis() as u64;
    }

    /// Sets the system's clock, by so many seconds forward or back.
    pub fn set(&self, seconds: i64) {
        let mut now = self.0.lock().expect("nobody panics with it");
        now.unix = now.unix.saturating_add_signed(1000 * seconds);
    }
}

/// Stops tokio's clock: it moves by [`tokio::time::advance`] alone. It would move by itself when
/// every task waits, but not while a blocking task runs, and one does as long as this lives.
pub struct StoppedClock(#[expect(dead_code, reason = "the task ends with it")] mpsc::Sender<()>);

impl StoppedClock {
    /// To be called in a tokio runtime of one thread.
    pub fn stop() -> StoppedClock {
        tokio::time::pause();
        let (lives, ended) = mpsc::channel();
        spawn_blocking(move || ended.recv());
        StoppedClock(lives)
    }
}

/// Does what blocks, such as a client's work, while the server goes on.
pub async fn beside<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    spawn_blocking(work).await.expect("no panic")
}

/// A whole server, warm, on tokio's clock.
pub struct Served {
    pub address: SocketAddr,
    shutdown: oneshot::Sender<()>,
    server: JoinHandle<Result<(), ServeError>>,
}

impl Served {
    pub async fn start(settings: Settings) -> Served {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = Settings { data_dir: folder.path().to_path_buf(), ..settings };
        let app = App::open(settings, Clock::system()).expect("it opens");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (shutdown, told) = oneshot::channel();
        let scheduler = app.scheduler.clone();
        let server = tokio::spawn(async move {
            let listeners = Listeners { http: vec![listener], ..Listeners::default() };
            let ended = serve(listeners, app, async { told.await.expect("it is told") }).await;
            drop(folder); // a server that drains still writes in it
            ended
        });
        scheduler.started().await.expect("it warms up");
        Served { address, shutdown, server }
    }

    /// The URL of a path.
    pub fn at(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Answer {
        let url = self.at(path);
        beside(move || Answer::of(agent().get(url).call().expect("it answers"))).await
    }

    /// Tells it to end. What it returns then comes from the task.
    pub fn shut_down(self) -> JoinHandle<Result<(), ServeError>> {
        self.shutdown.send(()).expect("it listens");
        self.server
    }
}

/// `request`, checked against the small model.
pub fn checked(request: &Request) -> CheckedRequest {
    let artifacts = Artifacts::open(&emoji::artifacts()).expect("an export");
    request.check(&artifacts).expect("a good request")
}

pub fn task(id: &str, request: &Request) -> Task {
    Task {
        id: id.to_string(),
        model: "emoji".to_string(),
        request: checked(request),
        client: "anonymous".into(),
        deadline: None,
        preview_every: None,
        partial_images: 0,
        no_batching: false,
    }
}

/// The end of an task, and the steps it took, which are told in task from the first.
pub async fn end(handle: &mut TaskHandle) -> (Result<TaskOutput, Failure>, usize) {
    ends(handle, Some(0)).await
}

/// As [`end`], of an task some of whose events were read, and the steps that were left.
pub async fn rest(handle: &mut TaskHandle) -> (Result<TaskOutput, Failure>, usize) {
    ends(handle, None).await
}

async fn ends(
    handle: &mut TaskHandle,
    first: Option<usize>,
) -> (Result<TaskOutput, Failure>, usize) {
    let mut steps = 0;
    while let Some(event) = handle.next().await {
        match event {
            TaskEvent::Step { step, .. } => {
                assert!(first.is_none_or(|first| step.index == first + steps));
                steps += 1;
            }
            TaskEvent::Done(drawn) => return (Ok(*drawn), steps),
            TaskEvent::Failed(failure) => return (Err(failure), steps),
            _ => {}
        }
    }
    panic!("the last event is an end");
}

pub fn cat(scheduler: &Scheduler, steps: usize) -> Request {
    let (_, artifacts) = scheduler.model(None).expect("the model");
    emoji::cat(&artifacts.manifest, steps)
}

/// Runs a test that sets points of failure. They belong to the process, so it has one of its own.
pub fn with_faults<F: Future<Output = ()>>(test: F) {
    alone_as(type_name::<F>(), || {
        let scenario = FailScenario::setup();
        let runtime = tokio::runtime::Runtime::new().expect("threads");
        runtime.block_on(test);
        scenario.teardown();
    });
}
