//! What a pickle calls: the functions that make tensors, and the classes that are called.

use crate::error::{Error, Result, shown};
use crate::global::Global;
use crate::machine::Machine;
use crate::object::{Id, Object, Storage};
use crate::tensor::{Dtype, Tensor};

impl Machine<'_, '_> {
    /// REDUCE: calls what is below the top of the stack with the tuple at the top.
    pub fn reduce(&mut self) -> Result<()> {
        let [arguments, callee] = [self.pop()?, self.pop()?];
        let Object::Global(global) = self.objects[callee] else {
            let kind = self.objects.kind(callee);
            return Err(self.wrong(format!("it calls {kind}")));
        };
        let Object::Tuple(arguments) = &self.objects[arguments] else {
            let kind = self.objects.kind(arguments);
            return Err(self.wrong(format!("arguments are {kind}; expected a tuple")));
        };
        match (global, arguments.as_slice()) {
            (Global::OrderedDict, []) => {
                self.push(Object::Dict { entries: Vec::new(), is_ordered: true })
            }
            (Global::Set, &[items]) => {
                let items = self.copy(items)?;
                self.push(Object::Set(items))
            }
            (Global::Size, &[sizes]) => {
                let sizes = self.copy(sizes)?;
                self.push(Object::Tuple(sizes))
            }
            (Global::Device, &[kind] | &[kind, _])
                if matches!(self.objects[kind], Object::Text(_)) =>
            {
                self.push_id(kind)
            }
            (Global::RebuildParameter, &[tensor, _, hooks])
                if matches!(self.objects[tensor], Object::Tensor(_)) =>
            {
                self.check_hooks(hooks)?;
                self.push_id(tensor)
            }
            (Global::RebuildTensor(1), &[storage, offset, sizes, strides]) => {
                self.tensor(storage, None, offset, sizes, strides)
            }
            (
                Global::RebuildTensor(2),
                &[storage, offset, sizes, strides, _, hooks, ref rest @ ..],
            ) if rest.len() <= 1 => {
                self.check_metadata(rest.first().copied())?;
                self.check_hooks(hooks)?;
                self.tensor(storage, None, offset, sizes, strides)
            }
            (
                Global::RebuildTensor(3),
                &[storage, offset, sizes, strides, _, hooks, dtype, ref rest @ ..],
            ) if rest.len() <= 1 => {
                self.check_metadata(rest.first().copied())?;
                self.check_hooks(hooks)?;
                let Object::Global(Global::Dtype(dtype)) = self.objects[dtype] else {
                    return Err(self.tensor_error("its element type is no torch.dtype"));
                };
                self.tensor(storage, Some(dtype), offset, sizes, strides)
            }
            (global, _) => Err(self.wrong(format!(
                "{global:?} is called with arguments that torch.save does not write"
            ))),
        }
    }

    /// NEWOBJ: an object of the class below the top of the stack. The only one is a `Namespace`, whose
    /// attributes are no weights: it stays empty.
    pub fn new_object(&mut self) -> Result<()> {
        let [arguments, class] = [self.pop()?, self.pop()?];
        let is_empty = matches!(&self.objects[arguments], Object::Tuple(items) if items.is_empty());
        let Object::Global(Global::Namespace) = self.objects[class] else {
            let kind = self.objects.kind(class);
            return Err(self.wrong(format!("instruction NEWOBJ, of {kind}")));
        };
        if !is_empty {
            return Err(self.wrong("instruction NEWOBJ with arguments"));
        }
        self.push(Object::Dict { entries: Vec::new(), is_ordered: true })
    }

    /// BUILD: sets attributes of the object below the top of the stack. Those of an `OrderedDict`,
    /// such as `_metadata` of state dicts, and of a `Namespace` are no weights, and are dropped.
    pub fn build(&mut self) -> Result<()> {
        let state = self.pop()?;
        let object = self.top()?;
        let is_ordered = matches!(self.objects[object], Object::Dict { is_ordered: true, .. });
        if is_ordered && matches!(self.objects[state], Object::Dict { .. }) {
            return Ok(());
        }
        let [object, state] = [self.objects.kind(object), self.objects.kind(state)];
        Err(self.wrong(format!("it sets the state of {object} by {state}")))
    }

    /// BINPERSID: the storage that the tuple at the top of the stack is about.
    pub fn load_storage(&mut self) -> Result<()> {
        let tuple = self.pop()?;
        let Object::Tuple(parts) = &self.objects[tuple] else {
            return Err(self.wrong("a reference to a storage that is no tuple"));
        };
        let &[tag, class, key, _, count] = parts.as_slice() else {
            return Err(self.wrong("a reference to a storage that has not five parts"));
        };
        let (
            Object::Text("storage"),
            &Object::Global(Global::Storage(dtype)),
            &Object::Text(key),
            &Object::Int(count),
        ) = (&self.objects[tag], &self.objects[class], &self.objects[key], &self.objects[count])
        else {
            return Err(self.wrong("a reference to a storage whose parts are of other types"));
        };
        let member = shown(&format!("data/{key}"));
        let missing = "is missing; download the file again";
        let found = self.archive.find(&member);
        let found =
            found.ok_or_else(|| self.tensor_error(format!("its storage `{member}` {missing}")))?;
        let size = dtype.map_or(1, Dtype::size) as u64;
        let expected = u64::try_from(count).ok().and_then(|count| count.checked_mul(size));
        if expected != Some(found.len() as u64) {
            let found = found.len();
            let problem = format!("has {found} bytes; expected {count} elements of {size}");
            let remedy = "download the file again";
            return Err(self.tensor_error(format!("its storage `{member}` {problem}: {remedy}")));
        }
        let (start, end) = (found.start as u64, found.end as u64);
        self.push(Object::Storage(Storage { start, end, dtype }))
    }

    /// Makes the view of a storage that the arguments describe. Storages of bytes come with an
    /// element type, others have one.
    fn tensor(
        &mut self,
        storage: Id,
        dtype: Option<Dtype>,
        offset: Id,
        sizes: Id,
        strides: Id,
    ) -> Result<()> {
        let &Object::Storage(Storage { start, end, dtype: own }) = &self.objects[storage] else {
            let kind = self.objects.kind(storage);
            return Err(self.tensor_error(format!("its storage is {kind}")));
        };
        let dtype = match (own, dtype) {
            (Some(dtype), None) | (None, Some(dtype)) => dtype,
            (None, None) => return Err(self.tensor_error("its storage has no element type")),
            (Some(_), Some(_)) => return Err(self.tensor_error("it has two element types")),
        };
        let &Object::Int(offset) = &self.objects[offset] else {
            let kind = self.objects.kind(offset);
            return Err(self.tensor_error(format!("its offset is {kind}; expected an integer")));
        };
        let [sizes, strides] = [self.integers(sizes)?, self.integers(strides)?];
        self.budget.take(size_of::<Tensor>() + 2 * (sizes.len() + strides.len()) * 8)?;
        let tensor = Tensor::view(dtype, start..end, offset, &sizes, &strides)
            .map_err(|problem| self.tensor_error(problem))?;
        self.push(Object::Tensor(Box::new(tensor)))
    }

    /// The integers of a tuple.
    fn integers(&mut self, tuple: Id) -> Result<Vec<i64>> {
        let numbers = match &self.objects[tuple] {
            Object::Tuple(items) if items.len() <= crate::tensor::MAX_DIMS => {
                let number = |&id: &Id| match self.objects[id] {
                    Object::Int(number) => Some(number),
                    _ => None,
                };
                items.iter().map(number).collect()
            }
            _ => None,
        };
        let wrong = "its shape or strides are no tuple of at most 64 integers";
        numbers.ok_or_else(|| self.tensor_error(wrong))
    }

    /// The items of a list or tuple.
    fn copy(&mut self, items: Id) -> Result<Vec<Id>> {
        let (Object::List(found) | Object::Tuple(found)) = &self.objects[items] else {
            let kind = self.objects.kind(items);
            return Err(self.wrong(format!("{kind}; expected a list or tuple")));
        };
        self.budget.take(found.len() * size_of::<Id>())?;
        Ok(found.clone())
    }

    /// Hooks are functions; torch saves none.
    fn check_hooks(&self, hooks: Id) -> Result<()> {
        match &self.objects[hooks] {
            Object::Dict { entries, .. } if entries.is_empty() => Ok(()),
            _ => Err(self.tensor_error("its hooks are not an empty dictionary")),
        }
    }

    /// Metadata say that the values are others than those in the storage.
    fn check_metadata(&self, metadata: Option<Id>) -> Result<()> {
        match metadata.map(|id| &self.objects[id]) {
            None | Some(Object::None) => Ok(()),
            Some(Object::Dict { entries, .. }) if entries.is_empty() => Ok(()),
            Some(_) => Err(self.tensor_error(
                "a conjugate or negative view; save its .resolve_conj().resolve_neg()",
            )),
        }
    }

    fn tensor_error(&self, problem: impl Into<String>) -> Error {
        Error::Tensor { name: shown(self.last_text()), problem: problem.into() }
    }
}
