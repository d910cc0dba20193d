//! API keys, as they are written and as they are kept.

use std::fmt;
use std::path::Path;

use hydit::util::hex;
use hydit_input::file;
use sha2::{Digest, Sha256};

/// The largest file of keys that is read.
const MAX_BYTES: u64 = 1 << 20;
/// Minimum number of characters of a secret.
const SHORTEST: usize = 16;
/// Name of all clients where no key is needed.
pub(in crate::server) const ANONYMOUS: &str = "anonymous";

/// An API key.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Name of its owner in logs and jobs. Keys of one name have one owner, so that a key can be
    /// replaced.
    pub name: String,
    /// What the owner sends.
    pub secret: String,
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=***", self.name)
    }
}

/// Reads keys, each `[NAME=]SECRET`.
///
/// # Errors
/// Says which key is wrong, but never its text.
pub fn parse<'a>(keys: impl IntoIterator<Item = &'a str>) -> Result<Vec<ApiKey>, String> {
    let mut parsed: Vec<ApiKey> = Vec::new();
    for (index, text) in keys.into_iter().enumerate() {
        let refuse = |why: String| Err(format!("key {}: {why}", index + 1));
        let (name, secret) = match text.split_once('=') {
            Some((name, secret)) => (name.to_string(), secret),
            None => (default_name(text), text),
        };
        if !is_name(&name) || name == ANONYMOUS {
            return refuse(format!(
                "its name must be 1 to 64 of A-Z a-z 0-9 . _ - and not {ANONYMOUS}; \
                 a secret that contains = needs a name"
            ));
        }
        if secret.len() < SHORTEST || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            return refuse(format!(
                "expected a secret of {SHORTEST} or more ASCII characters without spaces, \
                 such as `openssl rand -hex 32` prints"
            ));
        }
        if let Some(earlier) = parsed.iter().position(|key| key.secret == secret) {
            return refuse(format!("the same secret as key {}", earlier + 1));
        }
        parsed.push(ApiKey { name, secret: secret.to_string() });
    }
    Ok(parsed)
}

/// The lines of a file of keys.
///
/// # Errors
/// When it cannot be read, or has no key in it.
pub fn read(path: &Path) -> Result<Vec<String>, String> {
    let text = file::read_text(path, MAX_BYTES).map_err(|error| error.to_string())?;
    let lines = text.lines().map(str::trim);
    let keys = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Vec<String> = keys.map(String::from).collect();
    if keys.is_empty() {
        return Err("no key in it, which would let anyone in; write one a line".to_string());
    }
    Ok(keys)
}

/// Whether `text` is a plain word: safe in logs, headers and file names.
pub(in crate::server) fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// The name of a key without one: the same after a restart, wherever the key stands.
fn default_name(secret: &str) -> String {
    format!("key-{}", hex(&Sha256::digest(secret)[..4]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef";

    #[test]
    fn a_key_has_the_name_it_was_given_or_one_that_stays() {
        let keys = parse(["mary=0123456789abcdef=", "fedcba9876543210"]).expect("good keys");
        assert_eq!((keys[0].name.as_str(), keys[0].secret.as_str()), ("mary", "0123456789abcdef="));
        let alone = parse(["fedcba9876543210"]).expect("a good key");
        assert_eq!(keys[1], alone[0]);
        assert_eq!(alone[0].name.len(), "key-".len() + 8);
    }

    #[test]
    fn bad_keys_are_refused_and_not_told() {
        let long = "n".repeat(65) + "=" + SECRET;
        for bad in [
            "short",
            "mary=short",
            "=0123456789abcdef",
            "a b=0123456789abcdef",
            "0123456789 abcdef",
            "anonymous=0123456789abcdef",
            "0123456789abcdef0123456789abcdef==",
            long.as_str(),
        ] {
            let told = parse([bad]).expect_err(bad);
            assert!(told.starts_with("key 1: ") && !told.contains(bad), "{told}");
        }
        let told = parse([SECRET, "other=0123456789abcdef"]).expect_err("twice the same");
        assert!(told.contains("key 2: the same secret as key 1"), "{told}");
    }

    #[test]
    fn keys_are_not_printed() {
        let keys = parse([SECRET]).expect("a good key");
        assert!(!format!("{keys:?}").contains(SECRET));
    }
}
