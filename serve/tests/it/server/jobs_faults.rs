//! Jobs whose scheduler or disk fails.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use hydit_serve::server::jobs::{JobOutcome, JobsError};

use super::harness::PATIENCE;
use super::in_process::{cat, end, task, with_faults};
use super::place::Place;

#[test]
fn a_job_whose_engine_fails_is_tried_once_more() {
    with_faults(async {
        let place = Place::new().await;
        // Not in the warm-up after the restart, when it is not ready.
        let (left, watched) = (Arc::new(AtomicUsize::new(0)), place.scheduler.clone());
        let broken = left.clone();
        let fault = move || {
            let less = |left: usize| left.checked_sub(1);
            if watched.ready().is_ok() && broken.fetch_update(SeqCst, SeqCst, less).is_ok() {
                panic!("the core broke");
            }
        };
        fail::cfg_callback("core", fault).expect("a fault");

        left.store(1, SeqCst);
        let once = place.create(3).await.expect("room");
        let waits = place.create(3).await.expect("room");
        for status in [&once, &waits] {
            assert!(matches!(place.end(status).await, JobOutcome::Done(_)));
        }
        left.store(2, SeqCst);
        let twice = place.create(3).await.expect("room");
        match place.end(&twice).await {
            JobOutcome::Failed { code, message } => {
                assert_eq!(code, "engine_failed");
                let told = "the engine failed: its thread ended; the server's log says why";
                assert_eq!(message, told, "what a panic says is for the log alone");
            }
            other => panic!("{other:?}"),
        }
        let next = place.create(3).await.expect("room");
        assert!(matches!(place.end(&next).await, JobOutcome::Done(_)));
    });
}

#[test]
fn while_an_end_cannot_be_stored_no_other_job_is_begun_or_accepted() {
    with_faults(async {
        let place = Place::new().await;
        // The worker has begun the second job when the end of the first is to be stored; there it
        // waits until the test goes on.
        let (go_on, gate) = mpsc::channel();
        let (steps, gate) = (AtomicUsize::new(0), Mutex::new(gate));
        let second = move || {
            if steps.fetch_add(1, SeqCst) == 5 {
                gate.lock().expect("no panic").recv().expect("it goes on");
            }
        };
        fail::cfg_callback("core", second).expect("a gate");
        let mut jobs = Vec::new();
        for _ in 0..4 {
            jobs.push(place.create(5).await.expect("room"));
        }
        place.until(&jobs[0], |now| now.running).await;
        fail::cfg("store", "return").expect("a fault");
        place.until_stored(false).await;
        assert_eq!(place.now(&jobs[0]).await.record.outcome, None, "only what is stored is told");
        go_on.send(()).expect("it waits");
        let refused = place.create(3).await.expect_err("it could not be kept");
        assert!(matches!(refused, JobsError::Unstored { .. }), "{refused:?}");

        while place.scheduler.waiting() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // The worker has passed the others by when it has drawn what came after them.
        let picture = task("picture", &cat(&place.scheduler, 2));
        end(&mut place.scheduler.submit(picture).expect("room")).await.0.expect("drawn");
        for job in &jobs[2..] {
            let now = place.now(job).await;
            assert_eq!((now.running, now.plan), (false, vec![]), "not drawn");
        }

        fail::cfg("store", "off").expect("no fault");
        for job in &jobs {
            assert!(matches!(place.end(job).await, JobOutcome::Done(_)));
        }
        place.until_stored(true).await;
        place.create(3).await.expect("room");
    });
}

#[test]
fn a_job_whose_end_cannot_be_stored_can_be_cancelled() {
    with_faults(async {
        let place = Place::new().await;
        let job = place.create(2).await.expect("room");
        fail::cfg("store", "return").expect("a fault");
        place.until_stored(false).await;
        fail::cfg("store", "1*off->return").expect("room for a small write");
        place.jobs.remove("anonymous", job.record.id).await.expect("it is stored");
        place.until_stored(true).await;
        assert_eq!(place.now(&job).await.record.outcome, Some(JobOutcome::Cancelled));
    });
}

#[test]
fn the_end_does_not_wait_for_the_disk() {
    with_faults(async {
        let place = Place::new().await;
        let mut jobs = Vec::new();
        for _ in 0..2 {
            jobs.push(place.create(2).await.expect("room"));
        }
        fail::cfg("store", "return").expect("a fault");
        place.until_stored(false).await;
        place.scheduler.drain();
        let idle = tokio::time::timeout(PATIENCE, place.jobs.idle());
        idle.await.expect("it does not wait");
        for job in &jobs {
            let left = place.now(job).await;
            let left = (left.record.outcome, left.running);
            assert_eq!(left, (None, false), "the next process draws it again");
        }
    });
}
