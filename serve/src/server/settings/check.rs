//! Turns options as they are written into checked settings.

use std::net::SocketAddr;

use axum::http::{HeaderValue, Uri};
use hydit::cache::CachePolicy;
use hydit::runtime::{PluginOptions, Provider, RuntimeOptions};

use super::options::Options;
use super::resolved::{Connections, Keep, Limits, Settings};
use super::{keys, models};
use crate::backend::Backend;
use crate::engine;
use crate::server::log;
use crate::triton::Address;

/// The name of a setting, and what is wrong with it.
type Wrong = (&'static str, String);

impl Options {
    /// The settings that these [complete](Options::complete) options ask for, not checked against
    /// each other.
    pub(super) fn settings(self) -> Result<Settings, Wrong> {
        let mut secrets = self.api_key;
        keys::parse(secrets.iter().map(String::as_str)).map_err(|why| ("api_key", why))?;
        if let Some(path) = &self.api_keys_file {
            secrets.extend(keys::read(path).map_err(|why| ("api_keys_file", why))?);
        }
        let api_keys = keys::parse(secrets.iter().map(String::as_str));
        let models = models::models(&self.model).map_err(|why| ("model", why))?;
        Ok(Settings {
            aliases: models::aliases(&self.model_alias, &models)
                .map_err(|why| ("model_alias", why))?,
            engines: models::engines(&self.engines, &models).map_err(|why| ("engines", why))?,
            allow_build: self.allow_build,
            models,
            lora_dir: self.lora_dir,
            listen: self.listen.resolve().map_err(|why| ("listen", why))?,
            grpc_listen: match self.grpc_listen {
                Some(address) => address.resolve().map_err(|why| ("grpc_listen", why))?,
                None => Vec::new(),
            },
            tritons: tritons(self.backend, &self.triton)?,
            runtime: RuntimeOptions {
                backend: self.backend.engine().unwrap_or_default(),
                provider: engine::provider(&self.provider).map_err(|why| ("provider", why))?,
                plugin: PluginOptions {
                    library: self.ep_library,
                    options: self
                        .ep_option
                        .iter()
                        .map(|text| engine::key_value(text))
                        .collect::<Result<_, _>>()
                        .map_err(|why| ("ep_option", why))?,
                    device: self.ep_device,
                },
                threads: self.threads,
                // A server keeps what it has loaded: --max-memory is its bound.
                low_memory: false,
                engines: Some(self.data_dir.join("engines")),
            },
            data_dir: self.data_dir,
            workers: self.workers,
            max_batch: self.max_batch,
            exact: self.exact,
            max_memory: self.max_memory.map(|size| size.0),
            queue: self.queue,
            queue_per_key: self.queue_per_key.unwrap_or(self.queue),
            deadline: self.deadline.0,
            drain_timeout: self.drain_timeout.0,
            api_keys: api_keys.map_err(|why| ("api_keys_file", why))?,
            allow_anonymous: self.allow_anonymous,
            allowed_hosts: self.allowed_host,
            cors_origins: self.cors_origin,
            cache: self.cache,
            metadata: self.metadata,
            limits: Limits {
                max_pixels: self.max_pixels,
                max_steps: self.max_steps,
                max_n: self.max_n,
                max_body: usize::try_from(self.max_body.0)
                    .map_err(|_| ("max_body", "too large".to_string()))?,
                max_image: usize::try_from(self.max_image.0)
                    .map_err(|_| ("max_image", "too large".to_string()))?,
                max_answer: self.max_answer.0,
            },
            connections: Connections {
                max: self.max_connections,
                header_timeout: self.header_timeout.0,
                body_timeout: self.body_timeout.0,
                write_timeout: self.write_timeout.0,
                unread: self.max_unread.0,
            },
            keep: Keep { age: self.keep_age.0, bytes: self.keep_bytes.0 },
            log: self.log,
            log_level: self.log_level,
            log_prompts: self.log_prompts,
        })
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Options::default().complete().settings().expect("the defaults are right")
    }
}

impl Settings {
    /// Whether other machines may reach the server.
    pub fn is_beyond_this_machine(&self) -> bool {
        is_beyond(&self.listen) || is_beyond(&self.grpc_listen)
    }

    /// Whether a server can run with these settings.
    pub(super) fn check(&self) -> Result<(), Wrong> {
        let refuse = |name, why: &str| Err((name, why.to_string()));
        if self.models.is_empty() {
            return refuse("model", "expected an artifact folder of hydit-export");
        }
        if let Some((_, folder)) = self.models.iter().find(|(_, folder)| !folder.is_dir()) {
            return refuse("model", &format!("{} is not a directory", folder.display()));
        }
        if let Some(folder) = self.engines.values().find(|folder| !folder.is_dir()) {
            return refuse("engines", &format!("{} is not a directory", folder.display()));
        }
        let provider = self.runtime.provider;
        let compiles = !matches!(provider, Provider::Cpu | Provider::Cuda | Provider::CudaGraphs);
        if !self.engines.is_empty() && !compiles {
            let why = "they are for a plugin or TensorRT, such as --provider openvino";
            return refuse("engines", why);
        }
        if self.allow_build && (self.engines.is_empty() || provider != Provider::TensorRt) {
            return refuse("allow_build", "it is for --provider tensorrt with --engines");
        }
        if provider == Provider::CudaGraphs && self.workers > 1 {
            return refuse(
                "workers",
                "cuda:graphs captures no run while another worker computes: use 1",
            );
        }
        if let Some(folder) = self.lora_dir.as_ref().filter(|folder| !folder.is_dir()) {
            return refuse("lora_dir", &format!("{} is not a directory", folder.display()));
        }
        if self.data_dir.as_os_str().is_empty() {
            return refuse("data_dir", "expected a folder");
        }
        if self.data_dir.exists() && !self.data_dir.is_dir() {
            return refuse("data_dir", "not a directory");
        }
        let Limits { max_pixels, max_steps, max_n, max_body, max_image, max_answer } = self.limits;
        let counts = [
            ("threads", self.runtime.threads.unwrap_or(0)),
            ("workers", self.workers),
            ("max_batch", self.max_batch),
            ("queue", self.queue),
            ("queue_per_key", self.queue_per_key),
            ("max_pixels", max_pixels),
            ("max_steps", max_steps),
            ("max_n", max_n),
            ("max_body", max_body),
            ("max_image", max_image),
            ("max_answer", usize::try_from(max_answer).unwrap_or(usize::MAX)),
            ("max_connections", self.connections.max),
        ];
        if let Some((name, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return refuse(name, "expected 1 or more");
        }
        let threads = self.runtime.threads.unwrap_or(0);
        if self.workers > threads {
            let why = format!("expected 1 to {threads}, the threads that they share");
            return refuse("workers", &why);
        }
        if !self.tritons.is_empty() {
            let local = [
                ("provider", self.runtime.provider != Provider::Cpu),
                ("workers", self.workers > 1),
                ("max_memory", self.max_memory.is_some()),
                ("lora_dir", self.lora_dir.is_some()),
            ];
            if let Some((name, _)) = local.iter().find(|(_, given)| *given) {
                return refuse(name, "it is for engines in this program, not for --backend triton");
            }
        }
        let times = [
            ("deadline", self.deadline),
            ("header_timeout", self.connections.header_timeout),
            ("body_timeout", self.connections.body_timeout),
            ("write_timeout", self.connections.write_timeout),
        ];
        if let Some((name, _)) = times.iter().find(|(_, time)| time.is_zero()) {
            return refuse(name, "expected more than 0");
        }
        if self.cache != "usual"
            && let Err(error) = self.cache.parse::<CachePolicy>()
        {
            return refuse("cache", &format!("{error}; or usual"));
        }
        if let Some(host) = self.allowed_hosts.iter().find(|host| !is_host_name(host)) {
            let why = format!("{host} is not a name without scheme and port, nor *");
            return refuse("allowed_host", &why);
        }
        if let Some(origin) = self.cors_origins.iter().find(|origin| !is_origin(origin)) {
            let why = format!("{origin} is not an origin, such as https://example.org");
            return refuse("cors_origin", &why);
        }
        log::filter(&self.log_level).map_err(|why| ("log_level", why))?;
        if self.is_beyond_this_machine() && self.api_keys.is_empty() && !self.allow_anonymous {
            return refuse(
                if is_beyond(&self.listen) { "listen" } else { "grpc_listen" },
                "reaches beyond this machine, and no API key is set; \
                 give --api-keys-file, or --allow-anonymous to serve anyone",
            );
        }
        Ok(())
    }
}

/// Whether other machines may reach one of `addresses`.
fn is_beyond(addresses: &[SocketAddr]) -> bool {
    addresses.iter().any(|address| !address.ip().is_loopback())
}

/// Where Tritons draw; none if `backend` is another.
fn tritons(backend: Backend, given: &[String]) -> Result<Vec<Address>, Wrong> {
    let addresses =
        given.iter().map(|text| text.parse().map_err(|why| ("triton", format!("{text}: {why}"))));
    let addresses = addresses.collect::<Result<Vec<Address>, Wrong>>()?;
    match (backend, addresses.is_empty()) {
        (Backend::Triton, true) => {
            Err(("backend", "name a Triton, by --triton grpc://HOST:8001".to_string()))
        }
        (Backend::Triton, false) | (_, true) => Ok(addresses),
        (_, false) => Err(("triton", "add --backend triton".to_string())),
    }
}

/// `example.org`, or `*` for any.
fn is_host_name(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    text == "*" || text.split('.').all(part)
}

/// `https://example.org:8443`, nothing after it.
fn is_origin(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let parts = (uri.scheme_str(), uri.authority());
    let (Some(scheme @ ("http" | "https")), Some(authority)) = parts else { return false };
    text == format!("{scheme}://{authority}") && HeaderValue::from_str(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        for good in ["https://example.org", "http://localhost:3000", "https://[::1]:8443"] {
            assert!(is_origin(good), "{good}");
        }
        for bad in ["*", "null", "example.org", "https://example.org/", "ftp://example.org", ""] {
            assert!(!is_origin(bad), "{bad}");
        }
    }

    #[test]
    fn tritons_and_their_backend_go_together() {
        let given = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let two = given(&["grpc://a:1", "b"]);
        let addresses = tritons(Backend::Triton, &two).expect("two Tritons");
        assert_eq!(addresses[1].to_string(), "grpc://b:8001");
        assert_eq!(tritons(Backend::Ort, &[]), Ok(Vec::new()));
        for (backend, texts, name, expected) in [
            (Backend::Triton, given(&[]), "backend", "name a Triton"),
            (Backend::Auto, two, "triton", "add --backend triton"),
            (
                Backend::Triton,
                given(&["http://a"]),
                "triton",
                "http://a: expected grpc://HOST:PORT",
            ),
        ] {
            let (setting, why) = tritons(backend, &texts).expect_err("a refusal");
            assert!(setting == name && why.contains(expected), "{setting}: {why}");
        }
    }

    #[test]
    fn a_host_name_has_neither_scheme_nor_port() {
        for good in ["*", "example.org", "my_service", "xn--bcher-kva.example", "A"] {
            assert!(is_host_name(good), "{good}");
        }
        for bad in ["", "example.org:80", "http://a", "a/", ".a", "a.", "*.a", "bücher", "[::1]"] {
            assert!(!is_host_name(bad), "{bad}");
        }
    }
}
