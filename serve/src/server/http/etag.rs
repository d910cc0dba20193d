//! ETags: files that a client has already are not sent again.

use axum::http::{HeaderMap, HeaderValue, header};

/// The ETag of a file with this SHA-256, hexadecimal.
pub fn etag(sha256: &str) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{sha256}\"")).expect("hexadecimal")
}

/// The same of a file that is sent in other codings too.
pub fn weak_etag(sha256: &str) -> HeaderValue {
    HeaderValue::from_str(&format!("W/\"{sha256}\"")).expect("hexadecimal")
}

/// Whether the client has the file of this ETag, as its request says.
pub fn has(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let tags = headers.get_all(header::IF_NONE_MATCH).iter();
    let mut tags = tags.flat_map(|tags| tags.as_bytes().split(|byte| *byte == b','));
    tags.any(|tag| *etag == tag.trim_ascii())
}
