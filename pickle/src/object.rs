//! The objects that a pickle makes while it runs.

use std::ops::{Index, IndexMut};

use crate::budget::Budget;
use crate::error::Result;
use crate::global::Global;
use crate::tensor::{Dtype, Tensor};

/// An object; those inside it by their places among all [`Objects`], so that one may be in several
/// others, and even in itself.
pub(crate) enum Object<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Set(Vec<Id>),
    Dict { entries: Vec<(Id, Id)>, is_ordered: bool },
    Global(Global),
    Storage(Storage),
    Tensor(Box<Tensor>),
}

/// A storage: where it is in the file, and the type of its elements unless it is one of bytes.
pub(crate) struct Storage {
    pub start: u64,
    pub end: u64,
    pub dtype: Option<Dtype>,
}

/// The place of an object.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Id(u32);

/// All objects of a pickle. None is ever dropped.
#[derive(Default)]
pub(crate) struct Objects<'a>(Vec<Object<'a>>);

impl<'a> Objects<'a> {
    pub fn add(&mut self, object: Object<'a>, budget: &mut Budget) -> Result<Id> {
        budget.grow::<Object>()?;
        self.0.push(object);
        Ok(Id((self.0.len() - 1) as u32)) // the budget ends long before
    }

    /// What an object is, for errors.
    pub fn kind(&self, id: Id) -> &'static str {
        match self[id] {
            Object::None => "None",
            Object::Bool(_) => "a truth value",
            Object::Int(_) => "an integer",
            Object::Float(_) => "a number",
            Object::Text(_) => "a text",
            Object::Tuple(_) => "a tuple",
            Object::List(_) => "a list",
            Object::Set(_) => "a set",
            Object::Dict { .. } => "a dictionary",
            Object::Global(_) => "a class or function",
            Object::Storage(_) => "a storage",
            Object::Tensor(_) => "a tensor",
        }
    }
}

impl<'a> Index<Id> for Objects<'a> {
    type Output = Object<'a>;

    fn index(&self, id: Id) -> &Object<'a> {
        &self.0[id.0 as usize]
    }
}

impl<'a> IndexMut<Id> for Objects<'a> {
    fn index_mut(&mut self, id: Id) -> &mut Object<'a> {
        &mut self.0[id.0 as usize]
    }
}
