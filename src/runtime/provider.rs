//! Where ONNX Runtime computes: on the CPU, on an NVIDIA GPU through CUDA or TensorRT, or wherever a
//! plugin does.

use std::{fmt, path::Path, str::FromStr};

use ort::ep::ExecutionProviderDispatch;

use super::{EngineCache, Plugin, PluginOptions, RuntimeError};
use crate::util::error_chain;

/// An execution provider of ONNX Runtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Provider {
    /// The CPU.
    #[default]
    Cpu,
    /// An NVIDIA GPU with CUDA kernels.
    Cuda,
    /// The same, which captures a run of the graphs that run again and again for each size, and replays
    /// it: one launch in the place of hundreds.
    CudaGraphs,
    /// An NVIDIA GPU with TensorRT engines, built when a graph is loaded or first run; CUDA takes
    /// what TensorRT does not.
    TensorRt,
    /// Whatever a library of its own takes, which ONNX Runtime loads beside itself.
    Plugin(Plugin),
}

/// A text that names no provider, and what was expected.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoProvider(String);

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Provider::Cpu => f.write_str("cpu"),
            Provider::Cuda => f.write_str("cuda"),
            Provider::CudaGraphs => f.write_str("cuda:graphs"),
            Provider::TensorRt => f.write_str("tensorrt"),
            Provider::Plugin(plugin) => plugin.fmt(f),
        }
    }
}

impl FromStr for Provider {
    type Err = NoProvider;

    /// A name that hydit does not know is that of a plugin, whose library must be given.
    fn from_str(text: &str) -> Result<Provider, NoProvider> {
        match text {
            "cpu" => Ok(Provider::Cpu),
            "cuda" => Ok(Provider::Cuda),
            "cuda:graphs" => Ok(Provider::CudaGraphs),
            "tensorrt" => Ok(Provider::TensorRt),
            name => Plugin::named(name).map(Provider::Plugin).map_err(NoProvider),
        }
    }
}

impl Provider {
    /// Whether tensors lie in the host's memory: a plugin is given them there, and brings its outputs
    /// there, wherever it computes.
    pub fn is_on_host(self) -> bool {
        matches!(self, Provider::Cpu | Provider::Plugin(_))
    }

    /// Checks that `options`, which are for plugins, are given to one.
    pub(super) fn check(self, options: &PluginOptions) -> Result<(), RuntimeError> {
        if matches!(self, Provider::Plugin(_)) || *options == PluginOptions::default() {
            return Ok(());
        }
        Err(RuntimeError::Provider {
            provider: self,
            reason: "it is no plugin, and has no library, options and device of its own".into(),
            mend: "leave out --ep-library, --ep-option and --ep-device, or name a plugin, such as \
                   --provider openvino"
                .into(),
        })
    }

    /// The library that must lie beside libonnxruntime for this provider; none for the CPU and for
    /// plugins.
    pub fn library(self) -> Option<&'static str> {
        match self {
            Provider::Cpu | Provider::Plugin(_) => None,
            Provider::Cuda | Provider::CudaGraphs => Some("libonnxruntime_providers_cuda.so"),
            Provider::TensorRt => Some("libonnxruntime_providers_tensorrt.so"),
        }
    }

    /// What to do when this provider is not available.
    pub fn mend(self) -> String {
        let text = match self {
            Provider::Plugin(plugin) => return plugin.mend(),
            Provider::Cpu => "run scripts/setup-ort",
            Provider::Cuda | Provider::CudaGraphs => {
                "install the GPU build with CUDA 13 and cuDNN 9, \
                 `pip install 'onnxruntime-gpu[cuda,cudnn]==1.31.1'` in .venv; \
                 or leave out --provider"
            }
            Provider::TensorRt => {
                "install the GPU build and the TensorRT that it links, 10 and not 11, `pip install \
                 'onnxruntime-gpu[cuda,cudnn]==1.31.1' 'tensorrt-cu13<11'` in .venv; or use --provider \
                 cuda"
            }
        };
        text.to_string()
    }

    /// The registrations for a session, most wanted first. TensorRT is asked for no precision: only
    /// then does its provider build a strongly typed network, and computes in the graph's own
    /// types. It keeps what it builds in `cache`. Runs are captured only where the session `replays`
    /// them. `error_on_failure` is set on each: without it ort goes on with the CPU silently.
    ///
    /// # Errors
    /// [`RuntimeError::Provider`] when this build has no code for the provider.
    pub(super) fn registrations(
        self,
        #[cfg_attr(
            not(all(feature = "cuda", feature = "tensorrt")),
            expect(unused_variables, reason = "TensorRT alone keeps engines")
        )]
        cache: Option<&EngineCache>,
        #[cfg_attr(
            not(feature = "cuda"),
            expect(unused_variables, reason = "CUDA alone captures")
        )]
        replays: bool,
    ) -> Result<Vec<ExecutionProviderDispatch>, RuntimeError> {
        match self {
            Provider::Cpu | Provider::Plugin(_) => Ok(Vec::new()),
            #[cfg(feature = "cuda")]
            Provider::Cuda | Provider::CudaGraphs => Ok(vec![cuda(replays)]),
            #[cfg(all(feature = "cuda", feature = "tensorrt"))]
            Provider::TensorRt => {
                use ort::ep::{ArbitrarilyConfigurableExecutionProvider as _, TensorRT};
                let options = cache.into_iter().flat_map(EngineCache::options);
                let tensorrt = options.fold(TensorRT::default(), |tensorrt, (key, value)| {
                    tensorrt.with_arbitrary_config(key, value)
                });
                Ok(vec![tensorrt.build().error_on_failure(), cuda(false)])
            }
            #[cfg(not(all(feature = "cuda", feature = "tensorrt")))]
            other => Err(RuntimeError::Provider {
                provider: other,
                reason: "this program was built without it".into(),
                mend: "build hydit with its default features".into(),
            }),
        }
    }

    /// Why this provider did not register with the ONNX Runtime library at `library`: the missing
    /// provider library, or the library that the provider could not load in its turn, else ONNX
    /// Runtime's own words.
    ///
    /// A provider library that loads stays loaded.
    pub(super) fn diagnose(self, library: &Path, words: &str) -> RuntimeError {
        let reason = match self.library() {
            None => words.to_owned(),
            Some(name) => {
                let beside = library.with_file_name(name);
                if beside.exists() {
                    match ort::util::preload_dylib(&beside) {
                        Ok(()) => words.to_owned(),
                        Err(error) => format!("{name} does not load: {}", error_chain(&error)),
                    }
                } else {
                    format!("there is no {name} beside {} (a CPU build)", library.display())
                }
            }
        };
        let mend = self.mend_of(&reason);
        RuntimeError::Provider { provider: self, reason, mend }
    }

    /// As [`mend`](Provider::mend); another where the driver is missing, which pip cannot install.
    pub(super) fn mend_of(self, reason: &str) -> String {
        if reason.contains("libcuda.so") {
            "libcuda.so comes with NVIDIA's driver: install it, on a machine with an NVIDIA GPU; \
             or leave out --provider"
                .to_string()
        } else {
            self.mend()
        }
    }
}

/// CUDA, set for results that repeat and memory that stays put.
///
/// - `SameAsRequested`: an arena of a session's own by default doubles whenever it grows.
/// - `Heuristic`: the exhaustive search times the convolutions, so it may choose another one in the
///   next run.
/// - no TF32: fp32 graphs are for comparisons; speed comes from fp16 graphs.
#[cfg(feature = "cuda")]
fn cuda(captures: bool) -> ExecutionProviderDispatch {
    use ort::ep::{ArenaExtendStrategy, CUDA, cuda::ConvAlgorithmSearch};
    CUDA::default()
        .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested)
        .with_conv_algorithm_search(ConvAlgorithmSearch::Heuristic)
        .with_tf32(false)
        .with_cuda_graph(captures)
        .build()
        .error_on_failure()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        let plugins = Plugin::known().map(Provider::Plugin);
        for provider in [Provider::Cpu, Provider::Cuda, Provider::CudaGraphs, Provider::TensorRt]
            .into_iter()
            .chain(plugins)
        {
            assert_eq!(provider.to_string().parse(), Ok(provider));
        }
        assert!("".parse::<Provider>().is_err() && "../gpu".parse::<Provider>().is_err());
    }

    #[test]
    fn a_missing_or_broken_provider_library_is_the_reason_given() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let library = folder.path().join("libonnxruntime.so.1.31.1");
        let message = Provider::Cuda.diagnose(&library, "not enabled in this build").to_string();
        assert!(
            message.contains("there is no libonnxruntime_providers_cuda.so beside"),
            "{message}"
        );
        assert!(message.contains("onnxruntime-gpu"), "{message}");

        std::fs::write(folder.path().join("libonnxruntime_providers_cuda.so"), "no library")
            .expect("a written file");
        let message = Provider::Cuda.diagnose(&library, "not enabled in this build").to_string();
        assert!(message.contains("libonnxruntime_providers_cuda.so does not load:"), "{message}");
        assert!(
            message.contains("file too short") || message.contains("invalid ELF header"),
            "{message}"
        );
    }

    #[test]
    fn a_missing_driver_is_not_mended_with_pip() {
        let missing =
            |library: &str| format!("dlopen failed: {library}: cannot open shared object");
        assert!(Provider::Cuda.mend_of(&missing("libcuda.so.1")).contains("driver"));
        assert_eq!(Provider::Cuda.mend_of(&missing("libcublas.so.13")), Provider::Cuda.mend());
    }
}
