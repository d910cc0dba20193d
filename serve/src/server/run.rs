//! The server as a process: its address, signals and standard output.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use hydit::util::error_chain;
use hydit_terminal::{OutputError, say};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tracing::{info, warn};

use super::app::App;
use super::clock::Clock;
use super::error::ServeError;
use super::scheduler::Scheduler;
use super::serve::{Listeners, serve};
use super::settings::Settings;
use super::signals;

/// Serves until SIGTERM, SIGINT or SIGHUP, as [`serve`] does; a second signal ends the process at
/// once. What was cut off may still be computing when this returns: [`leave`](super::leave) then.
///
/// Standard output gets a line `listening on http://...` or `grpc://...` for each address, and `ready` when the
/// models are.
///
/// # Errors
/// When a model, the data folder or the address cannot be used; when something had to be cut off.
pub fn run(settings: Settings) -> Result<(), ServeError> {
    #[cfg(feature = "failpoints")]
    let _faults = fail::FailScenario::setup(); // those of the variable FAILPOINTS
    allow_open_files();
    let runtime = tokio::runtime::Runtime::new().map_err(ServeError::Runtime)?;
    let ended = runtime.block_on(live(settings));
    runtime.shutdown_background();
    ended
}

async fn live(settings: Settings) -> Result<(), ServeError> {
    let signal = signals::take_over().map_err(ServeError::Runtime)?;
    let http = bind("listen", &settings.listen).await?;
    let grpc = bind("grpc-listen", &settings.grpc_listen).await?;
    let app = App::open(settings, Clock::system())?;
    for (address, _) in &http {
        tell(&format!("listening on http://{address}"));
    }
    for (address, _) in &grpc {
        tell(&format!("listening on grpc://{address}"));
    }
    let [http, grpc] =
        [http, grpc].map(|bound| bound.into_iter().map(|(_, listener)| listener).collect());
    let listeners = Listeners { http, grpc };

    let shutdown = async {
        let signal = signal.await.expect("the task that tells it lives as long as the process");
        info!("{} received: draining", signal.name());
    };
    let failed_start = announce(&app.scheduler);
    tokio::select! {
        ended = serve(listeners, app.clone(), shutdown) => ended,
        error = failed_start => Err(error),
    }
}

/// Listens on all `addresses` of a host, which `flag` names, and tells which they are. Those that this machine does not
/// have, such as the one of IPv6 in many containers, are passed over if there is another.
async fn bind(
    flag: &'static str,
    addresses: &[SocketAddr],
) -> Result<Vec<(SocketAddr, TcpListener)>, ServeError> {
    let mut bound: Vec<(SocketAddr, TcpListener)> = Vec::new();
    let mut missing = None;
    for &(mut address) in addresses {
        if let (0, Some((first, _))) = (address.port(), bound.first()) {
            address.set_port(first.port());
        }
        match listen(address).await {
            Ok(listener) => bound.push(listener),
            Err(source) if source.kind() == ErrorKind::AddrNotAvailable => {
                warn!("--{flag}: this machine does not have the address {}", address.ip());
                missing = Some(ServeError::Listen { flag, address, source });
            }
            Err(source) => return Err(ServeError::Listen { flag, address, source }),
        }
    }
    match missing {
        Some(error) if bound.is_empty() => Err(error),
        _ => Ok(bound),
    }
}

async fn listen(address: SocketAddr) -> io::Result<(SocketAddr, TcpListener)> {
    let listener = TcpListener::bind(address).await?;
    Ok((listener.local_addr()?, listener))
}

/// Says when the models are loaded and warm. Only returns when they cannot be.
async fn announce(scheduler: &Scheduler) -> ServeError {
    match scheduler.started().await {
        Ok(()) => tell("ready"),
        Err(why) => return ServeError::Start(why),
    }
    std::future::pending().await
}

/// Writes a line to standard output, for scripts; nobody has to read it.
fn tell(line: &str) {
    if let Err(error @ OutputError::Write(_)) = say(line) {
        warn!("{}: {line:?} is lost", error_chain(&error));
    }
}

/// Raises the limit of open files to the system's: every connection is one.
fn allow_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        warn!("the number of open files stays as it is: {error}");
    }
}
