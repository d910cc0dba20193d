//! The outputs of a graph's blocks, which a graph that runs keeps to itself: found in its file, and
//! declared outputs of a copy of it.

use prost::Message;

use crate::onnx::{ModelProto, ValueInfoProto};

/// A block of a graph: a layer of a model, or a part of the image decoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Name of the block's weights in the checkpoint, such as `blocks.17`.
    pub name: String,
    /// The place of its output among those of the graph.
    pub output: usize,
}

/// A copy of a graph with the output of every block among its outputs, after its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The ONNX file. The weights stay in the file beside the original.
    pub file: Vec<u8>,
    /// The number of outputs that the graph has itself.
    pub own: usize,
    /// The blocks, in the order in which they run.
    pub blocks: Vec<Block>,
}

/// Opens the blocks of the ONNX file `bytes`, which [`GraphDef::encode`](crate::GraphDef::encode)
/// has made.
///
/// # Errors
/// `bytes` are not an ONNX file.
pub fn open(bytes: &[u8]) -> Result<Opened, prost::DecodeError> {
    let mut model = ModelProto::decode(bytes)?;
    let graph = model.graph.get_or_insert_default();
    let own = graph.output.len();
    // The last node of a block makes its output.
    let mut ends: Vec<(String, String)> = Vec::new();
    for node in &graph.node {
        let block = node.name.as_deref().and_then(block_of);
        if let (Some(block), Some(output)) = (block, node.output.first()) {
            ends.retain(|(known, _)| *known != block);
            ends.push((block, output.clone()));
        }
    }
    let mut blocks = Vec::new();
    for (name, value) in ends {
        let known = graph.output.iter().position(|output| output.name.as_ref() == Some(&value));
        let output = known.unwrap_or(graph.output.len());
        if known.is_none() {
            // Engines find the type themselves.
            graph.output.push(ValueInfoProto { name: Some(value), r#type: None });
        }
        blocks.push(Block { name, output });
    }
    Ok(Opened { file: model.encode_to_vec(), own, blocks })
}

/// The block that a node called `name` belongs to: `blocks.17` of `blocks/17/attn1/MatMul_9`.
fn block_of(name: &str) -> Option<String> {
    let (scope, _) = name.rsplit_once('/')?;
    let parts: Vec<&str> = scope.split('/').collect();
    let number = parts.iter().position(|part| part.parse::<usize>().is_ok())?;
    Some(parts[..=number].join("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{HunyuanDitConfig, T5Config};
    use crate::{GraphDef, Precision, hunyuan_dit, t5};

    /// For each block of `graph` its name, and that of the node which makes its output.
    fn ends(graph: &GraphDef) -> Vec<(String, String)> {
        let Opened { file, own, blocks } = open(&graph.encode()).expect("our own file");
        assert_eq!(own, graph.outputs.len());
        let file = ModelProto::decode(&file[..]).expect("ONNX").graph.expect("a graph");
        let end = |block: Block| {
            let value = file.output[block.output].name.clone().expect("a name");
            let node = file.node.iter().find(|node| node.output[0] == value).expect("a node");
            (block.name, node.name.clone().expect("a name"))
        };
        let ends = blocks.into_iter().map(end).collect();
        let declared = file.output[..own].iter().map(|output| output.name.as_deref());
        assert!(declared.eq(graph.outputs.iter().map(|output| Some(output.name.as_str()))));
        ends
    }

    #[test]
    fn every_block_ends_in_an_output_and_the_own_ones_come_first() {
        let cfg = HunyuanDitConfig { num_layers: 6, attention_head_dim: 72, ..Default::default() };
        let ends = ends(&hunyuan_dit::deep_core(&cfg, 1, Precision::Fp16));
        let names: Vec<&str> = ends.iter().map(|(block, _)| block.as_str()).collect();
        assert_eq!(names, ["blocks.1", "blocks.2", "blocks.3", "blocks.4"]);
        for (block, node) in ends {
            assert!(node.starts_with(&format!("{}/Add_", block.replace('.', "/"))), "{node}");
        }
    }

    #[test]
    fn a_layer_of_t5_ends_where_its_feed_forward_is_added() {
        let text = r#"{"vocab_size": 32, "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2,
            "num_heads": 4, "relative_attention_num_buckets": 8,
            "relative_attention_max_distance": 20, "layer_norm_epsilon": 1e-6,
            "feed_forward_proj": "gated-gelu"}"#;
        let cfg = T5Config::from_json(text).expect("a config");
        let ends = ends(&t5::text_encoder_2(&cfg, 5, Precision::Fp32));
        let [(first, end), (second, _)] = &ends[..] else { panic!("{ends:?}") };
        assert_eq!([first, second], ["encoder.block.0", "encoder.block.1"]);
        assert!(end.starts_with("encoder/block/0/Add_"), "{end}");
    }
}
