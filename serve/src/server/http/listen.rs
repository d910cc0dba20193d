//! The accept loop: HTTP/1.1 or HTTP/2, with bounds on connections, headers and time.

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
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
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

/// Maximum number of requests under way on a connection of HTTP/2.
const MAX_STREAMS: u32 = 100;
/// What a client of HTTP/2 sends first.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The version of HTTP that a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 without TLS, by prior knowledge, as gRPC wants it.
    Http2,
}

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
    pub fn start(
        listeners: Vec<TcpListener>,
        protocol: Protocol,
        router: Router,
        limits: Connections,
    ) -> Listening {
        let draining = Arc::new(AtomicBool::new(false));
        let router = router.layer(from_fn_with_state(Arc::clone(&draining), close_if_draining));
        let max = limits.max.min(Semaphore::MAX_PERMITS);
        let places = Arc::new(Semaphore::new(max));
        let (stop, stopped) = oneshot::channel();
        let accepting =
            tokio::spawn(accept(listeners, protocol, router, limits, Arc::clone(&places), stopped));
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
    protocol: Protocol,
    router: Router,
    limits: Connections,
    places: Arc<Semaphore>,
    mut stopped: oneshot::Receiver<()>,
) -> GracefulShutdown {
    let (http1, http2) = (http1(limits), http2(limits));
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
        let service = service.clone();
        match protocol {
            Protocol::Http1 => {
                let stream = TokioIo::new(WriteDeadline::new(stream, limits.write_timeout));
                let connection = watched.watch(http1.serve_connection(stream, service));
                tokio::spawn(attend(place, connection));
            }
            Protocol::Http2 => {
                let (http2, watcher) = (http2.clone(), watched.watcher());
                tokio::spawn(async move {
                    if !begins(&stream, limits.header_timeout).await {
                        return debug!("connection ended: it is no HTTP/2");
                    }
                    let stream = TokioIo::new(WriteDeadline::new(stream, limits.write_timeout));
                    attend(place, watcher.watch(http2.serve_connection(stream, service))).await;
                });
            }
        }
    }
}

fn http1(limits: Connections) -> http1::Builder {
    let mut http1 = http1::Builder::new();
    http1
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_header_size(MAX_HEADER)
        .max_headers(MAX_FIELDS)
        .max_buf_size(BUFFER);
    http1
}

fn http2(limits: Connections) -> http2::Builder<TokioExecutor> {
    let mut http2 = http2::Builder::new(TokioExecutor::new());
    http2
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.header_timeout)
        .keep_alive_timeout(limits.header_timeout)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER as u32)
        .max_send_buf_size(BUFFER);
    http2
}

/// Whether the client begins to speak HTTP/2 within `timeout`; nothing is read of it yet.
async fn begins(stream: &TcpStream, timeout: Duration) -> bool {
    let mut beginning = [0; PREFACE.len()];
    let whole = async {
        loop {
            match stream.peek(&mut beginning).await {
                Ok(n) if n == PREFACE.len() => return beginning == *PREFACE,
                Ok(n) if n > 0 && PREFACE.starts_with(&beginning[..n]) => {
                    tokio::time::sleep(PAUSE).await;
                }
                _ => return false,
            }
        }
    };
    tokio::time::timeout(timeout, whole).await.unwrap_or(false)
}

/// Counts a connection until it ends, and then gives its place away.
async fn attend(
    place: OwnedSemaphorePermit,
    connection: impl Future<Output = Result<(), hyper::Error>>,
) {
    metrics::connection(true);
    if let Err(error) = connection.await {
        debug!("connection ended: {error}");
    }
    metrics::connection(false);
    drop(place);
}
