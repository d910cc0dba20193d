//! Every setting, declared once: its flag, its environment variable, its key in the file, its
//! default.

use std::path::PathBuf;

use clap::builder::{BoolishValueParser, PathBufValueParser, Resettable, TypedValueParser};
use clap::{ArgAction, Args, FromArgMatches};
use hydit::runtime::physical_cores;
use serde::{Deserialize, Serialize};

use super::address::Address;
use super::value::{Period, Size};
use crate::backend::Backend;
use crate::choice::choice;
use crate::server::log::LogFormat;

/// All settings as they are written. The flag of `queue_per_key` is `--queue-per-key`, its variable
/// `HYDIT_QUEUE_PER_KEY`; lists are separated by commas there.
#[derive(Args, Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)] // the help says it
pub struct Options {
    /// Artifact folder of hydit-export, called as the folder if no name is given. Repeatable; the
    /// first is the default model.
    #[arg(long, env = "HYDIT_MODEL", value_name = "[NAME=]DIR", value_delimiter = ',')]
    pub model: Vec<String>,
    /// Another name of a model, for clients that cannot be told which one to ask for, such as
    /// `gpt-image-1=emoji`.
    #[arg(long, env = "HYDIT_MODEL_ALIAS", value_name = "NAME=MODEL", value_delimiter = ',')]
    pub model_alias: Vec<String>,
    /// Folder of LoRAs that requests may name: NAME.safetensors, or a folder NAME in which PEFT saved
    /// one. For models exported with --lora-slots.
    #[arg(
        long,
        env = "HYDIT_LORA_DIR",
        value_parser = PathBufValueParser::new().try_map(utf8),
        value_name = "DIR"
    )]
    pub lora_dir: Option<PathBuf>,
    /// Address or host name, and port, to listen on: on all addresses that a name has. With port 0
    /// the system chooses one.
    #[arg(long, env = "HYDIT_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: Address,
    /// Address or host name, and port, to listen on for gRPC: the Open Inference Protocol. Not
    /// listened for if not given; 127.0.0.1:8001 is usual.
    #[arg(long, env = "HYDIT_GRPC_LISTEN", value_name = "ADDRESS")]
    pub grpc_listen: Option<Address>,
    /// Folder of jobs and their pictures; of TensorRT's engines too, with that provider.
    #[arg(
        long,
        env = "HYDIT_DATA_DIR",
        value_parser = PathBufValueParser::new().try_map(utf8),
        value_name = "DIR",
        default_value = "hydit-data"
    )]
    pub data_dir: PathBuf,

    /// Engine: ONNX Runtime where it is found, else tract; or one of them and nothing else.
    #[arg(
        long,
        env = "HYDIT_BACKEND",
        value_parser = choice::<Backend>(),
        default_value = "auto"
    )]
    #[serde(with = "crate::choice")]
    pub backend: Backend,
    /// With --backend triton: where the Tritons are that have a repository of hydit-export triton,
    /// such as `grpc://gpu-1:8001`. A name with several addresses is several hosts. Repeatable.
    #[arg(long, env = "HYDIT_TRITON", value_name = "grpc://HOST:PORT", value_delimiter = ',')]
    pub triton: Vec<String>,
    /// Where ONNX Runtime computes: cpu, cuda, cuda:graphs, tensorrt, or a plugin: openvino,
    /// openvino:bf16, tensorrt-rtx, webgpu, or another with --ep-library.
    #[arg(long, env = "HYDIT_PROVIDER", default_value = "cpu")]
    pub provider: String,
    /// Library of the plugin that --provider names, if it is neither beside the program nor where pip
    /// puts it.
    #[arg(
        long,
        env = "HYDIT_EP_LIBRARY",
        value_parser = PathBufValueParser::new().try_map(utf8),
        value_name = "PATH"
    )]
    pub ep_library: Option<PathBuf>,
    /// Option of the plugin, by its own name. Repeatable; the variable has one.
    #[arg(long, env = "HYDIT_EP_OPTION", value_name = "KEY=VALUE")]
    pub ep_option: Vec<String>,
    /// Device of the plugin, as hydit-serve doctor lists them: cpu, gpu, npu, or gpu:1 for the second;
    /// its only one if not given.
    #[arg(long, env = "HYDIT_EP_DEVICE", value_name = "DEVICE")]
    pub ep_device: Option<String>,
    /// Folder of engines that hydit-serve compile has made of a model, for the plugin that --provider
    /// names or for tensorrt. A name is needed where there are several models. Repeatable.
    #[arg(long, env = "HYDIT_ENGINES", value_name = "[NAME=]DIR", value_delimiter = ',')]
    pub engines: Vec<String>,
    /// With --provider tensorrt: draw pictures that --engines has no engines for, after minutes in which
    /// TensorRT builds them in that folder.
    #[arg(long, env = "HYDIT_ALLOW_BUILD")]
    pub allow_build: bool,
    /// Threads of ONNX Runtime, shared out among the workers; all physical cores if not given.
    #[arg(long, env = "HYDIT_THREADS", value_name = "N")]
    pub threads: Option<usize>,
    /// Bytes of models that stay loaded, the others are loaded when they are asked for; all stay if
    /// not given.
    #[arg(long, env = "HYDIT_MAX_MEMORY", value_name = "SIZE")]
    pub max_memory: Option<Size>,
    /// Workers that draw side by side, each with models of its own and its share of --max-memory.
    #[arg(long, env = "HYDIT_WORKERS", value_name = "N", default_value_t = 1)]
    pub workers: usize,
    /// Most pictures that a worker draws together.
    #[arg(long, env = "HYDIT_MAX_BATCH", value_name = "N", default_value_t = 8)]
    pub max_batch: usize,
    /// Draw no request together with another: its picture has the same bits whatever else goes on.
    #[arg(long, env = "HYDIT_EXACT")]
    pub exact: bool,

    /// Requests that may wait; more are answered 429.
    #[arg(long, env = "HYDIT_QUEUE", value_name = "N", default_value_t = 64)]
    pub queue: usize,
    /// Requests of one API key that may wait; as many as the queue holds if not given.
    #[arg(long, env = "HYDIT_QUEUE_PER_KEY", value_name = "N")]
    pub queue_per_key: Option<usize>,
    /// From a request to its answer, at most.
    #[arg(long, env = "HYDIT_DEADLINE", value_name = "TIME", default_value = "10m")]
    pub deadline: Period,
    /// From SIGTERM to the end, at most.
    #[arg(long, env = "HYDIT_DRAIN_TIMEOUT", value_name = "TIME", default_value = "30s")]
    pub drain_timeout: Period,

    /// Secret that clients must send, and what to call its owner in logs and jobs. Repeatable.
    /// Other users of this machine see flags: prefer --api-keys-file.
    #[arg(
        long,
        env = "HYDIT_API_KEY",
        hide_env_values = true,
        value_name = "[NAME=]SECRET",
        value_delimiter = ','
    )]
    pub api_key: Vec<String>,
    /// File of such keys, one a line; lines that begin with # are passed over.
    #[arg(
        long,
        env = "HYDIT_API_KEYS_FILE",
        hide_env_values = true,
        value_parser = PathBufValueParser::new().try_map(utf8),
        value_name = "FILE"
    )]
    pub api_keys_file: Option<PathBuf>,
    /// Listen beyond this machine without an API key: anybody who can reach it can use it.
    #[arg(long, env = "HYDIT_ALLOW_ANONYMOUS")]
    pub allow_anonymous: bool,
    /// Host name under which clients may call the server, besides localhost and plain addresses;
    /// `*` is any. Any by default with API keys on an address beyond this machine.
    #[arg(long, env = "HYDIT_ALLOWED_HOST", value_name = "NAME", value_delimiter = ',')]
    pub allowed_host: Vec<String>,
    /// Origin whose pages may call the server, such as `https://example.org`; none by default.
    #[arg(long, env = "HYDIT_CORS_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    pub cors_origin: Vec<String>,

    /// Cache policy of requests that name none: off, usual, or any of `generate --cache-policy`.
    #[arg(long, env = "HYDIT_CACHE", value_name = "POLICY", default_value = "off")]
    pub cache: String,
    /// Keep the parameters in pictures whose request does not say.
    #[arg(long, env = "HYDIT_METADATA")]
    pub metadata: bool,
    /// Most pixels of a picture.
    #[arg(long, env = "HYDIT_MAX_PIXELS", value_name = "N", default_value_t = 1280 * 1280)]
    pub max_pixels: usize,
    /// Most steps of a request.
    #[arg(long, env = "HYDIT_MAX_STEPS", value_name = "N", default_value_t = 100)]
    pub max_steps: usize,
    /// Most pictures of a request, up to 64.
    #[arg(long, env = "HYDIT_MAX_N", value_name = "N", default_value_t = 10)]
    pub max_n: usize,
    /// Most bytes of a request's body.
    #[arg(long, env = "HYDIT_MAX_BODY", value_name = "SIZE", default_value = "256KiB")]
    pub max_body: Size,
    /// Most bytes of the files of images that a request brings along, besides its body.
    #[arg(long, env = "HYDIT_MAX_IMAGE", value_name = "SIZE", default_value = "16MiB")]
    pub max_image: Size,
    /// Most bytes that an answer with pictures may have; more are to be fetched from a job.
    #[arg(long, env = "HYDIT_MAX_ANSWER", value_name = "SIZE", default_value = "256MiB")]
    pub max_answer: Size,

    /// Connections at a time; more are closed at once.
    #[arg(long, env = "HYDIT_MAX_CONNECTIONS", value_name = "N", default_value_t = 2048)]
    pub max_connections: usize,
    /// From a connection, or the last answer on it, to the end of the next request's header.
    #[arg(long, env = "HYDIT_HEADER_TIMEOUT", value_name = "TIME", default_value = "10s")]
    pub header_timeout: Period,
    /// From the end of a request's header to the end of its body.
    #[arg(long, env = "HYDIT_BODY_TIMEOUT", value_name = "TIME", default_value = "30s")]
    pub body_timeout: Period,
    /// For a client to take the next MiB of its answer, or what is left of it.
    #[arg(long, env = "HYDIT_WRITE_TIMEOUT", value_name = "TIME", default_value = "30s")]
    pub write_timeout: Period,

    /// Most bytes of answers that wait for slow readers, all together; more are answered 503.
    #[arg(long, env = "HYDIT_MAX_UNREAD", value_name = "SIZE", default_value = "1GiB")]
    pub max_unread: Size,

    /// For how long finished jobs are kept.
    #[arg(long, env = "HYDIT_KEEP_AGE", value_name = "TIME", default_value = "24h")]
    pub keep_age: Period,
    /// How many bytes of their pictures are kept.
    #[arg(long, env = "HYDIT_KEEP_BYTES", value_name = "SIZE", default_value = "1GiB")]
    pub keep_bytes: Size,

    /// Log lines for people, or JSON for machines.
    #[arg(
        long,
        env = "HYDIT_LOG",
        value_parser = choice::<LogFormat>(),
        value_name = "FORMAT",
        default_value = "text"
    )]
    #[serde(with = "crate::choice")]
    pub log: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or directives such as info,hydit=debug.
    #[arg(long, env = "HYDIT_LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    pub log_level: String,
    /// Log the text of prompts, which else stays out of the log.
    #[arg(long, env = "HYDIT_LOG_PROMPTS")]
    pub log_prompts: bool,
}

/// Settings are told in the log, and compared with those of the file: as text.
fn utf8(path: PathBuf) -> Result<PathBuf, &'static str> {
    if path.to_str().is_some() { Ok(path) } else { Err("expected a path in UTF-8") }
}

impl Options {
    /// Fills in what follows from the machine and from other options where nothing was given.
    pub(super) fn complete(self) -> Options {
        Options {
            threads: Some(self.threads.unwrap_or_else(physical_cores)),
            queue_per_key: Some(self.queue_per_key.unwrap_or(self.queue)),
            ..self
        }
    }

    /// Adds the options to a command, as [`Args::augment_args`] does. Every switch can be turned
    /// off as well, by `=false`, in case the file turned it on; times and sizes say what they must
    /// be where one begins with a dash.
    pub(super) fn augment(command: clap::Command) -> clap::Command {
        Options::augment_args(command).mut_args(|argument| match argument.get_action() {
            ArgAction::SetTrue => argument
                .action(ArgAction::Set)
                .value_parser(BoolishValueParser::new())
                .value_name("BOOL")
                .num_args(0..=1)
                .require_equals(true)
                .default_value("false")
                .default_missing_value("true"),
            _ => {
                let names = argument.get_value_names().unwrap_or_default();
                let measure = names.iter().any(|name| name == "TIME" || name == "SIZE");
                if measure { argument.allow_hyphen_values(true) } else { argument }
            }
        })
    }
}

impl Default for Options {
    /// The options without any flag, variable or file.
    fn default() -> Options {
        let command = Options::augment(clap::Command::new("defaults"))
            .mut_args(|argument| argument.env(Resettable::Reset));
        let matches = command.try_get_matches_from(["defaults"]);
        matches
            .and_then(|matches| Options::from_arg_matches(&matches))
            .expect("no setting is required, and every default is one of its setting's values")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_has_one_name_in_all_its_places() {
        let command = Options::augment(clap::Command::new("settings"));
        let keys = serde_json::to_value(Options::default()).expect("plain values");
        let keys = keys.as_object().expect("a struct");
        let arguments: Vec<_> = command.get_arguments().collect();
        assert_eq!(arguments.len(), keys.len());
        for argument in arguments {
            let id = argument.get_id().as_str();
            assert!(keys.contains_key(id), "{id}");
            assert_eq!(argument.get_long(), Some(id.replace('_', "-").as_str()));
            let variable = argument.get_env().and_then(|name| name.to_str());
            assert_eq!(variable, Some(format!("HYDIT_{}", id.to_uppercase()).as_str()));
        }
    }
}
