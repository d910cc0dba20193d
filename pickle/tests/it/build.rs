//! Archives and pickles, built piece by piece.

use std::io::{Cursor, Seek, SeekFrom, Write};

/// What a member has: bytes, or a number of zeros that are not written.
pub enum Content<'a> {
    Bytes(&'a [u8]),
    Zeros(u64),
}

/// An archive as torch 2.15 writes it, with members in the folder `x`.
pub fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let named: Vec<(String, Content)> =
        members.iter().map(|(name, bytes)| (format!("x/{name}"), Content::Bytes(bytes))).collect();
    let mut out = Cursor::new(Vec::new());
    write_archive(&mut out, &named);
    out.into_inner()
}

/// A checkpoint with the pickle and a storage `0` of 24 bytes.
pub fn file(pickle: &[u8]) -> Vec<u8> {
    let storage: Vec<u8> = (0..24).collect();
    archive(&[
        ("data.pkl", pickle),
        ("byteorder", b"little"),
        ("data/0", &storage),
        ("version", b"3\n"),
    ])
}

/// Writes an archive as torch 2.15 does: sizes behind the members, padding before them, both ends,
/// and beyond 4 GiB the fields that miniz leaves in the headers.
pub fn write_archive(out: &mut (impl Write + Seek), members: &[(String, Content)]) {
    const MAX: u64 = u32::MAX as u64;
    let mut directory = Vec::new();
    for (name, content) in members {
        let offset = out.stream_position().expect("a place");
        let size = match content {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Zeros(size) => *size,
        };
        let flags: u16 = if size == 0 { 0x0800 } else { 0x0808 };
        let mut long = Vec::new();
        let mut long_header = Vec::new();
        if size >= MAX {
            long.extend([size, size]);
            long_header.extend([size, 0]);
        }
        if offset >= MAX {
            long.push(offset);
            long_header.push(offset);
        }
        let field = |numbers: &[u64]| -> Vec<u8> {
            let content: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
            let head = [1_u16.to_le_bytes(), (content.len() as u16).to_le_bytes()].concat();
            if content.is_empty() { Vec::new() } else { [head, content].concat() }
        };
        let mut extra = field(&long_header);
        let begin = offset + 30 + name.len() as u64 + extra.len() as u64 + 4;
        let padding = (64 - begin % 64) as u16 % 64;
        extra.extend([b"FB".as_slice(), &padding.to_le_bytes()].concat());
        extra.extend(vec![b'Z'; padding.into()]);

        let mut header = b"PK\x03\x04\0\0".to_vec();
        header.extend(flags.to_le_bytes());
        header.extend([0; 18]);
        header.extend((name.len() as u16).to_le_bytes());
        header.extend((extra.len() as u16).to_le_bytes());
        header.extend(name.as_bytes());
        header.extend(&extra);
        out.write_all(&header).expect("written");
        match content {
            Content::Bytes(bytes) => out.write_all(bytes).expect("written"),
            Content::Zeros(size) => {
                out.seek(SeekFrom::Current(*size as i64)).expect("a place");
            }
        }
        let crc: u32 = if size == 0 { 0 } else { 0x1234_5678 };
        if size > 0 {
            let sizes = if long.is_empty() {
                [(size as u32).to_le_bytes(); 2].concat()
            } else {
                [size.to_le_bytes(); 2].concat()
            };
            let sum = crc.to_le_bytes();
            out.write_all(&[b"PK\x07\x08", &sum[..], &sizes].concat()).expect("written");
        }

        let extra = field(&long);
        let short = |number: u64| (number.min(MAX) as u32).to_le_bytes();
        directory.extend(b"PK\x01\x02\0\0\0\0");
        directory.extend(flags.to_le_bytes());
        directory.extend([0; 6]);
        directory.extend(crc.to_le_bytes());
        directory.extend([short(size), short(size)].concat());
        directory.extend((name.len() as u16).to_le_bytes());
        directory.extend((extra.len() as u16).to_le_bytes());
        directory.extend([0; 10]);
        directory.extend(short(offset));
        directory.extend(name.as_bytes());
        directory.extend(&extra);
    }
    let offset = out.stream_position().expect("a place");
    let [count, size] = [members.len() as u64, directory.len() as u64];
    let end64 = offset + size;
    let mut end = directory;
    end.extend([b"PK\x06\x06".as_slice(), &44_u64.to_le_bytes(), &[0; 12]].concat());
    end.extend([count, count, size, offset].map(u64::to_le_bytes).concat());
    end.extend([b"PK\x06\x07".as_slice(), &[0; 4], &end64.to_le_bytes(), &[1, 0, 0, 0]].concat());
    end.extend(b"PK\x05\x06\0\0\0\0");
    end.extend([(count as u16).to_le_bytes(); 2].concat());
    end.extend([size, offset].map(|number| (number.min(MAX) as u32).to_le_bytes()).concat());
    end.extend([0; 2]);
    out.write_all(&end).expect("written");
}

/// Pieces, one after another.
pub fn op(pieces: &[&[u8]]) -> Vec<u8> {
    pieces.concat()
}

/// A whole pickle of protocol 2.
pub fn pickle(body: &[u8]) -> Vec<u8> {
    op(&[b"\x80\x02", body, b"."])
}

/// The pickle of a dictionary with `value` under `weight`.
pub fn one(value: &[u8]) -> Vec<u8> {
    pickle(&op(&[b"}", &text("weight"), value, b"s"]))
}

pub fn text(text: &str) -> Vec<u8> {
    op(&[b"X", &(text.len() as u32).to_le_bytes(), text.as_bytes()])
}

pub fn int(value: i64) -> Vec<u8> {
    op(&[b"\x8a\x08", &value.to_le_bytes()])
}

pub fn global(module: &str, name: &str) -> Vec<u8> {
    format!("c{module}\n{name}\n").into_bytes()
}

pub fn ints(values: &[i64]) -> Vec<u8> {
    op(&[b"(", &values.iter().flat_map(|&value| int(value)).collect::<Vec<u8>>(), b"t"])
}

/// A reference to a storage of `count` elements of the class `torch.{class}`.
pub fn storage(class: &str, key: &str, count: i64) -> Vec<u8> {
    let class = global("torch", class);
    op(&[b"(", &text("storage"), &class, &text(key), &text("cpu"), &int(count), b"tQ"])
}

pub fn hooks() -> Vec<u8> {
    op(&[&global("collections", "OrderedDict"), b")R"])
}

/// What `_rebuild_tensor_v2` makes of a storage.
pub fn tensor_of(storage: &[u8], offset: &[u8], sizes: &[u8], strides: &[u8]) -> Vec<u8> {
    let function = global("torch._utils", "_rebuild_tensor_v2");
    op(&[&function, b"(", storage, offset, sizes, strides, b"\x89", &hooks(), b"tR"])
}

/// A tensor of float32, of a storage of six elements.
pub fn tensor(key: &str, offset: i64, sizes: &[i64], strides: &[i64]) -> Vec<u8> {
    tensor_of(&storage("FloatStorage", key, 6), &int(offset), &ints(sizes), &ints(strides))
}
