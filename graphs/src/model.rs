//! A [`GraphDef`] as bytes: the ONNX file, and the layout of the data file beside it.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;

use crate::builder::GraphDef;
use crate::dim::Dim;
use crate::onnx;
use crate::tensor::{DType, Initializer, Source, TensorSpec};

/// ONNX operator set: the newest whose operators ONNX Runtime, TensorRT 10 and tract all run.
const OPSET: i64 = 20;

/// The operator set of graphs with 8-bit floats: the first whose `Transpose` takes them, to before
/// which ONNX Runtime moves their rounding.
const OPSET_OF_FP8: i64 = 21;

/// Version of the ONNX file format.
pub const IR_VERSION: i64 = 10;

/// Constants up to this many bytes stay in the ONNX file.
const INLINE: usize = 1024;

/// Large tensors start on a page, so that they can be mapped; small ones on a cache line.
const PAGE: u64 = 4096;
const LINE: u64 = 64;

/// The bytes of the data file that hold an initializer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Offset of the first byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
}

impl GraphDef {
    /// The name of the ONNX file.
    pub fn file(&self) -> String {
        format!("{}.onnx", self.name)
    }

    /// The name of the data file.
    pub fn data_file(&self) -> String {
        format!("{}.onnx.data", self.name)
    }

    /// The ONNX operator set that its nodes are of.
    pub fn opset(&self) -> i64 {
        opset(self.initializers.iter().map(|initializer| initializer.dtype as i32))
    }

    /// The number of parameters that the graph has from the checkpoint.
    pub fn parameters(&self) -> u64 {
        let shapes: BTreeMap<&str, &[usize]> = self.tensors().collect();
        shapes.values().map(|dims| dims.iter().product::<usize>() as u64).sum()
    }

    /// The tensors of the checkpoint that the graph reads, by their names and shapes there. A
    /// tensor that becomes several initializers comes several times.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.initializers.iter().filter_map(|initializer| match &initializer.source {
            Source::Checkpoint { tensor, dims, .. } => Some((tensor.as_str(), dims.as_slice())),
            Source::File { tensor, .. } => Some((tensor.as_str(), initializer.dims.as_slice())),
            Source::Constant(_) => None,
        })
    }

    /// The files of the checkpoint that the graph reads weights from.
    pub fn files_in_place(&self) -> BTreeSet<&str> {
        let files = self.initializers.iter().filter_map(|initializer| match &initializer.source {
            Source::File { file, .. } => Some(file.as_str()),
            _ => None,
        });
        files.collect()
    }

    /// The initializers of the data file in its order, with the bytes that they take.
    pub fn layout(&self) -> Vec<(&Initializer, Extent)> {
        let mut end = 0u64;
        let mut layout = Vec::new();
        for initializer in self.initializers.iter().filter(|i| is_in_data_file(i)) {
            let length = initializer.bytes() as u64;
            let offset = end.next_multiple_of(if length < PAGE { LINE } else { PAGE });
            end = offset + length;
            layout.push((initializer, Extent { offset, length }));
        }
        layout
    }

    /// The bytes of the ONNX file.
    pub fn encode(&self) -> Vec<u8> {
        onnx_file(self.graph(), &self.domains).encode_to_vec()
    }

    /// The graph as it is in the ONNX file.
    pub(crate) fn graph(&self) -> onnx::GraphProto {
        let external = self.layout();
        let mut external = external.iter();
        let initializer = self
            .initializers
            .iter()
            .map(|initializer| match &initializer.source {
                Source::Constant(bytes) if is_inline(initializer) => {
                    onnx::TensorProto { raw_data: Some(bytes.clone()), ..header(initializer) }
                }
                Source::File { file, offset, .. } => {
                    let length = initializer.bytes() as u64;
                    outside(initializer, file, Extent { offset: *offset, length })
                }
                _ => {
                    let (_, extent) = external.next().expect("the layout has every other one");
                    outside(initializer, &self.data_file(), *extent)
                }
            })
            .collect();
        onnx::GraphProto {
            node: self.nodes.clone(),
            name: Some(self.name.clone()),
            initializer,
            input: self.inputs.iter().map(value_info).collect(),
            output: self.outputs.iter().map(value_info).collect(),
        }
    }
}

/// The ONNX file with the graph `graph`, whose nodes use `domains` besides the standard one.
pub(crate) fn onnx_file(graph: onnx::GraphProto, domains: &[&str]) -> onnx::ModelProto {
    let opset = opset(graph.initializer.iter().filter_map(|tensor| tensor.data_type));
    onnx::ModelProto {
        ir_version: Some(IR_VERSION),
        producer_name: Some("hydit-export".to_string()),
        producer_version: Some(env!("CARGO_PKG_VERSION").to_string()),
        opset_import: std::iter::once(("", opset))
            .chain(domains.iter().map(|&domain| (domain, 1)))
            .map(|(domain, version)| onnx::OperatorSetIdProto {
                domain: Some(domain.to_string()),
                version: Some(version),
            })
            .collect(),
        graph: Some(graph),
    }
}

/// The operator set of a graph with weights and constants of `types`.
fn opset(mut types: impl Iterator<Item = i32>) -> i64 {
    if types.any(|dtype| dtype == DType::F8E4M3FN as i32) { OPSET_OF_FP8 } else { OPSET }
}

fn is_in_data_file(initializer: &Initializer) -> bool {
    !is_inline(initializer) && !matches!(initializer.source, Source::File { .. })
}

fn is_inline(initializer: &Initializer) -> bool {
    matches!(&initializer.source, Source::Constant(bytes) if bytes.len() <= INLINE)
}

/// An initializer whose elements are in `file`.
fn outside(initializer: &Initializer, file: &str, extent: Extent) -> onnx::TensorProto {
    let entries = [
        ("location", file.to_string()),
        ("offset", extent.offset.to_string()),
        ("length", extent.length.to_string()),
    ];
    let entry = |(key, value): (&str, String)| onnx::StringStringEntryProto {
        key: Some(key.to_string()),
        value: Some(value),
    };
    onnx::TensorProto {
        external_data: entries.map(entry).to_vec(),
        data_location: Some(onnx::DataLocation::External as i32),
        ..header(initializer)
    }
}

fn header(initializer: &Initializer) -> onnx::TensorProto {
    onnx::TensorProto {
        name: Some(initializer.name.clone()),
        dims: initializer.dims.iter().map(|&n| n as i64).collect(),
        data_type: Some(initializer.dtype as i32),
        ..Default::default()
    }
}

fn value_info(spec: &TensorSpec) -> onnx::ValueInfoProto {
    let sizes: Vec<String> = spec.shape.iter().map(Dim::to_string).collect();
    value(&spec.name, spec.dtype, Some(&sizes))
}

/// A value whose axes have these sizes, which are numbers or symbols; without a shape, engines find
/// it themselves.
pub(crate) fn value(name: &str, dtype: DType, shape: Option<&[String]>) -> onnx::ValueInfoProto {
    let size = |size: &String| onnx::DimensionProto {
        value: Some(match size.parse() {
            Ok(number) => onnx::DimensionValue::DimValue(number),
            Err(_) => onnx::DimensionValue::DimParam(size.clone()),
        }),
    };
    let shape = shape.map(|sizes| onnx::TensorShapeProto { dim: sizes.iter().map(size).collect() });
    let tensor_type = Some(onnx::TensorTypeProto { elem_type: Some(dtype as i32), shape });
    onnx::ValueInfoProto {
        name: Some(name.to_string()),
        r#type: Some(onnx::TypeProto { tensor_type }),
    }
}
