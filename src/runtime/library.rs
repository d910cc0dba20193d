//! Where libonnxruntime is looked for, and what became of every candidate.
//!
//! The order: `ORT_DYLIB_PATH`, beside the program, `.runtime/` in the current folder and those above it, the folders of
//! the system's loader, the `onnxruntime` package of Python installations. The first usable one is taken.

use std::{
    collections::HashSet,
    env,
    ffi::OsStr,
    fmt, fs,
    path::{Path, PathBuf},
};

use super::Provider;

/// The oldest minor version of ONNX Runtime 1 that works: the API level that hydit is compiled for.
pub const OLDEST_MINOR: u32 = ort::MINOR_VERSION;

/// One of the places in the search order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// `ORT_DYLIB_PATH`. What it names is used or refused, never passed over.
    Variable,
    /// The folder of the program.
    BesideProgram,
    /// `.runtime/` and `.runtime/<version>/`, in the current folder or one above it.
    RuntimeFolder,
    /// A folder that the system's loader searches.
    System,
    /// `onnxruntime/capi` in the packages of a Python.
    Python,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Place::Variable => "ORT_DYLIB_PATH",
            Place::BesideProgram => "beside the program",
            Place::RuntimeFolder => ".runtime",
            Place::System => "system",
            Place::Python => "Python package",
        })
    }
}

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
    /// "1.31.1" from the file's name, or "1.31" from the library itself; `None` where it was not probed or is none.
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
    /// The library that is used: the first usable one, unless `ORT_DYLIB_PATH` names one that is not.
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

    /// The candidates that cannot be used, one indented line each, after a line break; empty when there are none.
    pub(super) fn refused(&self) -> String {
        let unusable = |c: &&Candidate| !matches!(c.verdict, Verdict::Usable | Verdict::NotTried);
        self.candidates
            .iter()
            .filter(unusable)
            .map(|candidate| format!("\n  {candidate}"))
            .collect()
    }
}

/// The folders to search, and the file that `ORT_DYLIB_PATH` names.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// `ORT_DYLIB_PATH`, when set and not empty.
    pub variable: Option<PathBuf>,
    /// Folders in order; those that do not exist do no harm.
    pub folders: Vec<(Place, PathBuf)>,
}

impl Places {
    /// The places of this process: its environment, program and current folder.
    pub fn of_process() -> Places {
        let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let split = |name: &str| {
            variable(name).map(|v| env::split_paths(&v).collect::<Vec<_>>()).unwrap_or_default()
        };
        let here = env::current_dir().unwrap_or_default();
        let mut folders = Vec::new();

        if let Some(folder) = env::current_exe().ok().as_deref().and_then(Path::parent) {
            folders.push((Place::BesideProgram, folder.to_owned()));
        }
        for folder in here.ancestors() {
            folders.extend(
                runtime_folders(&folder.join(".runtime")).map(|f| (Place::RuntimeFolder, f)),
            );
        }
        let system = split("LD_LIBRARY_PATH").into_iter().chain(loader_folders());
        folders.extend(system.map(|folder| (Place::System, folder)));

        let mut prefixes: Vec<PathBuf> =
            variable("VIRTUAL_ENV").into_iter().map(PathBuf::from).collect();
        prefixes.extend(entries(&here, |name| name.starts_with(".venv")));
        prefixes.extend(variable("HOME").map(|home| Path::new(&home).join(".local")));
        prefixes.extend(split("PATH").iter().filter_map(|bin| bin.parent().map(Path::to_owned)));
        folders.extend(
            prefixes.iter().flat_map(|p| python_folders(p)).map(|folder| (Place::Python, folder)),
        );

        Places { variable: variable("ORT_DYLIB_PATH").map(PathBuf::from), folders }
    }

    /// Looks for a library that has `provider`. Probing stops at the first usable one, unless `all` is set.
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

/// The minor version of the library, or why it has none. Makes no `ort::Error`: that would load a library of ort's choice.
fn probe(path: &Path) -> Result<u32, String> {
    if let Some(minor) = ort::util::probe(path) {
        return Ok(minor);
    }
    match ort::util::preload_dylib(path) {
        Err(error) => Err(format!("does not load: {}", causes(&error))),
        Ok(()) => Err("is not a library of ONNX Runtime 1".into()),
    }
}

/// An error with all its causes: the loader's own words are in the cause, "dlopen failed" is the error.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.map(|error| error.to_string()).collect::<Vec<_>>().join(": ")
}

/// The files of a folder that are named like the library, newest version first.
fn libraries_in(folder: &Path) -> Vec<PathBuf> {
    let named = |name: &str| match name.strip_prefix("libonnxruntime.") {
        Some(rest) if cfg!(target_os = "macos") => rest.ends_with("dylib"),
        Some(rest) => rest
            .strip_prefix("so")
            .is_some_and(|v| v.chars().all(|c| c == '.' || c.is_ascii_digit())),
        None => false,
    };
    newest_first(entries(folder, named))
}

/// `.runtime` itself and its folders, newest version first.
fn runtime_folders(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let versions = entries(folder, |name| name.starts_with(|c: char| c.is_ascii_digit()));
    std::iter::once(folder.to_owned()).chain(newest_first(versions))
}

/// The folders of the system's loader: those named in its configuration, then its own.
fn loader_folders() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for file in entries(Path::new("/etc/ld.so.conf.d"), |name| name.ends_with(".conf")) {
        let text = fs::read_to_string(file).unwrap_or_default();
        folders.extend(
            text.lines().map(str::trim).filter(|line| line.starts_with('/')).map(PathBuf::from),
        );
    }
    folders
        .extend(["/usr/local/lib", "/usr/lib64", "/lib64", "/usr/lib", "/lib"].map(PathBuf::from));
    folders
}

/// `onnxruntime/capi` of the packages below a Python's prefix.
fn python_folders(prefix: &Path) -> Vec<PathBuf> {
    let versions = newest_first(entries(&prefix.join("lib"), |name| name.starts_with("python3")));
    versions
        .iter()
        .flat_map(|lib| {
            ["site-packages", "dist-packages"]
                .map(|packages| lib.join(packages).join("onnxruntime/capi"))
        })
        .collect()
}

fn entries(folder: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let Ok(read) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = read
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(&wanted))
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    paths
}

/// Orders paths by the numbers in their last part, greatest first: 1.31.1 comes before 1.9.0.
fn newest_first(mut paths: Vec<PathBuf>) -> Vec<PathBuf> {
    let numbers = |path: &PathBuf| -> Vec<u64> {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
    };
    paths.sort_by_key(|path| std::cmp::Reverse(numbers(path)));
    paths
}

#[cfg(test)]
#[path = "library_tests.rs"]
mod tests;
