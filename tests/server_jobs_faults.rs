//! Jobs whose engine fails while they are drawn.

mod emoji;
mod engine;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use fail::FailScenario;
use hydit::server::http::{Format, Output};
use hydit::server::jobs::{Asked, End, Jobs, Status};
use hydit::server::settings::Settings;

use engine::{cat, settings, start};

async fn ended(jobs: &Arc<Jobs>, status: &Status) -> End {
    let begun = Instant::now();
    loop {
        let now = jobs.get("anonymous", status.record.id).await.expect("it is there");
        if let Some(end) = now.record.end {
            return end;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{now:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Points of failure are the process's: one test has them.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_engine_fails_is_tried_once_more() {
    let scenario = FailScenario::setup();
    let artifacts = emoji::artifacts(1);
    let folder = tempfile::tempdir().expect("a folder");
    let settings =
        Settings { data_dir: folder.path().join("data"), exact: true, ..settings(&artifacts) };
    let engine = start(&settings).await;
    let jobs = Jobs::open(&settings, engine.clone()).expect("it opens");
    jobs.restore().expect("nothing is there");
    let asked = || {
        let (name, model) = engine.model(None).expect("the model");
        let output = Output { format: Format::Png, quality: 100, metadata: false };
        Asked::new(name, model, cat(&engine, 3), output)
    };
    let create = async || {
        while engine.ready().is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let (status, fresh) = jobs.create("anonymous".into(), asked(), None).await.expect("room");
        assert!(fresh);
        status
    };

    // Not in the warm-up after the restart, when it is not ready.
    let (left, watched) = (Arc::new(AtomicUsize::new(0)), engine.clone());
    let broken = left.clone();
    let fault = move || {
        let less = |left: usize| left.checked_sub(1);
        if watched.ready().is_ok() && broken.fetch_update(SeqCst, SeqCst, less).is_ok() {
            panic!("the core broke");
        }
    };
    fail::cfg_callback("core", fault).expect("a fault");

    left.store(1, SeqCst);
    let once = create().await;
    let waits = create().await;
    for status in [&once, &waits] {
        assert!(matches!(ended(&jobs, status).await, End::Done(_)));
    }
    left.store(2, SeqCst);
    let twice = create().await;
    match ended(&jobs, &twice).await {
        End::Failed { code, message } => {
            assert_eq!(code, "engine_failed");
            assert!(message.contains("the core broke"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(ended(&jobs, &create().await).await, End::Done(_)));
    scenario.teardown();
}
