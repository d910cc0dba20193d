//! The members of a checkpoint's zip archive, and where they are.
//!
//! The `zip` crate looks for a directory and takes the first that it finds. Here an archive must
//! have one reading only: its members, the directory and its end follow each other without a gap
//! from the first byte to the last, as `torch.save` writes them, and each member is told the same
//! three times: before it, after it and in the directory. Sums are not compared, since torch can
//! leave them out.

use std::iter;
use std::ops::Range;

use crate::budget::Budget;
use crate::bytes::Cursor;
use crate::directory::{Directory, Entry, broken, member, zip64};
use crate::error::Result;
use crate::recognize::TORCHSCRIPT;

const LOCAL: u32 = 0x0403_4b50;
const DESCRIPTOR: u32 = 0x0807_4b50;

/// Flag: sums and sizes are told after the member.
const HAS_DESCRIPTOR: u16 = 1 << 3;
/// Flag: the name is UTF-8.
const IS_UTF8: u16 = 1 << 11;
/// Flag: the member is encrypted.
const IS_ENCRYPTED: u16 = 1;

/// The members of an archive, without the name of the folder that all of them are in.
pub(crate) struct Archive<'a> {
    bytes: &'a [u8],
    /// In the order of [`folded`] names.
    members: Vec<Member<'a>>,
}

struct Member<'a> {
    name: &'a str,
    range: Range<usize>,
}

impl<'a> Archive<'a> {
    /// Reads the directory of an archive and compares it with all of its members.
    pub fn open(bytes: &'a [u8], budget: &mut Budget) -> Result<Self> {
        let directory = Directory::find(bytes)?;
        let entries = directory.entries(bytes, budget)?;
        let Some(folder) = entries.first().map(|entry| folder(entry.name)) else {
            return Err(broken("it has no members"));
        };
        // First, since its code may be compressed.
        if entries.iter().any(|entry| is_of_torchscript(entry.name)) {
            return Err(TORCHSCRIPT);
        }
        budget.take(entries.len() * size_of::<Member>())?;
        let mut members = Vec::with_capacity(entries.len());
        let mut end = 0;
        for entry in &entries {
            let name = entry.name.strip_prefix(folder).filter(|_| !folder.is_empty());
            let outside = "it is in no folder, or in another than the member before it";
            let name = name.ok_or_else(|| member(entry.name, outside))?;
            let range;
            (range, end) = locate(&bytes[..directory.range.start], entry, end)?;
            members.push(Member { name, range });
        }
        if end != directory.range.start {
            return Err(broken("there is something between its members and its directory"));
        }
        members.sort_unstable_by(|a, b| folded(a.name).cmp(folded(b.name)));
        let twice = members.windows(2).find(|pair| folded(pair[0].name).eq(folded(pair[1].name)));
        match twice {
            Some(pair) => Err(member(pair[0].name, "its name is there twice")),
            None => Ok(Self { bytes, members }),
        }
    }

    /// Where the member `name` is in the file.
    pub fn find(&self, name: &str) -> Option<Range<usize>> {
        let found = self.members.binary_search_by(|member| folded(member.name).cmp(folded(name)));
        let member = &self.members[found.ok()?];
        (member.name == name).then(|| member.range.clone())
    }

    /// The bytes of the member `name`.
    pub fn read(&self, name: &str) -> Option<&'a [u8]> {
        self.find(name).map(|range| &self.bytes[range])
    }

    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        self.members.iter().map(|member| member.name)
    }
}

/// A name as torch compares it: without regard to case.
fn folded(name: &str) -> impl Iterator<Item = u8> {
    name.bytes().map(|byte| byte.to_ascii_lowercase())
}

/// The first part of a name, with its `/`.
fn folder(name: &str) -> &str {
    &name[..name.find('/').map_or(0, |slash| slash + 1)]
}

fn is_of_torchscript(name: &str) -> bool {
    let name = name.split_once('/').map_or(name, |(_, rest)| rest);
    matches!(name, "constants.pkl" | "model.json") || name.starts_with("code/")
}

/// Where the data of a member is, and where what belongs to it ends. It must begin at `start` and
/// be as the directory says.
fn locate(bytes: &[u8], entry: &Entry, start: usize) -> Result<(Range<usize>, usize)> {
    let wrong = |problem: &str| member(entry.name, problem);
    if entry.flags & IS_ENCRYPTED != 0 {
        return Err(wrong("it is encrypted"));
    }
    if entry.method != 0 {
        return Err(wrong(
            "it is compressed, which torch.save never does: unpack it, save it anew",
        ));
    }
    if entry.flags & !(HAS_DESCRIPTOR | IS_UTF8) != 0 || entry.stored_size != entry.size {
        return Err(wrong("it is stored in a way that torch.save does not know"));
    }
    if entry.offset < start as u64 {
        return Err(wrong("it overlaps what is before it, or is out of order"));
    }
    if entry.offset > start as u64 {
        return Err(wrong("there is something before it that belongs to no member"));
    }
    let mut cursor = Cursor::new(bytes, start);
    if !agrees(&mut cursor, entry)? {
        return Err(wrong("what is told before it is not what the directory says"));
    }
    let begin = cursor.at();
    let size = usize::try_from(entry.size).ok();
    if size.and_then(|size| cursor.take(size)).is_none() {
        return Err(wrong("its size is beyond the archive"));
    }
    let range = begin..cursor.at();
    if entry.flags & HAS_DESCRIPTOR != 0 && !ends_so(&mut cursor, entry) {
        return Err(wrong("what is told after it is not what the directory says"));
    }
    Ok((range, cursor.at()))
}

/// Whether the header of a member at the cursor, which moves behind it, says what its entry says.
fn agrees(cursor: &mut Cursor, entry: &Entry) -> Result<bool> {
    let Some(header) = local(cursor) else { return Ok(false) };
    if header.name != entry.name.as_bytes() {
        return Ok(false);
    }
    let later = entry.flags & HAS_DESCRIPTOR != 0;
    let mut long = zip64(entry.name, header.extra)?;
    let mut sizes = [header.size, header.stored_size].into_iter();
    let sizes_agree = if later {
        // torch writes zeros, and beyond 4 GiB the size or the offset into the extra field.
        let known = [0, entry.size, entry.offset];
        sizes.all(|size| size == u32::MAX || known[..2].contains(&size.into()))
            && iter::from_fn(|| long.u64()).all(|size| known.contains(&size))
    } else {
        sizes.all(|size| match size {
            u32::MAX => long.u64() == Some(entry.size),
            size => u64::from(size) == entry.size,
        })
    };
    Ok(sizes_agree
        && header.flags == entry.flags
        && header.method == entry.method
        && (header.crc == entry.crc || (later && header.crc == 0)))
}

struct Local<'a> {
    flags: u16,
    method: u16,
    crc: u32,
    stored_size: u32,
    size: u32,
    name: &'a [u8],
    extra: &'a [u8],
}

fn local<'a>(cursor: &mut Cursor<'a>) -> Option<Local<'a>> {
    (cursor.u32()? == LOCAL).then_some(())?;
    cursor.take(2)?; // version
    let [flags, method] = [cursor.u16()?, cursor.u16()?];
    cursor.take(4)?; // time and date
    let [crc, stored_size, size] = [cursor.u32()?, cursor.u32()?, cursor.u32()?];
    let [name, extra] = [cursor.u16()?, cursor.u16()?];
    let name = cursor.take(name.into())?;
    let extra = cursor.take(extra.into())?;
    Some(Local { flags, method, crc, stored_size, size, name, extra })
}

/// Whether sum and sizes follow at the cursor, which moves behind them, with 4 or 8 bytes a size.
fn ends_so(cursor: &mut Cursor, entry: &Entry) -> bool {
    if cursor.u32() != Some(DESCRIPTOR) || cursor.u32() != Some(entry.crc) {
        return false;
    }
    let sizes = Some([entry.size; 2]);
    let mut short = cursor.clone();
    let both = short.u32().zip(short.u32());
    if both.map(|(stored, size)| [stored.into(), size.into()]) == sizes {
        *cursor = short;
        return true;
    }
    cursor.u64().zip(cursor.u64()).map(|(stored, size)| [stored, size]) == sizes
}
