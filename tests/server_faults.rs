//! What becomes of orders and of readiness when the engine's thread ends or a graph call does not
//! come back.

mod emoji;
mod engine;

use std::time::{Duration, Instant};

use fail::FailScenario;
use hydit_serve::server::engine::{Engine, Failure};
use hydit_serve::server::settings::Settings;

use engine::{cat, end, order, settings, start};

/// Waits until readiness is as `wanted`.
async fn until_ready(engine: &Engine, wanted: bool) {
    let start = Instant::now();
    while engine.ready().is_ok() != wanted {
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", engine.ready());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Points of failure are the process's: one test has them at a time.
#[tokio::test(flavor = "multi_thread")]
async fn a_thread_that_ends_fails_its_orders_at_once_and_is_started_again() {
    let scenario = FailScenario::setup();
    let artifacts = emoji::artifacts(1);
    let engine = start(&Settings { exact: true, ..settings(&artifacts) }).await;
    let request = cat(&engine, 4);
    fail::cfg("core", "1*panic(the core broke)").expect("a fault");
    let mut first = engine.submit(order("first", &request)).expect("room");
    let mut second = engine.submit(order("second", &request)).expect("room");
    match end(&mut first).await.0 {
        Err(Failure::Engine(why)) => assert!(why.contains("the core broke"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(engine.ready(), Err("an engine's thread has ended and is started again"));
    end(&mut second).await.0.expect("one that waited is drawn after the restart");
    assert_eq!(engine.ready(), Ok(()));
    scenario.teardown();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_does_not_come_back_is_noticed_and_over_when_it_does() {
    let scenario = FailScenario::setup();
    let artifacts = emoji::artifacts(1);
    let engine = start(&Settings { exact: true, ..settings(&artifacts) }).await;
    let request = cat(&engine, 4);
    fail::cfg("core", "pause").expect("a fault");
    let mut hangs = engine.submit(order("hangs", &request)).expect("room");
    let mut waits = engine.submit(order("waits", &request)).expect("room");
    until_ready(&engine, false).await;
    for ticket in [&mut hangs, &mut waits] {
        assert!(matches!(end(ticket).await, (Err(Failure::Engine(_)), _)), "told while it hangs");
    }
    let refused = engine.submit(order("late", &request)).err().expect("a refusal").to_string();
    assert!(refused.starts_with("a graph call does not come back"), "{refused}");
    fail::remove("core");
    until_ready(&engine, true).await;
    end(&mut engine.submit(order("next", &request)).expect("room")).await.0.expect("drawn");
    scenario.teardown();
}
