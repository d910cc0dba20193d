//! Why a server did not start, or did not end well.

use std::net::SocketAddr;
use std::time::Duration;

use super::jobs::JobsError;

/// What [`run`](super::run) can fail with.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum ServeError {
    #[error("--listen {address}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("threads and signals of the server")]
    Runtime(#[source] std::io::Error),
    #[error(transparent)]
    Model(#[from] hydit::Error),
    #[error("{0}")]
    Start(String),
    #[error(transparent)]
    Jobs(#[from] JobsError),
    #[error(
        "cut off after --drain-timeout {} ms: {connections} connections and what was drawn",
        timeout.as_millis()
    )]
    CutOff { timeout: Duration, connections: usize },
}
