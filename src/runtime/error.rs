//! What can go wrong with an engine, a graph or a tensor. Every message names the thing and what
//! to do; what the engine said is the source.

use std::path::PathBuf;

use super::{DType, Provider, library::OLDEST_MINOR};

/// An error of an engine, or words of our own in its place.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What an engine says, with its causes, in one line.
pub(super) fn said(error: impl std::fmt::Display) -> BoxError {
    let text = format!("{error:#}");
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(1000).collect::<String>().into()
}

/// An error of the runtime.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// `ort` was asked for, and no place holds a library.
    #[error(
        "no usable ONNX Runtime library was found{refused}\n  \
         run scripts/setup-ort, or set ORT_DYLIB_PATH to a libonnxruntime of 1.{OLDEST_MINOR} or newer; \
         `hydit-serve doctor` lists the places looked at"
    )]
    NoLibrary {
        /// What was found and refused, one indented line each; empty when nothing was found.
        refused: String,
    },
    /// The library named by `ORT_DYLIB_PATH`, or the one chosen, cannot be used.
    #[error("ONNX Runtime at {} cannot be used: {reason}\n  {mend}", path.display())]
    Library {
        /// The library.
        path: PathBuf,
        /// Why not.
        reason: String,
        /// What to do about it.
        mend: String,
    },
    /// ONNX Runtime is loaded once per process, and another library is loaded already.
    #[error(
        "this process has loaded ONNX Runtime from {} and cannot load {} too\n  \
         set ORT_DYLIB_PATH before the start and leave it", loaded.display(), wanted.display()
    )]
    SecondLibrary {
        /// The library in use.
        loaded: PathBuf,
        /// The library asked for.
        wanted: PathBuf,
    },
    /// ONNX Runtime refused a setting.
    #[error("ONNX Runtime refused {what}")]
    Setting {
        /// The setting.
        what: String,
        /// ONNX Runtime's reason.
        source: BoxError,
    },
    /// Nobody wants the result any more: see [`Stop`](super::Stop).
    #[error("stopped, since nobody wants the result any more")]
    Stopped,
    /// The requested execution provider is not available.
    #[error("the {provider} provider cannot be used: {reason}\n  {mend}")]
    Provider {
        /// The provider asked for.
        provider: Provider,
        /// Why not.
        reason: String,
        /// What to do about it.
        mend: String,
    },
    /// A provider has no kernels for some nodes of a graph, and the CPU does not take its place.
    #[error(
        "{}: the {provider} provider does not take all nodes, and nothing runs on the CPU instead: \
         {nodes}\n  use another provider, or export with --optimize-for portable",
        graph.display()
    )]
    Nodes {
        /// The `.onnx` file.
        graph: PathBuf,
        /// The provider.
        provider: Provider,
        /// The first of the nodes, by operator and name.
        nodes: String,
    },
    /// A graph could not be loaded.
    #[error("cannot load {} in {engine}", graph.display())]
    Load {
        /// The `.onnx` file.
        graph: PathBuf,
        /// The engine and its provider.
        engine: String,
        /// The engine's reason.
        source: BoxError,
    },
    /// A run failed inside the engine.
    #[error("cannot run {} in {engine} on the inputs {shapes}", graph.display())]
    Run {
        /// The `.onnx` file.
        graph: PathBuf,
        /// The engine and its provider.
        engine: String,
        /// Name, element type and shape of every input.
        shapes: String,
        /// The engine's reason.
        source: BoxError,
    },
    /// An input of the graph was not given.
    #[error("{} needs the input `{name}` ({expected}), which was not given", graph.display())]
    MissingInput {
        /// The `.onnx` file.
        graph: PathBuf,
        /// The input.
        name: String,
        /// What it takes.
        expected: String,
    },
    /// The graph has no input or output of this name.
    #[error("{} has no {side} `{name}`; it has {known}", graph.display())]
    UnknownName {
        /// The `.onnx` file.
        graph: PathBuf,
        /// "input" or "output".
        side: &'static str,
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The file of a graph does not declare what the manifest says.
    #[error(
        "{} has the {side} {}, where the manifest says {}: export the checkpoint again",
        graph.display(),
        declared.as_deref().unwrap_or("no more"),
        promised.as_deref().unwrap_or("no more")
    )]
    Interface {
        /// The `.onnx` file.
        graph: PathBuf,
        /// "input" or "output".
        side: &'static str,
        /// What the file declares.
        declared: Option<String>,
        /// What the manifest says.
        promised: Option<String>,
    },
    /// A run made something else than the manifest says.
    #[error("{} made {found}, where the manifest says {promised}: export the checkpoint again", graph.display())]
    Output {
        /// The `.onnx` file.
        graph: PathBuf,
        /// Element type and shape of what was made.
        found: String,
        /// What the manifest says.
        promised: String,
    },
    /// An input was given twice.
    #[error("the input `{name}` of {} was given twice", graph.display())]
    RepeatedInput {
        /// The `.onnx` file.
        graph: PathBuf,
        /// The input.
        name: String,
    },
    /// An input has the wrong element type or shape.
    #[error("the input `{name}` of {} takes {expected}, and {found} was given", graph.display())]
    InputMismatch {
        /// The `.onnx` file.
        graph: PathBuf,
        /// The input.
        name: String,
        /// What it takes.
        expected: String,
        /// What was given.
        found: String,
    },
    /// A tensor of one engine was given to the other.
    #[error(
        "the input `{name}` of {} is a tensor of another engine; \
         make it with the backend that loaded the graph",
        graph.display()
    )]
    ForeignValue {
        /// The `.onnx` file.
        graph: PathBuf,
        /// The input.
        name: String,
    },
    /// The data of a tensor does not fill its shape.
    #[error("a tensor of shape {shape:?} holds {expected} elements, and {found} were given")]
    Length {
        /// The tensor's shape.
        shape: Vec<usize>,
        /// Its number of elements.
        expected: usize,
        /// The length of the data.
        found: usize,
    },
    /// A tensor's elements cannot be read or written as asked.
    #[error("a {dtype} tensor cannot be {doing}")]
    Access {
        /// The tensor's element type.
        dtype: DType,
        /// "read as f32", "written from f32", …
        doing: &'static str,
        /// Why not.
        source: BoxError,
    },
}
