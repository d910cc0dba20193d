//! The stack of the pickle machine, its marks, and its memo.

use crate::error::Result;
use crate::machine::Machine;
use crate::object::{Id, Object};

const MAX_STACK: usize = 1 << 16;
const MAX_MARKS: usize = 1 << 10;
const MAX_MEMO: usize = 1 << 20;

impl<'a> Machine<'a, '_> {
    pub fn push(&mut self, object: Object<'a>) -> Result<()> {
        let id = self.objects.add(object, self.budget)?;
        self.push_id(id)
    }

    pub fn push_id(&mut self, id: Id) -> Result<()> {
        if self.stack.len() == MAX_STACK {
            return Err(self.wrong(format!("more than {MAX_STACK} objects on the stack")));
        }
        self.stack.push(id);
        Ok(())
    }

    /// Takes the top of the stack, if it is above the last mark.
    pub fn pop(&mut self) -> Result<Id> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    pub fn top(&self) -> Result<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack[floor..].last().copied().ok_or_else(|| self.wrong("the stack is empty"))
    }

    pub fn pop_many(&mut self, count: usize) -> Result<Vec<Id>> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let from = self.stack.len().checked_sub(count).filter(|&from| from >= floor);
        let from = from.ok_or_else(|| self.wrong("the stack is empty"))?;
        self.budget.take(count * size_of::<Id>())?;
        Ok(self.stack.drain(from..).collect())
    }

    pub fn mark(&mut self) -> Result<()> {
        if self.marks.len() == MAX_MARKS {
            return Err(self.wrong(format!("more than {MAX_MARKS} marks")));
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    /// How much is on the stack above the last mark, which is removed.
    pub fn above_mark(&mut self) -> Result<usize> {
        let mark = self.marks.pop().ok_or_else(|| self.wrong("there is no mark"))?;
        Ok(self.stack.len() - mark)
    }

    pub fn tuple(&mut self, count: usize) -> Result<()> {
        let items = self.pop_many(count)?;
        self.push(Object::Tuple(items))
    }

    pub fn append(&mut self, count: usize) -> Result<()> {
        self.extend(count, "appends", |object| match object {
            Object::List(list) => Some(list),
            _ => None,
        })
    }

    pub fn add_items(&mut self, count: usize) -> Result<()> {
        self.extend(count, "adds items", |object| match object {
            Object::Set(set) => Some(set),
            _ => None,
        })
    }

    /// Moves the `count` objects on top into the one below them, where `inside` finds room; `does`
    /// is what the instruction does with them.
    fn extend(
        &mut self,
        count: usize,
        does: &str,
        inside: impl for<'o> FnOnce(&'o mut Object<'a>) -> Option<&'o mut Vec<Id>>,
    ) -> Result<()> {
        let items = self.pop_many(count)?;
        let collection = self.top()?;
        for _ in &items {
            self.budget.grow::<Id>()?;
        }
        match inside(&mut self.objects[collection]) {
            Some(inside) => inside.extend(items),
            None => {
                let kind = self.objects.kind(collection);
                return Err(self.wrong(format!("it {does} to {kind}")));
            }
        }
        Ok(())
    }

    pub fn set_items(&mut self, count: usize) -> Result<()> {
        let items = self.pop_many(count)?;
        let dict = self.top()?;
        if !items.len().is_multiple_of(2) {
            return Err(self.wrong("a key without a value"));
        }
        for _ in items.chunks(2) {
            self.budget.grow::<(Id, Id)>()?;
        }
        match &mut self.objects[dict] {
            Object::Dict { entries, .. } => {
                entries.extend(items.chunks(2).map(|pair| (pair[0], pair[1])));
            }
            _ => {
                let kind = self.objects.kind(dict);
                return Err(self.wrong(format!("it sets an item of {kind}")));
            }
        }
        Ok(())
    }

    pub fn put(&mut self, place: u32) -> Result<()> {
        let id = self.top()?;
        let place = place as usize;
        if let Some(put) = self.memo.get_mut(place) {
            *put = id;
            return Ok(());
        }
        if place != self.memo.len() || place >= MAX_MEMO {
            let problem = format!(
                "memo {place} after {}; expected one after another, at most {MAX_MEMO}",
                self.memo.len()
            );
            return Err(self.wrong(problem));
        }
        self.budget.grow::<Id>()?;
        self.memo.push(id);
        Ok(())
    }

    pub fn get(&mut self, place: u32) -> Result<()> {
        let Some(&id) = self.memo.get(place as usize) else {
            return Err(self.wrong(format!("memo {place}, where nothing was put")));
        };
        self.push_id(id)
    }

    /// The last text on the stack: the key of what is being made.
    pub fn last_text(&self) -> &'a str {
        let mut texts = self.stack.iter().rev().filter_map(|&id| match self.objects[id] {
            Object::Text(text) => Some(text),
            _ => None,
        });
        texts.next().unwrap_or_default()
    }
}
