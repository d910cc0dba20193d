//! Element types, and the tensors at the edges of a graph: inputs, outputs, weights, constants.

use serde::{Deserialize, Serialize};

use crate::dim::Dim;

/// Element types, numbered as ONNX numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(i32)]
pub enum DType {
    /// 32-bit float.
    F32 = 1,
    /// 8-bit integer without sign.
    U8 = 2,
    /// 8-bit integer.
    I8 = 3,
    /// 32-bit integer.
    I32 = 6,
    /// 64-bit integer.
    I64 = 7,
    /// Truth value, one byte.
    Bool = 9,
    /// 16-bit float.
    F16 = 10,
    /// bfloat16: the upper half of a 32-bit float.
    BF16 = 16,
}

impl DType {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            DType::I64 => 8,
            DType::F32 | DType::I32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::Bool | DType::U8 | DType::I8 => 1,
        }
    }
}

/// Where the elements of an [`Initializer`] come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A tensor of the checkpoint.
    Checkpoint {
        /// Its name there.
        tensor: String,
        /// Its shape there.
        dims: Vec<usize>,
        /// What is done with it.
        transform: Transform,
    },
    /// Computed while building, little-endian.
    Constant(Vec<u8>),
}

/// What is done with a tensor of the checkpoint, besides its element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transform {
    /// Nothing.
    Keep,
    /// A matrix `[out, in]` becomes `[in, out]`, as `MatMul` wants it.
    Transpose,
    /// As [`Transform::Transpose`], and each output channel is divided by its scale and rounded.
    Quantize,
    /// The scales of [`Transform::Quantize`], `[out]`: the largest magnitude is 127.
    Scales,
}

/// A weight or constant of a finished graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Initializer {
    /// Name in the graph; for weights the checkpoint's, to which scales add `_scale`.
    pub name: String,
    /// Shape in the graph.
    pub dims: Vec<usize>,
    /// Element type in the graph.
    pub dtype: DType,
    /// Origin of the elements.
    pub source: Source,
}

impl Initializer {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.dims.iter().product()
    }

    /// Bytes of all elements.
    pub fn bytes(&self) -> usize {
        self.elements() * self.dtype.size()
    }
}

/// Name, type and shape of a graph's input or output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    /// Name.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Shape, symbolic where free.
    pub shape: Vec<Dim>,
}
