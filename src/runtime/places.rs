//! Where libonnxruntime is looked for.
//!
//! The order: `ORT_DYLIB_PATH`, beside the program, the `onnxruntime` package of the Python that the
//! program was installed into, `.runtime/` in the current folder and those above it, the folders of the
//! system's loader, the `onnxruntime` package of other Pythons.
//! The first usable one is taken.

use std::{
    env,
    ffi::OsStr,
    fmt, fs,
    path::{Path, PathBuf},
};

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

        let program = env::current_exe().and_then(|program| program.canonicalize());
        if let Some(folder) = program.as_deref().ok().and_then(Path::parent) {
            folders.push((Place::BesideProgram, folder.to_owned()));
            let own = folder.parent().map(python_folders).unwrap_or_default();
            folders.extend(own.into_iter().map(|folder| (Place::Python, folder)));
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
}

/// The files of a folder that are named like the library, newest version first.
pub(super) fn libraries_in(folder: &Path) -> Vec<PathBuf> {
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
pub(super) fn runtime_folders(folder: &Path) -> impl Iterator<Item = PathBuf> {
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
pub(super) fn python_folders(prefix: &Path) -> Vec<PathBuf> {
    let versions = newest_first(entries(&prefix.join("lib"), |name| name.starts_with("python3")));
    versions
        .iter()
        .flat_map(|lib| {
            ["site-packages", "dist-packages"]
                .map(|packages| lib.join(packages).join("onnxruntime/capi"))
        })
        .collect()
}

/// What a folder has whose name is `wanted`, by name; nothing of a folder that cannot be read.
pub(super) fn entries(folder: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
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
