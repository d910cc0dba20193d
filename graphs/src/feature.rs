//! Graphs that are not the model: arithmetic on image tokens, for cache policies.
//!
//! They run on the engine that holds the tensors, so that none of them travels to the host; for tensors in
//! the host's memory a loop is quicker.

use crate::builder::{Graph, GraphDef, Var};
use crate::dim::{Dim, Symbol};
use crate::target::Precision;
use crate::tensor::DType;

/// `deep_0 * weight_0 + deep_1 * weight_1 + ...`: `terms` tensors `[b, tokens, hidden]` and as many
/// numbers `[1]` -> `deep`, computed in fp32.
pub fn blend(precision: Precision, hidden: usize, terms: usize) -> GraphDef {
    let graph = Graph::new("blend", precision);
    let term = |i: usize| {
        let deep = tokens(&graph, &format!("deep_{i}"), hidden);
        deep.cast(DType::F32) * graph.input(&format!("weight_{i}"), DType::F32, &[1.into()])
    };
    let sum = (1..terms).fold(term(0), |sum, i| sum + term(i));
    graph.output("deep", sum.cast(graph.compute()));
    graph.finish()
}

/// How far `now` is from `before`, both `[b, tokens, hidden]`: root mean square of the difference
/// over that of `before` -> `change` `[1, 1, 1]`.
pub fn change(precision: Precision, hidden: usize) -> GraphDef {
    let graph = Graph::new("change", precision);
    let input = |name| tokens(&graph, name, hidden).cast(DType::F32);
    let (now, before) = (input("now"), input("before"));
    graph.output("change", (mean_square(now - before) / mean_square(before)).sqrt());
    graph.finish()
}

fn mean_square<'g>(x: Var<'g>) -> Var<'g> {
    (0..3).rev().fold(x * x, |x, axis| x.mean(axis))
}

fn tokens<'g>(graph: &'g Graph, name: &str, hidden: usize) -> Var<'g> {
    let tokens = Dim::from(Symbol::GridHeight) * Dim::from(Symbol::GridWidth);
    graph.input(name, graph.compute(), &[Symbol::Batch.into(), tokens, hidden.into()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blend_has_a_product_for_each_term() {
        let graph = blend(Precision::Fp16, 8, 3);
        let count = |op: &str| {
            graph.nodes.iter().filter(|node| node.op_type.as_deref() == Some(op)).count()
        };
        assert_eq!((count("Mul"), count("Add"), count("Cast")), (3, 2, 4));
        assert_eq!(graph.inputs.len(), 6);
        assert_eq!(graph.outputs[0].dtype, DType::F16);
    }

    #[test]
    fn a_change_is_one_number_in_fp32() {
        for precision in Precision::ALL {
            let output = &change(precision, 8).outputs[0];
            assert_eq!((output.dtype, &output.shape[..]), (DType::F32, &[Dim::ONE; 3][..]));
        }
    }
}
