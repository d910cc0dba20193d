//! The engines that TensorRT builds and keeps itself: it is given the graph, and reads its engine in
//! the place of building one.

use std::fs;
use std::path::Path;

use hydit_graphs::manifest::GraphEntry;

use super::Engines;
use super::manifest::stem;
use crate::artifacts::Artifacts;
use crate::error::{Error, Result};
use crate::runtime::watch::Watch;
use crate::runtime::{Backend, EngineCache, Profile, RuntimeError, Session};

/// How the names of the files end in which TensorRT keeps the times of kernels: one for each kind of
/// GPU, and all graphs add to it.
pub(super) const TIMES: &str = ".timing";

/// Has TensorRT build the engine of `graph` for the shapes of `profile` into the folder `place`, and
/// gives the names of its files, which begin with `stem`.
pub(super) fn build(
    artifacts: &Artifacts,
    graph: &GraphEntry,
    backend: &Backend,
    (place, stem): (&Path, &str),
    profile: &Profile,
) -> Result<Vec<String>> {
    let (folder, prefix) = (absolute(place)?, Some(stem.to_string()));
    let backend = backend.caching(EngineCache { folder, prefix, profile: Some(profile.clone()) });
    drop(artifacts.load_graph(graph, |path| backend.load_seldom(path))?);
    let made = files(place, stem)?;
    if !made.iter().any(|name| name.ends_with(".engine")) {
        let message =
            "TensorRT has built no engine of it: compile the model without --engines to see why";
        let path = artifacts.path.join(&graph.file);
        return Err(Error::Artifact { path, message: message.to_string() });
    }
    Ok(made)
}

/// Takes the times of kernels along from the folder `older`, if it has any, to `place`.
pub(super) fn take_times(older: &Path, place: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(older) else { return Ok(()) };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.ends_with(TIMES)) {
            let path = place.join(&name);
            fs::copy(entry.path(), &path).map_err(|source| Error::Write { path, source })?;
        }
    }
    Ok(())
}

/// The names of the files in `folder` that hold times of kernels, in order.
pub(super) fn times(folder: &Path) -> Result<Vec<String>> {
    names(folder, |name| name.ends_with(TIMES))
}

/// The names of the files in `folder` of the engine whose names begin with `stem`, in order.
fn files(folder: &Path, stem: &str) -> Result<Vec<String>> {
    names(folder, |name| name.strip_prefix(stem).is_some_and(|rest| rest.starts_with(['_', '.'])))
}

fn names(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    let read = |source| Error::Read { path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        let name = entry.map_err(read)?.file_name();
        names.extend(name.to_str().filter(|name| wanted(name)).map(str::to_string));
    }
    names.sort();
    Ok(names)
}

fn absolute(folder: &Path) -> Result<std::path::PathBuf> {
    folder.canonicalize().map_err(|source| Error::Read { path: folder.to_owned(), source })
}

impl Engines {
    /// Loads `graph` by `load`, with its engine of TensorRT. Unless TensorRT may build, its files must be
    /// as they were built, and stay so.
    pub(super) fn load_cached(
        &self,
        artifacts: &Artifacts,
        graph: &GraphEntry,
        backend: &Backend,
        load: impl FnOnce(&Backend, &Path) -> std::result::Result<Session, RuntimeError>,
    ) -> Result<Session> {
        let again = || self.again(artifacts, backend);
        let here = self.check_for(backend, &again)?;
        let entry = self.entry(artifacts, graph, &here, &again)?;
        let prefix = stem(&graph.name, &entry.key);
        let cache = |profile: Option<Profile>| -> Result<Backend> {
            let (folder, prefix) = (absolute(&self.folder)?, Some(prefix.clone()));
            Ok(backend.caching(EngineCache { folder, prefix, profile }))
        };
        if self.allows_build {
            let cached = cache(None)?;
            return artifacts.load_graph(graph, |path| load(&cached, path));
        }
        let read = |source| Error::Read { path: self.folder.clone(), source };
        let watch = Watch::of(&self.folder).map_err(read)?;
        for name in &entry.files {
            self.check_file(name, &self.manifest.files[name], &again())?;
        }
        let cached = cache(entry.profile.clone())?;
        let session = artifacts.load_graph(graph, |path| load(&cached, path))?;
        let names: Vec<&str> = entry.files.iter().map(String::as_str).collect();
        if watch.changed(&names).map_err(read)? || files(&self.folder, &prefix)? != entry.files {
            return Err(self.refused(format!(
                "TensorRT has built an engine of {} instead of reading the one that is there: {}",
                graph.name,
                again()
            )));
        }
        Ok(session)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use hydit_testing::emoji;

    use super::super::compile::write;
    use super::super::manifest::FILE;
    use super::super::{Pictures, Staging};
    use super::*;
    use crate::request::Request;
    use crate::runtime::CompiledFor;

    fn here(device: &str) -> CompiledFor {
        CompiledFor {
            onnxruntime: "1.31.1".into(),
            provider: "tensorrt".into(),
            version: "a".repeat(64),
            device: device.into(),
            options: BTreeMap::new(),
        }
    }

    /// Writes a folder of engines as TensorRT names them, and gives what each graph was built for.
    fn built(
        artifacts: &Artifacts,
        folder: &Path,
        pictures: &Pictures,
    ) -> BTreeMap<String, Profile> {
        let mut asked = BTreeMap::new();
        let staging = Staging::begin(folder).expect("a staging folder");
        take_times(folder, staging.place()).expect("copied");
        let mut make = |graph: &GraphEntry, stem: &str, profile: Option<&Profile>| {
            asked.insert(graph.name.clone(), profile.expect("shapes").clone());
            for name in ["_123_0_0_sm90.engine", "_123_0_0_sm90.profile"] {
                fs::write(staging.place().join(format!("{stem}{name}")), stem).expect("written");
            }
            let times = staging.place().join("TensorrtExecutionProvider_cache_sm90.timing");
            let before = fs::read_to_string(&times).unwrap_or_default();
            fs::write(times, format!("{before}{}\n", graph.name)).expect("written");
            files(staging.place(), stem)
        };
        write(
            artifacts,
            here("NVIDIA H100"),
            Some(pictures),
            staging.place(),
            &mut make,
            &mut |_| {},
        )
        .expect("written");
        staging.put_in_place().expect("moved");
        asked
    }

    #[test]
    fn what_tensorrt_builds_is_listed_and_its_times_are_taken_along() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = root.path().join("engines");
        let artifacts = Artifacts::open(&emoji::artifacts()).expect("artifacts");
        let pictures = Pictures::new(&artifacts.manifest, vec![[128, 128]], 1).expect("a size");
        let asked = built(&artifacts, &folder, &pictures);
        let graph = artifacts.entry("deep-core").expect("a graph");
        assert_eq!(asked["deep-core"], pictures.profile(&artifacts.manifest, graph));

        let engines = Engines::open(&folder).expect("a manifest");
        engines.check_all().expect("all are there");
        let again = || "again".to_string();
        let entry = engines.entry(&artifacts, graph, &here("NVIDIA H100"), &again).expect("fits");
        assert_eq!(entry.files.len(), 2);
        assert!(entry.files[0].starts_with(&format!("{}_", stem("deep-core", &entry.key))));
        let times = times(&folder).expect("a folder");
        assert_eq!(times, ["TensorrtExecutionProvider_cache_sm90.timing"]);
        assert!(engines.manifest.files.contains_key(&times[0]));
        let names = |folder: &Path| fs::read_to_string(folder.join(&times[0])).expect("times");
        let once = names(&folder);
        assert_eq!(once.lines().count(), asked.len());

        // Another size: other engines, and the same times.
        let other = Pictures::new(&artifacts.manifest, vec![[64, 64]], 1).expect("a size");
        built(&artifacts, &folder, &other);
        assert_eq!(names(&folder), once.repeat(2));
        let engines = Engines::open(&folder).expect("a manifest");
        let other = engines.entry(&artifacts, graph, &here("NVIDIA H100"), &again).expect("fits");
        assert_ne!(other.key, entry.key);
        assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 2 * asked.len() + 2);
    }

    #[test]
    fn engines_for_another_gpu_or_of_changed_shapes_are_refused() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = root.path().join("engines");
        let artifacts = Artifacts::open(&emoji::artifacts()).expect("artifacts");
        let pictures = Pictures::new(&artifacts.manifest, vec![[128, 128]], 1).expect("a size");
        built(&artifacts, &folder, &pictures);
        let graph = artifacts.entry("vae-decoder").expect("a graph");
        let again = || "do it again".to_string();
        let refused = |here: &CompiledFor| {
            let engines = Engines::open(&folder).expect("a manifest");
            let found = engines.check_made(here, &again);
            let found =
                found.and_then(|()| engines.entry(&artifacts, graph, here, &again).map(drop));
            found.err().map(|error| error.to_string())
        };
        assert_eq!(refused(&here("NVIDIA H100")), None);
        let said = refused(&here("NVIDIA A10")).expect("another GPU");
        assert!(
            said.contains("compiled for another device: NVIDIA H100, where NVIDIA A10 is used")
        );
        assert!(said.ends_with("do it again"), "{said}");
        let manifest = folder.join(FILE);
        let text = fs::read_to_string(&manifest).expect("a manifest");
        let forged = text.replace("max: latents:1x4x16x16", "max: latents:1x4x64x64");
        assert_ne!(forged, text);
        fs::write(&manifest, forged).expect("written");
        let said = refused(&here("NVIDIA H100")).expect("other shapes");
        assert!(said.contains("vae-decoder was compiled from another export"), "{said}");
    }

    #[test]
    fn requests_for_other_pictures_are_refused_unless_tensorrt_may_build() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = root.path().join("engines");
        let open = || Artifacts::open(&emoji::artifacts()).expect("artifacts");
        let pictures =
            Pictures::new(&open().manifest, vec![[64, 64], [64, 128]], 1).expect("sizes");
        built(&open(), &folder, &pictures);
        let artifacts = open().with_engines(Some(&folder)).expect("engines");
        let asked = |height, width, artifacts: &Artifacts| {
            let request = Request::new(&artifacts.manifest, "a cat").expect("a request");
            Request { height, width, ..request }.check(artifacts).map(drop)
        };
        asked(64, 128, &artifacts).expect("a known size");
        let refused = asked(128, 64, &artifacts).expect_err("another").to_string();
        assert!(refused.contains("were built for: 64x64, 64x128"), "{refused}");
        asked(128, 64, &artifacts.allowing_builds(true)).expect("it may be built");
    }

    #[test]
    fn the_sizes_of_a_model_are_those_of_its_engines_where_there_may_be_no_others() {
        let root = tempfile::tempdir().expect("a folder");
        let open = || Artifacts::open(&emoji::artifacts()).expect("artifacts");
        let sizes = |sizes: &[[usize; 2]], allowed| {
            let folder = root.path().join(format!("{}", sizes.len()));
            let pictures = Pictures::new(&open().manifest, sizes.to_vec(), 1).expect("sizes");
            built(&open(), &folder, &pictures);
            let artifacts = open().with_engines(Some(&folder)).expect("engines");
            let artifacts = artifacts.allowing_builds(allowed);
            (artifacts.sizes(), artifacts.only_sizes(), artifacts.usual_size())
        };
        let trained = open().manifest.variant.sizes;
        assert_eq!((open().sizes(), open().only_sizes()), (trained.clone(), None));
        let one = vec![[64, 96]];
        assert_eq!(sizes(&one, false), (one.clone(), Some(one.clone()), [64, 96]));
        assert_eq!(sizes(&one, true), (trained, None, [128, 128]));
        // The usual size, where there are engines for it.
        let two = vec![[64, 96], [128, 128]];
        assert_eq!(sizes(&two, false), (two.clone(), Some(two), [128, 128]));
    }
}
