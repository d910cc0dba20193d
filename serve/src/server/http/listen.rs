//! The accept loop: HTTP/1.1, with bounds on connections, headers and time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use futures_util::future::select_all;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use super::write_deadline::WriteDeadline;
use crate::server::metrics;
use crate::server::settings::Connections;

/// Maximum bytes of a request's line and header fields.
const MAX_HEADER: usize = 16 << 10;
/// Maximum number of header fields.
const MAX_FIELDS: usize = 64;
/// Maximum bytes that a connection reads or writes ahead.
const BUFFER: usize = 64 << 10;
/// Time until the next try when the system cannot accept a connection.
const PAUSE: Duration = Duration::from_millis(50);

/// The listeners and their connections, in a tokio task of their own.
pub struct Listening {
    stop: oneshot::Sender<()>,
    accepting: JoinHandle<GracefulShutdown>,
    draining: Arc<AtomicBool>,
    places: Arc<Semaphore>,
    max: usize,
}

impl Listening {
    /// Accepts connections from now on. To be called in a tokio runtime.
    pub fn start(listeners: Vec<TcpListener>, router: Router, limits: Connections) -> Listening {
        let draining = Arc::new(AtomicBool::new(false));
        let router = router.layer(from_fn_with_state(Arc::clone(&draining), close_if_draining));
        let max = limits.max.min(Semaphore::MAX_PERMITS);
        let places = Arc::new(Semaphore::new(max));
        let (stop, stopped) = oneshot::channel();
        let accepting =
            tokio::spawn(accept(listeners, router, limits, Arc::clone(&places), stopped));
        Listening { stop, accepting, draining, places, max }
    }

    /// Makes every answer from now on the last of its connection; new connections are still
    /// accepted.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Closes the listeners, each connection when its request is answered, and those without a
    /// request at once.
    pub async fn close(self) {
        drop(self.stop);
        let watched = self.accepting.await.expect("the accept loop does not panic");
        watched.shutdown().await;
    }

    /// A function that tells at any time how many connections are open.
    pub fn counter(&self) -> impl Fn() -> usize + use<> {
        let (places, max) = (Arc::clone(&self.places), self.max);
        move || max - places.available_permits()
    }
}

async fn close_if_draining(
    State(draining): State<Arc<AtomicBool>>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = next.run(request).await;
    if draining.load(Ordering::Relaxed) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The next connection to any of `listeners`.
async fn first(listeners: &[TcpListener]) -> io::Result<(TcpStream, SocketAddr)> {
    select_all(listeners.iter().map(|listener| Box::pin(listener.accept()))).await.0
}

/// Accepts connections until `stopped`, then closes the listeners and returns the connections.
async fn accept(
    listeners: Vec<TcpListener>,
    router: Router,
    limits: Connections,
    places: Arc<Semaphore>,
    mut stopped: oneshot::Receiver<()>,
) -> GracefulShutdown {
    let mut protocol = http1::Builder::new();
    protocol
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_header_size(MAX_HEADER)
        .max_headers(MAX_FIELDS)
        .max_buf_size(BUFFER);
    let service = TowerToHyperService::new(router);
    let watched = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = &mut stopped => return watched,
            accepted = first(&listeners) => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!("no connection accepted: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            debug!("one connection too many, closed");
            continue;
        };
        if let Err(error) = stream.set_nodelay(true) {
            debug!("small answers may wait: {error}");
        }
        let stream = TokioIo::new(WriteDeadline::new(stream, limits.write_timeout));
        let connection = protocol.serve_connection(stream, service.clone());
        let connection = watched.watch(connection);
        tokio::spawn(async move {
            metrics::connection(true);
            if let Err(error) = connection.await {
                debug!("connection ended: {error}");
            }
            metrics::connection(false);
            drop(place);
        });
    }
}
