//! [`Graph`], [`Var`] and [`Weights`]: declare weights by their names in the checkpoint, connect
//! values, finish.
//!
//! A [`Var`] is a `Copy` handle, so graph code reads like the reference: `x + y.silu()`. Shapes and
//! element types are known while building; a mismatch is a bug in the model's code and panics at
//! its line. No weight is read here: an [`Initializer`] only says which tensor of the checkpoint it
//! is.

mod attribute;
mod weights;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::dim::{Cost, Dim};
use crate::onnx::NodeProto;
use crate::options::GraphOptions;
use crate::tensor::{DType, Initializer, Source, TensorSpec};

pub(crate) use self::attribute::Attribute;
pub use self::weights::{Scope, Weights};

/// A finished graph, which [`GraphDef::encode`] turns into the bytes of an ONNX file.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct GraphDef {
    /// Name in kebab-case, which is also the stem of the file.
    pub name: String,
    /// Inputs in the order of their declaration.
    pub inputs: Vec<TensorSpec>,
    /// Outputs in the order of their declaration.
    pub outputs: Vec<TensorSpec>,
    /// Nodes, each after those whose outputs it reads.
    pub nodes: Vec<NodeProto>,
    /// Weights and constants in the order of their first use.
    pub initializers: Vec<Initializer>,
    /// Floating-point operations of one run.
    pub flops: Cost,
    /// Operator domains that the nodes use besides the standard one.
    pub domains: Vec<&'static str>,
}

#[derive(Default)]
struct Inner {
    scope: Vec<String>,
    values: Vec<TensorSpec>,
    nodes: Vec<NodeProto>,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    initializers: Vec<Initializer>,
    /// The places in `values` and in `initializers` of every initializer, by name.
    declared: BTreeMap<String, (usize, usize)>,
    /// For a value that was quantized, the values that its quantized form consists of.
    quantized: BTreeMap<usize, [usize; 3]>,
    /// The slots of layers, by name.
    slots: BTreeMap<String, Slot>,
    domains: BTreeSet<&'static str>,
    flops: Cost,
}

/// Where the matrices of a layer's LoRA are.
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    index: usize,
    a: usize,
    b: usize,
    rows: usize,
}

/// A graph that is being built.
pub struct Graph {
    name: String,
    options: GraphOptions,
    inner: RefCell<Inner>,
}

/// A value of a [`Graph`]: an input, a weight, a constant or the output of a node.
#[derive(Clone, Copy)]
pub struct Var<'g> {
    pub(crate) graph: &'g Graph,
    id: usize,
}

impl Graph {
    /// Creates an empty graph.
    pub fn new(name: &str, options: impl Into<GraphOptions>) -> Graph {
        Graph { name: name.to_string(), options: options.into(), inner: RefCell::default() }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the graph is built for.
    pub fn options(&self) -> GraphOptions {
        self.options
    }

    /// The element type of activations between matrices, and of weights that are not quantized.
    pub fn compute(&self) -> DType {
        self.options.precision.compute()
    }

    /// All weights of the checkpoint.
    pub fn root(&self) -> Weights<'_> {
        Weights::of(self)
    }

    /// Declares an input.
    pub fn input(&self, name: &str, dtype: DType, shape: &[Dim]) -> Var<'_> {
        let spec = TensorSpec { name: name.to_string(), dtype, shape: shape.to_vec() };
        self.inner.borrow_mut().inputs.push(spec.clone());
        self.value(spec)
    }

    /// Gives the layer `module` a slot.
    pub(crate) fn add_slot(&self, module: String, slot: Slot) {
        self.inner.borrow_mut().slots.insert(module, slot);
    }

    /// Declares `var` an output called `name`.
    ///
    /// # Panics
    /// If `var` is an input or an initializer, since an output must come from a node.
    #[track_caller]
    pub fn output(&self, name: &str, var: Var<'_>) {
        let mut inner = self.inner.borrow_mut();
        let old = std::mem::replace(&mut inner.values[var.id].name, name.to_string());
        let spec = inner.values[var.id].clone();
        inner.outputs.push(spec);
        let mut found = false;
        for node in &mut inner.nodes {
            for value in node.output.iter_mut().filter(|v| **v == old) {
                *value = name.to_string();
                found = true;
            }
            node.input.iter_mut().filter(|v| **v == old).for_each(|v| *v = name.to_string());
        }
        assert!(found, "output `{name}` does not come from a node");
    }

    /// Finishes the graph.
    pub fn finish(self) -> GraphDef {
        let inner = self.inner.into_inner();
        GraphDef {
            name: self.name,
            inputs: inner.inputs,
            outputs: inner.outputs,
            nodes: inner.nodes,
            initializers: inner.initializers,
            flops: inner.flops,
            domains: inner.domains.into_iter().collect(),
        }
    }

    /// Declares a constant of 32-bit floats.
    pub fn floats(&self, name: &str, dims: &[usize], values: &[f32]) -> Var<'_> {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(name, dims, DType::F32, bytes)
    }

    /// Declares a constant of 64-bit integers.
    pub fn ints(&self, name: &str, dims: &[usize], values: &[i64]) -> Var<'_> {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(name, dims, DType::I64, bytes)
    }

    /// A list of integers (axes, a shape, indices), shared between its users.
    pub(crate) fn list(&self, values: &[i64]) -> Var<'_> {
        let text: Vec<_> = values.iter().map(i64::to_string).collect();
        self.ints(&format!("[{}]", text.join(",")), &[values.len()], values)
    }

    /// A scalar of type `dtype` (a float type), shared between its users.
    pub(crate) fn scalar(&self, value: f32, dtype: DType) -> Var<'_> {
        let scalar = self.floats(&value.to_string(), &[], &[value]);
        if dtype == DType::F32 { scalar } else { scalar.cast(dtype) }
    }

    /// The scale 1 and the zero point with which fp16 becomes 8-bit floats of the same values.
    pub(crate) fn narrow_scale(&self) -> [Var<'_>; 2] {
        const ONE: u16 = 0x3c00; // 1.0 in fp16
        let scale = self.constant("one.f16", &[], DType::F16, ONE.to_le_bytes().to_vec());
        [scale, self.constant("zero.f8e4m3fn", &[], DType::F8E4M3FN, vec![0])]
    }

    fn constant(&self, name: &str, dims: &[usize], dtype: DType, bytes: Vec<u8>) -> Var<'_> {
        let source = Source::Constant(bytes);
        self.initializer(Initializer { name: name.to_string(), dims: dims.to_vec(), dtype, source })
    }

    /// Declares an initializer, or finds it if it was declared before.
    ///
    /// # Panics
    /// If one of its name differs in shape, element type or source.
    #[track_caller]
    fn initializer(&self, initializer: Initializer) -> Var<'_> {
        let known = self.inner.borrow().declared.get(&initializer.name).copied();
        if let Some((id, place)) = known {
            let same = self.inner.borrow().initializers[place] == initializer;
            assert!(same, "`{}` is declared twice, with different content", initializer.name);
            return Var { graph: self, id };
        }
        let var = self.value(TensorSpec {
            name: initializer.name.clone(),
            dtype: initializer.dtype,
            shape: initializer.dims.iter().map(|&n| n.into()).collect(),
        });
        let mut inner = self.inner.borrow_mut();
        let place = inner.initializers.len();
        inner.declared.insert(initializer.name.clone(), (var.id, place));
        inner.initializers.push(initializer);
        var
    }

    fn value(&self, spec: TensorSpec) -> Var<'_> {
        let mut inner = self.inner.borrow_mut();
        inner.values.push(spec);
        Var { graph: self, id: inner.values.len() - 1 }
    }

    /// Appends a node with one output; `flops` is the cost of one element of it.
    pub(crate) fn node(
        &self,
        op: &str,
        inputs: &[Option<Var<'_>>],
        attributes: &[(&str, Attribute)],
        output: (DType, Vec<Dim>),
        flops: Dim,
    ) -> Var<'_> {
        let [var] = self.nodes("", op, inputs, attributes, [output], flops);
        var
    }

    /// Appends a node with the operator `op` of `domain` (empty for the standard one); `flops` is
    /// the cost of one element of its first output.
    pub(crate) fn nodes<const N: usize>(
        &self,
        domain: &'static str,
        op: &str,
        inputs: &[Option<Var<'_>>],
        attributes: &[(&str, Attribute)],
        outputs: [(DType, Vec<Dim>); N],
        flops: Dim,
    ) -> [Var<'_>; N] {
        let elements = outputs[0].1.iter().fold(Dim::ONE, |product, &dim| product * dim);
        let name = {
            let mut inner = self.inner.borrow_mut();
            if flops != Dim::from(0) {
                inner.flops.add(elements * flops);
            }
            let scope = inner.scope.last().map_or("", String::as_str);
            let name = format!("{scope}{op}_{}", inner.nodes.len());
            let node = NodeProto {
                name: Some(name.clone()),
                op_type: Some(op.to_string()),
                domain: Some(domain.to_string()).filter(|domain| !domain.is_empty()),
                input: inputs
                    .iter()
                    .map(|var| var.map_or(String::new(), |var| inner.values[var.id].name.clone()))
                    .collect(),
                output: (0..N).map(|i| format!("{name}:{i}")).collect(),
                attribute: attributes.iter().map(|(name, value)| value.proto(name)).collect(),
            };
            inner.nodes.push(node);
            if !domain.is_empty() {
                inner.domains.insert(domain);
            }
            name
        };
        let mut index = 0;
        outputs.map(|(dtype, shape)| {
            let name = format!("{name}:{index}");
            index += 1;
            self.value(TensorSpec { name, dtype, shape })
        })
    }

    /// Adds `flops` to the cost, for a node whose cost is not only that of its output's elements.
    pub(crate) fn add_flops(&self, flops: Dim) {
        self.inner.borrow_mut().flops.add(flops);
    }

    /// Appends nodes whose cost is counted already.
    pub(crate) fn at_no_cost<T>(&self, append: impl FnOnce() -> T) -> T {
        let flops = self.inner.borrow().flops.clone();
        let appended = append();
        self.inner.borrow_mut().flops = flops;
        appended
    }

    /// The quantized form of `var`: the result of `quantize` at the first call, and the same values
    /// at every later one.
    pub(crate) fn quantize_once<'g>(
        &'g self,
        var: Var<'g>,
        quantize: impl FnOnce(Var<'g>) -> [Var<'g>; 3],
    ) -> [Var<'g>; 3] {
        let known = self.inner.borrow().quantized.get(&var.id).copied();
        if let Some(ids) = known {
            return ids.map(|id| Var { graph: self, id });
        }
        let quantized = quantize(var);
        self.inner.borrow_mut().quantized.insert(var.id, quantized.map(|var| var.id));
        quantized
    }
}

impl<'g> Var<'g> {
    /// The shape, with symbols for the free sizes.
    pub fn shape(self) -> Vec<Dim> {
        self.graph.inner.borrow().values[self.id].shape.clone()
    }

    /// The element type.
    pub fn dtype(self) -> DType {
        self.graph.inner.borrow().values[self.id].dtype
    }

    /// The number of axes.
    pub fn rank(self) -> usize {
        self.shape().len()
    }

    /// The size of the last axis.
    ///
    /// # Panics
    /// If that size is symbolic.
    #[track_caller]
    pub fn width(self) -> usize {
        self.shape().last().and_then(|d| d.known()).expect("the last axis has a known size")
    }
}

impl Slot {
    /// The slot with this index on the first axis of `a` and `b`, whose change has `rows`.
    pub fn new(index: usize, a: Var<'_>, b: Var<'_>, rows: Var<'_>) -> Slot {
        Slot { index, a: a.id, b: b.id, rows: rows.id }
    }

    /// Index, `a`, `b` and rows as values of `graph`.
    pub fn parts(self, graph: &Graph) -> [Var<'_>; 4] {
        let index = graph.list(&[self.index as i64]);
        let [a, b, rows] = [self.a, self.b, self.rows].map(|id| Var { graph, id });
        [index, a, b, rows]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Precision;

    #[test]
    fn a_weight_that_is_read_twice_is_one_initializer() {
        let graph = Graph::new("twice", Precision::Fp32);
        let w = graph.root();
        let x = w.tensor("bias", &[2], DType::F32) + w.tensor("bias", &[2], DType::F32);
        graph.output("y", x);
        assert_eq!(graph.finish().initializers.len(), 1);
    }

    #[test]
    #[should_panic(expected = "`ones` is declared twice")]
    fn constants_of_one_name_and_other_values_are_a_bug() {
        let graph = Graph::new("constants", Precision::Fp32);
        graph.floats("ones", &[2], &[1.0, 1.0]);
        graph.floats("ones", &[2], &[1.0, 2.0]);
    }

    #[test]
    #[should_panic(expected = "`bias` is declared twice")]
    fn weights_of_one_name_and_another_type_are_a_bug() {
        let graph = Graph::new("weights", Precision::Fp32);
        graph.root().tensor("bias", &[2], DType::F32);
        graph.root().tensor("bias", &[2], DType::F16);
    }
}
