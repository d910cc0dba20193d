//! The server's scheduler with the emoji model, without HTTP.

use std::any::type_name;
use std::sync::Arc;

use fail::FailScenario;
use hydit::artifacts::Artifacts;
use hydit::runtime::RuntimeOptions;
use hydit::{CheckedRequest, Request};
use hydit_serve::server::scheduler::{Failure, Scheduler, Task, TaskEvent, TaskHandle, TaskOutput};
use hydit_serve::server::settings::Settings;
use hydit_testing::{emoji, process::alone_as};

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
    let scheduler = Scheduler::start(settings).expect("it starts");
    scheduler.started().await.expect("it warms up");
    scheduler
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
            TaskEvent::Step(step) => {
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
