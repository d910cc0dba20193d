//! The search for libonnxruntime, and what became of every candidate.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fmt,
    path::{Path, PathBuf},
};

pub use super::places::{Place, Places};
use super::{Provider, elf, places::libraries_in};
use crate::util::error_chain;

/// The oldest minor version of ONNX Runtime 1 that works: the API level that hydit is compiled for.
pub const OLDEST_MINOR: u32 = ort::MINOR_VERSION;

/// What probing a candidate showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It can be used.
    Usable,
    /// It is older than 1.[`OLDEST_MINOR`].
    TooOld,
    /// It is not a library of ONNX Runtime 1, or it does not load; the loader's words.
    Unloadable(String),
    /// The provider asked for has no library beside it: the name of the missing file.
    NoProvider(&'static str),
    /// Not probed: a usable one was found before it.
    NotTried,
}

/// A file that may be the library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The place it was found in.
    pub place: Place,
    /// The file, symbolic links followed.
    pub path: PathBuf,
    /// "1.31.1" from the file's name, or "1.31" from the library itself; `None` where it was not
    /// probed or is none.
    pub version: Option<String>,
    /// What became of it.
    pub verdict: Verdict,
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(version) = &self.version {
            write!(f, "ONNX Runtime {version} at ")?;
        }
        write!(f, "{} ({}): ", self.path.display(), self.place)?;
        match &self.verdict {
            Verdict::Usable => f.write_str("usable"),
            Verdict::TooOld => write!(f, "too old, 1.{OLDEST_MINOR} or newer is needed"),
            Verdict::Unloadable(reason) => f.write_str(reason),
            Verdict::NoProvider(library) => write!(f, "no {library} beside it"),
            Verdict::NotTried => f.write_str("not tried"),
        }
    }
}

/// Every candidate in the order of the search.
#[derive(Debug, Clone, Default)]
pub struct SearchReport {
    /// The candidates.
    pub candidates: Vec<Candidate>,
}

impl SearchReport {
    /// Why tract stands in for ONNX Runtime.
    pub(super) fn notice(&self) -> String {
        if self.candidates.is_empty() {
            "no ONNX Runtime library found: run scripts/setup-ort for a faster engine".into()
        } else {
            format!("no usable ONNX Runtime library found: run scripts/setup-ort{}", self.refused())
        }
    }

    /// The library that is used: the first usable one, unless `ORT_DYLIB_PATH` names one that is
    /// not.
    pub fn chosen(&self) -> Option<&Candidate> {
        match self.refused_variable() {
            Some(_) => None,
            None => self.candidates.iter().find(|candidate| candidate.verdict == Verdict::Usable),
        }
    }

    /// What `ORT_DYLIB_PATH` names, where that cannot be used.
    pub fn refused_variable(&self) -> Option<&Candidate> {
        self.candidates
            .first()
            .filter(|first| first.place == Place::Variable && first.verdict != Verdict::Usable)
    }

    /// The candidates that cannot be used, one indented line each, after a line break; empty when
    /// there are none.
    pub(super) fn refused(&self) -> String {
        let unusable = |c: &&Candidate| !matches!(c.verdict, Verdict::Usable | Verdict::NotTried);
        self.candidates
            .iter()
            .filter(unusable)
            .map(|candidate| format!("\n  {candidate}"))
            .collect()
    }
}

impl Places {
    /// Looks for a library that has `provider`. Probing stops at the first usable one, unless `all`
    /// is set.
    ///
    /// Probing loads a library and unloads it again.
    pub fn search(&self, provider: Provider, all: bool) -> SearchReport {
        self.search_with(provider, all, &probe)
    }

    fn search_with(
        &self,
        provider: Provider,
        all: bool,
        probe: &dyn Fn(&Path) -> Result<u32, String>,
    ) -> SearchReport {
        let mut files: Vec<_> =
            self.variable.iter().map(|path| (Place::Variable, path.clone())).collect();
        for (place, folder) in &self.folders {
            files.extend(libraries_in(folder).into_iter().map(|path| (*place, path)));
        }
        let (mut seen, mut done) = (HashSet::new(), false);
        let mut candidates = Vec::new();
        for (place, path) in files {
            let path = path.canonicalize().unwrap_or(path);
            if !seen.insert(path.clone()) {
                continue;
            }
            let (version, verdict) = if done && !all {
                (None, Verdict::NotTried)
            } else {
                judge(&path, provider, probe)
            };
            done |= verdict == Verdict::Usable || place == Place::Variable;
            candidates.push(Candidate { place, path, version, verdict });
        }
        SearchReport { candidates }
    }
}

fn judge(
    path: &Path,
    provider: Provider,
    probe: &dyn Fn(&Path) -> Result<u32, String>,
) -> (Option<String>, Verdict) {
    let minor = match probe(path) {
        Ok(minor) => minor,
        Err(reason) => return (None, Verdict::Unloadable(reason)),
    };
    let named = path.file_name().and_then(OsStr::to_str).and_then(|name| name.split_once(".so.1."));
    let version = match named {
        Some((_, rest)) if rest.split('.').next() == Some(&minor.to_string()) => {
            format!("1.{rest}")
        }
        _ => format!("1.{minor}"),
    };
    let verdict = match provider.library() {
        _ if minor < OLDEST_MINOR => Verdict::TooOld,
        Some(library) if !path.with_file_name(library).exists() => Verdict::NoProvider(library),
        _ => Verdict::Usable,
    };
    (Some(version), verdict)
}

/// The minor version of the library, or why it has none. Makes no `ort::Error`: that would load a
/// library of ort's choice.
fn probe(path: &Path) -> Result<u32, String> {
    elf::check(path).map_err(|why| format!("does not load: {why}"))?;
    if let Some(minor) = ort::util::probe(path) {
        return Ok(minor);
    }
    match ort::util::preload_dylib(path) {
        Err(error) => Err(format!("does not load: {}", error_chain(&error))),
        Ok(()) => Err("is not a library of ONNX Runtime 1".into()),
    }
}

#[cfg(test)]
#[path = "library_tests.rs"]
mod tests;
