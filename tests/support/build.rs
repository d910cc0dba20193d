//! Empties the folder of shared exports. Cargo runs this again whenever a file that decides what an
//! export holds has changed, so no test sees an export that an older exporter made.

use std::path::Path;
use std::{env, fs};

fn main() {
    for source in ["Cargo.lock", "exporter/src", "graphs/src", "input/src", "models"] {
        println!("cargo::rerun-if-changed=../../{source}");
    }
    let exports = Path::new(&env::var_os("OUT_DIR").expect("cargo sets it")).join("exports");
    if exports.exists() {
        fs::remove_dir_all(&exports).expect("old exports can be removed");
    }
    fs::create_dir_all(&exports).expect("the target folder can be written");
}
