//! The ONNX Runtime engine: sessions with the chosen provider.
//!
//! Traps of ort 2.0.0-rc.15 that shape this file:
//! - A new session builder asks ONNX Runtime to pick a provider by itself (`MaxEfficiency`); that
//!   is turned off.
//! - Without `error_on_failure` a provider that does not register is passed over.
//! - An arena doubles whenever it grows and keeps what it has. With memory patterns, which are for
//!   inputs of one shape, a second run takes as much again: they are off. The arena shrinks after a
//!   run where that is asked for; without one it is malloc that keeps the memory, and more of it.
//! - An output keeps the arena that it lies in, though not the weights of its session.
//! - An `IoBinding` hands out the same output buffers in every run: one that lived on would
//!   overwrite a kept output.

use std::{path::Path, sync::Arc};

use ort::{
    logging::LogLevel,
    memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType},
    session::{
        RunOptions, Session,
        builder::{AutoDevicePolicy, GraphOptimizationLevel, SessionBuilder},
    },
    value::{DynTensor, DynTensorValueType, Outlet, ValueType},
};

use super::{
    BoxError, Compatibility, CompiledFor, DType, EngineCache, Provider, RuntimeError,
    RuntimeOptions, TensorInfo, arena,
    compiled::{self, compiles_nothing},
    elf,
    error::said,
    library::Places,
    loaded::{Loaded, NotOpened},
    nvidia,
    placement::{Placement, REFUSAL},
    registered::{Registered, on_cpu_alone},
    replay::Replay,
    tensorrt,
};

/// An opened ONNX Runtime with a provider.
#[derive(Clone)]
pub struct OnnxRuntime {
    loaded: Loaded,
    provider: Provider,
    /// The device of a plugin, if the provider is one.
    registered: Option<Arc<Registered>>,
    threads: usize,
    cache: Option<Box<EngineCache>>,
    /// Whether the graphs that run again and again do so at addresses that stay.
    pub(super) replays: bool,
}

impl OnnxRuntime {
    /// Opens the library that the search finds, with `threads` for the work inside one node.
    pub(super) fn open(
        options: &RuntimeOptions,
        threads: usize,
        places: &Places,
    ) -> Result<OnnxRuntime, NotOpened> {
        let provider = options.provider;
        let loaded = Loaded::get(provider, threads, places)?;
        if let Some(library) = provider.library() {
            let found = elf::check(&loaded.library.with_file_name(library));
            found.map_err(|why| RuntimeError::Provider {
                provider,
                reason: format!("{library} does not load: {why}"),
                mend: provider.mend(),
            })?;
            nvidia::preload(provider, &loaded.library);
        }
        arena::share(&loaded.environment, provider)
            .map_err(|words| provider.diagnose(&loaded.library, &words))?;
        let registered = match provider {
            Provider::Plugin(plugin) => Some(Arc::new(Registered::new(
                plugin,
                &options.plugin,
                threads,
                &loaded.environment,
                &loaded.library,
                places,
            )?)),
            _ => None,
        };
        let engines = options.engines.clone();
        let cache = engines.map(|folder| Box::new(EngineCache { folder, ..Default::default() }));
        let replays = provider == Provider::CudaGraphs;
        let runtime = OnnxRuntime { loaded, provider, registered, threads, cache, replays };
        // Registers the provider once, so that a missing one shows now and not at the first graph.
        runtime.builder(replays)?;
        Ok(runtime)
    }

    /// "ONNX Runtime 1.31.1, cpu provider (path)"
    pub(super) fn describe(&self) -> String {
        let library = self.loaded.library.display();
        match &self.registered {
            None => format!("{} ({library})", self.name()),
            Some(plugin) => format!(
                "ONNX Runtime {}, {} ({library})",
                self.loaded.version,
                plugin.describe(self.provider)
            ),
        }
    }

    /// The provider that its sessions use.
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// Threads for the work inside one node.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The plugin that it runs on.
    ///
    /// # Errors
    /// It runs on none.
    pub(super) fn plugin(&self) -> Result<&Registered, RuntimeError> {
        self.registered.as_deref().ok_or_else(|| compiles_nothing(self.provider))
    }

    /// The flags that ask for its plugin.
    pub(super) fn flags(&self) -> Option<String> {
        self.registered.as_ref().map(|plugin| plugin.flags())
    }

    /// What graphs are for that are compiled here.
    pub(super) fn compiled_for(&self) -> Result<CompiledFor, RuntimeError> {
        let Loaded { version, environment, library, .. } = &self.loaded;
        let found = match (self.provider, self.provider.library()) {
            (Provider::TensorRt, Some(name)) => {
                tensorrt::compiled_for(version, &library.with_file_name(name))
            }
            _ => self.plugin()?.compiled_for(version, environment),
        };
        found.map_err(|said| self.not_asked(said))
    }

    /// The same, with other sessions from now on: TensorRT keeps their engines in `cache`.
    pub(super) fn caching(&self, cache: EngineCache) -> OnnxRuntime {
        OnnxRuntime { cache: Some(Box::new(cache)), ..self.clone() }
    }

    /// What the provider makes of the words in a graph that it has compiled.
    pub(super) fn compatibility(&self, words: &str) -> Result<Compatibility, RuntimeError> {
        let asked = self.plugin()?.compatibility(words, &self.loaded.environment);
        asked.map_err(|said| self.not_asked(said))
    }

    fn not_asked(&self, said: String) -> RuntimeError {
        RuntimeError::Setting { what: "to tell what it compiles for".into(), source: said.into() }
    }

    /// Has the provider compile `graph` to the ONNX file `to`.
    pub(super) fn compile(&self, graph: &Path, to: &Path) -> Result<(), RuntimeError> {
        let compiled = compiled::compile(self.builder(false)?, graph, to);
        compiled.map_err(|error| self.not_loaded(graph, None, error))
    }

    /// "ONNX Runtime 1.31.1, cpu provider"
    pub(super) fn name(&self) -> String {
        format!("ONNX Runtime {}, {} provider", self.loaded.version, self.provider)
    }

    /// A builder of a session that runs on the provider and nowhere else, and may replay its runs.
    pub(super) fn builder(&self, replays: bool) -> Result<SessionBuilder, RuntimeError> {
        let builder = self.builder_with_cpu(replays)?;
        if self.provider == Provider::Cpu {
            return Ok(builder);
        }
        builder.with_disable_cpu_fallback().map_err(|error| RuntimeError::Setting {
            what: "the end of CPU fallback".into(),
            source: error.message().into(),
        })
    }

    /// A builder of a session whose nodes run on the CPU where the provider does not take them.
    fn builder_with_cpu(&self, replays: bool) -> Result<SessionBuilder, RuntimeError> {
        let refused = |what: &'static str| {
            // Without the builder that it carries, which is bound to its thread.
            move |error: ort::Error<SessionBuilder>| RuntimeError::Setting {
                what: what.into(),
                source: error.message().into(),
            }
        };
        let mut builder = Session::builder(&self.loaded.environment)
            .map_err(|error| RuntimeError::Setting {
                what: "a new session".into(),
                source: error.into(),
            })?
            .with_auto_device(AutoDevicePolicy::PreferCPU)
            .map_err(refused("the device policy"))?
            .with_optimization_level(GraphOptimizationLevel::All)
            .map_err(refused("the optimisation level"))?
            .with_deterministic_compute(true)
            .map_err(refused("deterministic computation"))?
            .with_memory_pattern(false)
            .map_err(refused("no memory patterns"))?;
        if arena::is_shared(self.provider) {
            builder = builder.with_env_allocators().map_err(refused("a shared arena"))?;
        }
        if self.threads != self.loaded.threads {
            // The shared pool has the size that the first backend of the process asked for. Pools
            // of sessions that run in turn must not spin against each other.
            builder = builder
                .with_independent_thread_pool()
                .map_err(refused("a thread pool of its own"))?
                .with_intra_threads(self.threads)
                .map_err(refused("the number of threads"))?
                .with_intra_op_spinning(false)
                .map_err(refused("waiting without spinning"))?;
        }
        let registrations = self.provider.registrations(self.cache.as_deref(), replays)?;
        if let Some(plugin) = &self.registered {
            return plugin.add(builder, &self.loaded.environment).map_err(|reason| {
                let mend = "try without --ep-option; hydit-serve doctor shows what is here".into();
                RuntimeError::Provider { provider: self.provider, reason, mend }
            });
        }
        if registrations.is_empty() {
            return on_cpu_alone(builder, &self.loaded.environment).map_err(|reason| {
                RuntimeError::Setting { what: "its own kernels".into(), source: reason.into() }
            });
        }
        builder
            .with_execution_providers(registrations)
            .map_err(|error| self.provider.diagnose(&self.loaded.library, error.message()))
    }

    /// The nodes of `graph` that the provider does not take; `None` where ONNX Runtime does not tell
    /// them.
    fn nodes_on_cpu(&self, graph: &Path, file: Option<&[u8]>) -> Option<String> {
        let placement = Placement::default();
        let builder = self.builder_with_cpu(false).ok()?;
        let builder = match file {
            None => builder,
            Some(_) => self.finding_weights(builder, graph).ok()?,
        };
        let mut builder = builder
            .with_logger(placement.logger())
            .ok()?
            .with_log_level(LogLevel::Verbose)
            .ok()?
            .with_log_verbosity(1)
            .ok()?;
        match file {
            None => builder.commit_from_file(graph).ok()?,
            Some(file) => builder.commit_from_memory(file).ok()?,
        };
        placement.told()
    }

    /// Has sessions of `builder` find weights beside `graph`.
    fn finding_weights(
        &self,
        builder: SessionBuilder,
        graph: &Path,
    ) -> Result<SessionBuilder, RuntimeError> {
        let refused = |source: BoxError| RuntimeError::Setting {
            what: "the folder of the weights".into(),
            source,
        };
        let folder = graph.parent().and_then(Path::to_str);
        let folder = folder.ok_or_else(|| refused("its path is not UTF-8".into()))?;
        builder
            .with_config_entry("session.model_external_initializers_file_folder_path", folder)
            .map_err(|error| refused(error.message().into()))
    }

    /// Why `graph`, or `file` in place of its ONNX file, does not load.
    fn not_loaded(&self, graph: &Path, file: Option<&[u8]>, error: ort::Error) -> RuntimeError {
        let nodes = error.message().contains(REFUSAL).then(|| self.nodes_on_cpu(graph, file));
        let graph = graph.to_owned();
        match nodes.flatten() {
            Some(nodes) => RuntimeError::Nodes { graph, provider: self.provider, nodes },
            None => RuntimeError::Load { graph, engine: self.name(), source: said(error) },
        }
    }

    /// Loads a graph, or `file` in place of its ONNX file; returns it with its declared inputs and
    /// outputs. On the CPU its arena shrinks after each run if it `shrinks`. Where the engine replays
    /// runs, those of a graph that runs `often` are.
    pub(super) fn load(
        &self,
        graph: &Path,
        file: Option<&[u8]>,
        shrinks: bool,
        often: bool,
    ) -> Result<(Graph, Vec<TensorInfo>, Vec<TensorInfo>), RuntimeError> {
        let failed = |error: ort::Error| self.not_loaded(graph, file, error);
        let replays = self.replays && often;
        let mut builder = self.builder(replays)?;
        let session = match file {
            None => builder.commit_from_file(graph).map_err(failed)?,
            Some(file) => {
                self.finding_weights(builder, graph)?.commit_from_memory(file).map_err(failed)?
            }
        };
        let inputs = session.inputs().iter().map(info).collect();
        let declared: Vec<_> = session.outputs().iter().map(info).collect();
        let outputs = declared
            .iter()
            .map(|output| Ok((output.name.clone(), memory(self.device())?)))
            .collect::<Result<_, ort::Error>>()
            .map_err(failed)?;
        let options = RunOptions::new().map_err(failed)?;
        let mut shrinking = RunOptions::new().map_err(failed)?;
        if self.provider == Provider::Cpu {
            shrinking.set("memory.enable_memory_arena_shrinkage", "cpu:0").map_err(failed)?;
        }
        let (describe, replay) = (self.name(), replays.then(|| Replay::on(self.device())));
        let graph = Graph { session, options, shrinking, shrinks, outputs, replay, describe };
        Ok((graph, inputs, declared))
    }

    /// Moves a tensor to where the sessions compute; on the CPU it is there already.
    pub(super) fn to_device(&self, tensor: DynTensor) -> Result<DynTensor, ort::Error> {
        if self.provider.is_on_host() { Ok(tensor) } else { tensor.to(self.device(), 0) }
    }

    /// The memory that the provider computes in.
    fn device(&self) -> AllocationDevice<'static> {
        match self.provider {
            Provider::Cpu | Provider::Plugin(_) => AllocationDevice::CPU,
            Provider::Cuda | Provider::CudaGraphs | Provider::TensorRt => AllocationDevice::CUDA,
        }
    }
}

fn info(outlet: &Outlet) -> TensorInfo {
    let (dtype, dims) = match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } => {
            (ty.into(), shape.iter().map(|&size| size.try_into().ok()).collect())
        }
        _ => (DType::Other, Vec::new()),
    };
    TensorInfo { name: outlet.name().into(), dtype, dims }
}

/// A graph loaded in ONNX Runtime.
pub struct Graph {
    session: Session,
    options: RunOptions,
    /// On the CPU the arena shrinks at the end of a run with these.
    shrinking: RunOptions,
    shrinks: bool,
    /// The name of each output, and the memory in which it is wanted.
    outputs: Vec<(String, MemoryInfo<'static>)>,
    /// Where it runs, if its runs are replayed.
    replay: Option<Replay>,
    /// The engine and its provider, for messages.
    pub(super) describe: String,
}

impl Graph {
    /// Has the output at `index` brought to the host at the end of each run.
    pub(super) fn output_to_host(&mut self, index: usize) -> Result<(), ort::Error> {
        self.outputs[index].1 = memory(AllocationDevice::CPU)?;
        Ok(())
    }

    /// Has the arena shrink after each run from now on, or not.
    pub(super) fn set_shrinks(&mut self, shrinks: bool) {
        self.shrinks = shrinks;
    }

    /// Runs on `inputs`, checked before; returns the outputs in the graph's order.
    ///
    /// A binding serves all providers: it costs half a microsecond more than a plain run on the CPU
    /// and copies as little, and on a GPU it leaves the outputs there. It is made anew for each
    /// run, because a binding that is kept gives the next run the same output buffers.
    pub(super) fn run<'a>(
        &mut self,
        inputs: impl Iterator<Item = (&'a str, &'a DynTensor)>,
    ) -> Result<Vec<DynTensor>, ort::Error> {
        if let Some(replay) = &mut self.replay {
            return replay.run(&mut self.session, &inputs.collect::<Vec<_>>(), &self.outputs);
        }
        let mut binding = self.session.create_binding()?;
        for (name, tensor) in inputs {
            binding.bind_input(name, tensor)?;
        }
        for (name, memory) in &self.outputs {
            binding.bind_output_to_device(name.as_str(), memory)?;
        }
        binding.synchronize_inputs()?;
        let options = if self.shrinks { &self.shrinking } else { &self.options };
        let outputs = self.session.run_binding_with_options(&binding, options)?;
        outputs.into_iter().map(|(_, value)| value.downcast::<DynTensorValueType>()).collect()
    }
}

pub(super) fn memory(device: AllocationDevice<'static>) -> Result<MemoryInfo<'static>, ort::Error> {
    MemoryInfo::new(device, 0, AllocatorType::Device, MemoryType::Default)
}
