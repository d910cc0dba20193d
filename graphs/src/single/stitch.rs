//! Graphs made one: their nodes under names of their own, joined by the values that they share.

use std::collections::BTreeSet;

use crate::builder::GraphDef;
use crate::onnx::{
    AttributeProto, AttributeType, GraphProto, NodeProto, TensorProto, ValueInfoProto,
};
use crate::tensor::{DType, TensorSpec};

/// A graph that is being put together, at the top or inside of another.
#[derive(Default)]
pub struct Scope {
    nodes: Vec<NodeProto>,
    /// Weights and constants. Those of a graph inside of another go to the outermost, since hosts
    /// that are given files in memory, such as browsers, look for external data there alone; unless
    /// the graph [keeps](Inner::with_weights) them.
    initializers: Vec<TensorProto>,
    domains: BTreeSet<&'static str>,
}

impl Scope {
    /// Appends the nodes of `graph`, whose inputs and outputs are called otherwise here: `bound` has
    /// the name there, then the one here. Its slots are values of [`inside()`].
    ///
    /// # Panics
    /// If another input or an output is not bound.
    #[track_caller]
    pub fn inline(&mut self, graph: &GraphDef, bound: &[(&str, &str)]) {
        let here = |name: &str| {
            let found = bound.iter().find(|(there, _)| *there == name);
            found.map(|(_, here)| here.to_string())
        };
        let is_slot = |edge: &TensorSpec| graph.slots().any(|slot| slot.name == edge.name);
        for edge in graph.inputs.iter().chain(&graph.outputs) {
            let bound = here(&edge.name).is_some() || is_slot(edge);
            assert!(bound, "{} of {}", edge.name, graph.name);
        }
        let own = |name: &String| match name.as_str() {
            "" => String::new(),
            name => here(name).unwrap_or_else(|| inside(graph, name)),
        };
        self.domains.extend(&graph.domains);
        let proto = graph.graph();
        self.initializers.extend(
            proto
                .initializer
                .into_iter()
                .map(|tensor| TensorProto { name: tensor.name.as_ref().map(own), ..tensor }),
        );
        self.nodes.extend(proto.node.into_iter().map(|node| NodeProto {
            input: node.input.iter().map(own).collect(),
            output: node.output.iter().map(own).collect(),
            name: node.name.map(|name| inside(graph, &name)),
            ..node
        }));
    }

    /// Appends a node of the standard domain.
    pub fn node(&mut self, op: &str, inputs: &[&str], outputs: &[&str]) {
        self.nodes.push(node(op, inputs, outputs, Vec::new()));
    }

    /// Appends `from` in the element type `dtype`, as `to`.
    pub fn cast(&mut self, from: &str, to: &str, dtype: DType) {
        self.nodes.push(node("Cast", &[from], &[to], vec![int_attribute("to", dtype as i64)]));
    }

    /// Appends the row `step` of `table`, as `TABLE_now`.
    pub fn row(&mut self, table: &str, step: &str) {
        self.gather(table, step, &format!("{table}_now"));
    }

    /// Appends the row `step` of `table`, or the last if there are fewer, as `TABLE_now`.
    pub fn row_or_last(&mut self, table: &str, step: &str) {
        let [rows, last, row] = ["rows", "last", "row"].map(|name| format!("{table}/{name}"));
        self.count(table, &rows);
        let one = self.int(table, 1);
        self.node("Sub", &[&rows, &one], &[&last]);
        self.node("Min", &[step, &last], &[&row]);
        self.gather(table, &row, &format!("{table}_now"));
    }

    /// Appends the number of rows of `table`, as `count`.
    pub fn count(&mut self, table: &str, count: &str) {
        let sizes = format!("{count}/sizes");
        let zero = self.int(count, 0);
        self.node("Shape", &[table], &[&sizes]);
        self.gather(&sizes, &zero, count);
    }

    /// Appends `yes` if the truth value `condition` holds, else `no`: what they make becomes
    /// `outputs`.
    pub fn branch(&mut self, condition: &str, outputs: &[&str], [yes, no]: [Inner; 2]) {
        let branches = [("then_branch", yes), ("else_branch", no)];
        let attributes = branches.map(|(name, inner)| self.inner(name, inner)).to_vec();
        self.nodes.push(node("If", &[condition], outputs, attributes));
    }

    /// Appends `times` runs of `body` over a state that begins with `initial`; the first of it is
    /// `end` afterwards.
    pub fn repeat(&mut self, times: &str, initial: &[&str], end: &str, body: Inner) {
        // The condition could be left out, but not for TensorRT.
        let go = self.constant(&format!("{end}/go"), DType::Bool, vec![1]);
        let inputs: Vec<&str> = [times, &go].into_iter().chain(initial.iter().copied()).collect();
        let rest = (1..initial.len()).map(|i| format!("{end}/{i}"));
        let outputs: Vec<String> = [end.to_string()].into_iter().chain(rest).collect();
        let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
        let attributes = vec![self.inner("body", body)];
        self.nodes.push(node("Loop", &inputs, &outputs, attributes));
    }

    /// The graph with these edges, as the attribute of a node of another.
    pub fn close(
        self,
        name: &str,
        input: Vec<ValueInfoProto>,
        output: Vec<ValueInfoProto>,
    ) -> Inner {
        let Scope { nodes, initializers, domains } = self;
        let (name, initializer) = (Some(name.to_string()), Vec::new());
        let graph = GraphProto { node: nodes, name, initializer, input, output };
        Inner { graph, initializers, domains }
    }

    fn inner(&mut self, name: &str, inner: Inner) -> AttributeProto {
        self.domains.extend(inner.domains);
        self.initializers.extend(inner.initializers);
        AttributeProto {
            name: Some(name.to_string()),
            g: Some(inner.graph),
            r#type: Some(AttributeType::Graph as i32),
            ..AttributeProto::default()
        }
    }

    fn gather(&mut self, from: &str, index: &str, to: &str) {
        self.nodes.push(node("Gather", &[from, index], &[to], vec![int_attribute("axis", 0)]));
    }

    /// The name of the constant `n`, which nothing but `user` reads.
    fn int(&mut self, user: &str, n: i64) -> String {
        self.constant(&format!("{user}/{n}"), DType::I64, n.to_le_bytes().to_vec())
    }

    /// The name of a constant without axes.
    fn constant(&mut self, name: &str, dtype: DType, bytes: Vec<u8>) -> String {
        self.initializers.push(TensorProto {
            name: Some(name.to_string()),
            data_type: Some(dtype as i32),
            raw_data: Some(bytes),
            ..TensorProto::default()
        });
        name.to_string()
    }
}

/// A graph that is whole, and the operator domains of its nodes besides the standard one.
pub struct Inner {
    /// The graph, which may read the values of the graph around it.
    pub graph: GraphProto,
    /// What the graph around it has for it.
    pub initializers: Vec<TensorProto>,
    /// The domains.
    pub domains: BTreeSet<&'static str>,
}

/// The name here of what is called `name` inside of `graph`.
pub fn inside(graph: &GraphDef, name: &str) -> String {
    format!("{}/{name}", graph.name)
}

impl Inner {
    /// The graph with its weights in itself, and with those of graphs inside of it.
    pub fn with_weights(mut self) -> Inner {
        self.graph.initializer = std::mem::take(&mut self.initializers);
        self
    }
}

fn int_attribute(name: &str, i: i64) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_string()),
        i: Some(i),
        r#type: Some(AttributeType::Int as i32),
        ..AttributeProto::default()
    }
}

/// A node of the standard domain, called as its first output.
fn node(op: &str, inputs: &[&str], outputs: &[&str], attribute: Vec<AttributeProto>) -> NodeProto {
    let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
    NodeProto {
        name: Some(format!("{op}/{}", outputs[0])),
        op_type: Some(op.to_string()),
        input: names(inputs),
        output: names(outputs),
        attribute,
        ..NodeProto::default()
    }
}
