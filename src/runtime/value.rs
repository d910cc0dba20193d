//! Tensors of an engine, and what a graph says about its inputs and outputs.

use std::{borrow::Cow, fmt, ops::Range, sync::Arc};

use half::{bf16, f16};
use ort::{
    memory::AllocationDevice,
    value::{DynTensor, PrimitiveTensorElementType, Tensor as OrtTensor, TensorElementType},
};
use tract_onnx::prelude::{Datum, DatumType, Tensor};

use super::{BoxError, RuntimeError};

/// The element type of a tensor. Graphs pass between each other whatever they like; the host makes
/// and reads `F32`, `F16`, with ONNX Runtime `BF16`, and makes `I64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DType {
    /// 32-bit float.
    F32,
    /// 16-bit float.
    F16,
    /// bfloat16.
    BF16,
    /// 64-bit integer.
    I64,
    /// 32-bit integer.
    I32,
    /// Boolean.
    Bool,
    /// Any other type.
    Other,
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::I64 => "i64",
            DType::I32 => "i32",
            DType::Bool => "bool",
            DType::Other => "other",
        })
    }
}

impl From<&TensorElementType> for DType {
    fn from(element: &TensorElementType) -> DType {
        match element {
            TensorElementType::Float32 => DType::F32,
            TensorElementType::Float16 => DType::F16,
            TensorElementType::Bfloat16 => DType::BF16,
            TensorElementType::Int64 => DType::I64,
            TensorElementType::Int32 => DType::I32,
            TensorElementType::Bool => DType::Bool,
            _ => DType::Other,
        }
    }
}

impl From<DatumType> for DType {
    fn from(element: DatumType) -> DType {
        match element {
            DatumType::F32 => DType::F32,
            DatumType::F16 => DType::F16,
            DatumType::I64 => DType::I64,
            DatumType::I32 => DType::I32,
            DatumType::Bool => DType::Bool,
            _ => DType::Other,
        }
    }
}

/// An input or output of a graph, as the file declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name of the input or output.
    pub name: String,
    /// Its element type.
    pub dtype: DType,
    /// Its axes, `None` for one of any size. Empty for a scalar, or where the file states no shape.
    pub dims: Vec<Option<usize>>,
}

impl TensorInfo {
    /// Whether a tensor of this type and shape fits. Where no axes are declared, the engine is the
    /// judge.
    pub(super) fn accepts(&self, dtype: DType, shape: &[usize]) -> bool {
        let fits = |(declared, given): (&Option<usize>, &usize)| {
            declared.is_none_or(|size| size == *given)
        };
        self.dtype == dtype
            && (self.dims.is_empty()
                || self.dims.len() == shape.len() && self.dims.iter().zip(shape).all(fits))
    }
}

/// `f32 [?, 3]`
impl fmt::Display for TensorInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dims: Vec<_> = self
            .dims
            .iter()
            .map(|dim| dim.map_or("?".to_owned(), |size| size.to_string()))
            .collect();
        write!(f, "{} [{}]", self.dtype, dims.join(", "))
    }
}

/// A tensor of an engine, on the host or on the device where it was computed. Keeping one copies
/// nothing, nor does giving it to a session: between the graphs of one backend only references
/// pass.
#[derive(Debug)]
pub struct Value(pub(super) Inner);

#[derive(Debug)]
pub(super) enum Inner {
    Ort(DynTensor),
    Tract(Arc<Tensor>),
}

impl Value {
    /// The size of each axis.
    pub fn shape(&self) -> Vec<usize> {
        match &self.0 {
            Inner::Ort(tensor) => tensor.shape().iter().map(|&size| size as usize).collect(),
            Inner::Tract(tensor) => tensor.shape().to_vec(),
        }
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        match &self.0 {
            Inner::Ort(tensor) => tensor.data_type().into(),
            Inner::Tract(tensor) => tensor.datum_type().into(),
        }
    }

    /// Whether the elements are in the memory of the host.
    pub fn on_host(&self) -> bool {
        match &self.0 {
            Inner::Ort(tensor) => tensor.memory_info().is_cpu_accessible(),
            Inner::Tract(_) => true,
        }
    }

    /// Refills a host tensor of `F32` or `F16` in place, for inputs that change in every step.
    ///
    /// # Errors
    /// [`RuntimeError::Length`] when `data` does not fill the shape, [`RuntimeError::Access`] for
    /// another element type, a tensor on a device, or one that tract has put among its outputs
    /// unchanged and so shares.
    pub fn write_f32(&mut self, data: &[f32]) -> Result<(), RuntimeError> {
        check_length(&self.shape(), data.len())?;
        let dtype = self.dtype();
        match dtype {
            DType::F32 => self.fill::<f32>(|slice| slice.copy_from_slice(data)),
            DType::F16 => self.fill::<f16>(|slice| narrow(data, slice)),
            _ => Err("only f32 and f16 tensors can".into()),
        }
        .map_err(|source| RuntimeError::Access {
            dtype,
            doing: "written from f32",
            source,
        })
    }

    /// The elements, where they are f32 in the memory of the host.
    pub fn host_f32(&self) -> Option<&[f32]> {
        let host = self.dtype() == DType::F32 && self.on_host();
        host.then(|| self.slice::<f32>().ok()).flatten()
    }

    /// A host tensor of the same engine and shape, with other elements.
    ///
    /// # Errors
    /// [`RuntimeError::Length`] when `data` does not fill the shape, [`RuntimeError::Access`] when the
    /// engine cannot make it.
    pub fn with_f32(&self, data: Vec<f32>) -> Result<Value, RuntimeError> {
        Value::make(matches!(self.0, Inner::Ort(_)), &self.shape(), data)
    }

    /// The rows of `parts` one after the other.
    ///
    /// # Errors
    /// [`RuntimeError::Access`] when one is not f32 in the memory of the host, or the engine cannot
    /// make it; [`RuntimeError::Length`] when their rows differ in size.
    ///
    /// # Panics
    /// Without any part.
    #[track_caller]
    pub fn stacked(parts: &[&Value]) -> Result<Value, RuntimeError> {
        let mut shape = parts[0].shape();
        shape[0] = parts.iter().map(|part| part.shape()[0]).sum();
        let data = parts.iter().map(|part| part.plain()).collect::<Result<Vec<_>, _>>()?.concat();
        Value::make(matches!(parts[0].0, Inner::Ort(_)), &shape, data)
    }

    /// A copy of some `rows`.
    ///
    /// # Errors
    /// [`RuntimeError::Access`] when it is not f32 in the memory of the host, or the engine cannot
    /// make it.
    ///
    /// # Panics
    /// When there are no such rows.
    #[track_caller]
    pub fn rows(&self, rows: Range<usize>) -> Result<Value, RuntimeError> {
        let mut shape = self.shape();
        let row: usize = shape[1..].iter().product();
        shape[0] = rows.len();
        let data = self.plain()?[rows.start * row..rows.end * row].to_vec();
        Value::make(matches!(self.0, Inner::Ort(_)), &shape, data)
    }

    fn plain(&self) -> Result<&[f32], RuntimeError> {
        self.host_f32().ok_or_else(|| RuntimeError::Access {
            dtype: self.dtype(),
            doing: "taken apart",
            source: "only f32 tensors on the host can".into(),
        })
    }

    /// A host tensor of ONNX Runtime if `ort`, else of tract.
    pub(super) fn make<T>(ort: bool, shape: &[usize], data: Vec<T>) -> Result<Value, RuntimeError>
    where
        T: PrimitiveTensorElementType + Datum + Copy,
    {
        check_length(shape, data.len())?;
        let refused = |source: BoxError| RuntimeError::Access {
            dtype: DType::from(T::datum_type()),
            doing: "made",
            source,
        };
        Ok(Value(if ort {
            let tensor = OrtTensor::from_array((shape, data));
            Inner::Ort(tensor.map_err(|error| refused(error.into()))?.upcast())
        } else {
            let tensor = Tensor::from_shape(shape, &data);
            Inner::Tract(tensor.map_err(|error| refused(error.into()))?.into())
        }))
    }

    /// The elements as f32, row by row: borrowed from an `F32` tensor on the host, converted from
    /// `F16` and `BF16`.
    ///
    /// A tensor on a device is copied to the host first, through a session that the whole process
    /// shares; have outputs that are read in every step brought to the host with
    /// [`Session::outputs_to_host`](super::Session::outputs_to_host) instead.
    ///
    /// # Errors
    /// [`RuntimeError::Access`] for another element type, or when the copy fails.
    pub fn read_f32(&self) -> Result<Cow<'_, [f32]>, RuntimeError> {
        let dtype = self.dtype();
        let refused = |source| RuntimeError::Access { dtype, doing: "read as f32", source };
        match (&self.0, dtype) {
            (Inner::Ort(tensor), DType::F32 | DType::F16 | DType::BF16) if !self.on_host() => {
                let host = tensor.to(AllocationDevice::CPU, 0);
                let host = host.map_err(|error| refused(error.into()))?;
                Ok(Cow::Owned(Value(Inner::Ort(host)).read_f32()?.into_owned()))
            }
            (_, DType::F32) => self.slice::<f32>().map(Cow::Borrowed).map_err(refused),
            (_, DType::F16) => {
                let slice = self.slice::<f16>().map_err(refused)?;
                Ok(Cow::Owned(slice.iter().map(|x| x.to_f32()).collect()))
            }
            (Inner::Ort(tensor), DType::BF16) => {
                let slice = tensor.try_extract_tensor::<bf16>();
                let (_, slice) = slice.map_err(|error| refused(error.into()))?;
                Ok(Cow::Owned(slice.iter().map(|x| x.to_f32()).collect()))
            }
            _ => Err(refused("only f32, f16 and bf16 tensors can".into())),
        }
    }

    fn slice<T: PrimitiveTensorElementType + Datum>(&self) -> Result<&[T], BoxError> {
        Ok(match &self.0 {
            Inner::Ort(tensor) => tensor.try_extract_tensor::<T>()?.1,
            Inner::Tract(tensor) => tensor.try_as_plain_ram()?.as_slice::<T>()?,
        })
    }

    fn fill<T: PrimitiveTensorElementType + Datum>(
        &mut self,
        fill: impl FnOnce(&mut [T]),
    ) -> Result<(), BoxError> {
        match &mut self.0 {
            Inner::Ort(tensor) => fill(tensor.try_extract_tensor_mut::<T>()?.1),
            Inner::Tract(tensor) => {
                let tensor = Arc::get_mut(tensor).ok_or("it is shared")?;
                fill(tensor.try_as_plain_ram_mut()?.as_slice_mut::<T>()?);
            }
        }
        Ok(())
    }
}

/// Refuses data that does not fill `shape`.
pub(super) fn check_length(shape: &[usize], found: usize) -> Result<(), RuntimeError> {
    // A product that overflows is no length of a slice.
    let expected =
        shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size)).unwrap_or(usize::MAX);
    if expected != found {
        return Err(RuntimeError::Length { shape: shape.to_vec(), expected, found });
    }
    Ok(())
}

/// Rounds to the nearest f16.
pub(super) fn narrow(from: &[f32], to: &mut [f16]) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to = f16::from_f32(from);
    }
}
