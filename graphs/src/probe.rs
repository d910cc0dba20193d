//! A graph that is not the model: one linear layer, to measure how fast an engine multiplies.

use crate::builder::{Graph, GraphDef};
use crate::dim::{Dim, Symbol};
use crate::target::Precision;

/// Rows and columns of the weight.
pub const WIDTH: usize = 2048;

/// `x @ weight` as a linear of a block computes it in `precision`: `x` `[b, tokens, WIDTH]` ->
/// `product`. In int8 that includes the quantization of `x`.
pub fn matmul(precision: Precision) -> GraphDef {
    let graph = Graph::new("matmul", precision);
    let tokens = Dim::from(Symbol::GridHeight) * Dim::from(Symbol::GridWidth);
    let x = graph.input("x", graph.compute(), &[Symbol::Batch.into(), tokens, WIDTH.into()]);
    graph.output("product", x.linear_no_bias(&graph.root(), "to_q", WIDTH));
    graph.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_product_is_the_one_of_a_block() {
        let operators = |precision| -> Vec<String> {
            let nodes = matmul(precision).nodes.into_iter();
            nodes.filter_map(|node| node.op_type).collect()
        };
        assert_eq!(operators(Precision::Fp32), ["MatMul"]);
        assert_eq!(operators(Precision::Fp16), ["MatMul"]);
        assert_eq!(operators(Precision::Bf16), ["MatMul"]);
        let integer = ["DynamicQuantizeLinear", "MatMulInteger", "Cast", "Mul", "Mul"];
        assert_eq!(operators(Precision::Int8), integer);
    }
}
