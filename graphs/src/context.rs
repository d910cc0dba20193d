//! Files that an execution provider has compiled a graph to: ONNX Runtime's `EPContext` nodes in the
//! place of all others, with what the provider has made in files of its own beside.

use prost::Message;

use crate::check::UnusableGraph;
use crate::onnx::{GraphProto, StringStringEntryProto};

/// What ONNX Runtime writes before the name of a provider.
const COMPATIBILITY: &str = "ep_compatibility_info.";

/// The parts of an ONNX file that a compiled graph has.
#[derive(Clone, PartialEq, Message)]
struct Compiled {
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "14")]
    metadata: Vec<StringStringEntryProto>,
}

/// What a compiled graph says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// Names of the provider's files, as the nodes have them; none where the nodes hold all.
    pub files: Vec<String>,
    /// The provider's own words for where it runs, if it has left any.
    pub compatibility: Option<String>,
}

impl Context {
    /// Reads the ONNX file `bytes` that `provider`, by ONNX Runtime's name of it, has made.
    ///
    /// # Errors
    /// It is no ONNX file, or has nodes or weights that are not compiled.
    pub fn read(bytes: &[u8], provider: &str) -> Result<Context, UnusableGraph> {
        let wrong = |why: &str| UnusableGraph(why.to_string());
        let model = Compiled::decode(bytes).map_err(|_| wrong("not an ONNX file"))?;
        let graph = model.graph.ok_or_else(|| wrong("an ONNX file without a graph"))?;
        let compiled = graph.node.iter().all(|node| node.op_type.as_deref() == Some("EPContext"));
        if graph.node.is_empty() || !compiled || !graph.initializer.is_empty() {
            return Err(wrong("it has parts that are not compiled"));
        }
        let mut files = Vec::new();
        for node in &graph.node {
            let find = |name: &str| {
                node.attribute.iter().find(|attribute| attribute.name.as_deref() == Some(name))
            };
            let embedded = find("embed_mode").is_none_or(|mode| mode.i != Some(0));
            if let Some(file) = find("ep_cache_context").filter(|_| !embedded) {
                let name = String::from_utf8(file.s.clone().unwrap_or_default());
                files.push(name.map_err(|_| wrong("it names a file that is not text"))?);
            }
        }
        let key = format!("{COMPATIBILITY}{provider}");
        let words = model.metadata.into_iter().find(|entry| entry.key.as_ref() == Some(&key));
        Ok(Context { files, compatibility: words.and_then(|entry| entry.value) })
    }
}

/// An ONNX file of nothing but the `words` that `provider` has left in another.
pub fn with_words_alone(provider: &str, words: &str) -> Vec<u8> {
    let key = Some(format!("{COMPATIBILITY}{provider}"));
    let entry = StringStringEntryProto { key, value: Some(words.to_string()) };
    Compiled { graph: None, metadata: vec![entry] }.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::{AttributeProto, NodeProto, TensorProto};

    fn node(embed_mode: i64, context: &[u8]) -> NodeProto {
        let attribute = |name: &str, i, s: Option<&[u8]>| AttributeProto {
            name: Some(name.to_string()),
            i,
            s: s.map(<[u8]>::to_vec),
            ..Default::default()
        };
        NodeProto {
            op_type: Some("EPContext".to_string()),
            attribute: vec![
                attribute("embed_mode", Some(embed_mode), None),
                attribute("ep_cache_context", None, Some(context)),
            ],
            ..Default::default()
        }
    }

    fn read(nodes: Vec<NodeProto>, weights: Vec<TensorProto>) -> Result<Context, String> {
        let graph = Some(GraphProto { node: nodes, initializer: weights, ..Default::default() });
        let told = Compiled::decode(&with_words_alone("Mine", "runs here")[..]).expect("our own");
        let model = Compiled { graph, ..told };
        Context::read(&model.encode_to_vec(), "Mine").map_err(|error| error.to_string())
    }

    #[test]
    fn files_of_a_context_are_those_that_its_nodes_do_not_hold() {
        let both = read(vec![node(0, b"a.bin"), node(1, b"\xFF\x00")], Vec::new());
        let both = both.expect("a context");
        assert_eq!(both.files, ["a.bin"]);
        assert_eq!(both.compatibility.as_deref(), Some("runs here"));
    }

    #[test]
    fn what_is_not_wholly_compiled_is_refused() {
        let other = NodeProto { op_type: Some("MatMul".to_string()), ..Default::default() };
        let not_compiled = Err("it has parts that are not compiled".to_string());
        assert_eq!(read(vec![node(0, b"a.bin"), other], Vec::new()), not_compiled);
        assert_eq!(read(vec![node(0, b"a.bin")], vec![TensorProto::default()]), not_compiled);
        assert_eq!(read(Vec::new(), Vec::new()), not_compiled);
        assert!(read(vec![node(0, b"\xFF")], Vec::new()).is_err());
        assert!(Context::read(b"ONNX", "Mine").is_err());
        assert!(Context::read(&with_words_alone("Mine", ""), "Mine").is_err());
    }
}
