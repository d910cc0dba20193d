//! The layers that a LoRA can change, by every name that they have anywhere.

use std::collections::BTreeMap;

use hydit_graphs::Component;
use hydit_graphs::naming::{Rows, elsewhere};

use crate::error::shown;

/// The linear layers and convolutions of a model.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// By component and [`flat`] name.
    named: BTreeMap<(Component, String), Named>,
    counts: BTreeMap<Component, usize>,
}

/// A layer as some library has it: one of ours, or several of ours joined.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    name: String,
    pub parts: Vec<Part>,
}

/// One of our layers.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub module: String,
    /// Its rows of the layer that another library has.
    pub rows: Rows,
    /// The shape of its weight.
    pub shape: Vec<usize>,
}

impl Layers {
    /// The layers whose weights are among `tensors`, by component, name and shape. Tensors of one
    /// axis, such as biases, are none.
    pub fn new<'a>(tensors: impl IntoIterator<Item = (Component, &'a str, &'a [usize])>) -> Layers {
        let mut weights = BTreeMap::new();
        for (component, tensor, shape) in tensors {
            if let (Some(module), true) = (tensor.strip_suffix(".weight"), shape.len() > 1) {
                weights.insert((component, module), shape);
            }
        }
        let mut layers = Layers::default();
        for (&(component, module), shape) in &weights {
            *layers.counts.entry(component).or_default() += 1;
            let others = elsewhere(component, module);
            for (name, rows) in others.into_iter().chain([(module.to_string(), Rows::All)]) {
                if rows == Rows::First {
                    continue; // a table, and no layer
                }
                let named = layers.named.entry((component, flat(&name)));
                let named = named.or_insert_with(|| Named { name, parts: Vec::new() });
                named.parts.push(Part { module: module.to_string(), rows, shape: shape.to_vec() });
            }
        }
        layers.named.retain(|_, named| match named.parts[0].rows {
            Rows::Part(_, count) => named.parts.len() == count,
            _ => named.parts.len() == 1,
        });
        layers
    }

    /// Number of layers of a component.
    pub fn count(&self, component: Component) -> usize {
        self.counts.get(&component).copied().unwrap_or(0)
    }

    /// The layer called `layer`, and the component that it is of.
    ///
    /// # Errors
    /// There is none; tells the one with the nearest name.
    pub(crate) fn find(
        &self,
        component: Option<Component>,
        layer: &str,
    ) -> Result<(Component, &Named), String> {
        let flat = flat(layer);
        let components: Vec<Component> =
            Component::ALL.into_iter().filter(|one| component.is_none_or(|c| c == *one)).collect();
        for &component in &components {
            if let Some(named) = self.named.get(&(component, flat.clone())) {
                return Ok((component, named));
            }
        }
        let known = self.named.iter().filter(|((component, _), _)| components.contains(component));
        // What a stranger wrote may be very long.
        let short: String = flat.chars().take(100).collect();
        let nearest = known.min_by_key(|((_, name), _)| edits(&short, name));
        Err(match (nearest, component) {
            (Some(((component, _), named)), _) => format!(
                "the model has no layer {}; the nearest is {} of the {}",
                shown(layer),
                shown(&named.name),
                component.folder()
            ),
            (None, Some(component)) => {
                format!("it changes the {}, which cannot be changed here", component.folder())
            }
            (None, None) => "the model has no layer that can be changed".to_string(),
        })
    }
}

/// A name in which dots are underscores, as some trainers write all of them.
fn flat(name: &str) -> String {
    name.replace('.', "_")
}

/// Number of characters to insert, delete or replace until `a` is `b`.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIT: Component = Component::Transformer;

    fn layers() -> Layers {
        Layers::new([
            (DIT, "blocks.0.attn1.to_q.weight", &[4, 4][..]),
            (DIT, "blocks.0.attn1.to_k.weight", &[4, 4]),
            (DIT, "blocks.0.attn1.to_v.weight", &[4, 4]),
            (DIT, "blocks.0.attn1.to_v.bias", &[4]),
            (DIT, "blocks.0.attn2.to_k.weight", &[4, 3]),
            (DIT, "norm_out.linear.weight", &[8, 4]),
            (Component::TextEncoder, "encoder.layer.0.attention.self.query.weight", &[3, 3]),
        ])
    }

    #[test]
    fn joined_layers_are_found_in_the_order_of_their_rows() {
        let layers = layers();
        assert_eq!(layers.count(DIT), 5);
        let (_, named) = layers.find(None, "blocks_0_attn1_Wqkv").expect("a layer");
        let mut parts: Vec<_> = named.parts.iter().map(|p| (p.rows, p.module.as_str())).collect();
        parts.sort_by_key(|(rows, _)| match rows {
            Rows::Part(i, _) => *i,
            _ => unreachable!("a joined layer"),
        });
        let names = ["to_q", "to_k", "to_v"].map(|end| format!("blocks.0.attn1.{end}"));
        assert!(parts.iter().map(|(_, name)| *name).eq(names.iter().map(String::as_str)));
        let (_, named) = layers.find(Some(DIT), "final.layer.adaLN.modulation.1").expect("a layer");
        assert_eq!(named.parts[0].rows, Rows::SwappedHalves);
        let query = "encoder.layer.0.attention.self.query";
        let (component, _) = layers.find(None, query).expect("a layer");
        assert_eq!(component, Component::TextEncoder);
    }

    #[test]
    fn what_is_no_layer_gets_the_nearest_name() {
        let error = layers().find(Some(DIT), "blocks.0.attn1.to_qq").expect_err("a refusal");
        assert!(error.contains("nearest is `blocks.0.attn1.to_q` of the transformer"), "{error}");
        // Without to_v, which is missing here.
        let error = layers().find(Some(DIT), "blocks.0.attn2.kv_proj").expect_err("a refusal");
        assert!(error.contains("no layer `blocks.0.attn2.kv_proj`"), "{error}");
        let error = layers().find(Some(Component::Vae), "x").expect_err("a refusal");
        assert_eq!(error, "it changes the vae, which cannot be changed here");
    }
}
