//! The models of one worker: loaded when they are needed, within a memory limit.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::pulse::Pulse;
use crate::artifacts::Artifacts;
use crate::dit::sizes;
use crate::error::Result;
use crate::preview::Colours;
use crate::report::Timings;
use crate::runtime::{Backend, RuntimeOptions};
use crate::sampler::SamplerKind;
use crate::server::metrics;
use crate::{Pipeline, Request};

/// Steps of the picture that warms a model up: one that refreshes and one that reuses.
const WARM_UP: usize = 2;

/// A loaded model, warm.
pub struct Loaded {
    pub name: String,
    pub pipeline: Pipeline,
    pub colours: Colours,
    bytes: u64,
}

/// Those that are loaded, the one used last at the end.
pub struct Models {
    loaded: Vec<Loaded>,
    known: Arc<BTreeMap<String, Arc<Artifacts>>>,
    runtime: RuntimeOptions,
    limit: u64,
    pulse: Arc<Pulse>,
}

impl Models {
    /// None is loaded yet. They may take `limit` bytes together, counted as the bytes of their files;
    /// one alone may take more.
    pub fn new(
        known: Arc<BTreeMap<String, Arc<Artifacts>>>,
        runtime: RuntimeOptions,
        limit: Option<u64>,
        pulse: Arc<Pulse>,
    ) -> Models {
        Models { loaded: Vec::new(), known, runtime, limit: limit.unwrap_or(u64::MAX), pulse }
    }

    /// Loads `names`, in order, as long as they fit together.
    pub fn preload(&mut self, names: &[String]) -> Result<()> {
        let mut bytes = 0;
        for name in names {
            bytes += size(&self.known[name]);
            if bytes <= self.limit || self.loaded.is_empty() {
                self.get(name)?;
            }
        }
        Ok(())
    }

    /// The model `name`, loaded and warm; those used longest ago make room for it.
    pub fn get(&mut self, name: &str) -> Result<&mut Loaded> {
        let loaded = match self.loaded.iter().position(|loaded| loaded.name == name) {
            Some(place) => self.loaded.remove(place),
            None => {
                let artifacts = self.known[name].clone();
                let bytes = size(&artifacts);
                let taken = |loaded: &[Loaded]| loaded.iter().map(|l| l.bytes).sum::<u64>();
                while !self.loaded.is_empty() && taken(&self.loaded) + bytes > self.limit {
                    let evicted = self.loaded.remove(0);
                    tracing::info!(model = evicted.name, "evicted");
                    metrics::model(false);
                }
                let loaded = self.load(name, &artifacts.path, bytes)?;
                metrics::model(true);
                loaded
            }
        };
        self.loaded.push(loaded);
        Ok(self.loaded.last_mut().expect("pushed above"))
    }

    /// Loads a model and draws a picture of few steps, which compiles what the engine compiles on
    /// first use and shows how long each graph takes.
    fn load(&self, name: &str, folder: &Path, bytes: u64) -> Result<Loaded> {
        let start = std::time::Instant::now();
        let backend = Backend::open(&self.runtime)?;
        let engine = backend.describe();
        let mut pipeline = Pipeline::load(folder, backend)?;
        let manifest = pipeline.manifest();
        let cache = "N2-1000-0".parse().expect("a policy");
        let sampler = SamplerKind::Ddim; // whose pictures of few steps are like others
        let request = Request { steps: WARM_UP, cache, sampler, ..Request::new(manifest, "猫")? };
        let channels = manifest.model.transformer.in_channels;
        self.pulse.work_on(name, manifest, &sizes(manifest, &request));
        let mut timings = Timings::observed(self.pulse.clone());
        let mut walk = pipeline.enter(&request, &mut timings)?;
        let (_, mut plan) = request.plan(pipeline.artifacts())?;
        pipeline.transformer(&mut timings, |backend, dit, timings| {
            dit.prepare(backend, plan.keeps(), false)?;
            (0..WARM_UP).try_for_each(|_| walk.step(dit, &mut plan, timings).map(drop))
        })?;
        let latents = walk.place.latents;
        let picture = pipeline.decode(&request, &latents, &mut timings)?.remove(0);
        let mut colours = Colours::new(channels);
        colours.learn(&latents, &picture);
        let seconds = start.elapsed().as_secs_f64();
        tracing::info!(model = name, engine, seconds, "loaded and warm");
        Ok(Loaded { name: name.to_string(), pipeline, colours, bytes })
    }
}

/// Bytes of a model's files.
fn size(artifacts: &Artifacts) -> u64 {
    artifacts.manifest.files.values().map(|file| file.bytes).sum()
}
