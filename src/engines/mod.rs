//! Engines: the graphs of an export, compiled ahead for one provider on one device.
//!
//! A folder of engines has a manifest, `engines.yaml`, and for each graph an ONNX file with the
//! provider's own files beside. [`compile()`] writes one; [`Artifacts`] that are opened
//! [with it](Artifacts::with_engines) load from it. An engine is taken only if it was made of just
//! these graphs, for just this provider, version, device and options, if its files are what the
//! manifest says, and if the provider says that it runs here.
//!
//! TensorRT, where it is no plugin, has no such ONNX files: it is given the graphs of the export, and finds
//! its engines by their names. They are for a list of [`Pictures`], and requests for others are refused.

mod ahead;
mod cache;
mod compile;
mod manifest;
mod profile;
mod staging;

use std::fs::File;
use std::path::{Path, PathBuf};

use hydit_graphs::context::Context;
use hydit_graphs::manifest::{FileEntry, GraphEntry};
use hydit_input::{file, quoted};

use self::ahead::Ahead;
pub use self::compile::{Compiled, compile};
use self::manifest::{EngineEntry, EnginesManifest, key};
pub use self::profile::Pictures;
#[cfg(test)]
use self::staging::Staging;
use crate::artifacts::{Artifacts, check_listed};
use crate::error::{Error, Result};
use crate::request::Request;
use crate::runtime::watch::Watch;
use crate::runtime::{Backend, Compatibility, CompiledFor, Provider, RuntimeError, Session};
use crate::util::sha256;

/// Largest ONNX file of an engine that is read; the provider's own files are not.
const MAX_CONTEXT: u64 = 1 << 20;

/// A folder of engines with a manifest of our version.
pub struct Engines {
    folder: PathBuf,
    manifest: EnginesManifest,
    /// Whether TensorRT may build others.
    allows_build: bool,
    /// What is hashed before it is asked for.
    ahead: Option<Ahead>,
}

impl Engines {
    /// Reads the manifest in `folder`.
    ///
    /// # Errors
    /// It is not there, or not a manifest of this version.
    pub fn open(folder: &Path) -> Result<Engines> {
        let manifest = EnginesManifest::read(folder)?;
        let folder = folder.to_path_buf();
        Ok(Engines { folder, manifest, allows_build: false, ahead: None })
    }

    /// The same, whose files a thread begins to hash now, while the provider is opened. Each of these
    /// hashes is used once, by the first load of the engine; later ones hash again.
    pub(crate) fn hashing(self) -> Engines {
        let engines = self.manifest.engines.values();
        let files = engines.flat_map(|engine| &engine.files[1..]);
        let sized = files.map(|name| (self.manifest.files[name].bytes, name.clone())).collect();
        // Where the folder cannot be watched, a load says so.
        Engines { ahead: Ahead::begin(&self.folder, sized).ok(), ..self }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What they are compiled for.
    pub fn compiled_for(&self) -> &CompiledFor {
        &self.manifest.compiled_for
    }

    /// The pictures that they draw; any, if `None`.
    pub fn pictures(&self) -> Option<&Pictures> {
        self.manifest.pictures.as_ref()
    }

    /// Height and width of all pictures that they draw; any, if `None`.
    pub(crate) fn only_sizes(&self) -> Option<&[[usize; 2]]> {
        let pictures = self.pictures().filter(|_| !self.allows_build);
        pictures.map(|pictures| &pictures.sizes[..])
    }

    /// The same, where TensorRT may build what is not there, in their folder, or may not.
    pub(crate) fn allowing_builds(self, allows_build: bool) -> Engines {
        Engines { allows_build, ..self }
    }

    /// Checks that they draw what `request` asks for.
    ///
    /// # Errors
    /// [`Error::Request`] with what it may ask for.
    pub(crate) fn check_request(&self, request: &Request) -> Result<()> {
        match self.pictures() {
            Some(pictures) if !self.allows_build => pictures.check(request),
            _ => Ok(()),
        }
    }

    /// Checks that there is an engine for every graph of `artifacts` that draws, made of it and for
    /// `backend`, and that the provider runs it. Gives what the provider says of them all. The files
    /// are checked whole when they are loaded.
    ///
    /// # Errors
    /// [`Error::Artifact`] with what to do.
    pub fn check(&self, artifacts: &Artifacts, backend: &Backend) -> Result<Compatibility> {
        let again = || self.again(artifacts, backend);
        let here = self.check_for(backend, &again)?;
        let mut all = Compatibility::Good;
        for graph in compile::graphs(artifacts) {
            if self.pictures().is_some() {
                self.entry(artifacts, graph, &here, &again)?;
                continue;
            }
            let (_, one) = self.check_graph(artifacts, graph, &here, backend)?;
            if one != Compatibility::Good && all != Compatibility::Recompile {
                all = one;
            }
        }
        Ok(all)
    }

    /// Checks every file of every engine whole.
    fn check_all(&self) -> Result<()> {
        let mut files = self.manifest.files.iter();
        files.try_for_each(|(name, entry)| self.check_file(name, entry, "compile again"))
    }

    /// Loads the engine of `graph`, by `load`.
    ///
    /// # Errors
    /// [`Error::Artifact`] where it is not one of this graph and of this `backend`, was changed or does
    /// not run here.
    pub(crate) fn load(
        &self,
        artifacts: &Artifacts,
        graph: &GraphEntry,
        backend: &Backend,
        load: impl FnOnce(&Backend, &Path) -> std::result::Result<Session, RuntimeError>,
    ) -> Result<Session> {
        if self.pictures().is_some() {
            return self.load_cached(artifacts, graph, backend, load);
        }
        let read = |source| Error::Read { path: self.folder.clone(), source };
        let watch = Watch::of(&self.folder).map_err(read)?;
        let here = self.check_for(backend, &|| self.again(artifacts, backend))?;
        let (entry, _) = self.check_graph(artifacts, graph, &here, backend)?;
        let mend = self.again(artifacts, backend);
        let names: Vec<&str> = entry.files.iter().map(String::as_str).collect();
        // The first was checked with the graph.
        let mut others = names[1..].iter();
        others.try_for_each(|name| self.check_file(name, &self.manifest.files[*name], &mend))?;
        let session = load(backend, &self.folder.join(names[0]));
        if watch.changed(&names).map_err(read)? {
            let message = "was exchanged or changed while it was loaded: load it again".to_string();
            return Err(Error::Artifact { path: self.folder.join(names[0]), message });
        }
        Ok(session?)
    }

    /// Checks that they are compiled for `backend`, and gives what that is.
    fn check_for(&self, backend: &Backend, again: &dyn Fn() -> String) -> Result<CompiledFor> {
        let made = &self.manifest.compiled_for;
        let Ok(here) = backend.compiled_for() else {
            return Err(self.refused(format!(
                "they are for the provider {}, and the {} provider has no engines: add --provider {}, or \
                 leave out --engines",
                made.provider,
                backend.provider(),
                made.provider
            )));
        };
        self.check_made(&here, again)?;
        Ok(here)
    }

    fn check_made(&self, here: &CompiledFor, again: &dyn Fn() -> String) -> Result<()> {
        match self.manifest.compiled_for.difference(here) {
            None => Ok(()),
            Some((what, then, now)) => Err(self.refused(format!(
                "they were compiled for another {what}: {then}, where {now} is used: {}",
                again()
            ))),
        }
    }

    /// The engine of `graph`, if it is made of it for `here`.
    fn entry(
        &self,
        artifacts: &Artifacts,
        graph: &GraphEntry,
        here: &CompiledFor,
        again: &dyn Fn() -> String,
    ) -> Result<&EngineEntry> {
        let name = &graph.name;
        let Some(entry) = self.manifest.engines.get(name) else {
            return Err(self.refused(format!("there is none of {name}: {}", again())));
        };
        let sources = manifest::sources(artifacts, graph);
        if entry.sources != sources || entry.key != key(here, &sources, entry.profile.as_ref()) {
            return Err(self.refused(format!(
                "that of {name} was compiled from another export of the model: {}",
                again()
            )));
        }
        Ok(entry)
    }

    /// Checks that the engine of `graph` is made of it for `here`, and that its ONNX file names no
    /// other files than its own. Gives it, and what the provider says.
    fn check_graph(
        &self,
        artifacts: &Artifacts,
        graph: &GraphEntry,
        here: &CompiledFor,
        backend: &Backend,
    ) -> Result<(&EngineEntry, Compatibility)> {
        let again = || self.again(artifacts, backend);
        let entry = self.entry(artifacts, graph, here, &again)?;
        let path = self.folder.join(&entry.files[0]);
        let wrong = |why: String| Error::Artifact {
            path: path.clone(),
            message: format!("{why}: {}", again()),
        };
        self.check_file(&entry.files[0], &self.manifest.files[&entry.files[0]], &again())?;
        let bytes = file::read(&path, MAX_CONTEXT)
            .map_err(|source| Error::Read { path: path.clone(), source })?;
        let context = Context::read(&bytes, backend.provider_name()?)
            .map_err(|why| wrong(format!("no engine, {why}")))?;
        if let Some(other) = context.files.iter().find(|file| !entry.files[1..].contains(file)) {
            let other: String = other.chars().take(100).flat_map(char::escape_debug).collect();
            return Err(wrong(format!("it names {other}, which is no file of this engine")));
        }
        let compatibility = match &context.compatibility {
            Some(words) => backend.compatibility(words)?,
            None => Compatibility::Unknown,
        };
        if compatibility == Compatibility::Unsupported {
            return Err(wrong(format!(
                "the {} provider says that it does not run on this machine",
                backend.provider()
            )));
        }
        Ok((entry, compatibility))
    }

    fn check_file(&self, name: &str, entry: &FileEntry, mend: &str) -> Result<()> {
        let known = self.ahead.as_ref().and_then(|ahead| ahead.take(name));
        let hash = |file: &mut File| known.map_or_else(|| sha256(file), Ok).map(Some);
        check_listed(
            &self.folder.join(name),
            entry,
            hash,
            &format!("since it was compiled: {mend}"),
        )
    }

    fn refused(&self, message: String) -> Error {
        Error::Artifact { path: self.folder.join(manifest::FILE), message }
    }

    /// What to do about engines that are of no use.
    fn again(&self, artifacts: &Artifacts, backend: &Backend) -> String {
        let [model, engines] =
            [&artifacts.path, &self.folder].map(|path| quoted(&path.to_string_lossy()));
        let pictures = match (backend.provider(), self.pictures()) {
            (Provider::TensorRt, Some(pictures)) => format!(" {}", pictures.flags()),
            _ => String::new(),
        };
        format!(
            "compile again with `hydit-serve compile --model {model} {}{pictures} --engines {engines}`",
            backend.flags()
        )
    }
}
