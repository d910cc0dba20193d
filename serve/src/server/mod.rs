//! The HTTP server: [`run`] is its whole life. Read this first.
//!
//! [`settings`] says what was asked for. [`scheduler`] draws: a bounded queue, and threads that own the
//! models. [`jobs`] are requests that outlive their connection and the process. [`http`] is what
//! clients see: OpenAI's images API, jobs, the Open Inference Protocol, and what operators need.

mod error;
pub mod http;
pub mod jobs;
pub mod log;
pub mod metrics;
pub mod scheduler;
pub mod settings;
mod signals;
mod spawn;

use std::io::Write;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tracing::{info, warn};

use http::App;
use http::listen::Listening;
use jobs::Jobs;
use scheduler::Scheduler;
use settings::Settings;
use signals::Signals;

pub use error::ServeError;

/// Between two sums of what the metrics were told.
const TIDY: Duration = Duration::from_secs(5);
/// For what was cut off to end by itself.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// Serves until SIGTERM or SIGINT. Then no new orders are taken, what runs may end, and the time for
/// that is bounded; a second signal ends the process at once.
///
/// Standard output gets two lines: `listening on http://...`, and `ready` when the models are.
///
/// # Errors
/// When a model, the data folder or the address cannot be used; when something had to be cut off.
pub fn run(settings: Settings) -> Result<(), ServeError> {
    let _faults = fail::FailScenario::setup(); // those of FAILPOINTS, in builds for tests
    allow_open_files();
    metrics::start();
    let runtime = tokio::runtime::Runtime::new().map_err(ServeError::Runtime)?;
    let ended = runtime.block_on(live(settings));
    runtime.shutdown_background();
    ended
}

async fn live(settings: Settings) -> Result<(), ServeError> {
    let mut signals = Signals::listen().map_err(ServeError::Runtime)?;
    let failed = |source| ServeError::Listen { address: settings.listen, source };
    let listener = TcpListener::bind(settings.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let scheduler = Scheduler::start(&settings)?;
    let jobs = Jobs::open(&settings, Arc::clone(&scheduler))?;
    jobs.restore()?;
    let (limits, drain_timeout) = (settings.connections, settings.drain_timeout);
    let app = App { settings, scheduler: Arc::clone(&scheduler), jobs: Arc::clone(&jobs) };
    let router = http::router(Arc::new(app));

    say(&format!("listening on http://{address}"));
    tokio::spawn(tidy());
    let listening = Listening::start(listener, router, limits);

    let signal = tokio::select! {
        signal = signals.next() => signal,
        failed = start(&scheduler) => {
            failed?;
            signals.next().await
        }
    };
    info!("{} received: draining", signal.name());
    tokio::spawn(signals.quit_at_next());
    drain(&scheduler, &jobs, listening, drain_timeout).await
}

/// Takes no more orders, and waits for what runs, during which clients may look after their jobs, then
/// for open answers; at most for `timeout`.
async fn drain(
    scheduler: &Scheduler,
    jobs: &Jobs,
    listening: Listening,
    timeout: Duration,
) -> Result<(), ServeError> {
    listening.drain();
    scheduler.drain();
    let connections = listening.counter();
    let mut ended = pin!(async {
        tokio::join!(scheduler.idle(), jobs.idle());
        listening.close().await;
    });
    if tokio::time::timeout(timeout, &mut ended).await.is_ok() {
        info!("all requests have ended");
        return Ok(());
    }
    let connections = connections();
    warn!(connections, "the time to drain is over: what runs is cut off");
    scheduler.abort();
    let _ = tokio::time::timeout(LAST_MOMENT, ended).await;
    Err(ServeError::CutOff { timeout, connections })
}

/// Says when the models are loaded and warm.
async fn start(scheduler: &Scheduler) -> Result<(), ServeError> {
    scheduler.started().await.map_err(ServeError::Start)?;
    say("ready");
    Ok(())
}

async fn tidy() {
    loop {
        tokio::time::sleep(TIDY).await;
        metrics::tidy();
    }
}

/// A line on standard output, for scripts; nobody has to read it.
fn say(line: &str) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Every connection is an open file: as many as the system lets this process have.
fn allow_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        warn!("the number of open files stays as it is: {error}");
    }
}
