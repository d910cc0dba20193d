//! The pickle machine: a stack, a memo, and the instructions that `torch.save` writes.
//!
//! The instructions are those of Python's `pickletools`, in protocols 2 to 5. What others there are
//! is refused by name. What they do to the stack is in `stack.rs`, what is called in `rebuild.rs`.

use crate::archive::Archive;
use crate::budget::Budget;
use crate::bytes::Cursor;
use crate::error::{Error, Result, shown};
use crate::global::Global;
use crate::object::{Id, Object, Objects};

const MAX_TEXT: usize = 1 << 20;
/// The most bytes of a module or a name in it.
const MAX_GLOBAL: usize = 256;

/// Runs a pickle to its end; returns all objects that it made, and the one that it is about.
pub(crate) fn run<'a>(
    pickle: &'a [u8],
    archive: &Archive<'a>,
    budget: &mut Budget,
) -> Result<(Objects<'a>, Id)> {
    let mut machine = Machine {
        cursor: Cursor::new(pickle, 0),
        at: 0,
        frame: None,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: Vec::new(),
        objects: Objects::default(),
        archive,
        budget,
    };
    machine.begin()?;
    loop {
        machine.at = machine.cursor.at();
        let code = machine.u8()?;
        if code == b'.' {
            let root = machine.end()?;
            return Ok((machine.objects, root));
        }
        machine.step(code)?;
        machine.check_frame()?;
    }
}

pub(crate) struct Machine<'a, 'b> {
    cursor: Cursor<'a>,
    /// Where the instruction begins.
    at: usize,
    /// Where the frame ends that the instructions are in.
    frame: Option<usize>,
    pub stack: Vec<Id>,
    /// How high the stack was at each mark.
    pub marks: Vec<usize>,
    pub memo: Vec<Id>,
    pub objects: Objects<'a>,
    pub archive: &'b Archive<'a>,
    pub budget: &'b mut Budget,
}

impl<'a> Machine<'a, '_> {
    fn begin(&mut self) -> Result<()> {
        if self.cursor.u8() != Some(0x80) {
            return Err(self.wrong("it is no pickle of protocol 2 or newer"));
        }
        match self.u8()? {
            2..=5 => Ok(()),
            protocol => Err(self.wrong(format!("protocol {protocol}; expected 2 to 5"))),
        }
    }

    fn end(&mut self) -> Result<Id> {
        if self.frame.is_some_and(|end| end != self.cursor.at()) {
            return Err(self.wrong("the pickle ends, but not its frame"));
        }
        if !self.cursor.is_at_end() {
            return Err(self.wrong("something follows the end of the pickle"));
        }
        let root = self.pop()?;
        if !self.stack.is_empty() || !self.marks.is_empty() {
            return Err(self.wrong("the pickle ends with more than one object"));
        }
        Ok(root)
    }

    fn step(&mut self, code: u8) -> Result<()> {
        match code {
            0x95 => self.begin_frame(),
            b'(' => self.mark(),

            b'N' => self.push(Object::None),
            0x88 => self.push(Object::Bool(true)),
            0x89 => self.push(Object::Bool(false)),
            b'K' => self.u8().and_then(|value| self.push(Object::Int(value.into()))),
            b'M' => self.read(Cursor::u16).and_then(|value| self.push(Object::Int(value.into()))),
            b'J' => self.read(Cursor::i32).and_then(|value| self.push(Object::Int(value.into()))),
            0x8a => self.long(),
            b'G' => self.read(Cursor::f64_be).and_then(|value| self.push(Object::Float(value))),
            0x8c => self.u8().and_then(|length| self.text(length.into())),
            b'X' => self.u32().and_then(|length| self.text(length.into())),
            0x8d => self.read(Cursor::u64).and_then(|length| self.text(length)),

            b')' => self.push(Object::Tuple(Vec::new())),
            0x85 => self.tuple(1),
            0x86 => self.tuple(2),
            0x87 => self.tuple(3),
            b't' => self.above_mark().and_then(|count| self.tuple(count)),
            b']' => self.push(Object::List(Vec::new())),
            b'a' => self.append(1),
            b'e' => self.above_mark().and_then(|count| self.append(count)),
            0x8f => self.push(Object::Set(Vec::new())),
            0x90 => self.above_mark().and_then(|count| self.add_items(count)),
            b'}' => self.push(Object::Dict { entries: Vec::new(), is_ordered: false }),
            b's' => self.set_items(2),
            b'u' => self.above_mark().and_then(|count| self.set_items(count)),

            b'q' => self.u8().and_then(|place| self.put(place.into())),
            b'r' => self.u32().and_then(|place| self.put(place)),
            0x94 => self.put(self.memo.len() as u32),
            b'h' => self.u8().and_then(|place| self.get(place.into())),
            b'j' => self.u32().and_then(|place| self.get(place)),

            b'c' => self.global_of_lines(),
            0x93 => self.global_of_stack(),
            b'R' => self.reduce(),
            0x81 => self.new_object(),
            b'b' => self.build(),
            b'Q' => self.load_storage(),

            _ => Err(self
                .wrong(format!("{}, which torch.save does not write for weights", name_of(code)))),
        }
    }

    fn begin_frame(&mut self) -> Result<()> {
        let length = self.read(Cursor::u64)?;
        if self.frame.is_some() {
            return Err(self.wrong("a frame inside a frame"));
        }
        let end = usize::try_from(length).ok().and_then(|l| self.cursor.at().checked_add(l));
        let end = end.filter(|&end| end <= self.cursor.len());
        let beyond = || self.wrong(format!("a frame of {length} bytes is cut off"));
        self.frame = Some(end.ok_or_else(beyond)?);
        Ok(())
    }

    fn check_frame(&mut self) -> Result<()> {
        match self.frame {
            Some(end) if self.cursor.at() > end => {
                Err(self.wrong("an instruction goes beyond its frame"))
            }
            Some(end) if self.cursor.at() == end => {
                self.frame = None;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn long(&mut self) -> Result<()> {
        let length = self.u8()?;
        let digits = self.read(|cursor| cursor.take(length.into()))?;
        if digits.len() > 8 {
            let problem = format!("an integer of {} bytes; expected at most 8", digits.len());
            return Err(self.wrong(problem));
        }
        let is_negative = digits.last().is_some_and(|last| last & 0x80 != 0);
        let mut value = [if is_negative { 0xff } else { 0 }; 8];
        value[..digits.len()].copy_from_slice(digits);
        self.push(Object::Int(i64::from_le_bytes(value)))
    }

    fn text(&mut self, length: u64) -> Result<()> {
        if length > MAX_TEXT as u64 {
            let problem = format!("a text of {length} bytes; expected at most {MAX_TEXT}");
            return Err(self.wrong(problem));
        }
        let text = self.read(|cursor| cursor.take(length as usize))?;
        let text = str::from_utf8(text).map_err(|_| self.wrong("a text that is not UTF-8"))?;
        self.push(Object::Text(text))
    }

    fn global_of_lines(&mut self) -> Result<()> {
        let mut line = || {
            let line = self.cursor.line(MAX_GLOBAL + 1)?;
            str::from_utf8(line).ok()
        };
        match line().zip(line()) {
            Some((module, name)) => self.global(module, name),
            None => Err(self.wrong(format!(
                "the name of a class or function is cut off, longer than {MAX_GLOBAL} bytes or no \
                 text"
            ))),
        }
    }

    fn global_of_stack(&mut self) -> Result<()> {
        let [name, module] = [self.pop()?, self.pop()?];
        match (&self.objects[module], &self.objects[name]) {
            (&Object::Text(module), &Object::Text(name))
                if module.len().max(name.len()) <= MAX_GLOBAL =>
            {
                self.global(module, name)
            }
            (Object::Text(_), Object::Text(_)) => Err(self.wrong(format!(
                "the name of a class or function has more than {MAX_GLOBAL} bytes"
            ))),
            _ => Err(self.wrong("the name of a class or function is no text")),
        }
    }

    fn global(&mut self, module: &str, name: &str) -> Result<()> {
        let refusal = || Error::Global { at: self.at, name: shown(&format!("{module}.{name}")) };
        let global = Global::find(module, name).ok_or_else(refusal)?;
        self.push(Object::Global(global))
    }

    fn u8(&mut self) -> Result<u8> {
        self.read(Cursor::u8)
    }

    fn u32(&mut self) -> Result<u32> {
        self.read(Cursor::u32)
    }

    fn read<T>(&mut self, part: impl FnOnce(&mut Cursor<'a>) -> Option<T>) -> Result<T> {
        part(&mut self.cursor).ok_or_else(|| self.wrong("the pickle is cut off"))
    }

    /// The error of this instruction.
    pub fn wrong(&self, problem: impl Into<String>) -> Error {
        Error::Pickle { at: self.at, problem: problem.into() }
    }
}

/// An instruction that is not run, by its name in `pickletools`.
fn name_of(code: u8) -> String {
    let name = match code {
        0x80 => "a second PROTO",
        b'0' => "POP",
        b'1' => "POP_MARK",
        b'2' => "DUP",
        b'i' => "INST",
        b'o' => "OBJ",
        0x92 => "NEWOBJ_EX",
        0x82..=0x84 => "EXT",
        b'P' => "PERSID",
        b'I' => "INT",
        b'L' => "LONG",
        0x8b => "LONG4",
        b'F' => "FLOAT",
        b'S' | b'T' | b'U' => "STRING, a text of Python 2",
        b'V' => "UNICODE",
        b'B' | b'C' | 0x8e | 0x96 => "a bytes object",
        0x97 | 0x98 => "a buffer outside of the pickle",
        b'd' => "DICT",
        b'l' => "LIST",
        b'g' => "GET",
        b'p' => "PUT",
        0x91 => "FROZENSET",
        _ => return format!("instruction {code:#04x}"),
    };
    format!("instruction {name}")
}
