//! Our files read back by an independent reader: rust-protobuf's code, generated from ONNX's own
//! schema. A wrong field number, a lost value or a dangling name shows here.

use std::collections::HashSet;

use hydit_graphs::{DType, GraphDef, Precision, Source, TensorSpec, model, onnx};
use onnx_protobuf::attribute_proto::AttributeType;
use onnx_protobuf::tensor_proto::DataLocation;
use onnx_protobuf::tensor_shape_proto::dimension::Value as Size;
use onnx_protobuf::type_proto::Value as Kind;
use onnx_protobuf::{AttributeProto, GraphProto, Message, ModelProto, ValueInfoProto};

use crate::models::graphs;

/// Every graph in each float type, with what the reader makes of its bytes.
fn read_back() -> Vec<(GraphDef, ModelProto)> {
    let types = [Precision::Fp32, Precision::Fp16, Precision::Bf16, Precision::Fp8];
    let graphs = types.into_iter().flat_map(graphs);
    graphs
        .map(|graph| {
            let read = ModelProto::parse_from_bytes(&graph.encode()).expect("an ONNX file");
            (graph, read)
        })
        .collect()
}

#[test]
fn the_header_names_format_and_operator_set() {
    for (graph, read) in read_back() {
        assert_eq!(read.ir_version, model::IR_VERSION);
        assert_eq!(read.producer_name, "hydit-export");
        assert_eq!(read.producer_version, env!("CARGO_PKG_VERSION"));
        assert_eq!(read.graph.name, graph.name);
        let [opset] = &read.opset_import[..] else { panic!("one operator set") };
        // Transpose takes 8-bit floats from 21 on.
        let narrow = graph.initializers.iter().any(|tensor| tensor.dtype == DType::F8E4M3FN);
        assert_eq!((opset.domain.as_str(), opset.version), ("", if narrow { 21 } else { 20 }));
        assert_eq!(opset.version, graph.opset());
        assert!(read.functions.is_empty() && read.metadata_props.is_empty());
    }
}

#[test]
fn nodes_and_their_attributes_come_back() {
    for (graph, read) in read_back() {
        assert_eq!(graph.nodes.len(), read.graph.node.len());
        for (ours, theirs) in graph.nodes.iter().zip(&read.graph.node) {
            assert_eq!(ours.op_type.as_deref(), Some(theirs.op_type.as_str()));
            assert_eq!(ours.name.as_deref(), Some(theirs.name.as_str()));
            assert_eq!((&ours.input, &ours.output), (&theirs.input, &theirs.output));
            assert_eq!(ours.attribute.len(), theirs.attribute.len());
            for (ours, theirs) in ours.attribute.iter().zip(&theirs.attribute) {
                check_attribute(ours, theirs);
            }
        }
    }
}

fn check_attribute(ours: &onnx::AttributeProto, theirs: &AttributeProto) {
    assert_eq!(ours.name.as_deref(), Some(theirs.name.as_str()));
    let kind = theirs.type_.enum_value().expect("a known type");
    let same = match kind {
        AttributeType::INT => ours.i == Some(theirs.i),
        AttributeType::FLOAT => ours.f == Some(theirs.f),
        AttributeType::STRING => ours.s.as_ref() == Some(&theirs.s),
        AttributeType::INTS => ours.ints == theirs.ints,
        other => panic!("{other:?} is never written"),
    };
    assert!(same, "{ours:?} came back as {theirs:?}");
}

/// ONNX is proto2: an attribute of value 0 that is left out is an error to its checker. The reader
/// above cannot tell, so this looks for the bytes: field 1 `axis`, field 3 zero, field 20 INT.
#[test]
fn attributes_of_value_zero_are_written() {
    let bytes = b"\x0a\x04axis\x18\x00\xa0\x01\x02";
    let mut found = 0;
    for (graph, _) in read_back() {
        let zero = |a: &onnx::AttributeProto| a.name.as_deref() == Some("axis") && a.i == Some(0);
        let expected =
            graph.nodes.iter().flat_map(|node| &node.attribute).filter(|a| zero(a)).count();
        let file = graph.encode();
        assert_eq!(file.windows(bytes.len()).filter(|w| w == bytes).count(), expected);
        found += expected;
    }
    assert!(found > 0, "no graph has such an attribute");
}

#[test]
fn only_standard_operators_are_used() {
    let known = "Add Sub Mul Div Sqrt Sin Cos Sigmoid Relu Gelu Softmax Cast Where MatMul Transpose Reshape Shape \
                 Unsqueeze Squeeze Concat Split Slice Gather ReduceMean LayerNormalization InstanceNormalization Conv \
                 DepthToSpace Resize QuantizeLinear DequantizeLinear";
    let known: HashSet<&str> = known.split_whitespace().collect();
    let mut used = HashSet::new();
    for (_, read) in read_back() {
        for node in &read.graph.node {
            assert_eq!((node.domain.as_str(), node.overload.as_str()), ("", ""), "{}", node.name);
            assert!(known.contains(node.op_type.as_str()), "{} is new here", node.op_type);
            used.insert(node.op_type.clone());
        }
    }
    assert_eq!(used.len(), known.len(), "some operator is not used any more: {used:?}");
}

#[test]
fn every_value_is_defined_once_and_before_its_use() {
    for (_, read) in read_back() {
        let GraphProto { node, initializer, input, output, .. } = &*read.graph;
        let mut defined = HashSet::new();
        let starts = input.iter().map(|v| &v.name).chain(initializer.iter().map(|t| &t.name));
        for name in starts {
            assert!(defined.insert(name.as_str()), "`{name}` is there twice");
        }
        let (mut used, mut names) = (HashSet::new(), HashSet::new());
        for node in node {
            assert!(names.insert(&node.name), "two nodes `{}`", node.name);
            for name in node.input.iter().filter(|name| !name.is_empty()) {
                assert!(defined.contains(name.as_str()), "`{name}` is read before it is made");
                used.insert(name.as_str());
            }
            for name in &node.output {
                assert!(defined.insert(name), "`{name}` is made twice");
            }
        }
        let made: HashSet<_> = node.iter().flat_map(|node| &node.output).collect();
        assert!(output.iter().all(|output| made.contains(&output.name)));
        let unused = initializer.iter().find(|tensor| !used.contains(tensor.name.as_str()));
        assert!(unused.is_none(), "{unused:?} is not used");
        let unused = input.iter().find(|value| !used.contains(value.name.as_str()));
        assert!(unused.is_none(), "{unused:?} is not used");
    }
}

#[test]
fn inputs_and_outputs_come_back_with_their_shapes() {
    fn check(ours: &[TensorSpec], theirs: &[ValueInfoProto]) {
        assert_eq!(ours.len(), theirs.len());
        for (ours, theirs) in ours.iter().zip(theirs) {
            assert_eq!(ours.name, theirs.name);
            let Some(Kind::TensorType(tensor)) = &theirs.type_.value else { panic!("a tensor") };
            assert_eq!(tensor.elem_type, ours.dtype as i32);
            let sizes =
                tensor.shape.dim.iter().map(|dim| match dim.value.as_ref().expect("a size") {
                    Size::DimValue(n) => n.to_string(),
                    Size::DimParam(name) => {
                        assert!(name.parse::<i64>().is_err());
                        name.clone()
                    }
                    other => panic!("{other:?}"),
                });
            let expected = ours.shape.iter().map(ToString::to_string);
            assert_eq!(sizes.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "{}", ours.name);
        }
    }
    for (graph, read) in read_back() {
        check(&graph.inputs, &read.graph.input);
        check(&graph.outputs, &read.graph.output);
    }
}

#[test]
fn weights_lie_in_the_data_file_and_small_constants_in_the_model() {
    for (graph, read) in read_back() {
        let layout = graph.layout();
        let mut layout = layout.iter();
        let (mut end, mut inline) = (0, 0);
        assert_eq!(graph.initializers.len(), read.graph.initializer.len());
        for (ours, theirs) in graph.initializers.iter().zip(&read.graph.initializer) {
            assert_eq!(
                (ours.name.as_str(), ours.dtype as i32),
                (theirs.name.as_str(), theirs.data_type)
            );
            assert!(theirs.dims.iter().map(|&n| n as usize).eq(ours.dims.iter().copied()));
            if theirs.data_location.enum_value() == Ok(DataLocation::DEFAULT) {
                let Source::Constant(bytes) = &ours.source else {
                    panic!("`{}` is inline", ours.name)
                };
                assert_eq!((bytes, ours.bytes()), (&theirs.raw_data, bytes.len()));
                assert!(theirs.external_data.is_empty());
                inline += 1;
                continue;
            }
            let entry = |key: &str| {
                let entry = theirs.external_data.iter().find(|entry| entry.key == key);
                entry.map(|entry| entry.value.as_str()).expect("an entry")
            };
            let [offset, length] =
                ["offset", "length"].map(|key| entry(key).parse().expect("a size"));
            let (initializer, extent) = layout.next().expect("a place");
            assert_eq!(initializer.name, ours.name);
            assert_eq!((extent.offset, extent.length), (offset, length));
            assert_eq!(entry("location"), graph.data_file());
            assert!(!entry("location").contains('/'));
            assert_eq!(length, ours.bytes() as u64);
            assert!(offset >= end && offset % if length < 4096 { 64 } else { 4096 } == 0);
            assert!(theirs.raw_data.is_empty());
            end = offset + length;
        }
        assert!(layout.next().is_none() && inline > 0);
    }
}
