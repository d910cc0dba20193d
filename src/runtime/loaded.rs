//! The one library of ONNX Runtime that a process loads, and its environment.
//!
//! Traps of ort 2.0.0-rc.15 that shape this file:
//! - Making any `ort::Error` before a library is loaded makes ort load one of its own choice, and
//!   panic without one. So nothing of ort but `probe` runs before `init_from` has succeeded.
//! - An environment can be built once per process, even when the first one was dropped: it is kept
//!   for ever.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use ort::{
    environment::{Environment, GlobalThreadPoolOptions},
    logging::LogLevel,
};

use super::{
    Provider, RuntimeError,
    library::{Candidate, OLDEST_MINOR, Place, Places, SearchReport, Verdict},
};

/// What the process has loaded.
static LOADED: Mutex<Option<Loaded>> = Mutex::new(None);

/// A library with its environment.
#[derive(Clone)]
pub(super) struct Loaded {
    pub library: PathBuf,
    pub version: String,
    pub environment: Environment,
    /// The size of the thread pool that sessions share.
    pub threads: usize,
}

/// Why ONNX Runtime did not open.
pub(super) enum NotOpened {
    /// The search found nothing usable: another engine may take its place.
    Missing(SearchReport),
    /// What was named or found cannot be used.
    Refused(RuntimeError),
}

impl From<RuntimeError> for NotOpened {
    fn from(error: RuntimeError) -> NotOpened {
        NotOpened::Refused(error)
    }
}

impl Loaded {
    /// The library that the process has, or else the first that the search finds for `provider`,
    /// with `threads` for the work inside one node.
    pub fn get(provider: Provider, threads: usize, places: &Places) -> Result<Loaded, NotOpened> {
        // The lock guards one assignment: a panic elsewhere leaves it whole.
        let mut slot = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        match &*slot {
            Some(loaded) => {
                let wanted = places
                    .variable
                    .as_ref()
                    .map(|path| path.canonicalize().unwrap_or(path.clone()));
                if let Some(wanted) = wanted.filter(|wanted| *wanted != loaded.library) {
                    let loaded = loaded.library.clone();
                    return Err(RuntimeError::SecondLibrary { loaded, wanted }.into());
                }
                Ok(loaded.clone())
            }
            None => {
                let report = places.search(provider, false);
                if let Some(candidate) = report.refused_variable() {
                    return Err(refusal(candidate, provider).into());
                }
                let Some(candidate) = report.chosen() else {
                    return Err(NotOpened::Missing(report));
                };
                Ok(slot.insert(load(candidate, threads)?).clone())
            }
        }
    }
}

fn load(candidate: &Candidate, threads: usize) -> Result<Loaded, RuntimeError> {
    let library = candidate.path.clone();
    let failed = |reason: String| RuntimeError::Library {
        path: library.clone(),
        reason,
        mend: "run scripts/setup-ort, or set ORT_DYLIB_PATH to another library".into(),
    };
    let environment = ort::init_from(&library).map_err(|error| failed(error.to_string()))?;
    let pool = GlobalThreadPoolOptions::default()
        .with_intra_threads(threads)
        .map_err(|error| failed(format!("it refuses {threads} threads: {error}")))?;
    let environment = environment
        .with_name("hydit")
        .with_telemetry(false)
        // One pool for all graphs: they run in turn, and each own pool would spin against the
        // others.
        .with_global_thread_pool(pool)
        .build()
        .map_err(|error| failed(error.to_string()))?;
    if std::env::var_os("ORT_LOG").is_none() {
        // What it logs as an error it also returns as one.
        environment.set_log_level(LogLevel::Fatal);
    }
    let version = candidate.version.clone().unwrap_or_else(|| "1".into());
    Ok(Loaded { library: candidate.path.clone(), version, environment, threads })
}

/// Why the library that `ORT_DYLIB_PATH` names is refused.
fn refusal(candidate: &Candidate, provider: Provider) -> RuntimeError {
    let reason = match &candidate.verdict {
        Verdict::TooOld => format!(
            "it is version {}, and 1.{OLDEST_MINOR} or newer is needed",
            candidate.version.as_deref().unwrap_or("unknown")
        ),
        Verdict::NoProvider(library) => {
            let reason =
                format!("there is no {library} beside {} (a CPU build)", candidate.path.display());
            return RuntimeError::Provider { provider, reason, mend: provider.mend() };
        }
        Verdict::Unloadable(reason) => format!("it {reason}"),
        Verdict::Usable | Verdict::NotTried => "it was not tried".into(),
    };
    debug_assert_eq!(candidate.place, Place::Variable);
    RuntimeError::Library {
        path: candidate.path.clone(),
        reason,
        mend: "ORT_DYLIB_PATH names it: set it to a newer libonnxruntime, \
               or unset it and run scripts/setup-ort"
            .into(),
    }
}
