//! ONNX operators on [`Var`], each with its shape rule and its cost.
//!
//! Costs count every node: 2 per multiply-add of a matrix product or convolution, otherwise the
//! arithmetic of one element (an addition 1, an exponential 1, a softmax 5, a layer norm 8, ...);
//! moving and casting is free. From the costs follows the speed-up that skipping a graph allows.

use std::ops::{Add, Div, Mul, Sub};

use crate::builder::{Attribute, Graph, Var};
use crate::dim::Dim;
use crate::tensor::DType;

/// The cost of moving and of casting.
pub(crate) const FREE: usize = 0;

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

    /// The sum with `other`, each of whose axes has at run time as many elements as that of `self`,
    /// or one.
    #[track_caller]
    pub fn plus_spread(self, other: Var<'g>) -> Var<'g> {
        assert_eq!(self.dtype(), other.dtype(), "Add of two types");
        assert_eq!(self.rank(), other.rank(), "Add of two ranks");
        let output = (self.dtype(), self.shape());
        self.graph.node("Add", &[Some(self), Some(other)], &[], output, Dim::ONE)
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

    /// The exponential function.
    pub fn exp(self) -> Var<'g> {
        self.unary("Exp", 1)
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

    /// Rounds fp16 to 8-bit floats, the largest of which stands for all that is beyond: returns
    /// them, their scale and their zero point.
    pub fn narrow(self) -> [Var<'g>; 3] {
        let [scale, zero] = self.graph.narrow_scale();
        let inputs = [Some(self), Some(scale), Some(zero)];
        let output = (DType::F8E4M3FN, self.shape());
        [self.graph.node("QuantizeLinear", &inputs, &[], output, 1.into()), scale, zero]
    }

    /// A tensor of 8 bits in the element type of `scales`, times their one number, or a matrix with
    /// each column times its one of them.
    pub fn dequantize(self, scales: Var<'g>) -> Var<'g> {
        let inputs = [Some(self), Some(scales)];
        let by_column = [("axis", Attribute::Int(1))];
        let attributes = if scales.rank() == 0 { &[][..] } else { &by_column };
        let output = (scales.dtype(), self.shape());
        self.graph.node("DequantizeLinear", &inputs, attributes, output, FREE.into())
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
    /// Height and width are padded by `k - stride`, of which the smaller half comes before: all
    /// sides alike with `stride` 1 and an odd `k`, none with `stride` `k`, and right and bottom alone
    /// where an image is halved by `k` 3, as `Downsample2D` of diffusers does.
    #[track_caller]
    pub fn conv(self, kernel: Var<'g>, bias: Var<'g>, stride: usize) -> Var<'g> {
        let ([batch, channels, height, width], [out, input, k, _]) = (
            self.shape()[..].try_into().expect("4 axes"),
            kernel.shape()[..].try_into().expect("4"),
        );
        let (channels, input): (Dim, Dim) = (channels, input);
        assert_eq!(channels, input, "Conv channels");
        let size = k.known().expect("kernels have known sizes");
        let padding = size.checked_sub(stride).expect("the stride is at most the kernel's size");
        let (before, after) = ((padding / 2) as i64, padding.div_ceil(2) as i64);
        let [height, width] = [height, width].map(|side: Dim| {
            side.checked_div(stride.into()).expect("the stride divides the height and width")
        });
        let repeat = |n: usize, times: usize| Attribute::Ints(vec![n as i64; times]);
        let attributes = [
            ("kernel_shape", repeat(size, 2)),
            ("strides", repeat(stride, 2)),
            ("pads", Attribute::Ints(vec![before, before, after, after])),
        ];
        let shape: Vec<Dim> = vec![batch, out, height, width];
        let flops = input * k * k * 2.into();
        let inputs = [Some(self), Some(kernel), Some(bias)];
        self.graph.node("Conv", &inputs, &attributes, (self.dtype(), shape), flops)
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
