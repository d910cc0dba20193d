//! Work beside the tokio tasks that serve connections.

use std::panic::resume_unwind;

use tokio::task::{JoinHandle, spawn, spawn_blocking};
use tracing::Span;

/// Runs work that would block other tokio tasks on a thread for that, within the current log span.
pub async fn blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    let span = Span::current();
    end(spawn_blocking(move || span.in_scope(work))).await
}

/// Runs `work` to its end even if the caller is dropped meanwhile.
pub async fn whole<R: Send + 'static>(work: impl Future<Output = R> + Send + 'static) -> R {
    end(spawn(work)).await
}

async fn end<R>(task: JoinHandle<R>) -> R {
    match task.await {
        Ok(out) => out,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The runtime is ending: nobody waits for the answer any more.
            Err(_) => std::future::pending().await,
        },
    }
}
