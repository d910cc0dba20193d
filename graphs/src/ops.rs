//! ONNX operators on [`Var`], each with its shape rule and its cost.
//!
//! Costs count every node: 2 per multiply-add of a matrix product or convolution, otherwise the
//! arithmetic of one element (an addition 1, an exponential 1, a softmax 5, a layer norm 8, ...);
//! moving and casting is free. From the costs follows the speed-up that skipping a graph allows.

use std::ops::{Add, Div, Mul, Sub};

use crate::builder::{Attribute, Graph, Var};
use crate::dim::Dim;
use crate::tensor::DType;

const FREE: usize = 0;

/// The domain of ONNX Runtime's own operators.
const MICROSOFT: &str = "com.microsoft";

impl<'g> Var<'g> {
    fn unary(self, op: &str, flops: usize) -> Var<'g> {
        self.graph.node(op, &[Some(self)], &[], (self.dtype(), self.shape()), flops.into())
    }

    #[track_caller]
    fn binary(self, op: &str, other: Var<'g>, dtype: DType) -> Var<'g> {
        assert_eq!(self.dtype(), other.dtype(), "{op} of two types");
        let shape = broadcast(&self.shape(), &other.shape());
        self.graph.node(op, &[Some(self), Some(other)], &[], (dtype, shape), Dim::ONE)
    }

    /// The logistic function, `1 / (1 + e^-x)`.
    pub fn sigmoid(self) -> Var<'g> {
        self.unary("Sigmoid", 3)
    }

    /// The positive part, `max(x, 0)`.
    pub fn relu(self) -> Var<'g> {
        self.unary("Relu", 1)
    }

    /// The square root.
    pub fn sqrt(self) -> Var<'g> {
        self.unary("Sqrt", 1)
    }

    /// The sine.
    pub fn sin(self) -> Var<'g> {
        self.unary("Sin", 1)
    }

    /// The cosine.
    pub fn cos(self) -> Var<'g> {
        self.unary("Cos", 1)
    }

    /// GELU, by `tanh` if `approximate` is "tanh" as in PyTorch, by `erf` if it is "none".
    pub fn gelu(self, approximate: &'static str) -> Var<'g> {
        let attributes = [("approximate", Attribute::Text(approximate))];
        let output = (self.dtype(), self.shape());
        self.graph.node("Gelu", &[Some(self)], &attributes, output, 10.into())
    }

    /// Softmax over the last axis.
    pub fn softmax(self) -> Var<'g> {
        let output = (self.dtype(), self.shape());
        self.graph.node("Softmax", &[Some(self)], &[("axis", Attribute::Int(-1))], output, 5.into())
    }

    /// The nearest whole number, of two the even one.
    pub fn round(self) -> Var<'g> {
        self.unary("Round", 1)
    }

    /// `low` where it is below, `high` where it is above.
    pub fn clip(self, low: f32, high: f32) -> Var<'g> {
        let [low, high] = [low, high].map(|limit| Some(self.graph.scalar(limit, self.dtype())));
        self.graph.node(
            "Clip",
            &[Some(self), low, high],
            &[],
            (self.dtype(), self.shape()),
            2.into(),
        )
    }

    /// Converts to the element type `dtype`; appends no node if the value already has it.
    pub fn cast(self, dtype: DType) -> Var<'g> {
        if self.dtype() == dtype {
            return self;
        }
        let attributes = [("to", Attribute::Int(dtype as i64))];
        self.graph.node("Cast", &[Some(self)], &attributes, (dtype, self.shape()), FREE.into())
    }

    /// `yes` where the condition `self` is true, `no` elsewhere; all three broadcast.
    #[track_caller]
    pub fn choose(self, yes: Var<'g>, no: Var<'g>) -> Var<'g> {
        assert_eq!(yes.dtype(), no.dtype(), "Where of two types");
        let shape = broadcast(&self.shape(), &broadcast(&yes.shape(), &no.shape()));
        let inputs = [Some(self), Some(yes), Some(no)];
        self.graph.node("Where", &inputs, &[], (yes.dtype(), shape), FREE.into())
    }

    /// The matrix product over the last two axes; the others broadcast.
    #[track_caller]
    pub fn matmul(self, other: Var<'g>) -> Var<'g> {
        assert_eq!(self.dtype(), other.dtype(), "MatMul of two types");
        let (a, b) = (self.shape(), other.shape());
        let ([a_batch @ .., rows, inner], [b_batch @ .., b_inner, columns]) = (&a[..], &b[..])
        else {
            panic!("MatMul of {a:?} and {b:?}");
        };
        assert_eq!(inner, b_inner, "MatMul of {a:?} and {b:?}");
        let mut shape = broadcast(a_batch, b_batch);
        shape.extend([*rows, *columns]);
        let flops = *inner * 2.into();
        self.graph.node("MatMul", &[Some(self), Some(other)], &[], (self.dtype(), shape), flops)
    }

    /// Quantizes to unsigned 8-bit integers: returns them, their scale and their zero point, which
    /// are chosen at run time for the range of the tensor.
    pub fn dynamic_quantize(self) -> [Var<'g>; 3] {
        let outputs = [(DType::U8, self.shape()), (DType::F32, vec![]), (DType::U8, vec![])];
        self.graph.nodes("", "DynamicQuantizeLinear", &[Some(self)], &[], outputs, 3.into())
    }

    /// A matrix of 8-bit integers as fp32, each column times its one of `scales`.
    pub fn dequantize(self, scales: Var<'g>) -> Var<'g> {
        let inputs = [Some(self), Some(scales)];
        let attributes = [("axis", Attribute::Int(1))];
        let output = (DType::F32, self.shape());
        self.graph.node("DequantizeLinear", &inputs, &attributes, output, FREE.into())
    }

    /// The matrix product of 8-bit integers as 32-bit integers; `zero` is the zero point of `self`.
    #[track_caller]
    pub fn matmul_integer(self, other: Var<'g>, zero: Var<'g>) -> Var<'g> {
        let (mut shape, b) = (self.shape(), other.shape());
        let inner = std::mem::replace(shape.last_mut().expect("a matrix"), b[1]);
        assert_eq!(inner, b[0], "MatMulInteger of {:?} and {b:?}", self.shape());
        let inputs = [Some(self), Some(other), Some(zero)];
        self.graph.node("MatMulInteger", &inputs, &[], (DType::I32, shape), inner * 2.into())
    }

    /// Attention with `self` as queries; queries, `k` and `v` are `[b, s, heads * d]`. It is ONNX
    /// Runtime's operator `MultiHeadAttention`.
    pub fn multi_head_attention(self, k: Var<'g>, v: Var<'g>, heads: usize, scale: f32) -> Var<'g> {
        let attributes =
            [("num_heads", Attribute::Int(heads as i64)), ("scale", Attribute::Float(scale))];
        // 2 multiply-adds per key and element of the output, and a softmax of 5 per key and head.
        let keys = k.shape()[1];
        let flops = keys * 4.into();
        let softmax = self.shape()[0] * self.shape()[1] * Dim::from(heads) * keys * 5.into();
        self.graph.add_flops(softmax);
        let inputs = [Some(self), Some(k), Some(v)];
        let outputs = [(self.dtype(), self.shape())];
        let [y] =
            self.graph.nodes(MICROSOFT, "MultiHeadAttention", &inputs, &attributes, outputs, flops);
        y
    }

    /// Rotates `[b, s, heads * d]`, pair of neighbours by pair, by the angles whose cosines and
    /// sines are `cos` and `sin`, `[s, d / 2]`. It is ONNX Runtime's operator `RotaryEmbedding`.
    pub fn rotary_embedding(self, cos: Var<'g>, sin: Var<'g>, heads: usize) -> Var<'g> {
        let attributes =
            [("interleaved", Attribute::Int(1)), ("num_heads", Attribute::Int(heads as i64))];
        let start = self.graph.list(&[0]);
        let inputs = [Some(self), Some(start), Some(cos), Some(sin)];
        let outputs = [(self.dtype(), self.shape())];
        let [y] =
            self.graph.nodes(MICROSOFT, "RotaryEmbedding", &inputs, &attributes, outputs, 3.into());
        y
    }

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
        let inputs: Vec<_> =
            std::iter::once(self).chain(others.iter().copied()).map(Some).collect();
        let attributes = [("axis", Attribute::Int(axis as i64))];
        self.graph.node("Concat", &inputs, &attributes, (self.dtype(), shape), FREE.into())
    }

    /// Joins `self` to itself along the first axis.
    pub fn twice(self) -> Var<'g> {
        let mut shape = self.shape();
        shape[0] = shape[0] * 2.into();
        let attributes = [("axis", Attribute::Int(0))];
        let output = (self.dtype(), shape);
        self.graph.node("Concat", &[Some(self), Some(self)], &attributes, output, FREE.into())
    }

    /// The two halves along the first axis.
    #[track_caller]
    pub fn halves(self) -> [Var<'g>; 2] {
        let mut shape = self.shape();
        shape[0] = shape[0].checked_div(2.into()).expect("an even size");
        let attributes = [("axis", Attribute::Int(0)), ("num_outputs", Attribute::Int(2))];
        let outputs = [(self.dtype(), shape.clone()), (self.dtype(), shape)];
        self.graph.nodes("", "Split", &[Some(self)], &attributes, outputs, FREE.into())
    }

    /// Splits `axis` into `N` pieces, which are of one size if `N` divides that of the axis. A piece is
    /// declared with the shape of the whole, since a part of a symbolic size is no [`Dim`]:
    /// [`Var::join`] makes it true again.
    pub(crate) fn split<const N: usize>(self, axis: usize) -> [Var<'g>; N] {
        let attributes =
            [("axis", Attribute::Int(axis as i64)), ("num_outputs", Attribute::Int(N as i64))];
        let pieces = std::array::from_fn(|_| (self.dtype(), self.shape()));
        self.graph.nodes("", "Split", &[Some(self)], &attributes, pieces, FREE.into())
    }

    /// Joins the pieces of [`Var::split`] along `axis`.
    pub(crate) fn join<const N: usize>(pieces: [Var<'g>; N], axis: usize) -> Var<'g> {
        let attributes = [("axis", Attribute::Int(axis as i64))];
        let whole = (pieces[0].dtype(), pieces[0].shape());
        pieces[0].graph.node("Concat", &pieces.map(Some), &attributes, whole, FREE.into())
    }

    /// The elements `start..end` of `axis`.
    pub fn slice(self, axis: usize, start: usize, end: usize) -> Var<'g> {
        let mut shape = self.shape();
        shape[axis] = (end - start).into();
        let [start, end, axis] = [start, end, axis].map(|n| Some(self.graph.list(&[n as i64])));
        let inputs = [Some(self), start, end, axis];
        self.graph.node("Slice", &inputs, &[], (self.dtype(), shape), FREE.into())
    }

    /// The elements `indices` of `axis`, which is replaced by the shape of `indices`.
    pub fn gather(self, indices: Var<'g>, axis: usize) -> Var<'g> {
        let old = self.shape();
        let shape = [&old[..axis], &indices.shape(), &old[axis + 1..]].concat();
        let attributes = [("axis", Attribute::Int(axis as i64))];
        let inputs = [Some(self), Some(indices)];
        self.graph.node("Gather", &inputs, &attributes, (self.dtype(), shape), FREE.into())
    }

    /// The mean over `axis`, which stays with the size 1.
    pub fn mean(self, axis: usize) -> Var<'g> {
        let mut shape = self.shape();
        let flops = std::mem::replace(&mut shape[axis], Dim::ONE);
        let inputs = [Some(self), Some(self.graph.list(&[axis as i64]))];
        let attributes = [("keepdims", Attribute::Int(1))];
        self.graph.node("ReduceMean", &inputs, &attributes, (self.dtype(), shape), flops)
    }

    /// Normalises over the last axis, then computes `* scale + bias`.
    pub fn layer_normalization(self, scale: Var<'g>, bias: Option<Var<'g>>, eps: f32) -> Var<'g> {
        let attributes = [("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(eps))];
        let inputs: Vec<_> = [Some(self), Some(scale)].into_iter().chain(bias.map(Some)).collect();
        let output = (self.dtype(), self.shape());
        self.graph.node("LayerNormalization", &inputs, &attributes, output, 8.into())
    }

    /// Normalises `[b, c, ...]` over all but the first two axes, then computes `* scale + bias` for
    /// each channel.
    pub fn instance_normalization(self, scale: Var<'g>, bias: Var<'g>, eps: f32) -> Var<'g> {
        let attributes = [("epsilon", Attribute::Float(eps))];
        let inputs = [Some(self), Some(scale), Some(bias)];
        let output = (self.dtype(), self.shape());
        self.graph.node("InstanceNormalization", &inputs, &attributes, output, 8.into())
    }

    /// Convolution of `[b, in, h, w]` by `[out, in, k, k]` -> `[b, out, h / stride, w / stride]`.
    /// Either `stride` is `k` and there is no padding, or `stride` is 1 and all sides are padded by
    /// `k / 2`.
    #[track_caller]
    pub fn conv(self, kernel: Var<'g>, bias: Var<'g>, stride: usize) -> Var<'g> {
        let ([batch, channels, height, width], [out, input, k, _]) = (
            self.shape()[..].try_into().expect("4 axes"),
            kernel.shape()[..].try_into().expect("4"),
        );
        let (channels, input): (Dim, Dim) = (channels, input);
        assert_eq!(channels, input, "Conv channels");
        let size = k.known().expect("kernels have known sizes");
        let pad = if stride == 1 { size / 2 } else { 0 };
        assert!(stride == size || (stride == 1 && size % 2 == 1), "stride {stride}, kernel {size}");
        let [height, width] = [height, width].map(|side: Dim| {
            side.checked_div(stride.into()).expect("the stride divides the height and width")
        });
        let repeat = |n: usize, times: usize| Attribute::Ints(vec![n as i64; times]);
        let attributes = [
            ("kernel_shape", repeat(size, 2)),
            ("strides", repeat(stride, 2)),
            ("pads", repeat(pad, 4)),
        ];
        let shape: Vec<Dim> = vec![batch, out, height, width];
        let flops = input * k * k * 2.into();
        let inputs = [Some(self), Some(kernel), Some(bias)];
        self.graph.node("Conv", &inputs, &attributes, (self.dtype(), shape), flops)
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

macro_rules! arithmetic {
    ($($name:ident $method:ident $op:literal),*) => {$(
        impl<'g> $name for Var<'g> {
            type Output = Var<'g>;
            #[track_caller]
            fn $method(self, other: Var<'g>) -> Var<'g> {
                self.binary($op, other, self.dtype())
            }
        }
        impl<'g> $name<f32> for Var<'g> {
            type Output = Var<'g>;
            #[track_caller]
            fn $method(self, other: f32) -> Var<'g> {
                let other = self.graph.scalar(other, self.dtype());
                self.binary($op, other, self.dtype())
            }
        }
    )*};
}

arithmetic!(Add add "Add", Sub sub "Sub", Mul mul "Mul", Div div "Div");

impl Graph {
    /// A constant of `n` ones.
    pub(crate) fn ones(&self, n: usize) -> Var<'_> {
        self.floats(&format!("ones.{n}"), &[n], &vec![1.0; n])
    }
}

/// The shape of the result under NumPy's rule: aligned at the last axis, sizes are equal or 1.
#[track_caller]
fn broadcast(a: &[Dim], b: &[Dim]) -> Vec<Dim> {
    let rank = a.len().max(b.len());
    let at = |shape: &[Dim], axis: usize| {
        (axis + shape.len()).checked_sub(rank).map_or(Dim::ONE, |axis| shape[axis])
    };
    (0..rank)
        .map(|axis| match (at(a, axis), at(b, axis)) {
            (x, y) if x == y || y == Dim::ONE => x,
            (Dim::ONE, y) => y,
            _ => panic!("{a:?} and {b:?} do not broadcast"),
        })
        .collect()
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
