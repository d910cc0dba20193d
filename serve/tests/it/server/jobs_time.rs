//! How long jobs are kept and wanted, by a clock that the tests move and set.

use std::time::Duration;

use hydit_serve::server::jobs::{JobOutcome, JobSnapshot, JobsError};
use hydit_serve::server::settings::{Keep, Settings};

use super::harness::PATIENCE;
use super::in_process::{TestClock, with_faults};
use super::place::Place;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: i64 = 24 * 3600;

fn keeping(bytes: u64) -> Settings {
    Settings { keep: Keep { age: HOUR, bytes }, ..Settings::default() }
}

async fn place(time: &TestClock) -> Place {
    Place::open(keeping(1 << 30), time.clock()).await
}

/// A job that has ended. With its end the store is swept.
async fn done(place: &Place) -> JobSnapshot {
    let job = place.create(1).await.expect("room");
    assert!(matches!(place.end(&job).await, JobOutcome::Done(_)));
    place.now(&job).await
}

/// Waits until `job` is no longer kept.
async fn gone(place: &Place, job: &JobSnapshot) {
    let gone = async {
        while place.jobs.get("anonymous", job.record.id).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("it goes");
    let error = place.jobs.get("anonymous", job.record.id).await.expect_err("it is gone");
    assert!(matches!(error, JobsError::Unknown { .. }), "{error:?}");
}

/// Whether the image of `job` can be fetched.
async fn has_image(place: &Place, job: &JobSnapshot) -> bool {
    match place.jobs.image("anonymous", job.record.id, 0).await {
        Ok(_) => true,
        Err(JobsError::Gone { .. }) => false,
        Err(error) => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn jobs_go_when_they_are_too_old() {
    let time = TestClock::new();
    let place = place(&time).await;
    let old = done(&place).await;
    time.pass(HOUR / 2);
    let young = done(&place).await;
    time.pass(HOUR / 2);
    let last = done(&place).await;
    gone(&place, &old).await;
    for kept in [&young, &last] {
        assert!(matches!(place.now(kept).await.record.outcome, Some(JobOutcome::Done(_))));
    }
}

#[tokio::test]
async fn a_clock_that_is_set_forward_makes_no_job_older() {
    let time = TestClock::new();
    let place = place(&time).await;
    let before = done(&place).await;
    time.set(DAY);
    let after = done(&place).await;
    place.jobs.idle().await; // and so the store is swept
    for kept in [&before, &after] {
        let record = place.now(kept).await.record;
        assert!(record.finished.expect("it has ended").abs_diff(time.clock().unix()) < 1000);
    }
    time.pass(HOUR);
    done(&place).await;
    gone(&place, &before).await;
    gone(&place, &after).await;
}

#[tokio::test]
async fn a_clock_that_is_set_back_makes_no_job_younger_or_older_than_another() {
    let time = TestClock::new();
    let place = Place::open(keeping(1), time.clock()).await;
    let before = done(&place).await;
    time.set(-DAY);
    let after = done(&place).await;
    let dropped = async {
        while has_image(&place, &before).await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, dropped).await.expect("the older loses its image");
    assert!(has_image(&place, &after).await, "the newest keeps its own");
    let record = place.now(&before).await.record;
    let times = [record.created, record.started.expect("a time"), record.finished.expect("a time")];
    assert!(times.is_sorted() && times[2] <= time.clock().unix(), "{times:?}");
    time.pass(HOUR);
    done(&place).await;
    gone(&place, &before).await;
}

#[test]
fn a_job_is_not_wanted_longer_after_a_restart_with_a_clock_that_was_set_back() {
    with_faults(async {
        let time = TestClock::new();
        let place = place(&time).await;
        fail::cfg("core", "pause").expect("a worker that does not come on");
        let first = place.create(5).await.expect("room");
        let job = place.create_within(5, Some(HOUR)).await.expect("room");
        place.until(&first, |now| now.running).await;
        let pause = || fail::cfg("core", "pause").expect("a worker that does not come on");
        let restarted = place.restart(keeping(1 << 30), time.clock(), pause);
        time.set(-DAY);
        fail::remove("core");
        let place = restarted.await;
        time.pass(HOUR);
        match place.end(&job).await {
            JobOutcome::Failed { code, .. } => assert_eq!(code, "deadline_exceeded"),
            other => panic!("{other:?}"),
        }
        fail::remove("core");
    });
}
