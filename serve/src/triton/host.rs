//! One Triton: whether it is there, which models it has, how busy it is, and a call of one.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use axum::http::uri::PathAndQuery;
use parking_lot::Mutex;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::messages::{ModelConfigResponse, RepositoryIndexRequest, RepositoryIndexResponse};
use super::pending::{self, Pending};
use crate::inference::{Empty, ModelInferRequest, ModelInferResponse, ModelRequest, ReadyResponse};

/// The parameter of a model's config that names the export it was made from.
const EXPORT: &str = "hydit_export";
/// Time for a host to answer a look.
const PATIENCE: Duration = Duration::from_secs(5);
/// Looks without an answer in a row until a host counts as away.
const MISSED: u32 = 3;
/// Looks between two at its models.
const MODELS: u64 = 10;
/// Models of a host that are looked at.
const MAX_MODELS: usize = 1000;
/// Bytes of an answer beside its images.
const MAX_ANSWER: usize = 1 << 20;

/// A Triton at one address.
pub struct Host {
    /// As people read it.
    pub name: String,
    address: SocketAddr,
    metrics: SocketAddr,
    state: Mutex<State>,
}

struct State {
    /// The connection of looks. One without an answer is given up, which may break it.
    looking: Channel,
    /// The connection of calls that draw, apart from the other, since it must last as long as they do.
    drawing: Channel,
    /// Looks that have ended, whatever they have seen.
    looks: u64,
    /// Of looks that had no answer, those since the last that had one.
    missed: u32,
    /// Times that it was there and went away: who began to draw before that need not wait.
    lives: u64,
    /// What it has of the exports that are asked for, by their hashes; or why nothing.
    models: Result<BTreeMap<String, Served>, String>,
    /// Calls of ours that it has, of those that began in this life.
    calls: usize,
    /// Calls that wait there for an instance, whosever they are, as it has told last.
    pending: Pending,
}

/// A model of a host.
#[derive(Clone, Debug, PartialEq)]
struct Served {
    name: String,
    /// Calls that it works on at a time.
    instances: usize,
}

/// How a call has ended without images.
pub enum Ended {
    /// The host has gone away.
    Lost(String),
    /// The host has answered with an error.
    Refused(String),
}

impl Host {
    /// One that was not looked at yet.
    pub fn new(address: SocketAddr, metrics_port: u16) -> Host {
        let state = State {
            looking: channel(address),
            drawing: channel(address),
            looks: 0,
            missed: 0,
            lives: 0,
            models: Err("not asked yet".to_string()),
            calls: 0,
            pending: Pending::new(),
        };
        Host {
            name: format!("grpc://{address}"),
            address,
            metrics: SocketAddr::new(address.ip(), metrics_port),
            state: Mutex::new(state),
        }
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it was looked at.
    pub fn is_known(&self) -> bool {
        self.state.lock().looks > 0
    }

    /// Whether it is there and has one of the exports.
    pub fn is_up(&self) -> bool {
        self.state.lock().models.is_ok()
    }

    /// Whether it is there and has `export`.
    pub fn has(&self, export: &str) -> bool {
        self.state.lock().models.as_ref().is_ok_and(|models| models.contains_key(export))
    }

    /// Begins a call of its model that has `export`, if it still has it: the model's name, and the life
    /// that the call is in. [`Host::end`] is to follow.
    pub fn begin(&self, export: &str) -> Option<(String, u64)> {
        let mut state = self.state.lock();
        let model = state.models.as_ref().ok()?.get(export)?.name.clone();
        state.calls += 1;
        Some((model, state.lives))
    }

    /// A call has ended that began in `life`.
    pub fn end(&self, life: u64) {
        let mut state = self.state.lock();
        if state.lives == life {
            state.calls -= 1;
        }
    }

    /// The number of its present life.
    pub fn life(&self) -> u64 {
        self.state.lock().lives
    }

    /// Whether nothing of ours is there, and it is not.
    pub fn is_gone(&self) -> bool {
        let state = self.state.lock();
        state.models.is_err() && state.calls == 0
    }

    /// Why it does not draw `export`.
    pub fn trouble(&self, export: &str) -> String {
        match &self.state.lock().models {
            Err(why) => why.clone(),
            Ok(models) if models.contains_key(export) => "it draws".to_string(),
            Ok(_) => NO_MODEL.to_string(),
        }
    }

    /// Calls per instance that `export` has there, if one more has room: so many that the next is at
    /// hand when one ends. The others wait in our queue, where they can go to any host.
    pub fn load(&self, export: &str) -> Option<f64> {
        let state = self.state.lock();
        let served = state.models.as_ref().ok()?.get(export)?;
        let waiting = *state.pending.get(&served.name).unwrap_or(&0) as usize;
        let room = state.calls <= served.instances && waiting <= served.instances;
        room.then(|| (state.calls + waiting) as f64 / served.instances as f64)
    }

    /// Asks it whether it is there, now and then also which of `exports` it has.
    pub async fn look(&self, exports: &[String]) {
        let all = {
            let state = self.state.lock();
            state.models.is_err() || state.looks.is_multiple_of(MODELS)
        };
        let seen = timeout(PATIENCE, self.ask(all.then_some(exports)));
        let pending = timeout(PATIENCE, pending::ask(self.metrics));
        let (seen, pending) = tokio::join!(seen, pending);
        let mut state = self.state.lock();
        state.looks += 1;
        state.pending = pending.ok().and_then(Result::ok).unwrap_or_default();
        match seen {
            Ok(Ok(models)) => {
                state.missed = 0;
                if let Some(models) = models {
                    let was = state.models.as_ref().ok() == Some(&models);
                    if !was {
                        let names: Vec<&str> = models.values().map(|one| &one.name[..]).collect();
                        tracing::info!(host = self.name, models = names.join(", "), "draws");
                    }
                    state.models = Ok(models);
                }
            }
            Ok(Err(why)) => self.leave(&mut state, why),
            Err(_) => {
                state.missed += 1;
                if state.missed >= MISSED || state.models.is_err() {
                    let why = format!("no answer within {} s", PATIENCE.as_secs());
                    self.leave(&mut state, why);
                } else {
                    state.looking = channel(self.address); // a late answer may break the old one
                }
            }
        }
    }

    /// Notes that it has gone away, in the life that a call began in.
    pub fn lose(&self, life: u64, why: &str) {
        let mut state = self.state.lock();
        if state.lives == life {
            self.leave(&mut state, why.to_string());
        }
    }

    fn leave(&self, state: &mut State, why: String) {
        if state.models.is_ok() {
            state.lives += 1;
            state.calls = 0;
        }
        if state.models.as_ref().err() != Some(&why) {
            tracing::warn!(host = self.name, why, "does not draw");
        }
        state.missed = 0;
        state.models = Err(why);
        state.looking = channel(self.address); // the old ones may hang for long
        state.drawing = channel(self.address);
    }

    /// Whether it is ready, and what it has of `exports` if they are given.
    async fn ask(
        &self,
        exports: Option<&[String]>,
    ) -> Result<Option<BTreeMap<String, Served>>, String> {
        let why = |status: Status| told(&status);
        let looking = self.state.lock().looking.clone();
        let ready: ReadyResponse =
            call(&looking, "ServerReady", Empty {}, MAX_ANSWER).await.map_err(why)?;
        if !ready.ready {
            return Err("it is not ready".to_string());
        }
        let Some(exports) = exports else { return Ok(None) };
        let index = RepositoryIndexRequest { ready: true };
        let index: RepositoryIndexResponse =
            call(&looking, "RepositoryIndex", index, MAX_ANSWER).await.map_err(why)?;
        let mut models = BTreeMap::new();
        for name in index.models.into_iter().map(|model| model.name).take(MAX_MODELS) {
            let ask = ModelRequest { name: name.clone(), version: String::new() };
            let answer: ModelConfigResponse =
                call(&looking, "ModelConfig", ask, MAX_ANSWER).await.map_err(why)?;
            let config = answer.config.unwrap_or_default();
            let Some(export) = config.parameters.get(EXPORT) else { continue };
            if exports.contains(&export.string_value) {
                let groups = config.instance_group.iter();
                let groups =
                    groups.map(|group| group.count.max(1) as usize * group.gpus.len().max(1));
                let served = Served { name, instances: groups.sum::<usize>().max(1) };
                models.insert(export.string_value.clone(), served);
            }
        }
        if models.is_empty() { Err(NO_MODEL.to_string()) } else { Ok(Some(models)) }
    }

    /// Asks for pictures of `bytes` together.
    pub async fn infer(
        &self,
        request: ModelInferRequest,
        bytes: usize,
    ) -> Result<ModelInferResponse, Ended> {
        let most = bytes + MAX_ANSWER;
        let drawing = self.state.lock().drawing.clone();
        call(&drawing, "ModelInfer", request, most).await.map_err(|status: Status| {
            // What the host has not said itself is of the connection.
            let lost = status.source().is_some() || status.code() == Code::Unavailable;
            if lost { Ended::Lost(told(&status)) } else { Ended::Refused(told(&status)) }
        })
    }
}

/// Calls `method` by `channel`, whose answer has `most` bytes at most.
async fn call<Q, A>(channel: &Channel, method: &str, message: Q, most: usize) -> Result<A, Status>
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let mut client = Grpc::new(channel.clone()).max_decoding_message_size(most);
    let unready = |error: tonic::transport::Error| Status::from_error(error.into());
    client.ready().await.map_err(unready)?;
    let path = format!("/inference.GRPCInferenceService/{method}");
    let path = PathAndQuery::try_from(path).expect("a plain path");
    let codec = ProstCodec::<Q, A>::default();
    Ok(client.unary(Request::new(message), path, codec).await?.into_inner())
}

/// What is wrong with a Triton that has none of the exports.
const NO_MODEL: &str = "it has no model of this export: make its repository from this very folder, \
                        by hydit-export triton";

/// A connection that is made when it is needed, and made again.
fn channel(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    endpoint.connect_timeout(PATIENCE).tcp_nodelay(true).connect_lazy()
}

/// What a status says, and the innermost of its causes, which names the thing.
fn told(status: &Status) -> String {
    let mut inner: Option<&(dyn Error + 'static)> = status.source();
    while let Some(next) = inner.and_then(Error::source) {
        inner = Some(next);
    }
    match inner {
        Some(cause) => cause.to_string(),
        None if status.message().is_empty() => status.code().to_string(),
        None => status.message().to_string(),
    }
}
