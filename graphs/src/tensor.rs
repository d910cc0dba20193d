//! Element types, and the tensors at the edges of a graph: inputs, outputs, weights and constants.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::dim::Dim;

/// The type of a tensor's elements, numbered as ONNX numbers it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, strum::Display, strum::FromRepr,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
#[repr(i32)]
pub enum DType {
    /// 32-bit float.
    F32 = 1,
    /// Unsigned 8-bit integer.
    U8 = 2,
    /// Signed 8-bit integer.
    I8 = 3,
    /// Signed 32-bit integer.
    I32 = 6,
    /// Signed 64-bit integer.
    I64 = 7,
    /// Truth value in one byte.
    Bool = 9,
    /// 16-bit float.
    F16 = 10,
    /// bfloat16: the upper half of a 32-bit float.
    BF16 = 16,
    /// 8-bit float up to 448, with 4 bits of exponent, 3 behind the point and no infinities.
    F8E4M3FN = 17,
}

impl DType {
    /// The bytes that one element takes.
    pub fn size(self) -> usize {
        match self {
            DType::I64 => 8,
            DType::F32 | DType::I32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::Bool | DType::U8 | DType::I8 | DType::F8E4M3FN => 1,
        }
    }
}

/// The origin of the elements of an [`Initializer`].
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A tensor of the checkpoint.
    Checkpoint {
        /// The tensor's name in the checkpoint.
        tensor: String,
        /// The tensor's shape in the checkpoint.
        dims: Vec<usize>,
        /// The change that is applied before the elements are written.
        transform: Transform,
    },
    /// A tensor of the checkpoint in the file where it has it.
    File {
        /// The tensor's name in the checkpoint.
        tensor: String,
        /// Name of the file, which is beside the ONNX file.
        file: String,
        /// Offset of the first byte.
        offset: u64,
    },
    /// Bytes that were computed while the graph was built, little-endian.
    Constant(Vec<u8>),
}

/// A change to a tensor of the checkpoint, besides that of its element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transform {
    /// The tensor stays as it is.
    Keep,
    /// A matrix `[out, in]` becomes `[in, out]`, as `MatMul` needs it.
    Transpose,
    /// A matrix `[out, in]` becomes `[in, out]` in 8-bit integers: each output channel is divided
    /// by its scale and rounded.
    Quantize,
    /// A matrix `[out, in]` becomes the scales `[out]` of [`Transform::Quantize`], with which the
    /// largest magnitude of each output channel is 127.
    Scales,
    /// A matrix `[out, in]`, divided by its scale and rounded, becomes `[in, out]` in 8-bit floats.
    Narrow,
    /// A matrix `[out, in]` becomes the scale `[]` of [`Transform::Narrow`]: the least power of two
    /// with which no magnitude is above 448. Only the exponents change, so no digit is lost by it.
    NarrowScale,
}

/// A weight or constant of a finished graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Initializer {
    /// Name in the graph. A weight has its name in the checkpoint, scales have `_scale` appended.
    pub name: String,
    /// Shape in the graph.
    pub dims: Vec<usize>,
    /// Element type in the graph.
    pub dtype: DType,
    /// The origin of the elements.
    pub source: Source,
}

impl Initializer {
    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.dims.iter().product()
    }

    /// The bytes that all elements take in the graph.
    pub fn bytes(&self) -> usize {
        self.elements() * self.dtype.size()
    }
}

/// The name, element type and shape of a graph's input or output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    /// Name of the value.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Shape, with symbols for the free sizes.
    pub shape: Vec<Dim>,
}

/// `latents f32[batch, 4, 2*grid_height, 2*grid_width]`
impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dims: Vec<String> = self.shape.iter().map(ToString::to_string).collect();
        write!(f, "{} {}[{}]", self.name, self.dtype, dims.join(", "))
    }
}
