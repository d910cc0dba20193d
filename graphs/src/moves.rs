//! ONNX operators on [`Var`] that move elements and compute nothing, each with its shape rule.

use crate::builder::{Attribute, Var};
use crate::dim::Dim;
use crate::ops::FREE;
use crate::tensor::DType;

/// More rows than any tensor has: images have at most 65,536 tokens. Times the largest rank of a LoRA
/// it is still a 32-bit integer.
pub(crate) const MANY: i64 = 1 << 20;

impl<'g> Var<'g> {
    /// Puts the axes into the order `axes`.
    pub fn transpose<const N: usize>(self, axes: [usize; N]) -> Var<'g> {
        let old = self.shape();
        let shape = axes.iter().map(|&axis| old[axis]).collect();
        let perm = Attribute::Ints(axes.iter().map(|&axis| axis as i64).collect());
        let output = (self.dtype(), shape);
        self.graph.node("Transpose", &[Some(self)], &[("perm", perm)], output, FREE.into())
    }

    /// Gives the elements another shape: 0 keeps the size of the axis at its place, and at most one
    /// -1 takes what is left.
    #[track_caller]
    pub fn reshape<const N: usize>(self, target: [i64; N]) -> Var<'g> {
        let shape = resolve(&self.shape(), &target);
        let inputs = [Some(self), Some(self.graph.list(&target))];
        self.graph.node("Reshape", &inputs, &[], (self.dtype(), shape), FREE.into())
    }

    /// Gives the elements the shape of `other`, which is read at run time.
    pub fn reshape_like(self, other: Var<'g>) -> Var<'g> {
        let output = (DType::I64, vec![other.rank().into()]);
        let shape = self.graph.node("Shape", &[Some(other)], &[], output, FREE.into());
        let output = (self.dtype(), other.shape());
        self.graph.node("Reshape", &[Some(self), Some(shape)], &[], output, FREE.into())
    }

    /// Splits the last axis into the first two of `grid`: `[b, c, rows * columns]` ->
    /// `[b, c, rows, columns]`.
    ///
    /// The new shape is read from a tensor that is made to have it. Nodes that join it from numbers
    /// would run on the CPU, and ONNX Runtime refuses those where only the GPU may compute.
    #[track_caller]
    pub fn unflatten_like(self, grid: Var<'g>) -> Var<'g> {
        let sizes = grid.shape();
        assert_eq!(self.shape()[2], sizes[0] * sizes[1], "the grid does not fit");
        let one = self.slice(2, 0, 1).unsqueeze([3]); // [b, c, 1, 1]
        self.reshape_like(one + grid.slice(2, 0, 1).squeeze(2))
    }

    /// Inserts axes of size 1, so that they are the axes `axes` of the result.
    pub fn unsqueeze<const N: usize>(self, axes: [usize; N]) -> Var<'g> {
        let mut shape = self.shape();
        axes.iter().for_each(|&axis| shape.insert(axis, Dim::ONE));
        let inputs = [Some(self), Some(self.graph.list(&axes.map(|axis| axis as i64)))];
        self.graph.node("Unsqueeze", &inputs, &[], (self.dtype(), shape), FREE.into())
    }

    /// Removes the axis `axis`, which has the size 1.
    #[track_caller]
    pub fn squeeze(self, axis: usize) -> Var<'g> {
        let mut shape = self.shape();
        assert_eq!(shape.remove(axis), Dim::ONE, "squeezed axis");
        let inputs = [Some(self), Some(self.graph.list(&[axis as i64]))];
        self.graph.node("Squeeze", &inputs, &[], (self.dtype(), shape), FREE.into())
    }

    /// Joins `self` and `others` along `axis`, whose size must be known.
    #[track_caller]
    pub fn concat(self, others: &[Var<'g>], axis: usize) -> Var<'g> {
        let mut shape = self.shape();
        for other in others {
            let size = other.shape()[axis];
            assert_eq!(self.dtype(), other.dtype(), "Concat of two types");
            shape[axis] = match (shape[axis].known(), size.known()) {
                (Some(a), Some(b)) => (a + b).into(),
                _ => panic!("Concat along a symbolic axis"),
            };
        }
        concat(&[&[self], others].concat(), axis, shape)
    }

    /// Joins `self` to itself along the first axis.
    pub fn twice(self) -> Var<'g> {
        let mut shape = self.shape();
        shape[0] = shape[0] * 2.into();
        concat(&[self, self], 0, shape)
    }

    /// The two halves along the first axis.
    #[track_caller]
    pub fn halves(self) -> [Var<'g>; 2] {
        let mut shape = self.shape();
        shape[0] = shape[0].checked_div(2.into()).expect("an even size");
        self.pieces(0, shape)
    }

    /// Splits `axis` into `N` pieces, which are of one size if `N` divides that of the axis. A piece is
    /// declared with the shape of the whole, since a part of a symbolic size is no [`Dim`]:
    /// [`Var::join`] makes it true again.
    pub(crate) fn split<const N: usize>(self, axis: usize) -> [Var<'g>; N] {
        self.pieces(axis, self.shape())
    }

    /// Splits `axis` into `N` pieces, each of which is declared with `shape`.
    fn pieces<const N: usize>(self, axis: usize, shape: Vec<Dim>) -> [Var<'g>; N] {
        let attributes =
            [("axis", Attribute::Int(axis as i64)), ("num_outputs", Attribute::Int(N as i64))];
        let pieces = std::array::from_fn(|_| (self.dtype(), shape.clone()));
        self.graph.nodes("", "Split", &[Some(self)], &attributes, pieces, FREE.into())
    }

    /// Joins the pieces of [`Var::split`] along `axis`.
    pub(crate) fn join<const N: usize>(pieces: [Var<'g>; N], axis: usize) -> Var<'g> {
        concat(&pieces, axis, pieces[0].shape())
    }

    /// The rows of `parts` one after the other, declared as those of the first are.
    pub(crate) fn stack(parts: &[Var<'g>]) -> Var<'g> {
        concat(parts, 0, parts[0].shape())
    }

    /// The elements `start..end` of `axis`.
    pub fn slice(self, axis: usize, start: usize, end: usize) -> Var<'g> {
        let mut shape = self.shape();
        shape[axis] = (end - start).into();
        let [start, end, axis] = [start, end, axis].map(|n| Some(self.graph.list(&[n as i64])));
        let inputs = [Some(self), start, end, axis];
        self.graph.node("Slice", &inputs, &[], (self.dtype(), shape), FREE.into())
    }

    /// The elements of `axis` from `start` to before `end`, for numbers `[1]` that are computed.
    /// They are declared with the shape of the whole, as the pieces of [`Var::split`] are.
    pub(crate) fn between(self, axis: usize, start: Var<'g>, end: Var<'g>) -> Var<'g> {
        let inputs = [Some(self), Some(start), Some(end), Some(self.graph.list(&[axis as i64]))];
        self.graph.node("Slice", &inputs, &[], (self.dtype(), self.shape()), FREE.into())
    }

    /// The first `count` elements of `axis`, or all if there are less: those
    /// [between](Var::between) 0 and it.
    pub(crate) fn first(self, axis: usize, count: Var<'g>) -> Var<'g> {
        self.between(axis, self.graph.list(&[0]), count)
    }

    /// The size of `axis`, `[1]`.
    pub(crate) fn size(self, axis: usize) -> Var<'g> {
        let attributes =
            [("start", Attribute::Int(axis as i64)), ("end", Attribute::Int(axis as i64 + 1))];
        let output = (DType::I64, vec![1.into()]);
        self.graph.node("Shape", &[Some(self)], &attributes, output, FREE.into())
    }

    /// The elements `indices` of `axis`, which is replaced by the shape of `indices`.
    pub fn gather(self, indices: Var<'g>, axis: usize) -> Var<'g> {
        let old = self.shape();
        let shape = [&old[..axis], &indices.shape(), &old[axis + 1..]].concat();
        let attributes = [("axis", Attribute::Int(axis as i64))];
        let inputs = [Some(self), Some(indices)];
        self.graph.node("Gather", &inputs, &attributes, (self.dtype(), shape), FREE.into())
    }

    /// Unpacks patches with the order (row, column, channel): `[b, p * p * c, h, w]` ->
    /// `[b, c, p * h, p * w]`.
    #[track_caller]
    pub fn depth_to_space(self, p: usize) -> Var<'g> {
        let old = self.shape();
        let channels = old[1].checked_div((p * p).into()).expect("p * p divides the channels");
        let shape = vec![old[0], channels, old[2] * p.into(), old[3] * p.into()];
        let attributes =
            [("blocksize", Attribute::Int(p as i64)), ("mode", Attribute::Text("DCR"))];
        let output = (self.dtype(), shape);
        self.graph.node("DepthToSpace", &[Some(self)], &attributes, output, FREE.into())
    }

    /// Repeats each pixel four times: `[b, c, h, w]` -> `[b, c, 2 * h, 2 * w]`.
    pub fn upsample_nearest(self) -> Var<'g> {
        let old = self.shape();
        let shape = vec![old[0], old[1], old[2] * 2.into(), old[3] * 2.into()];
        let scales = self.graph.floats("[1,1,2,2].float", &[4], &[1.0, 1.0, 2.0, 2.0]);
        let attributes = [
            ("mode", Attribute::Text("nearest")),
            ("coordinate_transformation_mode", Attribute::Text("asymmetric")),
            ("nearest_mode", Attribute::Text("floor")),
        ];
        let inputs = [Some(self), None, Some(scales)];
        self.graph.node("Resize", &inputs, &attributes, (self.dtype(), shape), FREE.into())
    }
}

/// Joins `pieces` along `axis`; the whole is declared with `shape`.
fn concat<'g>(pieces: &[Var<'g>], axis: usize, shape: Vec<Dim>) -> Var<'g> {
    let inputs: Vec<_> = pieces.iter().copied().map(Some).collect();
    let attributes = [("axis", Attribute::Int(axis as i64))];
    let first = pieces[0];
    first.graph.node("Concat", &inputs, &attributes, (first.dtype(), shape), FREE.into())
}

/// The shape that [`Var::reshape`] gives to elements of the shape `old`.
#[track_caller]
fn resolve(old: &[Dim], target: &[i64]) -> Vec<Dim> {
    let product = |dims: &[Dim]| dims.iter().fold(Dim::ONE, |product, &dim| product * dim);
    let mut shape: Vec<Dim> = target
        .iter()
        .enumerate()
        .map(|(axis, &size)| match size {
            0 => old[axis],
            -1 => Dim::ONE,
            size => (size as usize).into(),
        })
        .collect();
    if let Some(axis) = target.iter().position(|&size| size == -1) {
        shape[axis] = product(old)
            .checked_div(product(&shape))
            .unwrap_or_else(|| panic!("{old:?} does not reshape to {target:?}"));
    }
    assert_eq!(product(old), product(&shape), "{old:?} does not reshape to {target:?}");
    shape
}
