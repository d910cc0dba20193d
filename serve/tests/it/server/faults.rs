//! What becomes of tasks and of readiness when a worker's thread ends or a graph call does not
//! come back.

use std::time::{Duration, Instant};

use hydit_serve::server::scheduler::{Failure, Scheduler, Task, TaskEvent};
use hydit_serve::server::settings::Settings;

use super::in_process::{TestClock, cat, end, rest, settings, start, start_by, task, with_faults};

/// Waits until readiness is as `wanted`.
async fn until_ready(scheduler: &Scheduler, wanted: bool) {
    let start = Instant::now();
    while scheduler.ready().is_ok() != wanted {
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", scheduler.ready());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn a_thread_that_ends_fails_its_orders_at_once_and_is_started_again() {
    with_faults(async {
        let scheduler = start(&Settings { exact: true, ..settings() }).await;
        let request = cat(&scheduler, 4);
        fail::cfg("core", "1*panic(the core broke)").expect("a fault");
        let mut first = scheduler.submit(task("first", &request)).expect("room");
        let mut second = scheduler.submit(task("second", &request)).expect("room");
        match end(&mut first).await.0 {
            // What a panic says is for the log alone.
            Err(Failure::Worker(why)) => assert_eq!(why, "its thread ended"),
            other => panic!("{other:?}"),
        }
        assert_eq!(scheduler.ready(), Err("an engine's thread has ended and is started again"));
        end(&mut second).await.0.expect("one that waited is drawn after the restart");
        assert_eq!(scheduler.ready(), Ok(()));
    });
}

#[test]
fn a_call_that_does_not_come_back_is_noticed_and_over_when_it_does() {
    with_faults(async {
        let scheduler = start(&Settings { exact: true, ..settings() }).await;
        let request = cat(&scheduler, 4);
        fail::cfg("core", "pause").expect("a fault");
        let mut hangs = scheduler.submit(task("hangs", &request)).expect("room");
        let mut waits = scheduler.submit(task("waits", &request)).expect("room");
        until_ready(&scheduler, false).await;
        for handle in [&mut hangs, &mut waits] {
            assert!(
                matches!(end(handle).await, (Err(Failure::Worker(_)), _)),
                "told while it hangs"
            );
        }
        let refused =
            scheduler.submit(task("late", &request)).err().expect("a refusal").to_string();
        assert!(refused.starts_with("a graph call does not come back"), "{refused}");
        fail::remove("core");
        until_ready(&scheduler, true).await;
        end(&mut scheduler.submit(task("next", &request)).expect("room")).await.0.expect("drawn");
    });
}

/// As after SIGSTOP and SIGCONT, a container's pause, or a snapshot of a virtual machine.
#[test]
fn a_process_that_did_not_run_for_an_hour_takes_no_call_for_one_that_hangs() {
    with_faults(async {
        let time = TestClock::new();
        let scheduler = start_by(&Settings { exact: true, ..settings() }, time.clock()).await;
        let request = cat(&scheduler, 4);
        let hour = Duration::from_secs(3600);
        let waits = |id: &str, time: Duration| {
            let deadline = Some(scheduler.clock().now().instant + time);
            scheduler.submit(Task { deadline, ..task(id, &request) }).expect("room")
        };
        fail::cfg("core", "pause").expect("a call that takes long");
        let mut runs = scheduler.submit(task("runs", &request)).expect("room");
        let mut first = waits("first", hour);
        let mut second = waits("second", 2 * hour);
        assert!(matches!(runs.next().await, Some(TaskEvent::Started)));
        time.pass(hour);
        assert_eq!(end(&mut first).await.0, Err(Failure::Expired));
        time.pass(hour);
        // Told at a later look, after the first has seen to the calls.
        assert_eq!(end(&mut second).await.0, Err(Failure::Expired));
        assert_eq!(scheduler.ready(), Ok(()));
        fail::remove("core");
        rest(&mut runs).await.0.expect("drawn");
    });
}
