//! The rule for made-up weights: element `i` of a tensor is a pure function of the tensor's name,
//! `i` and the seed.
//!
//! With seed 0 they are bit for bit those of `tests/reference/synthetic.py`, which states the rule.
//! Activations stay of order one through any number of blocks.

/// Parts of the names of embeddings and other tables, whose values have the scale 1.
const EMBEDDINGS: [&str; 6] = [
    "_embeddings.weight",
    "shared.weight",
    "relative_attention_bias",
    "text_embedding_padding",
    "positional_embedding",
    "style_embedder",
];

/// The 64-bit FNV-1a hash of a name.
pub fn fnv1a64(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    })
}

/// The 64 random bits of element `i`, by the finalizer of splitmix64.
pub fn bits(state: u64, i: u64) -> u64 {
    let z = state.wrapping_add((i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The uniform distribution from `offset - scale` to `offset + scale`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Middle of the range.
    pub offset: f64,
    /// Half of the width of the range.
    pub scale: f64,
}

impl Spread {
    /// The distribution of the weight `name` with the checkpoint's shape `dims`: norms are around
    /// 1, biases around 0, and matrices and kernels keep the scale of their input.
    pub fn of_weight(name: &str, dims: &[usize]) -> Spread {
        if EMBEDDINGS.iter().any(|part| name.contains(part)) {
            return Spread { offset: 0.0, scale: 1.0 };
        }
        if dims.len() == 1 {
            let offset = if name.ends_with(".weight") { 1.0 } else { 0.0 };
            return Spread { offset, scale: 0.1 };
        }
        let fan_in = dims.iter().skip(1).product::<usize>().max(1);
        Spread { offset: 0.0, scale: (3.0 / fan_in as f64).sqrt() }
    }

    /// The value of element `i` of the tensor with the state `state`.
    pub fn value(self, state: u64, i: u64) -> f32 {
        let unit = (bits(state, i) >> 40) as f64 / (1u64 << 24) as f64;
        (self.offset + (2.0 * unit - 1.0) * self.scale) as f32
    }
}

/// The state from which the elements of the tensor `name` are drawn. Copies of an embedder, which
/// diffusers' DiT has in every block, have the same.
pub fn state(name: &str, seed: u64) -> u64 {
    let name = name.find("norm1.emb.").map_or(name, |copied| &name[copied..]);
    fnv1a64(name).wrapping_add(seed.wrapping_mul(0xD1B5_4A32_D192_ED03))
}
