//! Checkpoints that PyTorch's `torch.save` wrote (`.pt`, `.pth`, `.bin`, `.ckpt`; since 1.6), read
//! without running anything in them.
//!
//! Such a file is a zip archive of stored members: `NAME/data.pkl`, a pickle, and the storages of
//! its tensors, `NAME/data/0` and so on. A pickle is a program that may call any function of
//! Python. Here it runs on a machine that knows the dozen functions of which state dicts are made,
//! and refuses every other one by its name.
//!
//! [`read`] gives a tree of [`Value`]s. It borrows from the file's bytes, which are best mapped: no
//! storage is read or copied, a [`Tensor`] says where its elements are. Anybody may have made the
//! file, so all of it is bounded: see [`read`].
#![warn(missing_docs)]

mod archive;
mod budget;
mod bytes;
mod directory;
mod error;
mod global;
mod machine;
mod object;
mod rebuild;
mod recognize;
mod stack;
mod tensor;
mod tree;
mod value;

pub use error::{Error, Result};
pub use tensor::{Dtype, Tensor};
pub use value::{Key, Value};

use archive::Archive;
use budget::Budget;

/// The most bytes that `data.pkl` may have, and so the most instructions.
const MAX_PICKLE: usize = 16 << 20;

/// The newest format that is known to be read right; `torch.save` has written 3 since 1.6.
const NEWEST_FORMAT: u64 = 10;

/// Reads a checkpoint of `torch.save`, given the bytes of the whole file.
///
/// It takes at most 64 MiB of memory beside the file. `data.pkl` has at most 16 MiB, its texts 1
/// MiB, names of tensors 512 bytes; values are nested at most 64 deep, and tensors have at most 64
/// dimensions and no more elements than their storage. All of a tensor's elements lie in its
/// storage, and that in the file.
///
/// # Errors
/// The file is not such a checkpoint, is damaged, can be read in two ways, needs more than the
/// bounds allow, or asks for anything but tensors and plain values. The message is one line that
/// says what to do.
pub fn read(bytes: &[u8]) -> Result<Value<'_>> {
    if let Some(error) = recognize::stranger(bytes) {
        return Err(error);
    }
    let mut budget = Budget::new();
    let archive = Archive::open(bytes, &mut budget)?;
    check_format(&archive)?;
    let pickle = archive.read("data.pkl").ok_or_else(|| {
        let names = archive.names().take(3).collect::<Vec<_>>().join("`, `");
        Error::Archive(format!(
            "no member `data.pkl` beside `{names}`: torch.save did not write it"
        ))
    })?;
    if pickle.len() > MAX_PICKLE {
        let problem = format!("{} bytes; expected at most {MAX_PICKLE}", pickle.len());
        return Err(Error::Pickle { at: 0, problem });
    }
    let (objects, root) = machine::run(pickle, &archive, &mut budget)?;
    tree::grow(&objects, root, &mut budget)
}

/// Refuses what the records beside `data.pkl` say that is read differently.
fn check_format(archive: &Archive) -> Result<()> {
    match archive.read("byteorder") {
        None | Some(b"little") => {}
        Some(b"big") => return Err(recognize::BIG_ENDIAN),
        Some(_) => {
            let problem = "member `byteorder` is neither `little` nor `big`".to_string();
            return Err(Error::Archive(problem));
        }
    }
    let Some(version) = archive.read("version") else { return Ok(()) };
    let number = str::from_utf8(version).ok().and_then(|text| text.trim_end().parse::<u64>().ok());
    if !matches!(number, Some(0..=NEWEST_FORMAT)) {
        let problem =
            format!("member `version` is not a number up to {NEWEST_FORMAT}: a newer format");
        return Err(Error::Archive(problem));
    }
    Ok(())
}
