//! The engines behind one seam: ONNX Runtime, found on the machine, or tract, part of the program.
//!
//! [`Backend`] opens an engine and loads graphs; a [`Session`] is a loaded graph; a [`Value`] is a
//! tensor of the engine, which passes from one graph to the next without a copy. Only this module
//! names `ort` and `tract`. Where the library comes from is told in [`library`].

pub mod library;

mod arena;
mod compiled;
mod elf;
mod error;
pub(crate) mod in_memory;
mod loaded;
mod magnitudes;
mod nvidia;
mod onnxruntime;
mod placement;
mod places;
mod plugin;
mod promise;
mod provider;
mod registered;
mod replay;
mod session;
mod stop;
mod tensorrt;
mod tract;
mod value;
pub(crate) mod watch;

use std::path::{Path, PathBuf};

use half::{bf16, f16};
use ort::value::Tensor as OrtTensor;

pub use self::{
    compiled::{Compatibility, CompiledFor},
    error::{BoxError, RuntimeError},
    magnitudes::{Magnitude, Magnitudes},
    plugin::{Plugin, PluginOptions},
    provider::{NoProvider, Provider},
    session::{Outputs, Session},
    stop::Stop,
    tensorrt::{EngineCache, Profile},
    tract::VERSION as TRACT,
    value::{DType, TensorInfo, Value},
};
use self::{
    library::Places,
    loaded::NotOpened,
    magnitudes::Measured,
    onnxruntime::OnnxRuntime,
    session::LoadedGraph,
    tract::Tract,
    value::{Inner, check_length, narrow},
};
use crate::timing::Timer;
use crate::util::UnknownName;

/// Largest ONNX file read; weights are not in it.
pub(crate) const MAX_GRAPH: u64 = 256 << 20;

/// Which engine to open.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    strum::Display,
    strum::EnumMessage,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[strum(serialize_all = "lowercase")]
#[strum(parse_err_ty = UnknownName, parse_err_fn = unknown)]
pub enum BackendChoice {
    /// ONNX Runtime where it is found, else tract.
    #[default]
    Auto,
    /// ONNX Runtime, or an error.
    Ort,
    /// tract.
    Tract,
}

fn unknown(name: &str) -> UnknownName {
    UnknownName::of::<BackendChoice>("backend", name)
}

/// How to open an engine.
#[derive(Debug, Clone, Default)]
pub struct RuntimeOptions {
    /// Which engine.
    pub backend: BackendChoice,
    /// Where ONNX Runtime computes. tract has the CPU only.
    pub provider: Provider,
    /// How a plugin is used, where the provider is one.
    pub plugin: PluginOptions,
    /// Threads for the work inside one node; the physical cores when `None`. tract has one.
    pub threads: Option<usize>,
    /// Memory before speed: see [`Backend::low_memory`].
    pub low_memory: bool,
    /// Folder where TensorRT keeps the engines that it builds as they are needed, of one export only:
    /// it does not tell weights apart. Built anew for each session if not given. Those of
    /// [`compile()`](crate::engines::compile()) take their place.
    pub engines: Option<PathBuf>,
}

/// An opened engine. Clones share it, with its [`Stop`] and its [`Timer`].
#[derive(Clone)]
pub struct Backend {
    engine: Engine,
    low_memory: bool,
    stop: Stop,
    timer: Timer,
    magnitudes: Option<Magnitudes>,
}

#[derive(Clone)]
enum Engine {
    Ort(OnnxRuntime),
    Tract(Tract),
}

impl Backend {
    /// Opens an engine. ONNX Runtime is loaded once per process: a later call uses the library of
    /// the first.
    ///
    /// # Errors
    /// When ONNX Runtime was asked for, by name, by `ORT_DYLIB_PATH` or for the sake of a provider,
    /// and is not available. Nothing else takes its place then; in particular nothing runs on the
    /// CPU that was asked for on a GPU.
    pub fn open(options: &RuntimeOptions) -> Result<Backend, RuntimeError> {
        Backend::open_in(options, &Places::of_process())
    }

    /// As [`open`](Backend::open), looking for the library in `places`.
    ///
    /// # Errors
    /// As [`open`](Backend::open).
    pub fn open_in(options: &RuntimeOptions, places: &Places) -> Result<Backend, RuntimeError> {
        let engine = Engine::open(options, places)?;
        let low_memory = options.low_memory;
        let (stop, timer) = (Stop::default(), Timer::default());
        Ok(Backend { engine, low_memory, stop, timer, magnitudes: None })
    }

    /// The engine, its version, provider and library, in one line.
    pub fn describe(&self) -> String {
        match &self.engine {
            Engine::Ort(runtime) => runtime.describe(),
            Engine::Tract(tract) => tract.describe(),
        }
    }

    /// The engine, its version and provider: [`describe`](Backend::describe) without the path of
    /// the library.
    pub fn name(&self) -> String {
        match &self.engine {
            Engine::Ort(runtime) => runtime.name(),
            Engine::Tract(_) => format!("tract {}", tract::VERSION),
        }
    }

    /// The number of threads for the work inside one node.
    pub fn threads(&self) -> usize {
        match &self.engine {
            Engine::Ort(runtime) => runtime.threads(),
            Engine::Tract(_) => 1,
        }
    }

    /// The provider in use, never another than was asked for. tract's is the CPU.
    pub fn provider(&self) -> Provider {
        self.ort_provider().unwrap_or(Provider::Cpu)
    }

    /// The provider where the engine is ONNX Runtime, `None` where it is tract.
    pub fn ort_provider(&self) -> Option<Provider> {
        match &self.engine {
            Engine::Ort(runtime) => Some(runtime.provider()),
            Engine::Tract(_) => None,
        }
    }

    /// Asked before every run of a graph that this backend has loaded.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Times the work of whoever uses this backend.
    pub fn timer(&self) -> Timer {
        self.timer.clone()
    }

    /// Whether memory comes before speed. ONNX Runtime then gives back what a run on the CPU has
    /// allocated at its end, and a [`Pipeline`](crate::Pipeline) holds one component of the model
    /// at a time. The numbers are the same.
    pub fn low_memory(&self) -> bool {
        self.low_memory
    }

    /// The same engine, which adds to `magnitudes` what the graphs make that it loads from now on:
    /// their outputs, and those of their blocks, which it makes outputs too. They take memory, and
    /// an engine joins fewer operators to one.
    pub fn measuring(self, magnitudes: &Magnitudes) -> Backend {
        Backend { magnitudes: Some(magnitudes.clone()), ..self }
    }

    /// Loads an `.onnx` file that is run again and again, with its external data beside it.
    ///
    /// # Errors
    /// [`RuntimeError::Load`]; for a GPU provider also when a node would have to run on the CPU.
    pub fn load(&self, graph: &Path) -> Result<Session, RuntimeError> {
        self.load_for(graph, self.low_memory, true)
    }

    /// As [`load`](Backend::load), for a graph that runs now and then: ONNX Runtime keeps no memory
    /// for its next run on the CPU.
    ///
    /// # Errors
    /// As [`load`](Backend::load).
    pub fn load_seldom(&self, graph: &Path) -> Result<Session, RuntimeError> {
        self.load_for(graph, true, false)
    }

    /// Loads a graph, which gives back the memory of a run on the CPU at its end if it `shrinks`, and
    /// may be replayed if it runs `often`.
    fn load_for(&self, graph: &Path, shrinks: bool, often: bool) -> Result<Session, RuntimeError> {
        let measured = self.magnitudes.as_ref().map(|seen| Measured::open(graph, seen)).transpose();
        let measured = measured.map_err(|source| RuntimeError::Load {
            graph: graph.to_owned(),
            engine: self.name(),
            source,
        })?;
        let file = measured.as_ref().map(Measured::file);
        let (engine, inputs, outputs) = match &self.engine {
            Engine::Ort(runtime) => {
                let (graph, inputs, outputs) = runtime.load(graph, file, shrinks, often)?;
                (LoadedGraph::Ort(graph), inputs, outputs)
            }
            Engine::Tract(tract) => {
                let (graph, inputs, outputs) = tract.load(graph, file)?;
                (LoadedGraph::Tract(graph), inputs, outputs)
            }
        };
        Session::new(graph, engine, self.stop(), inputs, outputs).measured(measured)
    }

    /// A host tensor of `shape` with a copy of `data`, row by row.
    ///
    /// # Errors
    /// [`RuntimeError::Length`] when `data` does not fill `shape`.
    pub fn tensor_f32(&self, shape: &[usize], data: &[f32]) -> Result<Value, RuntimeError> {
        self.tensor(shape, data.to_vec())
    }

    /// As [`tensor_f32`](Backend::tensor_f32), rounded to f16, for the inputs of fp16 graphs.
    ///
    /// # Errors
    /// [`RuntimeError::Length`] when `data` does not fill `shape`.
    pub fn tensor_f16(&self, shape: &[usize], data: &[f32]) -> Result<Value, RuntimeError> {
        let mut rounded = vec![f16::ZERO; data.len()];
        narrow(data, &mut rounded);
        self.tensor(shape, rounded)
    }

    /// As [`tensor_f32`](Backend::tensor_f32), rounded to bf16, for the inputs of bf16 graphs.
    ///
    /// # Errors
    /// [`RuntimeError::Length`] when `data` does not fill `shape`, [`RuntimeError::Access`] from
    /// tract, which has no bf16.
    pub fn tensor_bf16(&self, shape: &[usize], data: &[f32]) -> Result<Value, RuntimeError> {
        check_length(shape, data.len())?;
        let refused =
            |source: BoxError| RuntimeError::Access { dtype: DType::BF16, doing: "made", source };
        match &self.engine {
            Engine::Ort(_) => {
                let rounded: Vec<bf16> = data.iter().map(|&x| bf16::from_f32(x)).collect();
                let tensor = OrtTensor::from_array((shape, rounded));
                Ok(Value(Inner::Ort(tensor.map_err(|error| refused(error.into()))?.upcast())))
            }
            Engine::Tract(_) => Err(refused("tract has no bf16".into())),
        }
    }

    /// A host tensor of `shape` with a copy of `data`, row by row.
    ///
    /// # Errors
    /// [`RuntimeError::Length`] when `data` does not fill `shape`.
    pub fn tensor_i64(&self, shape: &[usize], data: &[i64]) -> Result<Value, RuntimeError> {
        self.tensor(shape, data.to_vec())
    }

    fn tensor<T>(&self, shape: &[usize], data: Vec<T>) -> Result<Value, RuntimeError>
    where
        T: ort::value::PrimitiveTensorElementType + tract_onnx::prelude::Datum + Copy,
    {
        Value::make(matches!(self.engine, Engine::Ort(_)), shape, data)
    }

    /// Moves an input that many runs share to where the sessions compute, so that no run uploads it
    /// again. On the CPU it stays where it is.
    ///
    /// # Errors
    /// [`RuntimeError::Access`] when the copy to the device fails.
    pub fn to_device(&self, value: Value) -> Result<Value, RuntimeError> {
        let dtype = value.dtype();
        match (&self.engine, value.0) {
            (Engine::Ort(runtime), Inner::Ort(tensor)) => match runtime.to_device(tensor) {
                Ok(tensor) => Ok(Value(Inner::Ort(tensor))),
                Err(error) => Err(RuntimeError::Access {
                    dtype,
                    doing: "copied to the device",
                    source: error.into(),
                }),
            },
            (_, inner) => Ok(Value(inner)),
        }
    }
}

impl Engine {
    fn open(options: &RuntimeOptions, places: &Places) -> Result<Engine, RuntimeError> {
        let &RuntimeOptions { provider, backend, .. } = options;
        provider.check(&options.plugin)?;
        if backend == BackendChoice::Tract {
            if provider == Provider::Cpu {
                return Ok(Engine::Tract(Tract { notice: String::new() }));
            }
            let reason = "tract computes on the CPU only".into();
            let mend = "leave out --backend tract, or use --provider cpu".into();
            return Err(RuntimeError::Provider { provider, reason, mend });
        }
        let threads = options.threads.unwrap_or_else(physical_cores).max(1);
        let report = match OnnxRuntime::open(options, threads, places) {
            Ok(runtime) => return Ok(Engine::Ort(runtime)),
            Err(NotOpened::Refused(error)) => return Err(error),
            Err(NotOpened::Missing(report)) => report,
        };
        if provider != Provider::Cpu {
            let reason =
                format!("no ONNX Runtime library was found that has it{}", report.refused());
            return Err(RuntimeError::Provider { provider, reason, mend: provider.mend() });
        }
        if backend == BackendChoice::Auto {
            Ok(Engine::Tract(Tract { notice: report.notice() }))
        } else {
            Err(RuntimeError::NoLibrary { refused: report.refused() })
        }
    }
}

/// The physical cores that this process may use; the logical ones where they cannot be told apart.
pub fn physical_cores() -> usize {
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    available.min(num_cpus::get_physical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_backends_are_read_back() {
        for choice in [BackendChoice::Auto, BackendChoice::Ort, BackendChoice::Tract] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        let refused = "onnx".parse::<BackendChoice>().expect_err("a refusal");
        assert!(refused.to_string().contains("auto, ort, tract"));
    }

    #[test]
    fn what_is_for_plugins_is_refused_by_the_others() {
        let plugin = PluginOptions { device: Some("cpu".into()), ..Default::default() };
        for provider in [Provider::Cpu, Provider::Cuda] {
            let options = RuntimeOptions { provider, plugin: plugin.clone(), ..Default::default() };
            let message = Backend::open(&options).err().expect("a refusal").to_string();
            assert!(
                message.contains("it is no plugin") && message.contains("--ep-device"),
                "{message}"
            );
        }
    }

    #[test]
    fn tract_refuses_a_gpu_by_name() {
        let plugins = Plugin::known().map(Provider::Plugin);
        let gpus = [Provider::Cuda, Provider::CudaGraphs, Provider::TensorRt];
        for provider in gpus.into_iter().chain(plugins) {
            let options =
                RuntimeOptions { backend: BackendChoice::Tract, provider, ..Default::default() };
            let message = Backend::open(&options).err().expect("a refusal").to_string();
            assert!(message.contains(&format!("the {provider} provider")), "{message}");
            assert!(message.contains("tract computes on the CPU only"), "{message}");
        }
    }
}
