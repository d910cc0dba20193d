//! Tensors as views of a file's bytes, which may lie in any order of their axes.

use std::borrow::Cow;
use std::ops::Range;

use safetensors::Dtype;

use super::width;

/// A tensor in a file: element `[i, j, ..]` lies `i * strides[0] + j * strides[1] + ..` elements
/// behind `start`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct View {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// In elements.
    pub strides: Vec<usize>,
    /// The byte of the file at which the first element begins.
    pub start: usize,
}

impl View {
    /// A tensor whose elements lie row by row.
    pub fn rows_of(dtype: Dtype, shape: Vec<usize>, start: usize) -> View {
        let mut strides = vec![1; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis] * shape[axis];
        }
        View { dtype, shape, strides, start }
    }

    /// The rows `range` of the first axis.
    pub fn rows(&self, range: Range<usize>) -> View {
        let mut view = self.clone();
        view.shape[0] = range.len();
        view.start += range.start * self.strides[0] * width(self.dtype);
        view
    }

    /// The same without its last axes of size 1, down to `axes` axes.
    pub fn squeezed(mut self, axes: usize) -> View {
        while self.shape.len() > axes && self.shape.last() == Some(&1) {
            self.shape.pop();
            self.strides.pop();
        }
        self
    }

    /// The same with its axes the other way round.
    pub fn transposed(&self) -> View {
        let mut view = self.clone();
        view.shape.reverse();
        view.strides.reverse();
        view
    }

    /// Number of elements.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// The bytes of the file from its first element to its last.
    pub fn extent(&self) -> Range<usize> {
        let last: usize = match self.count() {
            0 => return self.start..self.start,
            _ => self.shape.iter().zip(&self.strides).map(|(n, stride)| (n - 1) * stride).sum(),
        };
        self.start..self.start + (last + 1) * width(self.dtype)
    }

    /// Whether the elements lie row by row, without a gap.
    pub fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(&n, &stride)| {
            let fits = n == 1 || stride == expected;
            expected *= n;
            fits
        })
    }
}

/// The elements of `views` row by row, one view after the other.
pub(super) fn gather<'a>(file: &'a [u8], views: &[View]) -> Cow<'a, [u8]> {
    if let [view] = views
        && view.is_contiguous()
    {
        return Cow::Borrowed(&file[view.extent()]);
    }
    let mut bytes = Vec::with_capacity(views.iter().map(|v| v.count() * width(v.dtype)).sum());
    for view in views {
        if view.is_contiguous() {
            bytes.extend_from_slice(&file[view.extent()]);
        } else if view.count() > 0 {
            walk(file, view, 0, view.start, &mut bytes);
        }
    }
    Cow::Owned(bytes)
}

/// Appends what is at `start` along `axis` and those behind it.
fn walk(file: &[u8], view: &View, axis: usize, start: usize, bytes: &mut Vec<u8>) {
    let size = width(view.dtype);
    let step = view.strides[axis] * size;
    for start in (0..view.shape[axis]).map(|i| start + i * step) {
        if axis + 1 == view.shape.len() {
            bytes.extend_from_slice(&file[start..start + size]);
        } else {
            walk(file, view, axis + 1, start, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;

    #[test]
    fn elements_come_row_by_row_however_they_lie() {
        let file: Vec<u8> = (0..24).collect();
        let rows = View::rows_of(Dtype::U8, vec![2, 3, 4], 0);
        assert_eq!(rows.strides, [12, 4, 1]);
        assert!(matches!(gather(&file, from_ref(&rows)), Cow::Borrowed(bytes) if bytes == file));
        let turned = View { shape: vec![6, 4], strides: vec![4, 1], ..rows.clone() }.transposed();
        let expected: Vec<u8> = (0..4).flat_map(|i| (0..6).map(move |j| i + 4 * j)).collect();
        assert_eq!(*gather(&file, from_ref(&turned)), expected);
        assert_eq!(*gather(&file, &[turned.rows(1..3)]), expected[6..18]);
        let [second, first] = [rows.rows(1..2), rows.rows(0..1)];
        let swapped = [&file[12..], &file[..12]].concat();
        assert_eq!(*gather(&file, &[second.clone(), first]), swapped);
        assert_eq!(second.extent(), 12..24);
        let none = View { shape: vec![0, 4], ..rows };
        assert!(gather(&file, &[none]).is_empty());
    }

    #[test]
    fn axes_of_one_can_be_left_out() {
        let view = View::rows_of(Dtype::F32, vec![5, 3, 1, 1], 8).squeezed(2);
        assert_eq!((view.shape, view.strides), (vec![5, 3], vec![3, 1]));
    }
}
