//! The server's engine with the emoji model, without HTTP.
#![allow(dead_code)] // each test file uses a part

use std::sync::Arc;

use hydit::Request;
use hydit::runtime::RuntimeOptions;
use hydit_serve::server::engine::{Drawn, Engine, Event, Failure, Order, Ticket};
use hydit_serve::server::settings::Settings;
use tempfile::TempDir;

use crate::emoji;

pub fn settings(artifacts: &TempDir) -> Settings {
    Settings {
        models: vec![("emoji".to_string(), artifacts.path().to_path_buf())],
        runtime: RuntimeOptions { threads: Some(2), ..RuntimeOptions::default() },
        ..Settings::default()
    }
}

/// An engine that is warm.
pub async fn start(settings: &Settings) -> Arc<Engine> {
    let engine = Engine::start(settings).expect("it starts");
    engine.started().await.expect("it warms up");
    engine
}

pub fn order(id: &str, request: &Request) -> Order {
    Order {
        id: id.to_string(),
        model: "emoji".to_string(),
        request: request.clone(),
        client: "anonymous".into(),
        deadline: None,
        preview_every: None,
        partials: 0,
        alone: false,
    }
}

/// The end of an order, and the steps it took, which are told in order from the first.
pub async fn end(ticket: &mut Ticket) -> (Result<Drawn, Failure>, usize) {
    ends(ticket, Some(0)).await
}

/// As [`end`], of an order some of whose events were read, and the steps that were left.
pub async fn rest(ticket: &mut Ticket) -> (Result<Drawn, Failure>, usize) {
    ends(ticket, None).await
}

async fn ends(ticket: &mut Ticket, first: Option<usize>) -> (Result<Drawn, Failure>, usize) {
    let mut steps = 0;
    while let Some(event) = ticket.next().await {
        match event {
            Event::Step(step) => {
                assert!(first.is_none_or(|first| step.index == first + steps));
                steps += 1;
            }
            Event::Done(drawn) => return (Ok(*drawn), steps),
            Event::Failed(failure) => return (Err(failure), steps),
            _ => {}
        }
    }
    panic!("the last event is an end");
}

pub fn cat(engine: &Engine, steps: usize) -> Request {
    let (_, artifacts) = engine.model(None).expect("the model");
    emoji::cat(&artifacts.manifest, steps)
}
