//! Weights of a graph, by their names in the checkpoint.

use std::fmt;

use super::{Graph, Slot, Var};
use crate::tensor::{DType, Initializer, Source, Transform};

/// The weights of the checkpoint whose names start with a prefix. They are declared by the rest of
/// their names: with `w = graph.root().pp("attn1")`, `w.tensor("to_q.bias", ..)` is the weight
/// `attn1.to_q.bias`.
#[derive(Clone)]
pub struct Weights<'g> {
    /// The graph in which the weights are declared.
    pub graph: &'g Graph,
    prefix: String,
}

impl<'g> Weights<'g> {
    /// All weights of `graph`.
    pub(super) fn of(graph: &'g Graph) -> Weights<'g> {
        Weights { graph, prefix: String::new() }
    }

    /// The weights whose names go on with `name` and a dot ("push prefix").
    pub fn pp(&self, name: impl fmt::Display) -> Weights<'g> {
        Weights { graph: self.graph, prefix: format!("{}{name}.", self.prefix) }
    }

    /// Declares the checkpoint's tensor `name` of shape `dims`.
    #[track_caller]
    pub fn tensor(&self, name: &str, dims: &[usize], dtype: DType) -> Var<'g> {
        self.declare(name, "", dims, Transform::Keep, dtype)
    }

    /// Declares the checkpoint's matrix `name` of shape `[out, in]`, transposed to `[in, out]`.
    #[track_caller]
    pub fn transposed(&self, name: &str, shape: [usize; 2], dtype: DType) -> Var<'g> {
        self.declare(name, "", &shape, Transform::Transpose, dtype)
    }

    /// Declares the checkpoint's matrix `name` of shape `[out, in]` as 8-bit integers `[in, out]`
    /// and their scales `[out]`.
    #[track_caller]
    pub fn quantized(&self, name: &str, shape: [usize; 2]) -> (Var<'g>, Var<'g>) {
        let values = self.declare(name, "", &shape, Transform::Quantize, DType::I8);
        (values, self.declare(name, "_scale", &shape, Transform::Scales, DType::F32))
    }

    /// Declares the checkpoint's matrix `name` of shape `[out, in]` as 8-bit floats `[in, out]` and
    /// their scale `[]` in fp16.
    #[track_caller]
    pub fn narrowed(&self, name: &str, shape: [usize; 2]) -> (Var<'g>, Var<'g>) {
        let values = self.declare(name, "", &shape, Transform::Narrow, DType::F8E4M3FN);
        (values, self.declare(name, "_scale", &shape, Transform::NarrowScale, DType::F16))
    }

    /// The slot of the layer `name`, if it has one.
    pub(crate) fn slot(&self, name: &str) -> Option<Slot> {
        let module = format!("{}{name}", self.prefix);
        self.graph.inner.borrow().slots.get(&module).copied()
    }

    #[track_caller]
    fn declare(
        &self,
        name: &str,
        suffix: &str,
        dims: &[usize],
        transform: Transform,
        dtype: DType,
    ) -> Var<'g> {
        let tensor = format!("{}{name}", self.prefix);
        self.graph.initializer(Initializer {
            name: format!("{tensor}{suffix}"),
            dims: match transform {
                Transform::Keep => dims.to_vec(),
                Transform::Transpose | Transform::Quantize | Transform::Narrow => {
                    vec![dims[1], dims[0]]
                }
                Transform::Scales => vec![dims[0]],
                Transform::NarrowScale => vec![],
            },
            dtype,
            source: Source::Checkpoint { tensor, dims: dims.to_vec(), transform },
        })
    }

    /// Opens a naming scope: nodes that are appended while the guard lives are named under this
    /// prefix.
    #[must_use]
    pub fn enter(&self) -> Scope<'g> {
        let scope = self.prefix.replace('.', "/");
        self.graph.inner.borrow_mut().scope.push(scope);
        Scope { graph: self.graph }
    }
}

/// Ends the naming scope of [`Weights::enter`] when dropped.
pub struct Scope<'g> {
    graph: &'g Graph,
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        self.graph.inner.borrow_mut().scope.pop();
    }
}
