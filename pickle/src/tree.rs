//! The objects of a pickle as a tree of values.

use crate::budget::Budget;
use crate::error::{Error, Result, shown};
use crate::global::Global;
use crate::object::{Id, Object, Objects};
use crate::tensor::Tensor;
use crate::value::{Key, Value, push_key};

const MAX_DEPTH: usize = 64;
/// The most bytes of the keys that lead to a value, with dots between.
const MAX_NAME: usize = 512;

/// What an entry of the map of tensors takes beside its name, with the map's own nodes.
const TENSOR_ENTRY: usize = 128;

/// Copies `root` and what is in it out of `objects`. An object that is in several others comes out
/// as often.
pub(crate) fn grow<'a>(objects: &Objects<'a>, root: Id, budget: &mut Budget) -> Result<Value<'a>> {
    Tree { objects, budget, path: Vec::new(), name: String::new() }.value(root)
}

struct Tree<'a, 'b> {
    objects: &'b Objects<'a>,
    budget: &'b mut Budget,
    /// The objects that the value is in.
    path: Vec<Id>,
    /// The keys that lead to the value, with dots between.
    name: String,
}

impl<'a> Tree<'a, '_> {
    fn value(&mut self, id: Id) -> Result<Value<'a>> {
        let objects = self.objects;
        Ok(match &objects[id] {
            Object::None => Value::None,
            Object::Bool(value) => Value::Bool(*value),
            Object::Int(value) => Value::Int(*value),
            Object::Float(value) => Value::Float(*value),
            Object::Text(text) => Value::Text(text),
            Object::Global(Global::Dtype(dtype)) => Value::Text(dtype.name()),
            Object::Tuple(items) | Object::List(items) | Object::Set(items) => {
                self.enter(id)?;
                self.budget.take(items.len() * size_of::<Value>())?;
                let mut values = Vec::with_capacity(items.len());
                for (place, &item) in items.iter().enumerate() {
                    values.push(self.below(Key::Int(place as i64), item)?);
                }
                self.path.pop();
                Value::List(values)
            }
            Object::Dict { entries, .. } => {
                self.enter(id)?;
                self.budget.take(entries.len() * size_of::<(Key, Value)>())?;
                let mut values = Vec::with_capacity(entries.len());
                for &(key, value) in entries {
                    let key = self.key(key)?;
                    values.push((key, self.below(key, value)?));
                }
                self.check_keys(&values)?;
                self.path.pop();
                Value::Dict(values)
            }
            Object::Tensor(tensor) => {
                let numbers = 2 * tensor.shape.len() * size_of::<usize>();
                self.budget.take(numbers + self.name.len() + TENSOR_ENTRY)?;
                Value::Tensor(Tensor::clone(tensor))
            }
            Object::Global(global) => {
                return Err(self.wrong(format!("the class or function {global:?} is no value")));
            }
            Object::Storage(_) => {
                return Err(self.wrong("a storage without a tensor"));
            }
        })
    }

    fn enter(&mut self, id: Id) -> Result<()> {
        if self.path.contains(&id) {
            return Err(self.wrong("it contains itself"));
        }
        if self.path.len() == MAX_DEPTH {
            return Err(self.wrong(format!("nested more than {MAX_DEPTH} deep")));
        }
        self.path.push(id);
        Ok(())
    }

    fn below(&mut self, key: Key, id: Id) -> Result<Value<'a>> {
        let long = |key: &str| key.len() > MAX_NAME;
        if matches!(key, Key::Text(text) if long(text)) {
            return Err(self.wrong(format!("a key in it has more than {MAX_NAME} bytes")));
        }
        let length = push_key(&mut self.name, key);
        if long(&self.name) {
            return Err(self.wrong(format!("a name of more than {MAX_NAME} bytes")));
        }
        let value = self.value(id)?;
        self.name.truncate(length);
        Ok(value)
    }

    fn key(&self, id: Id) -> Result<Key<'a>> {
        match self.objects[id] {
            Object::Text(text) => Ok(Key::Text(text)),
            Object::Int(number) => Ok(Key::Int(number)),
            _ => {
                let kind = self.objects.kind(id);
                Err(self.wrong(format!("a key is {kind}; expected a text or an integer")))
            }
        }
    }

    fn check_keys(&mut self, entries: &[(Key<'a>, Value<'a>)]) -> Result<()> {
        self.budget.take(entries.len() * size_of::<Key>())?;
        let mut keys: Vec<Key> = entries.iter().map(|(key, _)| *key).collect();
        keys.sort_unstable();
        match keys.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(self.wrong(format!("the key {:?} is in it twice", pair[0]))),
            None => Ok(()),
        }
    }

    fn wrong(&self, problem: impl Into<String>) -> Error {
        Error::Value { name: shown(&self.name), problem: problem.into() }
    }
}
