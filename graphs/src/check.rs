//! A graph's file that came from elsewhere, checked before an engine reads it: it consists of what
//! this crate writes and nothing else, and its weights are in files that are known.
//!
//! ONNX has more ways to name a file (attributes, subgraphs, functions), and engines differ in what
//! they make of numbers that do not fit. None of that is left to them.

use prost::Message;

use crate::onnx::{DataLocation, ModelProto, TensorProto};
use crate::tensor::DType;

/// The reason why a graph's file is not given to an engine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnusableGraph(pub(crate) String);

/// Checks the bytes of an ONNX file whose weights are in `files` of these names and lengths.
///
/// # Errors
/// It is not a file that this crate could have written, or names weights elsewhere.
pub fn check_file(bytes: &[u8], files: &[(&str, u64)]) -> Result<(), UnusableGraph> {
    let wrong = |why: &str| Err(UnusableGraph(why.to_string()));
    let Ok(model) = ModelProto::decode(bytes) else { return wrong("not an ONNX file") };
    // What is not declared is passed over, and not written again.
    if model.encode_to_vec() != bytes {
        return wrong("it has parts that hydit-export does not write");
    }
    let Some(graph) = model.graph else { return wrong("an ONNX file without a graph") };
    let mut attributes = graph.node.iter().flat_map(|node| &node.attribute);
    if attributes.any(|attribute| attribute.g.is_some()) {
        return wrong("it has graphs inside of its graph, which hydit-export does not write");
    }
    for tensor in &graph.initializer {
        check_tensor(tensor, files).map_err(|why| {
            let name = tensor.name.as_deref().unwrap_or_default();
            let name: String = name.chars().take(100).flat_map(char::escape_debug).collect();
            UnusableGraph(format!("its tensor `{name}` {why}"))
        })?;
    }
    Ok(())
}

fn check_tensor(tensor: &TensorProto, files: &[(&str, u64)]) -> Result<(), &'static str> {
    let dtype = tensor.data_type.and_then(DType::from_repr);
    let size = dtype.ok_or("is of an unknown type")?.size() as u64;
    let bytes = tensor
        .dims
        .iter()
        .try_fold(size, |bytes, &dim| bytes.checked_mul(u64::try_from(dim).ok()?));
    let bytes = bytes.ok_or("has an impossible shape")?;
    if tensor.data_location != Some(DataLocation::External as i32) {
        let inline = tensor.raw_data.as_ref().map_or(0, Vec::len) as u64;
        let whole = inline == bytes && tensor.external_data.is_empty();
        return if whole { Ok(()) } else { Err("does not fill its shape") };
    }
    let entry = |key: &str| {
        let found = tensor.external_data.iter().find(|entry| entry.key.as_deref() == Some(key));
        found.and_then(|entry| entry.value.as_deref())
    };
    let number = |key| entry(key).and_then(|text| text.parse::<u64>().ok());
    let known = files.iter().find(|(name, _)| entry("location") == Some(name));
    let Some((_, length)) = known.filter(|_| tensor.external_data.len() == 3) else {
        return Err("is not in the file with the weights");
    };
    let (Some(offset), Some(found)) = (number("offset"), number("length")) else {
        return Err("has no place in the file with the weights");
    };
    if found != bytes || tensor.raw_data.is_some() {
        return Err("does not fill its shape");
    }
    match offset.checked_add(bytes) {
        Some(end) if end <= *length => Ok(()),
        _ => Err("ends beyond the file with the weights"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::{AttributeProto, StringStringEntryProto};
    use crate::{Graph, Precision, Symbol};

    /// A product with a matrix in the file beside.
    fn model() -> (ModelProto, u64) {
        let graph = Graph::new("product", Precision::Fp32);
        let x = graph.input("x", DType::F32, &[Symbol::Batch.into(), 32.into()]);
        graph.output("y", x.matmul(graph.floats("w", &[32, 32], &[0.5; 1024])));
        let graph = graph.finish();
        let length = graph.layout().iter().map(|(_, extent)| extent.length).sum();
        (ModelProto::decode(&graph.encode()[..]).expect("our own"), length)
    }

    fn weights(model: &mut ModelProto) -> &mut TensorProto {
        &mut model.graph.as_mut().expect("a graph").initializer[0]
    }

    fn entry<'a>(model: &'a mut ModelProto, key: &str) -> &'a mut StringStringEntryProto {
        let mut entries = weights(model).external_data.iter_mut();
        entries.find(|entry| entry.key.as_deref() == Some(key)).expect("an entry")
    }

    #[test]
    fn what_this_crate_writes_is_fine_and_nothing_else() {
        let (good, length) = model();
        let check = |bytes: &[u8]| check_file(bytes, &[("product.onnx.data", length)]);
        assert_eq!(check(&good.encode_to_vec()), Ok(()));
        type Forge = fn(&mut ModelProto);
        let set = |key: &'static str, value: &'static str| {
            let (mut forged, _) = model();
            entry(&mut forged, key).value = Some(value.to_string());
            forged.encode_to_vec()
        };
        let forge = |forge: Forge| {
            let (mut forged, _) = model();
            forge(&mut forged);
            forged.encode_to_vec()
        };
        let unknown = |field: &[u8]| [&good.encode_to_vec(), field].concat();
        let cases = [
            (b"ONNX".to_vec(), "not an ONNX file"),
            (Vec::new(), "without a graph"),
            // `training_info`, `functions` and a field of tomorrow.
            (unknown(&[0xA2, 1, 0]), "parts that hydit-export does not write"),
            (unknown(&[0xCA, 1, 0]), "parts that hydit-export does not write"),
            (unknown(&[0xF8, 7, 1]), "parts that hydit-export does not write"),
            (set("location", "../product.onnx.data"), "`w` is not in the file with the weights"),
            (set("location", "/etc/passwd"), "is not in the file with the weights"),
            (set("offset", "-1"), "has no place"),
            (set("offset", "9".repeat(30).leak()), "has no place"),
            (set("offset", "1"), "ends beyond"),
            (set("offset", "18446744073709551615"), "ends beyond"),
            (set("length", "4"), "does not fill its shape"),
            (set("length", "much"), "has no place"),
            (
                forge(|model| {
                    let graph = model.graph.as_mut().expect("a graph");
                    let inner = AttributeProto { g: Some(graph.clone()), ..Default::default() };
                    graph.node[0].attribute.push(inner);
                }),
                "graphs inside of its graph",
            ),
            (forge(|model| weights(model).dims = vec![-1, 32]), "an impossible shape"),
            (forge(|model| weights(model).dims = vec![1 << 40, 1 << 40]), "an impossible shape"),
            (forge(|model| weights(model).dims = vec![31, 32]), "does not fill its shape"),
            (forge(|model| weights(model).data_type = Some(8)), "an unknown type"),
            (forge(|model| weights(model).data_type = None), "an unknown type"),
            (forge(|model| weights(model).raw_data = Some(vec![0; 4096])), "does not fill"),
            (forge(|model| weights(model).data_location = None), "does not fill its shape"),
            (forge(|model| weights(model).external_data.truncate(2)), "is not in the file"),
            (forge(|model| weights(model).name = Some("a\nb".into())), "fine"),
        ];
        for (bytes, expected) in cases {
            match check(&bytes) {
                Ok(()) => assert_eq!(expected, "fine"),
                Err(error) => assert!(error.to_string().contains(expected), "{expected}: {error}"),
            }
        }
    }

    #[test]
    fn a_tensor_in_an_attribute_is_refused() {
        let (mut forged, length) = model();
        let attribute = AttributeProto { name: Some("value".into()), ..Default::default() };
        let node = &mut forged.graph.as_mut().expect("a graph").node[0];
        node.attribute.push(attribute);
        let mut bytes = forged.encode_to_vec();
        assert_eq!(check_file(&bytes, &[("product.onnx.data", length)]), Ok(()));
        // The attribute's name gives way to its field 5, a tensor, of the same length.
        let name = bytes.windows(7).position(|w| w == b"\x0a\x05value").expect("the name");
        bytes[name] = 0x2A;
        assert!(check_file(&bytes, &[("product.onnx.data", length)]).is_err());
    }
}
