//! Tensors that lie in a file.

use std::fmt;
use std::ops::Range;

/// The most dimensions of a tensor, as in torch.
pub(crate) const MAX_DIMS: usize = 64;

/// The type of a tensor's elements, which are little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names tell")]
pub enum Dtype {
    F64,
    F32,
    F16,
    BF16,
    F8E4M3,
    F8E5M2,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
}

impl Dtype {
    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Dtype::F64 | Dtype::I64 | Dtype::U64 => 8,
            Dtype::F32 | Dtype::I32 | Dtype::U32 => 4,
            Dtype::F16 | Dtype::BF16 | Dtype::I16 | Dtype::U16 => 2,
            Dtype::F8E4M3 | Dtype::F8E5M2 | Dtype::I8 | Dtype::U8 | Dtype::Bool => 1,
        }
    }

    /// The name that torch gives it, such as `float32`.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F64 => "float64",
            Dtype::F32 => "float32",
            Dtype::F16 => "float16",
            Dtype::BF16 => "bfloat16",
            Dtype::F8E4M3 => "float8_e4m3fn",
            Dtype::F8E5M2 => "float8_e5m2",
            Dtype::I64 => "int64",
            Dtype::I32 => "int32",
            Dtype::I16 => "int16",
            Dtype::I8 => "int8",
            Dtype::U64 => "uint64",
            Dtype::U32 => "uint32",
            Dtype::U16 => "uint16",
            Dtype::U8 => "uint8",
            Dtype::Bool => "bool",
        }
    }
}

/// A tensor: a view of a storage in the file. All of its elements lie in the storage, and there are
/// no more of them than the storage has. Several tensors may share a storage, and elements of one
/// tensor a place.
#[derive(Clone, PartialEq, Eq)]
pub struct Tensor {
    /// The type of the elements.
    pub dtype: Dtype,
    /// Elements along each dimension.
    pub shape: Vec<usize>,
    /// Distance of neighbours along each dimension, in elements.
    pub strides: Vec<usize>,
    /// Where the first element is, in bytes from the beginning of the file; not always aligned.
    pub start: u64,
    /// Where the storage is, in bytes from the beginning of the file.
    pub storage: Range<u64>,
}

impl Tensor {
    /// The view of `storage` that torch describes by these numbers, all in elements.
    pub(crate) fn view(
        dtype: Dtype,
        storage: Range<u64>,
        offset: i64,
        sizes: &[i64],
        strides: &[i64],
    ) -> Result<Self, String> {
        if sizes.len() != strides.len() || sizes.len() > MAX_DIMS {
            let [dims, strides] = [sizes.len(), strides.len()];
            return Err(format!(
                "{dims} dimensions and {strides} strides; expected as many, at most {MAX_DIMS}"
            ));
        }
        let described = || format!("shape {sizes:?}, strides {strides:?}, offset {offset}");
        let unsigned = |numbers: &[i64]| -> Option<Vec<usize>> {
            numbers.iter().map(|&number| usize::try_from(number).ok()).collect()
        };
        let (Some(shape), Some(strides), Ok(offset)) =
            (unsigned(sizes), unsigned(strides), u64::try_from(offset))
        else {
            return Err(format!("negative numbers: {}", described()));
        };
        let size = dtype.size() as u64;
        let room = (storage.end - storage.start) / size;
        let beyond = || {
            let problem = format!("beyond its storage of {room} elements");
            format!("{} is {problem}; download the file again", described())
        };
        let (elements, end) = extent(&shape, &strides, offset).ok_or_else(beyond)?;
        if end > room {
            return Err(beyond());
        }
        if elements > room {
            let problem = "has more elements than its storage";
            let remedy = "an expanded view; save its .clone()";
            return Err(format!("{} {problem}, {room}: {remedy}", described()));
        }
        let start = storage.start + offset * size;
        Ok(Self { dtype, shape, strides, start, storage })
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the elements lie one after another, the last dimension's neighbours side by side.
    pub fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.elements() == 0
            || self.shape.iter().zip(&self.strides).rev().all(|(&size, &stride)| {
                let follows = size == 1 || stride == expected;
                expected *= size;
                follows
            })
    }

    /// The elements of a contiguous tensor, as they are in the bytes of its `file`.
    pub fn bytes<'a>(&self, file: &'a [u8]) -> Option<&'a [u8]> {
        let start = usize::try_from(self.start).ok()?;
        let length = self.elements() * self.dtype.size();
        self.is_contiguous().then(|| file.get(start..start.checked_add(length)?)).flatten()
    }

    /// Where each element is, in bytes from the beginning of the file: those of the last dimension
    /// first, whatever the strides.
    pub fn offsets(&self) -> impl Iterator<Item = u64> {
        (0..self.elements()).map(|mut index| {
            let mut place = 0;
            for (&size, &stride) in self.shape.iter().zip(&self.strides).rev() {
                place += index % size * stride;
                index /= size;
            }
            self.start + (place * self.dtype.size()) as u64
        })
    }
}

/// The number of elements of a view, and behind which element of its storage it ends; `None` if
/// either is beyond any file.
fn extent(shape: &[usize], strides: &[usize], offset: u64) -> Option<(u64, u64)> {
    let dims = || shape.iter().map(|&size| size as u64);
    // The dimensions beside one of size 0 too, so that nobody's products overflow.
    let elements = dims().try_fold(1_u64, |elements, size| elements.checked_mul(size.max(1)))?;
    if elements > i64::MAX as u64 {
        return None;
    }
    if dims().any(|size| size == 0) {
        return Some((0, offset));
    }
    let last = dims().zip(strides).try_fold(offset, |last, (size, &stride)| {
        last.checked_add((size - 1).checked_mul(stride as u64)?)
    });
    Some((elements, last?.checked_add(1)?))
}

/// `float32[2, 3]`.
impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype.name(), self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(offset: i64, sizes: &[i64], strides: &[i64]) -> Result<Tensor, String> {
        Tensor::view(Dtype::F16, 100..124, offset, sizes, strides)
    }

    #[test]
    fn a_view_lies_in_its_storage() {
        let all = view(0, &[3, 4], &[4, 1]).expect("a view");
        assert!(all.is_contiguous());
        assert_eq!(all.offsets().collect::<Vec<_>>(), (100..124).step_by(2).collect::<Vec<_>>());
        let across = view(1, &[4, 2], &[1, 4]).expect("a view");
        assert!(!across.is_contiguous() && across.bytes(&[0; 200]).is_none());
        let offsets: Vec<u64> = across.offsets().collect();
        assert_eq!(offsets, [102, 110, 104, 112, 106, 114, 108, 116]);
        assert_eq!(view(11, &[], &[]).expect("a scalar").start, 122);
        assert_eq!(view(12, &[0, 3], &[3, 1]).expect("nothing").offsets().count(), 0);
        assert!(view(0, &[1, 12], &[7, 1]).expect("a stride that is never taken").is_contiguous());
        assert_eq!(view(3, &[5], &[0]).expect("an expanded view").offsets().last(), Some(106));
    }

    #[test]
    fn a_view_beyond_its_storage_is_refused() {
        const HUGE: i64 = i64::MAX;
        for (offset, sizes, strides, expected) in [
            (0, &[13][..], &[1][..], "beyond its storage of 12 elements"),
            (12, &[], &[], "beyond"),
            (13, &[0], &[1], "beyond"),
            (1, &[3, 4], &[4, 1], "beyond"),
            (0, &[2], &[HUGE], "beyond"),
            (0, &[3], &[HUGE], "beyond"),
            (HUGE, &[2], &[HUGE], "beyond"),
            (0, &[HUGE, HUGE], &[0, 0], "beyond"),
            (0, &[HUGE, 0, HUGE], &[0, 0, 0], "beyond"),
            (0, &[13], &[0], "more elements than its storage, 12"),
            (0, &[-1], &[1], "negative"),
            (0, &[1], &[-1], "negative"),
            (-1, &[1], &[1], "negative"),
            (0, &[1], &[], "1 dimensions and 0 strides"),
            (0, &[1; 65], &[1; 65], "at most 64"),
        ] {
            let error = view(offset, sizes, strides).expect_err("a refusal");
            assert!(error.contains(expected), "{error}");
        }
    }
}
