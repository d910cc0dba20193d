//! Hundreds of hostile artifact folders, schedules and PNGs. Each must be refused in one line that
//! names the thing, without a panic and without waiting.

mod graphs;
mod manifests;
mod pngs;
mod schedules;

use std::fs;
use std::path::PathBuf;

use hydit::Error;
use hydit::util::{error_chain, hex};
use hydit_graphs::parse_yaml;
use hydit_testing::emoji;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// A copy of the small model's export, to make hostile.
struct Place {
    folder: TempDir,
    manifest: Value,
}

impl Place {
    fn new() -> Place {
        let folder = emoji::own_artifacts();
        let text = fs::read_to_string(folder.path().join("manifest.yaml")).expect("a manifest");
        Place { folder, manifest: parse_yaml(&text).expect("YAML") }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes `manifest`, as JSON, which is YAML too.
    fn write_manifest(&self, manifest: &Value) {
        fs::write(self.file("manifest.yaml"), manifest.to_string()).expect("written");
    }

    /// Writes a file of the export, and its size and hash into the manifest.
    fn write(&mut self, name: &str, bytes: &[u8]) {
        fs::write(self.file(name), bytes).expect("written");
        self.manifest["files"][name] =
            json!({ "bytes": bytes.len(), "sha256": hex(&Sha256::digest(bytes)) });
        self.write_manifest(&self.manifest);
    }
}

fn refusal<T>(case: &str, result: Result<T, Error>) -> String {
    match result {
        Ok(_) => panic!("{case}: taken"),
        Err(error) => error_chain(&error),
    }
}
