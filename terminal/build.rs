//! Tells the crate which commit it is built from: that of `HYDIT_COMMIT`, or of the repository around
//! it. Debug builds ask nobody, so that a commit is no reason to build them again.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=HYDIT_COMMIT");
    let version = env::var("CARGO_PKG_VERSION").expect("cargo sets it");
    let named = env::var("HYDIT_COMMIT").ok().filter(|commit| !commit.is_empty());
    let built = match (named, env::var("PROFILE").as_deref()) {
        (Some(commit), _) => format!("commit {commit}"),
        (None, Ok("release")) => format!("commit {}", commit().as_deref().unwrap_or("unknown")),
        (None, _) => "debug build".to_string(),
    };
    println!("cargo::rustc-env=HYDIT_VERSION={version} ({built})");
}

/// The last commit of this repository. The script runs again when another becomes the last.
fn commit() -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    // Sources that were unpacked inside another repository are not of its commits.
    let top = PathBuf::from(git(root, &["rev-parse", "--show-toplevel"])?);
    if fs::canonicalize(top).ok()? != fs::canonicalize(root).ok()? {
        return None;
    }
    let log = root.join(git(root, &["rev-parse", "--git-path", "logs/HEAD"])?);
    if log.exists() {
        println!("cargo::rerun-if-changed={}", log.display());
    }
    git(root, &["rev-parse", "--short=12", "HEAD"])
}

/// What git answers, without the line break; nothing where it is not there or refuses.
fn git(folder: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").current_dir(folder).args(arguments).output().ok()?;
    let answer = String::from_utf8(output.stdout).ok()?.trim().to_string();
    (output.status.success() && !answer.is_empty()).then_some(answer)
}
