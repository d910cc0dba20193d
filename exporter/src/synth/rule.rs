//! Weights made from their names: element `i` of a tensor is a pure function of name, `i` and seed.
//!
//! With seed 0 they are, bit for bit, those of `tests/reference/synthetic.py`, which states the
//! rule; activations stay of order one through any depth.

/// Parts of the names of embeddings and other tables.
const EMBEDDINGS: [&str; 6] = [
    "_embeddings.weight",
    "shared.weight",
    "relative_attention_bias",
    "text_embedding_padding",
    "positional_embedding",
    "style_embedder",
];

/// FNV-1a, 64 bits.
pub fn fnv1a64(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    })
}

/// 64 random bits: splitmix64's finaliser.
pub fn bits(state: u64, i: u64) -> u64 {
    let z = state.wrapping_add((i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Evenly spread values `offset - scale .. offset + scale`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle.
    pub offset: f64,
    /// Half of the width.
    pub scale: f64,
}

impl Spread {
    /// Of the weight `name` with the checkpoint's shape `dims`: norms around 1, biases around 0,
    /// matrices and kernels so that they keep the size of what they are given.
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

    /// Element `i` of the tensor with this `state`.
    pub fn value(self, state: u64, i: u64) -> f32 {
        let unit = (bits(state, i) >> 40) as f64 / (1u64 << 24) as f64;
        (self.offset + (2.0 * unit - 1.0) * self.scale) as f32
    }
}

/// The state of the tensor `name` under `seed`.
pub fn state(name: &str, seed: u64) -> u64 {
    fnv1a64(name).wrapping_add(seed.wrapping_mul(0xD1B5_4A32_D192_ED03))
}
