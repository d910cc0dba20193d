//! The settings that the rest of the server reads.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use hydit::runtime::RuntimeOptions;

use super::keys::ApiKey;
use crate::server::log::LogFormat;
use crate::triton::Address;

/// Every setting, resolved and checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Models by name, in order; the first is the default.
    pub models: Vec<(String, PathBuf)>,
    /// Other names of models, and those models.
    pub aliases: BTreeMap<String, String>,
    /// Folders of engines, by the names of the models that they are compiled of.
    pub engines: BTreeMap<String, PathBuf>,
    /// Whether TensorRT may build engines that are not among these.
    pub allow_build: bool,
    /// Folder of LoRAs that requests may name.
    pub lora_dir: Option<PathBuf>,
    /// Addresses to listen on, one at least.
    pub listen: Vec<SocketAddr>,
    /// Addresses to listen on for gRPC; none for no gRPC.
    pub grpc_listen: Vec<SocketAddr>,
    /// Folder of jobs and their images, and of TensorRT's engines.
    pub data_dir: PathBuf,
    /// Where Tritons draw; none where an engine of this program does.
    pub tritons: Vec<Address>,
    /// How graphs are run in this program. Its `threads` are those of all workers together, and always given.
    pub runtime: RuntimeOptions,
    /// Number of workers, each a thread that owns models and draws.
    pub workers: usize,
    /// Maximum number of images that one worker draws together.
    pub max_batch: usize,
    /// Draws no request together with another, so that its images have the same bits whatever else
    /// goes on.
    pub exact: bool,
    /// Maximum bytes of models that are kept loaded; all of them are without it.
    pub max_memory: Option<u64>,
    /// Maximum number of waiting requests.
    pub queue: usize,
    /// Maximum number of waiting requests of one key.
    pub queue_per_key: usize,
    /// Maximum time from a request to its answer.
    pub deadline: Duration,
    /// Maximum time from SIGTERM to the end.
    pub drain_timeout: Duration,
    /// Keys of clients; if there are any, every client needs one.
    pub api_keys: Vec<ApiKey>,
    /// Whether to listen beyond this machine without API keys.
    pub allow_anonymous: bool,
    /// Accepted host names besides localhost and addresses; `*` accepts any.
    pub allowed_hosts: Vec<String>,
    /// Origins whose pages may call the server.
    pub cors_origins: Vec<String>,
    /// Cache policy of requests that name none: `off`, `usual` or any policy.
    pub cache: String,
    /// Whether PNGs carry their parameters where a request does not say.
    pub metadata: bool,
    /// Bounds of requests.
    pub limits: Limits,
    /// Bounds of connections.
    pub connections: Connections,
    /// Bounds of finished jobs.
    pub keep: Keep,
    /// Format of log lines.
    pub log: LogFormat,
    /// What is logged: a level, or directives of `tracing-subscriber`.
    pub log_level: String,
    /// Whether prompts are logged.
    pub log_prompts: bool,
}

/// Bounds of one request.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum number of pixels of an image.
    pub max_pixels: usize,
    /// Maximum number of steps.
    pub max_steps: usize,
    /// Maximum number of images.
    pub max_n: usize,
    /// Maximum bytes of a body.
    pub max_body: usize,
    /// Maximum bytes of the files of images that a request brings along, besides its body.
    pub max_image: usize,
    /// Maximum bytes of an answer with images, reckoned before they are drawn.
    pub max_answer: u64,
}

/// Bounds of connections.
#[derive(Clone, Copy, Debug)]
pub struct Connections {
    /// Maximum number at a time.
    pub max: usize,
    /// Maximum time from a connection, or the last answer on it, to the end of the next request's
    /// header.
    pub header_timeout: Duration,
    /// Maximum time from the header to the end of the body.
    pub body_timeout: Duration,
    /// Maximum time for a client to read the next MiB of its answer, or what is left of it.
    pub write_timeout: Duration,
    /// Maximum bytes of answers that wait for their readers, all together.
    pub unread: u64,
}

/// Bounds of finished jobs.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// Maximum time that they are kept.
    pub age: Duration,
    /// Maximum bytes of their images, and of those that are lent.
    pub bytes: u64,
}
