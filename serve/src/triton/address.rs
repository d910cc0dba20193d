//! Where a Triton is, as it is written: `grpc://gpu-1:8001`.

use std::fmt;
use std::str::FromStr;

/// Triton's own port for gRPC.
const PORT: u16 = 8001;
/// Triton's own port for metrics.
const METRICS_PORT: u16 = 8002;

/// The name or address of hosts, and their ports: a name with several addresses is several hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Without the brackets of an IPv6 address.
    pub name: String,
    /// Port for gRPC.
    pub port: u16,
    /// Port for metrics.
    pub metrics_port: u16,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        let expected = "expected grpc://HOST:PORT, such as grpc://gpu-1:8001, with ?metrics=PORT \
                        after it where Triton's metrics are not on port 8002";
        let rest = match text.split_once("://") {
            None => text,
            Some(("grpc", rest)) => rest,
            Some(("grpcs", _)) => {
                return Err(
                    "grpcs:// is not spoken here: leave TLS to a proxy beside this program, \
                            and name that as grpc://"
                        .to_string(),
                );
            }
            Some(_) => return Err(expected.to_string()),
        };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let metrics_port = match query {
            "" => METRICS_PORT,
            query => query.strip_prefix("metrics=").and_then(port).ok_or(expected)?,
        };
        let (name, port) = host_and_port(place.trim_end_matches('/')).ok_or(expected)?;
        Ok(Address { name, port, metrics_port })
    }
}

/// `host`, `host:8001`, `[::1]`, `[::1]:8001`.
fn host_and_port(text: &str) -> Option<(String, u16)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']')?;
        address.parse::<std::net::Ipv6Addr>().ok()?;
        let port = if rest.is_empty() { PORT } else { port(rest.strip_prefix(':')?)? };
        return Some((address.to_string(), port));
    }
    let (name, port) = match text.split_once(':') {
        Some((name, text)) => (name, port(text)?),
        None => (text, PORT),
    };
    let named = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    (!name.is_empty() && name.chars().all(named)).then(|| (name.to_string(), port))
}

fn port(text: &str) -> Option<u16> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
        .filter(|&port| port > 0)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Address { name, port, .. } = self;
        if name.contains(':') {
            write!(f, "grpc://[{name}]:{port}")
        } else {
            write!(f, "grpc://{name}:{port}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_with_or_without_its_ports() {
        for (text, shown, metrics) in [
            ("grpc://gpu-1:9001", "grpc://gpu-1:9001", 8002),
            ("gpu-1", "grpc://gpu-1:8001", 8002),
            ("grpc://10.0.0.7", "grpc://10.0.0.7:8001", 8002),
            ("grpc://[::1]:7?metrics=9", "grpc://[::1]:7", 9),
            ("[::1]", "grpc://[::1]:8001", 8002),
        ] {
            let address: Address = text.parse().expect(text);
            assert_eq!((address.to_string().as_str(), address.metrics_port), (shown, metrics));
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "grpc://",
            "http://gpu:8001",
            "gpu:",
            "gpu:0",
            "gpu:+1",
            "gpu:65536",
            "gpu:8001:1",
            "::1",
            "[::1",
            "[gpu]:1",
            "gpu 1",
            "a/b",
            "gpu?metrics",
            "gpu?metrics=",
            "gpu?x=1",
        ] {
            let refused = text.parse::<Address>().expect_err(text);
            assert!(refused.contains("grpc://HOST:PORT"), "{text}: {refused}");
        }
        let refused = "grpcs://gpu".parse::<Address>().expect_err("TLS");
        assert!(refused.contains("leave TLS to a proxy"), "{refused}");
    }
}
