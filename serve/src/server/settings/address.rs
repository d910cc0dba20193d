//! Where to listen, as it is written: `127.0.0.1:8080`, `localhost:8080`.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::value::as_text;

/// An address or the name of a host, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
}

impl Address {
    /// The addresses that the host has, those of IPv4 first.
    ///
    /// # Errors
    /// When it has none.
    pub fn resolve(&self) -> Result<Vec<SocketAddr>, String> {
        let found = (self.host.as_str(), self.port).to_socket_addrs();
        let found = found.map_err(|error| format!("{} is not found: {error}", self.host))?;
        let mut addresses: Vec<SocketAddr> = found.collect();
        addresses.sort_by_key(SocketAddr::is_ipv6);
        addresses.dedup();
        if addresses.is_empty() {
            return Err(format!("{} has no address", self.host));
        }
        Ok(addresses)
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        let is_address = text.parse::<SocketAddr>().is_ok();
        let named = |c: char| c.is_alphanumeric() || "-._".contains(c);
        let read = text.rsplit_once(':').and_then(|(host, port)| {
            let port = port.parse().ok().filter(|_| !port.starts_with('+'))?;
            let is_name = !host.is_empty() && host.chars().all(named);
            let host = host.trim_start_matches('[').trim_end_matches(']').to_string();
            (is_address || is_name).then_some(Address { host, port })
        });
        read.ok_or_else(|| {
            "expected an address or the name of a host, and a port: 127.0.0.1:8080, [::1]:8080, \
             localhost:8080"
                .to_string()
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

as_text!(Address);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written_and_resolved() {
        for (text, expected) in [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("[::1]:8080", "[::1]:8080"),
            ("[::]:0", "[::]:0"),
        ] {
            let address: Address = text.parse().expect("an address");
            assert_eq!(address.to_string(), text);
            let expected = expected.parse::<SocketAddr>().expect("an address");
            assert_eq!(address.resolve(), Ok(vec![expected]));
        }
        let local: Address = "localhost:8080".parse().expect("a name");
        let found = local.resolve().expect("every machine has it");
        assert!(found.iter().all(|address| address.ip().is_loopback()), "{found:?}");
        assert_eq!(found[0], "127.0.0.1:8080".parse().expect("an address"));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "8080",
            ":8080",
            "localhost",
            "localhost:",
            "localhost:65536",
            "localhost:+80",
            "localhost:-1",
            "local host:80",
            "http://localhost:8080",
            "::1:8080",
            "*:8080",
            "[localhost]:8080",
        ] {
            let refused = text.parse::<Address>().expect_err(text);
            assert!(refused.contains("localhost:8080"), "{refused}");
        }
        let nowhere: Address = "no-such-host.invalid:80".parse().expect("a name");
        let refused = nowhere.resolve().expect_err("no such host");
        assert!(refused.contains("no-such-host.invalid is not found"), "{refused}");
    }
}
