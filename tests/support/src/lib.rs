//! What the tests of several crates share. A helper that only one crate's tests use lies with them.

pub mod answers;
pub mod emoji;
pub mod hostile;
pub mod loud;
pub mod made_up;
pub mod plugin;
pub mod process;
pub mod protobuf;

use std::path::Path;

/// The root of the repository.
pub fn repository() -> &'static Path {
    let support = Path::new(env!("CARGO_MANIFEST_DIR"));
    support.ancestors().nth(2).expect("this crate lies two folders deep")
}
