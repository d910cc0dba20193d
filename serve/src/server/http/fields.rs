//! The JSON object of a request's body, taken apart field by field.
//!
//! Every field has one type and nothing is converted; `null` is as good as absent; a field that nobody takes
//! is refused by its name.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::ApiError;
use hydit::util::hex;

/// The fields that were not taken yet.
#[derive(Clone, Debug)]
pub struct Fields(Map<String, Value>);

impl Fields {
    /// Of a body.
    pub fn parse(body: &[u8]) -> Result<Fields, ApiError> {
        let refuse = |why: String| ApiError::new(StatusCode::BAD_REQUEST, "invalid_json", why);
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Fields(fields)),
            Ok(other) => Err(refuse(format!(
                "the body is {}; expected a JSON object, such as {{\"prompt\": \"a cat\"}}",
                kind(&other)
            ))),
            Err(error) => Err(refuse(format!("the body is not JSON: {error}"))),
        }
    }

    /// SHA-256 of what was not taken yet, in whatever order it was written.
    pub fn digest(&self) -> String {
        let sorted: BTreeMap<&String, &Value> = self.0.iter().collect();
        let json = serde_json::to_vec(&sorted).expect("it was JSON");
        hex(&Sha256::digest(json))
    }

    /// A string.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        self.take(name, "a string", |value| value.as_str().map(str::to_string))
    }

    /// An integer that is not negative.
    pub fn whole<T: TryFrom<u64>>(&mut self, name: &str) -> Result<Option<T>, ApiError> {
        let read = |value: &Value| T::try_from(as_whole::<u64>(value)?).ok();
        self.take(name, "an integer, 0 or more", read)
    }

    /// Any number.
    pub fn number(&mut self, name: &str) -> Result<Option<f64>, ApiError> {
        self.take(name, "a number", Value::as_f64)
    }

    /// `true` or `false`.
    pub fn flag(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        self.take(name, "true or false", Value::as_bool)
    }

    /// A string that `T` understands.
    pub fn parsed<T: FromStr<Err: Display>>(&mut self, name: &str) -> Result<Option<T>, ApiError> {
        let parse = |text: String| {
            text.parse().map_err(|error| ApiError::field(name, format!("{name}: {error}")))
        };
        self.text(name)?.map(parse).transpose()
    }

    /// One of `words`.
    pub fn word(&mut self, name: &str, words: &[&str]) -> Result<Option<String>, ApiError> {
        let word = self.text(name)?;
        match word.as_deref().filter(|word| !words.contains(word)) {
            None => Ok(word),
            Some(_) => {
                let message = format!("{name}: expected one of {}", words.join(", "));
                Err(ApiError::field(name, message))
            }
        }
    }

    /// `read` of the one of two names that is there.
    pub fn either<T>(
        &mut self,
        name: &str,
        other: &str,
        read: impl Fn(&mut Fields, &str) -> Result<Option<T>, ApiError>,
    ) -> Result<Option<T>, ApiError> {
        match (read(self, name)?, read(self, other)?) {
            (Some(_), Some(_)) => {
                let message = format!("{name} and {other} are the same: give one of them");
                Err(ApiError::field(other, message))
            }
            (one, two) => Ok(one.or(two)),
        }
    }

    /// Refuses what was not taken.
    pub fn finish(self) -> Result<(), ApiError> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => {
                let name: String = name.chars().take(64).collect();
                let message = format!("{name:?} is not a field here; /openapi.json lists them");
                Err(ApiError::field(&name, message))
            }
        }
    }

    fn take<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => read(&value).map(Some).ok_or_else(|| {
                let found = match &value {
                    Value::Number(number) => number.to_string(),
                    other => kind(other).to_string(),
                };
                ApiError::field(name, format!("{name}: expected {expected}, found {found}"))
            }),
        }
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

/// An integer; JSON does not tell 2.0 from 2.
pub fn as_whole<T: TryFrom<i128>>(value: &Value) -> Option<T> {
    const EXACT: f64 = (1u64 << 53) as f64;
    let whole = |number: &f64| number.fract() == 0.0 && number.abs() <= EXACT;
    let number = value.as_number()?;
    let float = || number.as_f64().filter(whole).map(|number| number as i128);
    T::try_from(number.as_i128().or_else(float)?).ok()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(json: &str) -> Fields {
        Fields::parse(json.as_bytes()).expect("an object")
    }

    fn param<T: std::fmt::Debug>(read: Result<T, ApiError>) -> String {
        read.expect_err("it is refused").param.expect("a field is named")
    }

    fn right<T>(read: Result<T, ApiError>) -> T {
        read.map_err(|error| error.message).expect("it is taken")
    }

    #[test]
    fn types_are_strict_and_null_is_absent() {
        for json in
            [r#"{"a": "4"}"#, r#"{"a": 4.5}"#, r#"{"a": 1e300}"#, r#"{"a": -4}"#, r#"{"a": [4]}"#]
        {
            assert_eq!(param(fields(json).whole::<u64>("a")), "a", "{json}");
        }
        assert_eq!(param(fields(r#"{"a": 256}"#).whole::<u8>("a")), "a");
        assert_eq!(param(fields(r#"{"a": 4}"#).text("a")), "a");
        assert_eq!(param(fields(r#"{"a": 1}"#).flag("a")), "a");
        assert_eq!(param(fields(r#"{"a": "1"}"#).number("a")), "a");
        assert_eq!(param(fields(r#"{"a": "x"}"#).word("a", &["y", "z"])), "a");
        assert_eq!(right(fields(r#"{"a": 4}"#).whole("a")), Some(4usize));
        assert_eq!(right(fields(r#"{"a": 4.0}"#).whole("a")), Some(4usize));
        assert_eq!(right(fields(r#"{"a": 4}"#).number("a")), Some(4.0));
        assert_eq!(right(fields(r#"{"a": null}"#).text("a")), None);
        assert_eq!(right(fields("{}").text("a")), None);
    }

    #[test]
    fn a_field_under_two_names_and_one_that_nobody_takes_are_refused() {
        let both = fields(r#"{"a": 1, "b": 2}"#).either("a", "b", Fields::whole::<u64>);
        assert_eq!(param(both), "b");
        assert_eq!(right(fields(r#"{"b": 2}"#).either("a", "b", Fields::whole)), Some(2u64));
        assert_eq!(param(fields(r#"{"c": 1}"#).finish()), "c");
        right(fields("{}").finish());
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
