//! Values of a request's fields, as clients write them.

use std::fmt::Display;

use serde_json::Value;

use super::MAX_SEED;
use crate::seed;
use crate::server::http::error::ApiError;

/// A number as the `f32` that it is read as. One beyond an integer stays beyond it: a bound that it
/// passes is passed after rounding too.
pub(super) fn as_f32(value: &Value) -> Value {
    let Some(exact) = value.as_f64().filter(|_| value.is_f64()) else { return value.clone() };
    let rounded = exact as f32;
    if rounded.fract() != 0.0 || f64::from(rounded) == exact {
        return value.clone();
    }
    let outward = if exact > f64::from(rounded) { rounded.next_up() } else { rounded.next_down() };
    Value::from(f64::from(outward))
}

/// A seed, for which -1 is one at random.
pub(super) fn seed_of(value: &Value) -> Result<Value, ApiError> {
    match value.as_f64() {
        Some(-1.0) => Ok(Value::from(seed::random())),
        Some(number) if number < 0.0 => Err(wrong_seed(value)),
        _ => Ok(as_f32(value)),
    }
}

pub(super) fn wrong_seed(seed: impl Display) -> ApiError {
    let message = format!("seed: {seed}; expected 0 to {MAX_SEED}, or -1 for one at random");
    ApiError::field("seed", message)
}

/// Width and height from `WIDTHxHEIGHT`.
pub(super) fn width_height(size: &str) -> Result<(usize, usize), ApiError> {
    let side = |text: &str| {
        let digits = (1..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        let number = text.parse().ok();
        number.filter(|_| digits && !text.starts_with('0'))
    };
    let sides =
        size.split_once('x').and_then(|(width, height)| Some((side(width)?, side(height)?)));
    sides.ok_or_else(|| {
        let message = "size: expected auto or WIDTHxHEIGHT in pixels, such as 1024x768";
        ApiError::field("size", message)
    })
}
