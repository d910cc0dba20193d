//! Perturbed-attention guidance (arXiv 2403.17377): blocks whose self-attention a row of the batch
//! may leave out. The picture is then drawn away from what such rows predict.
//!
//! Follows `PAGCFGHunyuanAttnProcessor2_0` of diffusers: in a perturbed row every token attends to
//! itself alone, so that what the attention gives are its values.

use crate::config::HunyuanDitConfig;
use crate::hunyuan_dit::blocks_of;

/// The input `[b]` of a graph with such blocks: 1 for a row that is perturbed, 0 for the others.
pub const INPUT: &str = "perturb";

/// The most blocks that a transformer has.
const MOST: usize = 256;

/// A set of blocks, counted from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PagLayers([u64; MOST / 64]);

impl PagLayers {
    /// The set of `blocks`.
    ///
    /// # Panics
    /// When a block is beyond those of any transformer.
    #[track_caller]
    pub fn new(blocks: &[usize]) -> PagLayers {
        let mut layers = PagLayers::default();
        for block in blocks {
            layers.0[block / 64] |= 1 << (block % 64);
        }
        layers
    }

    /// Whether `block` is in the set.
    pub fn contains(self, block: usize) -> bool {
        self.0[block / 64] >> (block % 64) & 1 == 1
    }

    /// Whether the graph `graph` of a transformer that is cut at `n` has blocks of the set, and so
    /// the input [`INPUT`].
    pub fn is_read_by(self, graph: &str, cfg: &HunyuanDitConfig, n: usize) -> bool {
        blocks_of(graph, cfg, n).any(|block| self.contains(block))
    }
}

/// Checks that `blocks` are some of a transformer with `depth` of them, each once, ascending.
///
/// # Errors
/// What is expected.
pub fn check(blocks: &[usize], depth: usize) -> Result<(), String> {
    if blocks.is_sorted_by(|a, b| a < b) && blocks.iter().all(|block| *block < depth) {
        return Ok(());
    }
    Err(format!("blocks from 0 to {}, each once and in ascending order", depth - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_its_blocks_and_no_others() {
        let layers = PagLayers::new(&[0, 63, 64, 255]);
        let found: Vec<usize> = (0..MOST).filter(|&block| layers.contains(block)).collect();
        assert_eq!(found, [0, 63, 64, 255]);
    }

    #[test]
    fn blocks_are_ascending_and_within_the_depth() {
        for blocks in [&[][..], &[0], &[3, 7, 11]] {
            assert_eq!(check(blocks, 12), Ok(()), "{blocks:?}");
        }
        for blocks in [&[12][..], &[3, 3], &[7, 3]] {
            let refused = check(blocks, 12).expect_err("a refusal");
            assert!(refused.contains("from 0 to 11, each once"), "{refused}");
        }
    }
}
