//! The engines behind one seam: ONNX Runtime, found on the machine, or tract, part of the program.
//!
//! [`Backend`] opens an engine and loads graphs; a [`Session`] is a loaded graph; a [`Value`] is a
//! tensor of the engine, which passes from one graph to the next without a copy. Only this module
//! names `ort` and `tract`. Where the library comes from is told in [`library`].

pub mod library;

mod error;
pub(crate) mod in_memory;
mod onnxruntime;
mod places;
mod provider;
mod session;
mod stop;
mod tract;
mod value;

use std::path::{Path, PathBuf};

use half::{bf16, f16};
use ort::value::Tensor as OrtTensor;

pub use self::{
    error::RuntimeError,
    onnxruntime::OnnxRuntime,
    provider::Provider,
    session::Session,
    stop::Stop,
    tract::Tract,
    value::{DType, TensorInfo, Value},
};
use self::{
    library::{Places, SearchReport},
    onnxruntime::{NotOpened, Runs},
    session::Engine,
    value::{Inner, check_length, narrow},
};

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
pub enum BackendChoice {
    /// ONNX Runtime where it is found, else tract.
    #[default]
    Auto,
    /// ONNX Runtime, or an error.
    Ort,
    /// tract.
    Tract,
}

/// How to open an engine.
#[derive(Debug, Clone, Default)]
pub struct RuntimeOptions {
    /// Which engine.
    pub backend: BackendChoice,
    /// Where ONNX Runtime computes. tract has the CPU only.
    pub provider: Provider,
    /// Threads for the work inside one node; the physical cores when `None`. tract has one.
    pub threads: Option<usize>,
    /// Memory before speed: see [`Backend::low_memory`].
    pub low_memory: bool,
    /// Folder where TensorRT keeps the engines it has built, of one export only: it does not tell
    /// weights apart. Built anew for each session if not given.
    pub engines: Option<PathBuf>,
}

/// An opened engine.
pub enum Backend {
    /// ONNX Runtime.
    Ort(OnnxRuntime),
    /// tract.
    Tract(Tract),
}

impl Backend {
    /// Opens an engine. ONNX Runtime is loaded once per process: a later call uses the library of
    /// the first.
    ///
    /// # Errors
    /// When ONNX Runtime was asked for, by name, by `ORT_DYLIB_PATH` or for the sake of a provider,
    /// and cannot be had. Nothing else takes its place then; in particular nothing runs on the CPU
    /// that was asked for on a GPU.
    pub fn open(options: &RuntimeOptions) -> Result<Backend, RuntimeError> {
        Backend::open_in(options, &Places::of_process())
    }

    /// As [`open`](Backend::open), looking for the library in `places`.
    ///
    /// # Errors
    /// As [`open`](Backend::open).
    pub fn open_in(options: &RuntimeOptions, places: &Places) -> Result<Backend, RuntimeError> {
        let &RuntimeOptions { provider, low_memory, .. } = options;
        if options.backend == BackendChoice::Tract {
            if provider == Provider::Cpu {
                return Ok(Backend::Tract(Tract {
                    notice: String::new(),
                    low_memory,
                    stop: Stop::default(),
                }));
            }
            let reason = "tract computes on the CPU only".into();
            let mend = "leave out --backend tract, or use --provider cpu".into();
            return Err(RuntimeError::Provider { provider, reason, mend });
        }
        let threads = options.threads.unwrap_or_else(physical_cores).max(1);
        let engines = options.engines.clone();
        let report = match OnnxRuntime::open(provider, threads, low_memory, engines, places) {
            Ok(runtime) => return Ok(Backend::Ort(runtime)),
            Err(NotOpened::Refused(error)) => return Err(error),
            Err(NotOpened::Missing(report)) => report,
        };
        if provider != Provider::Cpu {
            let reason =
                format!("no ONNX Runtime library was found that has it{}", report.refused());
            return Err(RuntimeError::Provider { provider, reason, mend: provider.mend().into() });
        }
        match options.backend {
            BackendChoice::Auto => Ok(Backend::Tract(Tract {
                notice: notice(&report),
                low_memory,
                stop: Stop::default(),
            })),
            _ => Err(RuntimeError::NoLibrary { refused: report.refused() }),
        }
    }

    /// The engine, its version, provider and library, in one line.
    pub fn describe(&self) -> String {
        match self {
            Backend::Ort(runtime) => runtime.describe(),
            Backend::Tract(tract) => tract.describe(),
        }
    }

    /// As [`describe`](Backend::describe), without where the library lies.
    pub fn name(&self) -> String {
        match self {
            Backend::Ort(runtime) => runtime.engine(),
            Backend::Tract(_) => format!("tract {}", tract::VERSION),
        }
    }

    /// Threads for the work inside one node.
    pub fn threads(&self) -> usize {
        match self {
            Backend::Ort(runtime) => runtime.threads(),
            Backend::Tract(_) => 1,
        }
    }

    /// The provider in use, never another than was asked for. tract's is the CPU.
    pub fn provider(&self) -> Provider {
        match self {
            Backend::Ort(runtime) => runtime.provider(),
            Backend::Tract(_) => Provider::Cpu,
        }
    }

    /// The provider where the engine is ONNX Runtime, `None` where it is tract.
    pub fn ort_provider(&self) -> Option<Provider> {
        match self {
            Backend::Ort(runtime) => Some(runtime.provider()),
            Backend::Tract(_) => None,
        }
    }

    /// What is asked before every call of a graph that this backend has loaded.
    pub fn stop(&self) -> Stop {
        match self {
            Backend::Ort(runtime) => runtime.stop.clone(),
            Backend::Tract(tract) => tract.stop.clone(),
        }
    }

    /// Whether memory comes before speed. ONNX Runtime then gives back what a run on the CPU has
    /// allocated at its end, and a [`Pipeline`](crate::Pipeline) holds one part of the model at a
    /// time. The numbers are the same.
    pub fn low_memory(&self) -> bool {
        match self {
            Backend::Ort(runtime) => runtime.low_memory(),
            Backend::Tract(tract) => tract.low_memory,
        }
    }

    /// Loads an `.onnx` file that is run again and again, with its external data beside it.
    ///
    /// # Errors
    /// [`RuntimeError::Load`] with the engine's reason; for a GPU provider also when a node would
    /// have to run on the CPU.
    pub fn load(&self, graph: &Path) -> Result<Session, RuntimeError> {
        self.load_for(graph, Runs::Many)
    }

    /// As [`load`](Backend::load), for a graph that runs now and then: ONNX Runtime keeps no memory
    /// for its next run on the CPU.
    ///
    /// # Errors
    /// As [`load`](Backend::load).
    pub fn load_seldom(&self, graph: &Path) -> Result<Session, RuntimeError> {
        self.load_for(graph, Runs::Few)
    }

    fn load_for(&self, graph: &Path, runs: Runs) -> Result<Session, RuntimeError> {
        let (engine, inputs, outputs) = match self {
            Backend::Ort(runtime) => {
                let (engine, inputs, outputs) = runtime.load(graph, runs)?;
                (Engine::Ort(engine), inputs, outputs)
            }
            Backend::Tract(tract) => {
                let (engine, inputs, outputs) = tract.load(graph)?;
                (Engine::Tract(engine), inputs, outputs)
            }
        };
        Ok(Session::new(graph, engine, self.stop(), inputs, outputs))
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
        let refused = |reason| RuntimeError::Access { dtype: DType::BF16, doing: "made", reason };
        match self {
            Backend::Ort(_) => {
                let rounded: Vec<bf16> = data.iter().map(|&x| bf16::from_f32(x)).collect();
                let tensor = OrtTensor::from_array((shape, rounded))
                    .map_err(|error| refused(error.to_string()))?;
                Ok(Value(Inner::Ort(tensor.upcast())))
            }
            Backend::Tract(_) => Err(refused("tract has no bf16".into())),
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
        Value::make(matches!(self, Backend::Ort(_)), shape, data)
    }

    /// Moves an input that many runs share to where the sessions compute, so that no run uploads it
    /// again. On the CPU it stays where it is.
    ///
    /// # Errors
    /// [`RuntimeError::Access`] when the copy to the device fails.
    pub fn place(&self, value: Value) -> Result<Value, RuntimeError> {
        let dtype = value.dtype();
        match (self, value.0) {
            (Backend::Ort(runtime), Inner::Ort(tensor)) => {
                runtime.place(tensor).map(|tensor| Value(Inner::Ort(tensor))).map_err(|error| {
                    RuntimeError::Access { dtype, doing: "placed", reason: error.to_string() }
                })
            }
            (_, inner) => Ok(Value(inner)),
        }
    }
}

/// Why tract stands in for ONNX Runtime.
fn notice(report: &SearchReport) -> String {
    if report.candidates.is_empty() {
        "no ONNX Runtime library found: run scripts/setup-ort for a faster engine".into()
    } else {
        format!("no usable ONNX Runtime library found: run scripts/setup-ort{}", report.refused())
    }
}

/// The physical cores that this process may use; the logical ones where they cannot be told apart.
pub fn physical_cores() -> usize {
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    let table = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    match count_cores(&table) {
        0 => available,
        cores => available.min(cores),
    }
}

/// The distinct pairs of package and core in the text of /proc/cpuinfo; 0 where it names none.
fn count_cores(table: &str) -> usize {
    let mut cores = std::collections::HashSet::new();
    let mut package = None;
    for line in table.lines() {
        match line.split_once(':') {
            Some((key, value)) if key.trim_end() == "physical id" => package = Some(value),
            Some((key, value)) if key.trim_end() == "core id" => {
                cores.insert((package, value));
            }
            _ => {}
        }
    }
    cores.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hyperthreads_of_one_core_are_counted_once() {
        let processor = |package: u32, core: u32| {
            format!("processor : 0\nphysical id : {package}\ncore id\t: {core}\n\n")
        };
        let table: String =
            [(0, 0), (0, 1), (0, 0), (0, 1), (1, 0)].map(|(p, c)| processor(p, c)).concat();
        assert_eq!(count_cores(&table), 3);
        assert_eq!(count_cores("processor : 0\nBogoMIPS : 50\n"), 0);
    }

    #[test]
    fn names_of_backends_are_read_back() {
        for choice in [BackendChoice::Auto, BackendChoice::Ort, BackendChoice::Tract] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        assert!("onnx".parse::<BackendChoice>().is_err());
    }

    #[test]
    fn tract_refuses_a_gpu_by_name() {
        for provider in [Provider::Cuda, Provider::TensorRt] {
            let options =
                RuntimeOptions { backend: BackendChoice::Tract, provider, ..Default::default() };
            let message = Backend::open(&options).err().expect("a refusal").to_string();
            assert!(message.contains(&format!("the {provider} provider")), "{message}");
            assert!(message.contains("tract computes on the CPU only"), "{message}");
        }
    }
}
