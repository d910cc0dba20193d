//! What a checkpoint says, as a tree.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use crate::error::{Error, Result, shown};
use crate::tensor::Tensor;

/// A value of a checkpoint. Texts are borrowed from the bytes of the file.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum Value<'a> {
    /// Python's `None`.
    None,
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// A text; also a `torch.dtype`, as `float32`, and the kind of a `torch.device`.
    Text(&'a str),
    /// A list, tuple, set or `torch.Size`.
    List(Vec<Value<'a>>),
    /// A dictionary in its order, ordered or not, whose keys differ from each other.
    Dict(Vec<(Key<'a>, Value<'a>)>),
    /// A tensor or `torch.nn.Parameter`.
    Tensor(Tensor),
}

/// The key of an entry of a dictionary.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key<'a> {
    /// A text, mostly the name of a tensor.
    Text(&'a str),
    /// An integer.
    Int(i64),
}

impl<'a> Value<'a> {
    /// What the dictionary has under a key that is a text; `None` also if this is no dictionary.
    pub fn get(&self, key: &str) -> Option<&Value<'a>> {
        let Value::Dict(entries) = self else { return None };
        entries.iter().find(|(other, _)| *other == Key::Text(key)).map(|(_, value)| value)
    }

    /// All tensors in this value by their names: the keys and places in lists that lead to them,
    /// with dots between. A tensor alone has the name ``.
    ///
    /// # Errors
    /// Two tensors have the same name, as keys may have dots in them.
    pub fn tensors(&self) -> Result<BTreeMap<String, &Tensor>> {
        let mut tensors = BTreeMap::new();
        collect(self, &mut String::new(), &mut tensors)?;
        Ok(tensors)
    }
}

fn collect<'v>(
    value: &'v Value,
    name: &mut String,
    tensors: &mut BTreeMap<String, &'v Tensor>,
) -> Result<()> {
    let mut below = |name: &mut String, key: Key, value| {
        let length = push_key(name, key);
        let result = collect(value, name, tensors);
        name.truncate(length);
        result
    };
    match value {
        Value::Tensor(tensor) => match tensors.insert(name.clone(), tensor) {
            None => Ok(()),
            Some(_) => {
                let problem = "two tensors have this name".to_string();
                Err(Error::Value { name: shown(name), problem })
            }
        },
        Value::Dict(entries) => {
            entries.iter().try_for_each(|(key, value)| below(name, *key, value))
        }
        Value::List(values) => {
            (0..).zip(values).try_for_each(|(place, value)| below(name, Key::Int(place), value))
        }
        _ => Ok(()),
    }
}

/// Appends a key to a name; returns the length that the name had.
pub(crate) fn push_key(name: &mut String, key: Key) -> usize {
    let length = name.len();
    if length > 0 {
        name.push('.');
    }
    match key {
        Key::Text(text) => name.push_str(text),
        Key::Int(number) => write!(name, "{number}").expect("a String takes everything"),
    }
    length
}

/// On one line, with the beginnings of long texts, lists and dictionaries only.
impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Value::None => f.write_str("None"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Int(value) => write!(f, "{value}"),
            Value::Float(value) => write!(f, "{value:?}"),
            Value::Text(text) => short_text(f, text),
            Value::List(values) => short(f, ["[", "]"], values, |f, value| write!(f, "{value:?}")),
            Value::Dict(entries) => {
                short(f, ["{", "}"], entries, |f, (key, value)| write!(f, "{key:?}: {value:?}"))
            }
            Value::Tensor(tensor) => write!(f, "{tensor:?}"),
        }
    }
}

impl fmt::Debug for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Key::Text(text) => short_text(f, text),
            Key::Int(number) => write!(f, "{number}"),
        }
    }
}

fn short_text(f: &mut fmt::Formatter, text: &str) -> fmt::Result {
    match text.char_indices().nth(60) {
        None => write!(f, "{text:?}"),
        Some((end, _)) => write!(f, "{:?}...", &text[..end]),
    }
}

fn short<T>(
    f: &mut fmt::Formatter,
    [open, close]: [&str; 2],
    items: &[T],
    item: impl Fn(&mut fmt::Formatter, &T) -> fmt::Result,
) -> fmt::Result {
    const SHOWN: usize = 6;
    f.write_str(open)?;
    for (place, shown) in items.iter().take(SHOWN).enumerate() {
        f.write_str(if place == 0 { "" } else { ", " })?;
        item(f, shown)?;
    }
    if items.len() > SHOWN {
        write!(f, ", ... ({} more)", items.len() - SHOWN)?;
    }
    f.write_str(close)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_is_one_short_line() {
        let long = "猫".repeat(100);
        let value = Value::Dict(vec![
            (Key::Text("a\n"), Value::List((0..100).map(Value::Int).collect())),
            (Key::Int(-1), Value::Text(&long)),
            (Key::Text("c"), Value::Float(1.0)),
        ]);
        let expected = "[0, 1, 2, 3, 4, 5, ... (94 more)]";
        let text = "猫".repeat(60);
        assert_eq!(
            format!("{value:?}"),
            format!(r#"{{"a\n": {expected}, -1: "{text}"..., "c": 1.0}}"#)
        );
        assert_eq!(format!("{value:#?}").lines().count(), 1);
    }
}
