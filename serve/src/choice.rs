//! Enums as the values of flags and settings: one of a few names.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};
use strum::{EnumMessage, VariantArray};

/// An enum whose variants have names, and whose doc comments are help texts.
pub trait Choice:
    VariantArray + EnumMessage + Into<&'static str> + Copy + Send + Sync + 'static
{
}

impl<T: VariantArray + EnumMessage + Into<&'static str> + Copy + Send + Sync> Choice for T {}

/// The value parser of a flag that takes a name of `T`.
pub fn choice<T: Choice>() -> impl TypedValueParser<Value = T> {
    let values = T::VARIANTS.iter().map(|&value| {
        let possible = PossibleValue::new(value.into());
        match value.get_documentation() {
            Some(text) => possible.help(text.trim_end_matches('.')),
            None => possible,
        }
    });
    PossibleValuesParser::new(values)
        .map(|name| named(&name).expect("clap lets only the possible values through"))
}

/// Writes a setting as its name.
///
/// # Errors
/// When the serializer fails.
pub fn serialize<T: Choice, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str((*value).into())
}

/// Reads a setting by its name.
///
/// # Errors
/// When no variant has that name.
pub fn deserialize<'de, T: Choice, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    let text = String::deserialize(from)?;
    named(&text).ok_or_else(|| {
        let names: Vec<&str> = T::VARIANTS.iter().map(|&value| value.into()).collect();
        D::Error::custom(format!("{text:?} is not one of {}", names.join(", ")))
    })
}

fn named<T: Choice>(name: &str) -> Option<T> {
    T::VARIANTS.iter().copied().find(|&value| name == Into::<&str>::into(value))
}

#[cfg(test)]
mod tests {
    use hydit::runtime::BackendChoice;
    use serde::de::IntoDeserializer;
    use serde::de::value::{Error, StrDeserializer};

    use super::*;

    #[test]
    fn a_name_that_is_none_is_refused_with_those_that_are() {
        let read =
            |name: &'static str| -> StrDeserializer<'static, Error> { name.into_deserializer() };
        assert_eq!(deserialize::<BackendChoice, _>(read("tract")), Ok(BackendChoice::Tract));
        let refused = deserialize::<BackendChoice, _>(read("onnx")).expect_err("a refusal");
        assert_eq!(refused.to_string(), "\"onnx\" is not one of auto, ort, tract");
    }
}
