//! What the server was asked to be: flags, then the environment, then one YAML file, then defaults.
//!
//! [`Options`] declares every setting once, as it is written; [`Flags`] puts the four sources together;
//! [`Settings`] is what the rest of the server reads, checked.

mod check;
mod flags;
mod keys;
mod options;
mod value;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use flags::{Flags, Setting, SettingsError, Source};
pub use keys::ApiKey;
pub(super) use keys::{ANONYMOUS, is_name};
pub use options::Options;
pub use value::{Period, Size};

use hydit::runtime::RuntimeOptions;

/// Everything that can be set, resolved.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Models by name, in order; the first is the default.
    pub models: Vec<(String, PathBuf)>,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Jobs and their pictures lie here, and TensorRT's engines.
    pub data_dir: PathBuf,
    /// The engine; `threads` are those of all workers together, and always given.
    pub runtime: RuntimeOptions,
    /// Threads that own models and draw side by side.
    pub workers: usize,
    /// Most pictures that one worker draws together.
    pub max_batch: usize,
    /// No request is drawn together with another, so that its picture has the same bits whatever else goes on.
    pub exact: bool,
    /// Bytes of models that are kept loaded; all of them if not given.
    pub max_memory: Option<u64>,
    /// Orders that may wait.
    pub queue: usize,
    /// Orders of one key that may wait.
    pub queue_per_key: usize,
    /// From a request to its answer, at most.
    pub deadline: Duration,
    /// From SIGTERM to the end, at most.
    pub drain_timeout: Duration,
    /// Keys that clients must have; without any nobody is asked for one.
    pub api_keys: Vec<ApiKey>,
    /// Whether strangers are meant to reach it.
    pub allow_anonymous: bool,
    /// Names under which the server may be called, besides the usual; `*` is any.
    pub allowed_hosts: Vec<String>,
    /// Origins whose pages may call it; none by default.
    pub cors_origins: Vec<String>,
    /// The cache policy of requests that name none: `off`, `usual` or any policy.
    pub cache: String,
    /// Whether pictures carry their parameters if a request does not say.
    pub metadata: bool,
    /// What a request may ask for.
    pub limits: Limits,
    /// How connections are held.
    pub connections: Connections,
    /// What is kept of jobs.
    pub keep: Keep,
    /// How to log.
    pub log: LogFormat,
    /// What is logged: a level, or directives of `tracing-subscriber`.
    pub log_level: String,
    /// Whether prompts are logged.
    pub log_prompts: bool,
}

/// What one request may ask for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Pixels of a picture.
    pub max_pixels: usize,
    /// Steps.
    pub max_steps: usize,
    /// Pictures.
    pub max_n: usize,
    /// Bytes of a body.
    pub max_body: usize,
}

/// How connections are held.
#[derive(Clone, Copy, Debug)]
pub struct Connections {
    /// At most at a time.
    pub max: usize,
    /// From a connection, or the last answer on it, to the end of the next request's header.
    pub header_timeout: Duration,
    /// From the header to the end of the body.
    pub body_timeout: Duration,
    /// For a client to take the next MiB of its answer, or what is left of it.
    pub write_timeout: Duration,
}

/// What is kept of finished jobs.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// For so long.
    pub age: Duration,
    /// At most so many bytes of pictures.
    pub bytes: u64,
}

/// How log lines look.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    strum::EnumMessage,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[strum(serialize_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines, an object a line.
    Json,
}

impl Default for Settings {
    fn default() -> Settings {
        Options::default().complete().settings().expect("the defaults are right")
    }
}
