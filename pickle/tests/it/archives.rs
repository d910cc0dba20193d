//! Archives that are damaged, or that two readers would read differently.

use std::fs::File;
use std::io::Cursor;

use hydit_pickle::{Value, read};
use memmap2::Mmap;

use crate::build::{Content, archive, file, one, op, storage, tensor, write_archive};
use crate::{Case, refuse};

fn good() -> Vec<u8> {
    file(&one(&tensor("0", 0, &[6], &[1])))
}

fn position(bytes: &[u8], signature: &[u8]) -> usize {
    let places = bytes.windows(signature.len()).enumerate();
    places.filter(|(_, window)| *window == signature).map(|(at, _)| at).next().expect("it is there")
}

/// Where the header of a member before it begins.
fn header(bytes: &[u8], name: &str) -> usize {
    position(bytes, name.as_bytes()) - 30
}

/// Where the entry of a member in the directory begins.
fn entry(bytes: &[u8], name: &str) -> usize {
    let directory = position(bytes, b"PK\x01\x02");
    directory + position(&bytes[directory..], name.as_bytes()) - 46
}

/// The good file, with `change` at a place.
fn patched(place: impl Fn(&[u8]) -> usize, change: &[u8]) -> Vec<u8> {
    let mut bytes = good();
    let at = place(&bytes);
    bytes[at..at + change.len()].copy_from_slice(change);
    bytes
}

/// The good file, with a field of the header and the entry of `x/version` changed alike.
fn both(in_header: usize, in_entry: usize, change: &[u8]) -> Vec<u8> {
    let mut bytes = good();
    for at in [header(&bytes, "x/version") + in_header, entry(&bytes, "x/version") + in_entry] {
        bytes[at..at + change.len()].copy_from_slice(change);
    }
    bytes
}

fn in_entry(offset: usize, change: &[u8]) -> Vec<u8> {
    patched(|bytes| entry(bytes, "x/data/0") + offset, change)
}

fn in_header(offset: usize, change: &[u8]) -> Vec<u8> {
    patched(|bytes| header(bytes, "x/data/0") + offset, change)
}

/// With a change so far before the end of the file.
fn before_end(distance: usize, change: &[u8]) -> Vec<u8> {
    patched(|bytes| bytes.len() - distance, change)
}

fn with(members: &[(&str, &[u8])]) -> Vec<u8> {
    let pickle = one(&tensor("0", 0, &[6], &[1]));
    archive(&[&[("data.pkl", pickle.as_slice()), ("data/0", &[0; 24])], members].concat())
}

/// An archive of members in `folder`, or beside it if they begin with `../`.
fn archive_in(folder: &str, names: &[&str]) -> Vec<u8> {
    let name = |name: &&str| match name.strip_prefix("../") {
        Some(beside) => beside.to_string(),
        None => format!("{folder}{name}"),
    };
    let members: Vec<_> = names.iter().map(|n| (name(n), Content::Bytes(b"}."))).collect();
    let mut out = Cursor::new(Vec::new());
    write_archive(&mut out, &members);
    out.into_inner()
}

/// The good file with its last member moved into the one before.
fn overlapping() -> Vec<u8> {
    let mut bytes = good();
    let to = header(&bytes, "x/data/0") as u32;
    let at = entry(&bytes, "x/version") + 42;
    bytes[at..at + 4].copy_from_slice(&to.to_le_bytes());
    bytes
}

/// The good file with bytes between two parts of it, and the ends moved on.
fn with_gap(at: impl Fn(&[u8]) -> usize) -> Vec<u8> {
    let mut bytes = good();
    let at = at(&bytes);
    bytes.splice(at..at, *b"hidden..");
    let length = bytes.len();
    for (distance, size) in [(6, 4), (42 + 8, 8), (42 - 8, 8)] {
        let place = length - distance;
        let mut number = [0; 8];
        number[..size].copy_from_slice(&bytes[place..place + size]);
        let moved = (u64::from_le_bytes(number) + 8).to_le_bytes();
        bytes[place..place + size].copy_from_slice(&moved[..size]);
    }
    bytes
}

/// The good file with extra fields in the entry of its last member.
fn with_extra(fields: &[u8]) -> Vec<u8> {
    let mut bytes = good();
    let entry = entry(&bytes, "x/version");
    bytes[entry + 30] = fields.len() as u8;
    let at = entry + 46 + "x/version".len();
    bytes.splice(at..at, fields.iter().copied());
    let length = bytes.len();
    for place in [length - 10, length - 98 + 40, length - 42 + 8] {
        let number = u16::from_le_bytes([bytes[place], bytes[place + 1]]);
        let moved = (number + fields.len() as u16).to_le_bytes();
        bytes[place..place + 2].copy_from_slice(&moved);
    }
    bytes
}

/// A file whose empty member says in its header that its size is in a zip64 field, and has one.
fn with_long_size(size: u64) -> Vec<u8> {
    let mut bytes = with(&[("empty", b"")]);
    let at = header(&bytes, "x/empty");
    bytes[at + 22..at + 26].copy_from_slice(&[0xff; 4]);
    let field = at + 30 + "x/empty".len();
    bytes[field..field + 2].copy_from_slice(&[1, 0]);
    bytes[field + 4..field + 12].copy_from_slice(&size.to_le_bytes());
    bytes
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_refused() {
    let good = good();
    for length in 0..good.len() {
        assert!(read(&good[..length]).is_err(), "the first {length} bytes are read");
    }
}

#[test]
fn the_archive_that_the_cases_are_made_of_is_read() {
    assert!(read(&good()).is_ok());
    assert!(read(&with(&[("extra", b"1"), ("empty", b"")])).is_ok());
    assert!(read(&with_extra(b"UT\x01\0x\x01\0\x08\0sizesize")).is_ok());
    assert!(read(&with_long_size(0)).is_ok());
    // Without the zip64 end: 56 and 20 bytes.
    let mut bytes = good();
    bytes.drain(bytes.len() - 98..bytes.len() - 22);
    assert!(read(&bytes).is_ok());
}

#[test]
fn forged_members_are_refused() {
    let cases: Vec<Case> = vec![
        ("compressed", both(8, 10, &[8]), "`x/version`: it is compressed"),
        ("compressed in the header", in_header(8, &[8]), "is not what the directory says"),
        ("compressed in the directory", in_entry(10, &[8]), "`x/data/0`: it is compressed"),
        ("encrypted", both(6, 8, &[9]), "`x/version`: it is encrypted"),
        ("strong encryption", both(6, 8, &[0x48]), "in a way that torch.save does not know"),
        ("masked headers", both(7, 9, &[0x20]), "in a way that torch.save does not know"),
        ("flags of the header", in_header(6, &[0]), "is not what the directory says"),
        ("name in the header", in_header(37, b"9"), "is not what the directory says"),
        ("length of the name", in_header(26, &[7]), "is not what the directory says"),
        ("signature of the header", in_header(0, b"QK"), "is not what the directory says"),
        ("sum in the header", in_header(14, &[1]), "is not what the directory says"),
        ("size in the header", in_header(22, &[23]), "is not what the directory says"),
        ("stored size in the header", in_header(18, &[1]), "is not what the directory says"),
        ("extra field in the header", in_header(28, &[0xff; 2]), "`x/data/0`"),
        ("sum in the directory", in_entry(16, &[1]), "what is told after it"),
        ("size in the directory", in_entry(24, &[23]), "in a way that torch.save does not know"),
        ("both sizes", in_entry(20, &[23, 0, 0, 0, 23]), "what is told after it"),
        (
            "sizes to the end",
            in_entry(20, &[0xff, 0xff, 0xff, 0x7f].repeat(2)),
            "beyond the archive",
        ),
        ("sizes of zip64", in_entry(20, &[0xff; 8]), "its zip64 sizes are missing"),
        ("offset of zip64", in_entry(42, &[0xff; 4]), "its zip64 sizes are missing"),
        ("another size in zip64", with_long_size(9), "is not what the directory says"),
        ("a second name", with_extra(b"up\x01\0x"), "`x/version`: it has a second name"),
        (
            "two fields of zip64",
            with_extra(b"\x01\0\x08\0sizesize\x01\0\x08\0sizesize"),
            "it has zip64 sizes twice",
        ),
        ("another disk", in_entry(34, &[1]), "another part of the archive"),
        ("a later offset", in_entry(43, &[0x7f]), "before it that belongs to no member"),
        ("an earlier offset", in_entry(42, &[1, 0, 0, 0]), "overlaps what is before it"),
        ("offset of the first", patched(|b| entry(b, "x/data.pkl") + 42, &[1]), "no member"),
        ("overlap", overlapping(), "`x/version`: it overlaps"),
        ("cut entry", in_entry(28, &[0xff, 0x0f]), "of its directory is cut off"),
        ("cut extra field", in_entry(30, &[3]), "an extra field is cut off"),
        ("signature of the entry", in_entry(0, b"QK"), "of its directory is cut off"),
        ("sum after the member", patched(|b| header(b, "x/version") - 12, &[0]), "told after it"),
        ("size after the member", patched(|b| header(b, "x/version") - 8, &[0]), "told after it"),
        ("gap before a member", with_gap(|b| header(b, "x/version")), "`x/version`"),
        ("gap before the directory", with_gap(|b| position(b, b"PK\x01\x02")), "its directory"),
        ("gap after the directory", with_gap(|b| b.len() - 98), "its directory"),
    ];
    refuse(&cases);
}

#[test]
fn forged_names_are_refused() {
    let long = "n".repeat(600);
    let folder = |bytes: &mut Vec<u8>| {
        for at in [header(bytes, "x/version") + 30, entry(bytes, "x/version") + 46] {
            bytes[at] = b'y';
        }
    };
    let mut folders = good();
    folder(&mut folders);
    let bare = |name: &str| both(30, 46, name.as_bytes());
    let cases: Vec<Case> = vec![
        ("parents", with(&[("../../etc/passwd", b"1")]), "its name leads out of the archive"),
        ("a parent", with(&[("data/../x", b"1")]), "its name leads out"),
        ("here", with(&[("./x", b"1")]), "its name leads out"),
        ("nothing", with(&[("data//x", b"1")]), "its name leads out"),
        ("absolute", bare("/etc/pass"), "its name leads out"),
        ("Windows", with(&[("..\\x", b"1")]), "control characters or `\\`"),
        ("zero", with(&[("x\0.txt", b"1")]), "control characters"),
        ("lines", with(&[("x\ny", b"1")]), "control characters"),
        ("not UTF-8", both(32, 48, &[0xff]), "a name that is not UTF-8"),
        ("a folder", with(&[("data/", b"")]), "`x/data/`: it is a folder"),
        ("another folder", folders, "`y/version`: it is in no folder, or in another"),
        ("no folder", bare("x-version"), "`x-version`: it is in no folder"),
        (
            "a short name",
            archive_in("long-folder/", &["data.pkl", "../é"]),
            "`é`: it is in no folder",
        ),
        ("twice", with(&[("data/0", b"1")]), "`data/0`: its name is there twice"),
        ("twice data.pkl", with(&[("data.pkl", b"}.")]), "its name is there twice"),
        ("twice but for case", with(&[("DATA.pkl", b"}.")]), "its name is there twice"),
        ("long", with(&[(&long, b"1")]), "a name of 602 bytes"),
        ("TorchScript", with(&[("code/__torch__.py", b"1")]), "a TorchScript archive"),
        ("TorchScript", with(&[("constants.pkl", b"1")]), "a TorchScript archive"),
        (
            "without a pickle",
            archive(&[("weights.npy", b"1")]),
            "no member `data.pkl` beside `weights",
        ),
        ("in capitals", archive(&[("DATA.PKL", b"}.")]), "no member `data.pkl`"),
        ("big-endian", with(&[("byteorder", b"big")]), "a big-endian machine"),
        ("no-endian", with(&[("byteorder", b"middle")]), "neither `little` nor `big`"),
        ("new", with(&[("version", b"11\n")]), "a newer format"),
        ("no version", with(&[("version", b"x")]), "a newer format"),
    ];
    refuse(&cases);
}

#[test]
fn forged_ends_are_refused() {
    let good = good();
    let mut comment = before_end(2, &[2, 0]);
    comment.extend(b"hi");
    let mut nested = good.clone();
    nested.extend(&good);
    let empty = {
        let mut bytes = good[..64].to_vec();
        bytes.extend([b"PK\x05\x06".as_slice(), &[0; 12], &[64, 0, 0, 0, 0, 0]].concat());
        bytes
    };
    let cases: Vec<Case> = vec![
        ("cut", good[..good.len() - 1].to_vec(), "its end is missing"),
        ("cut in half", good[..good.len() / 2].to_vec(), "its end is missing"),
        ("almost nothing", good[..10].to_vec(), "cut off"),
        ("more", [&good[..], b"more"].concat(), "4 bytes follow its end"),
        ("comment", comment, "2 bytes follow its end"),
        ("comment that is not there", before_end(2, &[9, 0]), "0 bytes follow its end"),
        ("two archives", nested, "zip64 end is not where it should be"),
        ("no members", empty, "it has no members"),
        ("disk", before_end(18, &[1]), "its two ends disagree"),
        ("count", before_end(12, &[3]), "its two ends disagree"),
        ("size", before_end(10, &[1]), "its two ends disagree"),
        ("offset", before_end(6, &[1]), "its two ends disagree"),
        ("long count", before_end(42 + 24, &[3]), "its two ends disagree"),
        ("long counts", before_end(42 + 32, &[3, 0, 0, 0, 0, 0, 0, 0, 3]), "its two ends disagree"),
        ("long disk", before_end(42 + 40, &[1]), "one part of several"),
        ("long signature", before_end(98, b"QK"), "zip64 end is not where it should be"),
        ("long size", before_end(42 + 52, &[45]), "zip64 end is not where it should be"),
        ("long place", before_end(34, &[1]), "zip64 end is not where it should be"),
        ("long disks", before_end(26, &[2]), "zip64 end is not where it should be"),
        ("no locator", before_end(42, b"QK"), "its directory does not end where it should"),
        ("gigabytes", forged_counts(u32::MAX), "65537 members; expected at most 65536"),
        ("many", forged_counts(0), "its directory does not end where it should"),
    ];
    refuse(&cases);
}

/// The good file with 65,536 or more members, in both ends.
fn forged_counts(more: u32) -> Vec<u8> {
    let mut bytes = good();
    let count = 65_536 + u64::from(more != 0);
    let length = bytes.len();
    bytes[length - 14..length - 10].copy_from_slice(&[0xff; 4]);
    let counts = [count.to_le_bytes(); 2].concat();
    bytes[length - 98 + 24..length - 98 + 40].copy_from_slice(&counts);
    bytes
}

#[test]
fn a_file_beyond_four_gibibytes_is_read() {
    const LARGE: u64 = (1 << 32) + 64;
    let key = |name: &[u8], key: &str, class: &str, count: i64, sizes: &[i64]| {
        let storage = storage(class, key, count);
        let strides = if sizes.len() == 2 { [3, 1].as_slice() } else { &[1] };
        let tensor = crate::build::tensor_of(
            &storage,
            &crate::build::int(0),
            &crate::build::ints(sizes),
            &crate::build::ints(strides),
        );
        op(&[b"X", &(name.len() as u32).to_le_bytes(), name, &tensor])
    };
    let pickle = crate::build::pickle(&op(&[
        b"}(",
        &key(b"large", "0", "ByteStorage", LARGE as i64, &[LARGE as i64]),
        &key(b"small", "1", "FloatStorage", 6, &[2, 3]),
        &key(b"none", "2", "FloatStorage", 0, &[0]),
        b"u",
    ]));
    let small: Vec<u8> = (0..24).collect();
    let members = [
        ("x/data.pkl", Content::Bytes(&pickle)),
        ("x/data/0", Content::Zeros(LARGE)),
        ("x/data/1", Content::Bytes(&small)),
        ("x/data/2", Content::Bytes(b"")),
        ("x/version", Content::Bytes(b"3\n")),
    ]
    .map(|(name, content)| (name.to_string(), content));
    let mut sparse: File = tempfile::tempfile().expect("a file");
    write_archive(&mut sparse, &members);
    // SAFETY: nobody else has this file.
    #[expect(unsafe_code, reason = "a mapping")]
    let bytes = unsafe { Mmap::map(&sparse) }.expect("a mapping");
    assert!(bytes.len() as u64 > LARGE);
    let value: Value = read(&bytes).expect("it is read");
    let tensors = value.tensors().expect("names differ");
    assert_eq!(tensors["large"].shape, [LARGE as usize]);
    assert!(tensors["small"].start > LARGE);
    assert_eq!(tensors["small"].bytes(&bytes), Some(small.as_slice()));
    assert_eq!(tensors["none"].elements(), 0);
}
