//! An artifact folder, as `hydit-export` writes it: manifest and checked files.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use hydit_graphs::check::check_file;
use hydit_graphs::manifest::{self, FileEntry, GraphEntry, Manifest};
use hydit_graphs::{GraphOptions, Precision};
use hydit_input::file;
use hydit_input::tokenizer::PaddedTokenizer;
use sha2::{Digest, Sha256};

use crate::class_label::Classes;
use crate::engines::Engines;
use crate::error::{Error, Result};
use crate::lora::Loras;
use crate::runtime::watch::Watch;
use crate::runtime::{Backend, MAX_GRAPH, Provider, RuntimeError, Session};
use crate::util::{hex, sha256};

/// Largest manifest read.
const MAX_MANIFEST: u64 = 4 << 20;

/// A folder with a manifest of our version.
pub struct Artifacts {
    /// The folder.
    pub path: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
    /// SHA-256 of the manifest's text: names this export, weights included.
    pub hash: String,
    /// The LoRAs that requests may name.
    pub loras: Loras,
    /// The classes that its model draws, if it draws any.
    pub classes: Option<Arc<Classes>>,
    /// What is loaded in the place of its graphs, if they were compiled ahead.
    pub engines: Option<Engines>,
    /// The tokenizers of both text encoders, for as long as something has them.
    pub(crate) tokenizers: Mutex<[Weak<PaddedTokenizer>; 2]>,
}

impl Artifacts {
    /// Reads the manifest in `path`, and the names of the classes that its model draws.
    pub fn open(path: &Path) -> Result<Artifacts> {
        let file = path.join(manifest::FILE);
        let text = file::read_text(&file, MAX_MANIFEST).map_err(|source| match source.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => Error::Artifact {
                path: file.clone(),
                message: "not found: not an artifact folder, or its export did not finish; \
                          make one with hydit-export --checkpoint DIR --out DIR"
                    .to_string(),
            },
            _ => Error::Read { path: file.clone(), source },
        })?;
        let manifest = Manifest::from_yaml(&text)
            .map_err(|source| Error::Manifest { path: file.clone(), source })?;
        let hash = hex(&Sha256::digest(text.as_bytes()));
        let (path, loras, tokenizers) = (path.to_path_buf(), Loras::default(), Mutex::default());
        let (engines, classes) = (None, None);
        let mut artifacts = Artifacts { path, manifest, hash, loras, classes, engines, tokenizers };
        artifacts.classes = Classes::read(&artifacts)?.map(Arc::new);
        Ok(artifacts)
    }

    /// The same with the LoRAs in `folder`, if one is given, for requests to name.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn with_loras(self, folder: Option<&Path>) -> Result<Artifacts> {
        let loras = folder.map(Loras::new).transpose()?.unwrap_or_default();
        Ok(Artifacts { loras, ..self })
    }

    /// The same with the engines in `folder`, if one is given, in the place of its graphs.
    ///
    /// # Errors
    /// The folder has no engines, or its manifest is of another version. Whether they fit is told by
    /// [`Artifacts::check_engine`].
    pub fn with_engines(self, folder: Option<&Path>) -> Result<Artifacts> {
        let engines = folder.map(Engines::open).transpose()?.map(Engines::hashing);
        Ok(Artifacts { engines, ..self })
    }

    /// The same, where TensorRT may build engines that are not among those of
    /// [`Artifacts::with_engines`], or may not, as it is at first.
    pub fn allowing_builds(self, allowed: bool) -> Artifacts {
        let engines = self.engines.map(|engines| engines.allowing_builds(allowed));
        Artifacts { engines, ..self }
    }

    /// What the manifest says of `graph`.
    pub fn entry(&self, graph: &str) -> Result<&GraphEntry> {
        let path = || self.path.join(manifest::FILE);
        self.manifest.graph(graph).map_err(|source| Error::Manifest { path: path(), source })
    }

    /// Loads `graph`, which is to run again and again.
    ///
    /// # Errors
    /// When it does not load, or is not the graph that the manifest tells of.
    pub fn load(&self, graph: &str, backend: &Backend) -> Result<Session> {
        self.load_by(graph, backend, Backend::load)
    }

    /// As [`Artifacts::load`], for a graph that runs now and then.
    ///
    /// # Errors
    /// As [`Artifacts::load`].
    pub fn load_seldom(&self, graph: &str, backend: &Backend) -> Result<Session> {
        self.load_by(graph, backend, Backend::load_seldom)
    }

    /// Loads `graph` on `backend` by `load`, or its engine.
    fn load_by(
        &self,
        graph: &str,
        backend: &Backend,
        load: impl FnOnce(&Backend, &Path) -> std::result::Result<Session, RuntimeError>,
    ) -> Result<Session> {
        let entry = self.entry(graph)?;
        let session = match &self.engines {
            Some(engines) => engines.load(self, entry, backend, load)?,
            None => self.load_graph(entry, |path| load(backend, path))?,
        };
        Ok(session.promise(entry)?)
    }

    /// Loads the graph `entry` by `load`, if its file is what the manifest says, and neither it nor its
    /// weights were exchanged meanwhile.
    pub(crate) fn load_graph(
        &self,
        entry: &GraphEntry,
        load: impl FnOnce(&Path) -> std::result::Result<Session, RuntimeError>,
    ) -> Result<Session> {
        let path = self.path.join(&entry.file);
        let read = |source| Error::Read { path: self.path.clone(), source };
        let watch = Watch::of(&self.path).map_err(read)?;
        self.check(&entry.file, true)?;
        entry.weights().try_for_each(|name| self.check(name, false))?;
        let bytes = file::read(&path, MAX_GRAPH)
            .map_err(|source| Error::Read { path: path.clone(), source })?;
        let weights = entry.weights().map(|name| (&name[..], self.manifest.files[name].bytes));
        check_file(&bytes, &weights.collect::<Vec<_>>())
            .map_err(|why| Error::Artifact { path: path.clone(), message: why.to_string() })?;
        let session = load(&path);
        let files: Vec<&str> = entry.weights().chain([&entry.file]).map(String::as_str).collect();
        if watch.changed(&files).map_err(read)? {
            let message = "was exchanged or changed while it was loaded: load it again".to_string();
            return Err(Error::Artifact { path, message });
        }
        Ok(session?)
    }

    /// Checks that `backend` has the operators the graphs are written with: [`unfit`]; and that the
    /// engines, if there are any, are for it.
    pub fn check_engine(&self, backend: &Backend) -> Result<()> {
        if let Some(message) = unfit(self.graph_options(), backend.ort_provider()) {
            return Err(Error::Artifact { path: self.path.join(manifest::FILE), message });
        }
        match &self.engines {
            Some(engines) => engines.check(self, backend).map(drop),
            None => Ok(()),
        }
    }

    /// Height and width of the pictures that it draws: those that its engines are for, where there
    /// may be no others, or else those that the model was trained for.
    pub fn sizes(&self) -> Vec<[usize; 2]> {
        let only = self.only_sizes();
        only.unwrap_or_else(|| self.manifest.variant.sizes.clone())
    }

    /// The same, where it draws no others.
    pub fn only_sizes(&self) -> Option<Vec<[usize; 2]>> {
        let of_engines = self.engines.as_ref().and_then(Engines::only_sizes).map(<[_]>::to_vec);
        of_engines.or_else(|| self.manifest.model.only_size().map(|side| vec![[side; 2]]))
    }

    /// The size of a picture for which none is asked: the model's usual one, or the first of its
    /// engines where they are not for that.
    pub fn usual_size(&self) -> [usize; 2] {
        let usual = self.manifest.variant.defaults.image_size;
        match self.only_sizes() {
            Some(sizes) if !sizes.contains(&usual) => sizes[0],
            _ => usual,
        }
    }

    /// What the graphs are written for.
    pub fn graph_options(&self) -> GraphOptions {
        self.manifest.graph_options()
    }

    /// Checks size and hash of the ONNX files and tokenizers, and the sizes of the weights: all
    /// that decides which code runs. Hashing the weights too is [`Artifacts::check_all`].
    pub fn check_code(&self) -> Result<()> {
        let graphs = self.manifest.graphs.iter();
        let weights: Vec<&String> = graphs.flat_map(GraphEntry::weights).collect();
        for name in self.manifest.files.keys() {
            self.check(name, !weights.contains(&name))?;
        }
        Ok(())
    }

    /// Checks size and hash of the tokenizers: all that is needed of the folder beside the manifest
    /// where other machines draw.
    pub fn check_tokenizers(&self) -> Result<()> {
        let both = self.manifest.tokenizers.iter();
        both.flat_map(|both| [&both.text_encoder, &both.text_encoder_2])
            .try_for_each(|entry| self.check(&entry.file, true))
    }

    /// Checks size and hash of every file; `checked` is told each name and size.
    pub fn check_all(&self, mut checked: impl FnMut(&str, u64)) -> Result<()> {
        for (name, entry) in &self.manifest.files {
            self.check(name, true)?;
            checked(name, entry.bytes);
        }
        Ok(())
    }

    /// Checks size and hash of every file of `graph`, weights too.
    pub(crate) fn check_graph(&self, graph: &GraphEntry) -> Result<()> {
        graph.weights().chain([&graph.file]).try_for_each(|name| self.check(name, true))
    }

    pub(crate) fn check(&self, name: &str, hash: bool) -> Result<()> {
        let entry = &self.manifest.files[name];
        let mend = "since the export: export the checkpoint again";
        let sha256 = |file: &mut File| hash.then(|| sha256(file)).transpose();
        check_listed(&self.path.join(name), entry, sha256, mend)
    }
}

/// Checks the size of the file `path`, and its SHA-256 if `sha256` gives it, against what a manifest
/// says of it. `mend` says since when, and what to do.
pub(crate) fn check_listed(
    path: &Path,
    entry: &FileEntry,
    sha256: impl FnOnce(&mut File) -> io::Result<Option<String>>,
    mend: &str,
) -> Result<()> {
    let changed = |found: String| {
        Err(Error::Artifact { path: path.to_owned(), message: format!("{found} {mend}") })
    };
    let io = |source| Error::Read { path: path.to_owned(), source };
    if path.is_symlink() {
        let message = "a link, which no engine follows: put the file itself here, or link the \
                       folder as a whole";
        return Err(Error::Artifact { path: path.to_owned(), message: message.to_string() });
    }
    let mut file = file::open(path).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    if size != entry.bytes {
        file::check_whole(&file).map_err(io)?;
        return changed(format!("was changed from {} to {size} bytes", entry.bytes));
    }
    if sha256(&mut file).map_err(io)?.is_some_and(|found| found != entry.sha256) {
        return changed("was changed (its SHA-256 differs)".to_string());
    }
    Ok(())
}

/// Why ONNX Runtime with the provider `ort`, or tract where that is `None`, has not the operators
/// of graphs built with `options`, and what to do; `None` where it has.
pub fn unfit(options: GraphOptions, ort: Option<Provider>) -> Option<String> {
    let GraphOptions { precision, target, .. } = options;
    if let Some(Provider::Plugin(plugin)) = ort {
        return plugin.unfit(options);
    }
    match (precision, ort) {
        (Precision::Bf16, None | Some(Provider::Cpu)) => {
            let engine = ort.map_or("tract", |_| "ONNX Runtime's CPU provider");
            Some(format!(
                "written in bf16, which {engine} does not compute in: run it with --provider cuda \
                 or tensorrt, or export with --dtype fp32"
            ))
        }
        (
            Precision::Int8,
            Some(provider @ (Provider::Cuda | Provider::CudaGraphs | Provider::TensorRt)),
        ) => Some(format!(
            "written in int8, for which ONNX Runtime's {provider} provider has no operators: run it \
             with --provider cpu, or export with --dtype fp16"
        )),
        (Precision::Fp8, None) => Some(
            "written in fp8, which tract does not compute in: run it with --backend ort, or export \
             with --dtype fp16"
                .to_string(),
        ),
        (_, None) if target.has_fused_attention() => Some(format!(
            "written for ONNX Runtime (form {target}), which tract is not: run it with --backend \
             ort, or export with --optimize-for portable"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use hydit_testing::emoji;

    use super::*;
    use crate::runtime::{BackendChoice, RuntimeOptions};

    #[test]
    fn what_was_exchanged_while_it_was_loaded_is_not_taken() {
        let folder = emoji::own_artifacts();
        let artifacts = Artifacts::open(folder.path()).expect("a manifest");
        let options = RuntimeOptions { backend: BackendChoice::Tract, ..Default::default() };
        let backend = Backend::open(&options).expect("an engine");
        let [data, away, theirs] =
            ["conditioner.onnx.data", "away", "theirs"].map(|name| folder.path().join(name));
        fs::copy(&data, &theirs).expect("a copy");
        let swapped = |backend: &Backend, path: &Path| {
            fs::rename(&data, &away).expect("moved away");
            fs::rename(&theirs, &data).expect("another in its place");
            let session = backend.load(path);
            fs::rename(&data, &theirs).expect("moved away");
            fs::rename(&away, &data).expect("moved back");
            session
        };
        let error = artifacts
            .load_by("conditioner", &backend, swapped)
            .err()
            .expect("a refusal")
            .to_string();
        assert!(error.contains("was exchanged or changed while it was loaded"), "{error}");
        artifacts.load("conditioner", &backend).expect("all is as it was");
    }
}
