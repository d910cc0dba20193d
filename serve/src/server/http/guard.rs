//! Who may ask: known host names, no pages of strangers, clients with a key.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use tower_http::cors::{AllowHeaders, Any, CorsLayer};
use tracing::Span;

use super::error::ApiError;
use super::lent::is_lent;
use super::oip::grpc;
use super::page::is_page;
use crate::server::settings::{ANONYMOUS, Settings};

/// Maximum number of characters of a strange host name in an answer.
const MAX_NAME: usize = 64;
/// Paths that need no key and no known host name: health checks.
const OPEN: [&str; 4] = ["/health", "/ready", "/v2/health/live", "/v2/health/ready"];

/// Whether `path` is that of a health check.
pub fn is_open(path: &str) -> bool {
    OPEN.contains(&path) || grpc::OPEN.contains(&path)
}

/// Name of the client that sent a request, as its key says; `anonymous` where no key is needed. In
/// the extensions of every request that has passed the guard.
#[derive(Clone, Debug)]
pub struct Client(pub Arc<str>);

/// What every request must satisfy.
pub struct Guard {
    /// SHA-256 of each secret, and its owner.
    keys: Vec<([u8; 32], Client)>,
    anonymous: Client,
    /// Accepted host names in lower case; `None` accepts any.
    hosts: Option<Vec<String>>,
    /// Origins other than the server's own whose pages may send requests.
    origins: Vec<String>,
}

impl Guard {
    /// The guard that `settings` ask for.
    pub fn new(settings: &Settings) -> Guard {
        let hosts = &settings.allowed_hosts;
        let beyond = settings.is_beyond_this_machine() && !settings.api_keys.is_empty();
        let any = hosts.iter().any(|host| host == "*") || (hosts.is_empty() && beyond);
        let keys = settings.api_keys.iter();
        Guard {
            keys: keys
                .map(|key| (Sha256::digest(&key.secret).into(), Client(key.name.as_str().into())))
                .collect(),
            anonymous: Client(ANONYMOUS.into()),
            hosts: (!any).then(|| hosts.iter().map(|host| host.to_ascii_lowercase()).collect()),
            origins: settings.cors_origins.clone(),
        }
    }

    /// Refuses requests of browsers that were lured here by another host name, or by a page of
    /// another site. Health checks tell nobody anything, so they may come by any name.
    fn check_origin(&self, request: &Request) -> Result<(), ApiError> {
        let (method, headers) = (request.method(), request.headers());
        let host = host(request)?;
        if !self.knows(host) && !is_open(request.uri().path()) {
            let name: String = name(host).chars().take(MAX_NAME).collect();
            let message = format!(
                "the server is not called {name:?}: start it with --allowed-host NAME, or let the \
                 proxy before it send a name that it knows, such as localhost"
            );
            return Err(ApiError::new(StatusCode::MISDIRECTED_REQUEST, "unknown_host", message));
        }
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
        let known = |origin: &str| {
            let own = origin.split_once("://").is_some_and(|(_, place)| place == host);
            own || self.origins.iter().any(|known| known == origin)
        };
        if method.is_safe() || origin.to_str().is_ok_and(known) {
            return Ok(());
        }
        Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "unknown_origin",
            "unknown Origin header; add it with --cors-origin",
        ))
    }

    /// Whether `host`, with or without a port, is accepted. An address always is: it cannot be a
    /// stranger's name for this machine.
    fn knows(&self, host: &str) -> bool {
        let Some(hosts) = &self.hosts else { return true };
        let name = name(host).to_ascii_lowercase();
        let address = name.trim_start_matches('[').trim_end_matches(']');
        name == "localhost" || address.parse::<IpAddr>().is_ok() || hosts.contains(&name)
    }

    /// The owner of the request's key, found in constant time.
    fn client(&self, path: &str, headers: &HeaderMap) -> Result<Client, ApiError> {
        if self.keys.is_empty() || is_open(path) || is_page(path) || is_lent(path) {
            return Ok(self.anonymous.clone());
        }
        let refuse =
            |message| Err(ApiError::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message));
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(given), None) = (given.next(), given.next()) else {
            return refuse("expected one header `Authorization: Bearer KEY`");
        };
        let Some(secret) = secret(given) else {
            return refuse(
                "the Authorization header is not `Bearer KEY`, nor Basic with it as password",
            );
        };
        let digest: [u8; 32] = Sha256::digest(secret).into();
        let (mut known, mut found) = (Choice::from(0), 0u32);
        for (index, (key, _)) in (0u32..).zip(&self.keys) {
            let same = key.ct_eq(&digest);
            known |= same;
            found.conditional_assign(&index, same);
        }
        if !bool::from(known) {
            return refuse("unknown API key");
        }
        Ok(self.keys[found as usize].1.clone())
    }

    /// The layer that tells browsers which origins may call, if any may.
    pub fn cors(&self) -> Option<CorsLayer> {
        if self.origins.is_empty() {
            return None;
        }
        let origins = self.origins.iter();
        let origins: Vec<HeaderValue> = origins
            .map(|origin| HeaderValue::from_str(origin).expect("checked with the settings"))
            .collect();
        let layer = CorsLayer::new()
            .allow_origin(origins)
            .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers(Any);
        Some(layer)
    }
}

/// The host that a request is for, perhaps with a port; nothing if it is not text.
///
/// # Errors
/// 400 when there is not one Host header, as HTTP/1.1 wants it. HTTP/1.0 has it or not, HTTP/2 has
/// an authority instead.
fn host(request: &Request) -> Result<&str, ApiError> {
    let mut given = request.headers().get_all(header::HOST).iter();
    let (host, more) = (given.next(), given.next());
    if more.is_some() || (host.is_none() && request.version() == Version::HTTP_11) {
        let message = "expected one Host header";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "bad_host", message));
    }
    let authority = request.uri().authority().map(|authority| authority.as_str());
    Ok(authority.or(host.and_then(|host| host.to_str().ok())).unwrap_or(""))
}

/// A host without its port, and without the dot that ends a name in full.
fn name(host: &str) -> &str {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    name.strip_suffix('.').unwrap_or(name)
}

/// The key after the scheme `Bearer`, or the password after `Basic`, as clients of web UIs send it,
/// whatever the user's name; schemes in any case.
fn secret(value: &HeaderValue) -> Option<Vec<u8>> {
    let after = |scheme: &str| {
        let (given, rest) = value.as_bytes().split_at_checked(scheme.len())?;
        given.eq_ignore_ascii_case(scheme.as_bytes()).then_some(rest)
    };
    if let Some(secret) = after("Bearer ") {
        return Some(secret.to_vec());
    }
    let pair = BASE64_STANDARD.decode(after("Basic ")?.trim_ascii()).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some(pair[colon + 1..].to_vec())
}

/// Lets a request through whose host and origin are known.
pub async fn origin(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    match guard.check_origin(&request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// Lets a request through that has a key where one is needed, and adds its [`Client`].
pub async fn key(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    match guard.client(request.uri().path(), request.headers()) {
        Ok(client) => {
            Span::current().record("client", &*client.0);
            request.extensions_mut().insert(client);
            next.run(request).await
        }
        Err(error) => {
            let mut response = error.into_response();
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
            response
        }
    }
}
