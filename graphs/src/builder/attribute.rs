//! Attributes of nodes.

use crate::onnx::{AttributeProto, AttributeType};

/// The value of a node's attribute.
pub(crate) enum Attribute {
    Int(i64),
    Float(f32),
    Ints(Vec<i64>),
    Text(&'static str),
}

impl Attribute {
    pub(super) fn proto(&self, name: &str) -> AttributeProto {
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
