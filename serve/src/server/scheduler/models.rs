//! The models of one worker: loaded when they are needed, within a memory limit.

use std::sync::Arc;

use hydit::artifacts::Artifacts;
use hydit::engines::Engines;
use hydit::error::Result;
use hydit::pipeline::cost::sizes;
use hydit::pipeline::preview::{Colours, squares};
use hydit::runtime::RuntimeOptions;
use hydit::sampler::SamplerKind;
use hydit::{Pipeline, Request};

use super::shared::Shared;
use super::watchdog::Watchdog;
use crate::engine;
use crate::server::metrics;

/// Steps of the picture that warms a model up: one that refreshes and one that reuses.
const WARM_UP: usize = 2;
/// What they draw, to which the colours of previews are fitted.
const WARM_UP_PROMPT: &str = "猫";

/// A loaded model, warm.
pub struct Loaded {
    pub name: String,
    pub pipeline: Pipeline,
    pub colours: Colours,
    bytes: u64,
    shared: Arc<Shared>,
}

/// Those that are loaded, the one used last at the end.
pub struct Models {
    loaded: Vec<Loaded>,
    shared: Arc<Shared>,
    watchdog: Arc<Watchdog>,
}

impl Models {
    /// None is loaded yet.
    pub fn new(shared: Arc<Shared>, watchdog: Arc<Watchdog>) -> Models {
        Models { loaded: Vec::new(), shared, watchdog }
    }

    /// Loads all models, in the order in which they were given, as long as they fit together.
    pub fn preload(&mut self) -> Result<()> {
        let shared = self.shared.clone();
        let mut bytes = 0;
        for name in shared.model_names.iter().take_while(|_| !shared.queue.is_closed()) {
            bytes += size(&shared.models[name]);
            if bytes <= shared.options.max_memory || self.loaded.is_empty() {
                self.get(name)?;
            }
        }
        Ok(())
    }

    /// The model `name`, loaded and warm. Those used longest ago make room for it: what is loaded
    /// takes no more than the limit, counted as the bytes of the models' files, unless one alone
    /// does.
    pub fn get(&mut self, name: &str) -> Result<&mut Loaded> {
        let loaded = match self.loaded.iter().position(|loaded| loaded.name == name) {
            Some(place) => self.loaded.remove(place),
            None => {
                let artifacts = self.shared.models[name].clone();
                let bytes = size(&artifacts);
                while !self.loaded.is_empty() && self.bytes() + bytes > self.limit() {
                    let evicted = self.loaded.remove(0);
                    tracing::info!(model = evicted.name, "evicted");
                }
                self.load(name, artifacts)?
            }
        };
        self.loaded.push(loaded);
        Ok(self.loaded.last_mut().expect("pushed above"))
    }

    fn bytes(&self) -> u64 {
        self.loaded.iter().map(|loaded| loaded.bytes).sum()
    }

    fn limit(&self) -> u64 {
        self.shared.options.max_memory
    }

    /// Loads a model and draws an image of few steps, which compiles what the engine compiles on
    /// first use and shows how long each graph takes.
    fn load(&self, name: &str, artifacts: Arc<Artifacts>) -> Result<Loaded> {
        let start = std::time::Instant::now();
        let runtime = &self.shared.options.runtime;
        let engines = runtime.engines.as_ref().map(|folder| folder.join(&artifacts.hash));
        let backend = engine::open(&RuntimeOptions { engines, ..runtime.clone() })?;
        let engine = backend.describe();
        let bytes = size(&artifacts);
        let mut pipeline = Pipeline::open(artifacts, backend)?;
        pipeline.backend().timer().observe(self.watchdog.clone());
        let colours = self.warm_up(name, &mut pipeline)?;
        let seconds = start.elapsed().as_secs_f64();
        tracing::info!(model = name, engine, seconds, "loaded and warm");
        self.shared.count_loaded(name, 1);
        metrics::model(true);
        let shared = self.shared.clone();
        Ok(Loaded { name: name.to_string(), pipeline, colours, bytes, shared })
    }

    fn warm_up(&self, name: &str, pipeline: &mut Pipeline) -> Result<Colours> {
        let manifest = pipeline.manifest();
        let usual = Request::new(manifest, manifest.model.prompt_or_class(WARM_UP_PROMPT))?;
        let built = pipeline.artifacts().engines.as_ref().and_then(Engines::pictures);
        let [height, width] =
            built.map_or([usual.height, usual.width], |pictures| pictures.sizes[0]);
        let request = Request {
            height,
            width,
            steps: WARM_UP,
            cache_policy: "N2-1000-0".parse().expect("a policy"),
            sampler: SamplerKind::Ddim, // whose images of few steps are like others
            ..usual
        };
        let request = request.check(pipeline.artifacts())?;
        let channels = manifest.model.transformer.shape().in_channels;
        let sizes = sizes(manifest, &request);
        self.watchdog.work_on(name, manifest, &sizes);
        let mut state = pipeline.begin(&request)?;
        let mut transformer = pipeline.transformer()?;
        while !state.is_done() {
            transformer.step(&mut state)?;
        }
        drop(transformer);
        let drawn = pipeline.decode(&request, state.latents())?.remove(0);
        let squares = squares(channels, sizes.width, sizes.height);
        let coloured = pipeline.decode(&request, &squares)?.remove(0);
        let examples = [(state.latents(), &drawn), (&squares[..], &coloured)];
        Ok(Colours::fit(channels, &examples))
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.shared.count_loaded(&self.name, -1);
        metrics::model(false);
    }
}

/// Bytes of a model's files.
fn size(artifacts: &Artifacts) -> u64 {
    artifacts.manifest.files.values().map(|file| file.bytes).sum()
}
