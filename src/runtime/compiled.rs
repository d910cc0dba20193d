//! Graphs that a plugin compiles once, or TensorRT builds engines of, to load them faster ever after.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use ort::compiler::ModelCompiler;
use ort::ep::ExecutionProvider;
use ort::session::builder::SessionBuilder;
use serde::{Deserialize, Serialize};

use super::{Backend, Engine, EngineCache, RuntimeError, onnxruntime::OnnxRuntime};

/// What a graph is compiled for: another of these is another compiled graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompiledFor {
    /// Version of ONNX Runtime.
    pub onnxruntime: String,
    /// The provider, with its precision, as `--provider` names it.
    pub provider: String,
    /// Version of the provider's package, or else SHA-256 of its library.
    pub version: String,
    /// Kind, vendor and number of a plugin's device, or the names of the GPUs that are here.
    pub device: String,
    /// Options by the provider's names.
    pub options: BTreeMap<String, String>,
}

impl CompiledFor {
    /// The first difference to `here`: what it is, in this, and in `here`.
    pub(crate) fn difference(&self, here: &CompiledFor) -> Option<(String, String, String)> {
        let fields = |of: &CompiledFor| {
            [
                ("provider", of.provider.clone()),
                ("version of the provider", of.version.clone()),
                ("ONNX Runtime", of.onnxruntime.clone()),
                ("device", of.device.clone()),
            ]
        };
        let differs = |((what, then), (_, now)): ((&str, String), (&str, String))| {
            (then != now).then(|| (what.to_string(), then, now))
        };
        let option = |name: &String| {
            let [then, now] = [self, here].map(|of| of.options.get(name).cloned());
            let told = |value: Option<String>| value.unwrap_or_else(|| "not set".to_string());
            (then != now).then(|| (format!("option {name}"), told(then), told(now)))
        };
        let names = || self.options.keys().chain(here.options.keys());
        let found = fields(self).into_iter().zip(fields(here)).find_map(differs);
        found.or_else(|| names().find_map(option))
    }
}

impl fmt::Display for CompiledFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CompiledFor { onnxruntime, provider, version, device, .. } = self;
        write!(f, "{provider} {version} on {device}, ONNX Runtime {onnxruntime}")
    }
}

/// What a provider says of a graph that it has compiled, maybe elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compatibility {
    /// It runs here, and nothing would be gained by compiling it again.
    Good,
    /// It runs here, and would run better if it were compiled again.
    Recompile,
    /// It does not run here.
    Unsupported,
    /// The provider does not say.
    Unknown,
}

/// Stands for any provider where ort wants the type of one.
pub(super) struct AnyProvider;

impl ExecutionProvider for AnyProvider {
    const NAME: &'static str = "hydit";

    fn register(&self, _: &mut SessionBuilder) -> ort::Result<()> {
        Ok(())
    }
}

impl Backend {
    /// What graphs are for that are compiled here.
    ///
    /// # Errors
    /// [`RuntimeError::Provider`] where the provider is neither a plugin nor TensorRT: no other
    /// compiles graphs.
    pub fn compiled_for(&self) -> Result<CompiledFor, RuntimeError> {
        self.onnxruntime()?.compiled_for()
    }

    /// The same engine, where TensorRT keeps what it builds of the graphs that are loaded from now on
    /// in `cache`.
    pub(crate) fn caching(&self, cache: EngineCache) -> Backend {
        match &self.engine {
            Engine::Ort(runtime) => {
                Backend { engine: Engine::Ort(runtime.caching(cache)), ..self.clone() }
            }
            Engine::Tract(_) => self.clone(),
        }
    }

    /// The flags that ask for this provider.
    pub(crate) fn flags(&self) -> String {
        let flags = self.compiler().ok().and_then(OnnxRuntime::flags);
        flags.unwrap_or_else(|| format!("--provider {}", self.provider()))
    }

    /// ONNX Runtime's name of the provider.
    pub(crate) fn provider_name(&self) -> Result<&str, RuntimeError> {
        Ok(self.compiler()?.plugin()?.provider())
    }

    /// Has the provider compile `graph`, and writes the ONNX file `to`. What the provider makes lies
    /// in files of its own in that folder, whose names begin like that of `to`.
    ///
    /// # Errors
    /// [`RuntimeError::Load`] in the engine's words, [`RuntimeError::Nodes`] where the provider does not
    /// take all nodes, and as [`Backend::compiled_for`].
    pub fn compile(&self, graph: &Path, to: &Path) -> Result<(), RuntimeError> {
        self.compiler()?.compile(graph, to)
    }

    /// What the provider makes of the `words` that it has left in a graph that it compiled.
    ///
    /// # Errors
    /// In the provider's words, and as [`Backend::compiled_for`].
    pub(crate) fn compatibility(&self, words: &str) -> Result<Compatibility, RuntimeError> {
        self.compiler()?.compatibility(words)
    }

    /// ONNX Runtime with a plugin.
    fn compiler(&self) -> Result<&OnnxRuntime, RuntimeError> {
        let runtime = self.onnxruntime()?;
        runtime.plugin()?;
        Ok(runtime)
    }

    fn onnxruntime(&self) -> Result<&OnnxRuntime, RuntimeError> {
        match &self.engine {
            Engine::Ort(runtime) => Ok(runtime),
            Engine::Tract(_) => Err(compiles_nothing(self.provider())),
        }
    }
}

/// The refusal of a provider that has no compiled graphs.
pub(super) fn compiles_nothing(provider: super::Provider) -> RuntimeError {
    RuntimeError::Provider {
        provider,
        reason: "it compiles no graphs ahead".to_string(),
        mend: "leave out --engines, or name --provider tensorrt or a plugin such as openvino"
            .to_string(),
    }
}

/// Compiles `graph` with the provider of `builder`.
pub(super) fn compile(builder: SessionBuilder, graph: &Path, to: &Path) -> ort::Result<()> {
    ModelCompiler::new(builder)?.with_model_from_file(graph)?.compile_to_file(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_told() {
        let option = |value: &str| BTreeMap::from([("cache".to_string(), value.to_string())]);
        let made = CompiledFor {
            onnxruntime: "1.31.1".into(),
            provider: "openvino".into(),
            version: "1.8.1".into(),
            device: "cpu".into(),
            options: option("a"),
        };
        assert_eq!(made.difference(&made), None);
        let other = CompiledFor { version: "1.9.0".into(), options: option("b"), ..made.clone() };
        let told = made.difference(&other).expect("a difference");
        assert_eq!(told, ("version of the provider".into(), "1.8.1".into(), "1.9.0".into()));
        let other = CompiledFor { options: BTreeMap::new(), ..made.clone() };
        let told = made.difference(&other).expect("a difference");
        assert_eq!(told, ("option cache".into(), "a".into(), "not set".into()));
        assert!(other.difference(&made).is_some());
    }
}
