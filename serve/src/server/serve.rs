//! The life of a server: accept, draw, drain.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::TcpListener;
use tracing::{info, warn};

use super::app::App;
use super::error::ServeError;
use super::http::{Listening, Protocol, grpc_router, router};
use super::metrics;

/// Time between two upkeeps of the metrics.
const UPKEEP: Duration = Duration::from_secs(5);
/// Time that work gets to end by itself when it is cut off.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// Where a server listens.
#[derive(Default)]
pub struct Listeners {
    /// For HTTP/1.1.
    pub http: Vec<TcpListener>,
    /// For gRPC.
    pub grpc: Vec<TcpListener>,
}

/// Serves on all `listeners` until `shutdown` is ready. Then no new tasks are accepted and those that
/// run are finished, within the drain timeout of the settings.
///
/// # Errors
/// [`ServeError::CutOff`] when something was cut off.
pub async fn serve(
    listeners: Listeners,
    app: Arc<App>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let upkeep = tokio::spawn(async {
        loop {
            tokio::time::sleep(UPKEEP).await;
            metrics::tidy();
        }
    });
    let limits = app.settings.connections;
    let Listeners { http, grpc } = listeners;
    let listening = [
        (http, Protocol::Http1, router(Arc::clone(&app))),
        (grpc, Protocol::Http2, grpc_router(Arc::clone(&app))),
    ];
    let listening = listening.into_iter().filter(|(listeners, ..)| !listeners.is_empty());
    let listening = listening
        .map(|(listeners, protocol, router)| Listening::start(listeners, protocol, router, limits))
        .collect();
    shutdown.await;
    let ended = drain(&app, listening).await;
    upkeep.abort();
    ended
}

/// Accepts no more tasks, and waits first for those that run, during which clients may look after
/// their jobs, then for open answers; at most for the drain timeout.
async fn drain(app: &App, listening: Vec<Listening>) -> Result<(), ServeError> {
    listening.iter().for_each(Listening::drain);
    app.scheduler.drain();
    let counters: Vec<_> = listening.iter().map(Listening::counter).collect();
    let mut ended = pin!(async {
        tokio::join!(app.scheduler.idle(), app.jobs.idle());
        join_all(listening.into_iter().map(Listening::close)).await;
    });
    let timeout = app.settings.drain_timeout;
    if tokio::time::timeout(timeout, &mut ended).await.is_ok() {
        info!("all requests have ended");
        return Ok(());
    }
    let connections = counters.iter().map(|open| open()).sum();
    warn!(connections, "the time to drain is over: what runs is cut off");
    app.scheduler.abort();
    let _ = tokio::time::timeout(LAST_MOMENT, ended).await;
    Err(ServeError::CutOff { timeout, connections })
}
