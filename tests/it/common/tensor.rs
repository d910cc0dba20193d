//! Host tensors by name, and their distance.

use std::collections::BTreeMap;

use hydit::runtime::{Backend, DType, Value};
use safetensors::{Dtype, SafeTensors};

/// Elements of a [`Tensor`].
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    F32(Vec<f32>),
    I64(Vec<i64>),
}

/// A tensor on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub data: Data,
}

/// Tensors by name.
pub type Tensors = BTreeMap<String, Tensor>;

impl Tensor {
    pub fn f32(shape: &[usize], values: Vec<f32>) -> Tensor {
        assert_eq!(shape.iter().product::<usize>(), values.len());
        Tensor { shape: shape.to_vec(), data: Data::F32(values) }
    }

    pub fn i64(shape: &[usize], values: Vec<i64>) -> Tensor {
        assert_eq!(shape.iter().product::<usize>(), values.len());
        Tensor { shape: shape.to_vec(), data: Data::I64(values) }
    }

    pub fn floats(&self) -> &[f32] {
        match &self.data {
            Data::F32(values) => values,
            Data::I64(_) => panic!("a tensor of whole numbers"),
        }
    }

    /// As an input of type `dtype`.
    pub fn value(&self, backend: &Backend, dtype: DType) -> Value {
        match (&self.data, dtype) {
            (Data::F32(values), DType::F32) => backend.tensor_f32(&self.shape, values),
            (Data::F32(values), DType::F16) => backend.tensor_f16(&self.shape, values),
            (Data::F32(values), DType::BF16) => backend.tensor_bf16(&self.shape, values),
            (Data::I64(values), DType::I64) => backend.tensor_i64(&self.shape, values),
            _ => panic!("no {dtype} tensor from this"),
        }
        .expect("a tensor")
    }

    /// A float output.
    pub fn of_value(value: &Value) -> Tensor {
        Tensor::f32(&value.shape(), value.read_f32().expect("a float tensor").into_owned())
    }

    /// `f(x)` for every element.
    pub fn map(&self, f: impl Fn(f32) -> f32) -> Tensor {
        Tensor::f32(&self.shape, self.floats().iter().map(|&x| f(x)).collect())
    }
}

/// All tensors of a safetensors file.
pub fn read(bytes: &[u8]) -> Tensors {
    let file = SafeTensors::deserialize(bytes).expect("a safetensors file");
    let tensor = |view: safetensors::tensor::TensorView<'_>| {
        let data = match view.dtype() {
            Dtype::F32 => Data::F32(elements(view.data(), f32::from_le_bytes)),
            Dtype::I64 => Data::I64(elements(view.data(), i64::from_le_bytes)),
            other => panic!("{other:?}"),
        };
        Tensor { shape: view.shape().to_vec(), data }
    };
    file.tensors().into_iter().map(|(name, view)| (name, tensor(view))).collect()
}

fn elements<T, const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|bytes| read(*bytes)).collect()
}

/// `|ours - theirs| / |theirs|` in Euclidean length.
#[track_caller]
pub fn distance(ours: &Tensor, theirs: &Tensor) -> f64 {
    assert_eq!(ours.shape, theirs.shape, "shapes");
    let (mut error, mut length) = (0.0, 0.0);
    for (&a, &b) in ours.floats().iter().zip(theirs.floats()) {
        let (a, b) = (f64::from(a), f64::from(b));
        assert!(a.is_finite() && b.is_finite(), "{a} and {b}");
        error += (a - b).powi(2);
        length += b.powi(2);
    }
    (error / length).sqrt()
}
