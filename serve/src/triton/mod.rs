//! Pictures drawn by Tritons on other machines, from repositories of `hydit-export triton`: [`Hosts`].
//!
//! A picture is one call of one host, never a step's activations: this machine makes the tables (tokens,
//! noise, schedule), and takes the first answer. A host that goes away has its pictures drawn again by
//! another, with the same bytes where the hosts are alike, since all that is random is in the tables.

mod address;
mod error;
mod host;
mod messages;
mod order;
mod pending;

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use hydit::image::Image;
use parking_lot::Mutex;
use tokio::net::lookup_host;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;

pub use self::address::Address;
pub use self::error::TritonError;
use self::host::{Ended, Host};
pub use self::order::Order;
use crate::inference::ModelInferResponse;

/// Time between two looks at a host.
const LOOK: Duration = Duration::from_secs(1);
/// Time between two looks at what addresses a name has.
const RESOLVE: Duration = Duration::from_secs(5);
/// Hosts that may go away while they draw the same pictures: perhaps it is these that end them.
const MAX_LOST: usize = 5;
/// Time for a host to answer a call that nobody waits for.
const GIVEN_UP: Duration = Duration::from_secs(600);
/// Hosts that may refuse the same pictures.
const MAX_REFUSED: usize = 2;

/// Tritons that draw. They come and go: each is looked at every second, and names are resolved again.
/// Dropping it ends the looks.
pub struct Hosts {
    pool: Arc<Pool>,
    runtime: Option<Runtime>,
}

struct Pool {
    addresses: Vec<Address>,
    /// Exports that are asked for, by their hashes.
    exports: Vec<String>,
    hosts: Mutex<Vec<Arc<Host>>>,
    /// Names that are not found, and why.
    unknown: Mutex<Vec<String>>,
    /// Counts what may let somebody go on that waits.
    changes: watch::Sender<u64>,
}

/// Room for a call at a host. Dropping it gives it back, once the host has answered if it was asked.
pub struct Place {
    model: String,
    call: Arc<Call>,
}

/// A call that a host has of ours, or may get.
struct Call {
    host: Arc<Host>,
    /// The host's life that it begins in.
    life: u64,
    pool: Arc<Pool>,
}

/// Pictures, and where they come from.
pub struct Drawn {
    /// Image i has the seed of the request plus i.
    pub images: Vec<Image>,
    /// The host.
    pub host: String,
    /// Name of the model there.
    pub model: String,
    /// Hosts that went away while they drew it.
    pub lost: usize,
}

impl Hosts {
    /// Begins to look for the hosts at `addresses`, for those that have one of `exports`: hashes of
    /// manifests.
    ///
    /// # Errors
    /// When no threads can be started.
    pub fn start(addresses: Vec<Address>, exports: Vec<String>) -> io::Result<Hosts> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("triton")
            .enable_all()
            .build()?;
        let pool = Arc::new(Pool {
            addresses,
            exports,
            hosts: Mutex::default(),
            unknown: Mutex::default(),
            changes: watch::Sender::new(0),
        });
        runtime.spawn(resolve(Arc::downgrade(&pool)));
        Ok(Hosts { pool, runtime: Some(runtime) })
    }

    /// Where what asks the hosts is to run.
    pub fn handle(&self) -> &Handle {
        self.runtime.as_ref().expect("it is taken when this is dropped").handle()
    }

    /// Waits until each name was resolved and each host looked at.
    pub async fn known(&self) {
        self.pool.until(|pool| pool.is_known().then_some(())).await;
    }

    /// Waits for the next change of the hosts.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.pool.changes.subscribe()
    }

    /// Number of hosts that draw.
    pub fn up(&self) -> usize {
        self.pool.hosts.lock().iter().filter(|host| host.is_up()).count()
    }

    /// Whether a host draws `export`.
    pub fn has(&self, export: &str) -> bool {
        self.pool.hosts.lock().iter().any(|host| host.has(export))
    }

    /// Waits until a host has room for a call, for whichever export.
    pub async fn room(&self) {
        let room = |pool: &Pool| {
            let hosts = pool.hosts.lock();
            let free = |host: &Arc<Host>| pool.exports.iter().any(|e| host.load(e).is_some());
            hosts.iter().any(free).then_some(())
        };
        self.pool.until(room).await;
    }

    /// Waits for room for a call of `export`, at the host that has the least to do. Waits also for a
    /// host, if it is `patient`.
    ///
    /// # Errors
    /// [`TritonError::NoHost`], if it is not.
    pub async fn place(&self, export: &str, patient: bool) -> Result<Place, TritonError> {
        self.pool.place(export, patient, &HashSet::new()).await
    }

    /// Draws `order` at `place`, and elsewhere if that host goes away or refuses.
    ///
    /// # Errors
    /// When hosts refuse it, or too many went away, or none is left and it is not `patient`.
    pub async fn draw(
        &self,
        order: &Order,
        mut place: Place,
        patient: bool,
    ) -> Result<Drawn, TritonError> {
        let (mut lost, mut refused) = (0, HashSet::new());
        loop {
            let (host, model) = (place.call.host.name.clone(), place.model.clone());
            match place.draw(order).await {
                Ok(images) => return Ok(Drawn { images, host, model, lost }),
                Err(Ended::Lost(message)) => {
                    tracing::warn!(host, why = message, "went away: drawing again elsewhere");
                    lost += 1;
                    if lost == MAX_LOST {
                        return Err(TritonError::Lost { hosts: lost, host, message });
                    }
                }
                Err(Ended::Refused(message)) => {
                    tracing::warn!(host, model, why = message, "refused: asking another");
                    refused.insert(place.call.host.address());
                    let others = self.pool.others(&order.export, &refused);
                    if refused.len() == MAX_REFUSED || !others {
                        return Err(TritonError::Refused { host, model, message });
                    }
                }
            }
            drop(place);
            place = self.pool.place(&order.export, patient, &refused).await?;
        }
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Pool {
    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Waits until `found` gives something.
    async fn until<T>(&self, found: impl Fn(&Pool) -> Option<T>) -> T {
        let mut changes = self.changes.subscribe();
        loop {
            if let Some(found) = found(self) {
                return found;
            }
            changes.changed().await.expect("the pool holds the sender");
        }
    }

    fn is_known(&self) -> bool {
        let hosts = self.hosts.lock();
        let some = !hosts.is_empty() || !self.unknown.lock().is_empty();
        some && hosts.iter().all(|host| host.is_known())
    }

    /// Whether a host has `export` that is none of `refused`.
    fn others(&self, export: &str, refused: &HashSet<SocketAddr>) -> bool {
        let hosts = self.hosts.lock();
        hosts.iter().any(|host| host.has(export) && !refused.contains(&host.address()))
    }

    async fn place(
        self: &Arc<Pool>,
        export: &str,
        patient: bool,
        refused: &HashSet<SocketAddr>,
    ) -> Result<Place, TritonError> {
        self.until(|pool| {
            let hosts = pool.hosts.lock();
            let others = || hosts.iter().filter(|host| !refused.contains(&host.address()));
            let loads = others().filter_map(|host| Some((host, host.load(export)?)));
            match loads.min_by(|(_, a), (_, b)| a.total_cmp(b)) {
                // It may have gone away just now: that is a change to come.
                Some((host, _)) => host.begin(export).map(|(model, life)| {
                    let call = Call { host: host.clone(), life, pool: self.clone() };
                    Ok(Place { model, call: Arc::new(call) })
                }),
                None if patient || others().any(|host| host.has(export)) => None,
                None => {
                    let hosts = hosts.iter().map(|h| format!("{}: {}", h.name, h.trouble(export)));
                    let unknown = pool.unknown.lock().clone();
                    let hosts = hosts.chain(unknown).collect::<Vec<_>>().join("; ");
                    Some(Err(TritonError::NoHost { hosts }))
                }
            }
        })
        .await
    }
}

impl Place {
    async fn draw(&self, order: &Order) -> Result<Vec<Image>, Ended> {
        let Call { host, life, pool } = &*self.call;
        // A host that hangs breaks no connection: the looks find out.
        let left = pool.until(|_| (host.life() != *life).then_some(()));
        let answer = tokio::select! {
            answer = self.infer(order) => answer,
            () = left => Err(Ended::Lost("it does not answer any more".to_string())),
        };
        if let Err(Ended::Lost(why)) = &answer {
            host.lose(*life, why);
            pool.changed();
        }
        order.images(&answer?).map_err(Ended::Refused)
    }

    /// Calls the host. The call is never cancelled, even if nobody waits for it any more: the host
    /// draws to the end anyway, and a Triton can crash when a call is cancelled just as it answers
    /// (triton-inference-server/server, issues 7368 and 8034).
    async fn infer(&self, order: &Order) -> Result<ModelInferResponse, Ended> {
        let call = self.call.clone();
        let (request, bytes) = (order.call(&self.model), order.bytes());
        let (_somebody_waits, nobody_waits) = oneshot::channel::<()>();
        let given_up = async {
            let _ = nobody_waits.await;
            sleep(GIVEN_UP).await;
            Ended::Lost("nobody waits for it".to_string())
        };
        let asked = tokio::spawn(async move {
            tokio::select! {
                answer = call.host.infer(request, bytes) => answer,
                ended = given_up => Err(ended),
            }
        });
        asked.await.unwrap_or_else(|ended| Err(Ended::Lost(ended.to_string())))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.host.end(self.life);
        self.pool.changed();
    }
}

/// Finds the hosts behind the addresses again and again, and looks at each.
async fn resolve(pool: Weak<Pool>) {
    while let Some(pool) = pool.upgrade() {
        let mut unknown = Vec::new();
        let mut found = HashSet::new();
        for address in &pool.addresses {
            match lookup(address).await {
                Ok(sockets) => {
                    found.extend(sockets.iter().copied());
                    sockets.into_iter().for_each(|socket| add(&pool, socket, address.metrics_port));
                }
                Err(why) => unknown.push(format!("{address}: {why}")),
            }
        }
        if unknown.is_empty() {
            pool.hosts.lock().retain(|host| found.contains(&host.address()) || !host.is_gone());
        }
        if *pool.unknown.lock() != unknown {
            unknown.iter().for_each(|why| tracing::warn!("{why}"));
            *pool.unknown.lock() = unknown;
        }
        pool.changed();
        drop(pool);
        sleep(RESOLVE).await;
    }
}

/// The addresses of a name; those of IPv4 if it has any, as the others are of the same hosts.
async fn lookup(address: &Address) -> Result<Vec<SocketAddr>, String> {
    let found = lookup_host((address.name.as_str(), address.port)).await;
    let found: Vec<SocketAddr> = found.map_err(|error| format!("not found: {error}"))?.collect();
    let v4: Vec<SocketAddr> = found.iter().copied().filter(SocketAddr::is_ipv4).collect();
    match (v4.is_empty(), found.is_empty()) {
        (false, _) => Ok(v4),
        (true, false) => Ok(found),
        (true, true) => Err("it has no address".to_string()),
    }
}

fn add(pool: &Arc<Pool>, address: SocketAddr, metrics_port: u16) {
    let mut hosts = pool.hosts.lock();
    if hosts.iter().any(|host| host.address() == address) {
        return;
    }
    let host = Arc::new(Host::new(address, metrics_port));
    hosts.push(host.clone());
    tokio::spawn(look_after(Arc::downgrade(pool), Arc::downgrade(&host)));
}

/// Looks at a host as long as it is one of the pool's.
async fn look_after(pool: Weak<Pool>, host: Weak<Host>) {
    while let (Some(pool), Some(host)) = (pool.upgrade(), host.upgrade()) {
        host.look(&pool.exports).await;
        pool.changed();
        drop((pool, host));
        sleep(LOOK).await;
    }
}
