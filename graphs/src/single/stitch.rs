//! Graphs made one: their nodes under names of their own, joined by the values that they share.

use crate::builder::GraphDef;
use crate::onnx::{
    AttributeProto, AttributeType, DimensionProto, DimensionValue, GraphProto, NodeProto,
    TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};
use crate::tensor::DType;

/// What the parts leave to the graph around them.
#[derive(Default)]
pub struct Stitch {
    /// Weights and constants of all parts.
    pub initializers: Vec<TensorProto>,
    /// Operator domains besides the standard one, some of them several times.
    pub domains: Vec<&'static str>,
}

impl Stitch {
    /// The nodes of `graph`, whose inputs and outputs are called otherwise outside: `bound` has the
    /// name inside, then the one outside.
    ///
    /// # Panics
    /// If an input or an output is not bound.
    #[track_caller]
    pub fn inline(&mut self, graph: &GraphDef, bound: &[(&str, &str)]) -> Vec<NodeProto> {
        let outside = |name: &str| {
            let found = bound.iter().find(|(inside, _)| *inside == name);
            found.map(|(_, outside)| outside.to_string())
        };
        for edge in graph.inputs.iter().chain(&graph.outputs) {
            assert!(outside(&edge.name).is_some(), "{} of {}", edge.name, graph.name);
        }
        let own = |name: &String| match name.as_str() {
            "" => String::new(),
            name => outside(name).unwrap_or_else(|| format!("{}/{name}", graph.name)),
        };
        self.domains.extend(&graph.domains);
        let proto = graph.graph();
        self.initializers.extend(
            proto
                .initializer
                .into_iter()
                .map(|tensor| TensorProto { name: tensor.name.as_ref().map(own), ..tensor }),
        );
        let node = |node: NodeProto| NodeProto {
            input: node.input.iter().map(own).collect(),
            output: node.output.iter().map(own).collect(),
            name: node.name.map(|name| format!("{}/{name}", graph.name)),
            ..node
        };
        proto.node.into_iter().map(node).collect()
    }

    /// The row of `noise` that `step` draws: the last one, if there are fewer.
    pub fn draw(&mut self, noise: &str, step: &str) -> Vec<NodeProto> {
        let [sizes, draws, last, drawn] =
            ["sizes", "draws", "last", "drawn"].map(|name| format!("{noise}/{name}"));
        let [zero, one] = [0, 1].map(|n| self.int(n));
        vec![
            node("Shape", &[noise], &[&sizes]),
            gather(&sizes, &zero, &draws),
            node("Sub", &[&draws, &one], &[&last]),
            node("Min", &[step, &last], &[&drawn]),
            gather(noise, &drawn, &format!("{noise}_now")),
        ]
    }

    /// The number of rows of `table`, as `count`.
    pub fn count(&mut self, table: &str, count: &str) -> Vec<NodeProto> {
        let sizes = format!("{table}/sizes");
        let zero = self.int(0);
        vec![node("Shape", &[table], &[&sizes]), gather(&sizes, &zero, count)]
    }

    /// `times` runs of `body` over a state that begins with `initial`; the first of it is `end`
    /// afterwards.
    pub fn repeat(&self, times: &str, initial: &[&str], end: &str, body: GraphProto) -> NodeProto {
        let inputs: Vec<&str> = [times, ""].into_iter().chain(initial.iter().copied()).collect();
        let rest = (1..initial.len()).map(|i| format!("{end}/{i}"));
        let outputs: Vec<String> = [end.to_string()].into_iter().chain(rest).collect();
        let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
        NodeProto { attribute: vec![subgraph("body", body)], ..node("Loop", &inputs, &outputs) }
    }

    /// The name of the constant `n`.
    fn int(&mut self, n: i64) -> String {
        let name = n.to_string();
        if !self.initializers.iter().any(|known| known.name.as_ref() == Some(&name)) {
            self.initializers.push(TensorProto {
                name: Some(name.clone()),
                data_type: Some(DType::I64 as i32),
                raw_data: Some(n.to_le_bytes().to_vec()),
                ..TensorProto::default()
            });
        }
        name
    }
}

/// A node of the standard domain, called as its first output.
pub fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
    NodeProto {
        name: Some(format!("{op}/{}", outputs[0])),
        op_type: Some(op.to_string()),
        input: names(inputs),
        output: names(outputs),
        ..NodeProto::default()
    }
}

/// The row `step` of `table`, as `TABLE_now`.
pub fn row(table: &str, step: &str) -> NodeProto {
    gather(table, step, &format!("{table}_now"))
}

fn gather(from: &str, index: &str, to: &str) -> NodeProto {
    let axis = AttributeProto {
        name: Some("axis".to_string()),
        i: Some(0),
        r#type: Some(AttributeType::Int as i32),
        ..AttributeProto::default()
    };
    NodeProto { attribute: vec![axis], ..node("Gather", &[from, index], &[to]) }
}

/// `yes` if the number `condition` is true, else `no`; the outputs of both become `outputs`.
pub fn branch(condition: &str, outputs: &[String], yes: GraphProto, no: GraphProto) -> NodeProto {
    let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
    NodeProto {
        attribute: vec![subgraph("then_branch", yes), subgraph("else_branch", no)],
        ..node("If", &[condition], &outputs)
    }
}

fn subgraph(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_string()),
        g: Some(graph),
        r#type: Some(AttributeType::Graph as i32),
        ..AttributeProto::default()
    }
}

/// A graph inside of another, whose values it may read.
pub fn graph(
    name: &str,
    node: Vec<NodeProto>,
    input: Vec<ValueInfoProto>,
    output: Vec<ValueInfoProto>,
) -> GraphProto {
    GraphProto { node, name: Some(name.to_string()), initializer: Vec::new(), input, output }
}

/// A value whose shape engines find themselves; of no axes, if it is an integer or a truth value.
pub fn value(name: &str, dtype: DType) -> ValueInfoProto {
    match dtype {
        DType::F32 => typed(name, dtype, None),
        _ => shaped(name, dtype, &[]),
    }
}

/// A value whose axes have these sizes, which are numbers or symbols.
pub fn shaped(name: &str, dtype: DType, shape: &[String]) -> ValueInfoProto {
    let size = |size: &String| DimensionProto {
        value: Some(match size.parse() {
            Ok(number) => DimensionValue::DimValue(number),
            Err(_) => DimensionValue::DimParam(size.clone()),
        }),
    };
    typed(name, dtype, Some(TensorShapeProto { dim: shape.iter().map(size).collect() }))
}

fn typed(name: &str, dtype: DType, shape: Option<TensorShapeProto>) -> ValueInfoProto {
    let tensor_type = Some(TensorTypeProto { elem_type: Some(dtype as i32), shape });
    ValueInfoProto { name: Some(name.to_string()), r#type: Some(TypeProto { tensor_type }) }
}
