//! Small graphs that are not the model: arithmetic on image tokens for cache policies, rows put
//! together and taken apart for batches, and a matrix product to measure an engine with.
//!
//! They run on the engine that holds the tensors, so that no tensor travels to the host. For
//! tensors in the memory of the host, a loop is faster.

use crate::builder::{Graph, GraphDef, Var};
use crate::dim::{Dim, Symbol};
use crate::options::Precision;
use crate::tensor::DType;

/// Rows and columns of the weight of [`matmul`].
pub const MATMUL_WIDTH: usize = 2048;

/// Multiplies a matrix by a weight as a linear layer of a block does in `precision`; in int8 and
/// fp8 that includes the quantization of `x`.
///
/// Input: `x` `[b, tokens, MATMUL_WIDTH]`. Output: `product`, of the same shape. The weight is
/// called `to_q.weight`.
pub fn matmul(precision: Precision) -> GraphDef {
    let graph = Graph::new("matmul", precision);
    let shape = [Symbol::Batch.into(), Dim::tokens(), MATMUL_WIDTH.into()];
    let x = graph.input("x", graph.compute(), &shape);
    graph.output("product", x.linear_no_bias(&graph.root(), "to_q", MATMUL_WIDTH));
    graph.finish()
}

/// Computes `deep_0 * weight_0 + deep_1 * weight_1 + ...`, all in fp32.
///
/// Inputs: `terms` tensors `deep_i` `[b, tokens, hidden]` and as many numbers `weight_i` `[1]`.
/// Output: `deep` `[b, tokens, hidden]`.
pub fn blend(hidden: usize, terms: usize) -> GraphDef {
    let graph = Graph::new("blend", Precision::Fp32);
    let term = |i: usize| {
        let deep = tokens_input(&graph, &format!("deep_{i}"), hidden);
        (deep, graph.input(&format!("weight_{i}"), DType::F32, &[1.into()]))
    };
    graph.output("deep", weighted_sum((0..terms).map(term)));
    graph.finish()
}

/// The sum of some values, each times its weight.
pub(crate) fn weighted_sum<'g>(terms: impl Iterator<Item = (Var<'g>, Var<'g>)>) -> Var<'g> {
    let products = terms.map(|(value, weight)| value * weight);
    products.reduce(|sum, product| sum + product).expect("at least one")
}

/// Computes `deep + (now - before) · down · up`, all in fp32.
///
/// Inputs: `deep`, `now` and `before` `[b, tokens, hidden]`, `down` `[hidden, rank]` and `up`
/// `[rank, hidden]`. Output: `corrected` `[b, tokens, hidden]`.
pub fn correct(hidden: usize, rank: usize) -> GraphDef {
    let graph = Graph::new("correct", Precision::Fp32);
    let [deep, now, before] =
        ["deep", "now", "before"].map(|name| tokens_input(&graph, name, hidden));
    let down = graph.input("down", DType::F32, &[hidden.into(), rank.into()]);
    let up = graph.input("up", DType::F32, &[rank.into(), hidden.into()]);
    graph.output("corrected", corrected(deep, now, before, [down, up]));
    graph.finish()
}

/// `deep`, moved by how `now` is apart from `before`.
pub(crate) fn corrected<'g>(
    deep: Var<'g>,
    now: Var<'g>,
    before: Var<'g>,
    [down, up]: [Var<'g>; 2],
) -> Var<'g> {
    deep + (now - before).matmul(down).matmul(up)
}

/// What is added to a divisor that may be 0.
pub const NEXT_TO_NOTHING: f32 = 1e-20;

/// Computes where `deep` would be, had it moved on the line through `deep_before` as `now` has moved
/// from `before` on the line through `earlier`.
///
/// With `a = earlier - before` and `b = now - before` of a row, the way on that line is
/// `(a b) / (a a)` of `a`. Where `a` and `b` have one direction the whole way is taken, where they
/// are 30 degrees apart or more nothing: `4 cos² - 3` of the angle between them. All are fp32.
///
/// Inputs: `deep`, `deep_before`, `now`, `before` and `earlier`, `[b, tokens, hidden]` each. Output:
/// `aligned`, of the same shape.
pub fn align(hidden: usize) -> GraphDef {
    let graph = Graph::new("align", Precision::Fp32);
    let [deep, deep_before, now, before, earlier] =
        ["deep", "deep_before", "now", "before", "earlier"]
            .map(|name| tokens_input(&graph, name, hidden));
    let (a, b) = (earlier - before, now - before);
    let [line, way, both] = [a * a, b * b, a * b].map(|x| x.mean(2).mean(1));
    let agree = both * both / (line * way + NEXT_TO_NOTHING);
    let share = both / (line + NEXT_TO_NOTHING) * (agree * 4.0 + -3.0).clip(0.0, 1.0);
    graph.output("aligned", deep + share * (deep_before - deep));
    graph.finish()
}

/// Computes how far `now` is from `before`, relative to `before`: the root mean square of the
/// difference divided by the root mean square of `before`.
///
/// Inputs: `now` and `before` `[b, tokens, hidden]`. Output: `distance` `[1, 1, 1]`. All are fp32.
pub fn distance(hidden: usize) -> GraphDef {
    let graph = Graph::new("distance", Precision::Fp32);
    let [now, before] = ["now", "before"].map(|name| tokens_input(&graph, name, hidden));
    graph.output("distance", (mean_square(now - before) / mean_square(before)).sqrt());
    graph.finish()
}

/// The most axes of the tensors of [`stack`] and [`rows`].
pub const MAX_AXES: usize = 4;

/// Puts `parts` tensors with `axes` axes, 1 to [`MAX_AXES`], one after the other along the first.
///
/// Inputs: `part_0`, `part_1` and so on, alike but in their first axis. Output: `stacked`.
pub fn stack(dtype: DType, axes: usize, parts: usize) -> GraphDef {
    let graph = Graph::new("stack", Precision::Fp32);
    let part = |i: usize| graph.input(&format!("part_{i}"), dtype, &free_axes(axes));
    let parts: Vec<Var> = (0..parts).map(part).collect();
    graph.output("stacked", Var::stack(&parts));
    graph.finish()
}

/// Takes some rows of a tensor with `axes` axes, 1 to [`MAX_AXES`].
///
/// Inputs: `all`, and the numbers `start` and `end`, both `[1]`.
/// Output: `rows`, of the same axes but the first, which has those from `start` to before `end`.
pub fn rows(dtype: DType, axes: usize) -> GraphDef {
    let graph = Graph::new("rows", Precision::Fp32);
    let all = graph.input("all", dtype, &free_axes(axes));
    let [start, end] = ["start", "end"].map(|name| graph.input(name, DType::I64, &[1.into()]));
    graph.output("rows", all.between(0, start, end));
    graph.finish()
}

/// Gives a number. Input: none. Output: `one` `[1]`, fp32.
pub fn one() -> GraphDef {
    let graph = Graph::new("one", Precision::Fp32);
    let number = graph.floats("number", &[1], &[1.0]);
    graph.output("one", number * number);
    graph.finish()
}

/// Axes of any size. Their names say nothing.
fn free_axes(axes: usize) -> Vec<Dim> {
    let names: [Symbol; MAX_AXES] =
        [Symbol::Batch, Symbol::GridHeight, Symbol::GridWidth, Symbol::Height];
    names[..axes].iter().map(|&name| name.into()).collect()
}

/// The mean of the squares of all elements: `[b, tokens, hidden]` -> `[1, 1, 1]`.
fn mean_square<'g>(x: Var<'g>) -> Var<'g> {
    (0..3).rev().fold(x * x, |x, axis| x.mean(axis))
}

fn tokens_input<'g>(graph: &'g Graph, name: &str, width: usize) -> Var<'g> {
    graph.input(name, DType::F32, &[Symbol::Batch.into(), Dim::tokens(), width.into()])
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
        let narrow = ["QuantizeLinear", "DequantizeLinear", "DequantizeLinear", "MatMul"];
        assert_eq!(operators(Precision::Fp8), narrow);
    }

    #[test]
    fn a_blend_has_a_product_for_each_term() {
        let graph = blend(8, 3);
        let count = |op: &str| {
            graph.nodes.iter().filter(|node| node.op_type.as_deref() == Some(op)).count()
        };
        assert_eq!((count("Mul"), count("Add"), graph.nodes.len()), (3, 2, 5));
        assert_eq!(graph.inputs.len(), 6);
    }

    #[test]
    fn a_correction_is_two_thin_products() {
        let graph = correct(64, 4);
        let operators: Vec<_> =
            graph.nodes.iter().filter_map(|node| node.op_type.as_deref()).collect();
        assert_eq!(operators, ["Sub", "MatMul", "MatMul", "Add"]);
        assert_eq!(graph.inputs.len(), 5);
    }

    #[test]
    fn rows_are_put_together_and_taken_apart_by_one_node() {
        for (graph, operator, inputs) in
            [(stack(DType::F16, 3, 5), "Concat", 5), (rows(DType::F32, 4), "Slice", 3)]
        {
            let [node] = &graph.nodes[..] else { panic!("{} nodes", graph.nodes.len()) };
            assert_eq!(node.op_type.as_deref(), Some(operator));
            assert_eq!(graph.inputs.len(), inputs);
        }
    }

    #[test]
    fn a_distance_is_one_number() {
        assert_eq!(distance(8).outputs[0].shape, [Dim::ONE; 3]);
    }
}
