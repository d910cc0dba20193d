//! The accept loop: HTTP/1.1, bounded in connections, headers and time.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tracing::{debug, warn};

use crate::server::metrics;
use crate::server::settings::Connections;

/// Most bytes of a request's line and header fields.
const MAX_HEADER: usize = 16 << 10;
/// Most header fields.
const MAX_FIELDS: usize = 64;
/// Bytes that a connection reads or writes ahead.
const BUFFER: usize = 64 << 10;
/// Before the next try, when the system has no connection to give.
const PAUSE: Duration = Duration::from_millis(50);

/// The connections that are still open after the listener was closed.
pub struct Open {
    watched: GracefulShutdown,
    places: Arc<Semaphore>,
    max: usize,
}

/// Accepts connections until `stop`, then closes the listener.
pub async fn accept(
    listener: TcpListener,
    router: Router,
    limits: Connections,
    stop: impl Future<Output = ()>,
) -> Open {
    let mut protocol = http1::Builder::new();
    protocol
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_header_size(MAX_HEADER)
        .max_headers(MAX_FIELDS)
        .max_buf_size(BUFFER);
    let service = TowerToHyperService::new(router);
    let watched = GracefulShutdown::new();
    let max = limits.max.min(Semaphore::MAX_PERMITS);
    let places = Arc::new(Semaphore::new(max));
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => return Open { watched, places, max },
            accepted = listener.accept() => accepted,
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
        let stream = TokioIo::new(Box::pin(within(stream, limits.write_timeout)));
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

/// A stream whose writes fail when nothing goes out for `timeout`.
fn within(stream: TcpStream, timeout: Duration) -> TimeoutStream<TcpStream> {
    if let Err(error) = stream.set_nodelay(true) {
        debug!("small answers may wait: {error}");
    }
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(timeout));
    stream
}

impl Open {
    /// Closes each connection when its request is answered, those without a request at once.
    pub async fn close(self) {
        self.watched.shutdown().await;
    }

    /// How to ask, any time, how many are open.
    pub fn counter(&self) -> impl Fn() -> usize + use<> {
        let (places, max) = (Arc::clone(&self.places), self.max);
        move || max - places.available_permits()
    }
}
