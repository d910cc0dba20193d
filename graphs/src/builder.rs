//! [`Graph`], [`Var`] and [`Weights`]: declare weights by checkpoint name, connect, finish.
//!
//! A [`Var`] is a `Copy` handle, so graph code reads like the reference: `x + y.silu()`. Shapes and
//! element types are known while building; a mismatch is a bug of the model's code and panics at
//! its line. No weight is read here: an [`Initializer`] only says which tensor of the checkpoint
//! it is.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::dim::{Cost, Dim};
use crate::onnx::{AttributeProto, AttributeType, NodeProto};

/// Element types, numbered as ONNX numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(i32)]
pub enum DType {
    /// 32-bit float.
    F32 = 1,
    /// 64-bit integer.
    I64 = 7,
    /// Truth value, one byte.
    Bool = 9,
    /// 16-bit float.
    F16 = 10,
}

impl DType {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            DType::I64 => 8,
            DType::F32 => 4,
            DType::F16 => 2,
            DType::Bool => 1,
        }
    }
}

/// Where the elements of an [`Initializer`] come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// The checkpoint's tensor of the initializer's name. `transposed`: a matrix `[out, in]` there,
    /// `[in, out]` in the graph, as `MatMul` wants it.
    Checkpoint {
        /// Whether the two axes are swapped.
        transposed: bool,
    },
    /// Computed while building, little-endian.
    Constant(Vec<u8>),
}

/// A weight or constant of a finished graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Initializer {
    /// Name in the graph; for weights the checkpoint's name.
    pub name: String,
    /// Shape in the graph.
    pub dims: Vec<usize>,
    /// Element type in the graph.
    pub dtype: DType,
    /// Origin of the elements.
    pub source: Source,
}

impl Initializer {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.dims.iter().product()
    }

    /// Bytes of all elements.
    pub fn bytes(&self) -> usize {
        self.elements() * self.dtype.size()
    }

    /// Shape of the tensor in the checkpoint; `None` for a constant.
    pub fn checkpoint_dims(&self) -> Option<Vec<usize>> {
        match self.source {
            Source::Checkpoint { transposed: true } => {
                Some(self.dims.iter().rev().copied().collect())
            }
            Source::Checkpoint { transposed: false } => Some(self.dims.clone()),
            Source::Constant(_) => None,
        }
    }
}

/// Name, type and shape of a graph's input or output.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    /// Name.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Shape, symbolic where free.
    pub shape: Vec<Dim>,
}

/// A finished graph: what [`GraphDef::encode`] writes.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphDef {
    /// Name, kebab-case; also the file's stem.
    pub name: String,
    /// Inputs.
    pub inputs: Vec<TensorSpec>,
    /// Outputs.
    pub outputs: Vec<TensorSpec>,
    /// Nodes in topological order.
    pub nodes: Vec<NodeProto>,
    /// Weights and constants in the order of their first use.
    pub initializers: Vec<Initializer>,
    /// Floating-point operations of one run.
    pub flops: Cost,
}

#[derive(Default)]
struct Inner {
    scope: Vec<String>,
    values: Vec<TensorSpec>,
    nodes: Vec<NodeProto>,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    initializers: Vec<Initializer>,
    declared: BTreeMap<String, usize>,
    flops: Cost,
}

/// A graph being built.
pub struct Graph {
    name: String,
    compute: DType,
    inner: RefCell<Inner>,
}

/// A value of a [`Graph`].
#[derive(Clone, Copy)]
pub struct Var<'g> {
    pub(crate) graph: &'g Graph,
    id: usize,
}

impl Graph {
    /// An empty graph whose matrices are `compute` ([`DType::F32`] or [`DType::F16`]).
    pub fn new(name: &str, compute: DType) -> Graph {
        Graph { name: name.to_string(), compute, inner: RefCell::default() }
    }

    /// Element type of the matrices and of the activations between them.
    pub fn compute(&self) -> DType {
        self.compute
    }

    /// The weights at the root of the checkpoint's names.
    pub fn root(&self) -> Weights<'_> {
        Weights { graph: self, prefix: String::new() }
    }

    /// Declares an input.
    pub fn input(&self, name: &str, dtype: DType, shape: &[Dim]) -> Var<'_> {
        let spec = TensorSpec { name: name.to_string(), dtype, shape: shape.to_vec() };
        self.inner.borrow_mut().inputs.push(spec.clone());
        self.value(spec)
    }

    /// Declares `var` an output called `name`.
    ///
    /// # Panics
    /// If `var` is an input or an initializer: an output must be made by a node.
    #[track_caller]
    pub fn output(&self, name: &str, var: Var<'_>) {
        let mut inner = self.inner.borrow_mut();
        let old = std::mem::replace(&mut inner.values[var.id].name, name.to_string());
        let spec = inner.values[var.id].clone();
        inner.outputs.push(spec);
        let mut made = false;
        for node in &mut inner.nodes {
            for value in node.output.iter_mut().filter(|v| **v == old) {
                *value = name.to_string();
                made = true;
            }
            node.input.iter_mut().filter(|v| **v == old).for_each(|v| *v = name.to_string());
        }
        assert!(made, "output `{name}` is not made by a node");
    }

    /// The finished graph.
    pub fn finish(self) -> GraphDef {
        let inner = self.inner.into_inner();
        GraphDef {
            name: self.name,
            inputs: inner.inputs,
            outputs: inner.outputs,
            nodes: inner.nodes,
            initializers: inner.initializers,
            flops: inner.flops,
        }
    }

    /// A constant of floats, in fp32.
    pub fn floats(&self, name: &str, dims: &[usize], values: &[f32]) -> Var<'_> {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(name, dims, DType::F32, bytes)
    }

    /// A constant of whole numbers.
    pub fn ints(&self, name: &str, dims: &[usize], values: &[i64]) -> Var<'_> {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(name, dims, DType::I64, bytes)
    }

    /// A list of whole numbers (axes, shape, indices), shared between its users.
    pub(crate) fn list(&self, values: &[i64]) -> Var<'_> {
        let text: Vec<_> = values.iter().map(i64::to_string).collect();
        self.ints(&format!("[{}]", text.join(",")), &[values.len()], values)
    }

    /// A scalar of type `dtype` (a float type), shared between its users.
    pub(crate) fn scalar(&self, value: f32, dtype: DType) -> Var<'_> {
        let scalar = self.floats(&value.to_string(), &[], &[value]);
        if dtype == DType::F32 { scalar } else { scalar.cast(dtype) }
    }

    fn constant(&self, name: &str, dims: &[usize], dtype: DType, bytes: Vec<u8>) -> Var<'_> {
        let source = Source::Constant(bytes);
        self.initializer(Initializer { name: name.to_string(), dims: dims.to_vec(), dtype, source })
    }

    #[track_caller]
    fn initializer(&self, initializer: Initializer) -> Var<'_> {
        let known = self.inner.borrow().declared.get(&initializer.name).copied();
        if let Some(id) = known {
            let var = Var { graph: self, id };
            let shape: Vec<Dim> = initializer.dims.iter().map(|&n| n.into()).collect();
            assert_eq!(var.shape(), shape, "`{}` is declared twice", initializer.name);
            return var;
        }
        let var = self.value(TensorSpec {
            name: initializer.name.clone(),
            dtype: initializer.dtype,
            shape: initializer.dims.iter().map(|&n| n.into()).collect(),
        });
        let mut inner = self.inner.borrow_mut();
        inner.declared.insert(initializer.name.clone(), var.id);
        inner.initializers.push(initializer);
        var
    }

    fn value(&self, spec: TensorSpec) -> Var<'_> {
        let mut inner = self.inner.borrow_mut();
        inner.values.push(spec);
        Var { graph: self, id: inner.values.len() - 1 }
    }

    /// Appends a node; `flops` is the cost of one element of its output.
    pub(crate) fn node(
        &self,
        op: &str,
        inputs: &[Option<Var<'_>>],
        attributes: &[(&str, Attribute)],
        output: (DType, Vec<Dim>),
        flops: Dim,
    ) -> Var<'_> {
        let (dtype, shape) = output;
        let elements = shape.iter().fold(Dim::ONE, |product, &dim| product * dim);
        let name = {
            let mut inner = self.inner.borrow_mut();
            if flops != Dim::from(0) {
                inner.flops.add(elements * flops);
            }
            let scope = inner.scope.last().map_or("", String::as_str);
            let node = NodeProto {
                name: Some(format!("{scope}{op}_{}", inner.nodes.len())),
                op_type: Some(op.to_string()),
                input: inputs
                    .iter()
                    .map(|var| var.map_or(String::new(), |var| inner.values[var.id].name.clone()))
                    .collect(),
                output: vec![format!("{scope}{op}_{}:0", inner.nodes.len())],
                attribute: attributes.iter().map(|(name, value)| value.proto(name)).collect(),
            };
            let name = node.output[0].clone();
            inner.nodes.push(node);
            name
        };
        self.value(TensorSpec { name, dtype, shape })
    }
}

impl<'g> Var<'g> {
    /// Shape.
    pub fn shape(self) -> Vec<Dim> {
        self.graph.inner.borrow().values[self.id].shape.clone()
    }

    /// Element type.
    pub fn dtype(self) -> DType {
        self.graph.inner.borrow().values[self.id].dtype
    }

    /// Number of axes.
    pub fn rank(self) -> usize {
        self.shape().len()
    }

    /// Size of the last axis, which our layers know.
    ///
    /// # Panics
    /// If it is symbolic.
    #[track_caller]
    pub fn width(self) -> usize {
        self.shape().last().and_then(|d| d.known()).expect("the last axis has a known size")
    }
}

/// Value of a node's attribute.
pub(crate) enum Attribute {
    Int(i64),
    Float(f32),
    Ints(Vec<i64>),
    Text(&'static str),
}

impl Attribute {
    fn proto(&self, name: &str) -> AttributeProto {
        let mut proto = AttributeProto { name: Some(name.to_string()), ..Default::default() };
        let kind = match self {
            Attribute::Int(i) => {
                proto.i = Some(*i);
                AttributeType::Int
            }
            Attribute::Float(f) => {
                proto.f = Some(*f);
                AttributeType::Float
            }
            Attribute::Ints(ints) => {
                proto.ints.clone_from(ints);
                AttributeType::Ints
            }
            Attribute::Text(text) => {
                proto.s = Some(text.as_bytes().to_vec());
                AttributeType::String
            }
        };
        proto.r#type = Some(kind as i32);
        proto
    }
}

/// A prefix of checkpoint names: `w.pp("attn1")` is all that starts with `...attn1.`.
#[derive(Clone)]
pub struct Weights<'g> {
    /// The graph the weights are declared in.
    pub graph: &'g Graph,
    prefix: String,
}

impl<'g> Weights<'g> {
    /// The weights under `name`.
    pub fn pp(&self, name: impl std::fmt::Display) -> Weights<'g> {
        Weights { graph: self.graph, prefix: format!("{}{name}.", self.prefix) }
    }

    /// Declares the checkpoint's tensor `name` of shape `dims`.
    #[track_caller]
    pub fn tensor(&self, name: &str, dims: &[usize], dtype: DType) -> Var<'g> {
        self.declare(name, dims, dtype, false)
    }

    /// Declares the checkpoint's matrix `name` of shape `[out, in]`, as `[in, out]`.
    #[track_caller]
    pub fn transposed(&self, name: &str, [out, input]: [usize; 2], dtype: DType) -> Var<'g> {
        self.declare(name, &[input, out], dtype, true)
    }

    #[track_caller]
    fn declare(&self, name: &str, dims: &[usize], dtype: DType, transposed: bool) -> Var<'g> {
        self.graph.initializer(Initializer {
            name: format!("{}{name}", self.prefix),
            dims: dims.to_vec(),
            dtype,
            source: Source::Checkpoint { transposed },
        })
    }

    /// Nodes appended while the guard lives are named under this prefix.
    #[must_use]
    pub fn enter(&self) -> Scope<'g> {
        let scope = self.prefix.replace('.', "/");
        self.graph.inner.borrow_mut().scope.push(scope);
        Scope { graph: self.graph }
    }
}

/// Ends the naming scope of [`Weights::enter`] when dropped.
pub struct Scope<'g> {
    graph: &'g Graph,
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        self.graph.inner.borrow_mut().scope.pop();
    }
}
