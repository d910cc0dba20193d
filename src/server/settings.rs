//! What the server was asked to be: flags, then the environment, then one YAML file, then defaults.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::runtime::RuntimeOptions;

/// Everything that can be set, resolved.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Models by name, in order; the first is the default.
    pub models: Vec<(String, PathBuf)>,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Jobs, results and engine caches lie here.
    pub data_dir: PathBuf,
    /// The engine; `threads` are those of all workers together.
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
    /// Names under which the server may be called; `*` is any.
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
    /// Whether prompts are logged.
    pub log_prompts: bool,
}

/// A key that a client must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// What it is called in logs and jobs.
    pub name: String,
    /// The key itself.
    pub secret: String,
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
    /// Without the client taking anything of its answer.
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines, an object a line.
    Json,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            models: Vec::new(),
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            data_dir: PathBuf::from("hydit-data"),
            runtime: RuntimeOptions::default(),
            workers: 1,
            max_batch: 8,
            exact: false,
            max_memory: None,
            queue: 64,
            queue_per_key: 64,
            deadline: Duration::from_secs(600),
            drain_timeout: Duration::from_secs(30),
            api_keys: Vec::new(),
            allowed_hosts: Vec::new(),
            cors_origins: Vec::new(),
            cache: "off".to_string(),
            metadata: false,
            limits: Limits {
                max_pixels: 1280 * 1280,
                max_steps: 100,
                max_n: 4,
                max_body: 256 << 10,
            },
            connections: Connections {
                max: 4096,
                header_timeout: Duration::from_secs(10),
                body_timeout: Duration::from_secs(30),
                write_timeout: Duration::from_secs(30),
            },
            keep: Keep { age: Duration::from_secs(24 * 3600), bytes: 1 << 30 },
            log: LogFormat::Text,
            log_prompts: false,
        }
    }
}
