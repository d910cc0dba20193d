//! Compiles the graphs of an export into a folder of engines.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use hydit_graphs::context::Context;
use hydit_graphs::manifest::{FileEntry, GraphEntry};
use hydit_input::file;

use super::cache;
use super::manifest::{EngineEntry, EnginesManifest, FILE, SCHEMA, key, sources, stem};
use super::profile::Pictures;
use super::staging::Staging;
use super::{Engines, MAX_CONTEXT};
use crate::artifacts::Artifacts;
use crate::error::{Error, Result};
use crate::runtime::{Backend, Compatibility, CompiledFor, Profile, Provider};
use crate::util::sha256;

/// An engine that was compiled just now.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The name of the graph.
    pub graph: String,
    /// How long it took.
    pub took: Duration,
    /// The size of its files in bytes.
    pub bytes: u64,
}

/// The graphs that draw: all but the unsplit transformer, which is there to be compared with.
pub(super) fn graphs(artifacts: &Artifacts) -> impl Iterator<Item = &GraphEntry> {
    artifacts.manifest.graphs.iter().filter(|graph| graph.name != "full")
}

/// Compiles the graphs of `artifacts` with the provider of `backend` into `folder`, which is new,
/// empty, or of engines, whose place the new ones take when all are there. Gives `None` where it has
/// just these engines already. TensorRT's are for `pictures`, or else for one of the usual size; those
/// of plugins are for any. `told` is told of each.
///
/// # Errors
/// The provider compiles no graphs, or not these; a file of the export was changed; the folder has
/// other files, or cannot be written.
pub fn compile(
    artifacts: &Artifacts,
    backend: &Backend,
    pictures: Option<&Pictures>,
    folder: &Path,
    mut told: impl FnMut(Compiled),
) -> Result<Option<Engines>> {
    let compiled_for = backend.compiled_for()?;
    artifacts.check_engine(backend)?;
    let is_cache = backend.provider() == Provider::TensorRt;
    let pictures = match pictures {
        _ if !is_cache => None,
        Some(pictures) => Some(pictures.clone()),
        None => Some(Pictures::new(&artifacts.manifest, Vec::new(), 1)?),
    };
    let pictures = pictures.as_ref();
    if is_up_to_date(artifacts, backend, pictures, folder) {
        return Ok(None);
    }
    let staging = Staging::begin(folder)?;
    let place = staging.place();
    if is_cache {
        cache::take_times(folder, place)?;
    }
    let mut make = |graph: &GraphEntry, stem: &str, profile: Option<&Profile>| {
        if let Some(profile) = profile {
            return cache::build(artifacts, graph, backend, (place, stem), profile);
        }
        let path = place.join(format!("{stem}.onnx"));
        backend.compile(&artifacts.path.join(&graph.file), &path)?;
        made_files(&path, backend)
    };
    write(artifacts, compiled_for, pictures, place, &mut make, &mut told)?;
    staging.put_in_place()?;
    Engines::open(folder).map(Some)
}

/// Writes the engine of a graph: it is given the graph, the beginning of the names of its files and, if
/// it is for some pictures only, its shapes, and gives the names.
pub(super) type Make<'a> =
    dyn FnMut(&GraphEntry, &str, Option<&Profile>) -> Result<Vec<String>> + 'a;

/// Has `make` write the engine of each graph of `artifacts` to the folder `place`, and writes their
/// manifest.
pub(super) fn write(
    artifacts: &Artifacts,
    compiled_for: CompiledFor,
    pictures: Option<&Pictures>,
    place: &Path,
    make: &mut Make<'_>,
    told: &mut dyn FnMut(Compiled),
) -> Result<()> {
    let (mut engines, mut files) = (BTreeMap::new(), BTreeMap::new());
    for graph in graphs(artifacts) {
        let start = Instant::now();
        artifacts.check_graph(graph)?;
        let sources = sources(artifacts, graph);
        let profile = pictures.map(|pictures| pictures.profile(&artifacts.manifest, graph));
        let key = key(&compiled_for, &sources, profile.as_ref());
        let made = make(graph, &stem(&graph.name, &key), profile.as_ref())?;
        let mut bytes = 0;
        for file in &made {
            let entry = entry(&place.join(file))?;
            bytes += entry.bytes;
            files.insert(file.clone(), entry);
        }
        engines.insert(graph.name.clone(), EngineEntry { key, sources, profile, files: made });
        told(Compiled { graph: graph.name.clone(), took: start.elapsed(), bytes });
    }
    for name in cache::times(place)? {
        let entry = entry(&place.join(&name))?;
        files.insert(name, entry);
    }
    let producer = concat!("hydit ", env!("CARGO_PKG_VERSION")).to_string();
    let (schema, pictures) = (SCHEMA, pictures.cloned());
    let manifest = EnginesManifest { schema, producer, compiled_for, pictures, engines, files };
    let path = place.join(FILE);
    fs::write(&path, manifest.to_yaml())
        .and_then(|()| File::open(&path)?.sync_all())
        .map_err(|source| Error::Write { path, source })
}

/// Whether `folder` has whole engines of `artifacts` for `backend` and `pictures` that need not be
/// compiled again.
fn is_up_to_date(
    artifacts: &Artifacts,
    backend: &Backend,
    pictures: Option<&Pictures>,
    folder: &Path,
) -> bool {
    let check = |engines: Engines| -> Result<Compatibility> {
        let found = engines.check(artifacts, backend)?;
        engines.check_all()?;
        Ok(found)
    };
    let same = |engines: &Engines| engines.pictures() == pictures;
    Engines::open(folder).is_ok_and(|engines| {
        same(&engines) && check(engines).is_ok_and(|found| found != Compatibility::Recompile)
    })
}

/// The names of the ONNX file `path` that the provider of `backend` has written, and of the files that
/// it names.
fn made_files(path: &Path, backend: &Backend) -> Result<Vec<String>> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    let wrong = |message: String| Error::Artifact { path: path.to_owned(), message };
    let bytes = file::read(path, MAX_CONTEXT).map_err(read)?;
    let context = Context::read(&bytes, backend.provider_name()?).map_err(|why| {
        wrong(format!("the {} provider does not compile it ahead: {why}", backend.provider()))
    })?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let others: BTreeSet<String> = context.files.into_iter().collect();
    if let Some(other) = others.iter().find(|other| !path.with_file_name(other).is_file()) {
        return Err(wrong(format!("it names {other:?}, which the provider has not written")));
    }
    Ok([name].into_iter().chain(others).collect())
}

/// Size and hash of a file, which is on the disk when this returns.
fn entry(path: &Path) -> Result<FileEntry> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    let mut file = file::open(path).map_err(read)?;
    file.sync_all().map_err(|source| Error::Write { path: path.to_owned(), source })?;
    let bytes = file.metadata().map_err(read)?.len();
    Ok(FileEntry { bytes, sha256: sha256(&mut file).map_err(read)? })
}
