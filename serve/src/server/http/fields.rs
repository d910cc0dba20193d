//! The JSON object of a request's body, read by serde.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use hydit::util::hex;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use serde_path_to_error::Segment;
use sha2::{Digest, Sha256};

use super::error::ApiError;

/// Names that clients understand for the types at the end of serde's messages.
const TYPES: [(&str, &str); 5] = [
    ("usize", "an integer, 0 or more"),
    ("u64", "an integer, 0 or more"),
    ("u8", "an integer, 0 to 255"),
    ("f32", "a number"),
    ("f64", "a number"),
];

/// The fields of a body.
#[derive(Clone, Debug)]
pub struct Fields(pub Map<String, Value>);

impl Fields {
    /// Reads a body that must be a JSON object.
    ///
    /// # Errors
    /// 400 with the code `invalid_json`.
    pub fn parse(body: &[u8]) -> Result<Fields, ApiError> {
        let fields = serde_json::from_slice(body).map_err(|error| {
            let expected = "expected a JSON object, such as {\"prompt\": \"a cat\"}";
            let message = format!("the body cannot be read: {error}; {expected}");
            ApiError::new(StatusCode::BAD_REQUEST, "invalid_json", message)
        })?;
        Ok(Fields(fields))
    }

    /// SHA-256 of the fields, in whatever order they were written.
    pub fn digest(&self) -> String {
        let sorted: BTreeMap<&String, &Value> = self.0.iter().collect();
        let json = serde_json::to_vec(&sorted).expect("it was JSON");
        hex(&Sha256::digest(json))
    }
}

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Fields, ApiError> {
        let content_type = request.headers().get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or("");
        let essence = content_type.split(';').next().unwrap_or("").trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            return Err(ApiError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_content_type",
                "the body must be JSON, with the header content-type: application/json",
            ));
        }
        let body = Bytes::from_request(request, state).await;
        Fields::parse(&body.expect("the body was read before the handler"))
    }
}

/// Reads a struct from fields. Integers may be written as 2.0, which JSON does not tell from 2.
///
/// # Errors
/// 400 that names the field.
pub fn read<T: DeserializeOwned>(fields: Map<String, Value>) -> Result<T, ApiError> {
    let fields = fields.into_iter().map(|(name, value)| match as_integer(&value) {
        Some(integer) => (name, integer),
        None => (name, value),
    });
    serde_path_to_error::deserialize(Value::Object(fields.collect())).map_err(|error| {
        let name = match error.path().iter().next() {
            Some(Segment::Map { key }) => key.clone(),
            _ => String::new(),
        };
        ApiError::field(&name, format!("{name}: {}", in_words(error.inner())))
    })
}

/// What serde says of a field, without marks and the names of Rust's types.
pub fn in_words(error: &serde_json::Error) -> String {
    let message = error.to_string().replace('`', "");
    TYPES
        .iter()
        .find_map(|(rust, words)| Some(message.strip_suffix(rust)?.to_string() + words))
        .unwrap_or(message)
}

/// The error for a field that no struct reads.
pub fn unknown(name: &str) -> ApiError {
    let name: String = name.chars().take(64).collect();
    ApiError::field(&name, format!("{name:?} is not a field here; /openapi.json lists them"))
}

/// A number without a fraction that JSON readers keep exactly, as an integer.
pub fn as_integer(value: &Value) -> Option<Value> {
    const EXACT: f64 = (1u64 << 53) as f64;
    let number = value.as_f64().filter(|number| number.fract() == 0.0 && number.abs() <= EXACT)?;
    Some(Value::from(number as i64))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default)]
    struct Example {
        whole: Option<u64>,
        small: Option<u8>,
        number: Option<f64>,
        text: Option<String>,
        flag: Option<bool>,
        #[serde(flatten)]
        rest: Map<String, Value>,
    }

    fn example(body: &Value) -> Result<Example, ApiError> {
        read(Fields::parse(body.to_string().as_bytes())?.0)
    }

    #[test]
    fn types_are_strict_and_null_is_absent() {
        for (name, value, words) in [
            ("whole", json!("4"), "expected an integer, 0 or more"),
            ("whole", json!(4.5), "expected an integer, 0 or more"),
            ("whole", json!(1e300), "expected an integer, 0 or more"),
            ("whole", json!(-4), "expected an integer, 0 or more"),
            ("whole", json!(-4.0), "expected an integer, 0 or more"),
            ("whole", json!([4]), "expected an integer, 0 or more"),
            ("small", json!(256), "expected an integer, 0 to 255"),
            ("number", json!("1"), "expected a number"),
            ("text", json!(4), "expected a string"),
            ("flag", json!(1), "expected a boolean"),
        ] {
            let error = example(&json!({ name: value })).expect_err("it is refused");
            assert_eq!(error.param.as_deref(), Some(name), "{value}");
            assert!(error.message.starts_with(&format!("{name}: ")), "{}", error.message);
            assert!(error.message.ends_with(words), "{}", error.message);
        }
        let read = example(&json!({ "whole": 4.0, "number": 4, "text": null, "more": 1.5 }));
        let rest = Map::from_iter([("more".to_string(), json!(1.5))]);
        let (whole, number) = (Some(4), Some(4.0));
        assert_eq!(
            read.expect("it is read"),
            Example { whole, number, rest, ..Example::default() }
        );
        let large = example(&json!({ "whole": u64::MAX })).expect("it is read");
        assert_eq!(large.whole, Some(u64::MAX), "not rounded on the way");
    }

    #[test]
    fn a_body_that_is_no_object_is_refused() {
        let deep = "[".repeat(100_000);
        for body in ["", "{", "[]", "4", "{\"a\": 1} x", "\u{feff}{}", &deep] {
            let error = Fields::parse(body.as_bytes()).expect_err("it is refused");
            assert_eq!(error.code, "invalid_json", "{body}");
        }
    }
}
