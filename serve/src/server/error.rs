//! Why a server did not start, or did not end well.

use std::net::SocketAddr;
use std::time::Duration;

use super::jobs::JobsError;

/// What `run` and `serve` can fail with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("--{flag} {address}: cannot listen on this address")]
    Listen {
        /// Name of the flag.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Threads or signal handlers of the process cannot be set up.
    #[error("cannot set up the server's threads and signals")]
    Runtime(#[source] std::io::Error),
    /// A model cannot be used.
    #[error(transparent)]
    Model(#[from] hydit::Error),
    /// A worker could not load its models or warm up.
    #[error("{0}")]
    Start(String),
    /// The jobs cannot be used.
    #[error(transparent)]
    Jobs(#[from] JobsError),
    /// The drain timeout passed before everything had ended.
    #[error(
        "cut off after --drain-timeout {} ms: {connections} connections and what was drawn",
        timeout.as_millis()
    )]
    CutOff {
        /// The drain timeout.
        timeout: Duration,
        /// Number of open connections.
        connections: usize,
    },
}
