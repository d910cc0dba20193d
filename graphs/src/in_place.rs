//! Weights read where the checkpoint has them, as they lie there.

use crate::builder::GraphDef;
use crate::onnx::{AttributeProto, AttributeType, NodeProto};
use crate::tensor::{DType, Initializer, Source, Transform};

/// The bytes of a file that are a tensor of the checkpoint, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Name of the file, which is beside the ONNX file.
    pub file: String,
    /// Offset of the first byte.
    pub offset: u64,
    /// Element type in the file.
    pub dtype: DType,
}

impl GraphDef {
    /// Makes the graph read its weights from the places that `place` gives for the names of tensors,
    /// and turn and convert them itself. Engines do that once, when they load the graph. Weights of
    /// 8 bits, and those without a place, stay in the data file.
    pub fn read_in_place(&mut self, place: impl Fn(&str) -> Option<Place>) {
        let mut nodes = Vec::new();
        for initializer in &mut self.initializers {
            let Source::Checkpoint { tensor, dims, transform } = &initializer.source else {
                continue;
            };
            let turned = match transform {
                Transform::Keep => false,
                Transform::Transpose => true,
                Transform::Quantize
                | Transform::Scales
                | Transform::Narrow
                | Transform::NarrowScale => continue,
            };
            let Some(Place { file, offset, dtype }) = place(tensor) else { continue };
            let dims = if turned { dims.clone() } else { initializer.dims.clone() };
            let source = Source::File { tensor: tensor.clone(), file, offset };
            let (name, wanted) = (initializer.name.clone(), initializer.dtype);
            let changes = change(&name, turned, (dtype != wanted).then_some(wanted));
            let stored = changes.first().map_or(&name, |first| &first.input[0]).clone();
            *initializer = Initializer { name: stored, dims, dtype, source };
            nodes.extend(changes);
        }
        self.nodes.splice(0..0, nodes);
    }
}

/// The nodes that make the weight `name` of what is stored: none, if nothing is to be done.
fn change(name: &str, turned: bool, dtype: Option<DType>) -> Vec<NodeProto> {
    let turn = AttributeProto {
        name: Some("perm".to_string()),
        ints: vec![1, 0],
        r#type: Some(AttributeType::Ints as i32),
        ..AttributeProto::default()
    };
    let to = |dtype| AttributeProto {
        name: Some("to".to_string()),
        i: Some(dtype as i64),
        r#type: Some(AttributeType::Int as i32),
        ..AttributeProto::default()
    };
    let turn = turned.then_some(("Transpose", turn));
    let steps: Vec<_> = turn.into_iter().chain(dtype.map(|dtype| ("Cast", to(dtype)))).collect();
    let last = steps.len();
    let value = |i: usize| match i {
        i if i == last => name.to_string(),
        0 => format!("{name}/stored"),
        _ => format!("{name}/turned"),
    };
    let node = |(i, (op, attribute))| NodeProto {
        name: Some(format!("{op}/{name}")),
        op_type: Some(str::to_string(op)),
        input: vec![value(i)],
        output: vec![value(i + 1)],
        attribute: vec![attribute],
        ..NodeProto::default()
    };
    steps.into_iter().enumerate().map(node).collect()
}
