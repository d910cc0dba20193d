//! Slots for LoRAs: inputs of a graph that change its layers. So one graph draws with any LoRA, and
//! without one.
//!
//! A slot belongs to a layer. Its matrices are a part of two inputs that the layers of one shape
//! share, [`Stack`]: `a`, `[slots, in, rank]`, and `b`, `[slots, rank, out]`, which are `down` and
//! `up` of a LoRA, transposed. The rank is free. At rank 0 the layers are as without slots, at the
//! cost of as much: what is added has then one row.

use crate::builder::{Graph, GraphDef, Slot, Var};
use crate::config::HunyuanDitConfig;
use crate::dim::{Dim, Symbol};
use crate::hunyuan_dit::blocks_of;
use crate::moves::MANY;
use crate::tensor::{DType, TensorSpec};

/// The largest rank that slots may be made for.
pub const MAX_RANK: usize = 1024;

/// The graphs of a cut model that have slots.
pub const GRAPHS: [&str; 4] = ["conditioner", "shallow-encoder", "deep-core", "shallow-decoder"];

/// Names of the inputs of all [`Stack`]s.
const NAMES: [[&str; 2]; 2] = [["lora_a", "lora_b"], ["lora_text_a", "lora_text_b"]];

/// Layers of one shape with slots, in the order of the first axis of the two inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// Names of the inputs.
    pub names: [&'static str; 2],
    /// Number of inputs of each layer.
    pub inputs: usize,
    /// Number of outputs of each layer.
    pub outputs: usize,
    /// The layers, by their names in diffusers.
    pub modules: Vec<String>,
}

impl Stack {
    /// The two inputs, of element type `dtype`.
    pub fn specs(&self, dtype: DType) -> [TensorSpec; 2] {
        let (slots, rank) = (Dim::from(self.modules.len()), Dim::from(Symbol::Rank));
        let shapes = [[slots, self.inputs.into(), rank], [slots, rank, self.outputs.into()]];
        let [a, b] = self.names;
        [(a, shapes[0]), (b, shapes[1])].map(|(name, shape)| TensorSpec {
            name: name.to_string(),
            dtype,
            shape: shape.to_vec(),
        })
    }
}

/// The slots of the graph `graph` of a model that is cut at `n`: those layers that Tencent's own
/// training changes, which are the attention of the blocks and the queries of the pooler. None, for
/// graphs that are not of the transformer.
pub fn stacks(graph: &str, cfg: &HunyuanDitConfig, n: usize) -> Vec<Stack> {
    if graph == "conditioner" {
        return vec![Stack {
            names: NAMES[0],
            inputs: cfg.cross_attention_dim_t5,
            outputs: cfg.cross_attention_dim_t5,
            modules: vec!["time_extra_emb.pooler.q_proj".to_string()],
        }];
    }
    let range = blocks_of(graph, cfg, n);
    if range.is_empty() {
        return Vec::new();
    }
    let layers = |names: &[&str]| {
        let of_block = |block| names.iter().map(move |name| format!("blocks.{block}.{name}"));
        range.clone().flat_map(of_block).collect()
    };
    let hidden = cfg.hidden_size;
    vec![
        Stack {
            names: NAMES[0],
            inputs: hidden,
            outputs: hidden,
            modules: layers(&[
                "attn1.to_q",
                "attn1.to_k",
                "attn1.to_v",
                "attn1.to_out.0",
                "attn2.to_q",
                "attn2.to_out.0",
            ]),
        },
        Stack {
            names: NAMES[1],
            inputs: cfg.cross_attention_dim,
            outputs: hidden,
            modules: layers(&["attn2.to_k", "attn2.to_v"]),
        },
    ]
}

impl GraphDef {
    /// The inputs that are slots, those of its [`stacks`].
    pub fn slots(&self) -> impl Iterator<Item = &TensorSpec> {
        self.inputs.iter().filter(|input| is_slot(&input.name))
    }
}

/// Whether an input of a graph of the transformer that is called `name` is a slot.
pub fn is_slot(name: &str) -> bool {
    NAMES.iter().flatten().any(|slot| *slot == name)
}

impl Graph {
    /// Declares the inputs of `stacks`. From now on a linear layer that has a slot in one adds the
    /// slot's change.
    pub(crate) fn declare_slots(&self, stacks: &[Stack]) {
        for stack in stacks {
            let specs = stack.specs(self.compute());
            let [a, b] = specs.map(|spec| self.input(&spec.name, spec.dtype, &spec.shape));
            // All rows of what a change makes, or one if the rank is 0.
            let rows = a.size(2) * self.list(&[MANY]) + self.list(&[1]);
            for (index, module) in stack.modules.iter().enumerate() {
                self.add_slot(module.clone(), Slot::new(index, a, b, rows));
            }
        }
    }
}

impl<'g> Var<'g> {
    /// What `slot` adds to a layer that reads `self`, `[b, s, in]`: `self @ a @ b`, `[b, s, out]`;
    /// at rank 0 zeros of one row, `[b, 1, out]`.
    pub(crate) fn change(self, slot: Slot) -> Var<'g> {
        let [index, a, b, rows] = slot.parts(self.graph);
        let low = self.cast(a.dtype()).matmul(a.gather(index, 0));
        low.first(1, rows).matmul(b.gather(index, 0))
    }
}
