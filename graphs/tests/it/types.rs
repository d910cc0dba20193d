//! Strongly typed, as TensorRT wants a network: every operator has operands of one type, types
//! change in casts alone. ONNX's rules are written down here once more, and graphs walked from
//! their inputs to their outputs; the exported files are checked with ONNX's own
//! (`tests/python/check_onnx.py`).

use std::collections::HashMap;

use hydit_graphs::{DType, GraphDef, GraphOptions, Precision, Target, onnx};

use crate::models::graphs;

/// Operators that have no bf16: by ONNX up to operator set 21, or among the kernels of ONNX
/// Runtime's CUDA provider.
const WITHOUT_BF16: [&str; 7] =
    ["Conv", "InstanceNormalization", "Sin", "Cos", "DepthToSpace", "Resize", "ReduceMean"];

fn targets(forms: &[Target]) -> Vec<GraphOptions> {
    let all = Precision::ALL.iter().copied().flat_map(|precision| {
        forms.iter().map(move |&target| GraphOptions::from((precision, target))).collect::<Vec<_>>()
    });
    all.filter(|target| target.check().is_ok()).collect()
}

/// The type of what `node` makes, if its operands `given` have the types they must have.
fn result(node: &onnx::NodeProto, given: &[Option<DType>]) -> DType {
    let op = node.op_type.as_deref().expect("an operator");
    let name = node.name.as_deref().expect("a name");
    let types: Vec<DType> = given.iter().flatten().copied().collect();
    // How many operands share the type of the result, and what the others are.
    let (shared, others) = match op {
        "Cast" => {
            let to =
                node.attribute.iter().find(|attribute| attribute.name.as_deref() == Some("to"));
            let to = to.and_then(|attribute| attribute.i).expect("a type");
            let all = [DType::F32, DType::F16, DType::BF16, DType::I64, DType::Bool];
            return all.into_iter().find(|&dtype| dtype as i64 == to).expect("a type of ours");
        }
        "Shape" => return DType::I64,
        "QuantizeLinear" => {
            assert_eq!(types, [DType::F16, DType::F16, DType::F8E4M3FN], "{name}");
            return DType::F8E4M3FN;
        }
        "DequantizeLinear" => {
            assert_eq!(types, [DType::F8E4M3FN, DType::F16], "{name}");
            return DType::F16;
        }
        "Where" => {
            assert_eq!(types[0], DType::Bool, "{name}");
            assert_eq!(types[1], types[2], "{name}");
            return types[1];
        }
        "Reshape" | "Unsqueeze" | "Squeeze" | "Slice" | "Gather" | "ReduceMean" => (1, DType::I64),
        "Resize" => (1, DType::F32),
        "RotaryEmbedding" => {
            assert_eq!((types[1], types[2], types[3]), (DType::I64, types[0], types[0]), "{name}");
            return types[0];
        }
        "Add"
        | "Sub"
        | "Mul"
        | "Div"
        | "MatMul"
        | "Concat"
        | "Split"
        | "LayerNormalization"
        | "InstanceNormalization"
        | "Conv"
        | "Gelu"
        | "Softmax"
        | "Sqrt"
        | "Sin"
        | "Cos"
        | "Sigmoid"
        | "Relu"
        | "Transpose"
        | "DepthToSpace"
        | "MultiHeadAttention" => (types.len(), DType::I64),
        other => panic!("{name}: no rule for {other}"),
    };
    assert!(types[..shared].iter().all(|&dtype| dtype == types[0]), "{name}: {types:?}");
    assert!(types[shared..].iter().all(|&dtype| dtype == others), "{name}: {types:?}");
    assert!(types[0] != DType::BF16 || !WITHOUT_BF16.contains(&op), "{name}: {op} in bf16");
    types[0]
}

/// Walks `graph`; gives the type of every value.
fn check(graph: &GraphDef) -> HashMap<&str, DType> {
    let allowed = [DType::F32, DType::F16, DType::BF16, DType::I64, DType::F8E4M3FN];
    let wrong = graph.initializers.iter().find(|tensor| !allowed.contains(&tensor.dtype));
    assert!(wrong.is_none(), "{}: {wrong:?}", graph.name);
    let inputs = graph.inputs.iter().map(|spec| (spec.name.as_str(), spec.dtype));
    let weights = graph.initializers.iter().map(|tensor| (tensor.name.as_str(), tensor.dtype));
    let mut types: HashMap<&str, DType> = inputs.chain(weights).collect();
    for node in &graph.nodes {
        let given: Vec<_> =
            node.input.iter().map(|name| types.get(name.as_str()).copied()).collect();
        let made = result(node, &given);
        let several = node.op_type.as_deref() == Some("Split");
        assert!(node.output.len() == 1 || several, "{:?} has several outputs", node.name);
        types.extend(node.output.iter().map(|output| (output.as_str(), made)));
    }
    for output in &graph.outputs {
        assert_eq!(types[output.name.as_str()], output.dtype, "{} of {}", output.name, graph.name);
    }
    types
}

#[test]
fn every_operator_has_operands_of_one_type() {
    for target in targets(Target::ALL) {
        if target.precision != Precision::Int8 {
            graphs(target).iter().for_each(|graph| drop(check(graph)));
        }
    }
}

#[test]
fn the_portable_form_is_what_tensorrt_needs_but_for_casts_of_scores() {
    for target in targets(&[Target::TensorRt]) {
        let graphs = [target, target.precision.into()].map(graphs);
        assert!(graphs[0].iter().all(|graph| graph.domains.is_empty()));
        if target.precision.compute() == DType::F32 {
            assert!(graphs[0] == graphs[1], "{target:?}: say at `Target::TensorRt` what differs");
        }
        let operators = graphs.map(|graphs| -> Vec<_> {
            let nodes = graphs.into_iter().flat_map(|graph| graph.nodes);
            nodes.filter_map(|node| node.op_type).filter(|op| op != "Cast").collect()
        });
        assert!(operators[0] == operators[1], "{target:?}: say at `Target::TensorRt` what differs");
    }
}

#[test]
fn fused_attention_has_the_type_of_the_graph_and_its_rotary_embedding_fp32() {
    for target in targets(&[Target::OrtCpu, Target::OrtCuda]) {
        if target.precision == Precision::Int8 {
            continue;
        }
        let deep_core = graphs(target).into_iter().find(|graph| graph.name == "deep-core");
        let graph = deep_core.expect("a deep core");
        assert_eq!(graph.domains, ["com.microsoft"]);
        let types = check(&graph);
        let of = |op: &str| -> Vec<DType> {
            let nodes = graph.nodes.iter().filter(|node| node.op_type.as_deref() == Some(op));
            nodes.map(|node| types[node.input[0].as_str()]).collect()
        };
        // Two blocks; in cross-attention only `q` turns.
        assert_eq!(of("MultiHeadAttention"), [target.precision.compute(); 4], "{target:?}");
        assert_eq!(of("RotaryEmbedding"), [DType::F32; 6], "{target:?}");
        assert_eq!(of("Softmax"), []);
    }
}

/// TensorRT makes one kernel of attention where scores come in the type of the graph, and none where
/// they come in fp32.
#[test]
fn scores_for_tensorrt_have_the_type_of_the_graph_and_softmax_is_fp32() {
    for precision in [Precision::Fp32, Precision::Fp16, Precision::Bf16, Precision::Fp8] {
        for (target, scores) in
            [(Target::TensorRt, precision.compute()), (Target::Portable, DType::F32)]
        {
            let graphs = graphs(GraphOptions::from((precision, target)));
            let graph = graphs.iter().find(|graph| graph.name == "deep-core").expect("a core");
            let types = check(graph);
            let maker = |value: &String| {
                graph.nodes.iter().find(|node| node.output.contains(value)).expect("it is made")
            };
            let mut seen = 0;
            for softmax in &graph.nodes {
                if softmax.op_type.as_deref() == Some("Softmax") {
                    assert_eq!(types[softmax.input[0].as_str()], DType::F32);
                    let mut product = maker(&softmax.input[0]);
                    if product.op_type.as_deref() == Some("Cast") {
                        product = maker(&product.input[0]);
                    }
                    assert_eq!(product.op_type.as_deref(), Some("MatMul"), "{precision} {target}");
                    assert_eq!(types[product.output[0].as_str()], scores, "{precision} {target}");
                    seen += 1;
                }
            }
            assert_eq!(seen, 4, "two of each of two blocks");
        }
    }
}

/// TensorRT multiplies 8-bit floats where both operands of a product come straight from 8 bits,
/// with scales that are constants.
#[test]
fn products_of_8_bit_floats_have_both_operands_from_8_bits() {
    let graphs = graphs(Precision::Fp8);
    let graph = graphs.iter().find(|graph| graph.name == "deep-core").expect("a deep core");
    let op = |name: &str| {
        let maker = graph.nodes.iter().find(|node| node.output.iter().any(|made| made == name));
        maker.and_then(|node| node.op_type.as_deref())
    };
    let is_constant = |name: &String| graph.initializers.iter().any(|tensor| tensor.name == *name);
    let of = |kind: &str| -> Vec<&onnx::NodeProto> {
        graph.nodes.iter().filter(|node| node.op_type.as_deref() == Some(kind)).collect()
    };
    let products: Vec<_> = of("MatMul")
        .into_iter()
        .filter(|node| op(&node.input[1]) == Some("DequantizeLinear"))
        .collect();
    assert!(products.iter().all(|node| op(&node.input[0]) == Some("DequantizeLinear")));
    let weights: Vec<_> = (graph.initializers.iter())
        .filter(|tensor| tensor.dtype == DType::F8E4M3FN && tensor.dims.len() == 2)
        .collect();
    // Two blocks: four of each attention, two of the MLP.
    assert_eq!((products.len(), weights.len()), (20, 20));
    let linears = [".to_q.", ".to_out.0.", ".ff.net.2."];
    for linear in linears {
        assert!(weights.iter().any(|tensor| tensor.name.contains(linear)), "{linear}");
    }
    for node in of("QuantizeLinear") {
        assert!(node.input[1..].iter().all(is_constant), "{:?}", node.name);
    }
    // What several layers read is rounded once.
    assert!(of("QuantizeLinear").len() < products.len());
    let encoder = graphs.iter().find(|graph| graph.name == "text-encoder").expect("an encoder");
    assert!(encoder.initializers.iter().all(|tensor| tensor.dtype != DType::F8E4M3FN));
}

/// ONNX Runtime's CUDA provider leaves what computes with shapes to the CPU, and a session for a
/// GPU alone is refused then.
#[test]
fn shapes_are_read_for_reshapes_only() {
    for graph in graphs(Precision::Fp32) {
        let shapes: Vec<&String> = (graph.nodes.iter())
            .filter(|node| node.op_type.as_deref() == Some("Shape"))
            .flat_map(|node| &node.output)
            .collect();
        for node in &graph.nodes {
            for (place, _) in
                node.input.iter().enumerate().filter(|(_, name)| shapes.contains(name))
            {
                let reader = (node.op_type.as_deref(), place);
                assert_eq!(reader, (Some("Reshape"), 1), "{:?} of {}", node.name, graph.name);
            }
        }
    }
}

#[test]
fn an_image_decoder_in_bf16_is_the_fp32_one() {
    let decoder = |precision: Precision| {
        graphs(precision).into_iter().find(|graph| graph.name == "vae-decoder").expect("a decoder")
    };
    assert!(decoder(Precision::Bf16) == decoder(Precision::Fp32));
    assert!(decoder(Precision::Fp16) != decoder(Precision::Fp32));
}
