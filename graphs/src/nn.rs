//! Layers that read weights. All numerics are here: which parts stay in fp32 when the graph
//! computes in 16 bits, how weights are stored, which operators attention consists of.

use crate::builder::{Graph, Var, Weights};
use crate::options::{Precision, Target};
use crate::tensor::DType;

/// The linear layers of a block that are 8-bit in int8 and fp8 graphs. What stays in more bits is
/// small (embedders, the shift of `norm1`, the final layer) or reads a single row.
const QUANTIZED: [&str; 9] = [
    "to_q",
    "to_k",
    "to_v",
    "to_k_ip",
    "to_v_ip",
    "to_out.0",
    "ff.net.0.proj",
    "ff.net.2",
    "skip_linear",
];

/// Linear layers and tables of the encoders of prompts that are stored in fewer bits in an int8 graph, and
/// computed with in fp32. They are the larger half of the released models and run once per prompt.
/// Their activations have outliers, which a scale per tensor would not survive.
const STORED: [&str; 22] = [
    "shared",
    "q",
    "k",
    "v",
    "o",
    "wi",
    "wi_0",
    "wi_1",
    "wo",
    "word_embeddings",
    "query",
    "key",
    "value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.out_proj",
    "mlp.fc1",
    "mlp.fc2",
];

impl<'g> Var<'g> {
    /// `torch.nn.Linear`: `x @ weight^T + bias`, and the change of the layer's slot if it has one.
    #[track_caller]
    pub fn linear(self, w: &Weights<'g>, name: &str, out: usize) -> Var<'g> {
        let compute = self.graph.compute();
        let bias = w.pp(name).tensor("bias", &[out], compute);
        let product = self.linear_no_bias(w, name, out);
        match w.slot(name) {
            Some(slot) => {
                let _scope = w.pp(name).enter();
                product + (self.change(slot) + bias)
            }
            None => product + bias,
        }
    }

    /// `torch.nn.Linear(bias=False)`.
    #[track_caller]
    pub fn linear_no_bias(self, w: &Weights<'g>, name: &str, out: usize) -> Var<'g> {
        let _scope = w.pp(name).enter();
        let shape = [out, self.width()];
        match self.graph.options().precision {
            Precision::Int8 if QUANTIZED.contains(&name) => {
                return self.quantized_matmul(&w.pp(name), shape);
            }
            Precision::Fp8 if QUANTIZED.contains(&name) => {
                return self.narrow_matmul(&w.pp(name), shape);
            }
            _ => {}
        }
        let compute = self.graph.compute();
        self.cast(compute).matmul(w.matrix(name, shape, compute))
    }

    /// [`Var::linear_no_bias`] in fp32, whatever the graph computes in.
    #[track_caller]
    pub fn linear_in_fp32(self, w: &Weights<'g>, name: &str, out: usize) -> Var<'g> {
        let _scope = w.pp(name).enter();
        self.cast(DType::F32).matmul(w.matrix(name, [out, self.width()], DType::F32))
    }

    /// The matrix product in 8-bit integers: activations are quantized at run time (once for all
    /// products that read them), weights by output channel.
    fn quantized_matmul(self, w: &Weights<'g>, shape: [usize; 2]) -> Var<'g> {
        let (weight, weight_scale) = w.quantized("weight", shape);
        let [x, scale, zero] =
            self.graph.quantize_once(self.cast(DType::F32), Var::dynamic_quantize);
        let product = x.matmul_integer(weight, zero).cast(DType::F32);
        product * (scale * weight_scale)
    }

    /// The matrix product of 8-bit floats, as TensorRT finds it: both operands are quantized and at
    /// once dequantized to fp16. Activations have the scale 1, whatever their range: a float has
    /// its digits at any scale, so there is nothing to calibrate.
    fn narrow_matmul(self, w: &Weights<'g>, shape: [usize; 2]) -> Var<'g> {
        let (weight, weight_scale) = w.narrowed("weight", shape);
        let compute = self.graph.compute();
        let [x, scale, _] = self.graph.quantize_once(self.cast(compute), Var::narrow);
        x.dequantize(scale).matmul(weight.dequantize(weight_scale))
    }

    /// `torch.nn.LayerNorm` over the last axis, computed in fp32.
    pub fn layer_norm(self, w: &Weights<'g>, name: &str, eps: f32) -> Var<'g> {
        let _scope = w.pp(name).enter();
        let (w, width) = (w.pp(name), self.width());
        let weight = w.tensor("weight", &[width], DType::F32);
        let bias = w.tensor("bias", &[width], DType::F32);
        self.cast(DType::F32).layer_normalization(weight, Some(bias), eps).cast(self.dtype())
    }

    /// [`Var::layer_norm`] without weights.
    pub fn plain_layer_norm(self, eps: f32) -> Var<'g> {
        let ones = self.graph.ones(self.width());
        self.cast(DType::F32).layer_normalization(ones, None, eps).cast(self.dtype())
    }

    /// `T5LayerNorm`: divides by the root mean square of the last axis, in fp32.
    pub fn rms_norm(self, w: &Weights<'g>, name: &str, eps: f32) -> Var<'g> {
        let _scope = w.pp(name).enter();
        let x = self.cast(DType::F32);
        let weight = w.pp(name).tensor("weight", &[self.width()], DType::F32);
        (x / ((x * x).mean(self.rank() - 1) + eps).sqrt() * weight).cast(self.dtype())
    }

    /// `torch.nn.GroupNorm` of `[b, c, ...]`, computed in fp32. It consists of
    /// `InstanceNormalization`, which every engine runs fast and TensorRT knows.
    pub fn group_norm(self, w: &Weights<'g>, name: &str, groups: usize, eps: f32) -> Var<'g> {
        let _scope = w.pp(name).enter();
        let graph = self.graph;
        let channels = self.shape()[1].known().expect("channels are known");
        let zeros = graph.floats(&format!("zeros.{groups}"), &[groups], &vec![0.0; groups]);
        let normalised = self
            .cast(DType::F32)
            .reshape([0, groups as i64, -1])
            .instance_normalization(graph.ones(groups), zeros, eps)
            .reshape_like(self);
        let w = w.pp(name);
        let [weight, bias] = ["weight", "bias"].map(|name| {
            let weight = w.tensor(name, &[channels], DType::F32);
            if self.rank() == 3 { weight.unsqueeze([1]) } else { weight.unsqueeze([1, 2]) }
        });
        (normalised * weight + bias).cast(self.dtype())
    }

    /// `torch.nn.Conv2d` with a square kernel; see [`Var::conv`] for stride and padding. It is
    /// computed in the precision [`Precision::for_convolutions`].
    #[track_caller]
    pub fn conv2d(
        self,
        w: &Weights<'g>,
        name: &str,
        out: usize,
        kernel: usize,
        stride: usize,
    ) -> Var<'g> {
        self.convolved(w, name, [out, kernel, stride], |w, wide| w.tensor("bias", &[out], wide))
    }

    /// [`Var::conv2d`] without a bias.
    #[track_caller]
    pub fn conv2d_no_bias(
        self,
        w: &Weights<'g>,
        name: &str,
        out: usize,
        kernel: usize,
        stride: usize,
    ) -> Var<'g> {
        self.convolved(w, name, [out, kernel, stride], |w, wide| {
            w.graph.floats(&format!("zeros.{out}"), &[out], &vec![0.0; out]).cast(wide)
        })
    }

    #[track_caller]
    fn convolved(
        self,
        w: &Weights<'g>,
        name: &str,
        [out, kernel, stride]: [usize; 3],
        bias: impl FnOnce(&Weights<'g>, DType) -> Var<'g>,
    ) -> Var<'g> {
        let w = w.pp(name);
        let _scope = w.enter();
        let wide = self.graph.options().precision.for_convolutions().compute();
        let channels = self.shape()[1].known().expect("channels are known");
        let weight = w.tensor("weight", &[out, channels, kernel, kernel], wide);
        let bias = bias(&w, wide);
        self.cast(wide).conv(weight, bias, stride).cast(self.graph.compute())
    }

    /// `torch.nn.Embedding`: the rows of a weight `[rows, width]` that the integers `self` name.
    pub fn embedding(self, w: &Weights<'g>, name: &str, rows: usize, width: usize) -> Var<'g> {
        let _scope = w.pp(name).enter();
        let compute = self.graph.compute();
        let stored = if self.graph.stores(name) { DType::F16 } else { compute };
        w.pp(name).tensor("weight", &[rows, width], stored).gather(self, 0).cast(compute)
    }

    /// SiLU, `x * sigmoid(x)`, in fp32 as in both references of Hunyuan-DiT.
    pub fn silu(self) -> Var<'g> {
        let x = self.cast(DType::F32);
        (x * x.sigmoid()).cast(self.dtype())
    }

    /// Separates the heads: `[b, s, heads * d]` -> `[b, heads, s, d]`, or `[b, s, heads, d]` where
    /// attention is one operator. Only [`Var::attend`] and the rotary embedding depend on the
    /// order.
    pub fn split_heads(self, heads: usize) -> Var<'g> {
        let split = self.reshape([0, 0, heads as i64, (self.width() / heads) as i64]);
        if fused(self) { split } else { split.transpose([0, 2, 1, 3]) }
    }

    /// Reverses [`Var::split_heads`]: `[b, s, heads * d]`.
    pub fn join_heads(self) -> Var<'g> {
        let split = if fused(self) { self } else { self.transpose([0, 2, 1, 3]) };
        let heads = split.shape()[2].known().expect("the number of heads is known");
        split.reshape([0, 0, (heads * self.width()) as i64])
    }

    /// The first `count` queries of what [`Var::split_heads`] has made, for a `count` `[1]` that is
    /// computed: all, or the first alone. They are declared as all.
    pub(crate) fn first_queries(self, count: Var<'g>) -> Var<'g> {
        self.first(if fused(self) { 1 } else { 2 }, count)
    }

    /// Attention, `softmax(scale * q @ k^T + bias) @ v` with `q = self`, in the element type of
    /// `v`. All three come from [`Var::split_heads`].
    ///
    /// Scores and softmax are fp32, since the scores of Hunyuan-DiT v1.2 overflow in fp16. For
    /// TensorRT scores have the element type of `v`, of queries that are scaled already: it makes
    /// one kernel of attention that is written so, and three of one with scores in fp32. Where
    /// attention is one operator, all three have the element type of `v` too, and the kernels of
    /// CUDA sum up the scores in fp32.
    ///
    /// # Panics
    /// If there is a `bias` and attention is one operator.
    #[track_caller]
    pub fn attend(self, k: Var<'g>, v: Var<'g>, scale: f32, bias: Option<Var<'g>>) -> Var<'g> {
        if fused(self) {
            assert!(bias.is_none(), "fused attention has no bias here");
            let heads = self.shape()[2].known().expect("the number of heads is known");
            let [q, k, v] = [self, k, v].map(|x| x.cast(v.dtype()).join_heads());
            return q.multi_head_attention(k, v, heads, scale).split_heads(heads);
        }
        let narrow = self.graph.options().target == Target::TensorRt;
        let dtype = if narrow { v.dtype() } else { DType::F32 };
        let (q, keys) = (self.scaled(scale).cast(dtype), k.cast(dtype).transpose([0, 1, 3, 2]));
        let scores = q.matmul(keys).cast(DType::F32);
        let scores = bias.map_or(scores, |bias| scores + bias);
        scores.softmax().cast(v.dtype()).matmul(v)
    }

    /// [`Var::attend`] for a number of queries that is a multiple of 4, a quarter of them at a time
    /// where attention consists of several operators: the scores of all would be the largest tensor
    /// by far. The numbers are the same.
    pub fn attend_by_quarters(self, k: Var<'g>, v: Var<'g>, scale: f32) -> Var<'g> {
        if fused(self) {
            return self.attend(k, v, scale, None);
        }
        let keys = k.cast(DType::F32).transpose([0, 1, 3, 2]);
        let attend = |q: Var<'g>| q.matmul(keys).softmax().cast(v.dtype()).matmul(v);
        let [first, rest @ ..] = self.scaled(scale).split::<4>(2);
        // A quarter has the declared shape of the whole, so the first counts the cost of all four.
        let first = attend(first);
        let [second, third, fourth] = self.graph.at_no_cost(|| rest.map(attend));
        Var::join([first, second, third, fourth], 2)
    }

    /// Queries in fp32, times `scale`.
    fn scaled(self, scale: f32) -> Var<'g> {
        let q = self.cast(DType::F32);
        if scale == 1.0 { q } else { q * scale }
    }
}

impl Graph {
    /// Whether the weight of the layer `name` is stored in fewer bits than it is computed with.
    fn stores(&self, name: &str) -> bool {
        self.options().precision == Precision::Int8 && STORED.contains(&name)
    }
}

impl<'g> Weights<'g> {
    /// The weight of the linear layer `name`, of shape `[out, in]`, as `[in, out]`.
    #[track_caller]
    fn matrix(&self, name: &str, shape: [usize; 2], dtype: DType) -> Var<'g> {
        if !self.graph.stores(name) {
            return self.pp(name).transposed("weight", shape, dtype);
        }
        let (weight, scales) = self.pp(name).quantized("weight", shape);
        weight.dequantize(scales).cast(dtype)
    }
}

/// Whether attention is one operator in the graph of `var`.
fn fused(var: Var<'_>) -> bool {
    var.graph.options().target.has_fused_attention()
}

/// The 2-D rotary position embedding, interleaved: pairs `(2i, 2i + 1)` turn by the same angle.
/// Follows `apply_rotary_emb` of diffusers (`use_real=True`).
#[derive(Clone, Copy)]
pub enum Rope<'g> {
    /// Standard operators.
    Standard {
        /// Cosines `[s, d]`.
        cos: Var<'g>,
        /// Sines `[s, d]`, negated at even places.
        sin: Var<'g>,
        /// Indices `1, 0, 3, 2, ...` that swap neighbours.
        swap: Var<'g>,
    },
    /// One operator, which takes each angle once.
    Fused {
        /// Cosines `[s, d / 2]`.
        cos: Var<'g>,
        /// Sines `[s, d / 2]`.
        sin: Var<'g>,
    },
}

impl<'g> Rope<'g> {
    /// Reads the tables `cos` and `sin`, `[rows, columns, d]` in fp32.
    pub fn new(cos: Var<'g>, sin: Var<'g>) -> Rope<'g> {
        let (d, graph) = (cos.width(), cos.graph);
        let flat = |table: Var<'g>| table.reshape([-1, d as i64]);
        if fused(cos) {
            let evens: Vec<i64> = (0..d as i64 / 2).map(|i| 2 * i).collect();
            let evens = graph.ints("rope.evens", &[d / 2], &evens);
            let [cos, sin] = [cos, sin].map(|table| flat(table).gather(evens, 1));
            return Rope::Fused { cos, sin };
        }
        let signs: Vec<f32> = (0..d).map(|i| if i % 2 == 0 { -1.0 } else { 1.0 }).collect();
        let swapped: Vec<i64> = (0..d as i64).map(|i| i ^ 1).collect();
        Rope::Standard {
            cos: flat(cos),
            sin: flat(sin) * graph.floats("rope.signs", &[d], &signs),
            swap: graph.ints("rope.swap", &[d], &swapped),
        }
    }

    /// Rotates `x`, which comes from [`Var::split_heads`], in fp32:
    /// `x * cos + (-x1, x0, -x3, x2, ...) * sin`.
    pub fn rotate(&self, x: Var<'g>) -> Var<'g> {
        match *self {
            Rope::Standard { cos, sin, swap } => {
                let wide = x.cast(DType::F32);
                (wide * cos + wide.gather(swap, 3) * sin).cast(x.dtype())
            }
            Rope::Fused { cos, sin } => {
                let heads = x.shape()[2].known().expect("the number of heads is known");
                x.join_heads().rotary_embedding(cos, sin, heads).split_heads(heads)
            }
        }
    }
}
