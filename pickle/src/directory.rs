//! The central directory of a zip archive.

use std::ops::Range;

use crate::budget::Budget;
use crate::bytes::Cursor;
use crate::error::{Error, Result};

const END: u32 = 0x0605_4b50;
const END_SIZE: usize = 22;
const END64: u32 = 0x0606_4b50;
const END64_SIZE: usize = 56;
const LOCATOR64: u32 = 0x0706_4b50;
const LOCATOR64_SIZE: usize = 20;
const ENTRY: u32 = 0x0201_4b50;
const ENTRY_SIZE: usize = 46;

/// The most members of an archive: each storage of a checkpoint is one.
const MAX_ENTRIES: u64 = 1 << 16;
const MAX_NAME: usize = 512;

/// Identifier of the extra field with sizes of 64 bits.
const ZIP64: u16 = 0x0001;
/// Identifier of the extra field with a second name.
const UNICODE_NAME: u16 = 0x7075;

/// Where the directory is, and how many entries it has.
pub(crate) struct Directory {
    pub range: Range<usize>,
    count: u64,
}

/// What the directory says of a member.
pub(crate) struct Entry<'a> {
    pub name: &'a str,
    pub flags: u16,
    pub method: u16,
    pub crc: u32,
    pub stored_size: u64,
    pub size: u64,
    pub offset: u64,
}

impl Directory {
    /// Finds the directory by its end, which must be that of the file.
    pub fn find(bytes: &[u8]) -> Result<Self> {
        let end = bytes.len().checked_sub(END_SIZE).ok_or_else(|| broken("it is cut off"))?;
        let found = parse_end(bytes, end).filter(|fields| fields.comment == 0);
        let short = found.ok_or_else(|| match last_end(bytes) {
            Some(at) => {
                let more = bytes.len() - at - END_SIZE;
                broken(format!("{more} bytes follow its end"))
            }
            None => broken("it is cut off, as its end is missing"),
        })?;
        let (directory_end, fields) = match end64(bytes, end)? {
            Some((at, long)) if short.may_stand_for(&long) => (at, long),
            Some(_) => return Err(broken("its two ends disagree (zip and zip64)")),
            None => (end, short),
        };
        if fields.disks != [0, 0] || fields.count_here != fields.count {
            return Err(broken("it is one part of several"));
        }
        if fields.count > MAX_ENTRIES {
            let problem = format!("{} members; expected at most {MAX_ENTRIES}", fields.count);
            return Err(broken(problem));
        }
        let start = usize::try_from(fields.offset).ok();
        let range = start.filter(|start| {
            start.checked_add(fields.size as usize) == Some(directory_end)
                && fields.size >= fields.count * ENTRY_SIZE as u64
        });
        let range = range.ok_or_else(|| broken("its directory does not end where it should"))?;
        Ok(Self { range: range..directory_end, count: fields.count })
    }

    /// All entries, in the order in which the directory has them.
    pub fn entries<'a>(&self, bytes: &'a [u8], budget: &mut Budget) -> Result<Vec<Entry<'a>>> {
        let mut cursor = Cursor::new(&bytes[..self.range.end], self.range.start);
        budget.take(self.count as usize * size_of::<Entry>())?;
        let mut entries = Vec::with_capacity(self.count as usize);
        for _ in 0..self.count {
            entries.push(entry(&mut cursor)?);
        }
        if !cursor.is_at_end() {
            return Err(broken("its directory has more entries than it says"));
        }
        Ok(entries)
    }
}

/// The fields of both kinds of end.
struct End {
    disks: [u32; 2],
    count_here: u64,
    count: u64,
    size: u64,
    offset: u64,
    comment: u16,
}

impl End {
    /// Whether a reader of this end and one of the `long` one read the same directory.
    fn may_stand_for(&self, long: &End) -> bool {
        let count = |short: u64, long: u64| short == long || short == u64::from(u16::MAX);
        let size = |short: u64, long: u64| short == long || short == u64::from(u32::MAX);
        count(self.count, long.count)
            && count(self.count_here, long.count_here)
            && size(self.size, long.size)
            && size(self.offset, long.offset)
            && self.disks == [0, 0]
    }

    fn is_short_for_more(&self) -> bool {
        self.count == u64::from(u16::MAX)
            || self.size == u64::from(u32::MAX)
            || self.offset == u64::from(u32::MAX)
    }
}

fn parse_end(bytes: &[u8], at: usize) -> Option<End> {
    let mut cursor = Cursor::new(bytes, at);
    (cursor.u32()? == END).then_some(())?;
    Some(End {
        disks: [cursor.u16()?.into(), cursor.u16()?.into()],
        count_here: cursor.u16()?.into(),
        count: cursor.u16()?.into(),
        size: cursor.u32()?.into(),
        offset: cursor.u32()?.into(),
        comment: cursor.u16()?,
    })
}

/// The last place before the end of the file that looks like the end of an archive.
fn last_end(bytes: &[u8]) -> Option<usize> {
    let from = bytes.len().saturating_sub(END_SIZE + usize::from(u16::MAX));
    let tail = &bytes[from..bytes.len() - END_SIZE + 4];
    let at = tail.windows(4).rposition(|window| window == END.to_le_bytes())?;
    Some(from + at)
}

/// The zip64 end before the end at `end`, and where it begins.
fn end64(bytes: &[u8], end: usize) -> Result<Option<(usize, End)>> {
    let wrong = || broken("its zip64 end is not where it should be");
    let locator = end.checked_sub(LOCATOR64_SIZE);
    let mut cursor = Cursor::new(bytes, locator.unwrap_or(end));
    if cursor.u32() != Some(LOCATOR64) {
        let short = parse_end(bytes, end).is_some_and(|end| end.is_short_for_more());
        return if short { Err(broken("its zip64 end is missing")) } else { Ok(None) };
    }
    let start = end.checked_sub(LOCATOR64_SIZE + END64_SIZE).ok_or_else(wrong)?;
    let place = (cursor.u32(), cursor.u64(), cursor.u32());
    if place != (Some(0), Some(start as u64), Some(1)) {
        return Err(wrong());
    }
    let fields = parse_end64(bytes, start).ok_or_else(wrong)?;
    Ok(Some((start, fields)))
}

fn parse_end64(bytes: &[u8], at: usize) -> Option<End> {
    let mut cursor = Cursor::new(bytes, at);
    (cursor.u32()? == END64 && cursor.u64()? == END64_SIZE as u64 - 12).then_some(())?;
    cursor.take(4)?; // versions
    Some(End {
        disks: [cursor.u32()?, cursor.u32()?],
        count_here: cursor.u64()?,
        count: cursor.u64()?,
        size: cursor.u64()?,
        offset: cursor.u64()?,
        comment: 0,
    })
}

fn entry<'a>(cursor: &mut Cursor<'a>) -> Result<Entry<'a>> {
    let at = cursor.at();
    let cut = || broken(format!("the entry at byte {at} of its directory is cut off"));
    let (mut entry, extra, disk) = parse_entry(cursor).ok_or_else(cut)??;
    if disk != 0 {
        return Err(member(entry.name, "it is in another part of the archive"));
    }
    let mut sizes = zip64(entry.name, extra)?;
    for field in [&mut entry.size, &mut entry.stored_size, &mut entry.offset] {
        if *field == u64::from(u32::MAX) {
            let missing = "its zip64 sizes are missing";
            *field = sizes.u64().ok_or_else(|| member(entry.name, missing))?;
        }
    }
    Ok(entry)
}

type Parsed<'a> = (Entry<'a>, &'a [u8], u16);

fn parse_entry<'a>(cursor: &mut Cursor<'a>) -> Option<Result<Parsed<'a>>> {
    (cursor.u32()? == ENTRY).then_some(())?;
    cursor.take(4)?; // versions
    let [flags, method] = [cursor.u16()?, cursor.u16()?];
    cursor.take(4)?; // time and date
    let crc = cursor.u32()?;
    let [stored_size, size] = [cursor.u32()?.into(), cursor.u32()?.into()];
    let [name, extra, comment] = [cursor.u16()?, cursor.u16()?, cursor.u16()?];
    let disk = cursor.u16()?;
    cursor.take(6)?; // attributes
    let offset = cursor.u32()?.into();
    let name = cursor.take(name.into())?;
    let extra = cursor.take(extra.into())?;
    cursor.take(comment.into())?;
    Some(
        checked_name(name).map(|name| {
            (Entry { name, flags, method, crc, stored_size, size, offset }, extra, disk)
        }),
    )
}

/// A name that stays inside a folder, and is that of a file.
fn checked_name(name: &[u8]) -> Result<&str> {
    if name.len() > MAX_NAME {
        let problem = format!("a name of {} bytes; expected at most {MAX_NAME}", name.len());
        return Err(broken(problem));
    }
    let name = str::from_utf8(name).map_err(|_| broken("a name that is not UTF-8"))?;
    if name.chars().any(|c| c.is_control() || c == '\\') {
        return Err(broken(format!("a name with control characters or `\\`: {name:?}")));
    }
    if name.ends_with('/') {
        return Err(member(name, "it is a folder, which torch.save does not write"));
    }
    if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(member(name, "its name leads out of the archive"));
    }
    Ok(name)
}

/// The content of the zip64 field in the extra fields of a member; empty if there is none.
pub(crate) fn zip64<'a>(name: &str, extra: &'a [u8]) -> Result<Cursor<'a>> {
    let mut found = None;
    let mut cursor = Cursor::new(extra, 0);
    while !cursor.is_at_end() {
        let field = cursor.u16().zip(cursor.u16());
        let field = field.and_then(|(id, size)| Some((id, cursor.take(size.into())?)));
        let (id, content) = field.ok_or_else(|| member(name, "an extra field is cut off"))?;
        if id == UNICODE_NAME {
            return Err(member(name, "it has a second name"));
        }
        if id == ZIP64 && found.replace(content).is_some() {
            return Err(member(name, "it has zip64 sizes twice"));
        }
    }
    Ok(Cursor::new(found.unwrap_or_default(), 0))
}

pub(crate) fn broken(problem: impl Into<String>) -> Error {
    Error::Archive(problem.into())
}

pub(crate) fn member(name: &str, problem: &str) -> Error {
    Error::Archive(format!("member `{name}`: {problem}"))
}
